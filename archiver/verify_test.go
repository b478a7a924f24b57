package archiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

func verifyOptions(b storage.Bucket, refs ...string) VerifyOptions {
	return VerifyOptions{Bucket: b, Refs: refs, All: len(refs) == 0, By: "tester@host", Pgstow: "test"}
}

// verifiedOne is the verification of the one archive in a bucket, and its error.
func verifiedOne(t testing.TB, opts VerifyOptions) (*VerifiedArchive, error) {
	t.Helper()
	res, err := Verify(t.Context(), opts)
	oneLiner(t, err)
	if res == nil || len(res.Archives) != 1 {
		t.Fatalf("result %+v, %v", res, err)
	}
	return res.Archives[0], err
}

// wantProblem wants the archive to have failed because of the object, and of the table if
// one is given.
func wantProblem(t testing.TB, v *VerifiedArchive, err error, object, table string) {
	t.Helper()
	for _, p := range v.Problems {
		t.Logf("problem: %s", p)
	}
	named := slices.ContainsFunc(v.Problems, func(p Problem) bool { return p.Object == object && (table == "" || p.Table == table) })
	if v.Result != ResultFailed || !errors.Is(err, ErrIntegrity) || !named {
		t.Errorf("%s, %v: want a problem of %s %s among %q", v.Result, err, object, table, v.Problems)
	}
}

// wantWhole wants nothing to have been found wrong.
func wantWhole(t testing.TB, v *VerifiedArchive, err error) {
	t.Helper()
	if err != nil || v.Result != ResultPassed || len(v.Problems) > 0 || v.Error != "" {
		t.Errorf("%s: %q, %s, %v", v.Result, v.Problems, v.Error, err)
	}
}

// An archive that nobody touched passes on every store: all of it is read once, the record
// says so, and it counts for expiring.
func TestVerifyStores(t *testing.T) {
	pg := testenv.Postgres(t)
	source := longSource(t, pg)
	onEveryStore(t, func(t *testing.T, b storage.Bucket) {
		opts := ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), Pgstow: "test"}
		if b.Capabilities().ObjectLock {
			opts.Policy = Policy{Name: "held", Keep: Period{Days: 1}, Lock: storage.Governance, Tags: map[string]string{"owner": "finance"}}
		}
		res, err := Archive(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		m := res.Manifest
		v, err := verifiedOne(t, verifyOptions(b))
		wantWhole(t, v, err)
		read := m.Objects.Dump.Size + m.Objects.Index.Size + m.Objects.Globals.Size + int64(len(content(t, b)[m.Key]))
		if v.Mode != ModeFull || v.Bytes != read || v.Tables != m.Totals.Tables || *v.Rows != *m.Totals.Rows || v.Structure != StructureComplete || v.Objects != 4 {
			t.Errorf("%+v, want %d bytes of %+v", v, read, m.Totals)
		}
		e := listed(t, b)[0]
		records, err := readRecords(t.Context(), b, e, RecordVerify, Trust{})
		if err != nil || len(records) != 1 || records[0].Name != v.Record || records[0].Record.Verify.Mode != ModeFull ||
			records[0].Record.Result != ResultPassed || records[0].Record.By != "tester@host" {
			t.Fatalf("records %+v, %v", records, err)
		}
		validateRecord(t, content(t, b)[e.Key+v.Record])
		o, err := b.Stat(t.Context(), e.Key+v.Record, "")
		if err != nil || m.Kept != nil && o.Retention.Mode != m.Kept.Lock {
			t.Errorf("the record is kept by %+v, %v", o.Retention, err)
		}
		if ok, err := verified(t.Context(), b, e, hexSum(content(t, b)[m.Key]), Trust{}); !ok || err != nil {
			t.Errorf("it counts as verified: %v, %v", ok, err)
		}
		quick := verifyOptions(b, m.ID)
		quick.Quick = true
		v, err = verifiedOne(t, quick)
		wantWhole(t, v, err)
		if v.Mode != ModeQuick || v.Record != "" || v.Bytes != int64(len(content(t, b)[m.Key])) {
			t.Errorf("%+v", v)
		}
	})
}

// overwrite puts other bytes where an object is, as somebody with every right could, and gives
// the store no reason to call it another one.
func overwrite(t testing.TB, b storage.Bucket, key string, raw []byte) {
	t.Helper()
	if err := b.Delete(t.Context(), key, versionOf(t, b, key)); err != nil {
		t.Fatal(err)
	}
	put(t, b, key, string(raw))
}

