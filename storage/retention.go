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
