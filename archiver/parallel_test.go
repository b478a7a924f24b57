package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// commented are comments on what follows data in an archive: they have no
// section of their own there.
const commented = `
	COMMENT ON INDEX shop.customer_lower_name IS 'on an index';
	COMMENT ON INDEX shop.customer_pkey IS 'on the index of a key';
	COMMENT ON CONSTRAINT customer_pkey ON shop.customer IS 'on a key';
	COMMENT ON CONSTRAINT purchase_customer_fkey ON shop.purchase IS 'on a foreign key';
	COMMENT ON TRIGGER touch ON shop.customer IS 'on a trigger';
	COMMENT ON POLICY own ON shop.purchase IS 'on a policy';
	COMMENT ON MATERIALIZED VIEW shop.spending IS 'on a materialized view';
	COMMENT ON INDEX shop.event_pkey IS 'on a partitioned index';`

const comments = `SELECT count(*) FROM pg_description WHERE objoid >= 16384`

// A database that is not a toy comes back equal, however many workers load it,
// and by the ways that options force.
func TestParallelRestore(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(source), sample.Options{}); err != nil {
		t.Fatal(err)
	}
	pg.Exec(t, source, commented)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	id := archived(t, pg, source, b).Manifest.ID
	for _, c := range []struct {
		name    string
		jobs    int
		options dumper.RestoreOptions
		want    int // jobs
	}{
		{"one job", 1, dumper.RestoreOptions{}, 1},
		{"two jobs", 2, dumper.RestoreOptions{}, 2},
		{"four jobs", 4, dumper.RestoreOptions{}, 4},
		{"options that do not matter", 2, dumper.RestoreOptions{NoOwner: true, Args: []string{"--no-tablespaces", "-v"}}, 2},
		{"keep going", 2, dumper.RestoreOptions{KeepGoing: true}, 2},
		{"clean", 2, dumper.RestoreOptions{Clean: true, IfExists: true}, 0},
		{"single transaction", 2, dumper.RestoreOptions{Args: []string{"-1"}}, 0},
		{"schemas", 2, dumper.RestoreOptions{Schemas: []string{"shop", "Bücher & Söhne", "public"}}, 2},
		{"schemas in a single transaction", 2, dumper.RestoreOptions{Schemas: []string{"shop", "Bücher & Söhne", "public"}, Args: []string{"-1"}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := pg.CreateDatabase(t)
			res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: id, Conn: connTo(t, pg, db), Jobs: c.jobs, Restore: c.options})
			if err != nil {
				t.Fatal(err)
			}
			if res.Jobs != c.want || len(res.Errors)+len(res.Skipped) > 0 {
				t.Errorf("jobs %d, errors %v, skipped %v", res.Jobs, res.Errors, res.Skipped)
			}
			sameDatabase(t, pg, source, db, len(c.options.Schemas) > 0)
		})
	}
}