// One byte of any object is enough, on every store, and the object is named.
func TestVerifyFindsAByteOnStores(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	for name, open := range map[string]func(t *testing.T) storage.Bucket{
		"file":      openFile,
		"versitygw": func(t *testing.T) storage.Bucket { return openS3(t, testenv.VersityGW(t), testenv.BucketOptions{}) },
		"minio":     func(t *testing.T) storage.Bucket { return openS3(t, testenv.MinIO(t), testenv.BucketOptions{}) },
		"gcs":       openGCS,
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
			m := archived(t, pg, source, b).Manifest
			opts := verifyOptions(b)
			opts.NoRecord = true
			for _, object := range []string{DumpName, IndexName, GlobalsName, ManifestName} {
				key := keyOf(m, object)
				whole := content(t, b)[key]
				for _, at := range []int{len(whole) / 2, -1} {
					if object == ManifestName {
						at = bytes.Index(whole, []byte(`"label"`)) + at%7 + 8
					}
					overwrite(t, b, key, flip(whole, at))
					v, err := verifiedOne(t, opts)
					wantProblem(t, v, err, object, "")
				}
				if err := b.Delete(t.Context(), key, versionOf(t, b, key)); err != nil {
					t.Fatal(err)
				}
				if object == ManifestName {
					if _, err := Verify(t.Context(), opts); !errors.Is(err, ErrNoArchive) {
						t.Errorf("without a manifest: %v", err)
					}
					continue
				}
				v, err := verifiedOne(t, opts)
				wantProblem(t, v, err, object, "")
				put(t, b, key, string(whole))
			}
		})
	}
}

// Whatever was done to an archive, what is wrong is named: the object, and the table whose
// block it is; and all else of it is looked at.
func TestVerifyTampering(t *testing.T) {
	s := store(t)
	goroutines := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, goroutines)
	second, third := s.block(t, "second"), s.block(t, "third")
	head := s.m.Objects.Dump.Head.Length
	at := func(i int64) func([]byte) []byte { return func(b []byte) []byte { return flip(b, int(i)) } }
	cut := func(n int64) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	in := func(old, now string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(now), 1) }
	}
	last := s.ix.Blocks[len(s.ix.Blocks)-1]
	for _, c := range []struct {
		what, object string
		edit         func([]byte) []byte
		wrong, table string
	}{
		{"first byte", DumpName, at(0), DumpName, ""},
		{"middle of the head", DumpName, at(head / 2), DumpName, ""},
		{"last byte of the head", DumpName, at(head - 1), DumpName, ""},
		{"type of a block", DumpName, at(second.Offset), DumpName, "public.second"},
		{"dump id of a block", DumpName, at(second.Offset + 2), DumpName, "public.second"},
		{"length of a chunk", DumpName, at(second.Offset + 7), DumpName, "public.second"},
		{"middle of a block", DumpName, at(second.Offset + second.Length/2), DumpName, "public.second"},
		{"last byte of a block", DumpName, at(second.Offset + second.Length - 1), DumpName, "public.second"},
		{"first byte of the next block", DumpName, at(third.Offset), DumpName, "public.third"},
		{"last byte", DumpName, at(s.m.Objects.Dump.Size - 1), DumpName, last.table()},
		{"cut in a block", DumpName, cut(second.Offset + 100), DumpName, ""},
		{"cut between blocks", DumpName, cut(second.Offset), DumpName, ""},
		{"cut in the head", DumpName, cut(head / 2), DumpName, ""},
		{"emptied", DumpName, cut(0), DumpName, ""},
		{"lengthened", DumpName, func(b []byte) []byte { return append(bytes.Clone(b), 1) }, DumpName, ""},
		{"gone", DumpName, func([]byte) []byte { return nil }, DumpName, ""},
		{"flipped", IndexName, at(-1), IndexName, ""},
		{"cut", IndexName, func(b []byte) []byte { return b[:len(b)/2] }, IndexName, ""},
		{"gone", IndexName, func([]byte) []byte { return nil }, IndexName, ""},
		{"flipped", GlobalsName, at(20), GlobalsName, ""},
		{"cut", GlobalsName, func(b []byte) []byte { return b[:len(b)/2] }, GlobalsName, ""},
		{"gone", GlobalsName, func([]byte) []byte { return nil }, GlobalsName, ""},
		{"cut", ManifestName, func(b []byte) []byte { return b[:len(b)/2] }, ManifestName, ""},
		{"of another archive", ManifestName, in(s.m.ID, "a0000000"), ManifestName, ""},
		{"other hash of the body", ManifestName, in(s.m.Objects.Dump.Body.SHA256, strings.Repeat("0", 64)), IndexName, ""},
		{"other hash of the index", ManifestName, in(s.m.Objects.Index.SHA256, strings.Repeat("0", 64)), IndexName, ""},
		{"other checksum of the store", ManifestName, in(s.m.Objects.Dump.Checksum.Value, "AAAAAA=="), DumpName, ""},
		{"other size", ManifestName, in(fmt.Sprintf(`"size": %d`, s.m.Objects.Globals.Size), `"size": 7`), GlobalsName, ""},
		{"other totals", ManifestName, in(fmt.Sprintf(`"rows": %d`, *s.m.Totals.Rows), `"rows": 7`), ManifestName, ""},
	} {
		t.Run(c.object+" "+c.what, func(t *testing.T) {
			v, err := verifiedOne(t, verifyOptions(bucketOf(t, s.change(c.object, c.edit))))
			wantProblem(t, v, err, c.wrong, c.table)
			if v.Record == "" {
				t.Errorf("no record of it")
			}
		})
	}
}

