package storagetest

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// broken is the reference bucket with some methods replaced. Each one stands
// for a mistake that a driver could make, and the suite must see it.
type broken struct {
	*Memory
	put      func(context.Context, string, io.Reader, storage.PutOptions) (storage.Object, error)
	open     func(context.Context, string, storage.OpenOptions) (io.ReadCloser, error)
	stat     func(context.Context, string, string) (storage.Object, error)
	list     func(context.Context, storage.ListOptions) iter.Seq2[storage.Object, error]
	del      func(context.Context, string, string) error
	caps     func() storage.Capabilities
	shut     func() error
	retain   func(context.Context, string, string, storage.Retention) error
	hold     func(context.Context, string, string, bool) error
	time     func(context.Context, string, string, time.Time) error
	thaw     func(context.Context, string, string, storage.ThawOptions) error
	batch    func(context.Context, []storage.VersionKey) []error
	blind    func(testing.TB) (storage.Bucket, []storage.Attribute)
	sweep    func(context.Context, string) iter.Seq2[storage.Upload, error]
	abort    func(context.Context, storage.Upload) error
	leavings func() []string
	rules    func(context.Context) (storage.Lifecycle, error)
	setRules func(context.Context, storage.Lifecycle) error
}

func (b *broken) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if b.put != nil {
		return b.put(ctx, key, r, opts)
	}
	return b.Memory.Put(ctx, key, r, opts)
}

func (b *broken) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if b.open != nil {
		return b.open(ctx, key, opts)
	}
	return b.Memory.Open(ctx, key, opts)
}

func (b *broken) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	if b.stat != nil {
		return b.stat(ctx, key, version)
	}
	return b.Memory.Stat(ctx, key, version)
}

func (b *broken) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	if b.list != nil {
		return b.list(ctx, opts)
	}
	return b.Memory.List(ctx, opts)
}

func (b *broken) Delete(ctx context.Context, key, version string) error {
	if b.del != nil {
		return b.del(ctx, key, version)
	}
	return b.Memory.Delete(ctx, key, version)
}

func (b *broken) Capabilities() storage.Capabilities {
	if b.caps != nil {
		return b.caps()
	}
	return b.Memory.Capabilities()
}

func (b *broken) Close() error {
	if b.shut != nil {
		return b.shut()
	}
	return b.Memory.Close()
}

func (b *broken) SetRetention(ctx context.Context, key, version string, r storage.Retention) error {
	if b.retain != nil {
		return b.retain(ctx, key, version, r)
	}
	return b.Memory.SetRetention(ctx, key, version, r)
}

func (b *broken) SetLegalHold(ctx context.Context, key, version string, on bool) error {
	if b.hold != nil {
		return b.hold(ctx, key, version, on)
	}
	return b.Memory.SetLegalHold(ctx, key, version, on)
}

func (b *broken) SetCustomTime(ctx context.Context, key, version string, at time.Time) error {
	if b.time != nil {
		return b.time(ctx, key, version, at)
	}
	return b.Memory.SetCustomTime(ctx, key, version, at)
}

func (b *broken) Thaw(ctx context.Context, key, version string, opts storage.ThawOptions) error {
	if b.thaw != nil {
		return b.thaw(ctx, key, version, opts)
	}
	return b.Memory.Thaw(ctx, key, version, opts)
}

func (b *broken) DeleteVersions(ctx context.Context, keys []storage.VersionKey) []error {
	if b.batch != nil {
		return b.batch(ctx, keys)
	}
	return storage.DeleteVersions(ctx, b.Memory, keys)
}

func (b *broken) Uploads(ctx context.Context, prefix string) iter.Seq2[storage.Upload, error] {
	if b.sweep != nil {
		return b.sweep(ctx, prefix)
	}
	return b.Memory.Uploads(ctx, prefix)
}

func (b *broken) AbortUpload(ctx context.Context, u storage.Upload) error {
	if b.abort != nil {
		return b.abort(ctx, u)
	}
	return b.Memory.AbortUpload(ctx, u)
}

