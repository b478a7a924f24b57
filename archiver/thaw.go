package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// DefaultThawDays is how long a thawed copy stays unless another time is given.
const DefaultThawDays = 7

// ThawOptions choose which archive is thawed, and how.
type ThawOptions struct {
	Bucket    storage.Bucket
	Ref, Name string
	Tier      storage.ThawTier // "" is ThawStandard
	Days      int              // how long the copy stays; 0 is DefaultThawDays
	// Wait returns only when everything can be read.
	Wait bool
	// Waiting, when set, is called before each pause of Wait.
	Waiting func(ThawResult)
	Log     *slog.Logger
	Now     func() time.Time
	// Sleep waits for d or the end of ctx; nil sleeps.
	Sleep func(ctx context.Context, d time.Duration) error
}

// States of a thaw.
const (
	ThawNotNeeded = "not needed"   // its class is read as it is
	ThawRequested = "requested"    // asked for now
	ThawJoined    = "being thawed" // it was asked for before
	ThawReadable  = "readable"
)

// ThawedObject is one object of an archive and what became of it.
type ThawedObject struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Class   string `json:"storage_class,omitempty"`
	State   string `json:"state"`
	// Until is how long the readable copy stays.
	Until time.Time `json:"until,omitzero"`
}

// ThawResult is an archive that was thawed, or is about to be.
type ThawResult struct {
	ID    string `json:"id"`
	Label string `json:"label"`
	Key   string `json:"key"`
	// State is that of the object that is furthest from being read.
	State string           `json:"state"`
	Tier  storage.ThawTier `json:"tier,omitempty"`  // of what was requested
	Takes string           `json:"takes,omitempty"` // how long that takes
	// Until is when the first readable copy ends.
	Until   time.Time      `json:"until,omitzero"`
	Objects []ThawedObject `json:"objects"`
}

// Thaw makes an archive in a cold class readable: its dump, and whatever else
// of it lies in one. What is being thawed is joined, what is readable for less
// than asked is prolonged, and what needs no thaw is left alone.
//
// The end of ctx ends the waiting and not the thaw, which is the store's.
func Thaw(ctx context.Context, opts ThawOptions) (*ThawResult, error) {
	e, err := resolve(ctx, opts.Bucket, opts.Ref, opts.Name, opts.Log)
	if err != nil {
		return nil, err
	}
	return thawEntry(ctx, e, opts)
}

func thawEntry(ctx context.Context, e Entry, opts ThawOptions) (*ThawResult, error) {
	t := newThawing(e, opts)
	if err := t.begin(ctx); err != nil {
		return nil, fmt.Errorf("thaw: %w", err)
	}
	if !opts.Wait {
		return &t.res, nil
	}
	if err := t.wait(ctx); err != nil {
		return &t.res, fmt.Errorf("wait for the thaw, which goes on at the store: %w", causeOf(ctx, err))
	}
	return &t.res, nil
}

// thawing is one run of Thaw.
type thawing struct {
	opts  ThawOptions
	log   *slog.Logger
	entry Entry
	res   ThawResult
	poll  time.Duration
}

func newThawing(e Entry, opts ThawOptions) *thawing {
	if opts.Tier == "" {
		opts.Tier = storage.ThawStandard
	}
	if opts.Days == 0 {
		opts.Days = DefaultThawDays
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Sleep == nil {
		opts.Sleep = sleepFor
	}
	return &thawing{opts: opts, log: logger(opts.Log), entry: e, res: ThawResult{ID: e.ID, Label: e.Label, Key: e.Key}}
}

func sleepFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// now is the time by the store's clock, by which copies end.
func (t *thawing) now() time.Time {
	return t.opts.Now().UTC().Add(-t.opts.Bucket.Capabilities().ClockSkew)
}

// begin asks for what is not readable yet. A tier that one of the classes does
// not have is refused before anything is asked for.
func (t *thawing) begin(ctx context.Context) error {
	if t.opts.Days < 1 {
		return fmt.Errorf("%w: %d days; want 1 or more", ErrUsage, t.opts.Days)
	}
	all, err := look(ctx, t.opts.Bucket, t.entry.dir(), t.entry.Objects)
	if err != nil {
		return err
	}
	for _, s := range all {
		if !s.o.Thaw.Cold || s.o.Thaw.Ongoing {
			continue
		}
		if _, err := thawTimeOf(s.o.StorageClass, t.opts.Tier); err != nil {
			return err
		}
	}
	for _, s := range all {
		o, err := t.one(ctx, s)
		if err != nil {
			return err
		}
		t.res.Objects = append(t.res.Objects, o)
	}
	t.sum()
	return nil
}

func (t *thawing) one(ctx context.Context, s seen) (ThawedObject, error) {
	o := ThawedObject{Name: s.Name, Version: s.Version, Class: s.o.StorageClass, State: ThawNotNeeded, Until: s.o.Thaw.Until}
	switch {
	case s.gone:
		return o, integrity("%s was listed and is not there any more", s.key)
	case s.o.Key == "":
		return o, fmt.Errorf("%s: whether it has to be thawed cannot be seen: %w", s.key, storage.ErrPermission)
	case !s.o.Thaw.Cold:
		return o, nil
	case s.o.Thaw.Ongoing:
		t.expect(s.o.StorageClass, t.opts.Tier)
		o.State, o.Until = ThawJoined, time.Time{}
		return o, nil
	}
	wanted := t.now().AddDate(0, 0, t.opts.Days)
	readable := s.o.Thaw.Readable(t.now())
	if readable && s.o.Thaw.Until.After(wanted.Add(-24*time.Hour)) { // stores round to whole days
		o.State = ThawReadable
		return o, nil
	}
	err := storage.StartThaw(ctx, t.opts.Bucket, s.key, s.Version, storage.ThawOptions{Tier: t.opts.Tier, Days: t.opts.Days})
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return o, nil // it has been moved meanwhile
	case err != nil:
		return o, err
	case readable:
		o.State = ThawReadable
		if shown, err := t.opts.Bucket.Stat(ctx, s.key, s.Version); err == nil {
			o.Until = shown.Thaw.Until
		}
		return o, nil
	}
	t.expect(s.o.StorageClass, t.opts.Tier)
	t.res.Tier, o.State, o.Until = t.opts.Tier, ThawRequested, time.Time{}
	return o, nil
}

