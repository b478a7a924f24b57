//go:build versions

package archiver

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
)

// everyCompression is all that --compress takes, but for further levels.
var everyCompression = []string{"none", "gzip:1", "gzip:6", "zstd", "lz4", "pg_dump", "auto"}

// loaded is the sample in a server of every major.
type loaded struct {
	pg *testenv.Cluster
	db string
	// definitions are those of the sample as this major shows them.
	definitions sample.Item
}

func loadMajors(t *testing.T) map[int]loaded {
	t.Helper()
	all := map[int]loaded{}
	for _, major := range testenv.Majors {
		pg := testenv.PostgresMajor(t, major)
		l := loaded{pg: pg, db: pg.CreateDatabase(t)}
		if err := sample.Load(t.Context(), pg.URL(l.db), sample.Options{NoPgbench: true}); err != nil {
			t.Fatalf("PostgreSQL %d: %v", major, err)
		}
		items, err := sample.Snapshot(t.Context(), pg.URL(l.db))
		if err != nil {
			t.Fatal(err)
		}
		l.definitions = items[slices.IndexFunc(items, func(i sample.Item) bool { return i.Kind == "definitions" })]
		all[major] = l
	}
	return all
}

// holds compares a copy of source, in a server that may be of another major.
// One and the same definition reads differently there, so the copy's are
// compared with those of the sample itself in that server.
func (target loaded) holds(t *testing.T, source loaded, db string) {
	t.Helper()
	diffs, err := sample.Compare(t.Context(), source.pg.URL(source.db), target.pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	if len(diffs) < 15 {
		t.Errorf("only %d things were compared", len(diffs))
	}
	for _, d := range diffs {
		if d.Kind == "definitions" {
			d.SourceRows, d.SourceHash = target.definitions.Rows, target.definitions.Hash
		}
		if !d.Equal() {
			t.Errorf("differs: %+v", d)
		}
	}
}

// readers are the majors whose pg_restore reads an archive of this version and
// compression. Of the ones before 16, none knows a newer layout, or zstd and lz4.
func readers(t *testing.T, m *Manifest) []int {
	t.Helper()
	oldest, ok := map[string]int{"1.14.0": 13, "1.15.0": 17, "1.16.0": 17}[m.Archive.Version]
	if !ok || oldest < 16 && (m.Archive.Compression == "zstd" || m.Archive.Compression == "lz4") {
		t.Fatalf("an archive of version %s with %s", m.Archive.Version, m.Archive.Compression)
	}
	return slices.DeleteFunc(slices.Clone(testenv.Majors), func(major int) bool { return major < oldest })
}

// Every pg_restore that knows the archive's format reads what we wrote, in
// each of its ways, and makes the source's content of it.
func TestVersionsStockRestores(t *testing.T) {
	all := loadMajors(t)
	for _, major := range testenv.Majors {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			source := all[major]
			for _, how := range everyCompression {
				t.Run(how, func(t *testing.T) {
					res, _, b := compressed(t, source.pg, source.db, how, func(o *ArchiveOptions) { o.PGBin = source.pg.BinDir })
					file := filepath.Join(t.TempDir(), "archive.dump")
					if err := os.WriteFile(file, content(t, b)[res.Manifest.Objects.Dump.Key], 0o600); err != nil {
						t.Fatal(err)
					}
					for _, reader := range readers(t, res.Manifest) {
						t.Run(fmt.Sprint("pg_restore ", reader), func(t *testing.T) {
							s := stock{reader: reader, file: file}
							s.restores(t, source, all[max(major, reader)])
						})
					}
				})
			}
		})
	}
}

// stock is a pg_restore with an archive to read.
type stock struct {
	reader int
	file   string
}

// restores streams the archive into a server of the reader's own major, if that
// is not older than the source, and reads it by offsets for the source's own.
func (s stock) restores(t *testing.T, source, newer loaded) {
	t.Helper()
	db := newer.pg.CreateDatabase(t)
	s.run(t, newer.pg, db, true)
	newer.holds(t, source, db)

	db = source.pg.CreateDatabase(t)
	s.run(t, source.pg, db, false, "-j", "2")
	source.holds(t, source, db)

	db = source.pg.CreateDatabase(t)
	source.pg.Exec(t, db, `CREATE SCHEMA shop; CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent; really', 'it''s back')`)
	s.run(t, source.pg, db, false, "-n", "shop", "-t", "purchase")
	diffs, err := sample.Compare(t.Context(), source.pg.URL(source.db), source.pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diffs {
		if there := d.CopyRows >= 0; d.Kind == "table" && there != (d.Name == "purchase") || d.Name == "purchase" && (!d.Equal() || d.CopyRows < 1000) {
			t.Errorf("one table: %+v", d)
		}
	}
}

// run runs pg_restore. Its only complaint may be that a server of before 17 does
// not know transaction_timeout, which a newer pg_restore sets.
func (s stock) run(t *testing.T, pg *testenv.Cluster, db string, streamed bool, args ...string) {
	t.Helper()
	var server int
	if err := pg.Connect(t, db).QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int / 10000`).Scan(&server); err != nil {
		t.Fatal(err)
	}
	complains := s.reader >= 17 && server < 17
	if !complains {
		args = append(args, "--exit-on-error")
	}
	args = append(args, "-d", db)
	if !streamed {
		args = append(args, s.file)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(testenv.MajorBin(t, s.reader), "pg_restore"), args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "PGHOST=" + pg.Host, fmt.Sprint("PGPORT=", pg.Port), "PGUSER=" + pg.User, "PGPASSWORD=" + pg.Password}
	if streamed {
		file, err := os.Open(s.file)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		stdin, err := cmd.StdinPipe() // a file it would seek in
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = file.WriteTo(stdin) // pg_restore says what it lacks
			_ = stdin.Close()
		}()
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if (err != nil) != complains {
		t.Fatalf("pg_restore %q: %v\n%s", args, err, stderr.Bytes())
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, "error:") && !strings.Contains(line, `unrecognized configuration parameter "transaction_timeout"`) {
			t.Fatalf("pg_restore %q: %v\n%s", args, err, stderr.Bytes())
		}
	}
}

// The evidence is the server's, on every major, with its own client programs
// and with newer ones.
func TestVersionsEvidence(t *testing.T) {
	for _, c := range []struct{ server, client int }{{13, 13}, {15, 15}, {17, 17}, {18, 18}, {13, 18}, {15, 17}} {
		t.Run(fmt.Sprintf("server %d, pg_dump %d", c.server, c.client), func(t *testing.T) {
			how := everyCompression
			if c.server != c.client {
				how = []string{"auto"}
			}
			contentIsThatOfTheSnapshot(t, testenv.PostgresMajor(t, c.server), testenv.MajorBin(t, c.client), how...)
		})
	}
}

// Every golden dump goes into a server of its own major and into every later one.
func TestVersionsGoldenDumps(t *testing.T) {
	for _, major := range testenv.Majors {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			g := newGoldenTarget(t, testenv.PostgresMajor(t, major))
			eachGolden(t, major, func(t *testing.T, _ int, file string) { g.restores(t, file) })
		})
	}
}
