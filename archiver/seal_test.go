package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// sealed is an archive of db to these recipients, which must come about.
func sealed(t testing.TB, pg *testenv.Cluster, db string, b storage.Bucket, to ...string) *ArchiveResult {
	t.Helper()
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Pgstow: "test", Recipients: recipients(t, to...)})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// ageDecrypt is what a stock age makes of an age file.
func ageDecrypt(t testing.TB, program, identity string, file []byte) ([]byte, error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, "-d", "-i", identity)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(file), &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.Bytes(), nil
}

// mustDecrypt wants what comes out to be what the manifest says.
func mustDecrypt(t testing.TB, program, identity string, o *StoredObject, all map[string][]byte) []byte {
	t.Helper()
	file := all[o.Key]
	if int64(len(file)) != o.Size || hexSum(file) != o.SHA256 || !strings.HasSuffix(o.Key, EncryptedSuffix) {
		t.Errorf("%s: %d bytes are described by %+v", o.Key, len(file), o)
	}
	plain, err := ageDecrypt(t, program, identity, file)
	if err != nil {
		t.Fatalf("%s: %v", o.Key, err)
	}
	if int64(len(plain)) != o.Plain.Size || hexSum(plain) != o.Plain.SHA256 {
		t.Errorf("%s: what is in it has %d bytes, described by %+v", o.Key, len(plain), o.Plain)
	}
	return plain
}

// allObjects are those of a manifest.
func allObjects(m *Manifest) []*StoredObject {
	return []*StoredObject{&m.Objects.Dump, m.Objects.Index, m.Objects.Globals}
}

// An archive is encrypted whole, opens with stock age and the key of each of its
// recipients, and its manifest names no table.
func TestSealedArchive(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	pg.Exec(t, source, `CREATE TABLE sekret (id int); INSERT INTO sekret VALUES (1); CREATE TABLE sekret_cache (id int)`)
	native, ssh, rsa := newKeys(t, "age"), newKeys(t, "ssh"), newKeys(t, "ssh-rsa")
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	args := []string{"--exclude-table-data=sekret_cache", "--no-comments"}
	res, err := Archive(t.Context(), ArchiveOptions{
		Bucket: b, Conn: connTo(t, pg, source), Pgstow: "test", DumpArgs: args, Recipients: recipients(t, native.recipient, ssh.recipient, rsa.recipient),
	})
	if err != nil {
		t.Fatal(err)
	}
	m, all := res.Manifest, content(t, b)
	validate(t, all[m.Key])
	for _, word := range []string{"sekret", "second", "somebody@somewhere"} {
		if bytes.Contains(all[m.Key], []byte(word)) {
			t.Errorf("the manifest has %q in it:\n%s", word, all[m.Key])
		}
	}
	if len(m.Recipients) != 3 || m.Recipients[0] != native.recipient || m.Totals.Bytes != m.Objects.Dump.Size ||
		m.Tools.PgDumpArgs[0] != "--exclude-table-data=#"+hexSum([]byte("sekret_cache"))[:8] || m.Tools.PgDumpArgs[1] != "--no-comments" {
		t.Errorf("manifest is %s", all[m.Key])
	}
	for key, raw := range all {
		if key != m.Key && (!strings.HasSuffix(key, ".age") || !bytes.HasPrefix(raw, []byte("age-encryption.org/v1\n")) || bytes.Contains(raw, []byte("PGDMP"))) {
			t.Errorf("%s is not encrypted", key)
		}
	}

	dump := mustDecrypt(t, "age", native.identity, &m.Objects.Dump, all)
	for _, k := range []keys{ssh, rsa} {
		for _, o := range allObjects(m) {
			mustDecrypt(t, "age", k.identity, o, all)
		}
	}
	if h := m.Objects.Dump.Head; hexSum(dump[:h.Length]) != h.SHA256 {
		t.Error("the head's hash is not over the plain dump")
	}
	ix, err := decodeIndex(mustDecrypt(t, "age", native.identity, m.Objects.Index, all))
	if err != nil {
		t.Fatal(err)
	}
	if ix.Dump.Size != int64(len(dump)) || ix.Dump.SHA256 != hexSum(dump) || ix.Withheld == nil || !slices.Equal(ix.Withheld.PgDumpArgs, args) {
		t.Errorf("the index is about %+v, withheld %+v", ix.Dump, ix.Withheld)
	}
	for _, blk := range ix.Blocks {
		if hexSum(dump[blk.Offset:blk.Offset+blk.Length]) != blk.SHA256 {
			t.Errorf("%s has another hash", blk.label())
		}
	}
	if _, err := ageDecrypt(t, "age", newKeys(t, "age").identity, all[m.Objects.Dump.Key]); err == nil {
		t.Error("somebody else can read it")
	}

	for _, k := range []keys{native, ssh, rsa} {
		ids := identities(t, newKeys(t, "age").identity, k.identity)
		var out bytes.Buffer
		if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Identities: ids, Output: &out}); err != nil || !bytes.Equal(out.Bytes(), dump) {
			t.Errorf("%d bytes came out, %v", out.Len(), err)
		}
	}
	file := filepath.Join(t.TempDir(), "plain.dump")
	if err := os.WriteFile(file, dump, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(testenv.Tool(t, "pg_restore"), "-l", file).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("TABLE DATA public sekret ")) {
		t.Errorf("pg_restore -l: %v\n%s", err, out)
	}

	ids := identities(t, native.identity)
	shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: m.ID})
	if err != nil || shown.Index != nil {
		t.Fatalf("shown without a key: %+v, %v", shown, err)
	}
	if err := shown.LoadTOC(t.Context()); !errors.Is(err, ErrIdentity) {
		t.Errorf("the table of contents without a key: %v", err)
	}
	shown, err = Show(t.Context(), ShowOptions{Bucket: b, Ref: m.ID, Identities: ids})
	if err != nil {
		t.Fatal(err)
	}
	if err := shown.LoadTOC(t.Context()); err != nil || len(shown.TOC) != shown.Index.Entries || !slices.Equal(shown.Told().PgDumpArgs, args) {
		t.Errorf("shown with a key: %v, %d entries, told %+v", err, len(shown.TOC), shown.Told())
	}
}

