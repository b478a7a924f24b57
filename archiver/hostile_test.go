package archiver

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// What somebody can do who may put objects into the bucket and holds no key.

// signStored signs the manifest that is stored.
func signStored(t testing.TB, b storage.Bucket, m *Manifest, key string) {
	t.Helper()
	raw, err := readSmall(t.Context(), b, m.Key, "", maxManifest)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := openKey(t, key).Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, keyOf(m, SignatureName), string(sig))
}

// Beside an archive that somebody allowed has signed, a record that nobody has
// signed proves nothing, even where unsigned archives pass for the time being.
func TestForgedRecords(t *testing.T) {
	key := sshKey(t, "ed25519")
	trust := Trust{Signers: allowed(t, "alice "+publicText(t, key))}
	b := lockable()
	terms := auditTerms()
	terms.LegalHold = true
	m := auditArchive(t, b, "orders", "a0000001", 50, terms, nil)
	signStored(t, b, m, key)
	for _, kind := range []string{RecordVerify, RecordDrill} {
		auditRecord(t, b, m.ID, kind, ResultPassed, 1, nil)
	}
	auditRecord(t, b, m.ID, RecordHold, HoldReleased, 1, nil)
	for _, name := range []string{DumpName, ManifestName} {
		o := resolved(t, b, m.ID)
		if err := b.SetLegalHold(t.Context(), keyOf(m, name), o.version(name), false); err != nil {
			t.Fatal(err)
		}
	}
	want := AuditDatabase{Label: "orders", VerifyEvery: Period{Days: 1}, DrillEvery: Period{Days: 1}}
	res := auditOf(t, b, func(o *AuditOptions) { o.Trust, o.Databases = trust, []AuditDatabase{want} })
	got := strings.Join(findings(res), "\n")
	for _, f := range []string{"violation verify", "violation drill", "violation hold", "notice hold"} {
		if !strings.Contains(got, f) {
			t.Errorf("no %s in\n%s", f, got)
		}
	}
	for _, f := range res.Findings { // nobody has changed them
		if f.Severity == SeverityNotice && f.Check != "clock" && (!strings.Contains(f.Text, "is not signed and does not count") || strings.Contains(f.Do, "who changed it")) {
			t.Errorf("%s: %s; %s", f.Check, f.Text, f.Do)
		}
	}
}

