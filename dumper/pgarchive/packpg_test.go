package pgarchive_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/internal/testenv"
)

// pack runs pg_dump through a Packer.
func pack(t testing.TB, c *testenv.Cluster, db string, opts pgarchive.PackOptions, args ...string) (p *pgarchive.Packer, body []byte) {
	t.Helper()
	cmd := client(t, c, db, "pg_dump", append([]string{"-Fc"}, args...)...)
	cmd.Env = append(cmd.Env, "PGTZ=UTC")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err = pgarchive.NewPacker(stdout, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	body, err = io.ReadAll(p)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Fatalf("pg_dump %q: %v", args, err)
	}
	return p, body
}

// script is what pg_restore makes of an archive, without the random words in it.
func script(t testing.TB, c *testenv.Cluster, archive io.Reader) string {
	t.Helper()
	cmd := client(t, c, "postgres", "pg_restore", "-f", "-")
	cmd.Stdin = archive
	var kept strings.Builder
	for line := range strings.Lines(string(output(t, cmd))) {
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// pg_restore makes the same of what was packed at every level it knows, and of what pg_dump
// compressed.
func TestPostgresPackedScripts(t *testing.T) {
	c := testenv.Postgres(t)
	db := loadSample(t, c, true)
	s, body := dump(t, c, db)
	want := script(t, c, io.MultiReader(bytes.NewReader(s.HeadBytes()), bytes.NewReader(body)))
	if strings.Count(want, "\n") < 200_000 || !strings.Contains(want, "lowrite") {
		t.Fatalf("a script of %d bytes", len(want))
	}
	compressions := []pgarchive.Compression{{Algorithm: "none"}, {Algorithm: pgarchive.KeepCompression}}
	for level := 1; level <= 9; level++ {
		compressions = append(compressions, pgarchive.Compression{Algorithm: "gzip", Level: level})
	}
	for _, compression := range compressions {
		t.Run(fmt.Sprint(compression), func(t *testing.T) {
			p, body := pack(t, c, db, pgarchive.PackOptions{Compression: compression, Workers: 2, Verify: true}, "-Z0")
			if got := script(t, c, io.MultiReader(bytes.NewReader(p.HeadBytes()), bytes.NewReader(body))); got != want {
				t.Errorf("another script: %d bytes of %d, first difference at %d", len(got), len(want), firstDifference([]byte(got), []byte(want)))
			}
		})
	}
}

func TestPostgresPackedRestores(t *testing.T) {
	c := testenv.Postgres(t)
	db := loadSample(t, c, true)
	want := contents(t, c, db)
	for _, compression := range []pgarchive.Compression{{Algorithm: "none"}, {Algorithm: "gzip", Level: 1}, {Algorithm: "gzip", Level: 6}} {
		p, body := pack(t, c, db, pgarchive.PackOptions{Compression: compression}, "-Z0")
		head, err := p.PatchedHead()
		if err != nil {
			t.Fatal(err)
		}
		patched := filepath.Join(t.TempDir(), "patched")
		if err := os.WriteFile(patched, append(head, body...), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, restore := range map[string]func(target string) *exec.Cmd{
			"streamed": func(target string) *exec.Cmd {
				cmd := client(t, c, target, "pg_restore", "-e", "-d", target)
				cmd.Stdin = io.MultiReader(bytes.NewReader(p.HeadBytes()), bytes.NewReader(body))
				return cmd
			},
			"two jobs": func(target string) *exec.Cmd {
				return client(t, c, target, "pg_restore", "-e", "-j2", "-d", target, patched)
			},
		} {
			t.Run(fmt.Sprint(compression, " ", name), func(t *testing.T) {
				target := c.CreateDatabase(t)
				output(t, restore(target))
				if got := contents(t, c, target); got != want {
					t.Errorf("restored:\n%s\nwant:\n%s", got, want)
				}
			})
		}
		t.Run(fmt.Sprint(compression, " one table"), func(t *testing.T) {
			target := c.CreateDatabase(t)
			output(t, client(t, c, target, "pg_restore", "-e", "-t", "zbig", "-d", target, patched))
			var n int
			if err := c.Connect(t, target).QueryRow(t.Context(), "SELECT count(*) FROM zbig").Scan(&n); err != nil || n != 100_000 {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
}

// dumpSession has pg_dump's own settings, and its snapshot.
func dumpSession(t testing.TB, c *testenv.Cluster, db string) (conn *pgx.Conn, snapshot string) {
	t.Helper()
	conn = c.Connect(t, db)
	for _, sql := range []string{
		"SET datestyle = ISO", "SET intervalstyle = postgres", "SET extra_float_digits = 3", "SET synchronize_seqscans = off",
		"SET row_security = off", "SET TimeZone = 'UTC'", "SELECT pg_catalog.set_config('search_path', '', false)",
		"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshot); err != nil {
		t.Fatal(err)
	}
	return conn, snapshot
}

// copyEvidence asks the server itself for a table's rows and computes their evidence anew.
func copyEvidence(t testing.TB, conn *pgx.Conn, e *pgarchive.Entry) pgarchive.Content {
	t.Helper()
	var text bytes.Buffer
	query := strings.Replace(e.CopyStmt.S, " FROM stdin;", " TO STDOUT", 1)
	tag, err := conn.PgConn().CopyTo(t.Context(), &text, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	want := pgarchive.Content{
		Evidence: pgarchive.EvidenceRows, RawBytes: int64(text.Len() + len("\\.\n\n\n")), Rows: tag.RowsAffected(), SHA256: sha256.Sum256(text.Bytes()),
	}
	lines := bytes.Split(text.Bytes(), []byte("\n"))
	for _, line := range lines[:len(lines)-1] {
		sum := sha256.Sum256(line)
		want.RowSums[0] += binary.BigEndian.Uint64(sum[0:])
		want.RowSums[1] += binary.BigEndian.Uint64(sum[8:])
	}
	return want
}

// The evidence is that of the server at the same snapshot, while others write.
func TestPostgresEvidence(t *testing.T) {
	c := testenv.Postgres(t)
	db := loadSample(t, c, true)
	c.Exec(t, db, `CREATE TABLE odd (f float8, d date, ts timestamptz, iv interval, b bytea, j jsonb, a text[], n numeric, "t a" text);
		INSERT INTO odd SELECT 0.1 + i / 3.0, date '2024-02-28' + i, timestamptz '2024-03-31 00:30:00+01' + i * interval '1 hour', i * interval '1 day 2 hours',
			decode(md5(i::text), 'hex'), jsonb_build_object('k', i, 'v', E'new\nline'), ARRAY['a', NULL, E'q"\\'], i / 7.0, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN '\.' ELSE E'\r\n\t\\' END
		FROM generate_series(-50, 5000) i;
		CREATE TABLE wide AS SELECT repeat(md5(i::text), 100000) AS v FROM generate_series(1, 3) i`)
	conn, snapshot := dumpSession(t, c, db)
	c.Exec(t, db, "INSERT INTO big VALUES (0, 'later'); DELETE FROM odd; SELECT lo_from_bytea(18000, 'later')")

	for name, args := range map[string][]string{"gzip": {"-Z0"}, pgarchive.KeepCompression: nil} {
		t.Run(name, func(t *testing.T) {
			var objects strings.Builder
			p, _ := pack(t, c, db, pgarchive.PackOptions{Compression: pgarchive.Compression{Algorithm: name}, Workers: 2, LargeObject: func(o pgarchive.LargeObject) {
				fmt.Fprintf(&objects, "%d %d %x\n", o.OID, o.RawBytes, o.SHA256)
			}}, append(args, "--snapshot="+snapshot)...)
			head, err := p.Head()
			if err != nil {
				t.Fatal(err)
			}
			tables := 0
			for i, e := range head.Promised() {
				if e.HoldsLargeObjects() {
					continue
				}
				if got, want := p.Blocks()[i].Content, copyEvidence(t, conn, e); got != want {
					t.Errorf("%s:\n%+v, the server says\n%+v", e.Label(), got, want)
				}
				tables++
			}
			if tables < 12 {
				t.Errorf("%d tables", tables)
			}
			var want string
			if err := conn.QueryRow(t.Context(), `SELECT string_agg(oid || ' ' || length(lo_get(oid)) || ' ' || encode(sha256(lo_get(oid)), 'hex') || E'\n', '' ORDER BY oid)
				FROM pg_largeobject_metadata`).Scan(&want); err != nil || objects.String() != want {
				t.Errorf("large objects:\n%s, the server says\n%s, %v", objects.String(), want, err)
			}
		})
	}
	p, _ := pack(t, c, db, pgarchive.PackOptions{Compression: pgarchive.Compression{Algorithm: "gzip"}}, "-Z0", "--inserts", "--snapshot="+snapshot)
	for _, b := range p.Blocks() {
		if !b.BlobBlock && (b.Content.Evidence != pgarchive.EvidenceNone || b.Content.Reason == "" || b.Content.Rows != 0) {
			t.Errorf("INSERTs: %+v", b)
		}
	}
}

// The recipe of docs/content-hashes.md, in SQL alone.
func TestPostgresEvidenceInSQL(t *testing.T) {
	c := testenv.Postgres(t)
	db := loadSample(t, c, true)
	p, _ := pack(t, c, db, pgarchive.PackOptions{Compression: pgarchive.Compression{Algorithm: "none"}}, "-Z0")
	head, err := p.Head()
	if err != nil {
		t.Fatal(err)
	}
	var got pgarchive.Content
	for i, e := range head.Promised() {
		if e.Tag.S == "big" {
			got = p.Blocks()[i].Content
		}
	}
	doc, err := os.ReadFile("../../docs/content-hashes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```sql\n")
	query, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no SQL in the page")
	}
	var rows int64
	var whole, high, low string
	if err := c.Connect(t, db).QueryRow(t.Context(), query).Scan(&rows, &whole, &high, &low); err != nil {
		t.Fatal(err)
	}
	var sums [2]big.Int
	for i, s := range []string{high, low} {
		if _, ok := sums[i].SetString(s, 10); !ok {
			t.Fatal(s)
		}
	}
	if rows != got.Rows || whole != fmt.Sprintf("%x", got.SHA256) || sums[0].Uint64() != got.RowSums[0] || sums[1].Uint64() != got.RowSums[1] {
		t.Errorf("SQL says %d, %s, %v, %v; the packer %+v", rows, whole, &sums[0], &sums[1], got)
	}
}
