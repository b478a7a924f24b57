package archiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// stored is one archive's content, and what describes it.
type stored struct {
	pg  *testenv.Cluster
	m   *Manifest
	ix  *Index
	all map[string][]byte
}

func store(t *testing.T) *stored {
	t.Helper()
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	res := archived(t, pg, smallSource(t, pg), b)
	shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: res.Manifest.ID})
	if err != nil {
		t.Fatal(err)
	}
	return &stored{pg: pg, m: shown.Manifest, ix: shown.Index, all: content(t, b)}
}

// block is where the data of a table lie in the dump.
func (s *stored) block(t *testing.T, table string) IndexBlock {
	t.Helper()
	for _, b := range s.ix.Blocks {
		if b.Name == table {
			return b
		}
	}
	t.Fatalf("no block of %s in %+v", table, s.ix.Blocks)
	return IndexBlock{}
}

// change gives the content with the object replaced, or gone when raw is nil.
func (s *stored) change(name string, edit func([]byte) []byte) map[string][]byte {
	all := maps.Clone(s.all)
	key := keyOf(s.m, name)
	if raw := edit(all[key]); raw != nil {
		all[key] = raw
	} else {
		delete(all, key)
	}
	return all
}

func (s *stored) restore(t *testing.T, all map[string][]byte, opts RestoreOptions) (db string, err error) {
	t.Helper()
	db = s.pg.CreateDatabase(t)
	opts.Bucket, opts.Ref, opts.Conn = bucketOf(t, all), s.m.ID, connTo(t, s.pg, db)
	_, err = Restore(t.Context(), opts)
	oneLiner(t, err)
	return db, err
}

// Nothing unproved runs: whatever was changed in the bucket, the restore fails
// as a matter of integrity, and the target holds nothing that was changed.
func TestTampering(t *testing.T) {
	s := store(t)
	second := s.block(t, "second")
	head := s.m.Objects.Dump.Head.Length
	at := func(i int64) func([]byte) []byte { return func(b []byte) []byte { return flip(b, int(i)) } }
	for _, c := range []struct {
		what, object string
		edit         func([]byte) []byte
		touched      bool // pg_restore may have had something proved before
	}{
		{"first byte", DumpName, at(0), false},
		{"middle of the head", DumpName, at(head / 2), false},
		{"last byte of the head", DumpName, at(head - 1), false},
		{"type of a block", DumpName, at(second.Offset), true},
		{"middle of a block", DumpName, at(second.Offset + second.Length/2), true},
		{"last byte of a block", DumpName, at(second.Offset + second.Length - 1), true},
		{"last byte", DumpName, at(s.m.Objects.Dump.Size - 1), true},
		{"cut in a block", DumpName, func(b []byte) []byte { return b[:second.Offset+100] }, false},
		{"cut between blocks", DumpName, func(b []byte) []byte { return b[:second.Offset] }, false},
		{"cut in the head", DumpName, func(b []byte) []byte { return b[:head/2] }, false},
		{"emptied", DumpName, func(b []byte) []byte { return []byte{} }, false},
		{"lengthened", DumpName, func(b []byte) []byte { return append(bytes.Clone(b), 1) }, false},
		{"gone", DumpName, func([]byte) []byte { return nil }, false},
		{"flipped", IndexName, at(-1), false},
		{"cut", IndexName, func(b []byte) []byte { return b[:len(b)/2] }, false},
		{"lengthened", IndexName, func(b []byte) []byte { return append(bytes.Clone(b), 0) }, false},
		{"gone", IndexName, func([]byte) []byte { return nil }, false},
		{"flipped", GlobalsName, at(20), false},
		{"gone", GlobalsName, func([]byte) []byte { return nil }, false},
		{"cut", ManifestName, func(b []byte) []byte { return b[:len(b)/2] }, false},
		{"other hash of the head", ManifestName, func(b []byte) []byte {
			return bytes.Replace(b, []byte(s.m.Objects.Dump.Head.SHA256), []byte(strings.Repeat("0", 64)), 1)
		}, false},
		{"other hash of the index", ManifestName, func(b []byte) []byte {
			return bytes.Replace(b, []byte(s.m.Objects.Index.SHA256), []byte(strings.Repeat("0", 64)), 1)
		}, false},
	} {
		t.Run(c.object+" "+c.what, func(t *testing.T) {
			db, err := s.restore(t, s.change(c.object, c.edit), RestoreOptions{Globals: true})
			if !errors.Is(err, ErrIntegrity) || c.object != ManifestName && !strings.Contains(err.Error(), c.object) {
				t.Errorf("error is %v, want one about %s", err, c.object)
			}
			first, second := count(t, s.pg, db, "first"), count(t, s.pg, db, "second")
			if !c.touched {
				if first >= 0 || second >= 0 {
					t.Errorf("the target was touched")
				}
				return
			}
			// How far it came is pg_restore's affair, but not beyond the fault.
			if first > 0 && first != 1000 || second > 0 && c.what != "last byte" {
				t.Errorf("first has %d rows, second %d: unproved data was committed", first, second)
			}
			if !strings.Contains(err.Error(), "partly restored") || !strings.Contains(err.Error(), db) ||
				!strings.Contains(err.Error(), "do not rely on this one") || strings.Contains(err.Error(), "repeat") {
				t.Errorf("does not say what is in the target, and what to do: %v", err)
			}
		})
	}
}

