package archiver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/gcs"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// lockingStores are buckets with object lock, real where there is a server.
func lockingStores() map[string]func(t *testing.T) storage.Bucket {
	return map[string]func(t *testing.T) storage.Bucket{
		"memory": func(*testing.T) storage.Bucket { return lockable() },
		"versitygw": func(t *testing.T) storage.Bucket {
			return openS3(t, testenv.VersityGW(t), testenv.BucketOptions{ObjectLock: true})
		},
		"minio": func(t *testing.T) storage.Bucket {
			return openS3(t, testenv.MinIO(t), testenv.BucketOptions{ObjectLock: true})
		},
		"gcs": func(t *testing.T) storage.Bucket {
			srv := gcsserver.Start(t, gcsserver.Options{})
			if err := srv.CreateBucket("archives", map[string]any{
				"objectRetention": map[string]any{"mode": "Enabled"}, "versioning": map[string]any{"enabled": true},
			}); err != nil {
				t.Fatal(err)
			}
			b, err := gcs.Open(t.Context(), gcs.Config{Bucket: "archives", Endpoint: srv.URL})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	}
}

// youngArchive is one that ended just now, kept for a day.
func youngArchive(t testing.TB, b storage.Bucket, id string, opts storage.PutOptions) *Manifest {
	t.Helper()
	d := Dir{Policy: DefaultPolicy, Label: "orders", Time: time.Now().UTC().Truncate(time.Second), ID: id}
	return putKept(t, b, d, nil, opts)
}

// statAll is every object of an archive, as the store shows its oldest version.
func statAll(t testing.TB, b storage.Bucket, id string) map[string]storage.Object {
	t.Helper()
	all := map[string]storage.Object{}
	e := resolved(t, b, id)
	for _, o := range e.Objects {
		s, err := b.Stat(t.Context(), e.Key+o.Name, o.Version)
		if err != nil {
			t.Fatal(err)
		}
		all[o.Name] = s
	}
	return all
}

// cover puts a delete marker over an object, and a later version where the store
// creates one there.
func cover(t testing.TB, b storage.Bucket, key string) {
	t.Helper()
	if err := b.Delete(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	_, err := storage.PutBytes(t.Context(), b, key, []byte("a later one"), storage.PutOptions{})
	if err != nil && !errors.Is(err, storage.ErrExist) {
		t.Fatal(err)
	}
}

// in is a time of so many hours from now, as stores keep it.
func in(hours int) time.Time {
	return time.Now().UTC().Truncate(time.Second).Add(time.Duration(hours) * time.Hour)
}

// Retain on every store: it sets, extends, strengthens on request and never
// weakens; what was put over the archive is none of it.
func TestRetain(t *testing.T) {
	for name, open := range lockingStores() {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() { b.Close() })
			b = storage.Prefixed(b, "team/")
			const id = "a0000001"
			m := youngArchive(t, b, id, storage.PutOptions{})
			e := resolved(t, b, id)
			if _, err := putRecord(t.Context(), b, e, Record{Kind: RecordHold, By: "x", Result: HoldSet}, nil, nil, m.Kept, time.Now()); err != nil {
				t.Fatal(err)
			}
			cover(t, b, m.Key)

			first, second := in(48), in(96)
			byKeep := lockMargin(Period{Days: 5}.After(m.Finished))
			for i, c := range []struct {
				what   string
				opts   RetainOptions
				err    error
				want   storage.Retention
				number int // objects that were extended
			}{
				{"no mode", RetainOptions{Until: first}, ErrUsage, storage.Retention{}, 0},
				{"in the past", RetainOptions{Until: in(-1), Lock: storage.Governance}, ErrRefused, storage.Retention{}, 0},
				{"set", RetainOptions{Until: first, Lock: storage.Governance}, nil, storage.Retention{Mode: storage.Governance, Until: first}, 5},
				{"again", RetainOptions{Until: first}, nil, storage.Retention{Mode: storage.Governance, Until: first}, 0},
				{"shorter", RetainOptions{Until: first.Add(-time.Second)}, ErrRefused, storage.Retention{Mode: storage.Governance, Until: first}, 0},
				{"past max-keep", RetainOptions{Until: in(24 * 40), Lock: storage.Compliance, MaxKeep: Period{Months: 1}}, ErrUsage, storage.Retention{Mode: storage.Governance, Until: first}, 0},
				{"firmer", RetainOptions{Until: first, Lock: storage.Compliance}, nil, storage.Retention{Mode: storage.Compliance, Until: first}, 5},
				{"weaker", RetainOptions{Until: second, Lock: storage.Governance}, ErrRefused, storage.Retention{Mode: storage.Compliance, Until: first}, 0},
				{"extended", RetainOptions{Until: second}, nil, storage.Retention{Mode: storage.Compliance, Until: second}, 5},
				{"by keep", RetainOptions{Keep: Period{Days: 5}}, nil, storage.Retention{Mode: storage.Compliance, Until: byKeep}, 5},
				{"by keep again", RetainOptions{Keep: Period{Days: 5}, Lock: storage.Compliance}, nil, storage.Retention{Mode: storage.Compliance, Until: byKeep}, 0},
				{"a longer keep than max-keep", RetainOptions{Keep: Period{Years: 11}}, ErrUsage, storage.Retention{Mode: storage.Compliance, Until: byKeep}, 0},
			} {
				c.opts.Bucket, c.opts.Ref = b, id
				res, err := Retain(t.Context(), c.opts)
				if !errors.Is(err, c.err) {
					t.Fatalf("%d, %s: error %v", i, c.what, err)
				}
				oneLiner(t, err)
				if err == nil && (len(res.Extended) != c.number || len(res.Extended)+len(res.Unchanged) != 5 ||
					res.Lock != c.want.Mode || !res.Until.Equal(c.want.Until) || res.ReadBack != ReadBackDone) {
					t.Errorf("%d, %s: %+v", i, c.what, res)
				}
				for name, o := range statAll(t, b, id) {
					if o.Retention.Mode != c.want.Mode || !o.Retention.Until.Equal(c.want.Until) {
						t.Errorf("%d, %s: %s has %+v, want %+v", i, c.what, name, o.Retention, c.want)
					}
				}
			}
			if o, err := b.Stat(t.Context(), m.Key, ""); !errors.Is(err, storage.ErrNotExist) && !o.Retention.IsZero() {
				t.Errorf("what lies over the manifest is locked: %+v", o.Retention)
			}
		})
	}
}

