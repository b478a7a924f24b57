package archiver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// auditNow is the time of the audits here. The memory bucket's clock is the
// machine's, so that it is today.
func auditNow() time.Time { return time.Now().UTC().Truncate(time.Second) }

// auditTerms keep an archive for ten days under a lock.
func auditTerms() Policy {
	return Policy{Keep: Period{Days: 10}, Lock: storage.Governance, Encryption: Encryption{Mode: storage.EncryptionStore},
		StorageClass: "STANDARD", Tags: map[string]string{"owner": "finance"}, Expiry: ExpiryPgstow}
}

// auditArchive stores an archive of these terms that ended so many hours ago, as
// Archive would have.
func auditArchive(t testing.TB, b storage.Bucket, label, id string, hoursAgo int, terms Policy, change func(*Manifest)) *Manifest {
	t.Helper()
	at := auditNow().Add(time.Duration(-hoursAgo) * time.Hour)
	d := Dir{Policy: "sox", Label: label, Time: at, ID: id}
	terms.Name = "sox"
	k := keeper{bucket: b, policy: terms}
	m := fakeManifest(d, "1")
	rows := int64(7)
	m.Evidence, m.EvidenceReason, m.Totals.Rows, m.Totals.Tables = EvidenceContent, "", &rows, 1
	store := func(name, text string) StoredObject {
		opts, err := k.options(name, storage.PutOptions{}, at)
		if err != nil {
			t.Fatal(err)
		}
		o, err := storage.PutBytes(t.Context(), b, d.Key(name), []byte(text), opts)
		if err != nil {
			t.Fatal(err)
		}
		return StoredObject{Key: o.Key, Version: o.Version, Size: o.Size, SHA256: hexSum([]byte(text)), Checksum: checksumOf(o)}
	}
	m.Objects.Dump = store(DumpName, "dump of "+id)
	m.Objects.Dump.Head = &Range{Length: 4, SHA256: hexSum([]byte("dump"))}
	globals, index := store(GlobalsName, "globals"), store(IndexName, "index")
	m.Structure, m.Globals, m.Objects.Globals, m.Objects.Index = StructureComplete, GlobalsIncluded, &globals, &index
	m.Kept = &Kept{Policy: terms}
	if !terms.Keep.IsZero() {
		m.Kept.KeepUntil = terms.Keep.After(at)
	}
	if r, err := k.retention(at); err == nil && !r.IsZero() {
		m.Kept.RetainUntil = r.Until
	}
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

// auditRecord stores a record of an archive, so many hours ago.
func auditRecord(t testing.TB, b storage.Bucket, id, kind, result string, hoursAgo int, change func(*Record)) {
	t.Helper()
	e := resolved(t, b, id)
	m, raw, err := readManifest(t.Context(), b, e)
	if err != nil {
		t.Fatal(err)
	}
	all, err := look(t.Context(), b, e.dir(), e.Objects)
	if err != nil {
		t.Fatal(err)
	}
	r := Record{Kind: kind, ManifestSHA256: hexSum(raw), By: "alice@host", Result: result, Pgstow: "test"}
	switch kind {
	case RecordVerify:
		r.Verify = &VerifyFacts{Mode: ModeFull}
	case RecordDrill:
		r.Drill = &RecordedDrill{RestoreSeconds: 12.3, Complete: true}
	}
	if change != nil {
		change(&r)
	}
	if _, err := putRecord(t.Context(), b, e, r, nil, all, m.Kept, auditNow().Add(time.Duration(-hoursAgo)*time.Hour)); err != nil {
		t.Fatal(err)
	}
}

func auditOf(t testing.TB, b storage.Bucket, change func(*AuditOptions)) *AuditResult {
	t.Helper()
	opts := AuditOptions{Bucket: b, Place: "memory:///"}
	if change != nil {
		change(&opts)
	}
	res, err := Audit(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := json.Marshal(res); err != nil || !json.Valid(raw) {
		t.Fatalf("as JSON: %v", err)
	}
	return res
}

// findings are "severity check" of what was found, sorted.
func findings(res *AuditResult) []string {
	list := []string{}
	for _, f := range res.Findings {
		list = append(list, f.Severity+" "+f.Check)
	}
	slices.Sort(list)
	return list
}

// wantFindings wants these and no others, each with a text and what to do.
func wantFindings(t testing.TB, res *AuditResult, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := findings(res); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	violations := 0
	for _, f := range res.Findings {
		t.Logf("%s %s %s: %s -> %s", f.Severity, f.Label, f.Archive, f.Text, f.Do)
		if f.Text == "" || f.Do == "" || strings.Contains(f.Text, "\n") || strings.Contains(f.Text, "%!") || strings.Contains(f.Do, "%!") {
			t.Errorf("%+v", f)
		}
		if f.Severity == SeverityViolation {
			violations++
		}
	}
	if res.Violations != violations || res.Compliant != (violations == 0) || res.Notices != len(res.Findings)-violations {
		t.Errorf("violations %d, notices %d, compliant %t", res.Violations, res.Notices, res.Compliant)
	}
}

// An archive that is as it was promised is found so, with what was compared.
func TestAuditCompliant(t *testing.T) {
	b := storage.Prefixed(lockable(), "team/")
	auditArchive(t, b, "orders", "a0000001", 20, auditTerms(), nil)
	auditArchive(t, b, "orders", "a0000002", 6, auditTerms(), nil)
	auditRecord(t, b, "a0000001", RecordVerify, ResultPassed, 5, nil)
	auditRecord(t, b, "a0000002", RecordDrill, ResultPassed, 4, nil)
	policy := auditTerms()
	policy.Name = "sox"
	res := auditOf(t, b, func(o *AuditOptions) {
		o.Databases = []AuditDatabase{{Label: "orders", Policy: &policy, Every: 24 * time.Hour, VerifyEvery: Period{Days: 1}, DrillEvery: Period{Days: 1}}}
		o.Policies = []Policy{policy}
	})
	wantFindings(t, res)
	if len(res.Databases) != 1 || res.Archives != 2 || res.Rules != RulesNone {
		t.Fatalf("%+v", res)
	}
	d := res.Databases[0]
	if d.Verified == nil || d.Verified.Archive != "a0000001" || d.Drilled == nil || d.Drilled.Archive != "a0000002" || len(d.Gaps) != 0 {
		t.Errorf("%+v", d)
	}
	for _, a := range d.Archives {
		if a.Lock.Mode != storage.Governance || a.Lock != a.Promised || a.KeepUntil.IsZero() || a.StorageClass != "STANDARD" || a.Size != int64(len("dump of a0000001")) {
			t.Errorf("%+v", a)
		}
		var checks []string
		for _, c := range a.Checks {
			checks = append(checks, c.Check)
			if c.Result != CheckPassed && c.Result != CheckIdle || c.Detail == "" {
				t.Errorf("%s: %+v", a.ID, c)
			}
		}
		for _, c := range []string{CheckManifest, CheckObjects, CheckLock, CheckHold, CheckClass, CheckEncryption, CheckTags, CheckEvidence, CheckVerify, CheckDrill} {
			if !slices.Contains(checks, c) {
				t.Errorf("%s: %s was not looked at: %q", a.ID, c, checks)
			}
		}
	}
	if len(res.Heads) != 1 || res.Heads[0].ID != "a0000002" || res.Heads[0].KeepUntil.IsZero() {
		t.Errorf("heads %+v", res.Heads)
	}
}

// altered changes what Stat and List show of some objects.
type altered struct {
	*storagetest.Memory
	change func(*storage.Object)
}

func (a altered) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	o, err := a.Memory.Stat(ctx, key, version)
	if err == nil {
		o.Tags = maps.Clone(o.Tags)
		a.change(&o)
	}
	return o, err
}

// Everything that is not as it was promised is found, named, and nothing else.
func TestAuditFindsWhatIsNotAsPromised(t *testing.T) {
	is := func(o *storage.Object, name string) bool { return strings.HasSuffix(o.Key, "/"+name) }
	const violation, notice = SeverityViolation + " ", SeverityNotice + " "
	for name, c := range map[string]struct {
		terms  func(*Policy)
		made   func(*Manifest)
		after  func(t *testing.T, b *storagetest.Memory, m *Manifest)
		shown  func(*storage.Object)
		opened func(key string) error
		opts   func(*AuditOptions)
		want   []string
	}{
		"lock of one object shorter": {
			shown: func(o *storage.Object) {
				if is(o, IndexName) {
					o.Retention.Until = o.Retention.Until.Add(-time.Second)
				}
			},
			want: []string{violation + CheckLock},
		},
		"lock gone": {
			shown: func(o *storage.Object) { o.Retention = storage.Retention{} },
			want:  []string{violation + CheckLock},
		},
		"lock less firm": {
			terms: func(p *Policy) { p.Lock = storage.Compliance },
			shown: func(o *storage.Object) { o.Retention.Mode = storage.Governance },
			want:  []string{violation + CheckLock},
		},
		"lock longer": {shown: func(o *storage.Object) { o.Retention.Until = o.Retention.Until.AddDate(1, 0, 0) }},
		"lock over": {
			opts:  func(o *AuditOptions) { o.Now = func() time.Time { return time.Now().AddDate(0, 0, 12) } },
			shown: func(o *storage.Object) { o.Retention = storage.Retention{} },
			want:  []string{notice + CheckKeep},
		},
		"lock not to be seen": {
			shown: func(o *storage.Object) {
				o.Retention, o.Denied = storage.Retention{}, []storage.Attribute{storage.AttributeRetention}
			},
			want: []string{violation + CheckLock},
		},
		"lock shorter than the keep": {
			made: func(m *Manifest) { m.Kept.RetainUntil = m.Kept.KeepUntil.Add(-time.Hour) },
			want: []string{notice + CheckLock},
		},
		"held by the policy, and not": {
			terms: func(p *Policy) { p.LegalHold = true },
			shown: func(o *storage.Object) { o.LegalHold = is(o, ManifestName) },
			want:  []string{violation + CheckHold},
		},
		"held by the policy": {terms: func(p *Policy) { p.LegalHold = true }},
		"held by the policy, not to be seen": {
			terms: func(p *Policy) { p.LegalHold = true },
			shown: func(o *storage.Object) {
				o.LegalHold, o.Denied = false, []storage.Attribute{storage.AttributeLegalHold}
			},
			want: []string{violation + CheckHold},
		},
		"held, by nobody's word": {
			shown: func(o *storage.Object) { o.LegalHold = is(o, DumpName) },
			want:  []string{notice + CheckHold},
		},
		"held by a record, released behind its back": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				auditRecord(t, b, m.ID, RecordHold, HoldReleased, 3, nil)
				auditRecord(t, b, m.ID, RecordHold, HoldSet, 2, nil)
			},
			want: []string{violation + CheckHold},
		},
		"released by a record": {
			terms: func(p *Policy) { p.LegalHold = true },
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				auditRecord(t, b, m.ID, RecordHold, HoldReleased, 2, nil)
			},
			shown: func(o *storage.Object) { o.LegalHold = false },
		},
		"not encrypted": {
			shown: func(o *storage.Object) {
				if is(o, GlobalsName) {
					o.Encryption = storage.Encryption{}
				}
			},
			want: []string{violation + CheckEncryption},
		},
		"a tag gone": {
			shown: func(o *storage.Object) { delete(o.Tags, TagRole) },
			want:  []string{violation + CheckTags},
		},
		"a tag changed": {
			shown: func(o *storage.Object) { o.Tags["owner"] = "nobody" },
			want:  []string{violation + CheckTags},
		},
		"tags not to be seen": {
			shown: func(o *storage.Object) { o.Tags, o.Denied = nil, []storage.Attribute{storage.AttributeTags} },
			want:  []string{notice + CheckTags},
		},
		"another class": {
			shown: func(o *storage.Object) {
				if is(o, DumpName) {
					o.StorageClass = "GLACIER"
				}
			},
			want: []string{violation + CheckClass},
		},
		"dump gone": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) { destroy(t, b, m.Objects.Dump.Key) },
			want:  []string{violation + CheckObjects},
		},
		"globals gone": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) { destroy(t, b, m.Objects.Globals.Key) },
			want:  []string{violation + CheckObjects},
		},
		"index of another size": {
			shown: func(o *storage.Object) {
				if is(o, IndexName) {
					o.Size++
				}
			},
			want: []string{violation + CheckObjects},
		},
		"another checksum": {
			shown: func(o *storage.Object) {
				if is(o, DumpName) {
					o.Checksum.Value = "AAAAAA=="
				}
			},
			want: []string{violation + CheckObjects},
		},
		"dump replaced": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				destroy(t, b, m.Objects.Dump.Key)
				o := m.Kept.Policy
				k := keeper{bucket: b, policy: o}
				opts, err := k.options(DumpName, storage.PutOptions{}, m.Finished)
				if err == nil {
					_, err = storage.PutBytes(t.Context(), b, m.Objects.Dump.Key, []byte("dump of a0000002"), opts)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			want: []string{violation + CheckObjects},
		},
		"a second dump beside it": {
			terms: func(p *Policy) { *p = Policy{Keep: p.Keep} },
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				put(t, b, keyOf(m, DumpName+EncryptedSuffix), "x")
			},
			shown: func(o *storage.Object) {
				if is(o, DumpName+EncryptedSuffix) {
					o.Tags = map[string]string{TagPolicy: "sox", TagRole: RoleDump}
				}
			},
			want: []string{notice + CheckObjects},
		},
		"manifest damaged": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				destroy(t, b, m.Key)
				put(t, b, m.Key, "{")
			},
			want: []string{violation + CheckManifest},
		},
		"manifest of a later version": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				destroy(t, b, m.Key)
				put(t, b, m.Key, `{"format": "pgstow/2"}`)
			},
			want: []string{violation + CheckManifest},
		},
		"manifest of another archive": {
			made: func(m *Manifest) { m.ID = "a0000009" },
			want: []string{violation + CheckManifest},
		},
		"manifest not to be read": {
			opened: func(key string) error {
				return &storage.Error{Op: "open", Key: key, Kind: storage.ErrPermission}
			},
			want: []string{violation + CheckManifest},
		},
		"hidden behind a delete marker": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) { cover(t, b, m.Key) },
			want:  []string{notice + CheckVersions},
		},
		"verification failed": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				auditRecord(t, b, m.ID, RecordVerify, ResultPassed, 3, nil)
				auditRecord(t, b, m.ID, RecordVerify, ResultFailed, 2, nil)
			},
			want: []string{violation + CheckVerify},
		},
		"verification failed, then passed": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				auditRecord(t, b, m.ID, RecordVerify, ResultFailed, 3, nil)
				auditRecord(t, b, m.ID, RecordVerify, ResultPassed, 2, nil)
			},
		},
		"drill failed": {
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				auditRecord(t, b, m.ID, RecordDrill, ResultFailed, 2, nil)
			},
			want: []string{violation + CheckDrill},
		},
		"a record of another manifest, and one that is damaged": {
			terms: func(p *Policy) { *p = Policy{} },
			made:  func(m *Manifest) { m.Kept = nil },
			after: func(t *testing.T, b *storagetest.Memory, m *Manifest) {
				r := Record{Kind: RecordDrill, ManifestSHA256: strings.Repeat("1", 64), By: "x", Result: ResultPassed, Pgstow: "test"}
				if _, err := putRecord(t.Context(), b, resolved(t, b, m.ID), r, nil, nil, nil, auditNow()); err != nil {
					t.Fatal(err)
				}
				put(t, b, keyOf(m, newRecordName(RecordVerify, auditNow())), "{")
			},
			want: []string{notice + CheckDrill, notice + CheckVerify},
		},
		"no evidence": {
			made: func(m *Manifest) { m.Evidence, m.EvidenceReason = EvidenceNone, "INSERTs" },
			want: []string{notice + CheckEvidence},
		},
		"a manifest that claims another day": {
			made: func(m *Manifest) { m.Finished = m.Finished.AddDate(0, 0, -7) },
			want: []string{notice + CheckClock},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := lockable()
			terms := auditTerms()
			if c.terms != nil {
				c.terms(&terms)
			}
			m := auditArchive(t, b, "orders", "a0000001", 1, terms, c.made)
			if c.after != nil {
				c.after(t, b, m)
			}
			var seen storage.Bucket = b
			if c.shown != nil {
				seen = altered{b, c.shown}
			}
			if c.opened != nil {
				seen = hooked{b, func(op, key string) error {
					if op == "open" {
						return c.opened(key)
					}
					return nil
				}}
			}
			res := auditOf(t, seen, c.opts)
			wantFindings(t, res, c.want...)
			if len(res.Databases) != 1 || len(res.Databases[0].Archives) != 1 {
				t.Errorf("%+v", res.Databases)
			}
		})
	}
}

