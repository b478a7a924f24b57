package e2e_test

import (
	"context"
	"fmt"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/server"
)

// world is a loaded database, a bucket, and a fault proxy in front of each.
type world struct {
	t      *testing.T
	pg     *testenv.Cluster
	db     string
	dbLine *testenv.Proxy // between pgstow and PostgreSQL

	s3     *testenv.S3
	bucket string
	s3Line *testenv.Proxy // between pgstow and the store

	env       environment
	bucketURL string // through s3Line
	direct    string // past it
}

// prefix is where in the bucket everything goes.
const prefix = "some/prefix/"

// newWorld loads megabytes that do not compress, so that they fill parts.
func newWorld(t *testing.T, pg *testenv.Cluster, store *testenv.S3, megabytes int) *world {
	t.Helper()
	w := &world{t: t, pg: pg, s3: store}
	w.db = pg.CreateDatabase(t)
	load(t, pg, w.db, megabytes)
	w.dbLine = testenv.Toxiproxy(t, pg.Addr())
	w.bucket = store.NewBucket(t, testenv.BucketOptions{})
	w.s3Line = testenv.Toxiproxy(t, store.Addr())
	w.direct = store.BucketURL(w.bucket, prefix)
	w.bucketURL = server.S3URL(w.bucket, prefix, "http://"+w.s3Line.Addr, store.Region)
	w.env = newEnvironment(t).with(store.Env()...).with("PGSTOW_DB="+pg.URLAt(w.dbLine.Addr, w.db)).
		hiding(pg.Password, url.QueryEscape(pg.Password), store.SecretKey)
	return w
}

// load fills a database: several tables, so that the archive has blocks, and
// one of them large.
func load(t *testing.T, pg *testenv.Cluster, db string, megabytes int) {
	t.Helper()
	pg.Exec(t, db, fmt.Sprintf(`
		CREATE TABLE small (id int PRIMARY KEY, note text);
		INSERT INTO small SELECT i, 'note ' || i FROM generate_series(1, 1000) i;
		CREATE TABLE big (id int, junk bytea);
		ALTER TABLE big ALTER junk SET STORAGE EXTERNAL;
		CREATE TABLE last (id int PRIMARY KEY, at timestamptz DEFAULT now());
		INSERT INTO last SELECT i FROM generate_series(1, 1000) i;
		-- One block of 128 KiB again and again: gzip, which looks back 32 KiB, finds nothing in it.
		WITH block AS MATERIALIZED (SELECT string_agg(sha256(j::text::bytea), '' ORDER BY j) AS b FROM generate_series(1, 4096) j)
		INSERT INTO big SELECT i, b FROM block, generate_series(1, %d) i;`, megabytes*8))
}

// uploads are the unfinished uploads in the bucket.
func (w *world) uploads() []uploadState {
	w.t.Helper()
	ctx := context.Background()
	client := w.s3.Client()
	out, err := client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: aws.String(w.bucket)})
	if err != nil {
		w.t.Fatal(err)
	}
	var found []uploadState
	for _, u := range out.Uploads {
		state := uploadState{key: aws.ToString(u.Key)}
		parts, err := client.ListParts(ctx, &s3.ListPartsInput{Bucket: aws.String(w.bucket), Key: u.Key, UploadId: u.UploadId})
		if err != nil {
			continue // completed or aborted meanwhile
		}
		state.parts = len(parts.Parts)
		found = append(found, state)
	}
	return found
}

type uploadState struct {
	key   string
	parts int
}

// noUploads fails if parts of a failed run are left.
func (w *world) noUploads() {
	w.t.Helper()
	if left := w.uploads(); len(left) > 0 {
		w.t.Errorf("unfinished uploads are left: %v", left)
	}
}

// nothingListed fails if a failed run left anything that list shows.
func (w *world) nothingListed() {
	w.t.Helper()
	if entries := list(w.t, w.env, w.direct); len(entries) > 0 {
		w.t.Errorf("a failed run is listed: %+v", entries)
	}
}

// objects are the keys of all objects in the bucket.
func (w *world) objects() []string {
	w.t.Helper()
	out, err := w.s3.Client().ListObjectsV2(context.Background(), &s3.ListObjectsV2Input{Bucket: aws.String(w.bucket)})
	if err != nil {
		w.t.Fatal(err)
	}
	var keys []string
	for _, o := range out.Contents {
		keys = append(keys, aws.ToString(o.Key))
	}
	return keys
}

// slow makes the dump crawl, so that it is in the middle for as long as the
// test needs.
func (w *world) slow(kilobytesPerSecond int) {
	w.t.Helper()
	w.dbLine.Add(w.t, testenv.Toxic{Name: "slow", Type: "bandwidth", Attributes: map[string]any{"rate": kilobytesPerSecond}})
}

func (w *world) fast() {
	w.t.Helper()
	w.dbLine.Remove(w.t, "slow")
}

// inMidDump starts an archive and returns when parts of it are stored and
// pg_dump is still at it, crawling.
func (w *world) inMidDump(args ...string) *process {
	w.t.Helper()
	w.slow(12_000)
	p := start(w.t, w.env, append([]string{"archive", "--name", "e2e", "--to", w.bucketURL}, args...)...)
	p.child("pg_dump")
	eventually(w.t, "a part of the dump is stored", func() bool {
		if !p.running() {
			w.t.Fatalf("pgstow ended too early\n%s", p.stderr.String())
		}
		for _, u := range w.uploads() {
			if u.parts > 0 {
				return true
			}
		}
		return false
	})
	w.fast()
	w.slow(50)
	if len(w.sessions()) == 0 {
		w.t.Fatal("the dump was over before it could be slowed down")
	}
	return p
}

// sessions are the server processes that serve the database, our own apart.
func (w *world) sessions() []string {
	w.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, w.pg.URL("postgres"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT pid || ' ' || application_name || ' ' || coalesce(state, '') || ' ' || query
		FROM pg_stat_activity WHERE datname = $1`, w.db)
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// noSessions waits until the server serves nobody in the database: no
// snapshot is open any more.
func (w *world) noSessions() {
	w.t.Helper()
	var last []string
	for range 3 {
		last = w.sessions()
		if len(last) == 0 {
			return
		}
	}
	eventually(w.t, fmt.Sprintf("the server processes end: %v", last), func() bool { return len(w.sessions()) == 0 })
}

// restores fails unless the archive comes back equal to the source.
func (w *world) restores(id string) {
	w.t.Helper()
	target := w.pg.CreateDatabase(w.t)
	env := w.env.with("PGSTOW_DB=" + w.pg.URL(target))
	run(w.t, env, 0, "restore", id, "--from", w.direct)
	sameContents(w.t, w.pg, w.db, target)
}

func sameContents(t *testing.T, pg *testenv.Cluster, source, target string) {
	t.Helper()
	want, got := contents(t, pg, source), contents(t, pg, target)
	for table, content := range want {
		if got[table] != content {
			t.Errorf("table %s: %q, want %q", table, got[table], content)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d tables, want %d", len(got), len(want))
	}
}

func contents(t *testing.T, pg *testenv.Cluster, db string) map[string]string {
	t.Helper()
	conn := pg.Connect(t, db)
	defer conn.Close(context.Background())
	found := map[string]string{}
	rows, err := conn.Query(t.Context(), `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		var content string
		// A sum of hashes: sorting the large table's text would take longer than dumping it.
		err := conn.QueryRow(t.Context(), `SELECT count(*) || ' ' || coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0) FROM `+table+` t`).Scan(&content)
		if err != nil {
			t.Fatal(err)
		}
		found[table] = content
	}
	return found
}
