package archiver

import (
	"errors"
	"slices"
	"testing"

	"github.com/pgstow/pgstow/storage"
)

// covered is an archive with markers and a later version over its objects.
func covered(t testing.TB, b storage.Bucket) Dir {
	t.Helper()
	d := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
	putKept(t, b, d, nil, storage.PutOptions{})
	for _, name := range []string{DumpName, ManifestName, ManifestName} {
		if err := b.Delete(t.Context(), d.Key(name), ""); err != nil {
			t.Fatal(err)
		}
	}
	put(t, b, d.Key(DumpName), "a later dump")
	return d
}

func TestUndelete(t *testing.T) {
	b := lockable()
	d := covered(t, b)
	other := dirAt(t, "orders", "2026-11-21T01:00:00Z", "a0000002")
	putKept(t, b, other, nil, storage.PutOptions{})
	if err := b.Delete(t.Context(), other.Key(IndexName), ""); err != nil {
		t.Fatal(err)
	}
	put(t, b, "readme.txt", "not ours")
	if err := b.Delete(t.Context(), "readme.txt", ""); err != nil {
		t.Fatal(err)
	}
	whole := len(allVersions(t, b))
	count := func(res *UndeleteResult, action string) (n int) {
		for _, v := range res.Versions {
			if v.Action == action {
				n++
			}
		}
		return n
	}
	for i, c := range []struct {
		opts                          UndeleteOptions
		would, removed, left, covered int
		versions                      int // in the bucket afterwards
	}{
		{UndeleteOptions{All: true}, 4, 0, 1, 1, whole},
		{UndeleteOptions{All: true, Name: "billing"}, 0, 0, 0, 0, whole},
		{UndeleteOptions{Ref: d.ID, LaterVersions: true}, 4, 0, 0, 0, whole},
		{UndeleteOptions{Ref: d.ID, Yes: true}, 0, 3, 1, 1, whole - 3},
		{UndeleteOptions{Ref: d.ID, Yes: true, LaterVersions: true}, 0, 1, 0, 0, whole - 4},
		{UndeleteOptions{All: true, Yes: true}, 0, 1, 0, 0, whole - 5},
		{UndeleteOptions{All: true, Yes: true}, 0, 0, 0, 0, whole - 5},
	} {
		c.opts.Bucket = b
		res, err := Undelete(t.Context(), c.opts)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if count(res, UndeleteWould) != c.would || count(res, UndeleteRemoved) != c.removed || count(res, UndeleteLeft) != c.left || res.Covered != c.covered || res.Unversioned {
			t.Errorf("%d: %+v", i, res)
		}
		if n := len(allVersions(t, b)); n != c.versions {
			t.Errorf("%d: %d versions in the bucket, want %d", i, n, c.versions)
		}
	}
	plain := objects(t, b) // as others see them
	for _, name := range []string{DumpName, IndexName, GlobalsName, ManifestName} {
		if !slices.Contains(plain, d.Key(name)) || !slices.Contains(plain, other.Key(name)) {
			t.Errorf("%s is not seen: %q", name, plain)
		}
	}
	if raw, err := readSmall(t.Context(), b, d.Key(DumpName), "", 100); err != nil || string(raw) != "dump of "+d.ID {
		t.Errorf("plain readers get %q, %v", raw, err)
	}
}

// A version that is locked, and one that may be the archive's own, stay.
func TestUndeleteIsCareful(t *testing.T) {
	b := lockable()
	d := covered(t, b)
	later := versionOf(t, b, d.Key(DumpName))
	if err := storage.SetLegalHold(t.Context(), b, d.Key(DumpName), later, true); err != nil {
		t.Fatal(err)
	}
	res, err := Undelete(t.Context(), UndeleteOptions{Bucket: b, Ref: d.ID, Yes: true, LaterVersions: true})
	if !errors.Is(err, storage.ErrLocked) || res.Covered != 1 {
		t.Errorf("a held version: %+v, %v", res, err)
	}

	b = lockable()
	d = covered(t, b)
	e := resolved(t, b, d.ID)
	if err := b.Delete(t.Context(), d.Key(DumpName), e.version(DumpName)); err != nil { // the original is lost
		t.Fatal(err)
	}
	before := allVersions(t, b)
	if _, err := Undelete(t.Context(), UndeleteOptions{Bucket: b, Ref: d.ID, Yes: true, LaterVersions: true}); !errors.Is(err, ErrIntegrity) {
		t.Errorf("without the original: %v", err)
	} else {
		oneLiner(t, err)
	}
	if got := allVersions(t, b); !slices.Equal(got, before) {
		t.Errorf("changed to %q", got)
	}
	for _, opts := range []UndeleteOptions{{}, {Ref: "a0000001", All: true}} {
		opts.Bucket = b
		if _, err := Undelete(t.Context(), opts); !errors.Is(err, ErrUsage) {
			t.Errorf("error %v", err)
		}
	}
}

func TestUndeleteWithoutVersions(t *testing.T) {
	b := openFile(t)
	putKept(t, b, dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001"), nil, storage.PutOptions{})
	res, err := Undelete(t.Context(), UndeleteOptions{Bucket: b, All: true, Yes: true})
	if err != nil || !res.Unversioned || len(res.Versions) > 0 || res.Covered > 0 {
		t.Errorf("%+v, %v", res, err)
	}
}