// The plain archive is held to the same hashes.
func TestOutputOfATamperedArchive(t *testing.T) {
	s := store(t)
	second := s.block(t, "second")
	all := s.change(DumpName, func(b []byte) []byte { return flip(b, int(second.Offset+10)) })
	var out bytes.Buffer
	_, err := Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, all), Ref: s.m.ID, Output: &out})
	if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "second") {
		t.Errorf("error is %v", err)
	}
	if int64(out.Len()) >= second.Offset+second.Length {
		t.Errorf("%d bytes came out, the tampered block ends at %d", out.Len(), second.Offset+second.Length)
	}
	full := errors.New("no space")
	_, err = Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, s.all), Ref: s.m.ID, Output: failingWriter{full}})
	if !errors.Is(err, full) || errors.Is(err, ErrIntegrity) {
		t.Errorf("a full disk: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// An archive's objects moved under another key are refused, and so is a
// manifest of a format to come.
func TestForeignManifests(t *testing.T) {
	s := store(t)
	other := Dir{Policy: DefaultPolicy, Label: "other", Time: s.m.Started.Truncate(1e9), ID: "a0000001"}
	moved := map[string][]byte{}
	for key, raw := range s.all {
		_, name, _ := ParseKey(key)
		moved[other.Key(name)] = raw
	}
	_, err := Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, moved), Ref: "a0000001", Output: io.Discard})
	if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "copied or moved") {
		t.Errorf("moved: %v", err)
	}
	// Only the other objects exchanged: the index names another archive.
	second := store(t)
	mixed := maps.Clone(s.all)
	for _, name := range []string{DumpName, IndexName} {
		mixed[keyOf(s.m, name)] = second.all[keyOf(second.m, name)]
	}
	if _, err := s.restore(t, mixed, RestoreOptions{}); !errors.Is(err, ErrIntegrity) {
		t.Errorf("mixed: %v", err)
	}
	newer := s.change(ManifestName, func(b []byte) []byte { return bytes.Replace(b, []byte("pgstow/1"), []byte("pgstow/2"), 1) })
	if _, err := s.restore(t, newer, RestoreOptions{}); !errors.Is(err, ErrFormat) || errors.Is(err, ErrIntegrity) {
		t.Errorf("a higher format: %v", err)
	}
	entries, err := List(t.Context(), bucketOf(t, newer), ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := LoadManifests(t.Context(), bucketOf(t, newer), entries); err != nil || entries[0].Manifest != nil || entries[0].ManifestError == "" {
		t.Errorf("a list with a higher format in it: %+v, %v", entries, err)
	}
}

