package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/file"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// put stores text under key.
func put(t testing.TB, b storage.Bucket, key, text string) storage.Object {
	t.Helper()
	o, err := storage.PutBytes(t.Context(), b, key, []byte(text), storage.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// dirAt is the place of an archive with a chosen id.
func dirAt(t testing.TB, label, at, id string) Dir {
	t.Helper()
	when, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	return Dir{Policy: DefaultPolicy, Label: label, Time: when, ID: id}
}

// fakeManifest is a manifest that decodeManifest takes.
func fakeManifest(d Dir, system string) *Manifest {
	sum := strings.Repeat("0", 64)
	return &Manifest{
		Format: Format, ID: d.ID, Label: d.Label, Policy: d.Policy, Key: d.Key(ManifestName), Pgstow: "test",
		Started: d.Time, Finished: d.Time, Source: Source{Database: "db", ServerVersion: "15.1", SystemIdentifier: system},
		Structure: StructureUnchecked, Evidence: EvidenceNone, EvidenceReason: "test", Globals: GlobalsOmitted, ReadBack: ReadBackDone,
		Objects: Objects{Dump: StoredObject{Key: d.Key(DumpName), Size: 4, SHA256: sum}},
	}
}

// putFake stores the objects of an archive that List and Resolve can see.
func putFake(t testing.TB, b storage.Bucket, d Dir, system string) {
	t.Helper()
	put(t, b, d.Key(DumpName), "dump")
	raw, err := fakeManifest(d, system).encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, d.Key(ManifestName), string(raw))
}

func ids(entries []Entry) []string {
	list := []string{}
	for _, e := range entries {
		list = append(list, e.ID)
	}
	return list
}

func wantIDs(t *testing.T, got []Entry, want ...string) {
	t.Helper()
	if !slices.Equal(ids(got), want) {
		t.Errorf("got %q, want %q", ids(got), want)
	}
}

func TestList(t *testing.T) {
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	first := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
	second := dirAt(t, "billing", "2026-11-21T01:00:00Z", "a0000002")
	broken := dirAt(t, "orders", "2026-11-22T01:00:00Z", "a0000003")
	putFake(t, b, second, "1")
	putFake(t, b, first, "1")
	put(t, b, broken.Key(GlobalsName), "sql")
	put(t, b, broken.Key(DumpName), "a dump")
	put(t, b, "readme.txt", "not ours")
	put(t, b, "default/orders/notes/manifest.json", "not ours")

	all, err := List(t.Context(), b, ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, all, "a0000001", "a0000002")
	if e := all[0]; !e.Complete || e.DumpSize != 4 || e.Label != "orders" || e.Policy != DefaultPolicy ||
		!e.Time.Equal(first.Time) || e.Key != first.String() || len(e.Objects) != 2 || e.Newest.IsZero() || e.Hidden {
		t.Errorf("entry is %+v", e)
	}
	named, err := List(t.Context(), b, ListOptions{Name: "billing"})
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, named, "a0000002")
	rest, err := List(t.Context(), b, ListOptions{Incomplete: true})
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, rest, "a0000003")
	if e := rest[0]; e.Complete || e.DumpSize != 6 || len(e.Objects) != 2 {
		t.Errorf("entry is %+v", e)
	}
	if err := LoadManifests(t.Context(), b, all); err != nil {
		t.Fatal(err)
	}
	if all[0].Manifest == nil || all[0].Manifest.ID != "a0000001" {
		t.Errorf("manifest is %+v, error %q", all[0].Manifest, all[0].ManifestError)
	}
}

// Later versions and delete markers hide nothing.
func TestListTakesTheOldestVersion(t *testing.T) {
	b := storagetest.NewMemory(storagetest.MemoryOptions{Versions: true})
	d := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
	putFake(t, b, d, "1")
	for _, name := range []string{DumpName, ManifestName} {
		if err := b.Delete(t.Context(), d.Key(name), ""); err != nil {
			t.Fatal(err)
		}
		put(t, b, d.Key(name), "something else")
		if err := b.Delete(t.Context(), d.Key(name), ""); err != nil {
			t.Fatal(err)
		}
	}
	e, err := Resolve(t.Context(), b, "a0000001", "")
	if err != nil {
		t.Fatal(err)
	}
	if e.DumpSize != 4 || !e.Hidden {
		t.Errorf("entry is %+v, want the dump of 4 bytes, hidden", e)
	}
	if _, _, err := readManifest(t.Context(), b, e); err != nil {
		t.Errorf("the oldest manifest is not read: %v", err)
	}
	// Where versions may not be listed, what plain readers see is better than nothing.
	all, err := List(t.Context(), noVersions{b}, ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, all)
}

// noVersions denies the listing of versions.
type noVersions struct{ storage.Bucket }

