package archiver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

func holdOptions(b storage.Bucket, release bool) HoldOptions {
	return HoldOptions{Bucket: b, Ref: "a0000001", Release: release, Reason: "litigation 4711", By: "alice@host", Pgstow: "test"}
}

// held counts the objects that are held, and all of them.
func held(t testing.TB, b storage.Bucket) (on, all int) {
	t.Helper()
	for _, o := range statAll(t, b, "a0000001") {
		all++
		if o.LegalHold {
			on++
		}
	}
	return on, all
}

// Hold on every store: all objects and the record of it are held, and released
// again; both are recorded with who and why.
func TestHold(t *testing.T) {
	for name, open := range lockingStores() {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() { b.Close() })
			b = storage.Prefixed(b, "team/")
			locked := storage.Retention{Mode: storage.Governance, Until: in(1)}
			m := youngArchive(t, b, "a0000001", storage.PutOptions{Retention: locked})
			for i, c := range []struct {
				release            bool
				changed, on, there int
			}{
				{false, 4, 5, 5}, {false, 0, 6, 6}, {true, 7, 0, 7}, {true, 0, 0, 8}, {false, 8, 9, 9},
			} {
				res, err := Hold(t.Context(), holdOptions(b, c.release))
				if err != nil {
					t.Fatalf("%d: %v", i, err)
				}
				on, all := held(t, b)
				if len(res.Changed) != c.changed || on != c.on || all != c.there || res.Held == c.release || res.ReadBack != ReadBackDone {
					t.Errorf("%d: %+v; %d of %d are held", i, res, on, all)
				}
				raw, err := readSmall(t.Context(), b, m.Key[:len(m.Key)-len(ManifestName)]+res.Record, "", maxRecord)
				if err != nil {
					t.Fatal(err)
				}
				validateRecord(t, raw)
			}
			for name, o := range statAll(t, b, "a0000001") {
				if o.Retention != locked {
					t.Errorf("%s has the lock %+v", name, o.Retention)
				}
				if err := b.Delete(t.Context(), o.Key, o.Version); !errors.Is(err, storage.ErrLocked) {
					t.Errorf("delete %s: %v", name, err)
				}
			}
			show, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: "a0000001"})
			if err == nil || show != nil { // the fake has no index that could be read
				t.Fatalf("show: %v", err)
			}
			records, err := readRecords(t.Context(), b, resolved(t, b, "a0000001"), RecordHold, Trust{})
			if err != nil || len(records) != 5 {
				t.Fatalf("%+v, %v", records, err)
			}
			results := map[string]int{}
			for _, r := range records {
				results[r.Record.Result]++
				if r.Record.By != "alice@host" || r.Record.Reason != "litigation 4711" || r.Record.ManifestSHA256 != manifestHash(t, b) {
					t.Errorf("%+v", r.Record)
				}
			}
			if results[HoldSet] != 3 || results[HoldReleased] != 2 {
				t.Errorf("results %v", results)
			}
		})
	}
}

func manifestHash(t testing.TB, b storage.Bucket) string {
	t.Helper()
	e := resolved(t, b, "a0000001")
	_, raw, err := readManifest(t.Context(), b, e)
	if err != nil {
		t.Fatal(err)
	}
	return hexSum(raw)
}

// After any operation the store may be gone: what a set has begun is held, what a
// release has begun is recorded, and the next run completes both.
func TestHoldInterruptedAnywhere(t *testing.T) {
	for _, release := range []bool{false, true} {
		for last := 1; ; last++ {
			m := lockable()
			youngArchive(t, m, "a0000001", storage.PutOptions{LegalHold: release})
			calls := 0
			b := hooked{m, func(op, key string) error {
				if op == "retain" || op == "hold" || op == "put" {
					calls++
				}
				if calls > last {
					return &storage.Error{Op: op, Key: key, Kind: storage.ErrUnavailable, Err: errGone}
				}
				return nil
			}}
			_, err := Hold(t.Context(), holdOptions(b, release))
			if err == nil {
				if last < 5 {
					t.Fatalf("only %d changes", last)
				}
				break
			}
			if !errors.Is(err, errGone) {
				t.Fatalf("release %t, after %d changes: %v", release, last, err)
			}
			on, all := held(t, m)
			objects := statAll(t, m, "a0000001")
			switch {
			case !release && last < 4 && (on != last || all != 4):
				t.Errorf("set, after %d changes: %d of %d are held", last, on, all)
			case release && !objects[ManifestName].LegalHold:
				t.Errorf("release, after %d changes the manifest is released", last)
			case release && all != 5:
				t.Errorf("release, after %d changes: no record of it", last)
			}
			if _, err := Hold(t.Context(), holdOptions(m, release)); err != nil {
				t.Fatal(err)
			}
			if on, all := held(t, m); release && on != 0 || !release && on != all {
				t.Errorf("release %t after %d changes, done again: %d of %d are held", release, last, on, all)
			}
		}
	}
}