// Every way of restoring works as it does on plain archives.
func TestRestoreSealed(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	k := newKeys(t, "age")
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	m := sealed(t, pg, source, b, k.recipient).Manifest
	for name, o := range map[string]RestoreOptions{
		"parallel":   {Jobs: 3},
		"one run":    {Restore: dumper.RestoreOptions{Args: []string{"--single-transaction"}}},
		"one table":  {Restore: dumper.RestoreOptions{Tables: []string{"second"}}},
		"globals":    {Globals: true},
		"definition": {Restore: dumper.RestoreOptions{SchemaOnly: true}},
	} {
		t.Run(name, func(t *testing.T) {
			db := pg.CreateDatabase(t)
			o.Bucket, o.Ref, o.Conn, o.Identities = b, m.ID, connTo(t, pg, db), identities(t, k.identity)
			if _, err := Restore(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			want := map[string]int{"first": 1000, "second": 20000, "third": 1000}
			for table, n := range want {
				switch {
				case o.Restore.SchemaOnly:
					n = 0
				case len(o.Restore.Tables) > 0 && table != "second":
					n = -1
				}
				if got := count(t, pg, db, table); got != n {
					t.Errorf("%s has %d rows, want %d", table, got, n)
				}
			}
		})
	}
}

// Keys of every kind, with the age that knows them.
func TestSealedToEveryKind(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	newest := testenv.Tool(t, "age-1.3")
	for name, c := range map[string]struct {
		keys    keys
		program string
	}{
		"post-quantum": {newKeys(t, "pq"), newest},
		"plugin":       {pluginKeys(t), newest},
	} {
		t.Run(name, func(t *testing.T) {
			b := storagetest.NewMemory(storagetest.MemoryOptions{})
			m := sealed(t, pg, source, b, c.keys.recipient).Manifest
			all := content(t, b)
			validate(t, all[m.Key])
			for _, o := range allObjects(m) {
				mustDecrypt(t, c.program, c.keys.identity, o, all)
			}
			db := pg.CreateDatabase(t)
			if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Conn: connTo(t, pg, db), Globals: true, Identities: identities(t, c.keys.identity)}); err != nil {
				t.Fatal(err)
			}
			if got := count(t, pg, db, "second"); got != 20000 {
				t.Errorf("second has %d rows", got)
			}
		})
	}
	t.Setenv("PATH", filepath.Dir(testenv.Tool(t, "pg_dump")))
	_, err := Archive(t.Context(), ArchiveOptions{Bucket: storagetest.NewMemory(storagetest.MemoryOptions{}), Conn: connTo(t, pg, source),
		Recipients: recipients(t, pluginKeysElsewhere(t))})
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "age-plugin-"+pluginName) {
		t.Errorf("a plugin that is not there: %v", err)
	}
}

