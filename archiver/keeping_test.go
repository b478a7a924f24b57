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

// pinned credentials may change nothing that is stored.
type pinned struct{ *storagetest.Memory }

func (pinned) SetRetention(_ context.Context, key, _ string, _ storage.Retention) error {
	return &storage.Error{Op: "retain", Key: key, Kind: storage.ErrPermission}
}

func (pinned) SetCustomTime(_ context.Context, key, _ string, _ time.Time) error {
	return &storage.Error{Op: "move", Key: key, Kind: storage.ErrPermission}
}

// Where nothing may be extended, the manifest promises no more than the store
// keeps: a rule of the store counts from the start of the run, and a lock that
// ends is none.
func TestNothingIsPromisedThatIsNotKept(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	byTime := func() *storagetest.Memory {
		return storagetest.NewMemory(storagetest.MemoryOptions{Versions: true, Lock: true, CustomTime: true, Lifecycle: &gcsRules})
	}
	unlocked := Policy{Name: "dev", Keep: Period{Days: 30}, Expiry: ExpiryStore}
	locked := unlocked
	locked.Lock = storage.Governance
	for name, c := range map[string]struct {
		bucket storage.Bucket
		policy Policy
		step   time.Duration // of the clock, each time it is looked at
		short  bool
		warns  string
	}{
		"custom time":              {pinned{byTime()}, unlocked, time.Hour, true, "custom time"},
		"custom time that moves":   {byTime(), unlocked, time.Hour, false, ""},
		"lock, a short run":        {pinned{lockable()}, locked, time.Hour, false, "lock"},
		"lock, a long run":         {pinned{lockable()}, locked, 20 * time.Hour, true, "lock"},
		"lock that is extended":    {lockable(), locked, 20 * time.Hour, false, ""},
		"both, a long run":         {pinned{byTime()}, locked, 20 * time.Hour, true, "lock"},
		"only a lock, a long run":  {unextendable{byTime()}, locked, 20 * time.Hour, false, "lock"},
		"nothing, and no deadline": {pinned{lockable()}, Policy{Name: "dev", Keep: Period{Days: 30}}, time.Hour, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			res, err := Archive(t.Context(), ArchiveOptions{Bucket: c.bucket, Conn: connTo(t, pg, db), Policy: c.policy, Now: func() time.Time {
				now = now.Add(c.step)
				return now
			}})
			if err != nil {
				t.Fatal(err)
			}
			m := res.Manifest
			full := c.policy.Keep.After(m.Finished)
			if m.Kept.KeepUntil.Before(full) != c.short || m.Kept.KeepUntil.After(full) {
				t.Errorf("promised until %s, and the keep ends at %s", m.Kept.KeepUntil, full)
			}
			for _, o := range shownIn(t, c.bucket) {
				gone := o.Retention.Until
				if c.policy.Expiry == ExpiryStore && !o.CustomTime.IsZero() { // the rule of the policy
					if at := o.CustomTime.AddDate(0, 0, c.policy.Keep.MostDays()); at.After(gone) {
						gone = at
					}
				}
				if !gone.IsZero() && gone.Before(m.Kept.KeepUntil.Truncate(time.Second)) {
					t.Errorf("%s may be deleted at %s, and is promised until %s", o.Key, gone, m.Kept.KeepUntil)
				}
			}
			warned := func(text string) bool {
				return slices.ContainsFunc(m.Warnings, func(w string) bool { return strings.Contains(w, text) })
			}
			if warned("denied") != (c.warns != "") || !warned(c.warns) && c.warns != "" || warned("it is promised") != c.short {
				t.Errorf("warnings %q", m.Warnings)
			}
		})
	}
}