func (n noVersions) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	if opts.Versions {
		return func(yield func(storage.Object, error) bool) {
			yield(storage.Object{}, &storage.Error{Op: "list", Kind: storage.ErrPermission})
		}
	}
	return n.Bucket.List(ctx, opts)
}

// Ten thousand archives are listed by one listing, and nothing is read for it.
func TestListManyArchives(t *testing.T) {
	const archives, labels = 10_000, 20
	folder := t.TempDir()
	object := filepath.Join(folder, "object")
	if err := os.WriteFile(object, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range archives {
		d := Dir{Policy: DefaultPolicy, Label: fmt.Sprintf("db%02d.orders", i%labels), Time: start.Add(time.Duration(i) * time.Hour), ID: fmt.Sprintf("a%07d", i)}
		dir := filepath.Join(folder, filepath.FromSlash(d.String()))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{DumpName, IndexName, GlobalsName, ManifestName} {
			if err := os.Link(object, filepath.Join(dir, name)); err != nil { // quicker than a file of its own
				t.Fatal(err)
			}
		}
	}
	b, err := file.Open(t.Context(), file.Config{Dir: folder})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	counted := &listOnly{Bucket: b}
	began := time.Now()
	all, err := List(t.Context(), counted, ListOptions{})
	t.Logf("listed in %s", time.Since(began))
	if err != nil || len(all) != archives || counted.lists != 1 {
		t.Fatalf("%d archives by %d listings, %v", len(all), counted.lists, err)
	}
	for i, e := range all {
		if e.ID != fmt.Sprintf("a%07d", i) || !e.Complete || len(e.Objects) != 4 || e.DumpSize != 1 {
			t.Fatalf("entry %d is %+v", i, e)
		}
	}
	e, err := Resolve(t.Context(), counted, "a0004711", "")
	if err != nil || e.Label != "db11.orders" {
		t.Errorf("resolved to %+v, %v", e, err)
	}
}

// listOnly is a bucket of which nothing but listings is expected.
type listOnly struct {
	storage.Bucket
	lists int
}

func (l *listOnly) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	l.lists++
	return l.Bucket.List(ctx, opts)
}

func (l *listOnly) Open(context.Context, string, storage.OpenOptions) (io.ReadCloser, error) {
	return nil, errors.New("nothing is to be read")
}

func (l *listOnly) Stat(context.Context, string, string) (storage.Object, error) {
	return storage.Object{}, errors.New("nothing is to be looked at")
}

func TestResolve(t *testing.T) {
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	for _, a := range []struct{ label, at, id, system string }{
		{"orders", "2026-11-20T23:59:59Z", "a0000001", "1"},
		{"orders", "2026-11-21T14:00:00Z", "a0000002", "1"},
		{"orders", "2026-11-22T08:00:00Z", "b0000003", ""},
		{"billing", "2026-11-21T08:00:00Z", "c0000004", "1"},
		{"moved", "2026-11-21T08:00:00Z", "d0000005", "1"},
		{"moved", "2026-11-22T08:00:00Z", "d0000006", "2"},
	} {
		putFake(t, b, dirAt(t, a.label, a.at, a.id), a.system)
	}
	put(t, b, dirAt(t, "orders", "2026-11-23T08:00:00Z", "e0000007").Key(DumpName), "incomplete")

	for _, c := range []struct {
		ref, name, want string
		err             error
		text            string
	}{
		{ref: "a0000001", want: "a0000001"},
		{ref: "a0000001", name: "orders", want: "a0000001"},
		{ref: "a0000001", name: "billing", err: ErrNoArchive, text: "billing"},
		{ref: "b", want: "b0000003"},
		{ref: "c0000004", want: "c0000004"},
		{ref: "a000", err: ErrAmbiguous, text: "a0000002 (orders, 2026-11-21T14:00:00Z)"},
		{ref: "zz", err: ErrNoArchive},
		{ref: "e0000007", err: ErrNoArchive, text: "never completed"},
		{ref: "latest", name: "orders", want: "b0000003"},
		{ref: "latest", name: "billing", want: "c0000004"},
		{ref: "latest", err: ErrAmbiguous, text: "--name"},
		{ref: "latest", name: "moved", err: ErrAmbiguous, text: "2 different databases"},
		{ref: "latest", name: "nobody", err: ErrNoArchive, text: "nobody"},
		{ref: "d0000006", want: "d0000006"},
		{ref: "2026-11-22", name: "moved", want: "d0000006"},
		{ref: "2026-11-20", name: "orders", want: "a0000001"},
		{ref: "2026-11-21", name: "orders", want: "a0000002"},
		{ref: "2026-11-21T13:59Z", name: "orders", want: "a0000001"},
		{ref: "2026-11-21T14:00Z", name: "orders", want: "a0000002"},
		{ref: "2026-11-21T15:00+01:00", name: "orders", want: "a0000002"},
		{ref: "2026-11-21T14:59:59+01:00", name: "orders", want: "a0000001"},
		{ref: "2026-11-21T14:00", name: "orders", want: "a0000002"},
		{ref: "20261121T140000Z", name: "orders", want: "a0000002"},
		{ref: "2030-01-01", name: "orders", want: "b0000003"},
		{ref: "2026-11-19", name: "orders", err: ErrNoArchive},
		{ref: "2026-11-20", want: "a0000001"}, // only one label has one by then
		{ref: "2026-11-21", err: ErrAmbiguous, text: "--name"},
		{ref: "", err: ErrUsage},
		{ref: "yesterday", err: ErrUsage},
		{ref: "A0000001", err: ErrUsage},
		{ref: "2026-13-01", err: ErrUsage},
		{ref: "a", name: "or ders", err: ErrUsage},
	} {
		t.Run(c.ref+" "+c.name, func(t *testing.T) {
			e, err := Resolve(t.Context(), b, c.ref, c.name)
			if c.err != nil {
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error is %v, want %v with %q", err, c.err, c.text)
				}
				return
			}
			if err != nil || e.ID != c.want {
				t.Errorf("got %q, %v; want %q", e.ID, err, c.want)
			}
		})
	}
}

