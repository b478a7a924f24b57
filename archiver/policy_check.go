package archiver

import (
	"fmt"
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

// Check finds what is wrong with a policy by itself (ErrUsage). maxKeep is the
// longest compliance lock; zero is DefaultMaxKeep.
func (p Policy) Check(maxKeep Period) error {
	if maxKeep.IsZero() {
		maxKeep = DefaultMaxKeep
	}
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: policy %q: %w", ErrUsage, p.segment(), fmt.Errorf(format, args...))
	}
	if err := CheckLabel(p.segment()); err != nil {
		return err
	}
	locked := p.Lock != storage.LockNone
	spared := p.KeepDaily + p.KeepWeekly + p.KeepMonthly + p.KeepYearly
	for _, n := range []int{p.KeepLast, p.KeepDaily, p.KeepWeekly, p.KeepMonthly, p.KeepYearly} {
		if n < 0 {
			return refuse("it keeps %d archives", n)
		}
	}
	switch {
	case p.Lock != storage.LockNone && p.Lock != storage.Governance && p.Lock != storage.Compliance:
		return refuse("lock %q; want none, governance or compliance", p.Lock)
	case locked && p.Keep.IsZero():
		return refuse("a lock needs to know for how long: set keep")
	case p.Lock == storage.Compliance && p.Keep.LongerThan(maxKeep):
		return refuse("a compliance lock of %s is longer than max-keep, %s; nobody could undo it", p.Keep, maxKeep)
	case locked && spared > 0:
		return refuse("keep-daily, -weekly, -monthly and -yearly choose what goes early, and a lock lets nothing go early")
	case p.Expiry != "" && p.Expiry != ExpiryPgstow && p.Expiry != ExpiryStore:
		return refuse("expiry %q; want %s or %s", p.Expiry, ExpiryPgstow, ExpiryStore)
	case p.Expiry == ExpiryStore && p.Keep.IsZero():
		return refuse("expiry by the store needs to know when: set keep")
	case p.Expiry == ExpiryStore && p.segment() == DefaultPolicy:
		return refuse("archives without a named policy are never expired by the store")
	case p.Expiry == ExpiryStore && (p.KeepLast > 0 || spared > 0):
		return refuse("the store's rules cannot count archives: keep-last and its like go with expiry %s", ExpiryPgstow)
	case p.Encryption.Mode != storage.EncryptionDefault && p.Encryption.Mode != storage.EncryptionStore && p.Encryption.Mode != storage.EncryptionKMS:
		return refuse("sse %q; want s3 or kms[:KEY]", p.Encryption.Mode)
	case p.Encryption.Key != "" && p.Encryption.Mode != storage.EncryptionKMS:
		return refuse("an encryption key goes with sse kms")
	}
	if err := p.checkTags(); err != nil {
		return refuse("%w", err)
	}
	if err := p.checkTransitions(); err != nil {
		return refuse("%w", err)
	}
	return nil
}

// checkTags keeps to S3's rules, so that a policy works on every store.
func (p Policy) checkTags() error {
	if len(p.Tags) > maxUserTags {
		return fmt.Errorf("%d tags; %d are possible beside pgstow's own", len(p.Tags), maxUserTags)
	}
	for k, v := range p.Tags {
		switch {
		case strings.HasPrefix(strings.ToLower(k), ownTagPrefix), strings.HasPrefix(strings.ToLower(k), "aws:"):
			return fmt.Errorf("tag %q: keys that start with %s and aws: are reserved", k, ownTagPrefix)
		case k == "" || len([]rune(k)) > 128:
			return fmt.Errorf("tag %q: a key has 1 to 128 characters", k)
		case len([]rune(v)) > 256:
			return fmt.Errorf("tag %q: a value has at most 256 characters", k)
		case strings.ContainsFunc(k+v, notInTag):
			return fmt.Errorf("tag %q: letters, digits, spaces and + - = . _ : / @ are allowed", k)
		}
	}
	return nil
}

func (p Policy) checkTransitions() error {
	for i, t := range p.Transitions {
		switch {
		case t.To == "" || strings.ContainsFunc(t.To, notInClass):
			return fmt.Errorf("transition to %q: no storage class", t.To)
		case t.After.IsZero():
			return fmt.Errorf("transition to %s: after how long? To begin with it, set storage-class", t.To)
		case i > 0 && !t.After.LongerThan(p.Transitions[i-1].After):
			return fmt.Errorf("transition to %s after %s comes before the one to %s after %s", t.To, t.After, p.Transitions[i-1].To, p.Transitions[i-1].After)
		case !p.Keep.IsZero() && !p.Keep.LongerThan(t.After):
			return fmt.Errorf("transition to %s after %s, and it is kept for %s only", t.To, t.After, p.Keep)
		case t.To == p.StorageClass || i > 0 && t.To == p.Transitions[i-1].To:
			return fmt.Errorf("transition to %s, where it is already", t.To)
		}
	}
	return nil
}

func notInClass(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' }
