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
	// Later are the delete markers and later versions under the keys of the
	// archive, per object newest first. They change nothing for pgstow.
	Later []EntryVersion `json:"later,omitempty"`
	// Newest is when the newest object arrived, by the store's clock.
	Newest  time.Time     `json:"newest"`
	Objects []EntryObject `json:"objects"`

	// Manifest is filled in by LoadManifests, or ManifestError says why not.
	Manifest      *Manifest `json:"manifest,omitempty"`
	ManifestError string    `json:"manifest_error,omitempty"`
	// ManifestSHA256 is of its bytes, also when they cannot be understood.
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
	// Signature is filled in by LoadSigned.
	Signature *Signature `json:"signature,omitempty"`
	// Protection is filled in by LoadProtection.
	Protection *Shown `json:"protection,omitempty"`
}

// EntryObject is one object of an archive: its oldest version.
type EntryObject struct {
	Name    string    `json:"name"` // below the archive's key
	Version string    `json:"version,omitempty"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
}

// EntryVersion is a delete marker or a later version under the key of an
// archive's object.
type EntryVersion struct {
	EntryObject
	Latest       bool `json:"latest,omitempty"` // it is what plain readers see
	DeleteMarker bool `json:"delete_marker,omitempty"`
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

// scan lists archives and incomplete ones, oldest first. Without the right to
// list versions it makes do with what plain readers see.
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
	return all, nil
}

// scanStrictly is scan for those who change what they see: every version, or
// an error.
func scanStrictly(ctx context.Context, b storage.Bucket, name string, _ *slog.Logger) ([]Entry, error) {
	all, err := scanVersions(ctx, b, name, true)
	if err != nil {
		return nil, fmt.Errorf("list archives with all versions: %w", err)
	}
	return all, nil
}

func scanVersions(ctx context.Context, b storage.Bucket, name string, versions bool) ([]Entry, error) {
	return collect(ctx, b, name, storage.ListOptions{Versions: versions})
}

func collect(ctx context.Context, b storage.Bucket, name string, opts storage.ListOptions) ([]Entry, error) {
	var c collector
	for o, err := range b.List(ctx, opts) {
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
	slices.SortStableFunc(c.entries, byTime)
	return c.entries, nil
}

// byTime orders entries, oldest first.
func byTime(a, b Entry) int {
	return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Label, b.Label), cmp.Compare(a.ID, b.ID))
}

// collector turns the objects of a listing into entries. It relies on their
// order: by key, and the versions of a key newest first.
type collector struct {
	entries  []Entry
	entry    Entry
	dir      Dir
	versions []EntryVersion // of the key that is listed
}

func (c *collector) add(dir Dir, name string, o storage.Object) {
	if dir != c.dir {
		c.flush()
		c.dir = dir
		c.entry = Entry{ID: dir.ID, Label: dir.Label, Policy: dir.Policy, Time: dir.Time, Key: dir.String()}
	}
	if len(c.versions) > 0 && c.versions[0].Name != name {
		c.flushKey()
	}
	c.versions = append(c.versions, EntryVersion{
		EntryObject: EntryObject{Name: name, Version: o.Version, Size: o.Size, Created: o.Created},
		Latest:      o.Latest, DeleteMarker: o.DeleteMarker,
	})
}

// flushKey sorts the versions of one key: the oldest is the object.
func (c *collector) flushKey() {
	all, oldest := c.versions, -1
	c.versions = nil
	for i, v := range all {
		if !v.DeleteMarker {
			oldest = i
		}
	}
	for i, v := range all {
		if i != oldest {
			c.entry.Later = append(c.entry.Later, v)
			continue
		}
		c.entry.Objects = append(c.entry.Objects, v.EntryObject)
		c.entry.Hidden = c.entry.Hidden || all[0].DeleteMarker || !all[0].Latest
	}
}

func (c *collector) flush() {
	if len(c.versions) > 0 {
		c.flushKey()
	}
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
	return loadManifests(ctx, b, entries, func(context.Context, *Entry, []byte) {})
}

// LoadSigned is LoadManifests, and reads and judges their signatures, too. One
// that cannot be read is SignatureUnjudged, with the reason.
func LoadSigned(ctx context.Context, b storage.Bucket, entries []Entry, t Trust) error {
	return loadManifests(ctx, b, entries, func(ctx context.Context, e *Entry, raw []byte) {
		s, err := readSignature(ctx, b, *e, ManifestName, raw, t)
		if err != nil {
			s = Signature{State: SignatureUnjudged, Reason: oneLine(err)}
		}
		e.Signature = &s
	})
}

func loadManifests(ctx context.Context, b storage.Bucket, entries []Entry, also func(context.Context, *Entry, []byte)) error {
	var g errgroup.Group
	g.SetLimit(manifestReaders)
	for i := range entries {
		e := &entries[i]
		if !e.Complete || e.Manifest != nil || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			raw, err := readManifestBytes(ctx, b, *e)
			if err == nil {
				e.ManifestSHA256 = hexSum(raw)
				also(ctx, e, raw)
				e.Manifest, err = understand(raw, *e)
			}
			e.ManifestError = oneLine(err)
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
