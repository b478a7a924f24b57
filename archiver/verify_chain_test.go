package archiver

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// A signature that is changed, taken away or made by somebody else is found where it
// matters, and named; the record is signed as the archive is.
func TestVerifySignature(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	path, other := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	key := openKey(t, path)
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, smallSource(t, pg)), Pgstow: "test", Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	s := &stored{m: res.Manifest, all: content(t, b)}
	signers := allowed(t, `pgstow@db1 namespaces="pgstow" `+publicText(t, path))
	others := allowed(t, `other@db2 namespaces="pgstow" `+publicText(t, other))
	sig := s.all[keyOf(s.m, SignatureName)]
	at := strings.Index(string(sig), "\n") + 60
	for what, c := range map[string]struct {
		all    map[string][]byte
		trust  Trust
		object string // "" passes
		state  string
		warned bool
	}{
		"valid":                   {s.all, Trust{Signers: signers, Require: true}, "", SignatureValid, false},
		"not judged":              {s.all, Trust{}, "", SignatureUnjudged, false},
		"flipped":                 {s.change(SignatureName, func(b []byte) []byte { b = slices.Clone(b); b[at]++; return b }), Trust{}, SignatureName, SignatureInvalid, false},
		"flipped and ignored":     {s.change(SignatureName, func(b []byte) []byte { b = slices.Clone(b); b[at]++; return b }), Trust{Ignore: true}, "", SignatureInvalid, true},
		"cut":                     {s.change(SignatureName, func(b []byte) []byte { return b[:len(b)/2] }), Trust{Signers: signers}, SignatureName, SignatureInvalid, false},
		"gone, and wanted":        {s.change(SignatureName, func([]byte) []byte { return nil }), Trust{Signers: signers, Require: true}, ManifestName, SignatureUnsigned, false},
		"gone, and not wanted":    {s.change(SignatureName, func([]byte) []byte { return nil }), Trust{}, "", SignatureUnsigned, false},
		"gone, others are signed": {s.change(SignatureName, func([]byte) []byte { return nil }), Trust{Signers: signers}, "", SignatureUnsigned, true},
		"somebody else's":         {s.all, Trust{Signers: others, Require: true}, SignatureName, SignatureUntrusted, false},
		"the manifest is changed": {s.change(ManifestName, func(b []byte) []byte { return slices.Concat(b, []byte("\n")) }), Trust{Signers: signers}, SignatureName, SignatureInvalid, false},
	} {
		t.Run(what, func(t *testing.T) {
			opts := verifyOptions(bucketOf(t, c.all))
			opts.Trust, opts.Signer = c.trust, key
			v, err := verifiedOne(t, opts)
			if c.object == "" {
				wantWhole(t, v, err)
			} else {
				wantProblem(t, v, err, c.object, "")
			}
			if v.Signature.State != c.state || (len(v.Warnings) > 0) != c.warned {
				t.Errorf("signature %+v, warnings %q", v.Signature, v.Warnings)
			}
			records, err := readRecords(t.Context(), opts.Bucket, listed(t, opts.Bucket)[0], RecordVerify, Trust{Signers: signers, Require: true})
			if err != nil || len(records) != 1 || records[0].Error != "" || records[0].Signature.State != SignatureValid {
				t.Errorf("records %+v, %v", records, err)
			}
		})
	}
}

// What is gone before its time, or is not what it was when others named it, is found by those
// others.
func TestVerifyChain(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	var ms []*Manifest
	at := time.Now().Add(-3 * time.Hour)
	for range 3 {
		res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), Name: "orders", Pgstow: "test",
			Policy: Policy{Name: "kept", Keep: Period{Days: 30}}, Now: func() time.Time { at = at.Add(time.Second); return at }})
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, res.Manifest)
		at = at.Add(time.Hour)
	}
	if p := ms[2].Previous; p == nil || len(p.Archives) == 0 {
		t.Fatalf("the last archive names %+v", p)
	}
	v, err := verifiedOne(t, verifyOptions(b, ms[1].ID))
	wantWhole(t, v, err)

	changed := *ms[0]
	changed.Warnings = append(changed.Warnings, "nothing to see here")
	raw, err := changed.encode()
	if err != nil {
		t.Fatal(err)
	}
	old, err := b.Stat(t.Context(), ms[0].Key, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), old.Key, old.Version); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.PutBytes(t.Context(), b, old.Key, raw, storage.PutOptions{Tags: old.Tags}); err != nil {
		t.Fatal(err)
	}
	for _, quick := range []bool{true, false} {
		opts := verifyOptions(b, ms[0].ID)
		opts.Quick = quick
		v, err := verifiedOne(t, opts)
		wantProblem(t, v, err, ManifestName, "")
		if len(v.Problems) != 1 || !strings.Contains(v.Problems[0].What, ms[1].ID) {
			t.Errorf("problems %q", v.Problems)
		}
	}

	for _, m := range ms[:2] {
		for _, key := range objects(t, b) {
			if strings.HasPrefix(key, strings.TrimSuffix(m.Key, ManifestName)) {
				if err := b.Delete(t.Context(), key, versionOf(t, b, key)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, refs := range [][]string{nil, {ms[2].ID}} {
		opts := verifyOptions(b, refs...)
		opts.NoRecord = true
		res, err := Verify(t.Context(), opts)
		oneLiner(t, err)
		if !errors.Is(err, ErrIntegrity) || res.Passed != 1 || len(res.Vanished) != 1 || res.Vanished[0].ID != ms[1].ID || !strings.Contains(err.Error(), ms[1].ID) {
			t.Errorf("%v: %+v, %v", refs, res, err)
		}
		// When its time is over, nobody misses it.
		opts.Now = func() time.Time { return time.Now().AddDate(0, 0, 60) }
		if res, err := Verify(t.Context(), opts); err != nil || len(res.Vanished) != 0 {
			t.Errorf("%v, later: %+v, %v", refs, res, err)
		}
	}
}