// Records that prove nothing, however many and however new, do not hide the one
// that says that the archive is damaged.
func TestAuditFindsFailureBelowForgedRecords(t *testing.T) {
	key := sshKey(t, "ed25519")
	b := lockable()
	m := auditArchive(t, b, "orders", "a0000001", 50, auditTerms(), nil)
	signStored(t, b, m, key)
	e := resolved(t, b, m.ID)
	_, raw, err := readManifest(t.Context(), b, e)
	if err != nil {
		t.Fatal(err)
	}
	failed := Record{Kind: RecordVerify, ManifestSHA256: hexSum(raw), By: "alice@host", Result: ResultFailed, Pgstow: "test", Verify: &VerifyFacts{Mode: ModeFull}}
	if _, err := putRecord(t.Context(), b, e, failed, openKey(t, key), nil, nil, auditNow().Add(-40*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for range recordsRead + 1 {
		auditRecord(t, b, m.ID, RecordVerify, ResultPassed, 1, nil)
	}
	res := auditOf(t, b, func(o *AuditOptions) { o.Trust.Signers = allowed(t, "alice "+publicText(t, key)) })
	if got := strings.Join(findings(res), "\n"); !strings.Contains(got, "violation verify") {
		t.Errorf("found\n%s", got)
	}
}

// A policy that asks for signatures is not satisfied by anybody's.
func TestAuditWantsSignaturesThatCount(t *testing.T) {
	key, mallory := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	b := lockable()
	signStored(t, b, auditArchive(t, b, "orders", "a0000001", 1, Policy{}, func(m *Manifest) { m.Kept = nil }), mallory)
	res := auditOf(t, b, func(o *AuditOptions) {
		o.Trust.Signers = allowed(t, "alice "+publicText(t, key))
		o.Databases = []AuditDatabase{{Label: "orders", Signed: true}}
	})
	wantFindings(t, res, "violation policy", "notice signature")
	res = auditOf(t, b, func(o *AuditOptions) { o.Databases = []AuditDatabase{{Label: "orders", Signed: true}} })
	wantFindings(t, res, "notice policy")
}

// An audit is not told that an archive is under way by what was left of those that
// have failed.
func TestAuditOfRunsThatFailFromTheFirst(t *testing.T) {
	b := newChain()
	for i, hoursAgo := range []int{1, 49} {
		d := Dir{Policy: "sox", Label: "orders", Time: auditNow().Add(time.Duration(-hoursAgo) * time.Hour), ID: chainID(i)}
		put(t, b.Memory, d.Key(GlobalsName), "x")
		b.committed[d.Key(ManifestName)] = d.Time
		var want []string
		if i > 0 {
			want = []string{"notice orphan", "violation every"}
		}
		wantFindings(t, auditOf(t, b, func(o *AuditOptions) {
			o.Databases = []AuditDatabase{{Label: "orders", Every: 24 * time.Hour}}
		}), want...)
	}
}

// An archive that would not be restored stands in for none that would: it makes
// nothing expire. A forged verification does not either.
func TestExpireCountsWhoseSignaturesCount(t *testing.T) {
	key := sshKey(t, "ed25519")
	signers := allowed(t, "alice "+publicText(t, key))
	b := lockable()
	old := putKept(t, b, dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001"), nil, storage.PutOptions{})
	signStored(t, b, old, key)
	newer := putKept(t, b, dirAt(t, "orders", "2026-12-31T01:00:00Z", "a0000002"), nil, storage.PutOptions{})
	opts := expireOptions(b)
	opts.Yes = false
	expires := func(trust Trust, verified bool, want string) {
		t.Helper()
		opts.Trust, opts.RequireVerified = trust, verified
		res, err := Expire(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		wantActions(t, res, map[string]string{"a0000001": want, "a0000002": "kept keep"})
	}
	expires(Trust{Signers: signers, Require: true}, false, "kept keep-last")
	expires(Trust{Signers: signers, Require: true, Ignore: true}, false, ExpireWould)
	expires(Trust{}, false, ExpireWould)

	signStored(t, b, newer, key)
	expires(Trust{Signers: signers, Require: true}, false, ExpireWould)
	e := resolved(t, b, newer.ID)
	_, raw, err := readManifest(t.Context(), b, e)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(s Signer) {
		r := Record{Kind: RecordVerify, ManifestSHA256: hexSum(raw), By: "x", Result: ResultPassed, Pgstow: "test", Verify: &VerifyFacts{Mode: ModeFull}}
		if _, err := putRecord(t.Context(), b, e, r, s, nil, nil, opts.Now()); err != nil {
			t.Fatal(err)
		}
	}
	verify(nil)
	expires(Trust{Signers: signers}, true, "kept unverified")
	verify(openKey(t, key))
	expires(Trust{Signers: signers}, true, ExpireWould)
}

// An archive that nobody's key has signed and that claims to name all before it
// does not make the next one pass over them.
func TestPreviousTakesNoStrangersWord(t *testing.T) {
	ours, mallory := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	c := newChain()
	night := timeOf(t, "2026-01-01T01:00:00Z")
	run := func(id string, day int, key string, previous *Previous) {
		t.Helper()
		began := night.AddDate(0, 0, day)
		c.run(t, id, began, began.Add(time.Minute), 365, previous)
		if key == "" {
			return
		}
		for _, e := range c.entries(t) {
			if e.ID == id {
				signStored(t, c.Memory, e.Manifest, key)
			}
		}
	}
	named := func(day int, key string) []string {
		t.Helper()
		p, err := readPrevious(t.Context(), c, "orders", key, night.AddDate(0, 0, day))
		if err != nil {
			t.Fatal(err)
		}
		return namedIDs(p)
	}
	own := openKey(t, ours).Fingerprint()
	run("a0000001", 0, ours, &Previous{})
	run("a0000002", 1, ours, &Previous{Archives: []Predecessor{{ID: "a0000001", SHA256: strings.Repeat("a", 64)}}})
	if got := named(2, own); !slices.Equal(got, []string{"a0000002"}) {
		t.Errorf("in order: %v", got)
	}
	claim := &Previous{Archives: []Predecessor{{ID: "a0000002", SHA256: strings.Repeat("a", 64)}}}
	run("e0000001", 2, "", claim)
	run("e0000002", 3, mallory, claim)
	if got := named(4, own); !slices.Equal(got, []string{"a0000002", "e0000001", "e0000002"}) {
		t.Errorf("after strangers: %v", got)
	}
	if len(c.opened) > 40 {
		t.Errorf("read %v", c.opened)
	}
}

// An encrypted archive, whose manifest hides the values of pg_dump's options, stands
// for its night.
func TestAuditOfSealedWithOptions(t *testing.T) {
	want := []string{"--exclude-table-data=public.cache", "--no-comments"}
	for name, c := range map[string]struct {
		sealed bool
		args   []string
		whole  bool
	}{
		"no options":             {true, nil, true},
		"encrypted":              {true, hideValues(want), true},
		"plain":                  {false, want, true},
		"encrypted, another one": {true, hideValues([]string{"--exclude-table-data=public.other", "--no-comments"}), false},
		"plain, another one":     {false, []string{"--exclude-table-data=public.other", "--no-comments"}, false},
		"plain, hidden":          {false, hideValues(want), false},
	} {
		a := &audited{AuditedArchive: AuditedArchive{Sealed: c.sealed}, args: c.args}
		if got := a.isWhole(want); got != c.whole {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// absentSigner is an agent that has gone when it is asked.
type absentSigner struct {
	Signer
	asked int
}

var errNoAgent = errors.New("ask the SSH agent: connection refused")

func (s *absentSigner) Sign([]byte) ([]byte, error) {
	s.asked++
	return nil, errNoAgent
}

// Without a signature there is no archive: what was stored goes, or what a lock
// keeps is told of and listed as no archive. A dump that fails is never signed.
func TestNoArchiveWithoutItsSignature(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	key := openKey(t, sshKey(t, "ed25519"))
	for name, to := range map[string]Recipients{"plain": {}, "encrypted": recipients(t, newKeys(t, "age").recipient)} {
		for _, lock := range []storage.LockMode{storage.LockNone, storage.Compliance} {
			t.Run(name+" "+string(lock), func(t *testing.T) {
				b, s := lockable(), &absentSigner{Signer: key}
				opts := ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), Pgstow: "test", Signer: s, Recipients: to}
				if lock != storage.LockNone {
					opts.Policy = Policy{Name: "sox", Keep: Period{Days: 30}, Lock: lock}
				}
				failing := opts
				failing.DumpArgs = []string{"--table=not_there"}
				if _, err := Archive(t.Context(), failing); err == nil || errors.Is(err, errNoAgent) || s.asked > 0 {
					t.Errorf("a dump that fails: %v, the agent was asked %d times", err, s.asked)
				}
				res, err := Archive(t.Context(), opts)
				oneLiner(t, err)
				if res != nil || !errors.Is(err, errNoAgent) || s.asked != 1 {
					t.Errorf("%+v, %v", res, err)
				}
				entries := listed(t, b)
				if len(entries) > 0 {
					t.Errorf("listed are %+v", entries)
				}
				var left *LeftoverError
				if kept := errors.As(err, &left); kept != (lock != storage.LockNone) || kept && len(left.Keys) < 2 {
					t.Errorf("left are %+v", left)
				}
				if lock == storage.LockNone {
					nothingLeft(t, b)
				}
			})
		}
	}
}
