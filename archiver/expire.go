package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgstow/pgstow/storage"
)

// ExpireOptions choose what Expire deletes.
type ExpireOptions struct {
	Bucket storage.Bucket
	Name   string // label, "" for all
	// Yes deletes; without it Expire only says what it would do.
	Yes bool
	// KeepLast wants so many newer complete archives where a policy wants fewer.
	KeepLast int
	// RequireVerified wants these to have passed their newest verification.
	RequireVerified bool
	Trust           Trust  // whose archives stand in for older ones, and whose verifications count
	By              string // who, for the journal of the deletion
	Pgstow          string // this program's version
	Log             *slog.Logger
	Now             func() time.Time
}

// What Expire did with an archive.
const (
	ExpireKept     = "kept"
	ExpireWould    = "would expire"
	ExpireDone     = "expired"
	ExpireFailed   = "failed" // some of it may be deleted
	ExpireFinish   = "would finish"
	ExpireFinished = "finished" // what an interrupted run had left of it
	ExpireSkipped  = "skipped"  // it cannot be judged
)

// ExpiredArchive is one archive and what became of it.
type ExpiredArchive struct {
	ID     string    `json:"id"`
	Label  string    `json:"label"`
	Policy string    `json:"policy"`
	Time   time.Time `json:"time"`
	Key    string    `json:"key"`
	Action string    `json:"action"`
	Why    string    `json:"why,omitempty"` // one of the Why constants
	Detail string    `json:"detail,omitempty"`
	// KeepUntil is when its policy lets it go; zero where it never does.
	KeepUntil time.Time `json:"keep_until,omitzero"`
	// Versions are those of its objects, later ones and delete markers included;
	// Bytes is what they take.
	Versions int   `json:"versions"`
	Bytes    int64 `json:"bytes"`
	// Deleted counts what was deleted of them.
	Deleted int    `json:"deleted"`
	Error   string `json:"error,omitempty"`
}

// ExpireResult is what Expire found and did.
type ExpireResult struct {
	Archives []ExpiredArchive `json:"archives"` // oldest first
	// Incomplete counts directories without a manifest that stay as they are:
	// runs under way, and what failed ones left.
	Incomplete int `json:"incomplete"`
}

// Expire deletes the archives whose time is over: their own stored policy's keep
// has passed, no version of any of their objects is locked or held (or hidden
// from these credentials), and enough newer complete archives of the label
// stay. It deletes nothing of an archive that is not free as a whole. What it
// cannot understand it leaves alone, and says so with ErrIntegrity or ErrFormat
// after everything else is done. A label with archives of several database systems
// is left alone, with ErrRefused; several databases of one system are judged each
// by itself. The result is there with an error too.
func Expire(ctx context.Context, opts ExpireOptions) (*ExpireResult, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	now, err := storeNow(opts.Bucket, opts.Now, "expiry is judged by it")
	if err != nil {
		return nil, err
	}
	entries, err := scanStrictly(ctx, opts.Bucket, opts.Name, opts.Log)
	if err != nil {
		return nil, err
	}
	x := &expiring{opts: opts, now: now, log: logger(opts.Log), res: &ExpireResult{Archives: []ExpiredArchive{}}}
	labels := map[string][]Entry{}
	for _, e := range entries {
		labels[e.Label] = append(labels[e.Label], e)
	}
	for _, e := range entries { // in the order of their oldest archives
		of, ok := labels[e.Label]
		if !ok {
			continue
		}
		delete(labels, e.Label)
		if err := x.label(ctx, e.Label, of); err != nil {
			return x.result(), causeOf(ctx, err)
		}
	}
	return x.result(), x.failure()
}

func (o ExpireOptions) check() error {
	if o.KeepLast < 0 {
		return fmt.Errorf("%w: keep-last %d", ErrUsage, o.KeepLast)
	}
	if o.Name != "" {
		if err := CheckLabel(o.Name); err != nil {
			return err
		}
	}
	return checkWords("who it is", o.By, maxBy)
}

