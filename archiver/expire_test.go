package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// hooked lets before look at, and refuse, every operation.
type hooked struct {
	*storagetest.Memory
	before func(op, key string) error
}

func (h hooked) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if err := h.before("put", key); err != nil {
		return storage.Object{}, err
	}
	return h.Memory.Put(ctx, key, r, opts)
}

func (h hooked) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if err := h.before("open", key); err != nil {
		return nil, err
	}
	return h.Memory.Open(ctx, key, opts)
}

func (h hooked) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	if err := h.before("stat", key); err != nil {
		return storage.Object{}, err
	}
	return h.Memory.Stat(ctx, key, version)
}

func (h hooked) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	if err := h.before("list", opts.Prefix); err != nil {
		return func(yield func(storage.Object, error) bool) { yield(storage.Object{}, err) }
	}
	return h.Memory.List(ctx, opts)
}

func (h hooked) Delete(ctx context.Context, key, version string) error {
	if err := h.before("delete", key); err != nil {
		return err
	}
	return h.Memory.Delete(ctx, key, version)
}

func (h hooked) SetRetention(ctx context.Context, key, version string, r storage.Retention) error {
	if err := h.before("retain", key); err != nil {
		return err
	}
	return h.Memory.SetRetention(ctx, key, version, r)
}

func (h hooked) SetLegalHold(ctx context.Context, key, version string, on bool) error {
	if err := h.before("hold", key); err != nil {
		return err
	}
	return h.Memory.SetLegalHold(ctx, key, version, on)
}

// putKept stores an archive of four objects that was kept for a day, and with
// opts.
func putKept(t testing.TB, b storage.Bucket, d Dir, change func(*Manifest), opts storage.PutOptions) *Manifest {
	t.Helper()
	store := func(name, text string) StoredObject {
		o, err := storage.PutBytes(t.Context(), b, d.Key(name), []byte(text), opts)
		if err != nil {
			t.Fatal(err)
		}
		return StoredObject{Key: o.Key, Version: o.Version, Size: o.Size, SHA256: hexSum([]byte(text))}
	}
	m := fakeManifest(d, "1")
	m.Kept = &Kept{Policy: Policy{Keep: Period{Days: 1}, KeepLast: 1, Expiry: ExpiryPgstow}, KeepUntil: Period{Days: 1}.After(m.Finished)}
	m.Objects.Dump = store(DumpName, "dump of "+d.ID)
	globals, index := store(GlobalsName, "globals"), store(IndexName, "index")
	m.Globals, m.Objects.Globals, m.Objects.Index = GlobalsIncluded, &globals, &index
	if change != nil {
		change(m)
	}
	raw, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	store(ManifestName, string(raw))
	return m
}

// allVersions is everything in a bucket: keys, versions, markers.
func allVersions(t testing.TB, b storage.Bucket) []string {
	t.Helper()
	list := []string{}
	for o, err := range b.List(context.Background(), storage.ListOptions{Versions: true}) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s %s %t", o.Key, o.Version, o.DeleteMarker))
	}
	return list
}

func expireOptions(b storage.Bucket) ExpireOptions {
	return ExpireOptions{Bucket: b, Yes: true, By: "alice@host", Pgstow: "test",
		Now: func() time.Time { return time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC) }}
}

// actions are what became of each archive.
func actions(res *ExpireResult) map[string]string {
	list := map[string]string{}
	for _, a := range res.Archives {
		list[a.ID] = strings.TrimSpace(a.Action + " " + a.Why)
	}
	return list
}

