package archiver

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// goldenDir has dumps of one small database, sample.sql, as several majors wrote them.
const goldenDir = "../dumper/pgarchive/testdata"

// eachGolden runs f for every golden dump of a major up to newest.
func eachGolden(t *testing.T, newest int, f func(t *testing.T, major int, file string)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.dump"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]int{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dump")
		major, err := strconv.Atoi(name[:2])
		if err != nil {
			t.Fatal(err)
		}
		if major > newest {
			continue
		}
		found[major]++
		t.Run(name, func(t *testing.T) { f(t, major, file) })
	}
	if found[13] < 2 || newest >= 15 && found[15] < 6 || newest >= 17 && found[17] < 5 || newest >= 18 && found[18] < 6 {
		t.Errorf("golden dumps by major: %v", found)
	}
}

// goldenTarget is a server that golden dumps are restored into.
type goldenTarget struct {
	pg    *testenv.Cluster
	major int
	db    string // with sample.sql in it
}

func newGoldenTarget(t *testing.T, pg *testenv.Cluster) goldenTarget {
	t.Helper()
	g := goldenTarget{pg: pg, db: pg.CreateDatabase(t)}
	if err := pg.Connect(t, g.db).QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int / 10000`).Scan(&g.major); err != nil {
		t.Fatal(err)
	}
	g.load(t, g.db)
	return g
}

// load runs sample.sql as the superuser that the golden dumps name as owner.
// Roles belong to the cluster: they may be there.
func (g goldenTarget) load(t *testing.T, db string) {
	t.Helper()
	sql, err := os.ReadFile(filepath.Join(goldenDir, "sample.sql"))
	if err != nil {
		t.Fatal(err)
	}
	text := "CREATE ROLE golden SUPERUSER;\nSET SESSION AUTHORIZATION golden;\n" + string(sql)
	createRole := regexp.MustCompile(`(?m)^CREATE ROLE .*;$`)
	g.pg.Exec(t, db, createRole.ReplaceAllString(text, "DO $$$$ BEGIN $0 EXCEPTION WHEN duplicate_object THEN NULL; END $$$$;"))
}

// archive gives the golden dump to pgstow, as if pg_dump wrote it.
func (g goldenTarget) archive(t *testing.T, file string) (*ArchiveResult, *Index, *storagetest.Memory) {
	t.Helper()
	dump, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"pg_restore", "pg_dumpall"} {
		if err := os.Symlink(filepath.Join(g.pg.BinDir, name), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in --version) exec '%s/pg_dump' --version ;; esac\nexec cat '%s'\n", g.pg.BinDir, dump)
	if err := os.WriteFile(filepath.Join(bin, "pg_dump"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	res, ix, b := compressed(t, g.pg, g.db, "pg_dump", func(o *ArchiveOptions) { o.PGBin = bin })
	// What is stored is that dump, with its offsets set.
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head := res.Manifest.Objects.Dump.Head.Length
	stored := content(t, b)[res.Manifest.Objects.Dump.Key]
	if len(stored) != len(golden) || !bytes.Equal(stored[head:], golden[head:]) {
		t.Errorf("stored are %d bytes of %d, or others", len(stored), len(golden))
	}
	checkByHand(t, res.Manifest, content(t, b))
	return res, ix, b
}

// restores archives a golden dump, restores it by pgstow and by stock
// pg_restore, and compares what comes of it with the database that it is of.
func (g goldenTarget) restores(t *testing.T, file string) {
	t.Helper()
	name := strings.TrimSuffix(filepath.Base(file), ".dump")
	res, ix, b := g.archive(t, file)
	m := res.Manifest
	if m.Structure != StructureComplete || (m.Evidence == EvidenceNone) != strings.HasSuffix(name, "-inserts") {
		t.Errorf("structure %s, evidence %s", m.Structure, m.Evidence)
	}
	conn := g.pg.Connect(t, g.db)
	if _, err := conn.PgConn().Exec(t.Context(), sessionSettings).ReadAll(); err != nil {
		t.Fatal(err)
	}
	for _, block := range ix.Blocks {
		if block.Content == nil {
			continue
		}
		if got := contentOf(t, conn, block.Schema, block.Name); *block.Content != got {
			t.Errorf("%s: the index says %+v, the server %+v", block.label(), *block.Content, got)
		}
	}
	into := func(restore func(db string)) {
		t.Helper()
		db := g.pg.CreateDatabase(t)
		if strings.HasSuffix(name, "-data") {
			g.load(t, db)
			g.pg.Exec(t, db, "TRUNCATE customer, \"Sales & Co\".\"Größe \"\"M\"\"\", \"line\nbreak\", zero_columns, digest, measure; "+
				"SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
		}
		restore(db)
		g.compare(t, name, db)
	}
	into(func(db string) {
		opts := RestoreOptions{Bucket: b, Ref: m.ID, Conn: connTo(t, g.pg, db), PGBin: g.pg.BinDir, Jobs: 2}
		if strings.HasSuffix(name, "-data") {
			opts.IntoNonempty, opts.Restore = true, dumper.RestoreOptions{DataOnly: true}
		}
		back, err := Restore(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if len(back.Errors) > 0 {
			t.Errorf("errors: %q", back.Errors)
		}
	})
	into(func(db string) {
		plain := filepath.Join(t.TempDir(), "plain.dump")
		if err := os.WriteFile(plain, content(t, b)[m.Objects.Dump.Key], 0o600); err != nil {
			t.Fatal(err)
		}
		// A URL with a password on the command line: a throwaway cluster.
		jobs := "2"
		if strings.HasSuffix(name, "-data") {
			jobs = "1" // the foreign keys are there already
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(g.pg.BinDir, "pg_restore"), "-e", "-j", jobs, "-d", g.pg.URL(db), plain)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("pg_restore: %v\n%s", err, out)
		}
	})
}

// compare wants in db what a golden dump of that name holds of the sample.
func (g goldenTarget) compare(t *testing.T, name, db string) {
	t.Helper()
	_, variant, _ := strings.Cut(name, "-")
	if variant == "schema" || variant == "predata" {
		g.pg.Exec(t, db, `REFRESH MATERIALIZED VIEW totals`) // no one has; then it cannot be read
	}
	diffs, err := sample.Compare(t.Context(), g.pg.URL(g.db), g.pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	if len(diffs) < 13 {
		t.Errorf("only %d things were compared", len(diffs))
	}
	for _, d := range diffs {
		empty := d.CopyRows == 0 && d.SourceRows >= 0
		var ok bool
		switch {
		case variant == "predata" && d.Kind == "large objects": // they are created there, empty
			ok = d.CopyRows == d.SourceRows
		case variant == "schema", variant == "predata":
			ok = empty || d.Kind == "sequence" || d.Kind == "definitions" && (d.Equal() || variant == "predata" && d.CopyRows > 20)
		case variant == "data" && d.Kind == "materialized view": // it is refreshed by what comes after data
			ok = true
		default:
			ok = d.Equal()
		}
		if !ok {
			t.Errorf("differs: %+v", d)
		}
	}
}

// TestGoldenDumps: what this and older majors once wrote can be archived, and
// restores.
func TestGoldenDumps(t *testing.T) {
	g := newGoldenTarget(t, testenv.Postgres(t))
	eachGolden(t, g.major, func(t *testing.T, _ int, file string) { g.restores(t, file) })
}
