// Package storagetest is the conformance suite of the bucket contract. Every
// driver passes it, bare and under a prefix, against a real server where there
// is one:
//
//	func TestConformance(t *testing.T) {
//		storagetest.Run(t, storagetest.Harness{Open: ..., PartSize: ..., Want: ...})
//	}
//
// What a server cannot show is declared with its reason, never skipped: hooks
// it lacks in Without, rules it breaks in Quirks. A quirk is asserted: the case
// must fail, so that a deviation that disappears is noticed.
//
// All data comes from a seeded generator. A failing case prints its seed; the
// environment variable STORAGETEST_SEED repeats it.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgstow/pgstow/storage"
)

// Store is one empty bucket with the hooks that act on it. Optional hooks that
// are nil are named in Harness.Without.
type Store struct {
	// Bucket is empty. The suite closes it.
	Bucket storage.Bucket
	// Leftovers names all that lies in the store besides complete objects, as
	// the store itself tells it: unfinished uploads, temporary objects or
	// files. Required.
	Leftovers func(t testing.TB) []string

	// Cut (HookCut) breaks connections from now on, pooled ones included, each
	// after about that many bytes from the store; 0 ends it. The suite calls
	// it with no less than 64 KiB, so that headers do not eat all of it.
	Cut func(after int64)
	// Freeze (HookFreeze) makes the store take and answer nothing, with its
	// connections open, until thaw is called.
	Freeze func() (thaw func())
	// Received (HookReceived) counts the bytes that came from the store.
	Received func() int64
	// Blind (HookBlind) opens the same bucket for credentials that may stat its
	// objects and not see the attributes in denied.
	Blind func(t testing.TB) (b storage.Bucket, denied []storage.Attribute)
}

// Harness is what a driver's test tells about one kind of store.
type Harness struct {
	// Open gives a fresh, empty store that lives until the test ends.
	Open func(t testing.TB) *Store
	// PartSize is the size of the driver's requests for a stream without an
	// estimate; sizes in the cases are chosen around it. Tests set it small.
	PartSize int64
	// Want is what the bucket must report, and what the cases then ask of it.
	Want storage.Capabilities
	// Checksum is the algorithm of the checksum that Put and Stat show over
	// the whole object: "CRC64NVME", "CRC32C", "MD5", "SHA256", or "" for none.
	Checksum string
	// Metadata says that Stat shows content type and metadata as they were put.
	Metadata bool
	// Encryption is what the store takes and shows, when Want.Encryption;
	// EncryptionRefused is what it cannot do.
	Encryption, EncryptionRefused []storage.Encryption
	// StorageClass is a class that the store takes and shows, when
	// Want.StorageClass.
	StorageClass string
	// Lifecycle says that the store keeps lifecycle rules; they are refused
	// otherwise.
	Lifecycle bool

	// BadCredentials, NoBucket, Unreachable and Denied (hooks of the same names)
	// open a bucket that cannot work: wrong secret or unknown key; a bucket
	// that is not there; a server that refuses connections; credentials
	// without rights. An error of opening counts like one of the first call.
	BadCredentials, NoBucket, Unreachable, Denied func(t testing.TB) (storage.Bucket, error)

	// DefaultRetention (HookDefaultRetention) opens an empty bucket that keeps
	// by itself, as want says, what is put into it.
	DefaultRetention func(t testing.TB) (b storage.Bucket, want storage.DefaultRetention)

	// Without gives, per hook the harness lacks, the reason: HookCut: "a file
	// has no connection".
	Without map[Hook]string
	// Quirks gives, per case that this server fails by its own fault, what it
	// does instead. It holds bare and prefixed.
	Quirks map[string]string

	// Many is the number of objects for the paging case, 0 is 1,005.
	Many int
	// StreamSize is the size of the stream whose memory is measured, 0 is
	// 256 MiB.
	StreamSize int64
	// HeapLimit is how far the live heap may grow while it passes, 0 is
	// 64 MiB or twelve parts, whichever is more.
	HeapLimit int64
	// RetainFor is how long the retention cases lock objects, 0 is an hour.
	// Nobody can remove these objects earlier.
	RetainFor time.Duration
	// StallTimeout is what the freeze case waits for, 0 is 2 s.
	StallTimeout time.Duration
	// Timeout ends a case that hangs, 0 is 3 minutes.
	Timeout time.Duration
	// Goroutines are allowed to outlive a closed bucket, such as those of a
	// server in the same process.
	Goroutines []goleak.Option
}

// Hook names something a harness may be unable to do.
type Hook string

// The hooks that a harness has or gives a reason for in Without.
const (
	HookCut            Hook = "cut"
	HookFreeze         Hook = "freeze"
	HookReceived       Hook = "received"
	HookBadCredentials Hook = "bad credentials"
	HookNoBucket       Hook = "no bucket"
	HookUnreachable    Hook = "unreachable"
	HookDenied         Hook = "denied"
	HookBlind          Hook = "blind"
	// HookDefaultRetention is a bucket that keeps by itself.
	HookDefaultRetention Hook = "default retention"
	// HookMemory stands for the measurement of the heap, which makes no sense
	// for a store inside the test process.
	HookMemory Hook = "memory"
)

var hooks = []Hook{
	HookCut, HookFreeze, HookReceived, HookBadCredentials, HookNoBucket, HookUnreachable, HookDenied, HookBlind,
	HookDefaultRetention, HookMemory,
}

