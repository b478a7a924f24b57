package archiver

import (
	"time"

	"github.com/pgstow/pgstow/storage"
)

// Policy is how archives are kept. It is stored with each archive; what was
// stored counts for it ever after, whatever becomes of the policy.
type Policy struct {
	// Name is the first segment of the archive's key; "" is DefaultPolicy.
	Name string `json:"-"`
	// Keep is how long an archive is promised to be there, from its end on;
	// zero promises nothing.
	Keep Period `json:"keep,omitzero"`
	// Lock lets the store itself refuse deletion until then.
	Lock         storage.LockMode `json:"lock,omitempty"`
	LegalHold    bool             `json:"legal_hold,omitempty"`
	StorageClass string           `json:"storage_class,omitempty"` // of the dump alone
	Encryption   Encryption       `json:"sse,omitzero"`            // at the store's side
	// Transitions move the dump, by rules of the bucket.
	Transitions []Transition      `json:"transitions,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	// Expiry is who deletes: ExpiryPgstow or ExpiryStore; "" is ExpiryPgstow.
	Expiry string `json:"expiry,omitempty"`
	// KeepLast is how many newer complete archives of a label must be there
	// before one of it expires; 0 is DefaultKeepLast.
	KeepLast int `json:"keep_last,omitempty"`
	// KeepDaily and its like spare the newest archive of each of so many days,
	// ISO weeks, months and years that have one. Only without a lock.
	KeepDaily   int `json:"keep_daily,omitempty"`
	KeepWeekly  int `json:"keep_weekly,omitempty"`
	KeepMonthly int `json:"keep_monthly,omitempty"`
	KeepYearly  int `json:"keep_yearly,omitempty"`
}

// Values of Policy.Expiry: each policy has one deleter.
const (
	ExpiryPgstow = "pgstow" // `pgstow expire`
	ExpiryStore  = "store"  // a lifecycle rule of the bucket
)

// DefaultKeepLast is how many newer archives an expiring one needs.
const DefaultKeepLast = 3

// Transition moves dumps to another storage class some time after they were
// made.
type Transition struct {
	After Period `json:"after"`
	To    string `json:"to"`
}

// Encryption is storage.Encryption as manifests have it.
type Encryption struct {
	Mode storage.EncryptionMode `json:"mode"`
	Key  string                 `json:"key,omitempty"`
}

// Kept is how one archive is kept: the policy as it was applied, and what the
// store showed of it when the archive was made. What the store shows now may
// be more: `pgstow retain` and `hold` change it later.
type Kept struct {
	Policy
	// KeepUntil is the earliest time at which the archive may be deleted: its end
	// and Policy.Keep, or what is less where the store may delete sooner, which
	// the manifest's warnings tell. Zero without Keep.
	KeepUntil time.Time `json:"keep_until,omitzero"`
	// RetainUntil is what the objects were locked until, a margin included;
	// zero without a lock.
	RetainUntil time.Time `json:"retain_until,omitzero"`
	// Stored is what was read back, the weakest of all objects of the archive
	// but the manifest; nil where nothing could be read back.
	Stored *Protection `json:"stored,omitempty"`
	// Denied names what was asked for and could not be read back: of that, Stored
	// says nothing.
	Denied []storage.Attribute `json:"denied,omitempty"`
}

// Protection is how a store shows an object to be protected.
type Protection struct {
	Lock         storage.LockMode  `json:"lock,omitempty"`
	RetainUntil  time.Time         `json:"retain_until,omitzero"`
	LegalHold    bool              `json:"legal_hold,omitempty"`
	StorageClass string            `json:"storage_class,omitempty"` // of the dump
	Encryption   Encryption        `json:"sse,omitzero"`
	Tags         map[string]string `json:"tags,omitempty"` // of the dump
}
