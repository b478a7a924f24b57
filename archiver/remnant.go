package archiver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgstow/pgstow/storage"
)

// remnant looks at a directory without a manifest. One that an interrupted
// expiry has left is finished; everything else is a run under way, or what a
// failed one has left, and none of expiry's business.
func (x *expiring) remnant(ctx context.Context, e Entry) error {
	if !slices.ContainsFunc(e.Objects, func(o EntryObject) bool { return recordKind(o.Name) == RecordExpire }) {
		x.res.Incomplete++
		return nil
	}
	m, err := x.proved(ctx, e)
	if err != nil {
		if errors.Is(err, ErrIntegrity) || errors.Is(err, ErrFormat) || errors.Is(err, storage.ErrNotExist) {
			x.note(e, nil, ExpireSkipped, verdict{WhyUnproved, "no proved leftover"}).Error = oneLine(err)
			return nil
		}
		return err
	}
	all, err := look(ctx, x.opts.Bucket, e.dir(), e.allVersions())
	if err != nil {
		return err
	}
	v := freeOf(all, x.now)
	switch {
	case v.why == WhyChanged:
		x.note(e, m, ExpireSkipped, v)
	case !v.expires():
		x.note(e, m, ExpireKept, v)
	case !x.opts.Yes:
		x.note(e, m, ExpireFinish, verdict{detail: "left by an earlier run"})
	default:
		a := x.note(e, m, ExpireFinished, verdict{detail: "left by an earlier run"})
		var err error
		a.Deleted, err = deleteArchive(ctx, x.opts.Bucket, e, nil)
		return x.ended(ctx, a, begun(e.ID, true, err))
	}
	return nil
}

// proved reads the journal of the expiry that was interrupted: the manifest in it
// is the one that its hash names and that of this directory, its keep is over,
// and what still lies here is what it names.
func (x *expiring) proved(ctx context.Context, e Entry) (*Manifest, error) {
	records, err := readRecords(ctx, x.opts.Bucket, e, RecordExpire, Trust{})
	if err != nil {
		return nil, err
	}
	err = integrity("it has no record of its expiry")
	for _, r := range records {
		if r.Record == nil {
			err = integrity("%s", r.Error)
			continue
		}
		var m *Manifest
		if m, err = x.proof(e, r.Record); err == nil {
			return m, nil
		}
	}
	return nil, err
}

func (x *expiring) proof(e Entry, r *Record) (*Manifest, error) {
	if hexSum(r.Manifest) != r.ManifestSHA256 {
		return nil, integrity("%s: its manifest differs from its hash", r.Key)
	}
	m, err := decodeManifest(r.Manifest, e.dir())
	if err != nil {
		return nil, fmt.Errorf("%s: the manifest in it: %w", r.Key, err)
	}
	if m.Kept == nil || m.Kept.Keep.IsZero() || x.now.Before((&aged{kept: m.Kept, finished: m.Finished}).keepUntil()) {
		return nil, integrity("%s: the keep of the manifest in it is not over", r.Key)
	}
	if m.Finished.Before(e.Time) {
		// Who forged it would have a run that is under way taken for long over.
		return nil, integrity("%s: the manifest in it was finished before its directory was made", r.Key)
	}
	named := map[string]*StoredObject{m.Objects.Dump.Key: &m.Objects.Dump}
	for _, o := range []*StoredObject{m.Objects.Index, m.Objects.Globals} {
		if o != nil {
			named[o.Key] = o
		}
	}
	for _, o := range e.Objects {
		switch roleOf(o.Name) {
		case RoleDump, "index", "globals":
			n := named[e.Key+o.Name]
			if n == nil || n.Size != o.Size || n.Version != "" && n.Version != o.Version {
				return nil, integrity("%s: the manifest in it does not name the %s that lies here", r.Key, o.Name)
			}
		}
	}
	return m, nil
}
