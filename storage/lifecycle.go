package storage

import (
	"context"
	"errors"
	"time"
)

// Lifecycle is the lifecycle document of a whole bucket: the rules by which the
// store itself moves and deletes objects. Bucket and prefix do not divide it:
// whoever changes it changes it for everybody, so rules of others go back as
// they came, in Raw.
type Lifecycle struct {
	// Prefix is where the keys of the bucket that was asked begin in the real
	// one: rules speak of whole keys.
	Prefix string
	Rules  []LifecycleRule
	// Settings stand beside the rules and are kept as they are.
	Settings map[string]string
	// Revision tells whether somebody changed the document meanwhile.
	Revision string
}

// LifecycleRule is one rule: what it matches, and what happens to it.
type LifecycleRule struct {
	ID       string            `json:"id,omitempty"` // "" where the store's rules have none
	Disabled bool              `json:"disabled,omitempty"`
	Filter   LifecycleFilter   `json:"filter"`
	Actions  []LifecycleAction `json:"actions"`
	// Unknown names what stands in the rule and the other fields do not show.
	Unknown []string `json:"unknown,omitempty"`
	// Raw is the rule in the store's own words, byte for byte as it was read.
	// A rule with Raw is written as Raw, whatever the other fields say; one
	// without is written from the other fields.
	Raw []byte `json:"-"`
}

// LifecycleFilter is what a rule matches: all conditions that are set.
type LifecycleFilter struct {
	Prefixes []string          `json:"prefixes,omitempty"` // of the whole key, any of them
	Suffixes []string          `json:"suffixes,omitempty"` // any of them
	Tags     map[string]string `json:"tags,omitempty"`     // all of them
	Classes  []string          `json:"classes,omitempty"`  // storage classes, any of them
	// LargerThan and SmallerThan are bytes, 0 is no limit.
	LargerThan  int64 `json:"larger_than,omitempty"`
	SmallerThan int64 `json:"smaller_than,omitempty"`
}

// LifecycleKind is what an action does.
type LifecycleKind string

// The kinds of actions.
const (
	// LifecycleTransition moves objects to another class.
	LifecycleTransition LifecycleKind = "transition"
	// LifecycleExpire deletes objects. In a versioned bucket they become
	// noncurrent, on S3 behind a delete marker.
	LifecycleExpire LifecycleKind = "expire"
	// The same for versions that a later version or a delete marker hides: what
	// they delete is gone.
	LifecycleTransitionNoncurrent LifecycleKind = "transition noncurrent"
	LifecycleExpireNoncurrent     LifecycleKind = "expire noncurrent"
	// LifecycleExpireMarkers removes delete markers behind which nothing is left.
	LifecycleExpireMarkers LifecycleKind = "expire markers"
	// LifecycleAbortUploads aborts unfinished uploads.
	LifecycleAbortUploads LifecycleKind = "abort uploads"
)

// LifecycleClock is what the days of an action count from.
type LifecycleClock string

// The clocks of actions.
const (
	LifecycleSinceCreation   LifecycleClock = "creation" // of an upload: since its start
	LifecycleSinceNoncurrent LifecycleClock = "noncurrent"
	LifecycleSinceCustomTime LifecycleClock = "custom time"
)

// LifecycleAction is one thing that a rule does.
type LifecycleAction struct {
	Kind LifecycleKind `json:"kind"`
	// Days count from Clock; of no meaning where Date is set.
	Days  int            `json:"days"`
	Clock LifecycleClock `json:"clock,omitempty"`
	// Date is the day from which on the action takes whatever matches.
	Date time.Time `json:"date,omitzero"`
	// Before spares objects created on that day and later.
	Before time.Time `json:"before,omitzero"`
	// NewerVersions spares so many of the newest (noncurrent) versions.
	NewerVersions int    `json:"newer_versions,omitempty"`
	Class         string `json:"class,omitempty"` // of a transition
}

// UploadExpiry is who ends unfinished uploads that nobody continues.
type UploadExpiry string

// The ends of unfinished uploads.
const (
	UploadsForever UploadExpiry = ""       // nobody
	UploadsByRule  UploadExpiry = "rule"   // a LifecycleAbortUploads rule, where there is one
	UploadsByStore UploadExpiry = "store"  // the store, always
	UploadsByAdmin UploadExpiry = "server" // a setting of the server's, not to be read from here
)

// LifecycleFeatures is what the rules of a store can say.
type LifecycleFeatures struct {
	IDs         bool // rules have ids
	Tags        bool // filters match tags
	Suffixes    bool // filters match the ends of keys, and classes
	CustomTime  bool // LifecycleSinceCustomTime
	Noncurrent  bool // expired versions stay until they expire again as noncurrent, behind markers
	Uploads     UploadExpiry
	MaxRules    int // of one bucket
	Classes     []string
	OnlyClasses bool // no other classes exist. Classes go from warm to cold
	// Limits say in whole sentences what a user of these rules has to know.
	Limits []string
}

// LifecycleManager is implemented by drivers whose stores have lifecycle rules.
type LifecycleManager interface {
	// LifecycleFeatures tells what the rules of this store can say; ok is false
	// where it can have none. It asks nobody.
	LifecycleFeatures() (f LifecycleFeatures, ok bool)
	// Lifecycle reads the document. A bucket without one has an empty one; a
	// store without lifecycle rules is errors.ErrUnsupported.
	Lifecycle(ctx context.Context) (Lifecycle, error)
	// SetLifecycle writes the document that l.Revision was read from, with the
	// rules of l. What else stands in it is kept. When somebody changed it
	// since, nothing is written and the error is ErrChanged. Stores that cannot
	// compare themselves are asked right before; between that and the write a
	// change can be lost. A rule that cannot be said there is ErrUnsupported.
	// The write may take a while to show.
	SetLifecycle(ctx context.Context, l Lifecycle) error
}

// LifecycleFeaturesOf is what lifecycle rules of b can say; ok is false where
// it can have none.
func LifecycleFeaturesOf(b Bucket) (f LifecycleFeatures, ok bool) {
	if m, ok := b.(LifecycleManager); ok {
		return m.LifecycleFeatures()
	}
	return LifecycleFeatures{}, false
}

// ReadLifecycle reads the lifecycle document of b's bucket.
func ReadLifecycle(ctx context.Context, b Bucket) (Lifecycle, error) {
	if m, ok := b.(LifecycleManager); ok {
		return m.Lifecycle(ctx)
	}
	return Lifecycle{}, errors.ErrUnsupported
}

// WriteLifecycle writes the lifecycle document of b's bucket, if it is still
// the one that was read.
func WriteLifecycle(ctx context.Context, b Bucket, l Lifecycle) error {
	if m, ok := b.(LifecycleManager); ok {
		return m.SetLifecycle(ctx, l)
	}
	return errors.ErrUnsupported
}
