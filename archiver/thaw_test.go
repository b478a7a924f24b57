package archiver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// coldArchive is an archive whose dump lies in a class.
func coldArchive(t testing.TB, b storage.Bucket, class string) *ArchiveResult {
	t.Helper()
	pg := testenv.Postgres(t)
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, smallSource(t, pg)), Name: "orders",
		Policy: Policy{Name: "cold", StorageClass: class}})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// clock is what Thaw sleeps by: it counts pauses and does something in them.
type clock struct {
	pauses []time.Duration
	at     map[int]func() error
}

func (c *clock) sleep(_ context.Context, d time.Duration) error {
	c.pauses = append(c.pauses, d)
	if do := c.at[len(c.pauses)]; do != nil {
		return do()
	}
	return nil
}

func nothing(do func()) func() error { return func() error { do(); return nil } }

// A cold archive is said to be cold before anything of its dump is read, with how
// long it takes and what to type; one that would be refused is not thawed.
func TestColdArchive(t *testing.T) {
	for class, times := range map[string][]string{
		"GLACIER":      {"expedited takes 1 to 5 minutes", "standard takes 3 to 5 hours", "bulk takes 5 to 12 hours"},
		"DEEP_ARCHIVE": {"standard takes 12 hours", "bulk takes 48 hours"},
	} {
		b := storagetest.NewMemory(storagetest.MemoryOptions{})
		m := coldArchive(t, b, class).Manifest
		read := b.Received()
		_, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Output: io.Discard})
		first := b.Received()
		var cold *ColdError
		small := m.Objects.Index.Size
		for _, o := range listed(t, b)[0].Objects {
			if o.Name == ManifestName {
				small += o.Size
			}
		}
		if !errors.As(err, &cold) || !errors.Is(err, storage.ErrCold) || cold.Class != class || cold.ID != m.ID || first-read > small {
			t.Fatalf("restore from %s: %v, %d bytes read", class, err, first-read)
		}
		refused := RestoreOptions{
			Bucket: b, Ref: m.ID, Output: io.Discard, Thaw: ThawOptions{Tier: storage.ThawStandard},
			Trust: Trust{Signers: allowed(t, "alice "+publicText(t, sshKey(t, "ed25519"))), Require: true},
		}
		if _, err := Restore(t.Context(), refused); !errors.Is(err, ErrIntegrity) {
			t.Errorf("unsigned: %v", err)
		}
		if shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: m.ID}); err != nil || shown.Thaw.Ongoing || !shown.Thaw.Until.IsZero() {
			t.Errorf("what is refused was thawed: %+v, %v", shown, err)
		}
		oneLiner(t, err)
		for _, want := range append(times, "pgstow thaw "+m.ID, "--thaw TIER --wait") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
		if strings.Contains(err.Error(), "expedited") != (class == "GLACIER") {
			t.Errorf("the tiers of %s are %q", class, err)
		}
		shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: Latest})
		if err != nil || shown.Thaw == nil || shown.Thaw.Class != class || shown.Thaw.Ongoing {
			t.Errorf("show: %+v, %v", shown, err)
		}
	}
}

