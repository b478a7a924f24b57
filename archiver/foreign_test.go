package archiver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// hookedBucket lets a test look at each Open of the foreign object.
type hookedBucket struct {
	*storagetest.Memory
	mu     sync.Mutex
	opened []storage.OpenOptions
	onOpen func(n int, o storage.OpenOptions)
}

func (b *hookedBucket) Open(ctx context.Context, key string, o storage.OpenOptions) (io.ReadCloser, error) {
	b.mu.Lock()
	b.opened = append(b.opened, o)
	if b.onOpen != nil {
		b.onOpen(len(b.opened), o)
	}
	b.mu.Unlock()
	return b.Memory.Open(ctx, key, o)
}

// replace puts other content under the key.
func replace(t testing.TB, b storage.Bucket, raw []byte) {
	t.Helper()
	if err := b.Delete(context.Background(), foreignKey, ""); err != nil {
		t.Error(err)
	}
	if _, err := storage.PutBytes(context.Background(), b, foreignKey, raw, storage.PutOptions{}); err != nil {
		t.Error(err)
	}
}

// An object that is replaced in the middle is restored as it was, where the store keeps
// versions, and not beyond what differs, where it does not.
func TestForeignReplaced(t *testing.T) {
	pg := testenv.Postgres(t)
	raw := stockDump(t, pg, smallSource(t, pg), false)
	shown, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: foreignBucket(t, raw), Key: foreignKey})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(shown.Index.Blocks, func(b IndexBlock) bool { return b.Name == "second" })
	other := flip(raw, int(shown.Index.Blocks[i].Offset+shown.Index.Blocks[i].Length/2))

	for _, c := range []struct {
		name     string
		versions bool
		when     int // which Open
		want     string
	}{
		{"versions", true, 1, ""},
		{"versions, later", true, 2, ""},
		{"in the first reading", false, 1, "was replaced while it was read"},
		{"in the second reading", false, 2, "changed after it had been read through"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &hookedBucket{Memory: storagetest.NewMemory(storagetest.MemoryOptions{Versions: c.versions})}
			put(t, b, foreignKey, string(raw))
			b.onOpen = func(n int, _ storage.OpenOptions) {
				if n != c.when {
					return
				}
				if n == 1 && !c.versions {
					return // below: the body is opened first
				}
				replace(t, b.Memory, other)
			}
			opts := RestoreOptions{Bucket: b, Object: foreignKey, Jobs: 1}
			if c.when == 1 && !c.versions {
				once := false
				opts.Progress = func(p Progress) {
					if p.Phase == PhaseIndex && !once {
						once = true
						replace(t, b.Memory, other)
					}
				}
			}
			db := pg.CreateDatabase(t)
			opts.Conn = connTo(t, pg, db)
			_, err := Restore(t.Context(), opts)
			oneLiner(t, err)
			if c.want == "" {
				if err != nil || count(t, pg, db, "second") != 20000 {
					t.Errorf("%v", err)
				}
				return
			}
			if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v", err)
			}
			if n := count(t, pg, db, "second"); n > 0 {
				t.Errorf("second has %d rows", n)
			}
		})
	}
}

// Behind the one reading a table costs no more than itself, and definitions alone cost the head.
func TestForeignReadsWhatItNeeds(t *testing.T) {
	pg := testenv.Postgres(t)
	raw := stockDump(t, pg, smallSource(t, pg), false)
	b := &hookedBucket{Memory: foreignBucket(t, raw)}
	db := pg.CreateDatabase(t)
	res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Conn: connTo(t, pg, db),
		Restore: dumper.RestoreOptions{Tables: []string{"first"}}})
	if err != nil {
		t.Fatal(err)
	}
	if count(t, pg, db, "first") != 1000 || count(t, pg, db, "second") != -1 {
		t.Error("not the table first alone")
	}
	shown, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: b.Memory, Key: foreignKey})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(shown.Index.Blocks, func(b IndexBlock) bool { return b.Name == "first" })
	block := shown.Index.Blocks[i]
	if want := []storage.OpenOptions{{}, {Offset: block.Offset, Length: block.Length}}; !slices.Equal(b.opened, want) {
		t.Errorf("opened %+v, want %+v", b.opened, want)
	}
	if res.Bytes != block.Length+shown.Index.Dump.Head.Length {
		t.Errorf("%d bytes", res.Bytes)
	}

	for name, options := range map[string]dumper.RestoreOptions{
		"definitions":        {SchemaOnly: true},
		"definitions, clean": {SchemaOnly: true, Clean: true, IfExists: true},
	} {
		// The data are cut off: nobody looks at them.
		b := foreignBucket(t, raw[:len(raw)-5])
		db := pg.CreateDatabase(t)
		res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Conn: connTo(t, pg, db), Restore: options})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if count(t, pg, db, "second") != 0 || res.Object.Structure != StructureUnchecked {
			t.Errorf("%s: %+v", name, res.Object)
		}
	}
}

