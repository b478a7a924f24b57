package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/storage"
)

// expire deletes an archive that was found free. err is what ends the whole run;
// what this archive alone fails of is noted.
func (x *expiring) expire(ctx context.Context, f *found) error {
	// The label was judged some time ago: a hold that came since counts.
	all, err := look(ctx, x.opts.Bucket, f.dir(), f.allVersions())
	if err == nil {
		if v := freeOf(all, x.now); !v.expires() {
			x.note(f.Entry, f.m, ExpireKept, v)
			return nil
		}
		f.all = all
	}
	a := x.note(f.Entry, f.m, ExpireDone, verdict{})
	var journal *EntryObject
	if err == nil {
		journal, err = x.journal(ctx, f)
	}
	if err == nil {
		a.Deleted, err = deleteArchive(ctx, x.opts.Bucket, f.Entry, journal)
		err = begun(f.ID, journal != nil, err)
	}
	return x.ended(ctx, a, err)
}

// BegunError is a deletion that was begun and has not come to its end.
type BegunError struct {
	ID string
	// Journal: a record of it is in the bucket, so that the next run finishes it.
	Journal bool
	Err     error
}

func (e *BegunError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *BegunError) Unwrap() error { return e.Err }

func begun(id string, journal bool, err error) error {
	if err == nil {
		return nil
	}
	return &BegunError{ID: id, Journal: journal, Err: err}
}

// ended notes how a deletion ended.
func (x *expiring) ended(ctx context.Context, a *ExpiredArchive, err error) error {
	if err == nil {
		return nil
	}
	a.Action, a.Error = ExpireFailed, oneLine(err)
	err = fmt.Errorf("archive %s of %s: %d of %d versions deleted: %w", a.ID, a.Label, a.Deleted, a.Versions, err)
	if ctx.Err() != nil {
		return err
	}
	x.deletions = append(x.deletions, err)
	return nil
}

// journal records what is about to be deleted, so that another run can prove
// what is left of it to be a remnant. It is deleted with the last of the archive:
// where the bucket by itself would lock it, or might, as that cannot be seen, or
// these credentials may not write, there is none, and what an interruption leaves has to be removed by hand.
func (x *expiring) journal(ctx context.Context, f *found) (*EntryObject, error) {
	b := x.opts.Bucket
	caps := b.Capabilities()
	switch d := caps.DefaultRetention; {
	case d.Days > 0 || d.Years > 0 || d.Period > 0:
		return nil, nil
	case len(caps.Unprobed) > 0:
		x.log.Warn("no record of the deletion is written, as these credentials may not see whether the bucket would lock it: if it is interrupted, the next run cannot finish it",
			"key", f.Key, "rights", strings.Join(caps.Unprobed, ", "))
		return nil, nil
	}
	if o, err := x.earlierJournal(ctx, f); o != nil || err != nil {
		return o, err
	}
	r := Record{
		Kind: RecordExpire, ManifestSHA256: hexSum(f.raw), Manifest: f.raw, By: x.opts.By,
		Result: ResultBegun, Pgstow: x.opts.Pgstow,
	}
	o, err := putRecord(ctx, b, f.Entry, r, nil, f.all, f.m.Kept, x.now) // it goes with the rest: nobody signs it
	if errors.Is(err, storage.ErrPermission) {
		x.log.Warn("no record of the deletion may be written: if it is interrupted, the next run cannot finish it", "key", f.Key)
		return nil, nil
	}
	return &o.EntryObject, err
}

// earlierJournal is the record of a run that could not delete the archive: it
// proves the same as another would, and one for each night would add up.
func (x *expiring) earlierJournal(ctx context.Context, f *found) (*EntryObject, error) {
	records, err := readRecords(ctx, x.opts.Bucket, f.Entry, RecordExpire, Trust{})
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if r.Record == nil || r.Record.ManifestSHA256 != hexSum(f.raw) || !bytes.Equal(r.Record.Manifest, f.raw) {
			continue
		}
		for _, o := range f.Objects {
			if o.Name == r.Name {
				return &o, nil
			}
		}
	}
	return nil, nil
}

