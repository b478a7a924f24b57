package pgarchive_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// client is a command of the cluster's own major, set up by its environment.
func client(t testing.TB, c *testenv.Cluster, db, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.BinDir, name), args...)
	cmd.Env = append(os.Environ(), "PGHOST="+c.Host, fmt.Sprint("PGPORT=", c.Port), "PGUSER="+c.User, "PGPASSWORD="+c.Password,
		"PGDATABASE="+db, "TZ=UTC", "LC_ALL=C")
	return cmd
}

// output runs a command that has to succeed.
func output(t testing.TB, cmd *exec.Cmd) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
	}
	return stdout.Bytes()
}

// loadSample creates a database with testdata/sample.sql and, when large, two tables and a
// large object that fill many chunks.
func loadSample(t testing.TB, c *testenv.Cluster, large bool) (db string) {
	t.Helper()
	sql, err := os.ReadFile("testdata/sample.sql")
	if err != nil {
		t.Fatal(err)
	}
	db = c.CreateDatabase(t)
	// Roles belong to the cluster: another test may have made them.
	for _, role := range []string{"pgstow_owner", `"Reader Ü"`} {
		sql = bytes.Replace(sql, []byte("CREATE ROLE "+role+";"), fmt.Appendf(nil,
			"DO $$ BEGIN CREATE ROLE %s; EXCEPTION WHEN duplicate_object THEN NULL; END $$;", role), 1)
	}
	c.Exec(t, db, string(sql))
	c.Exec(t, db, fmt.Sprintf(`COMMENT ON DATABASE %s IS 'sample'; GRANT CONNECT ON DATABASE %[1]s TO pgstow_owner; ALTER DATABASE %[1]s SET work_mem = '5MB'`,
		pgx.Identifier{db}.Sanitize()))
	if large {
		c.Exec(t, db, `
			CREATE TABLE big AS SELECT i AS id, md5(i::text) AS hex FROM generate_series(1, 100000) i;
			ALTER TABLE big ADD PRIMARY KEY (id);
			CREATE TABLE zbig AS SELECT * FROM big;
			SELECT lo_from_bytea(17000, convert_to(string_agg(hex, ''), 'UTF8')) FROM (SELECT hex FROM big ORDER BY id LIMIT 20000) b`)
	}
	return db
}

