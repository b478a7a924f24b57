package dumper

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

// source is a database with a little of everything, and its archive.
func source(t *testing.T, pg *testenv.Cluster) (db string, archive []byte) {
	t.Helper()
	db = pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE SCHEMA a; CREATE SCHEMA "B.b";
		CREATE TABLE public.t (id int PRIMARY KEY, word text COLLATE "C"); INSERT INTO t SELECT g, 'w' || g FROM generate_series(1, 1000) g;
		CREATE TABLE a.x (id int REFERENCES public.t); INSERT INTO a.x VALUES (1), (2);
		CREATE TABLE a.y (id int); INSERT INTO a.y VALUES (3);
		CREATE TABLE "B.b".x (id int); CREATE TABLE "B.b"."Y""q" (id int); INSERT INTO "B.b"."Y""q" VALUES (4);
		CREATE VIEW v AS SELECT count(*) FROM t`)
	return db, dumpAll(t, mustParse(t, pg.URL(db)))
}

func restoreInto(t *testing.T, pg *testenv.Cluster, archive []byte, opts RestoreOptions) (string, RestoreResult, error) {
	t.Helper()
	db := pg.CreateDatabase(t)
	res, err := Restore(t.Context(), mustParse(t, pg.URL(db)), realTools(t), bytes.NewReader(archive), opts)
	return db, res, err
}

const tables = `SELECT coalesce(string_agg(n.nspname || '.' || c.relname, ' ' ORDER BY 1, c.oid), '') FROM
	(SELECT * FROM pg_class ORDER BY relname) c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND nspname !~ '^(pg_|information_schema)'`

func TestRestore(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	db, res, err := restoreInto(t, pg, archive, RestoreOptions{})
	if err != nil || len(res.Errors) > 0 {
		t.Fatal(err, res)
	}
	if got := queryString(t, pg, db, "SELECT count(*) || '/' || (SELECT count FROM v) || '/' || (SELECT count(*) FROM a.x) FROM t"); got != "1000/1000/2" {
		t.Errorf("restored %s", got)
	}
}

func TestRestoreTables(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	head := headOf(t, archive)
	for _, tt := range []struct{ tables, schemas, want string }{
		{"t", "", "public.t"},
		{"a.x", "", "a.x"},
		{"a.x a.y", "", "a.x a.y"},
		{`"B.b"."Y""q"`, "", `B.b.Y"q`},
		{"", "a", "a.x a.y"},
	} {
		opts := RestoreOptions{Tables: strings.Fields(tt.tables), Schemas: strings.Fields(tt.schemas)}
		if err := CheckSelection(head, opts); err != nil {
			t.Errorf("%v: %v", tt, err)
			continue
		}
		db := pg.CreateDatabase(t)
		pg.Exec(t, db, `CREATE SCHEMA a; CREATE SCHEMA "B.b"; CREATE TABLE public.t2 (); DROP TABLE public.t2`)
		if tt.schemas == "a" {
			pg.Exec(t, db, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
		}
		if _, err := Restore(t.Context(), mustParse(t, pg.URL(db)), realTools(t), bytes.NewReader(archive), opts); err != nil {
			t.Errorf("%v: %v", tt, err)
			continue
		}
		want := tt.want
		if tt.schemas == "a" {
			want = "public.t " + want
		}
		got := strings.Fields(queryString(t, pg, db, tables))
		if !sameSet(got, strings.Fields(want)) {
			t.Errorf("%v: restored %v, want %s", tt, got, want)
		}
	}
}

