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

// HoldOptions say which archive is held or released, and why.
type HoldOptions struct {
	Bucket    storage.Bucket
	Ref, Name string
	Release   bool
	Reason    string // one line, recorded
	By        string // who, recorded
	Signer    Signer // of the record; nil leaves it unsigned
	Pgstow    string // this program's version
	Log       *slog.Logger
	Now       func() time.Time
}

// HoldResult is an archive that was held or released.
type HoldResult struct {
	ID     string `json:"id"`
	Label  string `json:"label"`
	Key    string `json:"key"`
	Held   bool   `json:"held"`
	Record string `json:"record"` // name of the record
	// Changed and Unchanged are names of objects; the latter were so before.
	Changed   []string `json:"changed"`
	Unchanged []string `json:"unchanged"`
	ReadBack  string   `json:"read_back"`
}

// Hold sets or releases the legal hold of every object of an archive and records
// who did it and why. Whatever is in between when it fails is held rather than
// released: an archive is held first, its manifest before the rest, and the fact
// recorded then; a release is recorded first, and the manifest is the last that
// is released. Done again, it
// completes what is partly done.
func Hold(ctx context.Context, opts HoldOptions) (*HoldResult, error) {
	if err := errors.Join(checkWords("the reason", opts.Reason, maxReason), checkWords("who it is", opts.By, maxBy)); err != nil {
		return nil, err
	}
	caps := opts.Bucket.Capabilities()
	if !caps.LegalHold && len(caps.Unprobed) == 0 {
		return nil, fmt.Errorf("%w: this bucket knows no holds; `pgstow doctor` says what it lacks", errors.ErrUnsupported)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	a, err := findKept(ctx, opts.Bucket, opts.Ref, opts.Name, opts.Log)
	if err != nil {
		return nil, err
	}
	a.now = opts.Now().UTC().Add(-caps.ClockSkew)
	h := holding{keptArchive: a, opts: opts}
	run := h.set
	if opts.Release {
		run = h.release
	}
	if err := run(ctx); err != nil {
		return nil, causeOf(ctx, fmt.Errorf("archive %s: %w", a.entry.ID, err))
	}
	return h.result(ctx)
}

// holding is one Hold.
type holding struct {
	*keptArchive
	opts   HoldOptions
	record storedRecord
	done   changes
}

func (h *holding) set(ctx context.Context) error {
	if err := h.change(ctx, manifestFirst(h.all), true, "held"); err != nil {
		return err
	}
	if err := h.write(ctx, HoldSet); err != nil {
		return fmt.Errorf("all of it is held, but who did it and why is not recorded; run it again: %w", err)
	}
	return nil
}

func (h *holding) release(ctx context.Context) error {
	if err := h.write(ctx, HoldReleased); err != nil {
		return fmt.Errorf("nothing was released: %w", err)
	}
	order := manifestFirst(h.all)
	slices.Reverse(order)
	return h.change(ctx, order, false, "released")
}

// write records what is done; the record is held as the archive is then.
func (h *holding) write(ctx context.Context, result string) error {
	r := Record{
		Kind: RecordHold, ManifestSHA256: hexSum(h.raw), By: h.opts.By, Reason: h.opts.Reason,
		Result: result, Pgstow: h.opts.Pgstow,
	}
	all := h.all
	if result == HoldSet {
		all = slices.Clone(all)
		for i := range all {
			all[i].o.LegalHold = true
		}
	}
	var err error
	if h.record, err = putRecord(ctx, h.bucket, h.entry, r, h.opts.Signer, all, h.kept(), h.opts.Now()); err != nil {
		return err
	}
	for _, o := range []*EntryObject{h.record.signature, &h.record.EntryObject} {
		if o == nil {
			continue
		}
		s, err := lookAt(ctx, h.bucket, h.entry.dir().Key(o.Name), *o)
		if err != nil {
			return fmt.Errorf("read back the record: %w", err)
		}
		h.all = append(h.all, s)
	}
	return nil
}

func (h *holding) change(ctx context.Context, all []seen, on bool, verb string) error {
	needs := func(s seen) bool { return s.o.LegalHold != on || s.hides(storage.AttributeLegalHold) }
	h.done.each(ctx, all, needs, func(ctx context.Context, s seen) error {
		return storage.SetLegalHold(ctx, h.bucket, s.key, s.Version, on)
	})
	return h.done.err(verb)
}

func (h *holding) result(ctx context.Context) (*HoldResult, error) {
	on := !h.opts.Release
	denied, err := h.readBack(ctx, storage.AttributeLegalHold, func(s seen) error {
		switch {
		case on && !s.o.LegalHold:
			return integrity("%s: its hold is off in the store after it was set; the store does not keep what it takes", s.key)
		case !on && s.o.LegalHold:
			return fmt.Errorf("%w: %s is still held after it was released: somebody set it again, or it has an event-based hold, which only the bucket's owner releases", ErrRefused, s.key)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	res := &HoldResult{
		ID: h.entry.ID, Label: h.entry.Label, Key: h.entry.Key, Held: on, Record: h.record.Name,
		Changed: []string{}, Unchanged: []string{}, ReadBack: readBackText(denied),
	}
	for _, s := range h.done.done {
		res.Changed = append(res.Changed, s.Name)
	}
	for _, s := range h.done.unchanged {
		res.Unchanged = append(res.Unchanged, s.Name)
	}
	return res, nil
}
