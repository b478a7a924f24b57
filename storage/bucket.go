package storage

import (
	"context"
	"io"
	"iter"
	"time"
)

// Bucket is one bucket, or one folder of a file system. Keys are relative to
// it, use "/" as separator and are plain UTF-8. All methods are safe for
// concurrent use.
type Bucket interface {
	// Put creates key from r's bytes and returns the object as the store
	// confirmed it: size and checksum compared, never assumed. Whether it is
	// kept, tagged and encrypted as asked is shown by Stat alone: a store may
	// drop what it accepted.
	//
	// Put commits when r returns a bare io.EOF (compared with ==) and on
	// nothing else. Any other read error, a wrapped EOF and
	// io.ErrUnexpectedEOF included, and the end of ctx leave nothing visible;
	// what was uploaded is removed under a fresh bounded context, the cause
	// (context.Cause(ctx) for the end of ctx) stays reachable through errors.Is,
	// and a failed removal is joined to it. A source's error gets no Kind: it
	// is not the store's.
	//
	// The creating request, with retention, hold, tags and metadata, is sent
	// before the first Read where the store has such a request; options the
	// store cannot honour fail with errors.ErrUnsupported before it. Put
	// never closes, seeks or type-asserts r, and reads it from one goroutine
	// at a time, never after Put has returned.
	//
	// A key that CheckKey refuses is ErrInvalidKey, here as in Open, Stat and
	// Delete. An existing key is ErrExist and stays untouched. When the reply to the
	// completing request is lost, Put finds out by Stat (upload token, size,
	// checksum); if that is denied it repeats the completion, and if the
	// outcome stays unknown the error is ErrUnknownOutcome.
	Put(ctx context.Context, key string, r io.Reader, opts PutOptions) (Object, error)

	// Open reads length bytes of key from offset on. A missing object is
	// ErrNotExist from Open, not from the first Read. A body that breaks is
	// continued at its byte, pinned to the version that was opened; an object
	// that was replaced meanwhile is an error, never a mixture. The caller
	// closes the reader; closing early does not drain the body. ctx covers
	// the reader's whole life.
	Open(ctx context.Context, key string, opts OpenOptions) (io.ReadCloser, error)

	// Stat describes one version of key ("" is the newest), its metadata,
	// retention, hold and checksums included as far as the store shows them;
	// what it does not show these credentials is named in Object.Denied.
	Stat(ctx context.Context, key, version string) (Object, error)

	// List yields objects in the lexical order of their keys (bytes). Pages
	// are hidden, breaking off stops paging, an error ends the sequence.
	// Metadata, tags and retention are not filled in.
	List(ctx context.Context, opts ListOptions) iter.Seq2[Object, error]

	// Delete removes one version of key for good; with version "" it removes
	// the newest as the store understands that (a delete marker in a
	// versioned bucket). A missing object is no error. A locked or held one
	// is ErrLocked.
	Delete(ctx context.Context, key, version string) error

	// Capabilities tells what this bucket can do, probed when it was opened.
	Capabilities() Capabilities

	// Close releases connections. It neither commits nor aborts anything.
	Close() error
}

// PutOptions go with one Put. The zero value is a plain create-only stream of
// unknown size.
type PutOptions struct {
	// Size is the exact length of r when it is known and small enough for one
	// request, 0 for a stream. A source of another length is an error.
	Size int64
	// SizeEstimate plans part sizes for a stream, in bytes; 0 is "no idea".
	// Too low an estimate costs larger parts later, never the upload.
	SizeEstimate int64

	// Head, when set, stands first in the object and is known only when r has
	// reached io.EOF. r then delivers the bytes behind it. Only where
	// Capabilities.DeferredHead.
	Head *DeferredHead

	ContentType  string
	Metadata     map[string]string // keys: lower-case ASCII letters, digits, "-"
	Tags         map[string]string // as CheckTags has them
	StorageClass string
	Retention    Retention
	LegalHold    bool
	Encryption   Encryption
	CustomTime   time.Time // only where Capabilities.CustomTime

	// Progress, when set, is called whenever the numbers change, from one
	// goroutine at a time; it must return quickly. See GuardStall.
	Progress func(Progress)
}