// A thaw is asked for once, joined, waited for, and then the archive restores.
func TestThaw(t *testing.T) {
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	id := coldArchive(t, b, "DEEP_ARCHIVE").Manifest.ID
	ask := func(opts ThawOptions) (*ThawResult, error) {
		opts.Bucket, opts.Ref = b, Latest
		return Thaw(t.Context(), opts)
	}
	want := func(what string, opts ThawOptions, state string) *ThawResult {
		t.Helper()
		res, err := ask(opts)
		if err != nil || res.State != state || res.ID != id {
			t.Fatalf("%s: %+v, %v", what, res, err)
		}
		return res
	}
	if _, err := ask(ThawOptions{Tier: storage.ThawExpedited}); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "bulk takes 48 hours") {
		t.Errorf("a tier that the class has not: %v", err)
	}
	if _, err := ask(ThawOptions{Days: -1}); !errors.Is(err, ErrUsage) {
		t.Errorf("no days: %v", err)
	}
	restore := func(opts ThawOptions) (*RestoreResult, error) {
		var out bytes.Buffer
		res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: Latest, Output: &out, Thaw: opts})
		if err == nil && !bytes.HasPrefix(out.Bytes(), []byte("PGDMP")) {
			t.Errorf("%d bytes came back", out.Len())
		}
		return res, err
	}
	var cold *ColdError
	if _, err := restore(ThawOptions{Tier: storage.ThawBulk}); !errors.As(err, &cold) || cold.Takes != "48 hours" || !strings.Contains(err.Error(), "run this again then") {
		t.Errorf("a restore that only asks: %v", err)
	}
	if res := want("again", ThawOptions{Tier: storage.ThawBulk}, ThawJoined); res.Takes != "48 hours" {
		t.Errorf("joined: %+v", res)
	}
	if _, err := restore(ThawOptions{}); !errors.As(err, &cold) || !cold.Ongoing {
		t.Errorf("a restore while it is thawed: %v", err)
	}
	if shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: Latest}); err != nil || !shown.Thaw.Ongoing {
		t.Errorf("show: %+v, %v", shown, err)
	}

	c := &clock{at: map[int]func() error{3: nothing(b.Thawed)}}
	var waited []string
	res := want("waited", ThawOptions{Wait: true, Sleep: c.sleep, Waiting: func(r ThawResult) { waited = append(waited, r.State) }}, ThawReadable)
	if !slices.Equal(c.pauses, []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}) || len(waited) != 3 || waited[0] != ThawJoined {
		t.Errorf("paused %v, told %q", c.pauses, waited)
	}
	if left := time.Until(res.Until); left < 6*24*time.Hour || left > 8*24*time.Hour {
		t.Errorf("readable until %s", res.Until)
	}
	if res, err := restore(ThawOptions{}); err != nil || len(res.Warnings) > 0 {
		t.Errorf("restore of what is thawed: %+v, %v", res, err)
	}
	if res := want("for longer", ThawOptions{Days: 30}, ThawReadable); time.Until(res.Until) < 29*24*time.Hour {
		t.Errorf("prolonged until %s", res.Until)
	}
	if res := want("for less", ThawOptions{Days: 1}, ThawReadable); time.Until(res.Until) < 29*24*time.Hour {
		t.Errorf("shortened to %s", res.Until)
	}
}

// A restore that thaws and waits goes on by itself, and warns of a copy that
// ends soon.
func TestRestoreThaws(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	coldArchive(t, b, "GLACIER")
	target := pg.CreateDatabase(t)
	c := &clock{at: map[int]func() error{1: nothing(b.Thawed)}}
	res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: Latest, Conn: connTo(t, pg, target),
		Thaw: ThawOptions{Tier: storage.ThawExpedited, Days: 1, Wait: true, Sleep: c.sleep}})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, pg, target, "second"); n != 20000 {
		t.Errorf("table second has %d rows", n)
	}
	if !slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, "thawed copy") }) {
		t.Errorf("warnings are %q", res.Warnings)
	}
}

// A thaw is paid for: what is wrong with the target is said before one is asked
// for.
func TestRestoreLooksBeforeItThaws(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	id := coldArchive(t, b, "GLACIER").Manifest.ID
	full := pg.CreateDatabase(t)
	pg.Exec(t, full, "CREATE TABLE first (id int)")
	empty := pg.CreateDatabase(t)
	for name, c := range map[string]struct {
		database string
		restore  dumper.RestoreOptions
		want     error
	}{
		"no such database": {"not_there", dumper.RestoreOptions{}, dumper.ErrConnect},
		"not empty":        {full, dumper.RestoreOptions{}, dumper.ErrTargetInUse},
		"no such role":     {empty, dumper.RestoreOptions{Role: "nobody_there"}, dumper.ErrPreflight},
	} {
		_, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: id, Conn: connTo(t, pg, c.database), Restore: c.restore,
			Thaw: ThawOptions{Tier: storage.ThawStandard, Wait: true, Sleep: func(context.Context, time.Duration) error {
				return errors.New("it waits for a thaw")
			}}})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: id}); err != nil || shown.Thaw == nil || shown.Thaw.Ongoing {
			t.Errorf("%s: a thaw was asked for: %+v, %v", name, shown.Thaw, err)
		}
	}
	server, err := dumper.ParseConn("postgresql://nobody_there:x@" + strings.SplitN(pg.URL(empty), "@", 2)[1])
	if err != nil {
		t.Fatal(err)
	}
	_, err = Drill(t.Context(), DrillOptions{Bucket: b, Ref: id, By: "test", Server: server, Thaw: ThawOptions{Tier: storage.ThawStandard}})
	if !errors.Is(err, dumper.ErrConnect) {
		t.Errorf("drill: %v", err)
	}
	if shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: id}); err != nil || shown.Thaw == nil || shown.Thaw.Ongoing {
		t.Errorf("drill: a thaw was asked for: %+v, %v", shown.Thaw, err)
	}
}