func (b *broken) Lifecycle(ctx context.Context) (storage.Lifecycle, error) {
	if b.rules != nil {
		return b.rules(ctx)
	}
	return b.Memory.Lifecycle(ctx)
}

func (b *broken) SetLifecycle(ctx context.Context, l storage.Lifecycle) error {
	if b.setRules != nil {
		return b.setRules(ctx, l)
	}
	return b.Memory.SetLifecycle(ctx, l)
}

// mistake is one way to be broken and the cases that must notice it, each.
type mistake struct {
	name    string
	noLock  bool // of a bucket without locks and versions
	bare    bool // hidden by storage.Prefixed, which checks by itself
	rules   bool // of a bucket with lifecycle rules
	tune    func(h *Harness)
	make    func(m *Memory, b *broken)
	caughts []string
}

// brokenHarness runs the suite on a mistake.
func brokenHarness(x mistake) Harness {
	opts := MemoryOptions{Versions: !x.noLock, Lock: !x.noLock, CustomTime: !x.noLock}
	if x.rules {
		opts.Lifecycle = &storage.LifecycleFeatures{IDs: true}
	}
	h := memoryHarness(opts)
	opts.PartSize = h.PartSize
	if x.tune != nil {
		x.tune(&h)
	}
	h.Open = func(t testing.TB) *Store {
		m := NewMemory(opts)
		b := &broken{Memory: m, leavings: m.leftovers, blind: blind(m)}
		x.make(m, b)
		return &Store{Bucket: b, Cut: m.Cut, Freeze: m.Freeze, Received: m.Received, Blind: b.blind,
			Leftovers: func(testing.TB) []string { return b.leavings() }}
	}
	if keeps := h.DefaultRetention; keeps != nil {
		h.DefaultRetention = func(t testing.TB) (storage.Bucket, storage.DefaultRetention) {
			inner, want := keeps(t)
			m := inner.(*Memory)
			b := &broken{Memory: m}
			x.make(m, b)
			return b, want
		}
	}
	return h
}

// caught runs one case on a broken store and returns what it found, "" for
// nothing.
func caught(t *testing.T, h Harness, name, prefix string) string {
	t.Helper()
	h.setDefaults()
	for _, c := range checks() {
		if c.name == name {
			rec := record(t, func(tb testing.TB) { runOne(tb, h, c, prefix, 1) })
			if rec.Failed() && rec.first() == "" {
				return "failed without a message"
			}
			return rec.first()
		}
	}
	t.Fatalf("no case is named %q", name)
	return ""
}

// TestMistakesAreCaught: a suite that passes a broken bucket is worth nothing.
// Every case must catch at least one mistake.
func TestMistakesAreCaught(t *testing.T) {
	catches := map[string]bool{}
	for _, x := range mistakes() {
		t.Run(x.name, func(t *testing.T) {
			for _, name := range x.caughts {
				catches[name] = true
				for _, prefix := range []string{"", testPrefix} {
					found := caught(t, brokenHarness(x), name, prefix)
					if found == "" && !(x.bare && prefix != "") {
						t.Errorf("the case %q did not notice it (prefix %q)", name, prefix)
					}
				}
			}
		})
	}
	for _, name := range caughtElsewhere {
		catches[name] = true
	}
	for _, c := range checks() {
		if !catches[c.name] {
			t.Errorf("no mistake proves that the case %q can fail", c.name)
		}
	}
}

// caughtElsewhere are the cases with a test of their own below.
var caughtElsewhere = []string{
	"errors/bad credentials", "errors/no bucket", "errors/unreachable", "errors/denied",
	"memory/stream", "list/neighbours",
}