// editIndex is the content with an index that somebody has changed, and a manifest, which
// nobody signed, that says its hash.
func (s *stored) editIndex(t *testing.T, edit func(*Index)) map[string][]byte {
	t.Helper()
	all := maps.Clone(s.all)
	ix, err := decodeIndex(all[s.m.Objects.Index.Key])
	if err != nil {
		t.Fatal(err)
	}
	edit(ix)
	raw, err := ix.encode()
	if err != nil {
		t.Fatal(err)
	}
	m := *s.m
	o := *m.Objects.Index
	o.Size, o.SHA256, o.Checksum = int64(len(raw)), hexSum(raw), nil
	m.Objects.Index = &o
	m.Totals = ix.totals()
	all[o.Key] = raw
	if all[m.Key], err = m.encode(); err != nil {
		t.Fatal(err)
	}
	return all
}

// An index that says something else than the dump holds is found by what the dump holds, also
// when every hash that leads to it was made to fit.
func TestVerifyFindsAFalseIndex(t *testing.T) {
	s := store(t)
	at := func(ix *Index, table string) *IndexBlock {
		i := slices.IndexFunc(ix.Blocks, func(b IndexBlock) bool { return b.Name == table || table == KindLargeObjects && b.Kind == table })
		return &ix.Blocks[i]
	}
	for what, c := range map[string]struct {
		edit  func(*Index)
		table string
	}{
		"a row more":  {func(ix *Index) { at(ix, "second").Content.Rows++ }, "public.second"},
		"other text":  {func(ix *Index) { at(ix, "second").Content.SHA256 = hexSum(nil) }, "public.second"},
		"another sum": {func(ix *Index) { at(ix, "first").Content.RowSums[1] = "0123456789abcdef" }, "public.first"},
		"swapped evidence": {func(ix *Index) {
			at(ix, "first").Content, at(ix, "third").Content = at(ix, "third").Content, at(ix, "first").Content
		}, "public.third"},
		"more bytes":       {func(ix *Index) { at(ix, "third").RawBytes++ }, "public.third"},
		"another hash":     {func(ix *Index) { at(ix, "third").SHA256 = hexSum(nil) }, "public.third"},
		"another name":     {func(ix *Index) { at(ix, "third").Name = "fourth" }, "public.fourth"},
		"another block":    {func(ix *Index) { at(ix, "third").DumpID = at(ix, "second").DumpID }, "public.third"},
		"no such block":    {func(ix *Index) { at(ix, "third").DumpID = 1 << 20 }, "public.third"},
		"rows of objects":  {func(ix *Index) { at(ix, KindLargeObjects).Kind = KindTable }, ""},
		"an object's hash": {func(ix *Index) { ix.LargeObjects[0].SHA256[3] ^= 1 }, KindLargeObjects},
		"an object's size": {func(ix *Index) { ix.LargeObjects[0].RawBytes++ }, KindLargeObjects},
		"an object's oid":  {func(ix *Index) { ix.LargeObjects[0].OID++ }, KindLargeObjects},
		"an object more": {func(ix *Index) {
			ix.LargeObjects = append(ix.LargeObjects, ix.LargeObjects[0])
			at(ix, KindLargeObjects).LargeObjects++
		}, KindLargeObjects},
		"a boundary": {func(ix *Index) { a, b := at(ix, "first"), at(ix, "second"); moveBoundary(ix, a, b) }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			v, err := verifiedOne(t, verifyOptions(bucketOf(t, s.editIndex(t, c.edit))))
			object := DumpName
			if strings.HasPrefix(what, "no such") || what == "another name" {
				object = IndexName
			}
			wantProblem(t, v, err, object, c.table)
		})
	}
	t.Run("untouched", func(t *testing.T) {
		v, err := verifiedOne(t, verifyOptions(bucketOf(t, s.editIndex(t, func(*Index) {}))))
		wantWhole(t, v, err)
	})
	t.Run("fewer entries", func(t *testing.T) {
		v, err := verifiedOne(t, verifyOptions(bucketOf(t, s.editIndex(t, func(ix *Index) { ix.Entries-- }))))
		wantProblem(t, v, err, IndexName, "")
	})
	t.Run("of another archive", func(t *testing.T) {
		v, err := verifiedOne(t, verifyOptions(bucketOf(t, s.editIndex(t, func(ix *Index) { ix.ID = "a0000000" }))))
		wantProblem(t, v, err, IndexName, "")
	})
}

