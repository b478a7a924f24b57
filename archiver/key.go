package archiver

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

// Names of the objects of one archive, below its directory.
const (
	DumpName     = "archive.dump"
	IndexName    = "index.json.gz"
	GlobalsName  = "globals.sql"
	ManifestName = "manifest.json"
	// EncryptedSuffix follows the names of encrypted objects.
	EncryptedSuffix = ".age"
	// SignatureName is the manifest's SSH signature.
	SignatureName = ManifestName + ".sig"
	// RecordsDir holds facts that came later, such as verifications.
	RecordsDir = "records/"
)

const (
	keyTime = "20060102T150405Z"
	idLen   = 8
	// Crockford's base32, lower case: no i, l, o, u.
	idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

// Dir is the place of one archive in a bucket:
// <policy>/<database>/<20261122T141500Z>-<id>/.
type Dir struct {
	Policy string
	Label  string
	Time   time.Time // UTC, whole seconds
	ID     string
}

// NewDir makes the place of a new archive, with a fresh random id.
func NewDir(policy, label string, now time.Time) (Dir, error) {
	for _, s := range []string{policy, label} {
		if err := CheckLabel(s); err != nil {
			return Dir{}, err
		}
	}
	return Dir{Policy: policy, Label: label, Time: now.UTC().Truncate(time.Second), ID: newID()}, nil
}

// String is the key prefix, with the "/" at its end.
func (d Dir) String() string {
	return fmt.Sprintf("%s/%s/%s-%s/", d.Policy, d.Label, d.Time.UTC().Format(keyTime), d.ID)
}

// Key is the key of one of the archive's objects.
func (d Dir) Key(name string) string { return d.String() + name }

// ParseKey splits a key into its archive's directory and the object's name
// below it. ok is false for every key that this package would not have made:
// such keys are never touched.
func ParseKey(key string) (d Dir, name string, ok bool) {
	parts := strings.SplitN(key, "/", 4)
	if len(parts) != 4 || !validName(parts[3]) {
		return Dir{}, "", false
	}
	d.Policy, d.Label = parts[0], parts[1]
	stamp, id, found := strings.Cut(parts[2], "-")
	if !found || !ValidID(id) || CheckLabel(d.Policy) != nil || CheckLabel(d.Label) != nil {
		return Dir{}, "", false
	}
	t, err := time.Parse(keyTime, stamp)
	if err != nil {
		return Dir{}, "", false
	}
	d.Time, d.ID = t, id
	// time.Parse is lenient (fractions of a second): only what comes back is ours.
	if d.Key(parts[3]) != key {
		return Dir{}, "", false
	}
	return d, parts[3], true
}

// validName reports whether name is one that pgstow writes, now or in a later
// minor release of this format.
func validName(name string) bool {
	switch name {
	case DumpName, DumpName + EncryptedSuffix, IndexName, IndexName + EncryptedSuffix,
		GlobalsName, GlobalsName + EncryptedSuffix, ManifestName, SignatureName:
		return true
	}
	rest, isRecord := strings.CutPrefix(name, RecordsDir)
	return isRecord && rest != "" && !strings.Contains(rest, "/")
}

// ValidID reports whether s is a whole archive id.
func ValidID(s string) bool { return len(s) == idLen && validIDPrefix(s) }

// validIDPrefix reports whether ids can start with s: the first character is
// a letter, so that no id looks like a date.
func validIDPrefix(s string) bool {
	if s == "" || len(s) > idLen || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if strings.IndexByte(idAlphabet, s[i]) < 0 {
			return false
		}
	}
	return true
}

// newID draws an id: 22 letters, then seven times 32 characters.
func newID() string {
	letters := idAlphabet[10:]
	b := make([]byte, idLen)
	_, _ = rand.Read(b) // never fails; it ends the program instead
	// A byte modulo 22 is uneven by a fraction that does not matter for uniqueness.
	id := []byte{letters[int(b[0])%len(letters)]}
	for _, c := range b[1:] {
		id = append(id, idAlphabet[c&31])
	}
	return string(id)
}
