package file

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// leftovers looks at the folder itself: whatever lies in the temporary folder,
// and folders that hold nothing.
func leftovers(t testing.TB, dir string) []string {
	t.Helper()
	var left []string
	filled := map[string]bool{}
	var dirs []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		filled[filepath.Dir(rel)] = true
		switch {
		case strings.HasPrefix(rel, tmpDir+"/"):
			left = append(left, rel)
		case d.IsDir() && rel != tmpDir:
			dirs = append(dirs, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !filled[d] {
			left = append(left, d+"/ (empty)")
		}
	}
	return left
}

func open(t testing.TB, dir string) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, storagetest.Harness{
		Open: func(t testing.TB) *storagetest.Store {
			dir := t.TempDir()
			return &storagetest.Store{Bucket: open(t, dir),
				Leftovers: func(t testing.TB) []string { return leftovers(t, dir) }}
		},
		PartSize: chunk,
		Want:     storage.Capabilities{DeferredHead: true},
		NoBucket: func(t testing.TB) (storage.Bucket, error) {
			return Open(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "missing")})
		},
		Without: map[storagetest.Hook]string{
			storagetest.HookCut:              "a file has no connection",
			storagetest.HookFreeze:           "a write into a file system that hangs cannot be interrupted",
			storagetest.HookReceived:         "a file has no connection",
			storagetest.HookBadCredentials:   "a folder asks for none",
			storagetest.HookUnreachable:      "a folder has no server",
			storagetest.HookBlind:            "a folder has no protection that could be hidden",
			storagetest.HookDefaultRetention: "a folder keeps nothing",
			storagetest.HookDenied:           "tested with another user in a process of its own, see TestDenied",
		},
		Quirks: map[string]string{
			"keys/object and folder": "x is a file or a folder, not both",
		},
	})
}

func TestMissingFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups", "pg")
	_, err := Open(t.Context(), Config{Dir: dir})
	is(t, err, storage.ErrBucketNotExist)
	if !strings.Contains(err.Error(), "mkdir -p "+dir) {
		t.Errorf("the error gives no hint: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder was made: %v", err)
	}
	b, err := Open(t.Context(), Config{Dir: dir, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	mustPut(t, b, "a", "here")
	_, err = Open(t.Context(), Config{Dir: filepath.Join(dir, "a")})
	is(t, err, storage.ErrBucketNotExist)
	_, err = Open(t.Context(), Config{})
	if err == nil {
		t.Error("an empty name opened the current folder")
	}
}

// TestLinks: links that lead out are neither read, written, deleted nor listed;
// a link to a file is no object.
func TestLinks(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"file": secret, "folder": outside, "up": "..", "inside": "real"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, dir)
	mustPut(t, b, "real", "here")
	for _, key := range []string{"file", "folder/secret", "folder/new", "up/x", "inside", "folder"} {
		if _, err := b.Stat(t.Context(), key, ""); err == nil {
			t.Errorf("Stat %q shows what is no object", key)
		}
		if body, err := b.Open(t.Context(), key, storage.OpenOptions{}); err == nil {
			body.Close()
			t.Errorf("Open %q opened what is no object", key)
		}
		source := &counted{r: strings.NewReader("overwritten")}
		if _, err := b.Put(t.Context(), key, source, storage.PutOptions{}); err == nil || source.n > 0 {
			t.Errorf("Put %q: error %v after %d bytes", key, err, source.n)
		}
		b.Delete(t.Context(), key, "")
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("outside is now %q, %v", data, err)
	}
	if all, _ := os.ReadDir(outside); len(all) != 1 {
		t.Errorf("outside holds %v", all)
	}
	if keys := listed(t, b, storage.ListOptions{}); !slices.Equal(keys, []string{"real"}) {
		t.Errorf("listed: %q", keys)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestReservedNames: the temporary folder is out of reach of keys.
func TestReservedNames(t *testing.T) {
	b := open(t, t.TempDir())
	mustPut(t, b, "a", "makes the temporary folder")
	for _, key := range []string{tmpDir, tmpDir + "/x"} {
		_, err := storage.PutBytes(t.Context(), b, key, nil, storage.PutOptions{})
		is(t, err, storage.ErrInvalidKey)
		_, err = b.Stat(t.Context(), key, "")
		is(t, err, storage.ErrInvalidKey)
		is(t, b.Delete(t.Context(), key, ""), storage.ErrInvalidKey)
	}
	for _, id := range []string{"", ".", "..", "../a", "x/../../a"} {
		if err := b.AbortUpload(t.Context(), storage.Upload{Key: "a", ID: id}); err == nil {
			t.Errorf("AbortUpload took the ID %q", id)
		}
	}
	if keys := listed(t, b, storage.ListOptions{Prefix: tmpDir + "/"}); len(keys) > 0 {
		t.Errorf("listed: %q", keys)
	}
	if keys := listed(t, b, storage.ListOptions{}); !slices.Equal(keys, []string{"a"}) {
		t.Errorf("listed: %q", keys)
	}
}

// TestForeignNames: names that are no keys are not listed.
func TestForeignNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"bad\xff", "good"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	if keys := listed(t, b, storage.ListOptions{}); !slices.Equal(keys, []string{"good"}) {
		t.Errorf("listed: %q", keys)
	}
	_, err := b.Open(t.Context(), "fifo", storage.OpenOptions{})
	is(t, err, storage.ErrNotExist)
}

// TestEmptyLeftovers: a process that died before it made its file leaves
// folders, and the sweep takes them too.
func TestEmptyLeftovers(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	for _, name := range []string{"1700000000-A/pg/7", "1700000000-B", "not ours"} {
		if err := os.MkdirAll(filepath.Join(dir, tmpDir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for u, err := range b.Uploads(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got[u.ID] = u.Key
		if u.Initiated.IsZero() || u.Newest.IsZero() {
			t.Errorf("%+v", u)
		}
	}
	want := map[string]string{"1700000000-A": "pg/7", "1700000000-B": "", "not ours": ""}
	if !maps.Equal(got, want) {
		t.Errorf("Uploads gave %v, expected %v", got, want)
	}
	if n := sweep(t, dir); n != len(want) {
		t.Errorf("the sweep took %d of %d", n, len(want))
	}
}

func TestLongSegment(t *testing.T) {
	dir := t.TempDir()
	_, err := storage.PutBytes(t.Context(), open(t, dir), strings.Repeat("k", 300), nil, storage.PutOptions{})
	is(t, err, storage.ErrInvalidKey)
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestListMatchesSort compares listings of random trees with sorted keys, for
// random prefixes and starts.
func TestListMatchesSort(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	b := open(t, dir)
	const letters = "ab-./0é"
	word := func(n int) string {
		var w []rune
		for range 1 + rng.IntN(n) {
			w = append(w, []rune(letters)[rng.IntN(7)])
		}
		return string(w)
	}
	var keys []string
	for len(keys) < 400 {
		key := word(9)
		if storage.CheckKey(key) != nil {
			continue
		}
		name := filepath.Join(dir, key)
		if os.MkdirAll(filepath.Dir(name), 0o700) != nil {
			continue // a file is in the way
		}
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			continue
		}
		f.Close()
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for range 500 {
		opts := storage.ListOptions{Prefix: word(3), StartAfter: word(4)}
		if rng.IntN(2) == 0 {
			opts.Prefix = ""
		}
		want := []string{}
		for _, key := range keys {
			if strings.HasPrefix(key, opts.Prefix) && key > opts.StartAfter {
				want = append(want, key)
			}
		}
		if got := listed(t, b, opts); !slices.Equal(got, want) {
			t.Fatalf("List %+v:\n got %q\nwant %q", opts, got, want)
		}
	}
}

func BenchmarkList40000(b *testing.B) {
	dir := b.TempDir()
	for i := range 40_000 {
		name := filepath.Join(dir, "default", fmt.Sprintf("db%d", i%40), fmt.Sprintf("2026%04d", i/4), fmt.Sprintf("f%d", i%4))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	bucket := open(b, dir)
	for b.Loop() {
		n := 0
		for _, err := range bucket.List(b.Context(), storage.ListOptions{}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 40_000 {
			b.Fatalf("%d objects", n)
		}
	}
}