// moveBoundary makes the first block of an index a byte longer and the next one shorter.
func moveBoundary(ix *Index, _, _ *IndexBlock) {
	ix.Blocks[0].Length++
	ix.Blocks[1].Offset++
	ix.Blocks[1].Length--
}

// Another archive's index, or manifest, of the same database is not this one's.
func TestVerifyFindsWhatBelongsElsewhere(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	source := smallSource(t, pg)
	one := archived(t, pg, source, b).Manifest
	pg.Exec(t, source, `INSERT INTO nothing VALUES (1)`)
	two := archived(t, pg, source, b).Manifest
	all := content(t, b)
	for _, name := range []string{IndexName, ManifestName, DumpName} {
		swapped := maps.Clone(all)
		swapped[keyOf(one, name)] = all[keyOf(two, name)]
		res, err := Verify(t.Context(), verifyOptions(bucketOf(t, swapped)))
		oneLiner(t, err)
		if !errors.Is(err, ErrIntegrity) || res.Failed != 1 || res.Passed != 1 {
			t.Errorf("%s: %+v, %v", name, res, err)
			continue
		}
		for _, v := range res.Archives {
			if v.ID == one.ID {
				wantProblem(t, v, err, name, "")
			}
		}
	}
}

// However a dump is compressed, and whatever tables are in it, its content is compared.
func TestVerifyCompressions(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(source), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"none", "gzip:6", "pg_dump", "zstd:3", "lz4"} {
		t.Run(how, func(t *testing.T) {
			res, ix, b := compressed(t, pg, source, how, nil)
			v, err := verifiedOne(t, verifyOptions(b))
			wantWhole(t, v, err)
			if m := res.Manifest; v.Blocks != m.Totals.Blocks || v.LargeObjects != m.Totals.LargeObjects || v.LargeObjects == 0 || *v.Rows != *m.Totals.Rows {
				t.Errorf("%+v of %+v", v, m.Totals)
			}
			s := stored{m: res.Manifest, ix: ix, all: content(t, b)}
			for i, block := range ix.Blocks {
				if i%5 != 0 {
					continue
				}
				all := s.change(DumpName, func(b []byte) []byte { return flip(b, int(block.Offset+block.Length-9)) })
				v, err := verifiedOne(t, verifyOptions(bucketOf(t, all)))
				wantProblem(t, v, err, DumpName, block.table())
			}
		})
	}
}

