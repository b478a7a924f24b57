package archiver

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// Entry is one archive as the bucket's listing shows it.
type Entry struct {
	ID     string    `json:"id"`
	Label  string    `json:"label"`
	Policy string    `json:"policy"`
	Time   time.Time `json:"time"` // when the archive was started
	Key    string    `json:"key"`  // prefix of its objects
	// Complete: the manifest is there.
	Complete bool `json:"complete"`
	// DumpSize is the size of the dump, 0 where there is none.
	DumpSize int64 `json:"dump_size"`
	// Hidden: delete markers hide objects of the archive from plain readers;
	// the objects themselves are still there.
	Hidden bool `json:"hidden,omitempty"`
	// Newest is when the newest object arrived, by the store's clock.
	Newest  time.Time     `json:"newest"`
	Objects []EntryObject `json:"objects"`

	// Manifest is filled in by LoadManifests, or ManifestError says why not.
	Manifest      *Manifest `json:"manifest,omitempty"`
	ManifestError string    `json:"manifest_error,omitempty"`
}

// EntryObject is one object of an archive: its oldest version.
type EntryObject struct {
	Name    string    `json:"name"` // below the archive's key
	Version string    `json:"version,omitempty"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
}

// ListOptions choose what List yields.
type ListOptions struct {
	Name       string // label, "" for all
	Incomplete bool   // what has no manifest, instead of the archives
	Log        *slog.Logger
}

// List finds the archives in the bucket by one listing, without reading
// manifests, oldest first. Keys that are not pgstow's are passed over. In a
// versioned bucket the oldest version of each object counts, so that later
// puts and delete markers hide nothing.
func List(ctx context.Context, b storage.Bucket, opts ListOptions) ([]Entry, error) {
	return nil, errors.ErrUnsupported
}

// LoadManifests reads the manifests of entries, several at once. A manifest
// that cannot be read is noted in its entry; the error is that of ctx.
func LoadManifests(ctx context.Context, b storage.Bucket, entries []Entry) error {
	return errors.ErrUnsupported
}
