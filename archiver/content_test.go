package archiver

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// compressed is an archive of db in this compression.
func compressed(t *testing.T, pg *testenv.Cluster, db, compression string, change func(*ArchiveOptions)) (*ArchiveResult, *Index, *storagetest.Memory) {
	t.Helper()
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	c, err := ParseCompression(compression)
	if err != nil {
		t.Fatal(err)
	}
	opts := ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Pgstow: "test", Compression: c}
	if change != nil {
		change(&opts)
	}
	res, err := Archive(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: res.Manifest.ID})
	if err != nil {
		t.Fatal(err)
	}
	validate(t, content(t, b)[res.Manifest.Key])
	return res, shown.Index, b
}

// However the dump is compressed, the archive says the same of its content,
// and stock pg_restore makes the same database of it.
func TestCompressions(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(source), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	goroutines := goleak.IgnoreCurrent()
	var first *Index
	for _, c := range []struct {
		how, algorithm string
		level          int
		jobs           int
	}{
		{"none", "none", 0, 0},
		{"gzip:6", "gzip", 6, 1},
		{"gzip:1", "gzip", 1, 5},
		{"auto", "gzip", 6, 0},
		{"pg_dump", "gzip", -1, 2},
		{"zstd:3", "zstd", 3, 0},
		{"lz4", "lz4", 0, 0},
	} {
		t.Run(c.how, func(t *testing.T) {
			res, ix, b := compressed(t, pg, source, c.how, func(o *ArchiveOptions) { o.Jobs, o.VerifyCompression = c.jobs, true })
			m := res.Manifest
			if m.Archive.Compression != c.algorithm || m.Archive.CompressionLevel != c.level || m.Evidence != EvidenceContent {
				t.Errorf("manifest is %+v", m)
			}
			checkByHand(t, m, content(t, b))
			if first == nil {
				first = ix
			}
			sameEvidence(t, first, ix)
			if c.algorithm == "zstd" || c.algorithm == "lz4" {
				// PostgreSQL 15's pg_restore cannot read them; the archive says so.
				if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "pg_restore 16") || m.Archive.Version != "1.15.0" {
					t.Errorf("version %s, warnings %q", m.Archive.Version, res.Warnings)
				}
				return
			}
			target := pg.CreateDatabase(t)
			stockRestore(t, pg, target, b, m)
			equal(t, pg, source, target)
		})
	}
	goleak.VerifyNone(t, goroutines)
}

// sameEvidence compares what two indexes say of one database's content.
func sameEvidence(t *testing.T, a, b *Index) {
	t.Helper()
	if len(a.Blocks) != len(b.Blocks) || !slices.Equal(a.LargeObjects, b.LargeObjects) || len(a.LargeObjects) != sample.LargeObjects {
		t.Fatalf("%d and %d blocks, large objects %v and %v", len(a.Blocks), len(b.Blocks), a.LargeObjects, b.LargeObjects)
	}
	for i := range a.Blocks {
		x, y := a.Blocks[i], b.Blocks[i]
		if x.label() != y.label() || x.RawBytes != y.RawBytes || (x.Content == nil) != (y.Content == nil) || x.Content != nil && *x.Content != *y.Content {
			t.Errorf("one says %+v of %+v, the other %+v of %+v", x.Content, x, y.Content, y)
		}
	}
}

func TestContentIsThatOfTheSnapshot(t *testing.T) {
	contentIsThatOfTheSnapshot(t, testenv.Postgres(t), "", "auto")
}