// A lifecycle rule that would delete the archive before its keep is over is seen
// before pg_dump starts, whoever wrote it.
func TestArchiveLooksAtTheRules(t *testing.T) {
	pg := testenv.Postgres(t)
	conn := connTo(t, pg, smallSource(t, pg))
	expire := func(days int, clock storage.LifecycleClock, prefixes ...string) storage.LifecycleRule {
		return storage.LifecycleRule{ID: "a stranger's", Filter: storage.LifecycleFilter{Prefixes: prefixes},
			Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Days: days, Clock: clock}}}
	}
	const created, custom = storage.LifecycleSinceCreation, storage.LifecycleSinceCustomTime
	ours := expire(38, created, "pg/dev/")
	ours.ID = LifecycleID("pg/", "dev", kindExpire)
	ours2 := ours
	ours2.Actions = []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Days: 69, Clock: created}, {Kind: storage.LifecycleExpireNoncurrent, Days: 60, Clock: storage.LifecycleSinceNoncurrent}}
	ours3 := ours2
	ours3.Actions = []storage.LifecycleAction{ours2.Actions[0], {Kind: storage.LifecycleExpireNoncurrent, Days: 1, Clock: storage.LifecycleSinceNoncurrent}}
	disabled, dated, tagged, over, hidden := expire(1, created), expire(0, ""), expire(1, created), expire(1, created), expire(1, storage.LifecycleSinceNoncurrent)
	disabled.Disabled = true
	dated.Actions[0].Date = time.Now().AddDate(0, 1, 0)
	far := expire(0, "")
	far.Actions[0].Date = time.Now().AddDate(1, 0, 0)
	tagged.Filter.Tags = map[string]string{"temporary": "yes"}
	over.Actions[0].Before = time.Now().AddDate(0, 0, -1)
	hidden.Actions[0].Kind = storage.LifecycleExpireNoncurrent
	dev := Policy{Name: "dev", Keep: Period{Days: 60}}
	adhoc, locked, plain := dev, dev, Policy{Name: "dev"}
	adhoc.Name, locked.Lock = "", storage.Governance
	for name, c := range map[string]struct {
		rule     storage.LifecycleRule
		policy   Policy
		features storage.LifecycleFeatures
		caps     func(*storage.Capabilities)
		says     string
	}{
		"ours, of a shorter keep":  {ours, dev, s3Rules, nil, "lifecycle apply"},
		"ours, as it should be":    {ours2, dev, s3Rules, nil, ""},
		"ours, of a locked policy": {ours3, dev, s3Rules, nil, "lifecycle apply"},
		"a stranger's":             {expire(30, created), dev, s3Rules, nil, "a stranger's"},
		"without a policy":         {expire(30, created), adhoc, s3Rules, nil, "a stranger's"},
		"of this database":         {expire(30, created, "pg/dev/orders/"), dev, s3Rules, nil, "pg/dev/orders/"},
		"of another":               {expire(30, created, "pg/dev/sales/"), dev, s3Rules, nil, ""},
		"just as long":             {expire(60, created), dev, s3Rules, nil, "60 days"},
		"long enough":              {expire(62, created), dev, s3Rules, nil, ""},
		"disabled":                 {disabled, dev, s3Rules, nil, ""},
		"from a day on":            {dated, dev, s3Rules, nil, "from"},
		"from a day on, later":     {far, dev, s3Rules, nil, ""},
		"a tag that it has not":    {tagged, adhoc, s3Rules, nil, ""},
		"what is older":            {over, dev, gcsRules, nil, ""},
		"what is hidden":           {hidden, dev, s3Rules, nil, ""},
		"locked":                   {expire(30, created), locked, s3Rules, nil, ""},
		"nothing kept":             {expire(30, created), plain, s3Rules, nil, ""},
		"custom time":              {expire(59, custom, "pg/dev/"), dev, gcsRules, nil, "lifecycle apply"},
		"custom time, long enough": {expire(60, custom, "pg/dev/"), dev, gcsRules, nil, ""},
		"locked by the bucket": {expire(30, created), dev, s3Rules, func(c *storage.Capabilities) {
			c.DefaultRetention = storage.DefaultRetention{Mode: storage.Governance, Days: 90}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if !c.features.IDs {
				c.rule.ID = ""
			}
			b := newRuled(t, c.features, c.rule)
			b.caps = c.caps
			var phases []Phase
			_, err := Archive(t.Context(), ArchiveOptions{Bucket: storage.Prefixed(b, "pg/"), Conn: conn, Name: "orders", Policy: c.policy,
				Progress: func(p Progress) { phases = append(phases, p.Phase) }})
			if c.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v", err)
			}
			oneLiner(t, err)
			if slices.Contains(phases, PhaseOpening) || len(objects(t, b)) > 0 {
				t.Errorf("phases %q, stored are %q", phases, objects(t, b))
			}
		})
	}
	// Rules that nobody may read are none that is known; a store that fails is told.
	for kind, refused := range map[error]bool{storage.ErrPermission: false, errors.ErrUnsupported: false, storage.ErrUnavailable: true} {
		b := &unreadableRules{newRuled(t, s3Rules, expire(1, created)), &storage.Error{Op: "read lifecycle rules", Kind: kind}}
		if _, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: conn, Policy: dev}); (err != nil) != refused || refused && !errors.Is(err, kind) {
			t.Errorf("%v: error %v", kind, err)
		}
	}
	// Nor is what makes no sense a reason to go without a backup.
	b := &unreadableRules{newRuled(t, s3Rules, expire(1, created)), errors.New("lifecycle rule \"x\": Days is \"soon\"")}
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: conn, Policy: dev})
	if err != nil || !slices.ContainsFunc(res.Manifest.Warnings, func(w string) bool { return strings.Contains(w, `Days is "soon"`) }) {
		t.Errorf("rules that make no sense: %+v, %v", res, err)
	}
}