// deletionSteps orders what an archive consists of, so that whatever happens in
// between is either listed as it was or not at all: what lies over the manifest
// goes first, then the manifest itself, which ends the archive, then the rest,
// and the journals at last.
func deletionSteps(e Entry, journal *EntryObject) [][]storage.VersionKey {
	const overManifest, manifest, signature, rest, journals = 0, 1, 2, 3, 4
	steps := make([][]storage.VersionKey, journals+1)
	dir := e.dir()
	add := func(step int, o EntryObject) {
		kv := storage.VersionKey{Key: dir.Key(o.Name), Version: o.Version}
		if !slices.Contains(steps[step], kv) {
			steps[step] = append(steps[step], kv)
		}
	}
	stepOf := func(name string) int {
		switch {
		case name == SignatureName:
			return signature
		case recordKind(name) == RecordExpire:
			return journals
		}
		return rest
	}
	for _, v := range e.Later {
		if v.Name == ManifestName {
			add(overManifest, v.EntryObject)
		} else {
			add(stepOf(v.Name), v.EntryObject)
		}
	}
	for _, o := range e.Objects {
		if o.Name == ManifestName {
			add(manifest, o)
		} else {
			add(stepOf(o.Name), o)
		}
	}
	if journal != nil {
		add(journals, *journal)
	}
	return steps
}

// deleteArchive deletes every version and marker of an archive, the manifest
// first. A version that cannot be deleted ends it after the others of its step;
// what is deleted already by somebody else is no error.
func deleteArchive(ctx context.Context, b storage.Bucket, e Entry, journal *EntryObject) (deleted int, err error) {
	steps := deletionSteps(e, journal)
	last := len(steps) - 1
	for i, step := range steps {
		if i == last {
			if err := nothingCame(ctx, b, e, step); err != nil {
				return deleted, err
			}
		}
		n, err := deleteVersions(ctx, b, step)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	if journal != nil && !slices.Contains(e.Objects, *journal) {
		deleted-- // it was none of the archive's versions
	}
	return deleted, nil
}

// nothingCame looks for what was put while the archive was deleted. It has not
// been judged, so that it stays, and the journals with it.
func nothingCame(ctx context.Context, b storage.Bucket, e Entry, journals []storage.VersionKey) error {
	for o, err := range b.List(ctx, storage.ListOptions{Prefix: e.Key, Versions: true}) {
		if err != nil {
			return fmt.Errorf("look for what is left: %w", err)
		}
		if _, name, ok := ParseKey(o.Key); ok && recordKind(name) != RecordExpire && !slices.Contains(journals, storage.VersionKey{Key: o.Key, Version: o.Version}) {
			return fmt.Errorf("%w: %s was put meanwhile; run it again", storage.ErrChanged, o.Key)
		}
	}
	return nil
}

// deleteVersions deletes each of them, those of one key one after another in
// their order: which is the newest changes with each, and not every store bears
// two at once. The first error comes back when all were tried, a lock before
// others.
func deleteVersions(ctx context.Context, b storage.Bucket, versions []storage.VersionKey) (deleted int, err error) {
	var errs []error
	for len(versions) > 0 {
		if err := context.Cause(ctx); err != nil {
			return deleted, err
		}
		var round, later []storage.VersionKey
		taken := map[string]bool{}
		for _, v := range versions {
			switch {
			case taken[v.Key]:
				later = append(later, v)
			case v.Version == "" && b.Capabilities().Versions: // that would hide it, not delete it
				errs = append(errs, fmt.Errorf("%s: the store named no version to delete", v.Key))
			default:
				taken[v.Key] = true
				round = append(round, v)
			}
		}
		errs = append(errs, storage.DeleteVersions(ctx, b, round)...)
		versions = later
	}
	var first error
	failed := 0
	for _, err := range errs {
		switch {
		case err == nil:
			deleted++
			continue
		case first == nil, errors.Is(err, storage.ErrLocked) && !errors.Is(first, storage.ErrLocked):
			first = err
		}
		failed++
	}
	if failed > 1 {
		first = fmt.Errorf("%w (and %d more)", first, failed-1)
	}
	return deleted, first
}