// expiring is one run of Expire.
type expiring struct {
	opts ExpireOptions
	now  time.Time // by the store's clock
	log  *slog.Logger
	res  *ExpireResult
	// errs are told when all is done; those of the store come before those of
	// what was found.
	deletions, findings []error
}

func (x *expiring) result() *ExpireResult {
	slices.SortStableFunc(x.res.Archives, func(a, b ExpiredArchive) int { return a.Time.Compare(b.Time) })
	return x.res
}

// failure is one error of one class: what could not be deleted comes first.
func (x *expiring) failure() error {
	errs := slices.Concat(x.deletions, x.findings)
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return fmt.Errorf("%w (and %d more, see the output)", errs[0], len(errs)-1)
}

// label expires archives of one label, oldest first in entries.
func (x *expiring) label(ctx context.Context, label string, entries []Entry) error {
	slices.Reverse(entries)
	var whole []*found
	for _, e := range entries {
		if !e.Complete {
			if err := x.remnant(ctx, e); err != nil {
				return err
			}
			continue
		}
		whole = append(whole, &found{Entry: e})
	}
	readable, err := x.read(ctx, whole)
	if err != nil {
		return err
	}
	if systems := systemsOf(readable); len(systems) > 1 {
		x.mixed(readable, fmt.Errorf("%w: archives of %d different database systems (%s) lie under %q, and none of them stands in for another; nothing of that label expires: give each system a label of its own",
			ErrRefused, len(systems), strings.Join(systems, ", "), label))
		return nil
	}
	var origins [][]*found // newest first, each of one database
	for _, f := range readable {
		at := slices.IndexFunc(origins, func(o []*found) bool { return o[0].m.Source.origin() == f.m.Source.origin() })
		if at < 0 {
			at, origins = len(origins), append(origins, nil)
		}
		origins[at] = append(origins[at], f)
	}
	for _, of := range origins {
		s := of[0].m.Source
		if len(origins) > 1 && s.SystemIdentifier == "" {
			x.mixed(of, fmt.Errorf("%w: archives of several databases lie under %q, and %d of them, of %s, do not tell their cluster; these stay: give each database a label of its own",
				ErrRefused, label, len(of), strings.TrimSpace(s.Host+" "+s.Database)))
			continue
		}
		if err := x.origin(ctx, of); err != nil {
			return err
		}
	}
	return nil
}

// systemsOf are the system identifiers of archives that tell theirs.
func systemsOf(archives []*found) (systems []string) {
	for _, f := range archives {
		if id := f.m.Source.SystemIdentifier; id != "" && !slices.Contains(systems, id) {
			systems = append(systems, id)
		}
	}
	slices.Sort(systems)
	return systems
}

// mixed leaves archives alone whose like under the label may be another's.
func (x *expiring) mixed(archives []*found, why error) {
	for _, f := range archives {
		x.note(f.Entry, f.m, ExpireSkipped, verdict{WhyMixed, "of which database?"})
	}
	x.findings = append(x.findings, why)
}