// unreadableRules are those of a bucket that does not show them.
type unreadableRules struct {
	*ruled
	err error
}

func (u *unreadableRules) Lifecycle(context.Context) (storage.Lifecycle, error) {
	return storage.Lifecycle{}, u.err
}

// A run so long that a rule will come too early for it is archived all the same,
// and promised for less.
func TestArchiveOutlastsARule(t *testing.T) {
	pg := testenv.Postgres(t)
	b := newRuled(t, s3Rules, storage.LifecycleRule{ID: "all", Actions: []storage.LifecycleAction{
		{Kind: storage.LifecycleExpire, Days: 62, Clock: storage.LifecycleSinceCreation}}})
	now := time.Now()
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, smallSource(t, pg)), Policy: Policy{Name: "dev", Keep: Period{Days: 60}}, Now: func() time.Time {
		now = now.Add(24 * time.Hour)
		return now
	}})
	if err != nil {
		t.Fatal(err)
	}
	m := res.Manifest
	if want := m.Started.AddDate(0, 0, 62); !m.Kept.KeepUntil.Truncate(time.Second).Equal(want.Truncate(time.Second)) {
		t.Errorf("promised until %s, and the rule deletes at %s", m.Kept.KeepUntil, want)
	}
	if !slices.ContainsFunc(m.Warnings, func(w string) bool { return strings.Contains(w, "it is promised") }) {
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

// aboutManifest makes what a store does with a manifest go wrong, and with nothing
// else.
type aboutManifest struct {
	*storagetest.Memory
	open, stat error
	hidden     []storage.Attribute
	put        func(*storage.PutOptions)
}

func isManifest(key string) bool { return strings.HasSuffix(key, "/"+ManifestName) }

func (b aboutManifest) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if isManifest(key) && b.put != nil {
		b.put(&opts)
	}
	return b.Memory.Put(ctx, key, r, opts)
}

func (b aboutManifest) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if isManifest(key) && b.open != nil {
		return nil, &storage.Error{Op: "open", Key: key, Kind: b.open}
	}
	return b.Memory.Open(ctx, key, opts)
}

func (b aboutManifest) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	if isManifest(key) && b.stat != nil {
		return storage.Object{}, &storage.Error{Op: "stat", Key: key, Kind: b.stat}
	}
	o, err := b.Memory.Stat(ctx, key, version)
	if isManifest(key) && len(b.hidden) > 0 {
		o.Retention, o.Denied = storage.Retention{}, b.hidden
	}
	return o, err
}