// pluginKeysElsewhere is a recipient whose plugin is not in the PATH.
func pluginKeysElsewhere(t *testing.T) string {
	path := os.Getenv("PATH")
	k := pluginKeys(t)
	t.Setenv("PATH", path)
	return k.recipient
}

// What stock age has encrypted, header and chunks, is read as our own is.
func TestSealedByStockAge(t *testing.T) {
	s := store(t)
	k := newKeys(t, "age")
	all := map[string][]byte{}
	m := *s.m
	m.Recipients = []string{k.recipient}
	for _, o := range allObjects(&m) {
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "age", "-r", k.recipient)
		cmd.Stdin, cmd.Stdout = bytes.NewReader(s.all[o.Key]), &out
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		plain := s.all[o.Key]
		o.Plain = &Plain{Size: int64(len(plain)), SHA256: hexSum(plain)}
		o.Body = nil // s.all is of a store that takes heads last
		o.Key, o.Size, o.SHA256 = o.Key+EncryptedSuffix, int64(out.Len()), hexSum(out.Bytes())
		all[o.Key] = out.Bytes()
	}
	ix := *s.ix
	ix.Dump.SHA256, ix.Dump.Body = m.Objects.Dump.Plain.SHA256, nil
	raw, err := ix.encode()
	if err != nil {
		t.Fatal(err)
	}
	m.Objects.Index.Plain = &Plain{Size: int64(len(raw)), SHA256: hexSum(raw)}
	if raw, err = seal(raw, recipients(t, k.recipient)); err != nil {
		t.Fatal(err)
	}
	all[m.Objects.Index.Key] = raw
	m.Objects.Index.Size, m.Objects.Index.SHA256 = int64(len(raw)), hexSum(raw)
	if all[m.Key], err = m.encode(); err != nil {
		t.Fatal(err)
	}
	db := s.pg.CreateDatabase(t)
	if _, err := Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, all), Ref: m.ID, Conn: connTo(t, s.pg, db), Globals: true, Identities: identities(t, k.identity)}); err != nil {
		t.Fatal(err)
	}
	if got := count(t, s.pg, db, "second"); got != 20000 {
		t.Errorf("second has %d rows", got)
	}
}

// A dump that fails never makes an age file that anybody takes for whole,
// wherever it ends.
func TestFailedDumpIsNoAgeFile(t *testing.T) {
	k := newKeys(t, "age")
	to, ids := recipients(t, k.recipient), identities(t, k.identity)
	broken := errors.New("pg_dump died")
	for _, n := range []int{0, 1, ageChunk - 1, ageChunk, ageChunk + 1, 2*ageChunk - 1, 2 * ageChunk, 2*ageChunk + 1, 5 * ageChunk} {
		for _, end := range []error{broken, io.ErrUnexpectedEOF, fmt.Errorf("%w: %w", broken, io.EOF), io.EOF} {
			src := io.MultiReader(bytes.NewReader(make([]byte, n)), readFunc(func([]byte) (int, error) { return 0, end }))
			s, err := newSealReader(src, to)
			if err != nil {
				t.Fatal(err)
			}
			file, err := io.ReadAll(s)
			r, openErr := age.Decrypt(bytes.NewReader(file), ids.list...)
			var plain []byte
			if openErr == nil {
				plain, openErr = io.ReadAll(r)
			}
			if end == io.EOF {
				if err != nil || openErr != nil || len(plain) != n {
					t.Errorf("%d bytes and a clean end: %v, %v, %d bytes", n, err, openErr, len(plain))
				}
				continue
			}
			if err == nil || openErr == nil {
				t.Errorf("%d bytes, then %v: read with error %v, and the file decrypts (%v)", n, end, err, openErr)
			}
		}
	}
}

