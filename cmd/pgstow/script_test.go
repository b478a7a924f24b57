package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgstow/pgstow/internal/testenv"
)

// The test binary is pgstow when it is called by that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "pgstow" {
		main()
	}
	testenv.Main(m)
}

// TestScript runs testdata/script against a real server. Each script has
//
//	$DB, $TARGET   connection strings of a loaded and an empty database
//	$SOURCE, $SINK their names
//	$ADDR          host:port of the server
//	$BUCKET        a folder's bucket URL, the folder is $WORK/bucket
//	$LOCKED        the URL of an S3 bucket with object lock
//	$DB_SECRET     $DB with its password
//
// with the password in a passfile. Beside testscript's commands there are
// pgstow (run and checked: see runPgstow), code, id, sql, query, same, json and secret.
//
// UPDATE_SCRIPTS=1 rewrites the golden help texts.
func TestScript(t *testing.T) {
	pg := testenv.Postgres(t)
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "pgstow")); err != nil {
		t.Fatal(err)
	}
	s := &scripts{pg: pg, bin: bin}
	s3 := testenv.VersityGW(t)
	s.storeEnv = s3.Env()
	s.newLocked = func() string { return s3.BucketURL(s3.NewBucket(t, testenv.BucketOptions{ObjectLock: true}), "pg") }
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: s.setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"pgstow": runPgstow, "code": cmdCode, "id": cmdID, "sql": s.cmdSQL, "query": s.cmdQuery,
			"same": s.cmdSame, "json": cmdJSON, "secret": cmdSecret,
		},
		UpdateScripts:      os.Getenv("UPDATE_SCRIPTS") != "",
		RequireUniqueNames: true,
	})
}

type scripts struct {
	pg  *testenv.Cluster
	bin string
	n   atomic.Int64

	storeEnv  []string
	newLocked func() string
}

// fixture is what $DB holds.
const fixture = `
CREATE TABLE items (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, price numeric(10,2),
  at timestamptz DEFAULT now(), tags text[], doc jsonb, raw bytea, ratio float8);
INSERT INTO items (name, price, tags, doc, raw, ratio)
  SELECT 'item ' || i, i * 1.5, ARRAY['a', i::text], jsonb_build_object('i', i), decode(md5(i::text), 'hex'), 1 / i::float8
  FROM generate_series(1, 2000) i;
CREATE TABLE orders (id int PRIMARY KEY, item int REFERENCES items, note text);
INSERT INTO orders SELECT i, i, E'tab\there' FROM generate_series(1, 500) i;
CREATE TABLE empty (x int);
CREATE TABLE "Odd, Näme" (x text);
INSERT INTO "Odd, Näme" VALUES ('ünïcode'), (NULL), ('');
CREATE SCHEMA audit;
CREATE TABLE audit.events (id bigint, at date);
INSERT INTO audit.events SELECT i, '2026-01-01'::date + i FROM generate_series(1, 100) i;
SELECT lo_from_bytea(0, decode(repeat('c0ffee', 1000), 'hex')) FROM generate_series(1, 3);
`

func (s *scripts) setup(env *testscript.Env) error {
	n := s.n.Add(1)
	source, target := fmt.Sprintf("script%d", n), fmt.Sprintf("script%d_target", n)
	ctx := context.Background()
	for _, db := range []string{source, target} {
		if err := s.pg.Postgres.Exec(ctx, "postgres", "CREATE DATABASE "+db+" TEMPLATE template0"); err != nil {
			return err
		}
		env.Defer(func() {
			_ = s.pg.Postgres.Exec(ctx, "postgres", "DROP DATABASE IF EXISTS "+db+" WITH (FORCE)")
		})
	}
	if err := s.pg.Postgres.Exec(ctx, source, fixture); err != nil {
		return err
	}
	passfile := filepath.Join(env.WorkDir, ".pgpass")
	if err := os.WriteFile(passfile, []byte("*:*:*:"+s.pg.User+":"+s.pg.Password+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(env.WorkDir, "bucket"), 0o700); err != nil {
		return err
	}
	url := "postgres://" + s.pg.User + "@" + s.pg.Addr() + "/"
	env.Setenv("PATH", s.bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
	env.Setenv("PGPASSFILE", passfile)
	env.Setenv("DB", url+source)
	env.Setenv("TARGET", url+target)
	env.Setenv("SOURCE", source)
	env.Setenv("SINK", target)
	env.Setenv("ADDR", s.pg.Addr())
	env.Setenv("BUCKET", "file://"+env.WorkDir+"/bucket")
	env.Setenv("DB_SECRET", s.pg.URL(source))
	env.Setenv("LOCKED", s.newLocked())
	for _, pair := range s.storeEnv {
		name, value, _ := strings.Cut(pair, "=")
		env.Setenv(name, value)
	}
	env.Setenv("SECRETS", s.pg.Password)
	// What goes wrong has to go wrong at once.
	env.Setenv("PGCONNECT_TIMEOUT", "20")
	env.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	return nil
}

var errorLine = regexp.MustCompile(`(?m)^pgstow: `)

// runPgstow runs pgstow. However it ends, no secret stands in what it wrote;
// when it fails it says so in one line, on stderr.
func runPgstow(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("pgstow", args...)
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("run pgstow: %v", err)
	}
	ts.Setenv("code", strconv.Itoa(code))
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	for secret := range strings.SplitSeq(ts.Getenv("SECRETS"), "\n") {
		if strings.Contains(stdout+stderr, secret) {
			ts.Fatalf("a secret stands in the output")
		}
	}
	switch {
	case neg && code == 0:
		ts.Fatalf("pgstow succeeded")
	case !neg && code != 0:
		ts.Fatalf("exit code %d", code)
	case neg && code < 128 && len(errorLine.FindAllString(stderr, -1)) != 1 && !strings.Contains(stderr, `"level":"ERROR"`):
		ts.Fatalf("exit code %d without one line that says why", code)
	}
	if strings.Contains(stderr, "panic:") || strings.Contains(stderr, "goroutine ") {
		ts.Fatalf("a stack trace")
	}
}

// cmdCode checks the last exit code.
func cmdCode(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 || ts.Getenv("code") != args[0] {
		ts.Fatalf("exit code %s, want %v", ts.Getenv("code"), args)
	}
}

// cmdID puts the id in the last stdout, that of "archive --json", into a variable.
func cmdID(ts *testscript.TestScript, _ bool, args []string) {
	var result struct{ Manifest struct{ ID string } }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &result))
	if result.Manifest.ID == "" {
		ts.Fatalf("no id in stdout")
	}
	ts.Setenv(args[0], result.Manifest.ID)
}