func wantActions(t testing.TB, res *ExpireResult, want map[string]string) {
	t.Helper()
	got := actions(res)
	for id, action := range want {
		if got[id] != action {
			t.Errorf("%s: %q, want %q", id, got[id], action)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d archives, want %d: %v", len(got), len(want), got)
	}
}

// two old archives and a young one, of one label.
func threeArchives(t testing.TB, b storage.Bucket, opts storage.PutOptions) []Dir {
	t.Helper()
	dirs := []Dir{
		dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001"),
		dirAt(t, "orders", "2026-11-21T01:00:00Z", "a0000002"),
		dirAt(t, "orders", "2026-12-31T01:00:00Z", "a0000003"),
	}
	for _, d := range dirs {
		putKept(t, b, d, nil, opts)
	}
	return dirs
}

func TestExpire(t *testing.T) {
	for name, b := range map[string]*storagetest.Memory{
		"plain":     storagetest.NewMemory(storagetest.MemoryOptions{}),
		"versioned": storagetest.NewMemory(storagetest.MemoryOptions{Versions: true}),
		"lockable":  lockable(),
	} {
		t.Run(name, func(t *testing.T) {
			dirs := threeArchives(t, b, storage.PutOptions{})
			put(t, b, "readme.txt", "not ours")
			put(t, b, dirs[0].Key("notes.txt"), "not ours either")
			put(t, b, dirAt(t, "orders", "2026-11-01T01:00:00Z", "b0000001").Key(DumpName), "of a run that failed, or is under way")
			if b.Capabilities().Versions {
				for _, n := range []string{ManifestName, DumpName} { // hidden, overwritten, hidden again
					for range 2 {
						if err := b.Delete(t.Context(), dirs[0].Key(n), ""); err != nil {
							t.Fatal(err)
						}
						put(t, b, dirs[0].Key(n), "later")
					}
				}
			}
			before := allVersions(t, b)
			preview := expireOptions(b)
			preview.Yes = false
			res, err := Expire(t.Context(), preview)
			if err != nil {
				t.Fatal(err)
			}
			wantActions(t, res, map[string]string{"a0000001": ExpireWould, "a0000002": ExpireWould, "a0000003": "kept keep"})
			if got := allVersions(t, b); !slices.Equal(got, before) {
				t.Fatalf("the preview changed the bucket to %q", got)
			}
			if res.Incomplete != 1 {
				t.Errorf("%d incomplete archives", res.Incomplete)
			}
			if res, err = Expire(t.Context(), expireOptions(b)); err != nil {
				t.Fatal(err)
			}
			wantActions(t, res, map[string]string{"a0000001": ExpireDone, "a0000002": ExpireDone, "a0000003": "kept keep"})
			for _, a := range res.Archives {
				if a.Action == ExpireDone && a.Deleted != a.Versions {
					t.Errorf("%s: %d of %d versions deleted", a.ID, a.Deleted, a.Versions)
				}
			}
			left := allVersions(t, b)
			if len(left) != 4+3 || slices.ContainsFunc(left, func(k string) bool {
				return strings.HasPrefix(k, dirs[0].String()) && !strings.Contains(k, "notes.txt") || strings.HasPrefix(k, dirs[1].String())
			}) {
				t.Errorf("left are %q", left)
			}
			if res, err = Expire(t.Context(), expireOptions(b)); err != nil || len(res.Archives) != 1 || res.Archives[0].Action != ExpireKept {
				t.Errorf("a second run: %+v, %v", res, err)
			}
		})
	}
}

// Nothing of an archive goes when one version of one of its objects is not free.
func TestExpireDeletesAllOrNothing(t *testing.T) {
	now := expireOptions(nil).Now()
	later := storage.Retention{Mode: storage.Governance, Until: now.Add(time.Hour)}
	for name, c := range map[string]struct {
		put    storage.PutOptions
		over   string // put as a later version of this object, "" as a record
		hidden storage.Attribute
		want   string
	}{
		"a record is locked":               {put: storage.PutOptions{Retention: later}, want: "kept locked"},
		"a record is held":                 {put: storage.PutOptions{LegalHold: true}, want: "kept held"},
		"a later dump is locked":           {put: storage.PutOptions{Retention: later}, over: DumpName, want: "kept locked"},
		"a later manifest is held":         {put: storage.PutOptions{LegalHold: true}, over: ManifestName, want: "kept held"},
		"a lock that is over is none":      {put: storage.PutOptions{Retention: storage.Retention{Mode: storage.Compliance, Until: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}}, want: ExpireDone},
		"a retention that may not be seen": {hidden: storage.AttributeRetention, want: "kept denied"},
		"a hold that may not be seen":      {hidden: storage.AttributeLegalHold, want: "kept denied"},
		"tags that may not be seen":        {hidden: storage.AttributeTags, want: ExpireDone},
	} {
		t.Run(name, func(t *testing.T) {
			m := lockable()
			dirs := threeArchives(t, m, storage.PutOptions{})
			key := dirs[0].Key(RecordsDir + "20261122T141500Z-drill.json")
			if c.over != "" {
				key = dirs[0].Key(c.over)
				if err := m.Delete(t.Context(), key, ""); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := storage.PutBytes(t.Context(), m, key, []byte("x"), c.put); err != nil {
				t.Fatal(err)
			}
			before := allVersions(t, m)
			res, err := Expire(t.Context(), expireOptions(hiding{m, key, c.hidden}))
			if err != nil {
				t.Fatal(err)
			}
			wantActions(t, res, map[string]string{"a0000001": c.want, "a0000002": ExpireDone, "a0000003": "kept keep"})
			of := func(k string) bool { return !strings.HasPrefix(k, dirs[0].String()) }
			if got := slices.DeleteFunc(allVersions(t, m), of); c.want != ExpireDone && !slices.Equal(got, slices.DeleteFunc(before, of)) {
				t.Errorf("of the archive there are %q", got)
			} else if c.want == ExpireDone && len(got) > 0 {
				t.Errorf("left are %q", got)
			}
		})
	}
}

// hiding denies one attribute of one object.
type hiding struct {
	*storagetest.Memory
	key    string
	hidden storage.Attribute
}

func (h hiding) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	o, err := h.Memory.Stat(ctx, key, version)
	if key == h.key && h.hidden != "" {
		o.Retention, o.LegalHold, o.Denied = storage.Retention{}, false, []storage.Attribute{h.hidden}
	}
	return o, err
}

var errGone = errors.New("connection lost")

// After any operation the store may be gone for good. What is listed then is
// whole, and the next run finishes what was begun.
func TestExpireInterruptedAnywhere(t *testing.T) {
	for last := 1; ; last++ {
		m := lockable()
		dirs := threeArchives(t, m, storage.PutOptions{})
		if err := m.Delete(t.Context(), dirs[0].Key(ManifestName), ""); err != nil {
			t.Fatal(err)
		}
		put(t, m, dirs[0].Key(ManifestName), "a later one")
		calls, mu := 0, sync.Mutex{}
		b := hooked{m, func(op, key string) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls > last {
				return &storage.Error{Op: op, Key: key, Kind: storage.ErrUnavailable, Err: errGone}
			}
			return nil
		}}
		_, err := Expire(t.Context(), expireOptions(b))
		if err == nil {
			if last < 20 {
				t.Fatalf("only %d operations", last)
			}
			t.Logf("%d operations", last)
			return
		}
		if !errors.Is(err, errGone) {
			t.Fatalf("after %d operations: %v", last, err)
		}
		for _, e := range listed(t, m) {
			manifest, _, err := readManifest(t.Context(), m, e)
			if err != nil {
				t.Fatalf("after %d operations %s is listed: %v", last, e.ID, err)
			}
			if ok, err := (&found{Entry: e, m: manifest}).whole(t.Context(), m); err != nil || !ok {
				t.Fatalf("after %d operations %s is listed and not whole: %v", last, e.ID, err)
			}
		}
		if _, err := Expire(t.Context(), expireOptions(m)); err != nil {
			t.Fatalf("the run after %d operations: %v", last, err)
		}
		if left := allVersions(t, m); len(left) != 4 || !strings.HasPrefix(left[0], dirs[2].String()) {
			t.Fatalf("the run after %d operations leaves %q", last, left)
		}
	}
}

