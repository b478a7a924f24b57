package archiver

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

func lockable() *storagetest.Memory {
	return storagetest.NewMemory(storagetest.MemoryOptions{Versions: true, Lock: true})
}

// shownIn is every object of a bucket as Stat shows it.
func shownIn(t testing.TB, b storage.Bucket) []storage.Object {
	t.Helper()
	var all []storage.Object
	for _, key := range objects(t, b) {
		o, err := b.Stat(t.Context(), key, "")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

var sox = Policy{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Compliance, Tags: map[string]string{"owner": "finance"}}

// Every object of an archive gets lock, hold and tags, and the manifest says
// what the store shows of them.
func TestArchiveIsKept(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	policy := sox
	policy.LegalHold = true
	for name, open := range map[string]func(t *testing.T) storage.Bucket{
		"memory": func(*testing.T) storage.Bucket { return lockable() },
		"versitygw": func(t *testing.T) storage.Bucket {
			return openS3(t, testenv.VersityGW(t), testenv.BucketOptions{ObjectLock: true})
		},
		"minio": func(t *testing.T) storage.Bucket {
			return openS3(t, testenv.MinIO(t), testenv.BucketOptions{ObjectLock: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() { b.Close() })
			b = storage.Prefixed(b, "team/")
			res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), Policy: policy, Name: "orders"})
			if err != nil {
				t.Fatal(err)
			}
			m := res.Manifest
			validate(t, content(t, b)[m.Key])
			earliest := policy.Keep.After(m.Finished).AddDate(0, 0, 1)
			for _, o := range shownIn(t, b) {
				want := map[string]string{TagPolicy: "sox", TagRole: roleOf(o.Key[strings.LastIndex(o.Key, "/")+1:]), "owner": "finance"}
				if o.Retention.Mode != storage.Compliance || o.Retention.Until.Before(earliest) || o.Retention.Until.After(earliest.Add(time.Hour)) ||
					!o.LegalHold || !maps.Equal(o.Tags, want) {
					t.Errorf("%s: %+v, hold %t, tags %v; a run that ended at %s", o.Key, o.Retention, o.LegalHold, o.Tags, m.Finished)
				}
			}
			k := m.Kept
			if k == nil || k.Stored == nil || m.ReadBack != ReadBackDone || res.ReadBack != ReadBackDone {
				t.Fatalf("kept %+v, read back %s", k, m.ReadBack)
			}
			if k.Stored.Lock != storage.Compliance || k.Stored.RetainUntil.Before(earliest) || !k.Stored.LegalHold ||
				k.Stored.Tags[TagRole] != RoleDump || !k.KeepUntil.Equal(policy.Keep.After(m.Finished)) || !k.RetainUntil.Equal(k.Stored.RetainUntil) {
				t.Errorf("kept %+v, stored %+v", k, k.Stored)
			}
			for _, o := range shownIn(t, b) {
				if err := storage.SetLegalHold(t.Context(), b, o.Key, o.Version, false); err != nil {
					t.Fatal(err)
				}
				if err := b.Delete(t.Context(), o.Key, o.Version); !errors.Is(err, storage.ErrLocked) {
					t.Errorf("delete %s: %v", o.Key, err)
				}
			}
		})
	}
}

// A policy with nothing to lock asks for no right that a plain archive does
// not need.
func TestArchiveWithoutPolicyAsksForNothing(t *testing.T) {
	pg := testenv.Postgres(t)
	b := lockable()
	res := archived(t, pg, smallSource(t, pg), b)
	for _, o := range shownIn(t, b) {
		if len(o.Tags) > 0 || !o.Retention.IsZero() || o.LegalHold {
			t.Errorf("%+v", o)
		}
	}
	if k := res.Manifest.Kept; k == nil || !k.IsZero() || !k.KeepUntil.IsZero() {
		t.Errorf("kept %+v", k)
	}
}

// forgetful drops what one of its fields names, as some stores do.
type forgetful struct {
	*storagetest.Memory
	drops string
}

func (f *forgetful) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	switch f.drops {
	case "lock":
		opts.Retention = storage.Retention{}
	case "mode":
		opts.Retention.Mode = storage.Governance
	case "time":
		opts.Retention.Until = opts.Retention.Until.Add(-time.Hour)
	case "hold":
		opts.LegalHold = false
	case "tags":
		opts.Tags = map[string]string{"owner": "finance"}
	case "class":
		opts.StorageClass = ""
	}
	return f.Memory.Put(ctx, key, r, opts)
}

