package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// signedArchive is an archive of db that signer has signed, made at a time that
// it claims itself.
func signedArchive(t testing.TB, pg *testenv.Cluster, db string, b storage.Bucket, s Signer, at time.Time) *Manifest {
	t.Helper()
	now := func() time.Time { return at }
	if at.IsZero() {
		now = nil
	}
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Name: "orders", Pgstow: "test", Signer: s, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return res.Manifest
}

// Whose signature counts is decided before anything else: what is refused gives
// not one byte to the output, and nothing but manifest and signature is read.
func TestRestoreJudgesSignatures(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	alice, mallory := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	source := storagetest.NewMemory(storagetest.MemoryOptions{})
	claimed := time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC)
	m := signedArchive(t, pg, db, source, openKey(t, alice), claimed)
	earlier := signedArchive(t, pg, db, source, openKey(t, alice), claimed.AddDate(0, 0, -1))
	whole := content(t, source)
	sig := keyOf(m, SignatureName)
	aliceLine := "alice@example.com " + publicText(t, alice)
	with := func(options string) string { return "alice@example.com " + options + " " + publicText(t, alice) }
	day := func(days int) string { return time.Now().UTC().AddDate(0, 0, days).Format("20060102") + "Z" }
	sign := func(key string, message []byte) []byte {
		armored, err := openKey(t, key).Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		return armored
	}
	inNamespace := func(namespace string) []byte {
		path := writeTemp(t, "m", string(whole[m.Key]))
		if out, err := sshKeygen(t, nil, "-q", "-Y", "sign", "-f", alice, "-n", namespace, path); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		raw, err := os.ReadFile(path + ".sig")
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}

	for name, c := range map[string]struct {
		line   string
		change func(all map[string][]byte)
		deny   bool   // the signature cannot be read
		state  string // of the signature; "" when it is not judged
		says   string // when it is refused
		always bool   // it is refused whoever counts
		broken bool   // it cannot be restored even when signatures are ignored
	}{
		"signed":                      {line: aliceLine, state: SignatureValid},
		"one of several":              {line: "bob " + publicText(t, mallory) + "\n" + aliceLine, state: SignatureValid},
		"valid when the store had it": {line: with(`valid-after="` + day(-1) + `",valid-before="` + day(2) + `"`), state: SignatureValid},
		// The manifest says 2020; what counts is when the store created it.
		"expired, not by its own word": {line: with(`valid-before="20210101Z"`), state: SignatureUntrusted, says: "valid only before 2021-01-01T00:00:00Z"},
		"expired":                      {line: with(`valid-before="` + day(-1) + `"`), state: SignatureUntrusted, says: "valid only before"},
		"valid later":                  {line: with(`valid-after="` + day(3) + `"`), state: SignatureUntrusted, says: "valid only after"},
		"for something else":           {line: with(`namespaces="git"`), state: SignatureUntrusted, says: "allowed for git, not for pgstow"},
		"nobody": {line: aliceLine, change: func(all map[string][]byte) { delete(all, sig) },
			state: SignatureUnsigned, says: "nobody has signed it"},
		"somebody else": {line: aliceLine, change: func(all map[string][]byte) { all[sig] = sign(mallory, all[m.Key]) },
			state: SignatureUntrusted, says: "not among the allowed signers"},
		"of other bytes": {line: aliceLine, change: func(all map[string][]byte) { all[sig] = all[keyOf(earlier, SignatureName)] },
			state: SignatureInvalid, says: "it is not of these bytes", always: true},
		"the manifest changed": {line: aliceLine, change: func(all map[string][]byte) {
			all[m.Key] = bytes.Replace(all[m.Key], []byte(`"pgstow": "test"`), []byte(`"pgstow": "evil"`), 1)
		}, state: SignatureInvalid, says: "it is not of these bytes", always: true},
		"another namespace": {line: aliceLine, change: func(all map[string][]byte) { all[sig] = inNamespace("git") },
			state: SignatureUntrusted, says: `it was made for "git", not for pgstow`},
		"no signature": {line: aliceLine, change: func(all map[string][]byte) { all[sig] = []byte("hello") },
			state: SignatureInvalid, says: "no SSH signature", always: true},
		"an empty one": {line: aliceLine, change: func(all map[string][]byte) { all[sig] = nil },
			state: SignatureInvalid, says: "is empty", always: true},
		"a huge one": {line: aliceLine, change: func(all map[string][]byte) { all[sig] = bytes.Repeat([]byte("A"), maxSignature+1) },
			state: SignatureInvalid, says: "more than the expected", always: true},
		"not readable": {line: aliceLine, deny: true, says: "read signature", always: true},
		"an older manifest put back": {line: aliceLine, change: func(all map[string][]byte) {
			all[m.Key], all[sig] = all[earlier.Key], all[keyOf(earlier, SignatureName)]
		}, state: SignatureValid, says: "copied or moved", always: true, broken: true},
		"a manifest of another archive": {line: aliceLine, change: func(all map[string][]byte) {
			for _, name := range []string{DumpName, IndexName, GlobalsName} {
				all[keyOf(m, name)] = all[keyOf(earlier, name)]
			}
			all[m.Key], all[sig] = all[earlier.Key], all[keyOf(earlier, SignatureName)]
		}, state: SignatureValid, says: "copied or moved", always: true, broken: true},
	} {
		t.Run(name, func(t *testing.T) {
			all := maps.Clone(whole)
			if c.change != nil {
				c.change(all)
			}
			var opened []string
			b := hooked{bucketOf(t, all), func(op, key string) error {
				if op == "open" {
					opened = append(opened, key)
				}
				if c.deny && op == "open" && key == sig {
					return &storage.Error{Op: op, Key: key, Kind: storage.ErrPermission}
				}
				return nil
			}}
			restored := func(trust Trust) (*RestoreResult, int, error) {
				var out bytes.Buffer
				opened = nil
				res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Output: &out, Trust: trust})
				oneLiner(t, err)
				return res, out.Len(), err
			}
			class := ErrIntegrity
			if c.deny {
				class = storage.ErrPermission
			}
			refused := func(who string, n int, err error) {
				t.Helper()
				if !errors.Is(err, class) || !strings.Contains(fmt.Sprint(err), c.says) || n > 0 {
					t.Errorf("%s: %d bytes and %v", who, n, err)
				}
				for _, key := range opened {
					if key != m.Key && key != sig {
						t.Errorf("%s: %s was read", who, key)
					}
				}
			}
			signers := allowed(t, c.line)
			res, n, err := restored(Trust{Signers: signers, Require: true})
			if c.says == "" {
				if err != nil || n == 0 || res.Signature.State != c.state || len(res.Warnings) > 0 {
					t.Fatalf("%d bytes, %+v, %v", n, res, err)
				}
				return
			}
			refused("required", n, err)
			if !c.broken && !c.deny && !strings.Contains(err.Error(), "--ignore-signature") {
				t.Errorf("it does not say what to do: %v", err)
			}
			if strings.Contains(err.Error(), "add it to the allowed signers") != strings.Contains(err.Error(), unknownSigner) {
				t.Errorf("a key that was ruled out is not to be added: %v", err)
			}

			// Where others may pass they do, with a word about it.
			res, n, err = restored(Trust{Signers: signers})
			if c.always {
				refused("not required", n, err)
			} else if err != nil || n == 0 || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], c.says) || res.Signature.State != c.state {
				t.Errorf("not required: %d bytes, %+v, %v", n, res, err)
			}
			// Nobody said whose signatures count.
			res, n, err = restored(Trust{})
			if c.always {
				refused("nobody counts", n, err)
			} else if err != nil || n == 0 {
				t.Errorf("nobody counts: %d bytes, %+v, %v", n, res, err)
			}
			res, n, err = restored(Trust{Signers: signers, Require: true, Ignore: true})
			if c.broken {
				refused("ignored", n, err)
			} else if err != nil || n == 0 || len(res.Warnings) != 1 {
				t.Errorf("ignored: %d bytes, %+v, %v", n, res, err)
			}

			// Show and List judge alike.
			if _, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: m.ID, Trust: Trust{Signers: signers, Require: true}}); !errors.Is(err, class) {
				t.Errorf("show: %v", err)
			}
			entries := listed(t, b)
			if err := LoadSigned(t.Context(), b, entries, Trust{Signers: signers}); err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				want := c.state
				if want == "" {
					want = SignatureUnjudged
				}
				if e.ID == m.ID && e.Signature.State != want {
					t.Errorf("listed as %+v", e.Signature)
				}
			}
		})
	}
}