// destroy removes all of a key, as somebody could whom no lock keeps from it.
func destroy(t testing.TB, b *storagetest.Memory, key string) {
	t.Helper()
	for o, err := range b.List(t.Context(), storage.ListOptions{Prefix: key, Versions: true}) {
		if err != nil {
			t.Fatal(err)
		}
		b.Destroy(o.Key, o.Version)
	}
}

// The dump is where its age has brought it, give or take the days that a store
// takes.
func TestAuditClassByAge(t *testing.T) {
	for _, c := range []struct {
		days  int
		class string
		fine  bool
	}{
		{0, "STANDARD_IA", true}, {29, "STANDARD_IA", true}, {29, "GLACIER", false}, {31, "STANDARD_IA", true},
		{31, "GLACIER", true}, {34, "STANDARD_IA", false}, {40, "GLACIER", true}, {40, "DEEP_ARCHIVE", false},
		{91, "GLACIER", true}, {100, "GLACIER", false}, {100, "DEEP_ARCHIVE", true}, {100, "STANDARD", false},
	} {
		b := lockable()
		terms := auditTerms()
		terms.Keep, terms.StorageClass = Period{Years: 1}, "STANDARD_IA"
		terms.Transitions = []Transition{{Period{Days: 30}, "GLACIER"}, {Period{Days: 90}, "DEEP_ARCHIVE"}}
		auditArchive(t, b, "orders", "a0000001", 0, terms, nil)
		res := auditOf(t, altered{b, func(o *storage.Object) {
			if strings.HasSuffix(o.Key, DumpName) {
				o.StorageClass = c.class
			}
		}}, func(o *AuditOptions) { o.Now = func() time.Time { return time.Now().AddDate(0, 0, c.days) } })
		if res.Compliant != c.fine {
			t.Errorf("after %d days in %s: %q", c.days, c.class, findings(res))
		}
	}
}