// sameDatabase compares two databases; large objects belong to no schema.
func sameDatabase(t *testing.T, pg *testenv.Cluster, source, db string, noObjects bool) {
	t.Helper()
	diffs, err := sample.Compare(t.Context(), pg.URL(source), pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diffs {
		if !d.Equal() && !(noObjects && d.Kind == "large objects") {
			t.Errorf("differs: %+v", d)
		}
	}
	if a, b := text(t, pg, source, comments), text(t, pg, db, comments); a != b {
		t.Errorf("%s comments, the source has %s", b, a)
	}
}

// text is a query's one value.
func text(t testing.TB, pg *testenv.Cluster, db, query string) (s string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), `SELECT coalesce(x::text, '') FROM (`+query+`) AS q (x)`).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Definitions alone, then data alone, into a database that the restore makes.
func TestParallelRestoreInParts(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(source), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	pg.Exec(t, source, `COMMENT ON DATABASE `+pgx.Identifier{source}.Sanitize()+` IS 'the shop';
		ALTER DATABASE `+pgx.Identifier{source}.Sanitize()+` SET work_mem = '7MB'`)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	id := archived(t, pg, source, b).Manifest.ID
	before, err := sample.Snapshot(t.Context(), pg.URL(source))
	if err != nil {
		t.Fatal(err)
	}

	db := pg.CreateDatabase(t)
	counted := &countingBucket{Memory: b}
	opts := RestoreOptions{Bucket: counted, Ref: id, Conn: connTo(t, pg, db), Jobs: 2, Restore: dumper.RestoreOptions{SchemaOnly: true}}
	res, err := Restore(t.Context(), opts)
	if err != nil || res.Jobs != 2 {
		t.Fatal(err, res)
	}
	if got, head := counted.n.Load(), res.Manifest.Objects.Dump.Head.Length; got != head {
		t.Errorf("%d bytes of the dump were read for the definitions, its head has %d", got, head)
	}
	if got := count(t, pg, db, "shop.customer"); got != 0 {
		t.Errorf("table customer has %d rows", got)
	}
	opts.Restore, opts.IntoNonempty = dumper.RestoreOptions{DataOnly: true, Args: []string{"--disable-triggers"}}, true
	if res, err = Restore(t.Context(), opts); err != nil || res.Jobs != 2 {
		t.Fatal(err, res)
	}
	// The materialized view was refreshed when there was nothing to see.
	pg.Exec(t, db, `REFRESH MATERIALIZED VIEW shop.spending`)
	sameDatabase(t, pg, source, db, false)

	// Over the source itself: dropped and created again.
	opts = RestoreOptions{Bucket: b, Ref: id, Conn: connTo(t, pg, "postgres"), Jobs: 2,
		Restore: dumper.RestoreOptions{Create: true, Clean: true, IfExists: true}}
	if res, err = Restore(t.Context(), opts); err != nil || res.Jobs != 2 {
		t.Fatal(err, res)
	}
	after, err := sample.Snapshot(t.Context(), pg.URL(source))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before, after) {
		t.Errorf("before: %v\nafter:  %v", before, after)
	}
	if got := text(t, pg, source, `SELECT current_setting('work_mem') || shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()`); got != "7MBthe shop" {
		t.Errorf("the database's own properties: %q", got)
	}
}

// countingBucket counts what is read of dumps, and lets a test look at each Open.
type countingBucket struct {
	*storagetest.Memory
	n      atomic.Int64
	onOpen func(ctx context.Context, opts storage.OpenOptions) error
}

func (b *countingBucket) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if !strings.HasSuffix(strings.TrimSuffix(key, EncryptedSuffix), DumpName) {
		return b.Memory.Open(ctx, key, opts)
	}
	if b.onOpen != nil {
		if err := b.onOpen(ctx, opts); err != nil {
			return nil, err
		}
	}
	body, err := b.Memory.Open(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(body, countWriter{&b.n}), body}, nil
}

type countWriter struct{ n *atomic.Int64 }

func (w countWriter) Write(p []byte) (int, error) {
	w.n.Add(int64(len(p)))
	return len(p), nil
}

// threeTables is a source whose three tables each make a job of their own.
func threeTables(t *testing.T) *stored {
	t.Helper()
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	for _, name := range []string{"first", "second", "third"} {
		pg.Exec(t, db, fmt.Sprintf(`CREATE TABLE %s (id int PRIMARY KEY, body text);
			INSERT INTO %[1]s SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 4000) i`, name))
	}
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	res := archived(t, pg, db, b)
	shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: res.Manifest.ID})
	if err != nil {
		t.Fatal(err)
	}
	return &stored{pg: pg, m: shown.Manifest, ix: shown.Index, all: content(t, b)}
}

// A table that was tampered with stays empty and ends the other workers, one of
// which would otherwise wait for ever.
func TestParallelRestoreStops(t *testing.T) {
	s := threeTables(t)
	second, third := s.block(t, "second"), s.block(t, "third")
	all := s.change(DumpName, func(b []byte) []byte { return flip(b, int(second.Offset+second.Length-100)) })
	waiting := make(chan struct{})
	b := &countingBucket{Memory: bucketOf(t, all)}
	b.onOpen = func(ctx context.Context, o storage.OpenOptions) error {
		switch o.Offset {
		case third.Offset:
			close(waiting)
			<-ctx.Done()
			return context.Cause(ctx)
		case second.Offset:
			<-waiting
		}
		return nil
	}
	db := s.pg.CreateDatabase(t)
	_, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: s.m.ID, Conn: connTo(t, s.pg, db), Jobs: 2})
	oneLiner(t, err)
	if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "table public.second") {
		t.Fatalf("error is %v", err)
	}
	if !strings.Contains(err.Error(), "the data of 1 of 3 tables") && !strings.Contains(err.Error(), "the data of 0 of 3 tables") {
		t.Errorf("does not say what is in the target: %v", err)
	}
	if n := dumpSessions(t, s.pg, db); n > 0 {
		t.Errorf("%d sessions are left", n)
	}
	if second, third := count(t, s.pg, db, "second"), count(t, s.pg, db, "third"); second != 0 || third != 0 {
		t.Errorf("second has %d rows, third %d", second, third)
	}
}

