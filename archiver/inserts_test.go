package archiver

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// INSERTs are committed one by one, so that nothing of a changed block may reach
// pg_restore, in whatever way it is restored.
func TestTamperedInserts(t *testing.T) {
	pg := testenv.Postgres(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	source := pg.CreateDatabase(t)
	// Far more than what is held back of a block, or fits into a pipe.
	pg.Exec(t, source, `CREATE TABLE second AS SELECT i, md5(i::text) || md5((-i)::text) AS v FROM generate_series(1, 150000) i`)
	res, err := Archive(t.Context(), ArchiveOptions{
		Bucket: b, Conn: connTo(t, pg, source), Name: "inserts", DumpArgs: []string{"--rows-per-insert=200"},
	})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: res.Manifest.ID})
	if err != nil {
		t.Fatal(err)
	}
	s := &stored{pg: pg, m: shown.Manifest, ix: shown.Index, all: content(t, b)}
	second := s.block(t, "second")
	broken := s.change(DumpName, func(b []byte) []byte { return flip(b, int(second.Offset+second.Length-3)) })
	for name, opts := range map[string]dumper.RestoreOptions{
		"planned":       {},
		"one run":       {Args: []string{"--disable-triggers"}, Clean: true, IfExists: true},
		"part":          {Tables: []string{"second"}},
		"keeping going": {KeepGoing: true},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := s.restore(t, s.all, RestoreOptions{Restore: opts})
			if err != nil || count(t, pg, db, "second") <= 0 {
				t.Fatalf("unchanged, it restores %d rows: %v", count(t, pg, db, "second"), err)
			}
			db, err = s.restore(t, broken, RestoreOptions{Restore: opts})
			if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "second") {
				t.Errorf("error is %v", err)
			}
			if n := count(t, pg, db, "second"); n > 0 {
				t.Errorf("%d rows of the changed block were committed", n)
			}
		})
	}
}

// With --create, what is said names the database that was created.
func TestRestoreNamesTheCreatedDatabase(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	m := archived(t, pg, source, b).Manifest
	pg.Exec(t, "postgres", `DROP DATABASE "`+source+`"`)
	res, err := Restore(t.Context(), RestoreOptions{
		Bucket: b, Ref: m.ID, Conn: connTo(t, pg, "postgres"), Restore: dumper.RestoreOptions{Create: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := connTo(t, pg, source).String(); res.Target != want {
		t.Errorf("target is said to be %s, it is %s", res.Target, want)
	}
	if n := count(t, pg, source, "first"); n != 1000 {
		t.Errorf("first has %d rows", n)
	}
}
