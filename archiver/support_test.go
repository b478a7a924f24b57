package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// connTo is the connection to a database of the cluster.
func connTo(t testing.TB, pg *testenv.Cluster, db string) dumper.Conn {
	t.Helper()
	c, err := dumper.ParseConn(pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// smallSource is a database with a few tables.
func smallSource(t testing.TB, pg *testenv.Cluster) string {
	t.Helper()
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `
		CREATE TABLE first (id int PRIMARY KEY, body text);
		INSERT INTO first SELECT i, md5(i::text) FROM generate_series(1, 1000) i;
		CREATE TABLE second (id int PRIMARY KEY, body text);
		INSERT INTO second SELECT i, md5((i * 7)::text) FROM generate_series(1, 20000) i;
		CREATE TABLE third (id int PRIMARY KEY, body text);
		INSERT INTO third SELECT i, md5((i * 11)::text) FROM generate_series(1, 1000) i;
		CREATE TABLE nothing (id int);
		SELECT lo_from_bytea(0, 'a large object');`)
	return db
}

// longSource is a database whose dump fills every buffer on the way, so that
// pg_dump is still at it when the first byte has come.
func longSource(t testing.TB, pg *testenv.Cluster) string {
	t.Helper()
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `
		CREATE TABLE long (id int PRIMARY KEY, body text);
		INSERT INTO long SELECT i, (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(2, 9) j)
			FROM generate_series(1, 100000) i;`)
	return db
}

// dumpSessions counts pg_dump's sessions in a database.
func dumpSessions(t testing.TB, pg *testenv.Cluster, db string) (n int) {
	t.Helper()
	const q = `SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()`
	conn := pg.Connect(t, "postgres")
	// A backend whose client is gone needs a moment to notice and end.
	const end = `SELECT pg_sleep(0.05)`
	for range 200 {
		if err := conn.QueryRow(context.Background(), q, db).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return 0
		}
		if _, err := conn.Exec(context.Background(), end); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// count counts rows, -1 when the table is not there.
func count(t testing.TB, pg *testenv.Cluster, db, table string) (n int) {
	t.Helper()
	conn, err := connTo(t, pg, db).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var there bool
	if err := conn.QueryRow(t.Context(), `SELECT to_regclass($1) IS NOT NULL`, table).Scan(&there); err != nil {
		t.Fatal(err)
	}
	if !there {
		return -1
	}
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// archived is an archive of db, which must come about.
func archived(t testing.TB, pg *testenv.Cluster, db string, b storage.Bucket) *ArchiveResult {
	t.Helper()
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Pgstow: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// objects are the keys in a bucket.
func objects(t testing.TB, b storage.Bucket) []string {
	t.Helper()
	keys := []string{}
	for o, err := range b.List(context.Background(), storage.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// nothingLeft wants an empty bucket, without unfinished uploads, but for keys.
func nothingLeft(t testing.TB, b storage.Bucket, keys ...string) {
	t.Helper()
	for _, k := range objects(t, b) {
		if !slices.Contains(keys, k) {
			t.Errorf("%s was left behind", k)
		}
	}
	for u, err := range storage.Uploads(context.Background(), b, "") {
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("an upload of %s was left unfinished", u.Key)
	}
	for _, e := range listed(t, b) {
		t.Errorf("archive %s is listed", e.ID)
	}
}

func listed(t testing.TB, b storage.Bucket) []Entry {
	t.Helper()
	all, err := List(context.Background(), b, ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// content reads everything in a bucket.
func content(t testing.TB, b storage.Bucket) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, key := range objects(t, b) {
		body, err := b.Open(t.Context(), key, storage.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all[key], err = io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// bucketOf is a bucket with this content.
func bucketOf(t testing.TB, all map[string][]byte) *storagetest.Memory {
	t.Helper()
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	for _, key := range slices.Sorted(maps.Keys(all)) {
		put(t, b, key, string(all[key]))
	}
	return b
}

// sequential is a bucket that cannot store a head last, as GCS.
type sequential struct{ *storagetest.Memory }

func (s sequential) Capabilities() storage.Capabilities {
	c := s.Memory.Capabilities()
	c.DeferredHead = false
	return c
}

// Modes of a faultyBucket.
const (
	refused  = "refused"              // the operation fails and has done nothing
	lost     = "answer lost"          // the operation is done, its answer is not known
	unsure   = "outcome unknown"      // the operation is not done, and nobody knows
	gone     = "gone for good"        // this one and all later ones fail
	lostGone = "answer lost and gone" // as lost, and all later ones fail
	denied   = "no reading"           // reading is denied, always
)

var errInjected = errors.New("injected fault")

// faultyBucket lets the n-th operation fail.
type faultyBucket struct {
	*storagetest.Memory
	mode string
	at   int

	mu    sync.Mutex
	calls int
	last  string // the operation that failed
}

// fault counts an operation and says whether it fails.
func (f *faultyBucket) fault(op, key string) (error, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	fails := f.calls == f.at || (f.mode == gone || f.mode == lostGone) && f.calls > f.at
	if !fails {
		return nil, false
	}
	if f.last == "" {
		f.last = op + " " + key
	}
	kind := storage.ErrUnavailable
	if op == "put" && f.calls == f.at && (f.mode == lost || f.mode == lostGone || f.mode == unsure) {
		kind = storage.ErrUnknownOutcome
	}
	return &storage.Error{Op: op, Key: key, Kind: kind, Err: errInjected}, true
}

func (f *faultyBucket) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	err, fails := f.fault("put", key)
	if !fails {
		return f.Memory.Put(ctx, key, r, opts)
	}
	if f.mode == lost || f.mode == lostGone && errors.Is(err, storage.ErrUnknownOutcome) {
		if _, err := f.Memory.Put(ctx, key, r, opts); err != nil {
			return storage.Object{}, err
		}
	}
	return storage.Object{}, err
}

func (f *faultyBucket) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if f.mode == denied {
		return nil, &storage.Error{Op: "open", Key: key, Kind: storage.ErrPermission}
	}
	if err, fails := f.fault("open", key); fails {
		return nil, err
	}
	return f.Memory.Open(ctx, key, opts)
}

func (f *faultyBucket) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	if f.mode == denied {
		return storage.Object{}, &storage.Error{Op: "stat", Key: key, Kind: storage.ErrPermission}
	}
	if err, fails := f.fault("stat", key); fails {
		return storage.Object{}, err
	}
	return f.Memory.Stat(ctx, key, version)
}

func (f *faultyBucket) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	if err, fails := f.fault("list", opts.Prefix); fails {
		return func(yield func(storage.Object, error) bool) { yield(storage.Object{}, err) }
	}
	return f.Memory.List(ctx, opts)
}

func (f *faultyBucket) Delete(ctx context.Context, key, version string) error {
	err, fails := f.fault("delete", key)
	if !fails {
		return f.Memory.Delete(ctx, key, version)
	}
	if f.mode == lost {
		if err := f.Memory.Delete(ctx, key, version); err != nil {
			return err
		}
	}
	return err
}

// flip changes one bit of the byte at i, from the end when i is negative.
func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 0x10
	return b
}

// keyOf is the key of the archive's object.
func keyOf(m *Manifest, name string) string {
	return strings.TrimSuffix(m.Key, ManifestName) + name
}

// oneLiner wants what users see of an error to be one line, and logs it.
func oneLiner(t testing.TB, err error) {
	t.Helper()
	t.Logf("error: %v", err)
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines: %q", fmt.Sprint(err))
	}
}
