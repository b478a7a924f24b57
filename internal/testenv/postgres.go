package testenv

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/internal/testenv/server"
)

// Cluster is a throwaway PostgreSQL cluster. Host, Port, User, Password, Dir,
// BinDir, URL(db), URLAt(addr, db), Addr() and SocketDir() come from
// server.Postgres.
type Cluster struct {
	*server.Postgres
}

// PostgresOptions configure a private cluster.
type PostgresOptions = server.PostgresOptions

var postgres shared[*server.Postgres]

// Postgres returns the cluster that all tests of this process share. Tests
// take their own database of it and leave the server running.
func Postgres(t testing.TB) *Cluster {
	t.Helper()
	pg := postgres.get(t, func(ctx context.Context, h *server.Home) (*server.Postgres, error) {
		return h.StartPostgres(ctx, PostgresOptions{})
	})
	showLog(t, "PostgreSQL", pg)
	return &Cluster{pg}
}

// Majors are the major versions that PostgresMajor starts. They are installed
// by `tools.sh servers`, for `make test-versions` alone.
var Majors = server.Majors

var majors = func() map[int]*shared[*server.Postgres] {
	m := map[int]*shared[*server.Postgres]{}
	for _, major := range Majors {
		m[major] = new(shared[*server.Postgres])
	}
	return m
}()

// PostgresMajor is Postgres of a certain major version.
func PostgresMajor(t testing.TB, major int) *Cluster {
	t.Helper()
	one, ok := majors[major]
	if !ok {
		t.Fatalf("testenv: PostgreSQL %d is none of %v", major, Majors)
	}
	pg := one.get(t, func(ctx context.Context, h *server.Home) (*server.Postgres, error) {
		return h.StartPostgres(ctx, PostgresOptions{Major: major})
	})
	showLog(t, fmt.Sprint("PostgreSQL ", major), pg)
	return &Cluster{pg}
}

// MajorBin is the directory of a major version's programs.
func MajorBin(t testing.TB, major int) string {
	t.Helper()
	bin, err := server.MajorBin(major)
	must(t, err)
	return bin
}

// NewPostgres starts a cluster of this test's own. It ends with the test.
func NewPostgres(t testing.TB, opts PostgresOptions) *Cluster {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	pg, err := privateHome(t).StartPostgres(ctx, opts)
	must(t, err)
	showLog(t, "PostgreSQL", pg)
	return &Cluster{pg}
}

// CreateDatabase creates an empty database with a unique name and drops it
// when the test ends.
func (c *Cluster) CreateDatabase(t testing.TB) string {
	t.Helper()
	name := strings.ReplaceAll(unique(t), "-", "_")
	quoted := pgx.Identifier{name}.Sanitize()
	c.Exec(t, "postgres", "CREATE DATABASE "+quoted+" TEMPLATE template0")
	t.Cleanup(func() {
		if !c.Running() { // the test has stopped the cluster: nothing to drop
			return
		}
		ctx, cancel := bounded()
		defer cancel()
		// FORCE: poolers and cut sessions may still be connected.
		if err := c.Postgres.Exec(ctx, "postgres", "DROP DATABASE IF EXISTS "+quoted+" WITH (FORCE)"); err != nil {
			t.Errorf("testenv: drop database %s: %v", name, err)
		}
	})
	return name
}

// Exec runs SQL, several statements if need be, in a database.
func (c *Cluster) Exec(t testing.TB, db, sql string) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(t, c.Postgres.Exec(ctx, db, sql))
}

// Connect opens a session in a database, closed when the test ends.
func (c *Cluster) Connect(t testing.TB, db string) *pgx.Conn {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL(db))
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := bounded()
		defer cancel()
		_ = conn.Close(ctx) // the test may have cut it
	})
	return conn
}

// StopImmediate ends the cluster as a crash would.
func (c *Cluster) StopImmediate(t testing.TB) {
	t.Helper()
	must(t, c.Postgres.StopImmediate())
}

// Start starts a stopped cluster on its old port.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(t, c.Postgres.Start(ctx))
}

// Restart stops the cluster in order and starts it again.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	must(t, c.Stop())
	c.Start(t)
}

// PoolMode is PgBouncer's pool_mode.
type PoolMode = server.PoolMode

// The pool modes.
const (
	PoolSession     = server.PoolSession
	PoolTransaction = server.PoolTransaction
)

// PgBouncer starts PgBouncer in front of a cluster and returns its host:port,
// for URLAt. It ends with the test.
func PgBouncer(t testing.TB, c *Cluster, mode PoolMode) (addr string) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	b, err := privateHome(t).StartPgBouncer(ctx, c.Postgres, mode)
	must(t, err)
	return b.Addr
}