// origin expires archives of one label and one database, newest first: none of
// another database stands in for one of them.
func (x *expiring) origin(ctx context.Context, of []*found) error {
	archives := make([]*aged, len(of))
	for i, f := range of {
		archives[i] = x.aged(ctx, f)
	}
	verdicts, err := expiry{now: x.now, keepLast: x.opts.KeepLast, requireVerified: x.opts.RequireVerified}.plan(archives)
	if err != nil {
		return err
	}
	for i, v := range slices.Backward(verdicts) { // oldest first: what is interrupted has taken the oldest
		f := of[i]
		switch {
		case !v.expires():
			x.note(f.Entry, f.m, ExpireKept, v)
		case !x.opts.Yes:
			x.note(f.Entry, f.m, ExpireWould, verdict{detail: "kept until " + archives[i].keepUntil().Format(time.DateOnly)})
		default:
			if err := x.expire(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// found is a listed archive with what was read of it.
type found struct {
	Entry
	m   *Manifest
	raw []byte
	all []seen // of every version, when free was asked
}

// read reads the manifests. What cannot be understood is noted and left out.
func (x *expiring) read(ctx context.Context, whole []*found) ([]*found, error) {
	errs := make([]error, len(whole))
	var g errgroup.Group
	g.SetLimit(manifestReaders)
	for i, f := range whole {
		g.Go(func() error {
			f.m, f.raw, errs[i] = readManifest(ctx, x.opts.Bucket, f.Entry)
			return nil
		})
	}
	_ = g.Wait()
	var readable []*found
	for i, f := range whole {
		err := errs[i]
		switch {
		case err == nil:
			readable = append(readable, f)
		case errors.Is(err, storage.ErrNotExist): // expired by another run meanwhile
			x.note(f.Entry, nil, ExpireSkipped, verdict{WhyChanged, "gone meanwhile"})
		case errors.Is(err, ErrIntegrity), errors.Is(err, storage.ErrIntegrity), errors.Is(err, ErrFormat):
			x.note(f.Entry, nil, ExpireSkipped, verdict{WhyUnreadable, "manifest unreadable"})
			x.res.Archives[len(x.res.Archives)-1].Error = oneLine(err)
			x.findings = append(x.findings, err)
		default:
			return nil, err
		}
	}
	return readable, nil
}

func (x *expiring) aged(ctx context.Context, f *found) *aged {
	b := x.opts.Bucket
	signature := sync.OnceValues(func() (Signature, error) {
		return readSignature(ctx, b, f.Entry, ManifestName, f.raw, x.opts.Trust)
	})
	return &aged{
		time: f.Time, segment: f.Policy, kept: f.m.Kept, finished: f.m.Finished, args: f.m.Tools.PgDumpArgs,
		complete: sync.OnceValues(func() (bool, error) { return f.whole(ctx, b) }),
		counts: func() (bool, error) {
			s, err := signature()
			return err == nil && x.opts.Trust.check(s, f.Key) == nil, err
		},
		verified: sync.OnceValues(func() (bool, error) {
			s, err := signature()
			if err != nil {
				return false, err
			}
			return verified(ctx, b, f.Entry, hexSum(f.raw), x.opts.Trust.beside(s))
		}),
		free: func() (v verdict, err error) {
			if f.all, err = look(ctx, b, f.dir(), f.allVersions()); err != nil {
				return verdict{}, err
			}
			return freeOf(f.all, x.now), nil
		},
	}
}

// whole reports whether each object is there as the manifest names it.
func (f *found) whole(ctx context.Context, b storage.Bucket) (bool, error) {
	var objects []EntryObject
	dir := f.dir()
	for _, o := range []*StoredObject{&f.m.Objects.Dump, f.m.Objects.Index, f.m.Objects.Globals} {
		if o != nil {
			name := o.Key[len(dir.String()):] // checkObjects has compared it
			objects = append(objects, EntryObject{Name: name, Version: o.Version, Size: o.Size})
		}
	}
	all, err := look(ctx, b, dir, objects)
	if err != nil {
		return false, err
	}
	for _, s := range all {
		if s.gone || s.o.Key == "" || s.o.Size != s.Size || s.o.DeleteMarker {
			return false, nil
		}
	}
	return true, nil
}

// allVersions are those of all objects, delete markers apart: these have neither
// lock nor hold.
func (e *Entry) allVersions() []EntryObject {
	all := slices.Clone(e.Objects)
	for _, v := range e.Later {
		if !v.DeleteMarker {
			all = append(all, v.EntryObject)
		}
	}
	return all
}

// note adds an archive to the result.
func (x *expiring) note(e Entry, m *Manifest, action string, v verdict) *ExpiredArchive {
	a := ExpiredArchive{
		ID: e.ID, Label: e.Label, Policy: e.Policy, Time: e.Time, Key: e.Key, Action: action, Why: v.why, Detail: v.detail,
		Versions: len(e.Objects) + len(e.Later),
	}
	for _, o := range e.allVersions() {
		a.Bytes += o.Size
	}
	if m != nil && m.Kept != nil && !m.Kept.Keep.IsZero() {
		a.KeepUntil = (&aged{kept: m.Kept, finished: m.Finished}).keepUntil()
	}
	x.res.Archives = append(x.res.Archives, a)
	return &x.res.Archives[len(x.res.Archives)-1]
}