// At a table's place in the age file.
func ageOffset(header int, plain int64) int64 {
	return int64(header) + ageNonce + plain/ageChunk*ageSealed + plain%ageChunk
}

// sealedStore is store, encrypted.
func sealedStore(t *testing.T, k keys) (*stored, int) {
	t.Helper()
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	res := sealed(t, pg, smallSource(t, pg), b, k.recipient)
	shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: res.Manifest.ID, Identities: identities(t, k.identity)})
	if err != nil {
		t.Fatal(err)
	}
	s := &stored{pg: pg, m: shown.Manifest, ix: shown.Index, all: content(t, b)}
	header, err := age.ExtractHeader(bytes.NewReader(s.all[s.m.Objects.Dump.Key]))
	if err != nil {
		t.Fatal(err)
	}
	return s, len(header)
}

// Nothing unproved runs, encrypted or not.
func TestTamperingWithSealed(t *testing.T) {
	k := newKeys(t, "age")
	s, header := sealedStore(t, k)
	ids := identities(t, k.identity)
	second, dump := s.block(t, "second"), s.m.Objects.Dump
	at := func(i int64) func([]byte) []byte { return func(b []byte) []byte { return flip(b, int(i)) } }
	in := func(plain int64) func([]byte) []byte { return at(ageOffset(header, plain)) }
	const dumpName, indexName, globalsName = DumpName + EncryptedSuffix, IndexName + EncryptedSuffix, GlobalsName + EncryptedSuffix
	for _, c := range []struct {
		what, object string
		edit         func([]byte) []byte
		touched      bool
	}{
		{"first byte", dumpName, at(0), false},
		{"the recipient's part", dumpName, at(60), false},
		{"the wrapped key", dumpName, at(90), false},
		{"the header's MAC", dumpName, at(int64(header) - 5), false},
		{"nonce", dumpName, at(int64(header) + 3), false},
		{"head", dumpName, in(dump.Head.Length / 2), false},
		{"middle of a block", dumpName, in(second.Offset + second.Length/2), true},
		{"tag of a chunk", dumpName, at(ageOffset(header, (second.Offset/ageChunk+2)*ageChunk) - 1), true},
		{"last chunk", dumpName, at(-100), false},
		{"last byte", dumpName, at(-1), false},
		{"emptied", dumpName, func([]byte) []byte { return []byte{} }, false},
		{"lengthened", dumpName, func(b []byte) []byte { return append(bytes.Clone(b), 1) }, false},
		{"gone", dumpName, func([]byte) []byte { return nil }, false},
		{"flipped", indexName, at(-1), false},
		{"its header", indexName, at(60), false},
		{"cut", indexName, func(b []byte) []byte { return b[:len(b)/2] }, false},
		{"gone", indexName, func([]byte) []byte { return nil }, false},
		{"flipped", globalsName, at(-1), false},
		{"gone", globalsName, func([]byte) []byte { return nil }, false},
		{"the plain one beside it", ManifestName, func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(DumpName+EncryptedSuffix), []byte(DumpName))
		}, false},
		{"other plain hash of the index", ManifestName, func(b []byte) []byte {
			return bytes.Replace(b, []byte(s.m.Objects.Index.Plain.SHA256), []byte(strings.Repeat("0", 64)), 1)
		}, false},
		{"no recipients", ManifestName, func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"recipients"`), []byte(`"recipientz"`), 1)
		}, false},
	} {
		t.Run(c.object+" "+c.what, func(t *testing.T) {
			db, err := s.restore(t, s.change(c.object, c.edit), RestoreOptions{Globals: true, Identities: ids, Jobs: 2})
			if !errors.Is(err, ErrIntegrity) || c.object != ManifestName && !strings.Contains(err.Error(), c.object) {
				t.Errorf("error is %v, want one about %s", err, c.object)
			}
			if got := count(t, s.pg, db, "second"); c.touched && got > 0 || !c.touched && got >= 0 {
				t.Errorf("second has %d rows", got)
			}
		})
	}
	// Cut anywhere, at the edges of chunks, too: whatever comes out is not
	// taken for the whole.
	cuts := []int64{1, 22, int64(header) - 1, int64(header), int64(header) + ageNonce - 1, dump.Size - 1}
	for at := int64(header) + ageNonce; at < dump.Size; at += ageSealed {
		cuts = append(cuts, at, at+1, at+ageTag, at-1)
	}
	entry := listed(t, bucketOf(t, s.all))[0]
	if len(cuts) < 16 {
		t.Fatalf("the age file of %d bytes has too few chunks", dump.Size)
	}
	for _, n := range cuts {
		all := s.change(dumpName, func(b []byte) []byte { return b[:n] })
		var out bytes.Buffer
		_, err := Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, all), Ref: s.m.ID, Identities: ids, Output: &out})
		if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), dumpName) || out.Len() > 0 {
			t.Errorf("cut to %d bytes: %d came out, error is %v", n, out.Len(), err)
		}
		// Nor if the manifest was made to fit: the last chunk says that it is one.
		m := *s.m
		m.Objects.Dump.Size, m.Objects.Dump.Plain = n, &Plain{Size: max(n-int64(header)-ageNonce-(n/ageSealed+1)*ageTag, 0), SHA256: dump.Plain.SHA256}
		if _, err := openDump(t.Context(), bucketOf(t, all), entry, &m, ids); !errors.Is(err, ErrIntegrity) {
			t.Errorf("cut to %d bytes, and the manifest with it: %v", n, err)
		}
	}
}

// Another archive's objects are not this one's, though the same key opens them.
func TestSwappedSealedObjects(t *testing.T) {
	k := newKeys(t, "age")
	s, _ := sealedStore(t, k)
	other, _ := sealedStore(t, k)
	for _, name := range []string{DumpName, IndexName, GlobalsName} {
		all := maps.Clone(s.all)
		all[keyOf(s.m, name+EncryptedSuffix)] = other.all[keyOf(other.m, name+EncryptedSuffix)]
		db, err := s.restore(t, all, RestoreOptions{Globals: true, Identities: identities(t, k.identity)})
		if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), name) || count(t, s.pg, db, "second") >= 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who cannot read an archive is told whom it is for, and nothing runs.
func TestSealedWithoutTheKey(t *testing.T) {
	k := newKeys(t, "age")
	s, _ := sealedStore(t, k)
	for name, c := range map[string]struct {
		ids  Identities
		want string
	}{
		"no identity":    {Identities{}, "--identity"},
		"a wrong one":    {identities(t, newKeys(t, "age").identity), "none of the identities"},
		"a wrong kind":   {identities(t, newKeys(t, "ssh").identity), "none of the identities"},
		"a post-quantum": {identities(t, newKeys(t, "pq").identity), "none of the identities"},
	} {
		db, err := s.restore(t, s.all, RestoreOptions{Identities: c.ids})
		if errors.Is(err, ErrIntegrity) == c.ids.IsZero() || errors.Is(err, ErrUsage) != c.ids.IsZero() || !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(err.Error(), k.recipient) || !strings.Contains(err.Error(), IndexName) {
			t.Errorf("%s: %v", name, err)
		}
		if count(t, s.pg, db, "second") >= 0 {
			t.Errorf("%s: the target was touched", name)
		}
	}
}

// One table costs its own bytes.
func TestSealedTableCostsItsOwnBytes(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	pg.Exec(t, source, tableSource)
	k := newKeys(t, "age")
	memory := storagetest.NewMemory(storagetest.MemoryOptions{})
	m := sealed(t, pg, source, memory, k.recipient).Manifest
	ids := identities(t, k.identity)
	shown, err := Show(t.Context(), ShowOptions{Bucket: memory, Ref: m.ID, Identities: ids})
	if err != nil {
		t.Fatal(err)
	}
	own := int64(0)
	for _, blk := range shown.Index.Blocks {
		if blk.Name == "item" {
			own = blk.Length
		}
	}
	for _, args := range [][]string{nil, {"--single-transaction"}} {
		db := pg.CreateDatabase(t)
		pg.Exec(t, db, `CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;`)
		b := &countingBucket{Memory: memory}
		res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Conn: connTo(t, pg, db), IntoNonempty: true, Identities: ids,
			Restore: dumper.RestoreOptions{Tables: []string{"app.item"}, Args: args}})
		if err != nil {
			t.Fatal(err)
		}
		read := b.n.Load()
		if own < 100<<10 || read > own+m.Objects.Dump.Head.Length+1<<20 || read >= m.Objects.Dump.Size-1<<20 || res.Bytes > read {
			t.Errorf("%d bytes were read (the result says %d), the table has %d, the head %d, the dump %d", read, res.Bytes, own, m.Objects.Dump.Head.Length, m.Objects.Dump.Size)
		}
		if got, want := text(t, pg, db, `SELECT count(*)::text FROM app.item`), text(t, pg, source, `SELECT count(*)::text FROM app.item`); got != want {
			t.Errorf("%s rows, want %s", got, want)
		}
	}
}

// What must not run is refused before the source or the store is asked anything.
func TestSealingRefusals(t *testing.T) {
	native, pq := newKeys(t, "age"), newKeys(t, "pq")
	nowhere, err := dumper.ParseConn("host=127.0.0.1 port=1 dbname=none")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opts ArchiveOptions
		want string
	}{
		"required, and no recipients": {ArchiveOptions{RequireEncryption: true, Policy: Policy{Name: "sox"}}, `policy "sox" wants`},
		"passwords, not encrypted":    {ArchiveOptions{RolePasswords: true}, "--encrypt-to"},
		"passwords without globals":   {ArchiveOptions{RolePasswords: true, NoGlobals: true, Recipients: recipients(t, native.recipient)}, "--no-globals"},
		"kinds that do not mix":       {ArchiveOptions{Recipients: recipients(t, native.recipient, pq.recipient)}, "post-quantum"},
	} {
		b := &faultyBucket{Memory: storagetest.NewMemory(storagetest.MemoryOptions{})}
		c.opts.Bucket, c.opts.Conn = b, nowhere
		_, err := Archive(t.Context(), c.opts)
		oneLiner(t, err)
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), c.want) || b.calls > 0 {
			t.Errorf("%s: %v after %d operations", name, err, b.calls)
		}
	}
}

// Password hashes are in an archive when they were asked for and it is
// encrypted, and nowhere else.
func TestRolePasswords(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	role := strings.ReplaceAll(source, "-", "_") + "_role"
	pg.Exec(t, source, `SELECT lo_unlink(oid) FROM pg_largeobject_metadata; CREATE ROLE `+role+` LOGIN PASSWORD 'correct horse'`)
	t.Cleanup(func() { pg.Exec(t, "postgres", `DROP ROLE `+role) })
	hash := text(t, pg, source, `SELECT rolpassword FROM pg_authid WHERE rolname = '`+role+`'`)
	k := newKeys(t, "age")
	for _, with := range []bool{false, true} {
		b := storagetest.NewMemory(storagetest.MemoryOptions{})
		res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), Recipients: recipients(t, k.recipient), RolePasswords: with})
		if err != nil {
			t.Fatal(err)
		}
		all := content(t, b)
		validate(t, all[res.Manifest.Key])
		sql := mustDecrypt(t, "age", k.identity, res.Manifest.Objects.Globals, all)
		if !bytes.Contains(sql, []byte(role)) || bytes.Contains(sql, []byte(hash)) != with || res.Manifest.RolePasswords != with {
			t.Errorf("with passwords: %t; manifest says %t, globals are\n%s", with, res.Manifest.RolePasswords, sql)
		}
		for key, raw := range all {
			if bytes.Contains(raw, []byte(hash)) {
				t.Errorf("%s shows the hash", key)
			}
		}
	}
	// Who may not read them is told so, and nothing is stored.
	weak := role + "_weak"
	pg.Exec(t, source, `CREATE ROLE `+weak+` LOGIN PASSWORD 'x'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO `+weak)
	t.Cleanup(func() { pg.Exec(t, source, `DROP OWNED BY `+weak+`; DROP ROLE `+weak) })
	conn, err := dumper.ParseConn("postgres://" + weak + ":x@" + pg.Addr() + "/" + source + "?sslmode=prefer")
	if err != nil {
		t.Fatal(err)
	}
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	_, err = Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: conn, Recipients: recipients(t, k.recipient), RolePasswords: true})
	oneLiner(t, err)
	if !errors.Is(err, dumper.ErrGlobals) || !strings.Contains(err.Error(), "pg_read_all_data") {
		t.Errorf("error is %v", err)
	}
	nothingLeft(t, b)
}

// Every driver takes an encrypted archive, in several parts where there are
// some, and gives stretches of it back.
func TestSealedStores(t *testing.T) {
	pg := testenv.Postgres(t)
	source := longSource(t, pg)
	k := newKeys(t, "age")
	onEveryStore(t, func(t *testing.T, b storage.Bucket) {
		m := sealed(t, pg, source, b, k.recipient).Manifest
		all := content(t, b)
		validate(t, all[m.Key])
		for _, o := range allObjects(m) {
			mustDecrypt(t, "age", k.identity, o, all)
		}
		target := pg.CreateDatabase(t)
		if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: Latest, Conn: connTo(t, pg, target), Identities: identities(t, k.identity)}); err != nil {
			t.Fatal(err)
		}
		if got := count(t, pg, target, "long"); got != 100000 {
			t.Errorf("table long has %d rows", got)
		}
		other := newKeys(t, "ssh")
		if _, err := Rekey(t.Context(), RekeyOptions{Bucket: b, Ref: m.ID, Recipients: recipients(t, other.recipient), Identities: identities(t, k.identity), By: "test", Pgstow: "test"}); err != nil {
			t.Fatal(err)
		}
		shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: m.ID, Identities: identities(t, other.identity)})
		if err != nil || shown.Index == nil {
			t.Errorf("the one who was added: %v", err)
		}
	})
}

// A drill opens what it is given the key of; without one it says nothing of the
// archive.
func TestDrillOfSealed(t *testing.T) {
	k := newKeys(t, "age")
	s, _ := sealedStore(t, k)
	b := bucketOf(t, s.all)
	opts := DrillOptions{Bucket: b, Ref: s.m.ID, Server: connTo(t, s.pg, "postgres"), By: "tester", Pgstow: "test"}
	if res, err := Drill(t.Context(), opts); !errors.Is(err, ErrIdentity) || res != nil || len(objects(t, b)) != len(s.all) {
		t.Errorf("without a key: %+v, %v, objects %q", res, err, objects(t, b))
	}
	opts.Identities = identities(t, k.identity)
	if res, err := Drill(t.Context(), opts); err != nil || res.Result != ResultPassed || res.Tables != 4 {
		t.Errorf("with the key: %+v, %v", res, err)
	}
	// Which options pg_dump had stands in the index, and matters to what it made of a number.
	s.pg.Exec(t, s.m.Source.Database, `CREATE TABLE floats AS SELECT 1 / i::float8 AS f FROM generate_series(3, 5) i`)
	digits, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, s.pg, s.m.Source.Database), Name: "digits", Pgstow: "test",
		DumpArgs: []string{"--extra-float-digits=-3"}, Recipients: recipients(t, k.recipient)})
	if err != nil {
		t.Fatal(err)
	}
	few := opts
	few.Ref = digits.Manifest.ID
	if res, err := Drill(t.Context(), few); err != nil || !res.Complete || res.Rows != 22003 {
		t.Errorf("with few digits: %+v, %v", res, err)
	}
	// What differs is named to who has the key, and not in what lies beside the archive.
	opts.Tables = []string{"second", "third"}
	opts.restored = func(_ context.Context, copied dumper.Conn) error {
		s.pg.Exec(t, copied.Database(), `UPDATE second SET body = 'x' WHERE id = 17000`)
		return nil
	}
	res, err := Drill(t.Context(), opts)
	if !errors.Is(err, ErrIntegrity) || len(res.Differences) != 1 || res.Differences[0].Key != "id=17000" || res.Differences[0].Name != "public.second" {
		t.Fatalf("a changed row: %+v, %v", res, err)
	}
	if record := string(content(t, b)[keyOf(s.m, res.Record)]); !strings.Contains(record, `"differing": 1`) || strings.Contains(record, "public") || strings.Contains(record, "third") || strings.Contains(record, "17000") {
		t.Errorf("the record is\n%s", record)
	}
}