// Objects that are locked longer than others stay so; the rest catches up.
func TestRetainCompletesWhatIsUneven(t *testing.T) {
	b := lockable()
	const id = "a0000001"
	until, longer := in(48), in(96)
	m := youngArchive(t, b, id, storage.PutOptions{Retention: storage.Retention{Mode: storage.Governance, Until: in(24)}})
	if err := b.SetRetention(t.Context(), m.Objects.Dump.Key, "", storage.Retention{Mode: storage.Compliance, Until: longer}); err != nil {
		t.Fatal(err)
	}
	res, err := Retain(t.Context(), RetainOptions{Bucket: b, Ref: id, Until: until})
	if err != nil || !slices.Equal(res.Unchanged, []string{DumpName}) || res.Lock != storage.Governance || !res.Until.Equal(until) {
		t.Errorf("%+v, %v", res, err)
	}
	for name, o := range statAll(t, b, id) {
		want := storage.Retention{Mode: storage.Governance, Until: until}
		if name == DumpName {
			want = storage.Retention{Mode: storage.Compliance, Until: longer}
		}
		if o.Retention != want {
			t.Errorf("%s has %+v", name, o.Retention)
		}
	}
}

// Partly denied: what was extended is said, and a second run does the rest.
func TestRetainPartlyDenied(t *testing.T) {
	m := lockable()
	const id = "a0000001"
	youngArchive(t, m, id, storage.PutOptions{})
	b := hooked{m, func(op, key string) error {
		if op == "retain" && strings.HasSuffix(key, IndexName) {
			return &storage.Error{Op: op, Key: key, Kind: storage.ErrPermission}
		}
		return nil
	}}
	opts := RetainOptions{Bucket: b, Ref: id, Until: in(48), Lock: storage.Governance}
	_, err := Retain(t.Context(), opts)
	if !errors.Is(err, storage.ErrPermission) || !strings.Contains(err.Error(), "extended: manifest.json, archive.dump, globals.sql; not extended: index.json.gz") {
		t.Errorf("error %v", err)
	}
	oneLiner(t, err)
	opts.Bucket = m
	if res, err := Retain(t.Context(), opts); err != nil || !slices.Equal(res.Extended, []string{IndexName}) {
		t.Errorf("%+v, %v", res, err)
	}
}