// A pg_restore that is killed ends the others, and the error names its table.
func TestParallelRestoreKilled(t *testing.T) {
	s := threeTables(t)
	second, third := s.block(t, "second"), s.block(t, "third")
	waiting := make(chan struct{})
	b := &countingBucket{Memory: bucketOf(t, s.all)}
	b.onOpen = func(ctx context.Context, o storage.OpenOptions) error {
		switch o.Offset {
		case third.Offset:
			close(waiting)
			<-ctx.Done()
			return context.Cause(ctx)
		case second.Offset:
			<-waiting
			if killed := killChildren(t, "pg_restore"); killed != 2 {
				t.Errorf("%d pg_restore were running", killed)
			}
		}
		return nil
	}
	db := s.pg.CreateDatabase(t)
	_, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: s.m.ID, Conn: connTo(t, s.pg, db), Jobs: 2})
	oneLiner(t, err)
	if !errors.Is(err, dumper.ErrRestore) || !strings.Contains(err.Error(), "table public.second") || !strings.Contains(err.Error(), "SIGKILL") {
		t.Errorf("error is %v", err)
	}
	if n := dumpSessions(t, s.pg, db); n > 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// killChildren kills this process's own children of that name.
func killChildren(t *testing.T, name string) (killed int) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Error(err)
	}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, rest, _ := strings.Cut(string(raw), " (")
		comm, rest, _ := strings.Cut(rest, ") ")
		if fields := strings.Fields(rest); comm == name && fields[1] == strconv.Itoa(os.Getpid()) && fields[0] != "Z" {
			n, err := strconv.Atoi(pid)
			if err == nil {
				err = syscall.Kill(n, syscall.SIGKILL)
			}
			if err != nil {
				t.Error(err)
			}
			killed++
		}
	}
	return killed
}

// An interrupted restore ends its sessions and says what it leaves.
func TestParallelRestoreInterrupted(t *testing.T) {
	s := threeTables(t)
	third := s.block(t, "third")
	interrupt := errors.New("interrupted by the user")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	b := &countingBucket{Memory: bucketOf(t, s.all)}
	b.onOpen = func(ctx context.Context, o storage.OpenOptions) error {
		if o.Offset == third.Offset {
			cancel(interrupt)
		}
		return nil
	}
	db := s.pg.CreateDatabase(t)
	_, err := Restore(ctx, RestoreOptions{Bucket: b, Ref: s.m.ID, Conn: connTo(t, s.pg, db), Jobs: 1})
	oneLiner(t, err)
	if !errors.Is(err, interrupt) || !strings.Contains(err.Error(), "the data of 2 of 3 tables") || !strings.Contains(err.Error(), "drop and create it again") {
		t.Errorf("error is %v", err)
	}
	if n := dumpSessions(t, s.pg, db); n > 0 {
		t.Errorf("%d sessions are left", n)
	}
	// What was loaded before has its key already.
	if got := text(t, s.pg, db, `SELECT string_agg(conrelid::regclass::text, ' ' ORDER BY conrelid) FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace`); got != "first second" {
		t.Errorf("keys on %q", got)
	}
}