// Missed archives: by the interval and its tolerance, in the period or before it,
// and not where they may have expired.
func TestAuditMissed(t *testing.T) {
	day := 24
	begun := func(hoursAgo ...int) func(*AuditOptions) {
		return func(o *AuditOptions) {
			for i, ago := range hoursAgo {
				d := Dir{Policy: "sox", Label: "orders", Time: auditNow().Add(time.Duration(-ago) * time.Hour), ID: fmt.Sprintf("b%07d", i)}
				put(t, o.Bucket, d.Key(GlobalsName), "x")
			}
		}
	}
	for name, c := range map[string]struct {
		ago  []int // hours
		keep Period
		opts func(*AuditOptions)
		gaps string
		want []string
	}{
		"each night":               {ago: []int{72, 48, 24, 1}, gaps: "[]"},
		"late, within tolerance":   {ago: []int{72, 48, 18}, gaps: "[]"},
		"one missed":               {ago: []int{96, 48, 24}, gaps: "[1]", want: []string{"violation every"}},
		"a week missed":            {ago: []int{200, 32, 8}, gaps: "[6]", want: []string{"violation every"}},
		"none since":               {ago: []int{96, 72}, gaps: "[3 open]", want: []string{"violation every"}},
		"before the period":        {ago: []int{35 * day, 33 * day, 32 * day, 31*day - 1}, keep: Period{Years: 1}, gaps: "[1 notice 30 open]", want: []string{"notice every", "violation every"}},
		"expired meanwhile":        {ago: []int{30 * day, 6*day + 2, 5 * day, 4 * day, 3 * day, 2 * day, 24, 1}, keep: Period{Days: 7}, gaps: "[]", want: []string{"notice keep"}},
		"expired in part":          {ago: []int{30 * day, 3 * day, 2 * day, 24, 1}, keep: Period{Days: 7}, gaps: "[3]", want: []string{"notice keep", "violation every"}},
		"a part stands for no day": {ago: []int{48, -24, 1}, gaps: "[1]", want: []string{"violation every"}},
		"nothing":                  {gaps: "[]", want: []string{"violation every"}},
		"not asked for":            {ago: []int{96, 72}, gaps: "[]", opts: func(o *AuditOptions) { o.Databases = nil }},
		"one under way":            {ago: []int{32}, gaps: "[]", want: []string{"notice every"}, opts: begun(4)},
		"one under way too late":   {ago: []int{40}, gaps: "[1 open]", want: []string{"violation every"}, opts: begun(1)},
		"failed each night":        {ago: []int{73}, gaps: "[3 open]", want: []string{"violation every"}, opts: begun(49, 25, 1)},
		"the first one":            {gaps: "[]", opts: begun(1)},
	} {
		t.Run(name, func(t *testing.T) {
			b := lockable()
			terms := auditTerms()
			if !c.keep.IsZero() {
				terms.Keep = c.keep
			}
			for i, ago := range c.ago {
				auditArchive(t, b, "orders", fmt.Sprintf("a%07d", i), max(ago, -ago), terms, func(m *Manifest) {
					if ago < 0 {
						m.Tools.PgDumpArgs = []string{"--table=x"}
					}
				})
			}
			res := auditOf(t, altered{b, func(o *storage.Object) { o.Created = time.Time{} }}, func(o *AuditOptions) {
				o.Databases = []AuditDatabase{{Label: "orders", Every: 24 * time.Hour}}
				if c.opts != nil {
					c.opts(o)
				}
			})
			wantFindings(t, res, c.want...)
			gaps := []string{}
			for _, d := range res.Databases {
				for _, g := range d.Gaps {
					gaps = append(gaps, strings.TrimSpace(fmt.Sprintf("%d%s%s", g.Missed, map[bool]string{false: " notice"}[g.Violation], map[bool]string{true: " open"}[g.Open])))
				}
			}
			if got := fmt.Sprint(gaps); got != c.gaps {
				t.Errorf("gaps %s, want %s", got, c.gaps)
			}
		})
	}
}

