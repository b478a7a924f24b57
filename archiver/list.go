package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

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
	all, err := scan(ctx, b, opts.Name, opts.Log)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(e Entry) bool { return e.Complete == opts.Incomplete }), nil
}

// scan lists archives and incomplete ones, oldest first.
func scan(ctx context.Context, b storage.Bucket, name string, log *slog.Logger) ([]Entry, error) {
	versions := b.Capabilities().Versions
	all, err := scanVersions(ctx, b, name, versions)
	if versions && errors.Is(err, storage.ErrPermission) && ctx.Err() == nil {
		logger(log).Warn("versions cannot be listed, archives hidden by delete markers are not seen", "error", err)
		all, err = scanVersions(ctx, b, name, false)
	}
	if err != nil {
		return nil, fmt.Errorf("list archives: %w", err)
	}
	slices.SortStableFunc(all, func(a, b Entry) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Label, b.Label), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

func scanVersions(ctx context.Context, b storage.Bucket, name string, versions bool) ([]Entry, error) {
	var c collector
	for o, err := range b.List(ctx, storage.ListOptions{Versions: versions}) {
		if err != nil {
			return nil, err
		}
		dir, object, ok := ParseKey(o.Key)
		if !ok || name != "" && dir.Label != name {
			continue
		}
		c.add(dir, object, o)
	}
	c.flush()
	return c.entries, nil
}

// collector turns the objects of a listing into entries. It relies on their
// order: by key, and the versions of a key newest first.
type collector struct {
	entries []Entry
	entry   Entry
	dir     Dir
}

func (c *collector) add(dir Dir, name string, o storage.Object) {
	if dir != c.dir {
		c.flush()
		c.dir = dir
		c.entry = Entry{ID: dir.ID, Label: dir.Label, Policy: dir.Policy, Time: dir.Time, Key: dir.String()}
	}
	if o.DeleteMarker {
		c.entry.Hidden = c.entry.Hidden || o.Latest
		return
	}
	object := EntryObject{Name: name, Version: o.Version, Size: o.Size, Created: o.Created}
	if n := len(c.entry.Objects); n > 0 && c.entry.Objects[n-1].Name == name {
		c.entry.Objects[n-1] = object // older than the one seen before
		return
	}
	c.entry.Objects = append(c.entry.Objects, object)
}

func (c *collector) flush() {
	e := c.entry
	c.entry, c.dir = Entry{}, Dir{}
	if len(e.Objects) == 0 {
		return
	}
	for _, o := range e.Objects {
		switch o.Name {
		case ManifestName:
			e.Complete = true
		case DumpName, DumpName + EncryptedSuffix:
			e.DumpSize = o.Size
		}
		if o.Created.After(e.Newest) {
			e.Newest = o.Created
		}
	}
	c.entries = append(c.entries, e)
}

func (e *Entry) dir() Dir { return Dir{Policy: e.Policy, Label: e.Label, Time: e.Time, ID: e.ID} }

// version is the oldest version of the object, "" when it was not listed.
func (e *Entry) version(name string) string {
	for _, o := range e.Objects {
		if o.Name == name {
			return o.Version
		}
	}
	return ""
}

// manifestReaders is how many manifests are read at once.
const manifestReaders = 16

// LoadManifests reads the manifests of entries, several at once. A manifest
// that cannot be read is noted in its entry; the error is that of ctx.
func LoadManifests(ctx context.Context, b storage.Bucket, entries []Entry) error {
	var g errgroup.Group
	g.SetLimit(manifestReaders)
	for i := range entries {
		e := &entries[i]
		if !e.Complete || e.Manifest != nil || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			m, _, err := readManifest(ctx, b, *e)
			e.Manifest, e.ManifestError = m, oneLine(err)
			return nil
		})
	}
	_ = g.Wait()
	return context.Cause(ctx)
}

// logger makes nil a logger that discards.
func logger(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