func sameSet(a, b []string) bool {
	seen := map[string]int{}
	for _, s := range a {
		seen[s]++
	}
	for _, s := range b {
		seen[s]--
	}
	for _, n := range seen {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestSelectionThatNamesNothing(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	head := headOf(t, archive)
	for _, tt := range []struct {
		opts RestoreOptions
		kind error
		says string
	}{
		{RestoreOptions{Tables: []string{"nothing"}}, ErrSelection, "--table nothing names nothing in the archive"},
		{RestoreOptions{Tables: []string{"T"}}, ErrSelection, "did you mean public.t"},
		{RestoreOptions{Tables: []string{"public.x"}}, ErrSelection, "a.x"},
		{RestoreOptions{Schemas: []string{"A"}}, ErrSelection, "did you mean a"},
		{RestoreOptions{Args: []string{"-t", "nothing"}}, ErrSelection, "nothing"},
		{RestoreOptions{Tables: []string{"a.x", `"B.b"."Y""q"`}}, ErrUsage, `"B.b".x`},
		{RestoreOptions{Tables: []string{"a.x", "t"}}, ErrUsage, "every --table its schema"},
		{RestoreOptions{Tables: []string{"a.x"}, Schemas: []string{"a"}}, ErrUsage, "exclude each other"},
		{RestoreOptions{Tables: []string{`a."x`}}, ErrUsage, "double quotes"},
		{RestoreOptions{Tables: []string{"a.b.c"}}, ErrUsage, "neither TABLE nor"},
	} {
		err := CheckSelection(head, tt.opts)
		wantError(t, err, tt.kind, tt.says)
		wantError(t, err, ErrUsage)
		_, err = InspectTarget(t.Context(), mustParse(t, pg.URL("postgres")), head, tt.opts)
		wantError(t, err, tt.kind)
	}
}

func TestRestoreStopsAtTheFirstError(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE public.t (other int)")
	_, err := Restore(t.Context(), mustParse(t, pg.URL(db)), realTools(t), bytes.NewReader(archive), RestoreOptions{})
	wantError(t, err, ErrRestore, `creating TABLE "public.t"`, `relation "t" already exists`, "CREATE TABLE public.t")
	if got := queryString(t, pg, db, "SELECT count(*)::text FROM pg_class WHERE relname = 'v'"); got != "0" {
		t.Error("it went on behind the error")
	}
}

func TestRestoreKeepsGoing(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE public.t (other int)")
	res, err := Restore(t.Context(), mustParse(t, pg.URL(db)), realTools(t), bytes.NewReader(archive), RestoreOptions{KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Errors) < 3 || !strings.Contains(res.Errors[0], `creating TABLE "public.t": could not execute query: ERROR: relation "t" already exists`) {
		t.Errorf("errors: %q", res.Errors)
	}
	if got := queryString(t, pg, db, "SELECT count(*)::text FROM a.y"); got != "1" {
		t.Error("it did not go on")
	}
}

// A lost connection ends pg_restore for good: going on is not what happened.
func TestKeepGoingDoesNotCoverADeadServer(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	tools := playing(t, "old server, dies", 17)
	_, err := Restore(t.Context(), mustParse(t, pg.URL("postgres")), tools, bytes.NewReader(archive), RestoreOptions{KeepGoing: true})
	wantError(t, err, ErrRestore, "end of file")
}

type failingReader struct {
	r   io.Reader
	err error
}

func (f failingReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

func TestArchiveThatFailsInMidRestore(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	bigDB, c := bigDatabase(t, pg)
	archive := dumpAll(t, c)
	tampered := errors.New("block 3 does not match its hash")
	for _, cut := range []int{0, 10, len(archive) / 2, len(archive)} {
		db := pg.CreateDatabase(t)
		target := mustParse(t, pg.URL(db)).with("application_name", "pgstow-test")
		_, err := Restore(t.Context(), target, realTools(t), failingReader{bytes.NewReader(archive[:cut]), tampered}, RestoreOptions{})
		if !errors.Is(err, tampered) {
			t.Errorf("cut at %d: %v", cut, err)
		}
		eventually(t, "the server process is gone", func() bool { return backends(t, pg, db) == 0 })
		if cut == len(archive)/2 {
			if got := queryString(t, pg, db, "SELECT count(*)::text FROM big"); got != "0" {
				t.Errorf("%s rows of a COPY whose data were refused", got)
			}
		}
	}
	_ = bigDB
}

func TestTruncatedArchive(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	_, _, err := restoreInto(t, pg, archive[:len(archive)-3], RestoreOptions{})
	wantError(t, err, ErrRestore, "end of file")
	_, _, err = restoreInto(t, pg, []byte("not an archive at all, not even nearly"), RestoreOptions{})
	wantError(t, err, ErrRestore, "did not find magic string")
}

func TestCancelledRestore(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, c := bigDatabase(t, pg)
	archive := dumpAll(t, c)
	db := pg.CreateDatabase(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The archive comes to a halt in the middle of a COPY.
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		_, _ = w.Write(archive[:len(archive)/2])
		cancel()
	}()
	go func() { <-ctx.Done(); _ = w.CloseWithError(ctx.Err()) }()
	target := mustParse(t, pg.URL(db)).with("application_name", "pgstow-test")
	_, err := Restore(ctx, target, realTools(t), r, RestoreOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is no context.Canceled", err)
	}
	eventually(t, "the server process is gone", func() bool { return backends(t, pg, db) == 0 })
}

// endless is an archive that never ends; reading it goes on as long as somebody takes it.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestRestoreThatEndsEarly(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	c := mustParse(t, pg.URL("postgres"))
	_, err := Restore(t.Context(), c, playing(t, "early death", 15), endless{}, RestoreOptions{})
	wantError(t, err, ErrRestore, "disk full")
	if strings.Contains(err.Error(), "pipe") {
		t.Errorf("the broken pipe hides the reason: %v", err)
	}
	if _, err := Restore(t.Context(), c, playing(t, "takes little", 15), endless{}, RestoreOptions{}); err != nil {
		t.Errorf("pg_restore had all it needs: %v", err)
	}
	_, err = Restore(t.Context(), c, playing(t, "sigkill", 15), endless{}, RestoreOptions{})
	wantError(t, err, ErrRestore, "SIGKILL")
}

// TestNewerRestoreOnOlderServer: pg_restore 17 sends SET transaction_timeout to a 15 server.
func TestNewerRestoreOnOlderServer(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	c := mustParse(t, pg.URL("postgres"))
	archive := bytes.Repeat([]byte("x"), 1<<20)
	for _, tt := range []struct {
		scene     string
		keepGoing bool
		errs      int
		says      []string // nil: success
	}{
		{"old server", false, 0, nil},
		{"old server", true, 0, nil},
		{"old server, other error", false, 0, []string{"TABLE t postgres", `relation "t" already exists`}},
		{"old server, all errors", true, 1, nil},
		{"old server, dies", false, 0, []string{"end of file"}},
	} {
		res, err := Restore(t.Context(), c, playing(t, tt.scene, 17), bytes.NewReader(archive), RestoreOptions{KeepGoing: tt.keepGoing})
		switch {
		case tt.says == nil && err != nil:
			t.Errorf("%s: %v", tt.scene, err)
		case tt.says != nil:
			wantError(t, err, ErrRestore, tt.says...)
		}
		if len(res.Errors) != tt.errs {
			t.Errorf("%s: errors %q, want %d", tt.scene, res.Errors, tt.errs)
		}
	}
	// The same words from a 15 on a 15 are an error like any other.
	_, err := Restore(t.Context(), c, playing(t, "old server", 15), bytes.NewReader(archive), RestoreOptions{})
	wantError(t, err, ErrRestore, "transaction_timeout")
	_, err = Restore(t.Context(), c, playing(t, "old server", 17), bytes.NewReader(archive), RestoreOptions{Args: []string{"-1"}})
	wantError(t, err, ErrUsage, "one transaction")
}

func TestRestoreCreate(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db, archive := source(t, pg)
	head := headOf(t, archive)
	c := mustParse(t, pg.URL(db))

	target, err := InspectTarget(t.Context(), c, head, RestoreOptions{Create: true})
	if err != nil || len(target.Lacks) != 1 || target.Lacks[0].Kind != "database" {
		t.Errorf("the database exists: %+v, %v", target, err)
	}
	// --clean --create drops it, so it cannot be the one connected to.
	opts := RestoreOptions{Create: true, Clean: true, IfExists: true}
	if target, err = InspectTarget(t.Context(), c, head, opts); err != nil || len(target.Lacks) > 0 {
		t.Errorf("%+v, %v", target, err)
	}
	pg.Exec(t, db, "DROP TABLE a.y")
	if _, err := Restore(t.Context(), c, realTools(t), bytes.NewReader(archive), opts); err != nil {
		t.Fatal(err)
	}
	if got := queryString(t, pg, db, "SELECT count(*)::text FROM a.y"); got != "1" {
		t.Error("not restored")
	}
	// Dropped altogether: the connection string names a database that is to be.
	pg.Exec(t, "postgres", `DROP DATABASE "`+db+`" WITH (FORCE)`)
	opts = RestoreOptions{Create: true}
	if target, err = InspectTarget(t.Context(), c, head, opts); err != nil || len(target.Lacks) > 0 {
		t.Errorf("%+v, %v", target, err)
	}
	if _, err := Restore(t.Context(), c, realTools(t), bytes.NewReader(archive), opts); err != nil {
		t.Fatal(err)
	}
	if got := queryString(t, pg, db, "SELECT count(*)::text FROM a.y"); got != "1" {
		t.Error("not restored")
	}
}