// The age of the last passed verification and drill is the label's.
func TestAuditProofsGrowOld(t *testing.T) {
	for name, c := range map[string]struct {
		verified int // hours ago, 0 never
		first    int
		want     []string
	}{
		"in time":                     {30, 400, nil},
		"too old":                     {60, 400, []string{"violation verify"}},
		"never, and the label is old": {0, 400, []string{"violation verify"}},
		"never, and it is young":      {0, 40, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := lockable()
			terms := auditTerms()
			terms.Keep = Period{Years: 1}
			auditArchive(t, b, "orders", "a0000001", c.first, terms, nil)
			auditArchive(t, b, "orders", "a0000002", 1, terms, nil)
			if c.verified > 0 {
				auditRecord(t, b, "a0000001", RecordVerify, ResultPassed, c.verified, nil)
			}
			res := auditOf(t, altered{b, func(o *storage.Object) { o.Created = time.Time{} }}, func(o *AuditOptions) {
				o.Databases = []AuditDatabase{{Label: "orders", VerifyEvery: Period{Days: 2}}}
			})
			wantFindings(t, res, c.want...)
		})
	}
}

// Only what looked at everything keeps verify-every and drill-every, unless the
// policy lets a part count; and what failed in full is not mended by less.
func TestAuditOfParts(t *testing.T) {
	b := lockable()
	terms := auditTerms()
	terms.Keep = Period{Years: 1}
	m := auditArchive(t, b, "orders", "a0000001", 100, terms, nil)
	quick := func(r *Record) { r.Verify.Mode = ModeQuick }
	part := func(r *Record) { r.Drill.Part = &DrillPart{} }
	auditRecord(t, b, m.ID, RecordVerify, ResultPassed, 2, quick)
	auditRecord(t, b, m.ID, RecordDrill, ResultPassed, 2, part)
	audit := func(parts bool) *AuditResult {
		return auditOf(t, altered{b, func(o *storage.Object) { o.Created = time.Time{} }}, func(o *AuditOptions) {
			o.Databases = []AuditDatabase{{Label: "orders", VerifyEvery: Period{Days: 2}, DrillEvery: Period{Days: 2}, DrillPart: parts}}
		})
	}
	wantFindings(t, audit(false), "violation drill", "violation verify")
	wantFindings(t, audit(true), "violation verify")
	auditRecord(t, b, m.ID, RecordDrill, ResultPassed, 1, func(r *Record) { r.Drill.Sample = &DrillSample{} })
	wantFindings(t, audit(false), "violation drill", "violation verify")
	auditRecord(t, b, m.ID, RecordVerify, ResultFailed, 1, nil)
	auditRecord(t, b, m.ID, RecordVerify, ResultPassed, 0, quick)
	wantFindings(t, audit(true), "violation verify", "violation verify")
}