// A download that breaks is continued by the store's driver; one that cannot
// be is no success.
func TestRestoreLosesTheStore(t *testing.T) {
	s := store(t)
	for at := 1; ; at++ {
		inner := bucketOf(t, s.all)
		b := &faultyBucket{Memory: inner, mode: gone, at: at}
		db := s.pg.CreateDatabase(t)
		_, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: s.m.ID, Conn: connTo(t, s.pg, db)})
		if b.last == "" {
			if err != nil {
				t.Error(err)
			}
			if at != 10 { // list, open manifest, index, coldness, size, head, before second, second, behind it
				t.Errorf("%d operations", at-1)
			}
			break
		}
		if !errors.Is(err, errInjected) || !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, ErrIntegrity) {
			t.Errorf("%s: %v", b.last, err)
		}
		if got := count(t, s.pg, db, "first"); at < 7 && got >= 0 || got > 0 && got != 1000 {
			t.Errorf("%s: the target was touched, table first has %d rows", b.last, got)
		}
		if at >= 7 && !strings.Contains(err.Error(), "tables): drop and create it again") {
			t.Errorf("does not say what is in the target: %v", err)
		}
	}
	body := &breakingBucket{Memory: bucketOf(t, s.all), after: s.block(t, "second").Offset + 1000}
	db := s.pg.CreateDatabase(t)
	_, err := Restore(t.Context(), RestoreOptions{Bucket: body, Ref: s.m.ID, Conn: connTo(t, s.pg, db)})
	if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), "partly restored") {
		t.Errorf("broken in the middle: %v", err)
	}
	if got := count(t, s.pg, db, "second"); got > 0 {
		t.Errorf("table second has %d rows", got)
	}
}

// breakingBucket ends bodies of the dump with an error at one byte of it.
type breakingBucket struct {
	*storagetest.Memory
	after int64
}

func (b *breakingBucket) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	body, err := b.Memory.Open(ctx, key, opts)
	if err != nil || !strings.HasSuffix(key, DumpName) || opts.Length > 0 && opts.Offset+opts.Length <= b.after || opts.Offset > b.after {
		return body, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(body, b.after-opts.Offset), failingReader{}), body}, nil
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errInjected }

// The manifest's version is read, whatever was put over it.
func TestRestoreTakesTheManifestsVersion(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{Versions: true})
	res := archived(t, pg, smallSource(t, pg), b)
	for _, name := range []string{DumpName, IndexName, GlobalsName, ManifestName} {
		key := keyOf(res.Manifest, name)
		if err := b.Delete(t.Context(), key, ""); err != nil {
			t.Fatal(err)
		}
		put(t, b, key, "something else")
	}
	db := pg.CreateDatabase(t)
	if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: res.Manifest.ID, Conn: connTo(t, pg, db), Globals: true}); err != nil {
		t.Fatal(err)
	}
	if got := count(t, pg, db, "second"); got != 20000 {
		t.Errorf("table second has %d rows", got)
	}
}

func TestRestoreTargetInUse(t *testing.T) {
	s := store(t)
	b := bucketOf(t, s.all)
	db := s.pg.CreateDatabase(t)
	s.pg.Exec(t, db, `CREATE TABLE mine (id int); INSERT INTO mine VALUES (1)`)
	opts := RestoreOptions{Bucket: b, Ref: s.m.ID, Conn: connTo(t, s.pg, db)}
	_, err := Restore(t.Context(), opts)
	if !errors.Is(err, dumper.ErrTargetInUse) || !strings.Contains(err.Error(), "--into-nonempty") {
		t.Errorf("error is %v", err)
	}
	oneLiner(t, err)
	if got := count(t, s.pg, db, "first"); got >= 0 {
		t.Error("the target was touched")
	}
	opts.IntoNonempty = true
	if _, err := Restore(t.Context(), opts); err != nil {
		t.Error(err)
	}
	opts.IntoNonempty = false
	opts.Restore = dumper.RestoreOptions{Clean: true, IfExists: true}
	if _, err := Restore(t.Context(), opts); err != nil {
		t.Error(err)
	}
	if a, b := count(t, s.pg, db, "second"), count(t, s.pg, db, "mine"); a != 20000 || b != 1 {
		t.Errorf("second has %d rows, mine %d", a, b)
	}
}