// In a versioned bucket later manifests and signatures change nothing, whoever
// signed them, and a key's validity is judged by the oldest.
func TestSignatureOfTheOldestVersion(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	alice, mallory := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	b := lockable()
	m := signedArchive(t, pg, db, b, openKey(t, alice), time.Time{})
	raw := content(t, b)[m.Key]
	forged := bytes.Replace(raw, []byte(`"pgstow": "test"`), []byte(`"pgstow": "evil"`), 1)
	armored, err := openKey(t, mallory).Sign(forged)
	if err != nil {
		t.Fatal(err)
	}
	for key, data := range map[string][]byte{m.Key: forged, keyOf(m, SignatureName): armored} {
		cover(t, b, key)
		if _, err := storage.PutBytes(t.Context(), b, key, data, storage.PutOptions{}); err != nil && !errors.Is(err, storage.ErrExist) {
			t.Fatal(err)
		}
	}
	trust := Trust{Signers: allowed(t, "alice "+publicText(t, alice)), Require: true}
	var out bytes.Buffer
	res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Output: &out, Trust: trust})
	if err != nil || res.Signature.State != SignatureValid || res.Manifest.Pgstow != "test" || out.Len() == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	// What mallory's key says of the latest version does not count either.
	trust = Trust{Signers: allowed(t, "mallory "+publicText(t, mallory)), Require: true}
	if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Output: &out, Trust: trust}); !errors.Is(err, ErrIntegrity) {
		t.Errorf("error %v", err)
	}
}

