package archiver

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// An encrypted archive is verified as any other by who has the key; by others, all but its
// content is, and they are told.
func TestVerifySealed(t *testing.T) {
	k, foreign := newKeys(t, "age"), newKeys(t, "age")
	s, _ := sealedStore(t, k)
	goroutines := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, goroutines)
	for what, c := range map[string]struct {
		ids    Identities
		mode   string
		warned string
	}{
		"key":         {identities(t, k.identity), ModeFull, ""},
		"no key":      {Identities{}, ModeSealed, "give --identity"},
		"another key": {identities(t, foreign.identity), ModeSealed, "none of the identities"},
	} {
		t.Run(what, func(t *testing.T) {
			b := bucketOf(t, s.all)
			opts := verifyOptions(b)
			opts.Identities = c.ids
			v, err := verifiedOne(t, opts)
			wantWhole(t, v, err)
			var read int64
			for _, raw := range s.all {
				read += int64(len(raw))
			}
			if v.Mode != c.mode || v.Bytes != read || (v.Tables > 0) != (c.mode == ModeFull) || !strings.Contains(strings.Join(v.Warnings, "; "), c.warned) || (c.warned == "") != (len(v.Warnings) == 0) {
				t.Errorf("%+v, want mode %s and %d bytes", v, c.mode, read)
			}
			if c.mode == ModeFull && (v.Tables != s.m.Totals.Tables || *v.Rows != *s.m.Totals.Rows) {
				t.Errorf("%+v of %+v", v, s.m.Totals)
			}
			validateRecord(t, content(t, b)[v.Key+v.Record])
			if ok, err := verified(t.Context(), b, listed(t, b)[0], v.ManifestSHA256, Trust{}); ok != (c.mode == ModeFull) || err != nil {
				t.Errorf("it counts as verified: %v, %v", ok, err)
			}
		})
	}
}

// What is changed in an encrypted archive is named as in any other, to who has the key: its
// table, too, and no other table. The record tells no table to those who have none.
func TestVerifyTamperingWithSealed(t *testing.T) {
	k := newKeys(t, "age")
	s, header := sealedStore(t, k)
	goroutines := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, goroutines)
	second, dump := s.block(t, "second"), s.m.Objects.Dump
	at := func(i int64) func([]byte) []byte { return func(b []byte) []byte { return flip(b, int(i)) } }
	in := func(plain int64) func([]byte) []byte { return at(ageOffset(header, plain)) }
	const dumpName, indexName, globalsName = DumpName + EncryptedSuffix, IndexName + EncryptedSuffix, GlobalsName + EncryptedSuffix
	for _, c := range []struct {
		what, object, table string
		edit                func([]byte) []byte
	}{
		{"first byte", dumpName, "", at(0)},
		{"the wrapped key", dumpName, "", at(90)},
		{"the header's MAC", dumpName, "", at(int64(header) - 5)},
		{"nonce", dumpName, "", at(int64(header) + 3)},
		{"head", dumpName, "", in(dump.Head.Length / 2)},
		{"middle of a block", dumpName, "public.second", in(second.Offset + second.Length/2)},
		{"tag of a chunk", dumpName, "public.second", at(ageOffset(header, (second.Offset/ageChunk+2)*ageChunk) - 1)},
		{"last byte", dumpName, "", at(-1)},
		{"cut", dumpName, "", func(b []byte) []byte { return b[:len(b)/2] }},
		{"cut in the header", dumpName, "", func(b []byte) []byte { return b[:header/2] }},
		{"emptied", dumpName, "", func([]byte) []byte { return []byte{} }},
		{"lengthened", dumpName, "", func(b []byte) []byte { return append(bytes.Clone(b), 1) }},
		{"gone", dumpName, "", func([]byte) []byte { return nil }},
		{"flipped", indexName, "", at(-1)},
		{"gone", indexName, "", func([]byte) []byte { return nil }},
		{"flipped", globalsName, "", at(-1)},
		{"gone", globalsName, "", func([]byte) []byte { return nil }},
		{"other plain hash of the index", ManifestName, "", func(b []byte) []byte {
			return bytes.Replace(b, []byte(s.m.Objects.Index.Plain.SHA256), []byte(strings.Repeat("0", 64)), 1)
		}},
	} {
		t.Run(c.object+" "+c.what, func(t *testing.T) {
			for _, ids := range []Identities{identities(t, k.identity), {}} {
				b := bucketOf(t, s.change(c.object, c.edit))
				opts := verifyOptions(b)
				opts.Identities = ids
				v, err := verifiedOne(t, opts)
				object, table := c.object, c.table
				if ids.IsZero() {
					table = ""
				}
				if object == ManifestName {
					if ids.IsZero() {
						wantWhole(t, v, err) // who cannot look into it cannot know
						continue
					}
					object = indexName
				}
				wantProblem(t, v, err, object, table)
				for _, p := range v.Problems {
					if table != "" && p.Table != "" && p.Table != table {
						t.Errorf("%s is not damaged", p.Table)
					}
				}
				record := content(t, b)[v.Key+v.Record]
				validateRecord(t, record)
				if slices.ContainsFunc([]string{"second", "first", "third"}, func(name string) bool { return bytes.Contains(record, []byte("public."+name)) }) {
					t.Errorf("the record names tables: %s", record)
				}
			}
		})
	}
}
