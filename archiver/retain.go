package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// RetainOptions say how much longer an archive is locked.
type RetainOptions struct {
	Bucket    storage.Bucket
	Ref, Name string
	// Until is the new end of the lock; or Keep, counted from the archive's end
	// and with the margin that archives get. One of them.
	Until time.Time
	Keep  Period
	// Lock is the mode of objects that have none, and makes governance
	// compliance; LockNone leaves modes as they are.
	Lock storage.LockMode
	// MaxKeep is the longest compliance lock, from now on; zero is DefaultMaxKeep.
	MaxKeep Period
	Log     *slog.Logger
	Now     func() time.Time
}

// RetainResult is an archive whose lock was extended.
type RetainResult struct {
	ID    string           `json:"id"`
	Label string           `json:"label"`
	Key   string           `json:"key"`
	Lock  storage.LockMode `json:"lock"`
	Until time.Time        `json:"until"` // all objects are locked at least until then
	// Extended and Unchanged are names of objects; the latter were locked firmly
	// and long enough before.
	Extended  []string `json:"extended"`
	Unchanged []string `json:"unchanged"`
	// ReadBack is ReadBackDone, or ReadBackDenied when the store does not show the
	// lock to these credentials.
	ReadBack string `json:"read_back"`
}

// Retain extends the lock of every object of an archive and sets one where there
// is none. It never shortens: when the archive is locked longer, or more firmly,
// than asked for, the error is ErrRefused and nothing was changed. What is
// locked longer than the rest stays so. Done again, it changes nothing.
func Retain(ctx context.Context, opts RetainOptions) (*RetainResult, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	caps := opts.Bucket.Capabilities()
	if !caps.ObjectLock && len(caps.Unprobed) == 0 {
		return nil, fmt.Errorf("%w: this bucket cannot lock its objects; `pgstow doctor` says what it lacks", errors.ErrUnsupported)
	}
	now, err := storeNow(opts.Bucket, opts.Now, "locks are counted by it")
	if err != nil {
		return nil, err
	}
	a, err := findKept(ctx, opts.Bucket, opts.Ref, opts.Name, opts.Log)
	if err != nil {
		return nil, err
	}
	a.now = now
	r := retaining{keptArchive: a, opts: opts}
	if err := r.decide(); err != nil {
		return nil, fmt.Errorf("archive %s: %w", a.entry.ID, err)
	}
	return r.run(ctx)
}

func (o RetainOptions) check() error {
	switch {
	case o.Until.IsZero() == o.Keep.IsZero():
		return fmt.Errorf("%w: until when? Give --until or --keep, and one of them", ErrUsage)
	case o.Lock != storage.LockNone && o.Lock != storage.Governance && o.Lock != storage.Compliance:
		return fmt.Errorf("%w: lock %q; want governance or compliance", ErrUsage, o.Lock)
	}
	return nil
}

// retaining is one Retain.
type retaining struct {
	*keptArchive
	opts  RetainOptions
	until time.Time
	mode  storage.LockMode // of objects that have none
}

// decide finds out, before anything is changed, what is to be done, and refuses
// what would weaken or what nobody could undo.
func (r *retaining) decide() error {
	r.until = r.opts.Until.UTC()
	if whole := r.until.Truncate(time.Second); whole.Before(r.until) {
		r.until = whole.Add(time.Second)
	}
	if !r.opts.Keep.IsZero() {
		if r.m == nil {
			return integrity("its manifest cannot be understood, so that its end is not known; give --until")
		}
		r.until = lockMargin(r.opts.Keep.After(r.m.Finished))
	}
	weakest := shown(r.all).Weakest
	held := storage.Retention{Mode: weakest.Lock, Until: weakest.RetainUntil}
	asked, has := r.until.Format(time.RFC3339), "its lock is "+retentionText(held)
	if r.hidden() {
		has = "its lock cannot be seen for want of a right"
	}
	switch {
	case !r.until.After(r.now):
		return fmt.Errorf("%w: %s was asked for and is in the past; %s, nothing was changed", ErrRefused, asked, has)
	case !held.IsZero() && r.until.Before(held.Until):
		return fmt.Errorf("%w: %s was asked for and its lock is %s; locks are never shortened, nothing was changed", ErrRefused, asked, retentionText(held))
	}
	return r.decideMode()
}