// DeferredHead is the start of an object whose content is known only after
// all that follows it.
type DeferredHead struct {
	// Size is asked once, after the first Read of r has returned data or
	// io.EOF.
	Size func() int64
	// Bytes is asked once, after r returned io.EOF, and must deliver Size
	// bytes. Its error fails the Put like a read error.
	Bytes func() ([]byte, error)
}

// Progress is the state of one Put. A store is stalled when Sent is ahead of
// Acknowledged, or Opening is set, and nothing moves.
type Progress struct {
	Opening      bool  // the creating request is under way
	Completing   bool  // the completing request is under way: it may take minutes
	Sent         int64 // bytes handed to requests, each byte once however often it is resent
	Acknowledged int64 // bytes the store has confirmed
}

// OpenOptions choose what Open reads.
type OpenOptions struct {
	Version string // "" is the newest
	Offset  int64  // from the start; at or beyond the end is ErrRange, but 0 always works
	Length  int64  // 0 reads to the end; more than there is reads to the end
}

// ListOptions choose what List yields.
type ListOptions struct {
	Prefix     string
	StartAfter string // keys strictly greater, "" from the start
	// Versions yields every version and delete marker, per key newest first.
	// A store without versions yields each object once.
	Versions bool
}

// Object is one version of one stored object.
type Object struct {
	Key     string
	Version string    // S3 version id or GCS generation, "" where none is kept
	Size    int64     // bytes
	Created time.Time // by the store's clock
	Latest  bool      // false for a version that a newer one hides
	// DeleteMarker is set for an S3 delete marker, which has no content.
	DeleteMarker bool

	ETag     string
	Checksum Checksum // of the whole object, zero where the store shows none

	ContentType  string
	Metadata     map[string]string
	Tags         map[string]string
	StorageClass string
	// Retention and LegalHold are what keeps the object, its own or, where the
	// store tells, the bucket's for it. A passed Until keeps nothing.
	Retention  Retention
	LegalHold  bool
	Encryption Encryption
	CustomTime time.Time
	Thaw       Thaw
	// Denied names what these credentials may not see: the fields of it are
	// zero, and say nothing.
	Denied []Attribute
}

// Attribute is something about an object for which stores have rights of their
// own.
type Attribute string

// The attributes that Stat may be denied.
const (
	AttributeRetention Attribute = "retention"
	AttributeLegalHold Attribute = "legal hold"
	AttributeTags      Attribute = "tags"
)

// Checksum is the store's checksum over a whole object.
type Checksum struct {
	Algorithm string `json:"algorithm"` // "CRC64NVME", "CRC32C", "MD5", "SHA256"
	Value     string `json:"value"`     // base64 of the big-endian value, as the stores print it
}

// Capabilities is what a bucket can do. Unknown is false.
type Capabilities struct {
	Versions         bool // old versions are kept and can be read
	DeferredHead     bool // PutOptions.Head works
	ObjectLock       bool // PutOptions.Retention with either mode works
	LegalHold        bool
	Tags             bool
	StorageClass     bool
	Encryption       bool // PutOptions.Encryption works, in some mode
	CustomTime       bool // PutOptions.CustomTime works
	DefaultRetention DefaultRetention
	// Unprobed names what could not be asked for want of a right: the fields of
	// it are false, and the creating request settles them.
	Unprobed []string
	// ClockSkew is how far this machine's clock is ahead of the store's, as the
	// probe saw it, in whole minutes; 0 is less than one, or unknown.
	ClockSkew time.Duration
	MaxObject int64 // bytes, 0 unknown
}

// DefaultRetention is a bucket's own retention for new objects. On S3 one that is
// asked for replaces it, even with less; on GCS both hold.
type DefaultRetention struct {
	// Mode is, on GCS, Compliance for a locked retention policy of the bucket
	// and Governance for one that can still be removed.
	Mode        LockMode
	Days, Years int           // S3: one of them
	Period      time.Duration // GCS: the bucket's retention policy
}