// A store that does not keep what it takes, and one that does not show it.
func TestRetainReadsBack(t *testing.T) {
	const id = "a0000001"
	m := lockable()
	youngArchive(t, m, id, storage.PutOptions{})
	opts := RetainOptions{Ref: id, Until: in(48), Lock: storage.Governance}
	opts.Bucket = idle{m}
	if _, err := Retain(t.Context(), opts); !errors.Is(err, ErrIntegrity) {
		t.Errorf("error %v", err)
	}
	opts.Bucket = blind{m}
	if res, err := Retain(t.Context(), opts); err != nil || res.ReadBack != ReadBackDenied {
		t.Errorf("%+v, %v", res, err)
	}
	if o := statAll(t, m, id)[DumpName]; !o.Retention.Until.Equal(opts.Until) {
		t.Errorf("the dump has %+v", o.Retention)
	}
}

// idle takes locks and holds, and forgets them.
type idle struct{ *storagetest.Memory }

func (idle) SetRetention(context.Context, string, string, storage.Retention) error { return nil }
func (idle) SetLegalHold(context.Context, string, string, bool) error              { return nil }

// The time by which a rule of the store expires an archive moves with its lock,
// and records take it.
func TestRetainMovesTheCustomTime(t *testing.T) {
	for name, b := range map[string]storage.Bucket{
		"memory": storagetest.NewMemory(storagetest.MemoryOptions{Versions: true, Lock: true, CustomTime: true}),
		"gcs":    lockingStores()["gcs"](t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { b.Close() })
			const id = "a0000001"
			m := youngArchive(t, b, id, storage.PutOptions{CustomTime: in(0)})
			until := in(96)
			for range 2 {
				if _, err := Retain(t.Context(), RetainOptions{Bucket: b, Ref: id, Until: until, Lock: storage.Governance}); err != nil {
					t.Fatal(err)
				}
				e := resolved(t, b, id)
				all, err := look(t.Context(), b, e.dir(), e.Objects)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := putRecord(t.Context(), b, e, Record{Kind: RecordHold, By: "x", Result: HoldSet}, nil, all, m.Kept, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			objects := statAll(t, b, id)
			for name, o := range objects {
				if !o.CustomTime.Equal(until.AddDate(0, 0, -1)) { // its keep is a day
					t.Errorf("%s: %s", name, o.CustomTime)
				}
			}
			if len(objects) != 6 {
				t.Errorf("%d objects", len(objects))
			}
		})
	}
}

func TestRetainRefuses(t *testing.T) {
	folder := openFile(t)
	youngArchive(t, folder, "a0000001", storage.PutOptions{})
	b := lockable()
	youngArchive(t, b, "a0000001", storage.PutOptions{})
	skewed := capable{b, func(c *storage.Capabilities) { c.ClockSkew = time.Hour }}
	for name, c := range map[string]struct {
		opts RetainOptions
		err  error
	}{
		"a folder":       {RetainOptions{Bucket: folder, Until: in(1), Lock: storage.Governance}, errors.ErrUnsupported},
		"neither":        {RetainOptions{Bucket: b}, ErrUsage},
		"both":           {RetainOptions{Bucket: b, Until: in(1), Keep: Period{Days: 1}}, ErrUsage},
		"no such lock":   {RetainOptions{Bucket: b, Until: in(1), Lock: "tight"}, ErrUsage},
		"a wrong clock":  {RetainOptions{Bucket: skewed, Until: in(1), Lock: storage.Governance}, ErrUsage},
		"no versions":    {RetainOptions{Bucket: noVersions{b}, Until: in(1), Lock: storage.Governance}, storage.ErrPermission},
		"no such object": {RetainOptions{Bucket: b, Ref: "b0000001", Until: in(1), Lock: storage.Governance}, ErrNoArchive},
	} {
		if c.opts.Ref == "" {
			c.opts.Ref = "a0000001"
		}
		if _, err := Retain(t.Context(), c.opts); !errors.Is(err, c.err) {
			t.Errorf("%s: error %v", name, err)
		} else {
			oneLiner(t, err)
		}
	}
}