// Not all may be held: what was is said, and stays.
func TestHoldPartlyDenied(t *testing.T) {
	for _, c := range []struct {
		op, name string
		release  bool
		says     string
		on       int
	}{
		{"hold", IndexName, false, "held: manifest.json, archive.dump, globals.sql; not held: index.json.gz", 3},
		{"hold", IndexName, true, "not released: index.json.gz", 1},
		{"put", "", false, "all of it is held, but who did it and why is not recorded", 4},
		{"put", "", true, "nothing was released", 4},
	} {
		m := lockable()
		youngArchive(t, m, "a0000001", storage.PutOptions{LegalHold: c.release})
		b := hooked{m, func(op, key string) error {
			if op == c.op && strings.HasSuffix(key, c.name) {
				return &storage.Error{Op: op, Key: key, Kind: storage.ErrPermission}
			}
			return nil
		}}
		_, err := Hold(t.Context(), holdOptions(b, c.release))
		if !errors.Is(err, storage.ErrPermission) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%+v: error %v", c, err)
		}
		oneLiner(t, err)
		if on, _ := held(t, m); on != c.on {
			t.Errorf("%+v: %d are held", c, on)
		}
	}
}

// A hold, or a lock, that has only begun when an expiry begins to delete keeps all
// of the archive: the manifest is the first that is protected, and the first that
// would be deleted.
func TestExpireSeesAHoldThatHasBegun(t *testing.T) {
	for name, protect := range map[string]func(b storage.Bucket) error{
		"hold": func(b storage.Bucket) error {
			opts := holdOptions(b, false)
			_, err := Hold(t.Context(), opts)
			return err
		},
		"retain": func(b storage.Bucket) error {
			_, err := Retain(t.Context(), RetainOptions{Bucket: b, Ref: "a0000001", Until: in(48), Lock: storage.Governance})
			return err
		},
	} {
		m := lockable()
		dirs := threeArchives(t, m, storage.PutOptions{})
		changes := 0
		slow := hooked{m, func(op, key string) error { // it has protected one object when the other goes on
			if op == "hold" || op == "retain" {
				changes++
			}
			if changes > 1 {
				return &storage.Error{Op: op, Key: key, Kind: storage.ErrUnavailable, Err: errGone}
			}
			return nil
		}}
		b := hooked{m, func(op, key string) error {
			if op == "put" && strings.HasPrefix(key, dirs[0].String()) { // the journal: all was looked at
				if err := protect(slow); !errors.Is(err, errGone) {
					t.Errorf("%s: %v", name, err)
				}
			}
			return nil
		}}
		res, err := Expire(t.Context(), expireOptions(b))
		if !errors.Is(err, storage.ErrLocked) || changes < 2 {
			t.Errorf("%s: error %v after %d changes", name, err, changes)
		}
		wantActions(t, res, map[string]string{"a0000001": ExpireFailed, "a0000002": ExpireDone, "a0000003": "kept keep"})
		if left := statAll(t, m, "a0000001"); len(left) < 4 {
			t.Errorf("%s: left are %d objects", name, len(left))
		}
		if all := listed(t, m); len(all) != 2 || all[0].ID != "a0000001" {
			t.Errorf("%s: listed are %v", name, ids(all))
		}
	}
}

func TestHoldReadsBack(t *testing.T) {
	m := lockable()
	youngArchive(t, m, "a0000001", storage.PutOptions{})
	if _, err := Hold(t.Context(), holdOptions(idle{m}, false)); !errors.Is(err, ErrIntegrity) {
		t.Errorf("error %v", err)
	}
}

// An archive whose manifest is damaged can be held: that is when it matters.
func TestHoldOfADamagedArchive(t *testing.T) {
	b := lockable()
	d := Dir{Policy: DefaultPolicy, Label: "orders", Time: time.Now().UTC().Truncate(time.Second), ID: "a0000001"}
	put(t, b, d.Key(DumpName), "dump")
	put(t, b, d.Key(ManifestName), "{")
	if _, err := Hold(t.Context(), holdOptions(b, false)); err != nil {
		t.Error(err)
	}
	if on, all := held(t, b); on != 3 || all != 3 {
		t.Errorf("%d of %d are held", on, all)
	}
}

func TestHoldRefuses(t *testing.T) {
	b := lockable()
	youngArchive(t, b, "a0000001", storage.PutOptions{})
	folder := openFile(t)
	youngArchive(t, folder, "a0000001", storage.PutOptions{})
	before := allVersions(t, b)
	for name, c := range map[string]struct {
		change func(*HoldOptions)
		err    error
	}{
		"no reason":  {func(o *HoldOptions) { o.Reason = " " }, ErrUsage},
		"two lines":  {func(o *HoldOptions) { o.Reason = "a\nb" }, ErrUsage},
		"nobody":     {func(o *HoldOptions) { o.By = "" }, ErrUsage},
		"a folder":   {func(o *HoldOptions) { o.Bucket = folder }, errors.ErrUnsupported},
		"no archive": {func(o *HoldOptions) { o.Ref = "b0000001" }, ErrNoArchive},
	} {
		opts := holdOptions(b, false)
		c.change(&opts)
		if _, err := Hold(t.Context(), opts); !errors.Is(err, c.err) {
			t.Errorf("%s: error %v", name, err)
		} else {
			oneLiner(t, err)
		}
	}
	if got := allVersions(t, b); !slices.Equal(got, before) {
		t.Errorf("changed to %q", got)
	}
}