// What needs no thaw is left alone.
func TestThawNotNeeded(t *testing.T) {
	for _, class := range []string{"STANDARD", "GLACIER_IR"} {
		b := storagetest.NewMemory(storagetest.MemoryOptions{})
		coldArchive(t, b, class)
		res, err := Thaw(t.Context(), ThawOptions{Bucket: b, Ref: Latest, Wait: true, Tier: storage.ThawExpedited})
		if err != nil || res.State != ThawNotNeeded || !res.Until.IsZero() {
			t.Errorf("%s: %+v, %v", class, res, err)
		}
	}
}

// allCold puts every object into a cold class.
type allCold struct{ *storagetest.Memory }

func (b allCold) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	opts.StorageClass = "GLACIER"
	return b.Memory.Put(ctx, key, r, opts)
}

// Where the small objects are cold too, they are thawed with the dump.
func TestThawOfEverything(t *testing.T) {
	m := storagetest.NewMemory(storagetest.MemoryOptions{})
	pg := testenv.Postgres(t)
	if _, err := Archive(t.Context(), ArchiveOptions{Bucket: allCold{m}, Conn: connTo(t, pg, smallSource(t, pg)), Name: "orders"}); err != nil && !errors.Is(err, storage.ErrCold) {
		t.Fatal(err)
	}
	c := &clock{at: map[int]func() error{1: nothing(m.Thawed)}}
	all, err := List(t.Context(), m, ListOptions{})
	if err != nil || len(all) != 1 {
		t.Fatalf("listed are %+v, %v", all, err)
	}
	res, err := Thaw(t.Context(), ThawOptions{Bucket: m, Ref: all[0].ID, Wait: true, Sleep: c.sleep})
	if err != nil || len(res.Objects) < 4 {
		t.Fatalf("%+v, %v", res, err)
	}
	for _, o := range res.Objects {
		if o.State != ThawReadable {
			t.Errorf("%+v", o)
		}
	}
	if _, err := Restore(t.Context(), RestoreOptions{Bucket: m, Ref: all[0].ID, Output: io.Discard}); err != nil {
		t.Error(err)
	}
}

// restless fails looks at objects.
type restless struct {
	*storagetest.Memory
	stat func(storage.Object, error) (storage.Object, error)
}

func (b restless) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	return b.stat(b.Memory.Stat(ctx, key, version))
}

// Waiting outlasts a store that does not answer for a while; it ends with the
// caller, with a store that does not come back and with a thaw that is gone.
// The thaw goes on in any case.
func TestThawWaiting(t *testing.T) {
	down := &storage.Error{Op: "stat", Kind: storage.ErrUnavailable}
	enough := errors.New("the user has lost patience")
	for name, c := range map[string]struct {
		failures int // looks that fail after the request
		vanish   bool
		cancel   bool
		thawed   int // after so many pauses
		want     error
	}{
		"some failures":  {failures: 3, thawed: 2, want: nil},
		"down for good":  {failures: 1000, want: storage.ErrUnavailable},
		"the user":       {cancel: true, want: enough},
		"a thaw is gone": {vanish: true, want: storage.ErrCold},
	} {
		t.Run(name, func(t *testing.T) {
			m := storagetest.NewMemory(storagetest.MemoryOptions{})
			coldArchive(t, m, "GLACIER")
			waiting, failures := false, c.failures
			b := restless{m, func(o storage.Object, err error) (storage.Object, error) {
				switch {
				case !waiting:
				case failures > 0:
					failures--
					return storage.Object{}, down
				case c.vanish:
					o.Thaw.Ongoing = false
				}
				return o, err
			}}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			pauses := 0
			_, err := Thaw(ctx, ThawOptions{Bucket: b, Ref: Latest, Wait: true, Sleep: func(ctx context.Context, _ time.Duration) error {
				waiting = true
				if pauses++; pauses == c.thawed {
					m.Thawed()
				}
				if c.cancel {
					cancel(enough)
				}
				return context.Cause(ctx)
			}})
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v", err)
			}
			if err == nil {
				return
			}
			oneLiner(t, err)
			if !strings.Contains(err.Error(), "goes on at the store") {
				t.Errorf("error %v", err)
			}
			if shown, err := Show(t.Context(), ShowOptions{Bucket: m, Ref: Latest}); err != nil || !shown.Thaw.Ongoing {
				t.Errorf("afterwards: %+v, %v", shown, err)
			}
		})
	}
}