func TestCleanup(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	own := Dir{Policy: "default", Label: "orders", Time: now, ID: "a0000001"}.Key(DumpName)
	b := &sweeper{Bucket: storagetest.NewMemory(storagetest.MemoryOptions{}), uploads: []storage.Upload{
		{Key: own, ID: "old", Initiated: now.Add(-72 * time.Hour), Newest: now.Add(-48 * time.Hour), Size: 10},
		{Key: own, ID: "running", Initiated: now.Add(-72 * time.Hour), Newest: now.Add(-time.Minute), Size: 20},
		{Key: own, ID: "no part", Initiated: now.Add(-25 * time.Hour), Newest: now.Add(-25 * time.Hour)},
		{Key: own, ID: "no newest", Initiated: now.Add(-time.Minute)},
		{Key: "somebody/else.bin", ID: "foreign", Initiated: now.Add(-72 * time.Hour), Newest: now.Add(-72 * time.Hour)},
		{Key: own, ID: "stuck", Initiated: now.Add(-72 * time.Hour), Newest: now.Add(-72 * time.Hour), Size: 40},
	}}
	opts := CleanupOptions{Bucket: b, OlderThan: 24 * time.Hour, DryRun: true, Now: func() time.Time { return now }}
	res, err := Cleanup(t.Context(), opts)
	if err != nil || len(b.aborted) > 0 || res.Aborted != 0 || res.Bytes != 50 {
		t.Fatalf("dry run: %+v, %v, aborted %q", res, err, b.aborted)
	}
	want := map[string]string{"old": CleanupWould, "running": CleanupYoung, "no part": CleanupWould, "no newest": CleanupYoung, "stuck": CleanupWould}
	compareActions(t, res, want)

	opts.DryRun = false
	b.refuse = "stuck"
	res, err = Cleanup(t.Context(), opts)
	if !errors.Is(err, storage.ErrPermission) {
		t.Errorf("error is %v", err)
	}
	want["old"], want["no part"], want["stuck"] = CleanupAborted, CleanupAborted, CleanupFailed
	compareActions(t, res, want)
	if !slices.Equal(b.aborted, []string{"old", "no part"}) || res.Aborted != 2 || res.Bytes != 10 {
		t.Errorf("aborted %q, result %+v", b.aborted, res)
	}

	res, err = Cleanup(t.Context(), CleanupOptions{Bucket: plainBucket{b.Bucket}})
	if err != nil || !res.Unsupported {
		t.Errorf("a store without unfinished uploads: %+v, %v", res, err)
	}
	if _, err := Cleanup(t.Context(), CleanupOptions{Bucket: b, OlderThan: -1}); !errors.Is(err, ErrUsage) {
		t.Errorf("a negative age: %v", err)
	}
}

func compareActions(t *testing.T, res *CleanupResult, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, u := range res.Uploads {
		got[u.UploadID] = u.Action
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("actions are %v, want %v", got, want)
	}
}

// plainBucket hides the optional interfaces.
type plainBucket struct{ storage.Bucket }

// sweeper shows chosen uploads.
type sweeper struct {
	storage.Bucket
	uploads []storage.Upload
	aborted []string
	refuse  string
}

func (s *sweeper) Uploads(context.Context, string) iter.Seq2[storage.Upload, error] {
	return func(yield func(storage.Upload, error) bool) {
		for _, u := range s.uploads {
			if !yield(u, nil) {
				return
			}
		}
	}
}

func (s *sweeper) AbortUpload(_ context.Context, u storage.Upload) error {
	if u.ID == s.refuse {
		return &storage.Error{Op: "abort", Key: u.Key, Kind: storage.ErrPermission}
	}
	s.aborted = append(s.aborted, u.ID)
	return nil
}