// cmdSecret adds strings that must never appear in an output.
func cmdSecret(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("SECRETS", strings.Join(append([]string{ts.Getenv("SECRETS")}, args...), "\n"))
}

// cmdJSON checks that the last stdout is JSON whose elements at a path of
// names and numbers are as given: json orders 0.label; json '#2' checks a length.
func cmdJSON(ts *testscript.TestScript, _ bool, args []string) {
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &value))
	for i := 0; i+1 < len(args); i += 2 {
		got, err := jsonAt(value, args[i])
		ts.Check(err)
		if got != args[i+1] {
			ts.Fatalf("%s is %s, want %s", args[i], got, args[i+1])
		}
	}
}

func jsonAt(value any, path string) (string, error) {
	for name := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			next, ok := v[name]
			if !ok {
				return "(absent)", nil
			}
			value = next
		case []any:
			if name == "#" {
				value = len(v)
				continue
			}
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(v) {
				return "", fmt.Errorf("%s: no element %s of %d", path, name, len(v))
			}
			value = v[i]
		default:
			return "", fmt.Errorf("%s: %s is no object", path, name)
		}
	}
	return fmt.Sprint(value), nil
}

// cmdSQL runs statements in a database, given by name.
func (s *scripts) cmdSQL(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(s.pg.Postgres.Exec(context.Background(), args[0], strings.Join(args[1:], ";")))
}

// cmdQuery compares the one value that a query returns.
func (s *scripts) cmdQuery(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.pg.URL(args[0]))
	ts.Check(err)
	defer conn.Close(ctx)
	var got string
	ts.Check(conn.QueryRow(ctx, args[1]).Scan(&got))
	if got != args[2] {
		ts.Fatalf("%s: %q, want %q", args[1], got, args[2])
	}
}

// cmdSame compares the rows of all tables, the large objects and the sequences
// of two databases, or only of the tables given.
func (s *scripts) cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	a, err := s.contents(args[0])
	ts.Check(err)
	b, err := s.contents(args[1])
	ts.Check(err)
	if len(args) > 2 {
		for name := range a {
			if !slices.Contains(args[2:], name) {
				delete(a, name)
			}
		}
	}
	if len(a) == 0 {
		ts.Fatalf("nothing to compare in %s", args[0])
	}
	equal := len(a) == len(b)
	for name, content := range a {
		equal = equal && b[name] == content
	}
	if equal == neg {
		ts.Fatalf("%s holds %v\n%s holds %v", args[0], a, args[1], b)
	}
}

// contents maps each table to its row count and a hash of its rows.
func (s *scripts) contents(db string) (map[string]string, error) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.pg.URL(db))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		return nil, err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	queries := map[string]string{"large objects": `SELECT count(*) || ' ' || coalesce(md5(string_agg(lo_get(oid)::text, ',' ORDER BY oid)), '') FROM pg_largeobject_metadata`}
	for _, name := range tables {
		queries[name] = "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM " + name + " t"
	}
	found := map[string]string{}
	for name, query := range queries {
		var content string
		if err := conn.QueryRow(ctx, query).Scan(&content); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if name != "large objects" || !strings.HasPrefix(content, "0 ") {
			found[name] = content
		}
	}
	return found, nil
}