// What the target lacks is listed before any SQL runs; globals bring the roles.
func TestRestoreLacks(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE ROLE lacks_owner; CREATE ROLE lacks_reader;
		CREATE TABLE owned (id int); ALTER TABLE owned OWNER TO lacks_owner; GRANT SELECT ON owned TO lacks_reader`)
	t.Cleanup(func() { pg.Exec(t, "postgres", `DROP ROLE IF EXISTS lacks_owner, lacks_reader`) })
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	res := archived(t, pg, db, b)
	pg.Exec(t, db, `DROP OWNED BY lacks_owner, lacks_reader; DROP ROLE lacks_owner, lacks_reader`)

	target := pg.CreateDatabase(t)
	opts := RestoreOptions{Bucket: b, Ref: res.Manifest.ID, Conn: connTo(t, pg, target)}
	_, err := Restore(t.Context(), opts)
	var lacks *LacksError
	if !errors.As(err, &lacks) || !errors.Is(err, dumper.ErrPreflight) {
		t.Fatalf("error is %v", err)
	}
	oneLiner(t, err)
	text := strings.Join(lacks.Lines(), "\n")
	if !strings.Contains(text, "lacks_owner") || !strings.Contains(text, "lacks_reader") || !strings.Contains(text, "--no-owner") {
		t.Errorf("lacks are %s", text)
	}
	if got := count(t, pg, target, "owned"); got >= 0 {
		t.Error("the target was touched")
	}
	opts.Globals = true
	back, err := Restore(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if back.Globals == nil || back.Globals.Executed == 0 {
		t.Errorf("globals: %+v", back.Globals)
	}
	if got := count(t, pg, target, "owned"); got != 0 {
		t.Errorf("table owned has %d rows", got)
	}
	third := pg.CreateDatabase(t)
	pg.Exec(t, target, `DROP OWNED BY lacks_owner, lacks_reader; DROP ROLE lacks_owner, lacks_reader`)
	opts = RestoreOptions{Bucket: b, Ref: res.Manifest.ID, Conn: connTo(t, pg, third),
		Restore: dumper.RestoreOptions{NoOwner: true, NoPrivileges: true}}
	if _, err := Restore(t.Context(), opts); err != nil {
		t.Error(err)
	}
}

// A part of an archive: what was not asked for is not read, and what was is proved.
func TestRestorePart(t *testing.T) {
	s := store(t)
	db, err := s.restore(t, s.all, RestoreOptions{Restore: dumper.RestoreOptions{SchemaOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	if got := count(t, s.pg, db, "second"); got != 0 {
		t.Errorf("table second has %d rows", got)
	}
	db, err = s.restore(t, s.all, RestoreOptions{Restore: dumper.RestoreOptions{Tables: []string{"first"}}})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := count(t, s.pg, db, "first"), count(t, s.pg, db, "second"); a != 1000 || b != -1 {
		t.Errorf("first has %d rows, second %d", a, b)
	}
	if _, err = s.restore(t, s.all, RestoreOptions{Restore: dumper.RestoreOptions{Args: []string{"--file=x"}}}); !errors.Is(err, dumper.ErrUsage) {
		t.Errorf("a refused option: %v", err)
	}
}

// An archive of a version to come has no index: its whole hash is all there
// is, and it is compared.
func TestRestoreWithoutIndex(t *testing.T) {
	s := store(t)
	m := *s.m
	m.Structure = StructureUnchecked
	m.Objects.Index = nil
	m.Objects.Dump.SHA256 = hexSum(s.all[keyOf(s.m, DumpName)])
	m.Objects.Dump.Head, m.Objects.Dump.Body = nil, nil
	raw, err := json.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	all := s.change(IndexName, func([]byte) []byte { return nil })
	all[s.m.Key] = raw
	validate(t, raw)
	db := s.pg.CreateDatabase(t)
	res, err := Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, all), Ref: s.m.ID, Conn: connTo(t, s.pg, db)})
	if err != nil || len(res.Warnings) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := count(t, s.pg, db, "second"); got != 20000 {
		t.Errorf("table second has %d rows", got)
	}
	key := keyOf(s.m, DumpName)
	all[key] = flip(all[key], -1)
	// A partial error would say that pg_restore has had something.
	db, err = s.restore(t, all, RestoreOptions{})
	if !errors.Is(err, ErrIntegrity) || errors.As(err, new(*PartialError)) || count(t, s.pg, db, "first") != -1 {
		t.Errorf("tampered with: %v; %d rows of the first table are there", err, count(t, s.pg, db, "first"))
	}
}

func TestRestoreInterrupted(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	res := archived(t, pg, longSource(t, pg), b)
	db := pg.CreateDatabase(t)
	interrupt := errors.New("interrupted by the user")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	_, err := Restore(ctx, RestoreOptions{Bucket: b, Ref: res.Manifest.ID, Conn: connTo(t, pg, db), Progress: func(p Progress) {
		if p.Phase == PhaseData {
			cancel(interrupt)
		}
	}})
	if !errors.Is(err, interrupt) {
		t.Errorf("error is %v", err)
	}
	if n := dumpSessions(t, pg, db); n > 0 {
		t.Errorf("%d sessions are left", n)
	}
}