// What cannot be deleted is an error of its class and said, the rest goes on;
// when the cause is gone, the next run finishes it.
func TestExpireReportsWhatItCannotDelete(t *testing.T) {
	for name, c := range map[string]struct {
		kind error
		name string
	}{
		"locked meanwhile":    {storage.ErrLocked, IndexName},
		"denied":              {storage.ErrPermission, DumpName},
		"the manifest itself": {storage.ErrLocked, ManifestName},
	} {
		t.Run(name, func(t *testing.T) {
			m := lockable()
			dirs := threeArchives(t, m, storage.PutOptions{})
			b := hooked{m, func(op, key string) error {
				if op == "delete" && key == dirs[0].Key(c.name) {
					return &storage.Error{Op: op, Key: key, Kind: c.kind}
				}
				return nil
			}}
			res, err := Expire(t.Context(), expireOptions(b))
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), dirs[0].Key(c.name)) || !strings.Contains(err.Error(), "of 4 versions deleted") {
				t.Errorf("error %v", err)
			}
			oneLiner(t, err)
			wantActions(t, res, map[string]string{"a0000001": ExpireFailed, "a0000002": ExpireDone, "a0000003": "kept keep"})
			complete := slices.ContainsFunc(listed(t, m), func(e Entry) bool { return e.ID == "a0000001" })
			if complete != (c.name == ManifestName) {
				t.Errorf("the archive is listed: %t", complete)
			}
			if res, err = Expire(t.Context(), expireOptions(m)); err != nil {
				t.Fatal(err)
			}
			if complete {
				wantActions(t, res, map[string]string{"a0000001": ExpireDone, "a0000003": "kept keep"})
			} else {
				wantActions(t, res, map[string]string{"a0000001": ExpireFinished, "a0000003": "kept keep"})
			}
			if left := allVersions(t, m); len(left) != 4 {
				t.Errorf("left are %q", left)
			}
		})
	}
}