// What the index says of each table is what the server says of it in the
// dump's own snapshot, while others go on writing.
func contentIsThatOfTheSnapshot(t *testing.T, pg *testenv.Cluster, pgBin string, compressions ...string) {
	t.Helper()
	db := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(db), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	pg.Exec(t, db, `CREATE TABLE plain AS SELECT i AS id, md5(i::text) AS hex FROM generate_series(1, 30000) i`)
	for round, how := range compressions {
		t.Run(how, func(t *testing.T) {
			witness := pg.Connect(t, db)
			joined := false
			_, ix, _ := compressed(t, pg, db, how, func(o *ArchiveOptions) {
				o.PGBin = pgBin
				o.Progress = func(p Progress) {
					if p.Phase != PhaseCatalogue || joined {
						return
					}
					joined = true
					joinSnapshot(t, pg, witness)
					// What is written from now on is not in the archive.
					pg.Exec(t, db, fmt.Sprintf(`UPDATE plain SET hex = 'later %[1]d' WHERE id %% 3 = 0; DELETE FROM plain WHERE id %% 17 = %[1]d;
						INSERT INTO plain SELECT -i, 'more' FROM generate_series(1, 500) i;
						SELECT lo_put((SELECT min(oid) FROM pg_largeobject_metadata), 0, 'overwritten %[1]d')`, round))
				}
			})
			if !joined {
				t.Fatal("nobody joined the snapshot")
			}
			sameAsTheServer(t, witness, ix)
		})
	}
}