// An error of the target is passed over where that was asked for, and is told.
func TestParallelRestoreKeepsGoing(t *testing.T) {
	s := threeTables(t)
	db := s.pg.CreateDatabase(t)
	s.pg.Exec(t, db, `CREATE TABLE second (id text, other int)`)
	opts := RestoreOptions{
		Bucket: bucketOf(t, s.all), Ref: s.m.ID, Conn: connTo(t, s.pg, db), Jobs: 2, IntoNonempty: true,
		Restore: dumper.RestoreOptions{KeepGoing: true},
	}
	res, err := Restore(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(res.Errors, "\n"); len(res.Errors) < 2 || !strings.Contains(all, `"second" already exists`) || !strings.Contains(all, `"body"`) {
		t.Errorf("errors are %s", all)
	}
	if first, third := count(t, s.pg, db, "first"), count(t, s.pg, db, "third"); first != 4000 || third != 4000 {
		t.Errorf("first has %d rows, third %d", first, third)
	}
	opts.Restore.KeepGoing = false
	if _, err := Restore(t.Context(), opts); !errors.Is(err, dumper.ErrRestore) || !strings.Contains(err.Error(), "some of the definitions, no data") {
		t.Errorf("error is %v", err)
	}
}

// Every progress report is sound: nothing goes back, and the end is all.
func TestParallelRestoreProgress(t *testing.T) {
	s := threeTables(t)
	db := s.pg.CreateDatabase(t)
	var mu sync.Mutex
	var last Progress
	var phases []Phase
	seen := map[string]int64{}
	_, err := Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, s.all), Ref: s.m.ID, Conn: connTo(t, s.pg, db), Jobs: 2, Progress: func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Bytes < last.Bytes || p.TablesDone < last.TablesDone || p.Rows < last.Rows || p.Rows > p.RowsTotal {
			t.Errorf("%+v comes after %+v", p, last)
		}
		if len(p.Loading) > 2 {
			t.Errorf("two workers are at %+v", p.Loading)
		}
		for _, l := range p.Loading {
			seen[l.Name] = max(seen[l.Name], l.Rows)
			if l.RowsTotal != 4000 || l.Rows > 4000 || l.Bytes > l.BytesTotal || l.BytesTotal != s.block(t, strings.TrimPrefix(l.Name, "public.")).Length {
				t.Errorf("at %+v", l)
			}
		}
		if p.Phase != last.Phase {
			phases = append(phases, p.Phase)
		}
		last = p
	}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []Phase{PhasePreflight, PhaseDefinitions, PhaseData, PhaseFinish}; !slices.Equal(phases, want) {
		t.Errorf("phases are %v", phases)
	}
	if last.Bytes != s.m.Objects.Dump.Size || last.Total != last.Bytes || last.Tables != 3 || last.TablesDone != 3 ||
		last.Rows != 12000 || last.RowsTotal != 12000 || len(last.Loading) > 0 {
		t.Errorf("at the end: %+v", last)
	}
	if len(seen) == 0 {
		t.Error("no table was shown while it was loaded")
	}
}