// What the signatures of manifests and records are worth.
func TestAuditSignatures(t *testing.T) {
	key, other := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	ours := Trust{Signers: allowed(t, "pgstow@db1 "+publicText(t, key))}
	strict := ours
	strict.Require = true
	for name, c := range map[string]struct {
		signer string
		change func(sig []byte) []byte
		trust  Trust
		state  string
		want   []string
	}{
		"valid":                    {key, nil, strict, SignatureValid, nil},
		"nobody said whose count":  {key, nil, Trust{}, SignatureUnjudged, nil},
		"unsigned":                 {"", nil, ours, SignatureUnsigned, nil},
		"unsigned, and it must be": {"", nil, strict, SignatureUnsigned, []string{"violation signature"}},
		"another's key":            {other, nil, ours, SignatureUntrusted, []string{"notice signature"}},
		"another's key, refused":   {other, nil, strict, SignatureUntrusted, []string{"violation signature"}},
		"damaged":                  {key, func(sig []byte) []byte { return flip(sig, len(sig)/2) }, Trust{}, SignatureInvalid, []string{"violation signature"}},
		"empty":                    {key, func([]byte) []byte { return nil }, Trust{}, SignatureInvalid, []string{"violation signature"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := lockable()
			terms := Policy{}
			m := auditArchive(t, b, "orders", "a0000001", 1, terms, func(m *Manifest) { m.Kept = nil })
			if c.signer != "" {
				raw, err := readSmall(t.Context(), b, m.Key, "", maxManifest)
				if err != nil {
					t.Fatal(err)
				}
				sig, err := openKey(t, c.signer).Sign(raw)
				if err != nil {
					t.Fatal(err)
				}
				if c.change != nil {
					sig = c.change(sig)
				}
				put(t, b, keyOf(m, SignatureName), string(sig))
			}
			res := auditOf(t, b, func(o *AuditOptions) { o.Trust = c.trust })
			wantFindings(t, res, c.want...)
			if got := res.Databases[0].Archives[0].Signature; got.State != c.state {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("records", func(t *testing.T) {
		b := lockable()
		m := auditArchive(t, b, "orders", "a0000001", 30, auditTerms(), nil)
		auditRecord(t, b, m.ID, RecordVerify, ResultPassed, 1, nil)
		res := auditOf(t, altered{b, func(o *storage.Object) { o.Created = time.Time{} }}, func(o *AuditOptions) {
			o.Trust, o.Databases = strict, []AuditDatabase{{Label: "orders", VerifyEvery: Period{Days: 1}}}
		})
		wantFindings(t, res, "violation signature", "notice verify", "violation verify")
	})
	t.Run("the configuration asks for more", func(t *testing.T) {
		b := lockable()
		auditArchive(t, b, "orders", "a0000001", 20, auditTerms(), nil)
		auditArchive(t, b, "orders", "a0000002", 1, auditTerms(), nil)
		res := auditOf(t, b, func(o *AuditOptions) { o.Databases = []AuditDatabase{{Label: "orders", Signed: true, Sealed: true}} })
		wantFindings(t, res, "violation policy", "notice policy")
	})
}

// An archive that a later one names is missed when it vanishes before its time,
// and when it is replaced.
func TestAuditChain(t *testing.T) {
	for name, c := range map[string]struct {
		sha256 string
		keep   int // days from now
		gone   bool
		want   []string
	}{
		"there":                {"", 9, false, nil},
		"vanished":             {"", 9, true, []string{"violation chain"}},
		"gone when it was due": {"", -1, true, nil},
		"replaced":             {strings.Repeat("1", 64), 9, false, []string{"violation chain"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := lockable()
			old := auditArchive(t, b, "orders", "a0000001", 20, auditTerms(), nil)
			raw, err := readSmall(t.Context(), b, old.Key, "", maxManifest)
			if err != nil {
				t.Fatal(err)
			}
			auditArchive(t, b, "orders", "a0000002", 1, auditTerms(), func(m *Manifest) {
				m.Previous = &Previous{Archives: []Predecessor{{ID: old.ID, SHA256: cmp.Or(c.sha256, hexSum(raw)), KeepUntil: auditNow().AddDate(0, 0, c.keep)}}}
			})
			if c.gone {
				for _, o := range statAll(t, b, old.ID) {
					destroy(t, b, o.Key)
				}
			}
			wantFindings(t, auditOf(t, b, nil), c.want...)
		})
	}
}

// The newest archive is held against the configuration, those before are not.
func TestAuditAgainstTheConfiguration(t *testing.T) {
	b := lockable()
	auditArchive(t, b, "orders", "a0000001", 20, auditTerms(), nil)
	auditArchive(t, b, "orders", "a0000002", 1, auditTerms(), nil)
	want := auditTerms()
	want.Name = "sox"
	audit := func(change func(*Policy)) *AuditResult {
		p := want
		change(&p)
		return auditOf(t, altered{b, func(o *storage.Object) { o.Created = time.Time{} }}, func(o *AuditOptions) {
			o.Databases = []AuditDatabase{{Label: "orders", Policy: &p}}
		})
	}
	wantFindings(t, audit(func(p *Policy) { p.Keep = Period{Days: 5}; p.Lock = storage.LockNone; p.Tags = nil }))
	for name, change := range map[string]func(*Policy){
		"name": func(p *Policy) { p.Name = "other" }, "keep": func(p *Policy) { p.Keep = Period{Days: 11} },
		"lock": func(p *Policy) { p.Lock = storage.Compliance }, "hold": func(p *Policy) { p.LegalHold = true },
		"encryption": func(p *Policy) { p.Encryption.Mode = storage.EncryptionKMS },
		"class":      func(p *Policy) { p.StorageClass = "GLACIER" },
		"tags":       func(p *Policy) { p.Tags = map[string]string{"owner": "sales"} },
	} {
		t.Run(name, func(t *testing.T) {
			wantFindings(t, audit(change), "violation policy", "notice policy")
		})
	}
}

// What failed runs and interrupted expiries have left is told of, and so are
// unfinished uploads; what may be under way is not.
func TestAuditOrphans(t *testing.T) {
	b := lockable()
	later := func(o *AuditOptions) { o.Now = func() time.Time { return time.Now().Add(48 * time.Hour) } }
	d := Dir{Policy: "sox", Label: "orders", Time: auditNow(), ID: "a0000001"}
	locked := storage.PutOptions{Retention: storage.Retention{Mode: storage.Governance, Until: in(24 * 9)}}
	if _, err := storage.PutBytes(t.Context(), b, d.Key(DumpName), []byte("dump"), locked); err != nil {
		t.Fatal(err)
	}
	expiring := Dir{Policy: "sox", Label: "orders", Time: auditNow(), ID: "a0000002"}
	put(t, b, expiring.Key(DumpName), "dump")
	put(t, b, expiring.Key(newRecordName(RecordExpire, auditNow())), "{}")
	up := Dir{Policy: "sox", Label: "orders", Time: auditNow(), ID: "a0000003"}
	begun := &sweeper{Bucket: b, uploads: []storage.Upload{
		{Key: up.Key(DumpName), Initiated: auditNow(), Newest: auditNow(), Size: 5}, {Key: "somebody/else's", Initiated: auditNow()},
	}}
	res := auditOf(t, begun, later)
	wantFindings(t, res, "notice orphan", "notice orphan", "notice upload")
	if len(res.Orphans) != 2 || !res.Orphans[0].LockedUntil.Equal(locked.Retention.Until) || !res.Orphans[1].Expiring || len(res.Uploads) != 1 {
		t.Errorf("%+v, %+v", res.Orphans, res.Uploads)
	}
	res = auditOf(t, begun, nil)
	wantFindings(t, res)
	if len(res.Orphans) != 2 || !res.Orphans[0].Young || !res.Uploads[0].Young {
		t.Errorf("%+v, %+v", res.Orphans, res.Uploads)
	}
}

// A rule that would delete archives before their keep is over is a violation,
// whoever wrote it.
func TestAuditLifecycleRules(t *testing.T) {
	expire := func(days int) []storage.LifecycleAction {
		return []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Days: days, Clock: storage.LifecycleSinceCreation}}
	}
	for name, c := range map[string]struct {
		rule storage.LifecycleRule
		want []string
	}{
		"a stranger's, sooner": {storage.LifecycleRule{ID: "theirs", Actions: expire(18)}, []string{"violation lifecycle"}},
		"a stranger's, later":  {storage.LifecycleRule{ID: "theirs", Actions: expire(19)}, nil},
		"a stranger's, made before": {storage.LifecycleRule{ID: "theirs", Actions: []storage.LifecycleAction{{
			Kind: storage.LifecycleExpire, Before: time.Now().Add(-time.Minute), Clock: storage.LifecycleSinceCreation,
		}}}, []string{"violation lifecycle"}},
		"a stranger's, elsewhere": {storage.LifecycleRule{ID: "theirs", Filter: storage.LifecycleFilter{Prefixes: []string{"logs/"}}, Actions: expire(1)}, nil},
		"ours, of a shorter keep": {storage.LifecycleRule{ID: LifecycleID("pg/", "sox", kindExpire), Filter: storage.LifecycleFilter{Prefixes: []string{"pg/sox/"}}, Actions: expire(9)}, []string{"violation lifecycle"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := storage.Prefixed(newRuled(t, s3Rules, c.rule), "pg/")
			terms := auditTerms()
			terms.Lock = storage.LockNone
			auditArchive(t, b, "orders", "a0000001", 1, terms, nil)
			res := auditOf(t, b, nil)
			var got []string
			for _, f := range findings(res) {
				if strings.HasPrefix(f, SeverityViolation) {
					got = append(got, f)
				}
			}
			if !slices.Equal(got, c.want) || res.Rules != RulesJudged {
				t.Errorf("%q, rules %s, want %q", findings(res), res.Rules, c.want)
			}
		})
	}
}

// The heads of the last audit are found again, or missed until their time is
// over; the file that carries them survives a round trip and nothing else.
func TestAuditCheckpoint(t *testing.T) {
	b := lockable()
	auditArchive(t, b, "orders", "a0000001", 20, auditTerms(), nil)
	newest := auditArchive(t, b, "orders", "a0000002", 1, auditTerms(), nil)
	first := auditOf(t, b, nil)
	c := &Checkpoint{Time: auditNow(), Buckets: map[string][]AuditHead{"memory:///": first.Heads}}
	raw, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	read, err := DecodeCheckpoint(raw)
	if err != nil {
		t.Fatal(err)
	}
	heads := func(h []AuditHead) func(*AuditOptions) { return func(o *AuditOptions) { o.Heads = h } }
	wantHeads := read.Buckets["memory:///"]
	wantFindings(t, auditOf(t, b, heads(wantHeads)))

	replaced := slices.Clone(wantHeads)
	replaced[0].ManifestSHA256 = strings.Repeat("1", 64)
	wantFindings(t, auditOf(t, b, heads(replaced)), "violation checkpoint")

	for _, o := range statAll(t, b, "a0000002") {
		destroy(t, b, o.Key)
	}
	gone := auditOf(t, b, heads(wantHeads))
	wantFindings(t, gone, "violation checkpoint")
	if len(gone.Heads) != 2 || gone.Heads[0].ID != "a0000001" || gone.Heads[1].ID != "a0000002" || gone.Heads[1].Missing.IsZero() {
		t.Fatalf("%+v", gone.Heads)
	}
	again := auditOf(t, b, heads(gone.Heads))
	wantFindings(t, again, "violation checkpoint")
	other := auditOf(t, b, func(o *AuditOptions) { o.Heads, o.Name = gone.Heads, "lab" })
	wantFindings(t, other)
	if len(other.Heads) != 2 {
		t.Errorf("heads of what was not looked at: %+v", other.Heads)
	}
	over := auditOf(t, b, func(o *AuditOptions) {
		o.Heads, o.Now = gone.Heads, func() time.Time { return newest.Kept.KeepUntil.Add(time.Hour) }
	})
	wantFindings(t, over, "notice keep")
	if len(over.Heads) != 1 {
		t.Errorf("%+v", over.Heads)
	}

	for _, bad := range [][]byte{nil, raw[:len(raw)/2], bytes.Replace(raw, []byte("a0000002"), []byte("../../et"), 1), []byte(`{"format":"pgstow/1"}`)} {
		if _, err := DecodeCheckpoint(bad); !errors.Is(err, ErrIntegrity) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	if _, err := DecodeCheckpoint([]byte(`{"format":"pgstow-checkpoint/2"}`)); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

// On every store that locks: what Archive asks for is found as it was promised, and
// what somebody hides is told of.
func TestAuditOnStores(t *testing.T) {
	for name, open := range lockingStores() {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() { b.Close() })
			b = storage.Prefixed(b, "team/")
			terms := Policy{Keep: Period{Days: 1}, Lock: storage.Governance, LegalHold: true, Tags: map[string]string{"owner": "finance"}}
			if !b.Capabilities().Tags {
				terms.Tags = nil
			}
			m := auditArchive(t, b, "orders", "a0000001", 0, terms, nil)
			auditRecord(t, b, m.ID, RecordVerify, ResultPassed, 0, nil)
			res := auditOf(t, b, nil)
			wantFindings(t, res)
			switch err := b.Delete(t.Context(), m.Key, ""); {
			case errors.Is(err, storage.ErrLocked): // GCS hides nothing that is locked
			case err != nil:
				t.Fatal(err)
			default:
				res = auditOf(t, b, nil)
				wantFindings(t, res, "notice versions")
			}
			if a := res.Databases[0].Archives[0]; a.Lock != a.Promised || a.Lock.Mode != storage.Governance || !a.LegalHold {
				t.Errorf("%+v", a)
			}
		})
	}
}

// More than a few notices of a kind under one label are one, which says how many.
func TestAuditManyNotices(t *testing.T) {
	b := lockable()
	for i := range noticesShown + 1 {
		auditArchive(t, b, "orders", fmt.Sprintf("a%07d", i), 20-i, auditTerms(), func(m *Manifest) { m.Evidence, m.EvidenceReason = EvidenceNone, "INSERTs" })
	}
	auditArchive(t, b, "lab", "b0000000", 1, auditTerms(), func(m *Manifest) { m.Evidence = EvidenceNone })
	res := auditOf(t, b, nil)
	wantFindings(t, res, "notice evidence", "notice evidence")
	if f := res.Findings[1]; f.Archive != "a0000005" || !strings.HasPrefix(f.Text, "6 archives, ") || res.Databases[1].Archives[0].Notices != 1 {
		t.Errorf("%+v", f)
	}
}

// A store that cannot be asked is an error, never a finding, and never a
// compliant bucket.
func TestAuditStoreFails(t *testing.T) {
	memory := lockable()
	auditArchive(t, memory, "orders", "a0000001", 1, auditTerms(), nil)
	auditRecord(t, memory, "a0000001", RecordVerify, ResultPassed, 1, nil)
	count := &faultyBucket{Memory: memory}
	if _, err := Audit(t.Context(), AuditOptions{Bucket: count}); err != nil {
		t.Fatal(err)
	}
	calls := count.calls
	for at := 1; at <= calls; at++ {
		f := &faultyBucket{Memory: memory, mode: refused, at: at}
		res, err := Audit(t.Context(), AuditOptions{Bucket: f})
		if !errors.Is(err, storage.ErrUnavailable) || res != nil {
			t.Errorf("%s: %v, %v", f.last, res, err)
		}
	}
	// One listing of objects, one reading of the manifest and of the record, and
	// one question for each object.
	if want := 1 + 1 + 1 + 5; calls != want {
		t.Errorf("%d operations, want %d", calls, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Audit(ctx, AuditOptions{Bucket: memory}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
