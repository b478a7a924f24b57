package archiver

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/storage"
)

// DefaultMaxKeep is the longest compliance lock unless another is allowed:
// nobody can undo a typo.
var DefaultMaxKeep = Period{Years: 10}

// maxUserTags leaves two of S3's ten for pgstow's own.
const maxUserTags = 8

// ownTagPrefix starts the keys of pgstow's own tags.
const ownTagPrefix = "pgstow-"

// IsZero reports whether the policy asks for nothing.
func (p Policy) IsZero() bool {
	return p.Name == "" && p.Keep.IsZero() && p.Lock == storage.LockNone && !p.LegalHold && p.StorageClass == "" &&
		p.Encryption == (Encryption{}) && len(p.Transitions) == 0 && len(p.Tags) == 0
}

// segment is the policy's part of the key.
func (p Policy) segment() string {
	if p.Name == "" {
		return DefaultPolicy
	}
	return p.Name
}

// PolicyFault is one thing that is wrong with a policy by itself.
type PolicyFault struct {
	// Field names what is wrong as the configuration file does: "keep",
	// "keep-daily", "tags.owner", "transitions.1" (counted from 0).
	Field string
	Text  string
}

// Check finds what is wrong with a policy by itself (ErrUsage). maxKeep is the
// longest compliance lock; zero is DefaultMaxKeep.
func (p Policy) Check(maxKeep Period) error {
	if f := p.Faults(maxKeep); len(f) > 0 {
		return fmt.Errorf("%w: policy %q: %s", ErrUsage, p.segment(), f[0].Text)
	}
	return nil
}

// Faults is all that Check looks for.
func (p Policy) Faults(maxKeep Period) []PolicyFault {
	if maxKeep.IsZero() {
		maxKeep = DefaultMaxKeep
	}
	var f faults
	if CheckLabel(p.segment()) != nil {
		f.add("name", "no label: use 1 to %d of A-Z a-z 0-9 . _ -", maxLabel)
	}
	p.checkLock(&f, maxKeep)
	p.checkExpiry(&f)
	p.checkEncryption(&f)
	p.checkTags(&f)
	p.checkTransitions(&f)
	return f
}

type faults []PolicyFault

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, PolicyFault{field, fmt.Sprintf(format, args...)})
}

func (p Policy) checkLock(f *faults, maxKeep Period) {
	switch {
	case p.Lock != storage.LockNone && p.Lock != storage.Governance && p.Lock != storage.Compliance:
		f.add("lock", "lock %q; want none, governance or compliance", p.Lock)
	case p.Lock != storage.LockNone && p.Keep.IsZero():
		f.add("lock", "a lock needs to know for how long: set keep")
	case p.Lock == storage.Compliance && p.Keep.LongerThan(maxKeep):
		f.add("keep", "a compliance lock of %s is longer than max-keep, %s; nobody could undo it", p.Keep, maxKeep)
	}
}

// namedCount is a field that counts archives.
type namedCount struct {
	field string
	n     int
}

func (p Policy) spared() []namedCount {
	return []namedCount{
		{"keep-daily", p.KeepDaily}, {"keep-weekly", p.KeepWeekly}, {"keep-monthly", p.KeepMonthly}, {"keep-yearly", p.KeepYearly},
	}
}

func (p Policy) checkExpiry(f *faults) {
	counts := append([]namedCount{{"keep-last", p.KeepLast}}, p.spared()...)
	for i, c := range counts {
		switch {
		case c.n < 0:
			f.add(c.field, "%s keeps %d archives", c.field, c.n)
		case c.n > 0 && p.Expiry == ExpiryStore:
			f.add(c.field, "the store's rules cannot count archives: %s goes with expiry %s", c.field, ExpiryPgstow)
		case c.n > 0 && p.Keep.IsZero():
			f.add(c.field, "%s spares some of the archives whose keep is over, and without a keep none ever is: set keep", c.field)
		case c.n > 0 && i > 0 && p.Lock != storage.LockNone:
			f.add(c.field, "%s spares archives whose keep is over, and with a lock nothing would keep those any more: choose a longer keep, or lock none", c.field)
		}
	}
	switch {
	case p.Expiry != "" && p.Expiry != ExpiryPgstow && p.Expiry != ExpiryStore:
		f.add("expiry", "expiry %q; want %s or %s", p.Expiry, ExpiryPgstow, ExpiryStore)
	case p.Expiry == ExpiryStore && p.Keep.IsZero():
		f.add("expiry", "expiry by the store needs to know when: set keep")
	case p.Expiry == ExpiryStore && p.segment() == DefaultPolicy:
		f.add("expiry", "archives without a named policy are never expired by the store")
	}
}