// expect notes how long it takes: as long as the slowest.
func (t *thawing) expect(class string, tier storage.ThawTier) {
	takes, err := thawTimeOf(class, tier)
	if err != nil {
		takes = thawTimes(class)[0]
	}
	if takes.poll > t.poll {
		t.poll, t.res.Takes = takes.poll, takes.text
	}
}

// sum makes the archive's state of those of its objects.
func (t *thawing) sum() {
	order := []string{ThawNotNeeded, ThawReadable, ThawJoined, ThawRequested}
	at := 0
	t.res.Until = time.Time{}
	for _, o := range t.res.Objects {
		for i, state := range order {
			if o.State == state {
				at = max(at, i)
			}
		}
		if !o.Until.IsZero() && (t.res.Until.IsZero() || o.Until.Before(t.res.Until)) {
			t.res.Until = o.Until
		}
	}
	t.res.State = order[at]
}

func (r ThawResult) readable() bool { return r.State == ThawReadable || r.State == ThawNotNeeded }

const (
	// firstPoll is soon: stores that only look cold are done at once.
	firstPoll = 2 * time.Second
	// mostFailures in a row end the waiting.
	mostFailures = 10
)

// wait asks until everything can be read, at first often and then as often as
// is worth it.
func (t *thawing) wait(ctx context.Context) error {
	pause, failures := firstPoll, 0
	for !t.res.readable() {
		if t.opts.Waiting != nil {
			t.opts.Waiting(t.res)
		}
		if err := t.opts.Sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, max(t.poll, firstPoll))
		err := t.look(ctx)
		switch {
		case err == nil:
			failures = 0
		case errors.Is(err, storage.ErrUnavailable) && failures < mostFailures:
			failures++
			t.log.Warn("the store does not answer; the thaw goes on", "error", oneLine(err))
		default:
			return err
		}
	}
	return nil
}

// look sees how far it is.
func (t *thawing) look(ctx context.Context) error {
	for i := range t.res.Objects {
		o := &t.res.Objects[i]
		if o.State != ThawRequested && o.State != ThawJoined {
			continue
		}
		key := t.entry.Key + o.Name
		shown, err := t.opts.Bucket.Stat(ctx, key, o.Version)
		switch {
		case err != nil:
			return err
		case shown.Thaw.Readable(t.now()):
			o.State, o.Until = ThawReadable, shown.Thaw.Until
		case !shown.Thaw.Ongoing:
			return &storage.Error{Op: "thaw", Key: key, Kind: storage.ErrCold, Err: errors.New("the store does not thaw it any more; ask again")}
		}
	}
	t.sum()
	return nil
}

// expiresSoon is when a restore is warned of the end of the thawed copy.
const expiresSoon = 24 * time.Hour

// warm sees to it that the dump of an archive can be read, or says that it
// cannot and what to do. A thaw costs money and hours: the target is looked at
// before one is asked for.
func (r *restoreRun) warm(ctx context.Context) error {
	i := -1
	for n, o := range r.entry.Objects {
		if strings.TrimSuffix(o.Name, EncryptedSuffix) == DumpName {
			i = n
		}
	}
	if i < 0 {
		return nil // what is missing is said when it is read
	}
	dump := r.entry.Objects[i]
	o, err := r.opts.Bucket.Stat(ctx, r.entry.Key+dump.Name, dump.Version)
	if err != nil || !o.Thaw.Cold {
		return nil // so is what cannot be looked at
	}
	until := o.Thaw.Until
	now := time.Now().Add(-r.opts.Bucket.Capabilities().ClockSkew)
	if !o.Thaw.Readable(now) {
		if r.opts.Thaw.Tier == "" {
			return &ColdError{ID: r.entry.ID, Class: o.StorageClass, Ongoing: o.Thaw.Ongoing}
		}
		if r.unread != nil {
			if err := r.unread(ctx); err != nil {
				return err
			}
		}
		opts := r.opts.Thaw
		opts.Bucket, opts.Log = r.opts.Bucket, r.log
		res, err := thawEntry(ctx, r.entry, opts)
		switch {
		case err != nil:
			return err
		case !res.readable():
			return &ColdError{ID: r.entry.ID, Class: o.StorageClass, Ongoing: true, Takes: res.Takes}
		}
		until = res.Until
	}
	if !until.IsZero() && until.Sub(now) < expiresSoon {
		r.warn(fmt.Sprintf("the thawed copy of the dump can be read until %s only; `pgstow thaw %s --days N` prolongs it", until.Format(time.RFC3339), r.entry.ID))
	}
	return nil
}