// Weaker than asked for is a failure, before pg_dump has started where the
// small objects show it.
func TestArchiveNoticesWhatAStoreDrops(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	policy := sox
	policy.LegalHold, policy.StorageClass = true, "STANDARD_IA"
	for _, drops := range []string{"lock", "mode", "time", "hold", "tags", "class"} {
		t.Run(drops, func(t *testing.T) {
			b := &forgetful{Memory: lockable(), drops: drops}
			var phases []Phase
			_, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Policy: policy,
				Progress: func(p Progress) { phases = append(phases, p.Phase) }})
			if !errors.Is(err, ErrIntegrity) {
				t.Fatalf("error %v", err)
			}
			oneLiner(t, err)
			if dumped := slices.Contains(phases, PhaseCatalogue); dumped != (drops == "class") {
				t.Errorf("pg_dump started: %t", dumped)
			}
			if list := listed(t, b.Memory); len(list) > 0 {
				t.Errorf("listed are %+v", list)
			}
		})
	}
}

// The lock counts from the end of the run: objects of a long one are extended.
func TestLongArchiveIsExtended(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	b := lockable()
	start, hours := time.Now(), 0
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Policy: sox, Now: func() time.Time {
		hours += 5
		return start.Add(time.Duration(hours) * time.Hour)
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := lockMargin(sox.Keep.After(res.Manifest.Finished))
	for _, o := range shownIn(t, b) {
		if o.Retention.Until.Before(want) {
			t.Errorf("%s is locked until %s, expected %s", o.Key, o.Retention.Until, want)
		}
	}
	if k := res.Manifest.Kept; !k.RetainUntil.Equal(want) || !k.Stored.RetainUntil.Equal(want) {
		t.Errorf("kept %+v, stored %+v; expected %s", k, k.Stored, want)
	}
}

// unextendable has no right to change what is stored.
type unextendable struct{ *storagetest.Memory }

func (unextendable) SetRetention(_ context.Context, key, _ string, _ storage.Retention) error {
	return &storage.Error{Op: "retain", Key: key, Kind: storage.ErrPermission}
}

func TestLongArchiveThatCannotBeExtended(t *testing.T) {
	pg := testenv.Postgres(t)
	b := unextendable{lockable()}
	start, hours := time.Now(), 0
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, smallSource(t, pg)), Policy: sox, Now: func() time.Time {
		hours += 5
		return start.Add(time.Duration(hours) * time.Hour)
	}})
	if err != nil {
		t.Fatal(err)
	}
	m := res.Manifest
	if want := lockMargin(sox.Keep.After(m.Started)); !m.Kept.RetainUntil.Equal(want) || !m.Kept.Stored.RetainUntil.Equal(want) {
		t.Errorf("kept %+v; expected %s", m.Kept, want)
	}
	if !slices.ContainsFunc(m.Warnings, func(w string) bool { return strings.Contains(w, "denied") }) {
		t.Errorf("warnings %q", m.Warnings)
	}
}

// blind credentials do not see how objects are kept.
type blind struct{ *storagetest.Memory }

func (b blind) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	o, err := b.Memory.Stat(ctx, key, version)
	o.Retention, o.Denied = storage.Retention{}, []storage.Attribute{storage.AttributeRetention}
	return o, err
}

// Denied is not the same as absent: it is said, and refused on request.
func TestReadBackDenied(t *testing.T) {
	pg := testenv.Postgres(t)
	opts := ArchiveOptions{Conn: connTo(t, pg, smallSource(t, pg)), Policy: sox}
	for name, b := range map[string]storage.Bucket{
		"retention":  blind{lockable()},
		"everything": &faultyBucket{Memory: lockable(), mode: denied},
	} {
		opts.Bucket, opts.RequireReadBack = b, false
		res, err := Archive(t.Context(), opts)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m := res.Manifest; m.ReadBack != ReadBackDenied || (m.Kept.Stored == nil) != (name == "everything") {
			t.Errorf("%s: read back %s, kept %+v", name, m.ReadBack, m.Kept)
		}
		opts.RequireReadBack = true
		if _, err := Archive(t.Context(), opts); !errors.Is(err, storage.ErrPermission) {
			t.Errorf("%s, required: error %v", name, err)
		} else {
			oneLiner(t, err)
		}
	}
}

// capable overrides what a bucket says of itself.
type capable struct {
	*storagetest.Memory
	change func(*storage.Capabilities)
}

func (c capable) Capabilities() storage.Capabilities {
	caps := c.Memory.Capabilities()
	c.change(&caps)
	return caps
}

