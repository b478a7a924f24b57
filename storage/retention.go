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

// From is what a bucket with this default gives to an object created at t; zero
// where the default is none, or comes on top of what is asked for (GCS).
func (d DefaultRetention) From(t time.Time) Retention {
	if d.Mode == LockNone || d.Days == 0 && d.Years == 0 {
		return Retention{}
	}
	return Retention{Mode: d.Mode, Until: t.UTC().AddDate(d.Years, 0, d.Days)}
}

// IsZero reports whether the bucket keeps nothing by itself.
func (d DefaultRetention) IsZero() bool { return d.Mode == LockNone }

func (r Retention) strength() int {
	switch r.Mode {
	case Compliance:
		return 2
	case Governance:
		return 1
	}
	return 0
}