// Archives without anything in them, of more small blocks than there are lanes and chunks, and
// of INSERT statements.
func TestVerifyShapes(t *testing.T) {
	pg := testenv.Postgres(t)
	many := pg.CreateDatabase(t)
	pg.Exec(t, many, `DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE t%s AS SELECT 1 AS i WHERE %s > 100', i, i); END LOOP; END $$`)
	for name, c := range map[string]struct {
		db     string
		tables int
		args   []string
	}{
		"nothing":     {pg.CreateDatabase(t), 0, nil},
		"many tables": {many, 500, nil},
		"inserts":     {smallSource(t, pg), 4, []string{"--inserts"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, b := compressed(t, pg, c.db, "auto", func(o *ArchiveOptions) { o.DumpArgs = c.args })
			v, err := verifiedOne(t, verifyOptions(b))
			wantWhole(t, v, err)
			evidence := EvidenceContent
			if c.args != nil {
				evidence = EvidenceNone
			}
			if v.Tables != c.tables || v.Evidence != evidence {
				t.Errorf("%+v", v)
			}
		})
	}
}

// The archive of a version that nobody knows has its hash, and no more.
func TestVerifyUnknownVersion(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, smallSource(t, pg)), PGBin: futureTools(t), Pgstow: "test"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifiedOne(t, verifyOptions(b))
	wantWhole(t, v, err)
	if v.Structure != StructureUnchecked || v.Blocks != 0 || v.Mode != ModeFull {
		t.Errorf("%+v", v)
	}
	s := stored{m: res.Manifest, all: content(t, b)}
	v, err = verifiedOne(t, verifyOptions(bucketOf(t, s.change(DumpName, func(b []byte) []byte { return flip(b, len(b)/2) }))))
	wantProblem(t, v, err, DumpName, "")
}

// What a store keeps less firmly than the manifest promises is found, also by asking it alone.
func TestVerifyPromise(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	b := lockable()
	policy := Policy{Name: "sox", Keep: Period{Years: 7}, Lock: storage.Governance, LegalHold: true, Tags: map[string]string{"owner": "finance"}}
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), Pgstow: "test", Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	m := res.Manifest
	for _, quick := range []bool{true, false} {
		opts := verifyOptions(b)
		opts.Quick, opts.NoRecord = quick, true
		v, err := verifiedOne(t, opts)
		wantWhole(t, v, err)
		for _, object := range []string{DumpName, IndexName, GlobalsName, ManifestName} {
			for what, weaken := range map[string]func(*storage.Object){
				"shorter":  func(o *storage.Object) { o.Retention.Until = o.Retention.Until.AddDate(0, 0, -30) },
				"unlocked": func(o *storage.Object) { o.Retention = storage.Retention{} },
				"released": func(o *storage.Object) { o.LegalHold = false },
				"untagged": func(o *storage.Object) { o.Tags = nil },
			} {
				opts := opts
				opts.Bucket = &weakened{b, keyOf(m, object), weaken}
				v, err := verifiedOne(t, opts)
				t.Log(what)
				wantProblem(t, v, err, object, "")
			}
		}
		// What may not be seen is no lie, and no promise kept.
		opts.Bucket = b.Blind(storage.AttributeRetention)
		v, err = verifiedOne(t, opts)
		wantWhole(t, v, err)
		if !slices.Equal(v.Denied, []storage.Attribute{storage.AttributeRetention}) || len(v.Warnings) != 1 {
			t.Errorf("denied are %v, warnings %q", v.Denied, v.Warnings)
		}
		// When its time is over, nothing needs to be locked.
		opts.Bucket = &weakened{b, keyOf(m, DumpName), func(o *storage.Object) { o.Retention = storage.Retention{} }}
		opts.Now = func() time.Time { return m.Kept.RetainUntil.Add(time.Hour) }
		v, err = verifiedOne(t, opts)
		wantWhole(t, v, err)
	}
	// A hold that was released by its command is not missed.
	hold := holdOptions(b, true)
	hold.Ref = m.ID
	if _, err := Hold(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	v, err := verifiedOne(t, verifyOptions(b))
	wantWhole(t, v, err)
}

// weakened shows one object as less than it is.
type weakened struct {
	*storagetest.Memory
	key    string
	weaken func(*storage.Object)
}

func (w *weakened) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	o, err := w.Memory.Stat(ctx, key, version)
	if key == w.key {
		w.weaken(&o)
	}
	return o, err
}

// Delete markers and later versions change nothing, and are told.
func TestVerifyHidden(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{Versions: true})
	m := archived(t, pg, smallSource(t, pg), b).Manifest
	for _, key := range []string{m.Key, m.Objects.Dump.Key} {
		if err := b.Delete(t.Context(), key, ""); err != nil {
			t.Fatal(err)
		}
	}
	put(t, b, m.Key, "{}")
	v, err := verifiedOne(t, verifyOptions(b))
	wantWhole(t, v, err)
	if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "undelete") {
		t.Errorf("warnings %q", v.Warnings)
	}
}