func TestArchiveRefusesAPolicy(t *testing.T) {
	pg := testenv.Postgres(t)
	conn := connTo(t, pg, smallSource(t, pg))
	caps := func(change func(*storage.Capabilities)) storage.Bucket { return capable{lockable(), change} }
	long := sox
	long.Keep = Period{Years: 11}
	for name, opts := range map[string]ArchiveOptions{
		"above max-keep":                {Policy: long},
		"clock an hour ahead":           {Policy: sox, Bucket: caps(func(c *storage.Capabilities) { c.ClockSkew = time.Hour })},
		"clock an hour behind, no lock": {Policy: Policy{Keep: Period{Days: 30}}, Bucket: caps(func(c *storage.Capabilities) { c.ClockSkew = -time.Hour })},
		"clock an hour behind":          {Policy: sox, Bucket: caps(func(c *storage.Capabilities) { c.ClockSkew = -time.Hour })},
		"a default neither weaker nor stronger": {Policy: sox, Bucket: caps(func(c *storage.Capabilities) {
			c.DefaultRetention = storage.DefaultRetention{Mode: storage.Governance, Days: 30}
		})},
		"INSERTs":    {Policy: sox, DumpArgs: []string{"--rows-per-insert", "100"}},
		"no lock":    {Policy: sox, Bucket: storagetest.NewMemory(storagetest.MemoryOptions{})},
		"nine tags":  {Policy: Policy{Name: "a", Tags: map[string]string{"1": "", "2": "", "3": "", "4": "", "5": "", "6": "", "7": "", "8": "", "9": ""}}},
		"no keep":    {Policy: Policy{Lock: storage.Governance}},
		"GFS locked": {Policy: Policy{Lock: storage.Governance, Keep: Period{Days: 9}, KeepDaily: 7}},
	} {
		t.Run(name, func(t *testing.T) {
			if opts.Bucket == nil {
				opts.Bucket = lockable()
			}
			opts.Conn = conn
			_, err := Archive(t.Context(), opts)
			if !errors.Is(err, ErrUsage) && !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("error %v", err)
			} else {
				oneLiner(t, err)
			}
			if keys := objects(t, opts.Bucket); len(keys) > 0 {
				t.Errorf("stored are %q", keys)
			}
		})
	}
	opts := ArchiveOptions{Bucket: lockable(), Conn: conn, Policy: sox, DumpArgs: []string{"--inserts"}, AllowNoEvidence: true}
	if res, err := Archive(t.Context(), opts); err != nil || res.Manifest.Evidence != EvidenceNone {
		t.Errorf("INSERTs that were allowed: %v", err)
	}
}

// A bucket's own default is never replaced by less.
func TestBucketDefaultIsNotWeakened(t *testing.T) {
	now := time.Date(2026, 11, 26, 10, 30, 0, 0, time.UTC)
	own := storage.Retention{Mode: storage.Compliance, Until: time.Date(2026, 11, 28, 11, 0, 0, 0, time.UTC)}
	for name, c := range map[string]struct {
		policy    Policy
		byDefault storage.DefaultRetention
		want      storage.Retention
	}{
		"none":                {sox, storage.DefaultRetention{}, own},
		"shorter":             {sox, storage.DefaultRetention{Mode: storage.Governance, Days: 1}, own},
		"longer":              {sox, storage.DefaultRetention{Mode: storage.Compliance, Years: 1}, storage.Retention{Mode: storage.Compliance, Until: time.Date(2027, 11, 27, 11, 0, 0, 0, time.UTC)}},
		"nothing asked":       {Policy{Name: "dev"}, storage.DefaultRetention{Mode: storage.Compliance, Years: 1}, storage.Retention{}},
		"on top, not instead": {sox, storage.DefaultRetention{Mode: storage.Compliance, Period: time.Hour}, own},
	} {
		b := capable{lockable(), func(caps *storage.Capabilities) { caps.DefaultRetention = c.byDefault }}
		k, err := newKeeper(b, c.policy, Period{}, false, now)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := k.retention(now); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; expected %+v", name, got, err, c.want)
		}
	}
}

// GCS's rules count from the custom time: the earliest deletion less keep.
func TestCustomTime(t *testing.T) {
	now := time.Date(2026, 11, 26, 10, 30, 0, 0, time.UTC)
	b := capable{lockable(), func(caps *storage.Capabilities) { caps.CustomTime = true }}
	for name, c := range map[string]struct {
		policy Policy
		want   time.Time
	}{
		"nothing":  {Policy{Name: "a"}, time.Time{}},
		"unlocked": {Policy{Name: "a", Keep: Period{Days: 30}}, now},
		"locked":   {sox, time.Date(2026, 11, 27, 11, 0, 0, 0, time.UTC)},
	} {
		k, err := newKeeper(b, c.policy, Period{}, false, now)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := k.customTime(now); !got.Equal(c.want) {
			t.Errorf("%s: %s, expected %s", name, got, c.want)
		}
	}
}