// What arrives while an archive is deleted has not been judged and stays.
func TestExpireSparesWhatCameMeanwhile(t *testing.T) {
	m := lockable()
	dirs := threeArchives(t, m, storage.PutOptions{})
	key := dirs[0].Key(RecordsDir + "20261231T115900Z-verify.json")
	b := hooked{m, func(op, k string) error {
		if op == "delete" && k == dirs[0].Key(DumpName) {
			put(t, m, key, "late")
		}
		return nil
	}}
	res, err := Expire(t.Context(), expireOptions(b))
	if !errors.Is(err, storage.ErrChanged) {
		t.Errorf("error %v", err)
	}
	wantActions(t, res, map[string]string{"a0000001": ExpireFailed, "a0000002": ExpireDone, "a0000003": "kept keep"})
	if _, err := m.Stat(t.Context(), key, ""); err != nil {
		t.Error(err)
	}
	if res, err = Expire(t.Context(), expireOptions(m)); err != nil || actions(res)["a0000001"] != ExpireFinished {
		t.Errorf("%v, %v", actions(res), err)
	}
}

// Without a journal, or with one that proves nothing, what lies there without a
// manifest may be a run under way: it stays.
func TestExpireSparesWhatItCannotProve(t *testing.T) {
	d := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
	manifest := func(change func(*Manifest)) []byte {
		m := fakeManifest(d, "1")
		m.Kept = &Kept{Policy: Policy{Keep: Period{Days: 1}}}
		if change != nil {
			change(m)
		}
		raw, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	good := manifest(nil)
	name := newRecordName(RecordExpire, d.Time)
	journal := func(change func(*Record)) Record {
		r := Record{Format: RecordFormat, Kind: RecordExpire, Archive: d.ID, Key: d.Key(name), ManifestSHA256: hexSum(good), Manifest: good}
		if change != nil {
			change(&r)
		}
		return r
	}
	with := func(raw []byte) func(*Record) {
		return func(r *Record) { r.Manifest, r.ManifestSHA256 = raw, hexSum(raw) }
	}
	for what, c := range map[string]struct {
		r    Record
		want string
	}{
		"proved":                  {journal(nil), ExpireFinished},
		"another hash":            {journal(func(r *Record) { r.ManifestSHA256 = hexSum(nil) }), "skipped unproved"},
		"copied here":             {journal(func(r *Record) { r.Key = "elsewhere" }), "skipped unproved"},
		"of a later version":      {journal(func(r *Record) { r.Format = "pgstow-record/2" }), "skipped unproved"},
		"no manifest":             {journal(with(nil)), "skipped unproved"},
		"its keep is not over":    {journal(with(manifest(func(m *Manifest) { m.Kept.Keep = Period{Years: 1} }))), "skipped unproved"},
		"a run under way":         {journal(with(manifest(func(m *Manifest) { m.Finished = d.Time.AddDate(0, 0, -2) }))), "skipped unproved"},
		"nothing was promised":    {journal(with(manifest(func(m *Manifest) { m.Kept = nil }))), "skipped unproved"},
		"another dump":            {journal(with(manifest(func(m *Manifest) { m.Objects.Dump.Version = "4711" }))), "skipped unproved"},
		"a dump of another size":  {journal(with(manifest(func(m *Manifest) { m.Objects.Dump.Size = 5 }))), "skipped unproved"},
		"the manifest of another": {journal(with(manifest(func(m *Manifest) { m.ID = "b0000001" }))), "skipped unproved"},
	} {
		t.Run(what, func(t *testing.T) {
			b := lockable()
			put(t, b, d.Key(DumpName), "dump")
			put(t, b, d.Key(name), string(encoded(t, c.r)))
			res, err := Expire(t.Context(), expireOptions(b))
			if err != nil {
				t.Fatal(err)
			}
			wantActions(t, res, map[string]string{d.ID: c.want})
			if left := allVersions(t, b); (len(left) == 0) != (c.want == ExpireFinished) {
				t.Errorf("left are %q", left)
			}
		})
	}
}

func TestExpireLeavesAloneWhatItCannotRead(t *testing.T) {
	for name, c := range map[string]struct {
		raw string
		err error
	}{
		"damaged":            {"{", ErrIntegrity},
		"of a later version": {`{"format": "pgstow/9"}`, ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			b := lockable()
			d := dirAt(t, "billing", "2026-11-19T01:00:00Z", "b0000001")
			put(t, b, d.Key(DumpName), "dump")
			put(t, b, d.Key(ManifestName), c.raw)
			threeArchives(t, b, storage.PutOptions{})
			res, err := Expire(t.Context(), expireOptions(b))
			if !errors.Is(err, c.err) {
				t.Errorf("error %v", err)
			}
			oneLiner(t, err)
			wantActions(t, res, map[string]string{"b0000001": "skipped unreadable", "a0000001": ExpireDone, "a0000002": ExpireDone, "a0000003": "kept keep"})
			if _, err := b.Stat(t.Context(), d.Key(DumpName), ""); err != nil {
				t.Error(err)
			}
		})
	}
}