func (p Policy) checkEncryption(f *faults) {
	switch e := p.Encryption; {
	case e.Mode != storage.EncryptionDefault && e.Mode != storage.EncryptionStore && e.Mode != storage.EncryptionKMS:
		f.add("sse", "sse %q; want s3 or kms[:KEY]", e.Mode)
	case e.Key != "" && e.Mode != storage.EncryptionKMS:
		f.add("sse", "an encryption key goes with sse kms")
	}
}

// checkTags keeps to S3's rules, so that a policy works on every store.
func (p Policy) checkTags(f *faults) {
	if len(p.Tags) > maxUserTags {
		f.add("tags", "%d tags; %d are possible beside pgstow's own", len(p.Tags), maxUserTags)
	}
	for _, k := range slices.Sorted(maps.Keys(p.Tags)) {
		at, v := "tags."+k, p.Tags[k]
		switch {
		case strings.HasPrefix(strings.ToLower(k), ownTagPrefix), strings.HasPrefix(strings.ToLower(k), "aws:"):
			f.add(at, "tag %q: keys that start with %s and aws: are reserved", k, ownTagPrefix)
		case k == "" || len([]rune(k)) > 128:
			f.add(at, "tag %q: a key has 1 to 128 characters", k)
		case len([]rune(v)) > 256:
			f.add(at, "tag %q: a value has at most 256 characters", k)
		case storage.CheckTags(map[string]string{k: v}) != nil:
			f.add(at, "tag %q: letters, digits, spaces and + - = . _ : / @ are allowed", k)
		}
	}
}

func (p Policy) checkTransitions(f *faults) {
	class, since := p.StorageClass, Period{}
	gone := !p.Keep.IsZero()
	for _, c := range p.spared() {
		gone = gone && c.n == 0 // some stay for longer, and may move on
	}
	for i, t := range p.Transitions {
		at := fmt.Sprintf("transitions.%d", i)
		switch {
		case t.To == "" || strings.ContainsFunc(t.To, notInClass):
			f.add(at, "transition to %q: no storage class", t.To)
		case t.After.IsZero():
			f.add(at, "transition to %s: after how long? To begin with it, set storage-class", t.To)
		case i > 0 && !t.After.LongerThan(since):
			f.add(at, "transition to %s after %s comes before the one to %s after %s", t.To, t.After, class, since)
		case gone && !p.Keep.LongerThan(t.After):
			f.add(at, "transition to %s after %s, and it is kept for %s only", t.To, t.After, p.Keep)
		case t.To == class:
			f.add(at, "transition to %s, where it is already", t.To)
		case !movesTo(class, t.To):
			f.add(at, "transition from %s to %s, and stores move objects to colder classes only", class, t.To)
		}
		class, since = t.To, t.After
	}
}

// classOrder is the way in which rules of a bucket can move objects: S3's, and
// GCS's.
var classOrder = [][]string{
	{"STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"},
	{"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"},
}

// movesTo reports whether objects can move from one class to the other, as far
// as both are known: stores have classes of their own making.
func movesTo(from, to string) bool {
	for _, order := range classOrder {
		f, t := slices.Index(order, from), slices.Index(order, to)
		if f >= 0 && t >= 0 {
			return f < t
		}
	}
	return true
}

func notInClass(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' }