// All are looked at, whatever is found in one; a store that fails hides no finding.
func TestVerifyAll(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	var ids []string
	for range 4 {
		ids = append(ids, archived(t, pg, source, b).Manifest.ID)
	}
	all := content(t, b)
	key := func(n int, name string) string {
		for k := range all {
			if strings.Contains(k, ids[n]) && strings.HasSuffix(k, "/"+name) {
				return k
			}
		}
		t.Fatal(name)
		return ""
	}
	all[key(2, DumpName)] = flip(all[key(2, DumpName)], -1)
	for what, c := range map[string]struct {
		healed  bool
		failing string
		want    map[string]string
		err     error
	}{
		"one damaged":               {false, "", map[string]string{ids[0]: ResultPassed, ids[1]: ResultPassed, ids[2]: ResultFailed, ids[3]: ResultPassed}, ErrIntegrity},
		"and one that is not there": {false, key(0, DumpName), map[string]string{ids[0]: ResultUndecided, ids[1]: ResultPassed, ids[2]: ResultFailed, ids[3]: ResultPassed}, ErrIntegrity},
		"none damaged":              {true, key(2, DumpName), map[string]string{ids[0]: ResultPassed, ids[1]: ResultPassed, ids[2]: ResultUndecided, ids[3]: ResultPassed}, storage.ErrUnavailable},
		"a manifest is not there":   {false, key(3, ManifestName), map[string]string{ids[0]: ResultPassed, ids[1]: ResultPassed, ids[2]: ResultFailed, ids[3]: ResultUndecided}, ErrIntegrity},
	} {
		t.Run(what, func(t *testing.T) {
			all := maps.Clone(all)
			if c.healed {
				all[key(2, DumpName)] = flip(all[key(2, DumpName)], -1)
			}
			opts := verifyOptions(unreadable{bucketOf(t, all), c.failing})
			var begun, ended []string
			opts.Begin = func(e Entry, n, of int) { begun = append(begun, fmt.Sprint(e.ID, n, of)) }
			opts.Verified = func(v *VerifiedArchive) { ended = append(ended, v.ID) }
			res, err := Verify(t.Context(), opts)
			oneLiner(t, err)
			got := map[string]string{}
			for _, v := range res.Archives {
				got[v.ID] = v.Result
			}
			if !maps.Equal(got, c.want) || !errors.Is(err, c.err) || len(begun) != 4 || len(ended) != 4 {
				t.Errorf("%v, %v; want %v, %v", got, err, c.want, c.err)
			}
			if _, err := json.Marshal(res); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("named", func(t *testing.T) {
		res, err := Verify(t.Context(), verifyOptions(bucketOf(t, all), ids[0], ids[3][:5], ids[0]))
		if err != nil || res.Passed != 2 {
			t.Errorf("%+v, %v", res, err)
		}
		if _, err := Verify(t.Context(), verifyOptions(bucketOf(t, all), ids[2], "zzzzzzzz")); !errors.Is(err, ErrNoArchive) {
			t.Errorf("one that there is not: %v", err)
		}
	})
	t.Run("none", func(t *testing.T) {
		opts := verifyOptions(bucketOf(t, nil))
		if _, err := Verify(t.Context(), opts); !errors.Is(err, ErrNoArchive) {
			t.Errorf("an empty bucket: %v", err)
		}
		opts.Refs = []string{Latest}
		if _, err := Verify(t.Context(), opts); !errors.Is(err, ErrUsage) {
			t.Errorf("all and one: %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		opts := verifyOptions(bucketOf(t, all))
		opts.Verified = func(*VerifiedArchive) { cancel(stop) }
		res, err := Verify(ctx, opts)
		if !errors.Is(err, stop) || len(res.Archives) != 1 {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// unreadable is a bucket that is gone when one object is read.
type unreadable struct {
	*storagetest.Memory
	key string
}

func (u unreadable) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if key == u.key {
		return nil, &storage.Error{Op: "open", Key: key, Kind: storage.ErrUnavailable, Err: errInjected}
	}
	return u.Memory.Open(ctx, key, opts)
}

// An interrupted read leaves neither goroutine nor record.
func TestVerifyInterrupted(t *testing.T) {
	s := store(t)
	goroutines := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, goroutines)
	b := bucketOf(t, s.all)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	opts := verifyOptions(b)
	opts.Progress = func(p Progress) {
		if p.Phase == PhaseReadBack {
			cancel(stop)
		}
	}
	res, err := Verify(ctx, opts)
	if !errors.Is(err, stop) || len(res.Archives) != 1 || res.Archives[0].Result == ResultPassed {
		t.Errorf("%+v, %v", res.Archives[0], err)
	}
	if got := objects(t, b); len(got) != len(s.all) {
		t.Errorf("objects are %q", got)
	}
}

// Wherever it is interrupted, a block that was broken off is not called damaged.
func TestVerifyInterruptedAnywhere(t *testing.T) {
	s := store(t)
	size := len(s.all[keyOf(s.m, DumpName)])
	for part := 1; part <= 40; part++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		b := &cutOff{Memory: bucketOf(t, s.all), key: keyOf(s.m, DumpName), stop: func() { cancel(stop) }}
		b.left.Store(int64(size * part / 40))
		res, err := Verify(ctx, verifyOptions(b))
		if !errors.Is(err, stop) || len(res.Archives) != 1 {
			t.Fatalf("part %d: %+v, %v", part, res, err)
		}
		if v := res.Archives[0]; v.Result != ResultUndecided || len(v.Problems) > 0 || v.Record != "" {
			t.Errorf("part %d: %s, %q, record %q", part, v.Result, v.Problems, v.Record)
		}
	}
}

// cutOff stops the run when so many bytes of an object were read.
type cutOff struct {
	*storagetest.Memory
	key  string
	left atomic.Int64
	stop func()
}

func (c *cutOff) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	body, err := c.Memory.Open(ctx, key, opts)
	if err != nil || key != c.key {
		return body, err
	}
	return &cutOffBody{body, c}, nil
}

type cutOffBody struct {
	io.ReadCloser
	of *cutOff
}

func (c *cutOffBody) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b[:min(len(b), 4<<10)])
	if c.of.left.Add(-int64(n)) <= 0 {
		c.of.stop()
	}
	return n, err
}

// Who may not write gets a warning; a store that fails while the record is stored is said.
func TestVerifyRecordDenied(t *testing.T) {
	s := store(t)
	for kind, want := range map[error]string{storage.ErrPermission: ResultPassed, storage.ErrUnavailable: ResultPassed} {
		v, err := verifiedOne(t, verifyOptions(unwritable{bucketOf(t, s.all), kind}))
		if v.Result != want || v.Record != "" {
			t.Errorf("%v: %+v", kind, v)
		}
		if kind == storage.ErrPermission && (err != nil || len(v.Warnings) != 1) || kind != storage.ErrPermission && !errors.Is(err, kind) {
			t.Errorf("%v: %v, %q", kind, err, v.Warnings)
		}
	}
}

type unwritable struct {
	*storagetest.Memory
	kind error
}

func (u unwritable) Put(_ context.Context, key string, _ io.Reader, _ storage.PutOptions) (storage.Object, error) {
	return storage.Object{}, &storage.Error{Op: "put", Key: key, Kind: u.kind, Err: errInjected}
}

// A cold dump is said to be cold, or thawed; asking the store needs no thaw.
func TestVerifyCold(t *testing.T) {
	b := lockable()
	m := coldArchive(t, b, "DEEP_ARCHIVE").Manifest
	v, err := verifiedOne(t, verifyOptions(b))
	if v.Result != ResultUndecided || !errors.Is(err, storage.ErrCold) || v.Record != "" || !strings.Contains(err.Error(), "12 hours") {
		t.Errorf("%+v, %v", v, err)
	}
	opts := verifyOptions(b)
	opts.Quick = true
	v, err = verifiedOne(t, opts)
	wantWhole(t, v, err)
	c := &clock{at: map[int]func() error{1: nothing(b.Thawed)}}
	opts = verifyOptions(b)
	opts.Thaw = ThawOptions{Tier: storage.ThawStandard, Wait: true, Sleep: c.sleep}
	v, err = verifiedOne(t, opts)
	wantWhole(t, v, err)
	if v.Tables != m.Totals.Tables {
		t.Errorf("%+v", v)
	}
}
