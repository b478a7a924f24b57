package archiver

import (
	"errors"
	"slices"
	"testing"
	"time"

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

// What a rule of the bucket has expired stays so, unless the archive is named:
// its markers came when the keep was over. One from before is somebody's.
func TestUndeleteLeavesWhatHasExpired(t *testing.T) {
	for name, c := range map[string]struct {
		expiry string
		until  time.Duration // the keep's end, from now
		all    bool
		want   string
	}{
		"expired":                {ExpiryStore, -time.Hour, true, UndeleteExpired},
		"expired, but named":     {ExpiryStore, -time.Hour, false, UndeleteRemoved},
		"hidden before its time": {ExpiryStore, time.Hour, true, UndeleteRemoved},
		"pgstow expires":         {ExpiryPgstow, -time.Hour, true, UndeleteRemoved},
	} {
		b := lockable()
		d := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
		putKept(t, b, d, func(m *Manifest) {
			m.Kept.Expiry, m.Kept.KeepUntil = c.expiry, time.Now().Add(c.until)
		}, storage.PutOptions{})
		for _, name := range []string{DumpName, ManifestName} {
			if err := b.Delete(t.Context(), d.Key(name), ""); err != nil {
				t.Fatal(err)
			}
		}
		opts := UndeleteOptions{Bucket: b, All: true, Yes: true}
		if !c.all {
			opts.All, opts.Ref = false, d.ID
		}
		before := len(allVersions(t, b))
		res, err := Undelete(t.Context(), opts)
		if err != nil || len(res.Versions) != 2 || res.Versions[0].Action != c.want || res.Versions[1].Action != c.want {
			t.Errorf("%s: %+v, %v", name, res, err)
			continue
		}
		stays := c.want == UndeleteExpired
		if (res.Expired == 1) != stays || res.Covered != 0 || (len(allVersions(t, b)) == before) != stays {
			t.Errorf("%s: %+v, left are %q", name, res, allVersions(t, b))
		}
	}
	// Hidden by somebody long before a rule could have done it.
	b := lockable()
	d := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
	putKept(t, b, d, func(m *Manifest) {
		m.Kept.Expiry, m.Kept.KeepUntil = ExpiryStore, time.Now().Add(time.Hour)
	}, storage.PutOptions{})
	if err := b.Delete(t.Context(), d.Key(DumpName), ""); err != nil {
		t.Fatal(err)
	}
	res, err := Undelete(t.Context(), UndeleteOptions{Bucket: b, All: true, Yes: true, Now: func() time.Time { return time.Now().AddDate(0, 0, 2) }})
	if err != nil || len(res.Versions) != 1 || res.Versions[0].Action != UndeleteRemoved {
		t.Errorf("hidden in its time, and looked at later: %+v, %v", res, err)
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