// The plain archive comes out as it lies there, also one of a version to come, which goes into no
// database.
func TestForeignOutput(t *testing.T) {
	pg := testenv.Postgres(t)
	raw := stockDump(t, pg, smallSource(t, pg), true)
	var out bytes.Buffer
	res, err := Restore(t.Context(), RestoreOptions{Bucket: foreignBucket(t, raw), Object: foreignKey, Output: &out})
	if err != nil || !bytes.Equal(out.Bytes(), raw) || res.Object.SHA256 != hexSum(raw) || res.Bytes != int64(len(raw)) {
		t.Errorf("%d of %d bytes, %+v, %v", out.Len(), len(raw), res, err)
	}

	future := bytes.Clone(raw)
	future[6] = 17
	b := foreignBucket(t, future)
	out.Reset()
	res, err = Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Output: &out})
	if err != nil || !bytes.Equal(out.Bytes(), future) || !strings.Contains(strings.Join(res.Warnings, ""), "1.17") || res.Object.Structure != StructureUnchecked {
		t.Errorf("%d of %d bytes, %+v, %v", out.Len(), len(future), res, err)
	}
	db := pg.CreateDatabase(t)
	for what, err := range map[string]error{
		"restore": second(Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Conn: connTo(t, pg, db)})),
		"show":    second(ShowObject(t.Context(), ShowObjectOptions{Bucket: b, Key: foreignKey})),
	} {
		oneLiner(t, err)
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "1.17") || !strings.Contains(err.Error(), "--output - | pg_restore") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if count(t, pg, db, "first") >= 0 {
		t.Error("the target was touched")
	}
}

func TestForeignRefusesBeforeItReads(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	raw := stockDump(t, pg, source, false)
	conn := connTo(t, pg, source)
	b := &hookedBucket{Memory: foreignBucket(t, raw)}
	for name, c := range map[string]struct {
		opts RestoreOptions
		kind error
		want string
	}{
		"no such object":    {RestoreOptions{Object: "nightly/other.dump"}, ErrNoArchive, "there is no object nightly/other.dump"},
		"an id too":         {RestoreOptions{Object: foreignKey, Ref: "latest"}, ErrUsage, "exclude each other"},
		"a label too":       {RestoreOptions{Object: foreignKey, Name: "orders"}, ErrUsage, "exclude each other"},
		"globals":           {RestoreOptions{Object: foreignKey, Globals: true}, ErrUsage, "without --globals"},
		"a key that is bad": {RestoreOptions{Object: "a//b"}, ErrUsage, "empty segment"},
	} {
		c.opts.Bucket, c.opts.Conn = b, conn
		_, err := Restore(t.Context(), c.opts)
		oneLiner(t, err)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(b.opened) > 0 {
		t.Errorf("%d times opened", len(b.opened))
	}
	// A target in use is found before the object is read through.
	var phases []Phase
	_, err := Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Conn: conn, Progress: func(p Progress) { phases = append(phases, p.Phase) }})
	if !errors.Is(err, dumper.ErrTargetInUse) || slices.Contains(phases, PhaseIndex) {
		t.Errorf("%v, phases %v", err, phases)
	}
}

// Interrupted while the object is read through: nothing is left behind, in the target or beside it.
func TestForeignInterrupted(t *testing.T) {
	pg := testenv.Postgres(t)
	raw := stockDump(t, pg, smallSource(t, pg), false)
	interrupt := errors.New("interrupted by the user")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	db := pg.CreateDatabase(t)
	_, err := Restore(ctx, RestoreOptions{Bucket: foreignBucket(t, raw), Object: foreignKey, Conn: connTo(t, pg, db), Progress: func(p Progress) {
		if p.Phase == PhaseIndex {
			cancel(interrupt)
		}
	}})
	oneLiner(t, err)
	var touched *PartialError
	if !errors.Is(err, interrupt) || errors.As(err, &touched) {
		t.Errorf("error is %v", err)
	}
	if n := count(t, pg, db, "first"); n >= 0 || dumpSessions(t, pg, db) > 0 {
		t.Errorf("the target was touched: %d", n)
	}
}

// An archive of pgstow's own that lost its manifest or index is an object like any other; one that
// has them is better named by its id.
func TestForeignOwnDump(t *testing.T) {
	s := store(t)
	key := keyOf(s.m, DumpName)
	db := s.pg.CreateDatabase(t)
	all := map[string][]byte{key: s.all[key]}
	res, err := Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, all), Object: key, Conn: connTo(t, s.pg, db)})
	if err != nil || count(t, s.pg, db, "second") != 20000 {
		t.Fatal(err)
	}
	if all := strings.Join(res.Warnings, "\n"); !strings.Contains(all, "the dump of archive "+s.m.ID) {
		t.Errorf("warnings are %s", all)
	}
	// The pass finds what was stored.
	shown, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: bucketOf(t, all), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(shown.Index.Blocks, s.ix.Blocks) || !slices.Equal(shown.Index.LargeObjects, s.ix.LargeObjects) {
		t.Errorf("found %+v, stored %+v", shown.Index, s.ix)
	}
}