// sameAsTheServer compares an index with what a session sees of the tables and
// large objects.
func sameAsTheServer(t *testing.T, witness *pgx.Conn, ix *Index) {
	t.Helper()
	tables := 0
	for _, b := range ix.Blocks {
		if b.Kind != KindTable {
			continue
		}
		tables++
		if got := contentOf(t, witness, b.Schema, b.Name); *b.Content != got {
			t.Errorf("%s: the index says %+v, the server %+v", b.label(), *b.Content, got)
		}
	}
	if tables < 10 || len(ix.LargeObjects) != sample.LargeObjects {
		t.Errorf("%d tables, %d large objects", tables, len(ix.LargeObjects))
	}
	for _, o := range ix.LargeObjects {
		var data []byte
		if err := witness.QueryRow(t.Context(), `SELECT lo_get($1)`, o.OID).Scan(&data); err != nil {
			t.Fatal(err)
		}
		if int64(len(data)) != o.RawBytes || sha256.Sum256(data) != o.SHA256 {
			t.Errorf("large object %d: %d bytes in the index, %d on the server", o.OID, o.RawBytes, len(data))
		}
	}
	// And once with nothing of ours: the query of docs/content-hashes.md.
	i := slices.IndexFunc(ix.Blocks, func(b IndexBlock) bool { return b.Name == "plain" })
	var bySQL IndexContent
	query := documentedQuery(t)
	if err := witness.QueryRow(t.Context(), query).Scan(&bySQL.Rows, &bySQL.SHA256, &bySQL.RowSums[0], &bySQL.RowSums[1]); err != nil {
		t.Fatal(err)
	}
	for i, decimal := range bySQL.RowSums { // the index has it in hexadecimal
		n, err := strconv.ParseUint(decimal, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		bySQL.RowSums[i] = fmt.Sprintf("%016x", n)
	}
	if i < 0 || *ix.Blocks[i].Content != bySQL || bySQL.Rows < 10000 {
		t.Errorf("the documented query says %+v, the index %+v", bySQL, ix.Blocks[max(i, 0)].Content)
	}
}

// sessionSettings are those of pg_dump.
const sessionSettings = "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET search_path = ''; SET row_security = off"

// joinSnapshot gives the session the snapshot that the archive has exported:
// the only one in the cluster.
func joinSnapshot(t *testing.T, pg *testenv.Cluster, conn *pgx.Conn) {
	t.Helper()
	exported, err := os.ReadDir(filepath.Join(pg.Dir, "pg_snapshots"))
	if err != nil || len(exported) != 1 {
		t.Fatalf("exported snapshots: %v, %v", exported, err)
	}
	for _, sql := range []string{
		sessionSettings,
		"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
		"SET TRANSACTION SNAPSHOT '" + exported[0].Name() + "'",
	} {
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
}

// contentOf follows docs/content-hashes.md over what the server sends.
func contentOf(t *testing.T, conn *pgx.Conn, schema, table string) IndexContent {
	t.Helper()
	const columns = `SELECT coalesce(string_agg(quote_ident(attname), ', ' ORDER BY attnum), '') FROM pg_catalog.pg_attribute
		WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`
	name := pgx.Identifier{schema, table}.Sanitize()
	var list string
	if err := conn.QueryRow(t.Context(), columns, name).Scan(&list); err != nil {
		t.Fatal(err)
	}
	if list != "" {
		list = "(" + list + ")"
	}
	var text bytes.Buffer
	if _, err := conn.PgConn().CopyTo(t.Context(), &text, "COPY "+name+" "+list+" TO STDOUT"); err != nil {
		t.Fatal(err)
	}
	var high, low uint64
	var rows int64
	for line := range bytes.Lines(text.Bytes()) {
		sum := sha256.Sum256(bytes.TrimSuffix(line, []byte("\n")))
		high += binary.BigEndian.Uint64(sum[:8])
		low += binary.BigEndian.Uint64(sum[8:16])
		rows++
	}
	return IndexContent{Rows: rows, SHA256: hexSum(text.Bytes()), RowSums: [2]string{fmt.Sprintf("%016x", high), fmt.Sprintf("%016x", low)}}
}

// documentedQuery is the one of docs/content-hashes.md, for the table plain.
func documentedQuery(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "content-hashes.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, query, _ := strings.Cut(string(doc), "```sql\n")
	query, _, found := strings.Cut(query, "```")
	if !found || !strings.Contains(query, "FROM big") {
		t.Fatalf("no query in the document: %q", query)
	}
	return strings.NewReplacer("FROM big", "FROM public.plain").Replace(query)
}

// INSERT statements cannot be counted as rows: the archive says that it has no
// evidence, and why.
func TestNoEvidenceForInserts(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	for _, how := range []string{"gzip", "pg_dump"} {
		t.Run(how, func(t *testing.T) {
			res, ix, b := compressed(t, pg, db, how, func(o *ArchiveOptions) { o.DumpArgs = []string{"--rows-per-insert=100"} })
			m := res.Manifest
			if m.Evidence != EvidenceNone || !strings.Contains(m.EvidenceReason, "INSERT") || m.Totals.Rows != nil || len(res.Warnings) != 1 {
				t.Errorf("evidence %q, %q, rows %v, warnings %q", m.Evidence, m.EvidenceReason, m.Totals.Rows, res.Warnings)
			}
			for _, c := range ix.Contents() {
				if (c.Rows >= 0) != (c.Kind == KindLargeObjects) || c.RawBytes == 0 {
					t.Errorf("contents: %+v", c)
				}
			}
			if len(ix.LargeObjects) != 1 {
				t.Errorf("large objects: %v", ix.LargeObjects)
			}
			target := pg.CreateDatabase(t)
			stockRestore(t, pg, target, b, m)
			equal(t, pg, db, target)
		})
	}
}

// Progress names the tables in the order of the dump, and never goes back.
func TestProgressOfTables(t *testing.T) {
	pg := testenv.Postgres(t)
	db := longSource(t, pg)
	pg.Exec(t, db, `CREATE TABLE tiny AS SELECT 1 AS id; ANALYZE`)
	for _, how := range []string{"gzip:1", "pg_dump"} {
		t.Run(how, func(t *testing.T) {
			var seen []Progress
			compressed(t, pg, db, how, func(o *ArchiveOptions) {
				o.Progress = func(p Progress) {
					if p.Table.Name != "" && p.Phase == PhaseData {
						seen = append(seen, p)
					}
				}
			})
			if len(seen) == 0 {
				t.Fatal("no table was named")
			}
			for i, p := range seen {
				if p.Table.Name != "public.long" && p.Table.Name != "public.tiny" || p.Tables != 2 || p.Share < 0 || p.Share > 1 {
					t.Errorf("progress is %+v", p)
				}
				if p.Table.Name == "public.long" && (p.Table.RowsTotal != 100000 || p.Table.BytesTotal < 20<<20) {
					t.Errorf("estimates are %+v", p.Table)
				}
				if i > 0 && (p.Share < seen[i-1].Share || p.Table.Name == seen[i-1].Table.Name && p.Table.Rows < seen[i-1].Table.Rows) {
					t.Errorf("from %+v back to %+v", seen[i-1], p)
				}
			}
			if last := seen[len(seen)-1]; last.Share == 0 || last.Table.Rows == 0 || last.Table.Bytes == 0 {
				t.Errorf("the last report is %+v", last)
			}
		})
	}
}
