package archiver

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/storage"
)

// DefaultStallTimeout is how long a store may accept no new byte.
const DefaultStallTimeout = 5 * time.Minute

// ArchiveOptions choose what Archive stores, and where.
type ArchiveOptions struct {
	Bucket storage.Bucket
	Conn   dumper.Conn
	// Name is the label; "" takes DefaultLabel of host and database.
	Name string
	// Policy is the first segment of the key; "" is DefaultPolicy.
	Policy string
	// NoGlobals leaves roles and tablespaces out.
	NoGlobals bool
	// PGBin is the only directory in which client programs are looked for; ""
	// looks in all the usual ones.
	PGBin string
	// AllowPooler accepts pooled endpoints.
	AllowPooler bool
	// StallTimeout ends the archive when the store accepts no byte for so
	// long; 0 is DefaultStallTimeout.
	StallTimeout time.Duration
	// DumpArgs are further options for pg_dump.
	DumpArgs []string
	// Pgstow is this program's version, for the manifest.
	Pgstow string
	// Log receives warnings; nil discards them.
	Log *slog.Logger
	// Progress, when set, is called from one goroutine at a time and must
	// return quickly.
	Progress func(Progress)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// ArchiveResult is a committed archive.
type ArchiveResult struct {
	Manifest       *Manifest `json:"manifest"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	// ReadBack says whether the manifest itself was read back after it was
	// stored: ReadBackDone or ReadBackDenied.
	ReadBack string   `json:"read_back"`
	Warnings []string `json:"warnings,omitempty"`
}

// Archive dumps one database into the bucket. The archive exists when Archive
// returns without an error, and not otherwise: whatever fails before the
// manifest is stored leaves nothing that List shows as an archive, and the
// objects of the failed run are removed; those that cannot be are named by a
// *LeftoverError. Only when the store's answer to the manifest is lost and
// cannot be found out (storage.ErrUnknownOutcome) may the archive exist after
// an error.
//
// Ending ctx ends pg_dump, aborts the upload and removes what was stored.
func Archive(ctx context.Context, opts ArchiveOptions) (*ArchiveResult, error) {
	return nil, errors.ErrUnsupported
}
