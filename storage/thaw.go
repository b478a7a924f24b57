package storage

import (
	"context"
	"errors"
	"time"
)

// Thaw is whether an object of a cold class can be read.
type Thaw struct {
	// Cold: the class has to be thawed before it can be read (S3 GLACIER and
	// DEEP_ARCHIVE). GLACIER_IR and GCS's classes need none.
	Cold bool
	// Ongoing: the store is thawing it.
	Ongoing bool
	// Until is how long the readable copy stays, zero without one.
	Until time.Time
}

// Readable reports whether the object can be read at now.
func (t Thaw) Readable(now time.Time) bool { return !t.Cold || t.Until.After(now) }

// ThawTier is how fast, and how dear, a thaw is.
type ThawTier string

// The tiers of S3.
const (
	ThawExpedited ThawTier = "expedited" // minutes; not for DEEP_ARCHIVE
	ThawStandard  ThawTier = "standard"  // 3 to 5 hours, DEEP_ARCHIVE 12
	ThawBulk      ThawTier = "bulk"      // 5 to 12 hours, DEEP_ARCHIVE 48
)

// ThawOptions choose a thaw.
type ThawOptions struct {
	Tier ThawTier
	Days int // how long the readable copy stays, at least 1
}

// Thawer is implemented by drivers whose stores have cold classes.
type Thawer interface {
	// Thaw asks for a readable copy of one version. It returns as soon as the
	// store has taken the request; Stat shows how far it is. One that is under
	// way already is joined, one that has ended is prolonged. An object that
	// needs no thaw is errors.ErrUnsupported; a tier that the class does not
	// have, or that has no capacity now, is ErrThawTier.
	Thaw(ctx context.Context, key, version string, opts ThawOptions) error
}

// StartThaw asks for a readable copy of one object version.
func StartThaw(ctx context.Context, b Bucket, key, version string, opts ThawOptions) error {
	if t, ok := b.(Thawer); ok {
		return t.Thaw(ctx, key, version, opts)
	}
	return errors.ErrUnsupported
}