// TestHooksAreHeldToTheirErrors: a bucket that works does not pass for one
// that cannot.
func TestHooksAreHeldToTheirErrors(t *testing.T) {
	h := memoryHarness(MemoryOptions{})
	works := func(testing.TB) (storage.Bucket, error) { return NewMemory(MemoryOptions{}), nil }
	wrong := func(testing.TB) (storage.Bucket, error) { return nil, errors.New("some error") }
	for _, hook := range []func(testing.TB) (storage.Bucket, error){works, wrong} {
		h.BadCredentials, h.NoBucket, h.Unreachable, h.Denied = hook, hook, hook, hook
		h.Without = map[Hook]string{HookMemory: "the store itself is in the heap"}
		for _, name := range []string{"errors/bad credentials", "errors/no bucket", "errors/unreachable", "errors/denied"} {
			if caught(t, h, name, "") == "" {
				t.Errorf("%q did not notice it", name)
			}
		}
	}
}

// TestMemoryIsMeasured: the reference bucket keeps all in the heap and says so;
// when it does not say so, the case must see it.
func TestMemoryIsMeasured(t *testing.T) {
	h := memoryHarness(MemoryOptions{})
	delete(h.Without, HookMemory)
	h.StreamSize, h.HeapLimit = 16<<20, 4<<20
	if caught(t, h, "memory/stream", "") == "" {
		t.Error("a Put that holds all of the stream passed")
	}
}

// TestNeighboursAreSeen: a listing that ignores the prefix passes where there
// is none, and fails under one.
func TestNeighboursAreSeen(t *testing.T) {
	x := mistake{make: func(m *Memory, b *broken) {
		b.list = func(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
			opts.Prefix = ""
			return m.List(ctx, opts)
		}
	}}
	if caught(t, brokenHarness(x), "list/neighbours", testPrefix) == "" {
		t.Error("neighbours were listed, nobody noticed")
	}
}

// TestQuirks: a quirk must be there; one that has gone is a failure.
func TestQuirks(t *testing.T) {
	x := mistake{make: func(m *Memory, b *broken) {
		b.del = func(context.Context, string, string) error { return errors.New("delete does nothing") }
	}}
	h := brokenHarness(x)
	h.setDefaults()
	h.Quirks = map[string]string{"delete/object": "it cannot delete", "put/bytes": "it cannot put"}
	for _, c := range checks() {
		var wantFail bool
		switch c.name {
		case "delete/object": // deviates as declared: passes
		case "put/bytes": // declared, but has gone: fails
			wantFail = true
		default:
			continue
		}
		rec := record(t, func(tb testing.TB) { runCheck(tb, h, c, "", 1) })
		if rec.Failed() != wantFail {
			t.Errorf("%q: failed %t, expected %t: %s", c.name, rec.Failed(), wantFail, rec.first())
		}
	}
}

// TestHarnessIsChecked: slips in a harness are errors, not silence.
func TestHarnessIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Harness){
		"no Open":              func(h *Harness) { h.Open = nil },
		"no part size":         func(h *Harness) { h.PartSize = 0 },
		"unknown quirk":        func(h *Harness) { h.Quirks = map[string]string{"put/nothing": "why"} },
		"quirk without reason": func(h *Harness) { h.Quirks = map[string]string{"put/sizes": ""} },
		"unknown hook":         func(h *Harness) { h.Without["cuts"] = "why" },
		"hook without reason":  func(h *Harness) { h.Without[HookDenied] = "" },
		"no class":             func(h *Harness) { h.StorageClass = "" },
	} {
		h := memoryHarness(MemoryOptions{})
		change(&h)
		if h.validate() == nil {
			t.Errorf("%s: nobody minds", name)
		}
	}
	h := memoryHarness(MemoryOptions{})
	if err := h.validate(); err != nil {
		t.Errorf("a good harness: %v", err)
	}
	delete(h.Without, HookDenied)
	if caught(t, h, "errors/denied", "") == "" {
		t.Error("a missing hook without a reason passed")
	}
	h.Denied = func(testing.TB) (storage.Bucket, error) {
		return nil, &storage.Error{Op: "open", Kind: storage.ErrPermission, Err: errors.New("no")}
	}
	if found := caught(t, h, "errors/denied", ""); found != "" {
		t.Errorf("a hook that answers as it should: %s", found)
	}
	h.Without[HookDenied] = "not there"
	if caught(t, h, "errors/denied", "") == "" {
		t.Error("a hook that is declared missing and there passed")
	}
}