// Under a label with archives of several database systems nothing goes, and
// that is an error after the rest is done.
func TestExpireMixedLabels(t *testing.T) {
	b := lockable()
	threeArchives(t, b, storage.PutOptions{})
	for i, system := range []string{"1", "2", "", "1"} {
		d := dirAt(t, "moved", fmt.Sprintf("2026-11-2%dT01:00:00Z", i), fmt.Sprintf("b000000%d", i))
		putKept(t, b, d, func(m *Manifest) { m.Source.SystemIdentifier = system }, storage.PutOptions{})
	}
	for _, yes := range []bool{false, true} {
		opts := expireOptions(b)
		opts.Yes = yes
		res, err := Expire(t.Context(), opts)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), `"moved"`) {
			t.Errorf("error %v", err)
		}
		oneLiner(t, err)
		goes := map[bool]string{false: ExpireWould, true: ExpireDone}[yes]
		wantActions(t, res, map[string]string{
			"b0000000": "skipped mixed", "b0000001": "skipped mixed", "b0000002": "skipped mixed", "b0000003": "skipped mixed",
			"a0000001": goes, "a0000002": goes, "a0000003": "kept keep",
		})
	}
}

// Databases of one system are judged each by itself; what does not tell its
// system there stays.
func TestExpireDatabasesOfOneSystem(t *testing.T) {
	b := lockable()
	for i, source := range []Source{
		{SystemIdentifier: "1", Database: "a"}, {SystemIdentifier: "1", Database: "b"}, {SystemIdentifier: "1", Database: "a"},
		{Host: "h", Database: "a"}, {SystemIdentifier: "1", Database: "b"}, {SystemIdentifier: "1", Database: "a"},
	} {
		d := dirAt(t, "moved", fmt.Sprintf("2026-11-2%dT01:00:00Z", i), fmt.Sprintf("b000000%d", i))
		putKept(t, b, d, func(m *Manifest) { m.Source, m.Kept.KeepLast = source, 1 }, storage.PutOptions{})
	}
	res, err := Expire(t.Context(), expireOptions(b))
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "of h a,") {
		t.Errorf("error %v", err)
	}
	oneLiner(t, err)
	wantActions(t, res, map[string]string{
		"b0000000": ExpireDone, "b0000002": ExpireDone, "b0000005": "kept keep-last", // database a
		"b0000001": ExpireDone, "b0000004": "kept keep-last", // database b
		"b0000003": "skipped mixed",
	})
}

// heldMeanwhile sets a hold on one archive as soon as another is being deleted.
type heldMeanwhile struct {
	*storagetest.Memory
	archive string
	once    sync.Once
}

func (h *heldMeanwhile) Delete(ctx context.Context, key, version string) error {
	h.once.Do(func() {
		for o, err := range h.List(ctx, storage.ListOptions{}) {
			if err == nil && strings.Contains(o.Key, h.archive) {
				_ = h.SetLegalHold(ctx, o.Key, o.Version, true)
			}
		}
	})
	return h.Memory.Delete(ctx, key, version)
}

// A hold that comes while older archives are being deleted keeps all of its own.
func TestExpireSeesALateHold(t *testing.T) {
	b := &heldMeanwhile{Memory: lockable(), archive: "a0000002"}
	threeArchives(t, b.Memory, storage.PutOptions{})
	res, err := Expire(t.Context(), expireOptions(b))
	if err != nil {
		t.Fatal(err)
	}
	wantActions(t, res, map[string]string{"a0000001": ExpireDone, "a0000002": "kept held", "a0000003": "kept keep"})
}