func (r *retaining) decideMode() error {
	r.mode = r.opts.Lock
	compliance, without := false, false
	for _, s := range r.all {
		switch has := s.retention().Mode; {
		case has == storage.Compliance && r.opts.Lock == storage.Governance:
			return fmt.Errorf("%w: governance was asked for and the lock of %s is %s; locks are never weakened, nothing was changed",
				ErrRefused, s.Name, retentionText(s.retention()))
		case has == storage.LockNone:
			without = true
		case has == storage.Compliance:
			compliance = true
		}
		if r.mode == storage.LockNone && s.Name == ManifestName {
			r.mode = s.retention().Mode
		}
	}
	if r.mode == storage.LockNone && without && r.hidden() {
		return fmt.Errorf("%w: whether it has a lock cannot be seen for want of a right; say which it is to have with --lock governance or --lock compliance, or let somebody do it who sees it (`pgstow doctor` names the right)", ErrUsage)
	}
	if r.mode == storage.LockNone && without {
		return fmt.Errorf("%w: it has no lock yet; say which with --lock governance or --lock compliance", ErrUsage)
	}
	longest := r.opts.MaxKeep
	if longest.IsZero() {
		longest = DefaultMaxKeep
	}
	if (compliance || r.mode == storage.Compliance) && (r.opts.Keep.LongerThan(longest) || r.until.After(lockMargin(longest.After(r.now)))) {
		return fmt.Errorf("%w: a compliance lock until %s is longer than max-keep, %s from now; nobody could undo it",
			ErrUsage, r.until.Format(time.RFC3339), longest)
	}
	return nil
}

// hidden: the lock of some object cannot be seen.
func (r *retaining) hidden() bool {
	return slices.ContainsFunc(r.all, func(s seen) bool { return s.hides(storage.AttributeRetention) })
}

// want is the lock that an object is to have at least.
func (r *retaining) want(s seen) storage.Retention {
	w := storage.Retention{Mode: s.retention().Mode, Until: r.until}
	if w.Mode == storage.LockNone || r.opts.Lock == storage.Compliance {
		w.Mode = r.mode
	}
	if s.retention().Until.After(w.Until) {
		w.Until = s.retention().Until
	}
	return w
}

// custom is the time by which rules of the store expire the object: it moves
// with the lock.
func (r *retaining) custom() time.Time {
	if kept := r.kept(); kept != nil && !kept.Keep.IsZero() && r.bucket.Capabilities().CustomTime {
		return kept.Keep.Before(r.until)
	}
	return time.Time{}
}

func (r *retaining) run(ctx context.Context) (*RetainResult, error) {
	custom := r.custom()
	needs := func(s seen) bool { return !s.retention().Covers(r.want(s)) || s.o.CustomTime.Before(custom) }
	var done changes
	done.each(ctx, manifestFirst(r.all), needs, func(ctx context.Context, s seen) error {
		if !s.retention().Covers(r.want(s)) {
			if err := storage.SetRetention(ctx, r.bucket, s.key, s.Version, r.want(s)); err != nil {
				return err
			}
		}
		if s.o.CustomTime.Before(custom) {
			return storage.SetCustomTime(ctx, r.bucket, s.key, s.Version, custom)
		}
		return nil
	})
	if err := done.err("extended"); err != nil {
		return nil, causeOf(ctx, fmt.Errorf("archive %s: %w", r.entry.ID, err))
	}
	wanted := map[string]storage.Retention{}
	for _, s := range r.all {
		wanted[s.Name] = r.want(s)
	}
	denied, err := r.readBack(ctx, storage.AttributeRetention, func(s seen) error {
		if !s.retention().Covers(wanted[s.Name]) {
			return integrity("%s: its lock is %s in the store, %s was asked for; the store does not keep what it takes",
				s.key, retentionText(s.retention()), retentionText(wanted[s.Name]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	res := &RetainResult{
		ID: r.entry.ID, Label: r.entry.Label, Key: r.entry.Key, Until: r.until, Lock: r.mode,
		Extended: []string{}, Unchanged: []string{}, ReadBack: readBackText(denied),
	}
	if w := shown(r.all).Weakest; !denied {
		res.Lock, res.Until = w.Lock, w.RetainUntil
	}
	for _, s := range done.done {
		res.Extended = append(res.Extended, s.Name)
	}
	for _, s := range done.unchanged {
		res.Unchanged = append(res.Unchanged, s.Name)
	}
	return res, nil
}