// planned is a restore with two workers, planned as if every table were large.
func (s *stored) planned(t *testing.T, db string) *plannedRestore {
	t.Helper()
	r := &restoreRun{opts: RestoreOptions{Bucket: bucketOf(t, s.all)}, log: logger(nil), progress: newTracker(nil), dump: s.m.Objects.Dump, res: &RestoreResult{Manifest: s.m}, index: s.ix}
	r.source = storedDump{bucket: r.opts.Bucket, key: r.dump.Key, version: r.dump.Version}
	head, err := r.readHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.blocks(&choice{head: head})
	if err != nil {
		t.Fatal(err)
	}
	tools, err := dumper.FindTools(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	p := &plannedRestore{
		dumpBlocks: d, jobs: 2, conn: connTo(t, s.pg, db), log: r.log,
		plan: head.Plan(head.Select(pgarchive.Selection{}).Entries, pgarchive.PlanOptions{Jobs: 2}),
	}
	if p.restorer, err = dumper.OpenRestorer(t.Context(), p.conn, tools[0], dumper.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// A table whose blocks are spread over several jobs has its key when the last of
// them is in. pg_dump writes no such archive: the plan is bent instead.
func TestParallelRestoreLate(t *testing.T) {
	s := threeTables(t)
	db := s.pg.CreateDatabase(t)
	p := s.planned(t, db)
	var all pgarchive.Late
	for _, l := range p.plan.Late {
		all.Blocks, all.Keys = append(all.Blocks, l.Blocks...), append(all.Keys, l.Keys...)
	}
	p.plan.Late = []pgarchive.Late{all}
	if err := p.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	const keys = `SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace`
	if got := text(t, s.pg, db, keys); got != "3" || len(all.Keys) != 3 {
		t.Errorf("%s keys, want %d", got, len(all.Keys))
	}
}

// indexed are tables whose indexes alter them on the way, which two sessions at
// once would end in a deadlock.
const indexed = `
	CREATE TABLE wide (id int PRIMARY KEY, a int NOT NULL, b text, c timestamptz, UNIQUE (a, b));
	INSERT INTO wide SELECT i, i % 97, md5(i::text), now() FROM generate_series(1, 30000) i;
	CREATE INDEX wide_a ON wide (a);
	CREATE INDEX wide_b ON wide (lower(b));
	CREATE INDEX wide_c ON wide (c) WHERE a > 5;
	CREATE UNIQUE INDEX wide_identity ON wide (a, id);
	ALTER TABLE wide CLUSTER ON wide_a;
	ALTER TABLE wide REPLICA IDENTITY USING INDEX wide_identity;
	CREATE TABLE plain (id int, a int);
	INSERT INTO plain SELECT i, i % 97 FROM generate_series(1, 30000) i;
	CREATE INDEX plain_a ON plain (a);
	CREATE INDEX plain_id ON plain (id);
	COMMENT ON INDEX plain_id IS 'on an index';`

const indexesOf = `SELECT string_agg(concat_ws(' ', pg_get_indexdef(indexrelid), indisclustered, indisreplident, indisvalid, obj_description(indexrelid)), E'\n'
	ORDER BY indexrelid::regclass::text) FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = 'public'::regnamespace`

// Indexes of large tables are built beside each other, keys for themselves.
func TestParallelRestoreIndexes(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	pg.Exec(t, source, indexed)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: archived(t, pg, source, b).Manifest.ID})
	if err != nil {
		t.Fatal(err)
	}
	s := &stored{pg: pg, m: shown.Manifest, ix: shown.Index, all: content(t, b)}
	db := pg.CreateDatabase(t)
	p := s.planned(t, db)
	if len(p.plan.Jobs) != 2 || len(p.plan.Late) != 2 {
		t.Fatalf("planned are %d jobs and %d tables to be indexed", len(p.plan.Jobs), len(p.plan.Late))
	}
	if err := p.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want, got := text(t, pg, source, indexesOf), text(t, pg, db, indexesOf); got != want || strings.Count(got, "INDEX") != 8 {
		t.Errorf("indexes are\n%s\nwant\n%s", got, want)
	}
	sameDatabase(t, pg, source, db, false)
}

// An index that fails ends the restore, and the error names its table.
func TestParallelRestoreIndexFails(t *testing.T) {
	s := threeTables(t)
	db := s.pg.CreateDatabase(t)
	p := s.planned(t, db)
	for i := range p.head.Entries {
		if e := &p.head.Entries[i]; e.Tag.S == "second second_pkey" {
			e.Defn.S = "ALTER TABLE ONLY public.second ADD CONSTRAINT second_pkey PRIMARY KEY (nowhere);\n"
		}
	}
	err := p.run(t.Context())
	if !errors.Is(err, dumper.ErrRestore) || !strings.Contains(err.Error(), "indexes and keys of table public.second: ") || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("error is %v", err)
	}
	if got := p.state(); !strings.HasPrefix(got, "the definitions and the data of ") {
		t.Errorf("state is %q", got)
	}
	if n := dumpSessions(t, s.pg, db); n > 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// What fails at the very end is told as that, with -j too.
func TestParallelRestoreEndFails(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	pg.Exec(t, source, `ALTER DATABASE `+pgx.Identifier{source}.Sanitize()+` SET app.known = 'here'`)
	pg.Exec(t, source, `CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
		CREATE MATERIALIZED VIEW failing AS SELECT current_setting('app.known') AS known;
		CREATE MATERIALIZED VIEW working AS SELECT id FROM t`)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	id := archived(t, pg, source, b).Manifest.ID
	for _, jobs := range []int{1, 2} {
		db := pg.CreateDatabase(t)
		opts := RestoreOptions{Bucket: b, Ref: id, Conn: connTo(t, pg, db), Jobs: jobs}
		_, err := Restore(t.Context(), opts)
		oneLiner(t, err)
		if !errors.Is(err, dumper.ErrRestore) || !strings.Contains(err.Error(), "app.known") || !strings.Contains(err.Error(), "failing") ||
			!strings.Contains(err.Error(), "definitions and data, not all") {
			t.Errorf("error is %v", err)
		}
		db = pg.CreateDatabase(t)
		opts.Conn, opts.Restore.KeepGoing = connTo(t, pg, db), true
		res, err := Restore(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Errors) != 1 || !strings.Contains(res.Errors[0], "failing") {
			t.Errorf("errors are %q", res.Errors)
		}
		if got := count(t, pg, db, "working"); got != 1 {
			t.Errorf("the other view has %d rows", got)
		}
	}
}
