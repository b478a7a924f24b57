package storage

import "time"

// LockMode is how firmly a retention holds.
type LockMode string

const (
	// LockNone is no retention.
	LockNone LockMode = ""
	// Governance can be lifted by a principal with a special right: S3
	// GOVERNANCE, GCS Unlocked.
	Governance LockMode = "governance"
	// Compliance can be lifted by nobody before its time: S3 COMPLIANCE, GCS
	// Locked.
	Compliance LockMode = "compliance"
)

// Retention keeps an object version undeletable until a time.
type Retention struct {
	Mode  LockMode
	Until time.Time // UTC, whole seconds
}

// IsZero reports whether no retention is asked for or set.
func (r Retention) IsZero() bool { return r.Mode == LockNone }

// Covers reports whether r protects at least as firmly and as long as want.
func (r Retention) Covers(want Retention) bool {
	if want.IsZero() {
		return true
	}
	return r.strength() >= want.strength() && !r.Until.Before(want.Until)
}

func (r Retention) strength() int {
	switch r.Mode {
	case Compliance:
		return 2
	case Governance:
		return 1
	}
	return 0
}

// EncryptionMode is who keeps the key of encryption at the store's side.
type EncryptionMode string

const (
	// EncryptionDefault asks for nothing: what the bucket does by itself.
	EncryptionDefault EncryptionMode = ""
	// EncryptionStore is a key of the store's own: S3's SSE-S3. GCS encrypts
	// so in any case and refuses to be asked.
	EncryptionStore EncryptionMode = "s3"
	// EncryptionKMS is a key in the provider's key service: S3's SSE-KMS, GCS's
	// customer-managed keys.
	EncryptionKMS EncryptionMode = "kms"
)

// Encryption at the store's side.
type Encryption struct {
	Mode EncryptionMode
	// Key names the KMS key: id, ARN or alias on S3, where "" is the account's
	// own; the resource name projects/P/locations/L/keyRings/R/cryptoKeys/K on
	// GCS, which has no default.
	Key string
}

// IsZero reports whether nothing is asked for or shown.
func (e Encryption) IsZero() bool { return e == Encryption{} }

// From is what a bucket with this default gives to an object created at t; zero
// where the default is none, or comes on top of what is asked for (GCS).
func (d DefaultRetention) From(t time.Time) Retention {
	if d.Mode == LockNone || d.Days == 0 && d.Years == 0 {
		return Retention{}
	}
	return Retention{Mode: d.Mode, Until: t.UTC().AddDate(d.Years, 0, d.Days)}
}

// Covers reports whether e is what want asks for. Stores spell keys in other
// ways than they were asked for: an ARN for an id, with a version behind it.
func (e Encryption) Covers(want Encryption) bool {
	switch {
	case want.IsZero():
		return true
	case e.Mode != want.Mode:
		return false
	}
	return want.Key == "" || e.Key == want.Key
}