// Two databases of one cluster are not each other's newer archives, nor are two
// whose cluster cannot be told.
func TestExpireTellsDatabasesApart(t *testing.T) {
	for name, c := range map[string]struct {
		sources [2]Source
		refused bool
		want    string
	}{
		"one cluster":      {[2]Source{{SystemIdentifier: "1", Database: "billing"}, {SystemIdentifier: "1", Database: "scratch"}}, false, "kept keep-last"},
		"unknown clusters": {[2]Source{{Host: "prod", Database: "app"}, {Host: "staging", Database: "app"}}, true, "skipped mixed"},
	} {
		t.Run(name, func(t *testing.T) {
			b := lockable()
			for i, source := range c.sources {
				d := dirAt(t, "prod", fmt.Sprintf("2026-11-2%dT01:00:00Z", i), fmt.Sprintf("b000000%d", i))
				putKept(t, b, d, func(m *Manifest) { m.Source, m.Kept.KeepLast = source, 1 }, storage.PutOptions{})
			}
			res, err := Expire(t.Context(), expireOptions(b))
			if errors.Is(err, ErrRefused) != c.refused || !c.refused && err != nil {
				t.Errorf("error %v", err)
			}
			wantActions(t, res, map[string]string{"b0000000": c.want, "b0000001": c.want})
		})
	}
}

