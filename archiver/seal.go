package archiver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/pgstow/pgstow/dumper"
)

// Plain is what is inside an encrypted object: the hashes that guard a restore
// are those of the plain bytes.
type Plain struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Encrypted reports whether the object is an age file.
func (o *StoredObject) Encrypted() bool { return o.Plain != nil }

// plainSize is the size of what is in the object once it is decrypted.
func (o *StoredObject) plainSize() int64 {
	if o.Plain != nil {
		return o.Plain.Size
	}
	return o.Size
}

// plainSHA256 is the hash of that; "" where head and body have theirs.
func (o *StoredObject) plainSHA256() string {
	if o.Plain != nil {
		return o.Plain.SHA256
	}
	return o.SHA256
}

// name is what an object is called below its archive when it is encrypted to r.
func (r Recipients) name(name string) string {
	if r.IsZero() {
		return name
	}
	return name + EncryptedSuffix
}

// sealReader is an age file of what src delivers, hashed as it passes. Its last
// chunk, without which nobody takes the file for whole, is made when src has
// returned a bare io.EOF, and by nothing else.
type sealReader struct {
	sealed io.Reader
	sum    hash.Hash
	size   int64
}

func newSealReader(src io.Reader, to Recipients) (*sealReader, error) {
	sealed, err := age.EncryptReader(src, to.list...)
	if err != nil {
		return nil, refusedRecipients(err)
	}
	return &sealReader{sealed: sealed, sum: sha256.New()}, nil
}

func (s *sealReader) Read(p []byte) (int, error) {
	n, err := s.sealed.Read(p)
	s.sum.Write(p[:n])
	s.size += int64(n)
	return n, err
}

// describe makes the description of a plain object that of the age file.
func (s *sealReader) describe(o *StoredObject) {
	o.Plain = &Plain{Size: o.Size, SHA256: o.SHA256}
	o.Size, o.SHA256 = s.size, hex.EncodeToString(s.sum.Sum(nil))
}

// seal encrypts a small object whole.
func seal(data []byte, to Recipients) ([]byte, error) {
	sealed, err := newSealReader(bytes.NewReader(data), to)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(sealed)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return raw, nil
}

// checkSealing refuses what must not run, before anything else is done.
func (r *archiveRun) checkSealing() error {
	to := r.opts.Recipients
	switch {
	case to.IsZero() && r.opts.RequireEncryption:
		return fmt.Errorf("%w: policy %q wants archives encrypted, and there are no recipients; give --encrypt-to", ErrUsage, r.opts.Policy.segment())
	case to.IsZero() && r.opts.RolePasswords:
		return fmt.Errorf("%w: --role-passwords takes password hashes into the archive, which has to be encrypted then; give --encrypt-to", ErrUsage)
	case r.opts.RolePasswords && r.opts.NoGlobals:
		return fmt.Errorf("%w: --role-passwords and --no-globals exclude each other", ErrUsage)
	case to.IsZero():
		return nil
	}
	return to.check()
}

// sealing is what the upload of the dump reads; sealed is nil for a plain one.
func (r *archiveRun) sealing(stream *dumpStream) (reader uploadReader, sealed *sealReader, err error) {
	if r.opts.Recipients.IsZero() {
		return uploadReader{Reader: stream, stream: stream}, nil, nil
	}
	if sealed, err = newSealReader(stream, r.opts.Recipients); err != nil {
		return uploadReader{}, nil, err
	}
	return uploadReader{Reader: sealed, stream: stream}, sealed, nil
}

// globalsFault: what was asked for by name is not left out with a warning.
func (r *archiveRun) globalsFault(err error) error {
	if errors.Is(err, dumper.ErrGlobals) {
		return fmt.Errorf("--role-passwords: %w; superusers and members of pg_read_all_data may read them: dump as one, or leave the option out", err)
	}
	return err
}

// Withheld is what the manifest of an encrypted archive leaves out because it may
// name tables. It stands in the index, which is encrypted.
type Withheld struct {
	PgDumpArgs     []string `json:"pg_dump_args,omitempty"`
	EvidenceReason string   `json:"evidence_reason,omitempty"`
	Warnings       []string `json:"warnings,omitempty"`
}

// withhold moves what may name tables from the manifest of an encrypted archive
// into its index; ix is nil where there is none, and then nobody keeps it.
func (r *archiveRun) withhold(ix *Index) {
	m := r.manifest
	if r.opts.Recipients.IsZero() {
		return
	}
	w := Withheld{PgDumpArgs: m.Tools.PgDumpArgs, EvidenceReason: m.EvidenceReason, Warnings: m.Warnings}
	m.Tools.PgDumpArgs = hideValues(m.Tools.PgDumpArgs)
	where := "in the index, which is encrypted"
	if ix == nil {
		where = "when the archive was made"
	} else if w.EvidenceReason != "" {
		m.EvidenceReason = "told " + where
	}
	if n := len(w.Warnings); n > 0 {
		m.Warnings = []string{fmt.Sprintf("%d told %s", n, where)}
	}
	if ix != nil && (len(w.PgDumpArgs) > 0 || w.EvidenceReason != "" || len(w.Warnings) > 0) {
		ix.Withheld = &w
	}
}

// hideValues leaves of pg_dump's options their names. In place of each value
// stand the first digits of its SHA-256, so that expire can tell equal options.
func hideValues(args []string) []string {
	var list []string
	for _, arg := range args {
		name, value, given := strings.Cut(arg, "=")
		switch {
		case strings.HasPrefix(arg, "--") && !given:
			list = append(list, arg)
			continue
		case strings.HasPrefix(arg, "--"):
			name += "="
		case len(arg) > 1 && arg[0] == '-':
			name, value = arg[:2], arg[2:]
		default:
			name, value = "", arg
		}
		if value != "" {
			value = "#" + hexSum([]byte(value))[:8]
		}
		list = append(list, name+value)
	}
	return list
}