// dump runs pg_dump through a pipe and a Scanner.
func dump(t testing.TB, c *testenv.Cluster, db string, args ...string) (s *pgarchive.Scanner, body []byte) {
	t.Helper()
	cmd := client(t, c, db, "pg_dump", append([]string{"-Fc"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s = pgarchive.NewScanner(stdout)
	body, err = io.ReadAll(s)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Fatalf("pg_dump %q: %v", args, err)
	}
	return s, body
}

func patchedHead(t testing.TB, s *pgarchive.Scanner) []byte {
	t.Helper()
	head, err := s.PatchedHead()
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// contents is a digest of every table and large object that sample.sql and loadSample make.
func contents(t testing.TB, c *testenv.Cluster, db string) string {
	t.Helper()
	conn := c.Connect(t, db)
	rows, err := conn.Query(t.Context(), `SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind IN ('r', 'm', 'p') AND nspname !~ '^(pg_|information_schema)' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 10 {
		t.Fatal(tables, err)
	}
	var all strings.Builder
	for _, table := range tables {
		var n int
		var sum string
		if err := conn.QueryRow(t.Context(), "SELECT count(*), coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM "+table+" t").Scan(&n, &sum); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&all, table, n, sum)
	}
	var objects string
	if err := conn.QueryRow(t.Context(), "SELECT coalesce(string_agg(oid || ' ' || lomowner::regrole || ' ' || md5(lo_get(oid)), ',' ORDER BY oid), '') FROM pg_largeobject_metadata").Scan(&objects); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&all, objects)
	return all.String()
}

// What we patch is what pg_dump itself writes when it can seek, whatever it was asked for.
func TestPostgresPatchedHeadIsPgDumps(t *testing.T) {
	c := testenv.Postgres(t)
	comparePatched(t, c, loadSample(t, c, true), "", "-Z0", "-Z0 --inserts --rows-per-insert=7")
	comparePatched(t, c, loadSample(t, c, false), "", "-Z0", "-Z1", "--inserts", "--column-inserts",
		"-s", "-s -b", "-a", "--section=pre-data", "--section=data", "--section=post-data",
		"-t digest", "-t customer", "-n public", "-N public", "-T digest", "--exclude-table-data=*", "--no-blobs", "-t digest -b",
		"-T *", "--load-via-partition-root", "--create", "--clean --if-exists", "--no-owner", "--no-privileges", "--disable-triggers -a")
}

func comparePatched(t *testing.T, c *testenv.Cluster, db string, variants ...string) {
	conn := c.Connect(t, db)
	var snapshot string
	if _, err := conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshot); err != nil {
		t.Fatal(err)
	}
	for _, options := range variants {
		t.Run(options, func(t *testing.T) {
			args := append([]string{"--snapshot=" + snapshot}, strings.Fields(options)...)
			s, body := dump(t, c, db, args...)
			file := filepath.Join(t.TempDir(), "file")
			output(t, client(t, c, db, "pg_dump", append([]string{"-Fc", "-f", file}, args...)...))
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := append(patchedHead(t, s), body...)
			// Version, sizes, format and the compression int come before the time.
			const created, length = 5 + 3 + 3 + 5, 7 * 5
			copy(got[created:created+length], want[created:])
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes, pg_dump -f wrote %d; first difference at %d", len(got), len(want), firstDifference(got, want))
			}
			head, err := s.Head()
			if err != nil {
				t.Fatal(err)
			}
			var list bytes.Buffer
			if err := head.WriteList(&list, time.UTC); err != nil {
				t.Fatal(err)
			}
			cmd := client(t, c, db, "pg_restore", "-l")
			cmd.Stdin = bytes.NewReader(s.HeadBytes())
			if theirs := output(t, cmd); !bytes.Equal(theirs, list.Bytes()) {
				t.Errorf("our list:\n%s\npg_restore's:\n%s", list.Bytes(), theirs)
			}
		})
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func TestPostgresRestores(t *testing.T) {
	c := testenv.Postgres(t)
	db := loadSample(t, c, true)
	want := contents(t, c, db)
	for _, compression := range []string{"-Z6", "-Z0"} {
		s, body := dump(t, c, db, compression)
		patched := filepath.Join(t.TempDir(), "patched")
		if err := os.WriteFile(patched, append(patchedHead(t, s), body...), 0o600); err != nil {
			t.Fatal(err)
		}
		head, err := s.Head()
		if err != nil {
			t.Fatal(err)
		}
		list := filepath.Join(t.TempDir(), "list")
		var lines bytes.Buffer
		if err := head.WriteList(&lines, time.UTC); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(list, lines.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, restore := range map[string]func(target string) *exec.Cmd{
			"streamed": func(target string) *exec.Cmd {
				cmd := client(t, c, target, "pg_restore", "-e", "-d", target)
				cmd.Stdin = io.MultiReader(bytes.NewReader(s.HeadBytes()), bytes.NewReader(body))
				return cmd
			},
			"patched, streamed": func(target string) *exec.Cmd {
				cmd := client(t, c, target, "pg_restore", "-e", "-d", target)
				cmd.Stdin = io.MultiReader(bytes.NewReader(patchedHead(t, s)), bytes.NewReader(body))
				return cmd
			},
			"patched, two jobs": func(target string) *exec.Cmd {
				return client(t, c, target, "pg_restore", "-e", "-j2", "-d", target, patched)
			},
			"patched, our list": func(target string) *exec.Cmd {
				return client(t, c, target, "pg_restore", "-e", "-L", list, "-d", target, patched)
			},
		} {
			t.Run(compression+" "+name, func(t *testing.T) {
				target := c.CreateDatabase(t)
				output(t, restore(target))
				if got := contents(t, c, target); got != want {
					t.Errorf("restored:\n%s\nwant:\n%s", got, want)
				}
			})
		}
		t.Run(compression+" one table", func(t *testing.T) {
			target := c.CreateDatabase(t)
			output(t, client(t, c, target, "pg_restore", "-e", "-t", "zbig", "-d", target, patched))
			var n int
			if err := c.Connect(t, target).QueryRow(t.Context(), "SELECT count(*) FROM zbig").Scan(&n); err != nil || n != 100_000 {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
}

// The layouts of 1.12 and 1.13 in the eyes of a real pg_restore: it lists them, and prints
// the same data.
func TestPostgresReadsOlderLayouts(t *testing.T) {
	c := testenv.Postgres(t)
	db := loadSample(t, c, false)
	s, body := dump(t, c, db)
	head, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	script := func(head []byte) string {
		cmd := client(t, c, db, "pg_restore", "-a", "-f", "-")
		cmd.Stdin = io.MultiReader(bytes.NewReader(head), bytes.NewReader(body))
		var kept []string
		for line := range strings.Lines(string(output(t, cmd))) {
			// The pair is a random word, anew in each run.
			if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	want := script(s.HeadBytes())
	if !strings.Contains(want, "COPY public.digest") {
		t.Fatal("no data in the script")
	}
	for _, minor := range []byte{12, 13} {
		old := *head
		old.Version.Minor = minor
		old.Entries = append([]pgarchive.Entry(nil), head.Entries...)
		for i := range old.Entries {
			old.Entries[i].TableAM = pgarchive.Str{Null: true}
		}
		raw, err := old.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := script(raw); got != want {
			t.Errorf("1.%d: another script, %d bytes of %d", minor, len(got), len(want))
		}
		cmd := client(t, c, db, "pg_restore", "-l")
		cmd.Stdin = bytes.NewReader(raw)
		if list := output(t, cmd); !bytes.Contains(list, fmt.Appendf(nil, "Dump Version: 1.%d-0", minor)) {
			t.Errorf("1.%d:\n%s", minor, list)
		}
	}
}

// A pg_dump that dies leaves a stream that ends; the Scanner is what tells.
func TestPostgresDumpThatDies(t *testing.T) {
	c := testenv.Postgres(t)
	db := loadSample(t, c, true)
	for name, end := range map[string]func(t *testing.T, cmd *exec.Cmd){
		"pg_dump killed": func(t *testing.T, cmd *exec.Cmd) {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		},
		"backend terminated": func(t *testing.T, _ *exec.Cmd) {
			var ended bool
			err := c.Connect(t, "postgres").QueryRow(t.Context(),
				"SELECT bool_or(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name = 'pg_dump' AND datname = $1", db).Scan(&ended)
			if err != nil || !ended {
				t.Fatal(ended, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := client(t, c, db, "pg_dump", "-Fc", "-Z0")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			s := pgarchive.NewScanner(stdout)
			// Far from the end: pg_dump waits on a full pipe.
			if _, err := io.CopyN(io.Discard, s, 500_000); err != nil {
				t.Fatal(err)
			}
			end(t, cmd)
			_, err = io.Copy(io.Discard, s)
			if !errors.Is(err, pgarchive.ErrIncomplete) || !strings.Contains(err.Error(), "inside the block of TABLE DATA public.") {
				t.Errorf("the stream ended with %v", err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("pg_dump succeeded")
			}
		})
	}
}

// A changed row that the format cannot see, in an uncompressed archive: without the
// Verifier it would be restored in silence, with it the table stays empty.
func TestPostgresTamperedBlockIsRolledBack(t *testing.T) {
	c := testenv.Postgres(t)
	db := loadSample(t, c, true)
	s, body := dump(t, c, db, "-Z0")
	archive := append(s.HeadBytes(), body...)
	want := pgarchive.Expected{Head: pgarchive.ExpectedPart{Length: s.HeadSize(), SHA256: sha256.Sum256(s.HeadBytes())}}
	head, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range s.Blocks() {
		want.Blocks = append(want.Blocks, pgarchive.ExpectedPart{Name: head.Promised()[i].Label(), Offset: b.Offset, Length: b.Length, SHA256: b.SHA256})
	}
	row := bytes.Index(archive, []byte("77777\t")) // in big, which comes before zbig
	if row < 0 {
		t.Fatal("row not found")
	}
	tampered := bytes.Clone(archive)
	tampered[row+6] ^= 1

	restore := func(r io.Reader) (target string, err error) {
		target = c.CreateDatabase(t)
		cmd := client(t, c, target, "pg_restore", "-d", target)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(stdin, r)
		if err != nil {
			// As the dumper does: no end of file for what did not end well.
			_ = cmd.Process.Kill()
		}
		_ = stdin.Close()
		if wait := cmd.Wait(); err == nil {
			err = wait
		}
		awaitNoSessions(t, c, target)
		return target, err
	}
	count := func(target, table string) (n int) {
		if err := c.Connect(t, target).QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	target, err := restore(bytes.NewReader(tampered))
	if n := count(target, "big"); err != nil || n != 100_000 {
		t.Errorf("the change was meant to be one that nothing else finds: %v, %d rows", err, n)
	}

	v, err := pgarchive.NewVerifier(bytes.NewReader(tampered), want)
	if err != nil {
		t.Fatal(err)
	}
	target, err = restore(v)
	var me *pgarchive.MismatchError
	if !errors.As(err, &me) || me.Part != "TABLE DATA public.big" {
		t.Fatalf("restore: %v", err)
	}
	if n := count(target, "big"); n != 0 {
		t.Errorf("%d rows of the tampered table stayed", n)
	}

	v, err = pgarchive.NewVerifier(bytes.NewReader(archive), want)
	if err != nil {
		t.Fatal(err)
	}
	target, err = restore(v)
	if err != nil || count(target, "big") != 100_000 || count(target, "zbig") != 100_000 {
		t.Errorf("untampered: %v", err)
	}
}

// awaitNoSessions returns when nobody is connected to the database any more: a killed
// client's backend lives on until it looks at its socket.
func awaitNoSessions(t testing.TB, c *testenv.Cluster, db string) {
	t.Helper()
	conn := c.Connect(t, "postgres")
	for n := -1; n != 0; {
		if err := conn.QueryRow(t.Context(), "SELECT count(*), pg_sleep(0.01)::text FROM pg_stat_activity WHERE datname = $1", db).Scan(&n, nil); err != nil {
			t.Fatal(err)
		}
	}
}