// The manifest is read back like the rest. It is there already when that goes
// wrong: the archive exists, the error says so, and nothing of it is removed.
func TestManifestIsReadBack(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	conn := connTo(t, pg, db)
	for name, c := range map[string]struct {
		bucket   aboutManifest
		readBack string
		fails    error // whatever is required
		required error // with RequireReadBack
	}{
		"fine":             {aboutManifest{}, ReadBackDone, nil, nil},
		"reading denied":   {aboutManifest{open: storage.ErrPermission}, ReadBackDenied, nil, storage.ErrPermission},
		"showing denied":   {aboutManifest{stat: storage.ErrPermission}, ReadBackDenied, nil, storage.ErrPermission},
		"lock not shown":   {aboutManifest{hidden: []storage.Attribute{storage.AttributeRetention}}, ReadBackDenied, nil, storage.ErrPermission},
		"store is gone":    {aboutManifest{open: storage.ErrUnavailable}, ReadBackUnavailable, nil, storage.ErrUnavailable},
		"lock is dropped":  {aboutManifest{put: func(o *storage.PutOptions) { o.Retention = storage.Retention{} }}, "", ErrIntegrity, ErrIntegrity},
		"lock is governed": {aboutManifest{put: func(o *storage.PutOptions) { o.Retention.Mode = storage.Governance }}, "", ErrIntegrity, ErrIntegrity},
	} {
		for _, require := range []bool{false, true} {
			c.bucket.Memory = lockable()
			res, err := Archive(t.Context(), ArchiveOptions{Bucket: c.bucket, Conn: conn, Policy: sox, RequireReadBack: require})
			want := c.fails
			if require {
				want = c.required
			}
			all := listed(t, c.bucket.Memory)
			if len(all) != 1 {
				t.Fatalf("%s, required %t: listed are %v, error %v", name, require, ids(all), err)
			}
			if shown, err := Show(t.Context(), ShowOptions{Bucket: c.bucket.Memory, Ref: all[0].ID}); err != nil {
				t.Errorf("%s, required %t: %v", name, require, err)
			} else {
				checkByHand(t, shown.Manifest, content(t, c.bucket.Memory))
			}
			var committed *CommittedError
			switch {
			case want == nil && (err != nil || res.ReadBack != c.readBack):
				t.Errorf("%s, required %t: %+v, %v", name, require, res, err)
			case want != nil && (!errors.Is(err, want) || !errors.As(err, &committed) || committed.ID != all[0].ID || !strings.Contains(err.Error(), "pgstow show "+all[0].ID)):
				t.Errorf("%s, required %t: error %v", name, require, err)
			}
			oneLiner(t, err)
		}
	}
}

// late loses the first request for a manifest, which arrives before the second.
type late struct {
	*storagetest.Memory
	first func()
}

func (l *late) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if !isManifest(key) {
		return l.Memory.Put(ctx, key, r, opts)
	}
	if l.first == nil {
		raw, err := io.ReadAll(r)
		if err != nil {
			return storage.Object{}, err
		}
		l.first = func() { _, _ = storage.PutBytes(context.Background(), l.Memory, key, raw, opts) }
		return storage.Object{}, &storage.Error{Op: "put", Key: key, Kind: storage.ErrUnknownOutcome}
	}
	l.first()
	return l.Memory.Put(ctx, key, r, opts)
}

// A manifest whose first request was heard after all is compared with what that
// one asked for, although an hour has begun since.
func TestManifestThatCameLate(t *testing.T) {
	pg := testenv.Postgres(t)
	b := &late{Memory: lockable()}
	now := time.Now()
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, smallSource(t, pg)), Policy: sox, Now: func() time.Time {
		now = now.Add(time.Hour)
		return now
	}})
	if err != nil || res.ReadBack != ReadBackDone || b.first == nil {
		t.Errorf("%+v, %v", res, err)
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