// check is one case of the suite. Its name is what Quirks refers to.
type check struct {
	name string
	run  func(c *suite)
}

// checks lists the whole suite.
func checks() []check {
	return slices.Concat(putChecks(), faultChecks(), headChecks(), readChecks(), listChecks(),
		lockChecks(), lifecycleChecks(), keepChecks(), errorChecks(), flowChecks())
}

// testPrefix has what a prefix may have: several segments, a space, UTF-8.
const testPrefix = "under a/prefix-ü/"

// Run runs every case, on the bare bucket and under a prefix.
func Run(t *testing.T, h Harness) {
	if err := h.validate(); err != nil {
		t.Fatal(err)
	}
	h.setDefaults()
	seed := chooseSeed(t)
	for _, mode := range []struct{ name, prefix string }{{"bare", ""}, {"prefixed", testPrefix}} {
		t.Run(mode.name, func(t *testing.T) {
			for _, c := range checks() {
				t.Run(c.name, func(t *testing.T) { runCheck(t, h, c, mode.prefix, seed) })
			}
		})
	}
}

// runCheck runs one case, or asserts that it fails when it is a declared quirk.
func runCheck(t testing.TB, h Harness, c check, prefix string, seed uint64) {
	reason, quirk := h.Quirks[c.name]
	if !quirk {
		runOne(t, h, c, prefix, seed)
		return
	}
	rec := record(t, func(tb testing.TB) { runOne(tb, h, c, prefix, seed) })
	if !rec.Failed() {
		t.Errorf("the declared quirk has gone, remove it: %s", reason)
		return
	}
	t.Logf("deviates as declared (%s): %s", reason, rec.first())
}

// runOne runs one case on a fresh store, then closes the bucket and looks for
// goroutines it left.
func runOne(t testing.TB, h Harness, k check, prefix string, seed uint64) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with STORAGETEST_SEED=%d", seed)
		}
	})
	ctx, cancel := context.WithTimeoutCause(context.Background(), h.Timeout,
		fmt.Errorf("the case did not end within %s", h.Timeout))
	defer cancel()
	store := h.Open(t)
	if store.Leftovers == nil {
		t.Fatal("the harness's Store has no Leftovers")
	}
	c := &suite{TB: t, h: h, ctx: ctx, store: store, seed: seed,
		bucket: storage.Prefixed(store.Bucket, prefix), prefix: prefix}
	closed := false
	defer func() {
		if !closed {
			store.Bucket.Close()
		}
	}()
	before := goleak.IgnoreCurrent()
	k.run(c)
	c.checkSources()
	for _, other := range c.others {
		other.Close()
	}
	closed = true
	if err := c.bucket.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if t.Failed() {
		return
	}
	if err := goleak.Find(append(slices.Clone(h.Goroutines), before)...); err != nil {
		t.Errorf("goroutines outlive the bucket: %v", err)
	}
}

// suite is what a case works with.
type suite struct {
	testing.TB
	h      Harness
	ctx    context.Context
	store  *Store
	bucket storage.Bucket // possibly prefixed
	prefix string
	seed   uint64

	mu      sync.Mutex
	sources []*spy // given to Puts
	others  []storage.Bucket
}

// has tells whether a hook is there, and holds the harness to its reason when
// it is not.
func (c *suite) has(hook Hook, present bool) bool {
	c.Helper()
	reason, declared := c.h.Without[hook]
	switch {
	case present && declared:
		c.Fatalf("the harness has the hook %q and declares it missing (%s)", hook, reason)
	case !present && !declared:
		c.Fatalf("the harness lacks the hook %q and gives no reason in Without", hook)
	case !present:
		c.Logf("not run, the harness has no %q: %s", hook, reason)
	}
	return present
}

func (h *Harness) validate() error {
	if h.Open == nil || h.PartSize < 1024 {
		return errors.New("storagetest: the harness needs Open and a PartSize of at least 1,024 bytes")
	}
	if h.Want.StorageClass && h.StorageClass == "" {
		return errors.New("storagetest: Want.StorageClass needs a StorageClass to ask for")
	}
	if h.Want.Encryption != (len(h.Encryption) > 0) {
		return errors.New("storagetest: Want.Encryption and the Encryption to ask for go together")
	}
	for hook, reason := range h.Without {
		if !slices.Contains(hooks, hook) || reason == "" {
			return fmt.Errorf("storagetest: Without %q: no such hook, or no reason (hooks: %q)", hook, hooks)
		}
	}
	names := map[string]bool{}
	for _, c := range checks() {
		if names[c.name] {
			return fmt.Errorf("storagetest: two cases are named %q", c.name)
		}
		names[c.name] = true
	}
	for name, reason := range h.Quirks {
		if !names[name] || reason == "" {
			return fmt.Errorf("storagetest: quirk %q: no such case, or no reason (cases: %s)",
				name, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		}
	}
	return nil
}

func (h *Harness) setDefaults() {
	setDefault(&h.Many, 1005)
	setDefault(&h.StreamSize, 256<<20)
	setDefault(&h.HeapLimit, max(64<<20, 12*h.PartSize))
	setDefault(&h.RetainFor, time.Hour)
	setDefault(&h.StallTimeout, 2*time.Second)
	setDefault(&h.Timeout, 3*time.Minute)
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// chooseSeed takes the seed from the environment, or a fresh one.
func chooseSeed(t testing.TB) uint64 {
	text := os.Getenv("STORAGETEST_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("STORAGETEST_SEED: %v", err)
	}
	return seed
}