// The newer ones have to be there in fact, and verified where that is asked for.
func TestExpireCountsWhatIsThere(t *testing.T) {
	b := lockable()
	dirs := threeArchives(t, b, storage.PutOptions{})
	if err := b.Delete(t.Context(), dirs[2].Key(DumpName), versionOf(t, b, dirs[2].Key(DumpName))); err != nil {
		t.Fatal(err)
	}
	opts := expireOptions(b)
	opts.Yes = false
	res, err := Expire(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	wantActions(t, res, map[string]string{"a0000001": ExpireWould, "a0000002": "kept keep-last", "a0000003": "kept keep"})

	opts.RequireVerified = true
	e, err := Resolve(t.Context(), b, "a0000002", "")
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err := readManifest(t.Context(), b, e)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(minute int, mode, result, manifest string) {
		r := Record{Kind: RecordVerify, ManifestSHA256: manifest, By: "x", Result: result, Verify: &VerifyFacts{Mode: mode}}
		if _, err := putRecord(t.Context(), b, e, r, nil, nil, nil, time.Date(2026, 12, 1, 0, minute, 0, 0, time.UTC)); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []struct {
		add  func()
		want string
	}{
		{func() {}, "kept unverified"},
		{func() { verify(1, ModeFull, ResultPassed, hexSum(nil)) }, "kept unverified"},  // of another manifest
		{func() { verify(2, ModeQuick, ResultPassed, hexSum(raw)) }, "kept unverified"}, // nobody read it
		{func() { verify(3, ModeFull, ResultPassed, hexSum(raw)) }, ExpireWould},
		{func() { verify(4, ModeQuick, ResultPassed, hexSum(raw)) }, ExpireWould},
		{func() { verify(5, ModeQuick, ResultFailed, hexSum(raw)) }, "kept unverified"},
		{func() { verify(6, ModeQuick, ResultPassed, hexSum(raw)) }, "kept unverified"},
		{func() { verify(7, ModeFull, ResultPassed, hexSum(raw)) }, ExpireWould},
		{func() { verify(8, ModeFull, ResultFailed, hexSum(raw)) }, "kept unverified"},
		{func() { verify(9, ModeFull, ResultPassed, hexSum(raw)) }, ExpireWould},
		{func() { put(t, b, e.Key+RecordsDir+"20261201T001000Z-verify.json", "{") }, ExpireWould},
	} {
		c.add()
		if res, err = Expire(t.Context(), opts); err != nil || actions(res)["a0000001"] != c.want {
			t.Errorf("%d: %v, %v; want %s", i, actions(res), err, c.want)
		}
	}
}

func versionOf(t testing.TB, b storage.Bucket, key string) string {
	t.Helper()
	o, err := b.Stat(t.Context(), key, "")
	if err != nil {
		t.Fatal(err)
	}
	return o.Version
}

// The store's clock decides, unless the two are too far apart.
func TestExpireByTheStoresClock(t *testing.T) {
	for _, c := range []struct {
		ahead time.Duration // this machine's clock
		want  string
	}{
		{0, ExpireWould}, {5 * time.Minute, "kept keep"}, {-5 * time.Minute, ExpireWould}, {11 * time.Minute, ""}, {-time.Hour, ""},
	} {
		m := lockable()
		dirs := threeArchives(t, m, storage.PutOptions{})
		opts := expireOptions(capable{m, func(caps *storage.Capabilities) { caps.ClockSkew = c.ahead }})
		opts.Yes = false
		opts.Now = func() time.Time { return Period{Days: 1}.After(dirs[1].Time).Add(time.Minute) } // a minute after its keep
		res, err := Expire(t.Context(), opts)
		if c.want == "" {
			if !errors.Is(err, ErrUsage) {
				t.Errorf("%s ahead: error %v", c.ahead, err)
			}
			oneLiner(t, err)
			continue
		}
		if err != nil || actions(res)["a0000002"] != c.want {
			t.Errorf("%s ahead: %v, %v", c.ahead, actions(res), err)
		}
	}
}

// Two hosts at once delete the same, and no more.
func TestExpireTwice(t *testing.T) {
	for range 20 {
		b := lockable()
		dirs := threeArchives(t, b, storage.PutOptions{})
		var hosts sync.WaitGroup
		for range 3 {
			hosts.Go(func() {
				if _, err := Expire(t.Context(), expireOptions(b)); err != nil {
					t.Error(err)
				}
			})
		}
		hosts.Wait()
		if _, err := Expire(t.Context(), expireOptions(b)); err != nil { // a journal may have come last
			t.Error(err)
		}
		if left := allVersions(t, b); len(left) != 4 || !strings.HasPrefix(left[0], dirs[2].String()) {
			t.Fatalf("left are %q", left)
		}
	}
}

// defaulting is a bucket that locks by itself what is put, and shows that to
// nobody.
type defaulting struct {
	*storagetest.Memory
	own storage.Retention
}

func (b defaulting) Capabilities() storage.Capabilities {
	c := b.Memory.Capabilities()
	c.ObjectLock, c.LegalHold, c.Unprobed = false, false, []string{"s3:GetBucketObjectLockConfiguration"}
	return c
}

func (b defaulting) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if opts.Retention.IsZero() {
		opts.Retention = b.own
	}
	return b.Memory.Put(ctx, key, r, opts)
}

// A journal that the bucket itself would lock is not written, nor one that it
// might, nor one that may not be.
func TestExpireWithoutAJournal(t *testing.T) {
	for name, wrap := range map[string]func(*storagetest.Memory) storage.Bucket{
		"default retention": func(m *storagetest.Memory) storage.Bucket {
			return capable{m, func(c *storage.Capabilities) {
				c.DefaultRetention = storage.DefaultRetention{Mode: storage.Governance, Days: 1}
			}}
		},
		"default retention, not to be seen": func(m *storagetest.Memory) storage.Bucket {
			return defaulting{m, storage.Retention{Mode: storage.Compliance, Until: time.Now().AddDate(7, 0, 0)}}
		},
		"may not write": func(m *storagetest.Memory) storage.Bucket {
			return hooked{m, func(op, key string) error {
				if op == "put" {
					return &storage.Error{Op: op, Key: key, Kind: storage.ErrPermission}
				}
				return nil
			}}
		},
	} {
		m := lockable()
		threeArchives(t, m, storage.PutOptions{})
		res, err := Expire(t.Context(), expireOptions(wrap(m)))
		if err != nil || actions(res)["a0000001"] != ExpireDone {
			t.Errorf("%s: %v, %v", name, actions(res), err)
		}
		if left := allVersions(t, m); len(left) != 4 {
			t.Errorf("%s: left are %q", name, left)
		}
	}
}

// A run that may not delete leaves one record of what it has begun, however often
// it comes back; the run that may goes by it.
func TestExpireWritesOneJournal(t *testing.T) {
	m := lockable()
	dirs := threeArchives(t, m, storage.PutOptions{})
	// One that proves nothing is not relied on.
	_, raw, err := readManifest(t.Context(), m, resolved(t, m, "a0000002"))
	if err != nil {
		t.Fatal(err)
	}
	forged := dirs[1].Key(newRecordName(RecordExpire, time.Now()))
	put(t, m, forged, `{"format":"pgstow-record/1","kind":"expire","archive":"a0000002","key":"`+forged+`","manifest_sha256":"`+hexSum(raw)+`","manifest":"e30="}`)
	b := hooked{m, func(op, key string) error {
		if op == "delete" {
			return &storage.Error{Op: op, Key: key, Kind: storage.ErrPermission}
		}
		return nil
	}}
	for night := range 3 {
		opts := expireOptions(b)
		opts.Now = func() time.Time { return expireOptions(b).Now().AddDate(0, 0, night) }
		res, err := Expire(t.Context(), opts)
		if !errors.Is(err, storage.ErrPermission) || actions(res)["a0000001"] != ExpireFailed {
			t.Errorf("night %d: %v, %v", night, actions(res), err)
		}
		var begun *BegunError
		if !errors.As(err, &begun) || !begun.Journal {
			t.Errorf("night %d: %#v", night, err)
		}
	}
	for id, want := range map[string]int{"a0000001": 1, "a0000002": 2} {
		journals := 0
		for name := range statAll(t, m, id) {
			if recordKind(name) == RecordExpire {
				journals++
			}
		}
		if journals != want {
			t.Errorf("%s has %d records, want %d", id, journals, want)
		}
	}
	res, err := Expire(t.Context(), expireOptions(m))
	if err != nil || actions(res)["a0000001"] != ExpireDone || actions(res)["a0000002"] != ExpireDone {
		t.Errorf("%v, %v", actions(res), err)
	}
	for _, a := range res.Archives {
		if a.Action == ExpireDone && a.Deleted != a.Versions {
			t.Errorf("%s: %d of %d versions deleted", a.ID, a.Deleted, a.Versions)
		}
	}
	if left := allVersions(t, m); len(left) != 4 {
		t.Errorf("left are %q", left)
	}
}

// Who may not list versions cannot know what there is to delete.
func TestExpireNeedsVersions(t *testing.T) {
	m := lockable()
	threeArchives(t, m, storage.PutOptions{})
	if _, err := Expire(t.Context(), expireOptions(noVersions{m})); !errors.Is(err, storage.ErrPermission) {
		t.Errorf("error %v", err)
	}
	if left := allVersions(t, m); len(left) != 12 {
		t.Errorf("left are %q", left)
	}
}

// validateRecord holds a record against the published schema.
func validateRecord(t testing.TB, raw []byte) {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(testenv.Root(t), "docs", "record.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Errorf("%v in\n%s", err, raw)
	}
}

// On every store: an archive that is covered goes with all that lies over it,
// one that has a locked version stays whole.
func TestExpireOnStores(t *testing.T) {
	stores := lockingStores()
	stores["file"] = openFile
	stores["versitygw without versions"] = func(t *testing.T) storage.Bucket {
		return openS3(t, testenv.VersityGW(t), testenv.BucketOptions{})
	}
	stores["minio without versions"] = func(t *testing.T) storage.Bucket {
		return openS3(t, testenv.MinIO(t), testenv.BucketOptions{})
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() { b.Close() })
			b = storage.Prefixed(b, "team/")
			var dirs []Dir
			for i, days := range []int{11, 10, 0} { // by the time by which stores judge locks
				d := Dir{Policy: DefaultPolicy, Label: "orders", Time: time.Now().UTC().Truncate(time.Second).AddDate(0, 0, -days), ID: fmt.Sprintf("a000000%d", i+1)}
				putKept(t, b, d, nil, storage.PutOptions{})
				dirs = append(dirs, d)
			}
			want := map[string]string{"a0000001": ExpireDone, "a0000002": ExpireDone, "a0000003": "kept keep"}
			left := 4
			if b.Capabilities().ObjectLock {
				cover(t, b, dirs[0].Key(ManifestName))
				cover(t, b, dirs[0].Key(DumpName))
				key := dirs[1].Key(IndexName)
				version := versionOf(t, b, key)
				cover(t, b, key) // the lock is on what lies below
				if err := storage.SetRetention(t.Context(), b, key, version, storage.Retention{Mode: storage.Governance, Until: in(1)}); err != nil {
					t.Fatal(err)
				}
				want["a0000002"] = "kept locked"
				for _, v := range allVersions(t, b) {
					if strings.HasPrefix(v, dirs[1].String()) {
						left++
					}
				}
			}
			opts := expireOptions(b)
			opts.Now = time.Now
			res, err := Expire(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			wantActions(t, res, want)
			if got := allVersions(t, b); len(got) != left {
				t.Errorf("left are %q, want %d", got, left)
			}
		})
	}
}