// A refused archive touches no database, and an object without a manifest is
// signed by nobody.
func TestRefusedSignatureTouchesNoDatabase(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	key := sshKey(t, "ed25519")
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	m := archived(t, pg, db, b).Manifest
	put(t, b, foreignKey, string(stockDump(t, pg, db, false)))
	trust := Trust{Signers: allowed(t, "alice "+publicText(t, key)), Require: true}
	for name, opts := range map[string]RestoreOptions{
		"an archive": {Ref: m.ID}, "an object": {Object: foreignKey},
	} {
		target := pg.CreateDatabase(t)
		opts.Bucket, opts.Conn, opts.Trust = b, connTo(t, pg, target), trust
		_, err := Restore(t.Context(), opts)
		if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "nobody has signed it") || count(t, pg, target, "first") != -1 {
			t.Errorf("%s: %v", name, err)
		}
		oneLiner(t, err)
		opts.Trust.Ignore = true
		if _, err := Restore(t.Context(), opts); err != nil || count(t, pg, target, "first") != 1000 {
			t.Errorf("%s, ignored: %v", name, err)
		}
	}
}

// The signature is kept as the rest of the archive is, in every store, and so is
// that of a record.
func TestSignatureIsKept(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	signer := openKey(t, sshKey(t, "ed25519"))
	for name, open := range lockingStores() {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() { b.Close() })
			res, err := Archive(t.Context(), ArchiveOptions{
				Bucket: b, Conn: connTo(t, pg, db), Name: "orders", Pgstow: "test", Signer: signer,
				Policy: Policy{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Governance, Tags: map[string]string{"owner": "finance"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Hold(t.Context(), HoldOptions{Bucket: b, Ref: res.Manifest.ID, Reason: "r", By: "x", Pgstow: "test", Signer: signer}); err != nil {
				t.Fatal(err)
			}
			all := statAll(t, b, res.Manifest.ID)
			of := all[ManifestName]
			signatures := 0
			for name, o := range all {
				if o.Retention != of.Retention || !o.LegalHold || o.Retention.Mode != storage.Governance {
					t.Errorf("%s: %+v, hold %t; the manifest has %+v", name, o.Retention, o.LegalHold, of.Retention)
				}
				if strings.HasSuffix(name, SuffixSignature) {
					signatures++
				}
			}
			if signatures != 2 {
				t.Errorf("%d signatures in %v", signatures, slices.Collect(maps.Keys(all)))
			}
			if tags := all[SignatureName].Tags; b.Capabilities().Tags && (tags["owner"] != "finance" || tags[TagRole] != "signature") {
				t.Errorf("tags %v", tags)
			}
			if err := b.Delete(t.Context(), keyOf(res.Manifest, SignatureName), all[SignatureName].Version); !errors.Is(err, storage.ErrLocked) {
				t.Errorf("delete: %v", err)
			}
		})
	}
}

// Records are judged like manifests, by the time at which the store had them: one
// that nobody allowed has signed proves nothing where signatures are required.
func TestRecordSignatures(t *testing.T) {
	alice, mallory := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	b := lockable()
	d := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
	putFake(t, b, d, "1")
	record := func(by string, s Signer) {
		r := Record{Kind: RecordVerify, ManifestSHA256: strings.Repeat("a", 64), By: by, Result: ResultPassed, Pgstow: "test", Verify: &VerifyFacts{Mode: ModeFull}}
		o, err := putRecord(t.Context(), b, resolved(t, b, d.ID), r, s, nil, nil, time.Now())
		if err != nil || (s == nil) != (o.signature == nil) {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	record("nobody", nil)
	record("mallory", openKey(t, mallory))
	signers := allowed(t, "alice "+publicText(t, alice))
	states := func(trust Trust) map[string]string {
		records, err := readRecords(t.Context(), b, resolved(t, b, d.ID), "", trust)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, r := range records {
			if (r.Record == nil) == (r.Error == "") || r.Signature == nil {
				t.Fatalf("%+v", r)
			}
			if r.Record != nil {
				got[r.Record.By] = r.Signature.State
			}
		}
		return got
	}
	passed := func(trust Trust) bool {
		ok, err := verified(t.Context(), b, resolved(t, b, d.ID), strings.Repeat("a", 64), trust)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	require := Trust{Signers: signers, Require: true}
	if got := states(require); len(got) != 0 || passed(require) {
		t.Errorf("required, nobody counts: %v", got)
	}
	record("alice", openKey(t, alice))
	if got := states(require); !maps.Equal(got, map[string]string{"alice": SignatureValid}) || !passed(require) {
		t.Errorf("required: %v", got)
	}
	want := map[string]string{"nobody": SignatureUnsigned, "mallory": SignatureUntrusted, "alice": SignatureValid}
	if got := states(Trust{Signers: signers}); !maps.Equal(got, want) {
		t.Errorf("not required: %v", got)
	}
	e := resolved(t, b, d.ID)
	for _, o := range e.Objects {
		if !strings.HasSuffix(o.Name, SuffixSignature) {
			continue
		}
		raw, err := readSmall(t.Context(), b, d.Key(o.Name), "", maxSignature)
		if err != nil {
			t.Fatal(err)
		}
		body, err := readSmall(t.Context(), b, d.Key(strings.TrimSuffix(o.Name, SuffixSignature)), "", maxRecord)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := sshKeygen(t, body, "-Y", "check-novalidate", "-n", SignatureNamespace, "-s", writeTemp(t, "sig", string(raw))); err != nil {
			t.Errorf("ssh-keygen: %v\n%s", err, out)
		}
	}
}
