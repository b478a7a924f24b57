package archiver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// everything has what tends to come out otherwise than it went in, beside the sample's.
const everything = `
CREATE EXTENSION hstore;
DROP EXTENSION plpgsql CASCADE;
CREATE EXTENSION plpgsql; -- as pg_upgrade does: the dump has it, one of the copy has not
CREATE SCHEMA odd;
CREATE TYPE odd.mood AS ENUM ('sad', 'glad');
CREATE TYPE odd.pair AS (a int, b text);
CREATE DOMAIN odd.positive AS numeric CHECK (VALUE > 0);
CREATE TABLE odd.texts (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone text, f4 real, f8 double precision, i interval, ts timestamptz, t time with time zone,
    b bytea, m money, a text[], p odd.pair, r tstzrange, mr int4multirange, j jsonb, js json, x xml, e odd.mood, d odd.positive, h hstore,
    ref regclass, bits bit varying, net inet, u uuid, pt point, tsv tsvector, double_f8 float8 GENERATED ALWAYS AS (f8 * 2) STORED);
ALTER TABLE odd.texts DROP COLUMN gone;
INSERT INTO odd.texts (f4, f8, i, ts, t, b, m, a, p, r, mr, j, js, x, e, d, h, ref, bits, net, u, pt, tsv)
SELECT 1 / i::real, 1 / i::float8, make_interval(0, i, 0, -i, i, 0, i / 7.0), timestamptz '2026-03-29 00:59:59.999999+00' + make_interval(hours => i),
    timetz '12:00+02', decode(md5(i::text), 'hex') || '\x005c0a'::bytea, (i * 1234.5)::numeric::money, ARRAY['x' || i, NULL, '"', ''],
    ROW (i, E'tab\t')::odd.pair, tstzrange(timestamptz '2026-01-01+00' + make_interval(mins => i), NULL, '(]'), int4multirange(int4range(i, i + 2), int4range(i + 9, i + 11)),
    jsonb_build_object('n', i / 3.0, 'u', 'ü'), '{"b": 1,  "a": 2}', '<a>&lt;</a>', (ARRAY['sad', 'glad']::odd.mood[])[1 + i % 2], i, hstore('k', i::text),
    'odd.texts'::regclass, B'101', '10.0.0.1/8', md5(i::text)::uuid, point(1 / i::float8, 2), to_tsvector('simple', 'to be or not ' || i)
FROM generate_series(1, 300) i;
-- Parsed anew, this is spelled otherwise.
CREATE TABLE odd.respelled (state varchar(10) CHECK (state IN ('a', 'b')), note text COLLATE "C");
INSERT INTO odd.respelled SELECT (ARRAY['a', 'b'])[1 + i % 2], chr(64 + i) FROM generate_series(1, 50) i;
CREATE INDEX respelled_state ON odd.respelled (state) WHERE state IN ('a', 'b');
CREATE TABLE odd.parent (id int, body text);
CREATE TABLE odd.heir (extra int) INHERITS (odd.parent);
ALTER TABLE odd.parent ADD late int;
INSERT INTO odd.parent VALUES (1, 'parent', 3);
INSERT INTO odd.heir (id, body, extra, late) VALUES (2, 'heir', 4, 5);
CREATE UNLOGGED TABLE odd.unlogged AS SELECT i FROM generate_series(1, 10) i;
CREATE TABLE odd.swapped (a text, b text);
INSERT INTO odd.swapped SELECT 'a' || i, 'b' || i FROM generate_series(1, 20) i;
CREATE TABLE odd.forced (id int PRIMARY KEY, who name DEFAULT current_user);
INSERT INTO odd.forced SELECT generate_series(1, 5);
ALTER TABLE odd.forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON odd.forced USING (false);
-- Rows move to other partitions at every restore, since the enum's OIDs are others.
CREATE TABLE odd.hashed (m odd.mood, n int, note text) PARTITION BY HASH (m);
CREATE TABLE odd.hashed_0 PARTITION OF odd.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE odd.hashed_1 PARTITION OF odd.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO odd.hashed SELECT (ARRAY['sad', 'glad']::odd.mood[])[1 + i % 2], i, 'n' || i FROM generate_series(1, 100) i;
-- Some of it is loaded through the root, some by itself.
CREATE TABLE odd.mixed (n int, m odd.mood) PARTITION BY RANGE (n);
CREATE TABLE odd.mixed_low PARTITION OF odd.mixed FOR VALUES FROM (0) TO (50);
CREATE TABLE odd.mixed_high PARTITION OF odd.mixed FOR VALUES FROM (50) TO (100) PARTITION BY HASH (m);
CREATE TABLE odd.mixed_0 PARTITION OF odd.mixed_high FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE odd.mixed_1 PARTITION OF odd.mixed_high FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO odd.mixed SELECT i, (ARRAY['sad', 'glad']::odd.mood[])[1 + i % 2] FROM generate_series(0, 99) i;
CREATE SEQUENCE odd.down INCREMENT -1 MAXVALUE 10 MINVALUE -9223372036854775808 START 5;
SELECT nextval('odd.down') FROM generate_series(1, 20);
CREATE SEQUENCE odd.untouched;
CREATE VIEW odd.glad AS SELECT id, f8 FROM odd.texts WHERE e = 'glad';
CREATE RULE quiet AS ON INSERT TO odd.respelled WHERE new.state IS NULL DO INSTEAD NOTHING;
ALTER TABLE odd.parent DISABLE TRIGGER ALL;
COMMENT ON VIEW odd.glad IS 'happy';`

// drillSource is an archive of everything.
func drillSource(t *testing.T, pg *testenv.Cluster, change func(*ArchiveOptions)) (*storagetest.Memory, *Manifest) {
	t.Helper()
	db := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(db), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	pg.Exec(t, db, everything)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	opts := ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Pgstow: "test"}
	if change != nil {
		change(&opts)
	}
	res, err := Archive(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return b, res.Manifest
}

// drilled is a drill on pg; whatever becomes of it, no database is left.
func drilled(t *testing.T, pg *testenv.Cluster, b storage.Bucket, id string, change func(*DrillOptions)) (*DrillResult, error) {
	t.Helper()
	opts := DrillOptions{Bucket: b, Ref: id, Server: connTo(t, pg, "postgres"), By: "tester", Pgstow: "test"}
	if change != nil {
		change(&opts)
	}
	res, err := Drill(t.Context(), opts)
	if err != nil {
		oneLiner(t, err)
	}
	if left := scratchDatabases(t, pg, id); len(left) > 0 && !opts.KeepDatabase {
		t.Errorf("left behind: %v", left)
	}
	return res, err
}

// scratchDatabases are those of an archive's drills that are there.
func scratchDatabases(t *testing.T, pg *testenv.Cluster, id string) []string {
	t.Helper()
	list := text(t, pg, "postgres", `SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database WHERE datname LIKE 'pgstow\_drill\_`+id+`%'`)
	return strings.Fields(list)
}

// No false alarm: whatever the archive holds, a restore of it is equal to it.
func TestDrill(t *testing.T) {
	pg := testenv.Postgres(t)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"as it is", nil},
		{"through the partitioned tables, quoted", []string{"--load-via-partition-root", "--quote-all-identifiers", "--no-comments"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, m := drillSource(t, pg, func(o *ArchiveOptions) { o.DumpArgs = c.args })
			var phases []Phase
			res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
				o.piece = 100_000 // some tables are read by several sessions
				o.Progress = func(p Progress) {
					if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
						phases = append(phases, p.Phase)
					}
				}
			})
			if err != nil {
				t.Fatalf("%v\n%+v", err, res)
			}
			if res.Result != ResultPassed || !res.Complete || res.Rows != *m.Totals.Rows || res.Schema != SchemaEqual || res.LargeObjects != sample.LargeObjects || res.Sequences < 6 || res.Tables < 12 {
				t.Errorf("result: %+v", res)
			}
			if !strings.Contains(res.SchemaReason, "read otherwise") {
				t.Errorf("nothing was respelled: %q", res.SchemaReason)
			}
			if len(res.NotCompared) != 1 || !strings.HasPrefix(res.NotCompared[0], "owners and privileges of large objects: ") {
				t.Errorf("not compared: %q", res.NotCompared)
			}
			if want := []Phase{PhasePreflight, PhaseDefinitions, PhaseData, PhaseFinish, PhaseSchema, PhaseCompare, PhaseDrop}; !slices.Equal(phases, want) {
				t.Errorf("phases %v", phases)
			}
			e, err := resolve(t.Context(), b, m.ID, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			records, err := readRecords(t.Context(), b, e, RecordDrill, Trust{})
			if err != nil || len(records) != 1 || records[0].Name != res.Record {
				t.Fatalf("%v %+v", err, records)
			}
			r := records[0].Record
			if r == nil || r.Result != ResultPassed || r.By != "tester" || r.Drill == nil || r.Drill.Rows != res.Rows || r.Drill.RestoreSeconds <= 0 || len(r.Drill.Phases) != 7 ||
				r.ManifestSHA256 != hexSum(content(t, b)[m.Key]) {
				t.Errorf("record: %+v", records[0])
			}
			validateRecord(t, content(t, b)[e.dir().Key(res.Record)])
		})
	}
}

// The text of money depends on lc_monetary, which pg_dump does not set: the copy
// has that of the archive's database.
func TestDrillMoney(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, fmt.Sprintf("ALTER DATABASE %q SET lc_monetary TO 'de_DE.UTF-8'", db))
	pg.Exec(t, db, "CREATE TABLE price (id int PRIMARY KEY, m money); INSERT INTO price SELECT i, (i * 1234.56)::numeric::money FROM generate_series(1, 100) i")
	if got := text(t, pg, db, "SELECT m::text FROM price WHERE id = 1"); got != "1.234,56 €" {
		t.Fatalf("the source writes %q", got)
	}
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Pgstow: "test"})
	if err != nil {
		t.Fatal(err)
	}
	id := res.Manifest.ID
	if drill, err := drilled(t, pg, b, id, nil); err != nil || drill.Rows != 100 || drill.Result != ResultPassed {
		t.Errorf("%v %+v", err, drill)
	}
	_, err = drilled(t, pg, b, id, func(o *DrillOptions) {
		o.restored = func(_ context.Context, c dumper.Conn) error {
			pg.Exec(t, c.Database(), "UPDATE price SET m = m + '0,01' WHERE id = 42")
			return nil
		}
	})
	if want := "table public.price: 100 rows as expected, the content differs; the first that is not as archived: id=42"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a cent more: %v", err)
	}
}

// drillChanges are what a copy may suffer, and what a drill says of it.
var drillChanges = []struct{ sql, want string }{
	{`UPDATE odd.texts SET f8 = f8 + 1e-17 WHERE id = 77`, "table odd.texts: 300 rows as expected, the content differs; the first that is not as archived: id=77"},
	{`ALTER TABLE odd.swapped RENAME a TO c; ALTER TABLE odd.swapped RENAME b TO a; ALTER TABLE odd.swapped RENAME c TO b`, "table odd.swapped: 20 rows as expected, the content differs; the first that is not as archived: (without a primary key)"},
	{`DELETE FROM "Bücher & Söhne"."Größe ""XL""" WHERE "ключ" = 10`, `table Bücher & Söhne.Größe "XL": 100 rows expected, 99 found; the first that is not as archived: ключ=10`},
	{`INSERT INTO odd.heir VALUES (7)`, "table odd.heir: 1 row expected, 2 found; the first that was not archived: (without a primary key)"},
	{`INSERT INTO shop.no_columns DEFAULT VALUES`, "table shop.no_columns: 3 rows expected, 4 found; the first that was not archived: (without a primary key)"},
	{`INSERT INTO shop.nothing VALUES (md5('')::uuid)`, "table shop.nothing: 0 rows expected, 1 found; the first that was not archived: id=d41d8cd9-8f00-b204-e980-0998ecf8427e"},
	{`DROP TABLE odd.unlogged`, "table odd.unlogged: it is not there"},
	{`UPDATE odd.hashed SET note = 'x' WHERE n = 50`, "table odd.hashed: 100 rows as expected, the content differs; the first that is not as archived: (without a primary key)"},
	{`DELETE FROM odd.mixed WHERE n = 70`, "table odd.mixed: 50 rows expected, 49 found; the first that is not as archived: (without a primary key)"},
	{`UPDATE odd.mixed SET m = NULL WHERE n = 7`, "table odd.mixed_low: 50 rows as expected, the content differs; the first that is not as archived: (without a primary key)"},
	{`SELECT nextval('odd.down')`, "sequence odd.down: its value is -15, want -14"},
	{`SELECT nextval('odd.untouched')`, "sequence odd.untouched: its value is 1, called: true, want called: false"},
	{`DROP SEQUENCE "Bücher & Söhne"."Nummer" CASCADE`, "sequence Bücher & Söhne.Nummer: it is not there"},
	{`CREATE OR REPLACE VIEW odd.glad AS SELECT id, f8 FROM odd.texts WHERE e = 'sad'`, "definition view odd.glad: it is defined otherwise"},
	{`DROP INDEX odd.respelled_state`, "definition index odd.respelled_state: it is not there"},
	{`ALTER TABLE odd.respelled DROP CONSTRAINT respelled_state_check, ADD CONSTRAINT respelled_state_check CHECK (state IN ('a', 'b', 'c'))`, "definition table odd.respelled: it is defined otherwise"},
	{`CREATE FUNCTION odd.more() RETURNS int LANGUAGE sql AS 'SELECT 1'`, "definition function odd.more(): it is there, and not in the archive"},
	{`COMMENT ON VIEW odd.glad IS 'sad'`, "definition comment odd.VIEW glad: it is defined otherwise"},
	{`GRANT SELECT ON odd.heir TO PUBLIC`, "definition acl odd.TABLE heir: it is there, and not in the archive"},
}

// No silence: each change of the copy is found, and nothing else is.
func TestDrillFinds(t *testing.T) {
	pg := testenv.Postgres(t)
	b, m := drillSource(t, pg, nil)
	for _, piece := range []int64{0, 8 << 10} {
		t.Run(fmt.Sprintf("in pieces of %d", piece), func(t *testing.T) { drillFinds(t, pg, b, m, piece) })
	}
}

func drillFinds(t *testing.T, pg *testenv.Cluster, b *storagetest.Memory, m *Manifest, piece int64) {
	t.Helper()
	var objects []string
	res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
		o.piece = piece
		o.restored = func(ctx context.Context, copied dumper.Conn) error {
			conn, err := copied.Connect(ctx)
			if err != nil {
				return err
			}
			defer conn.Close(ctx)
			for _, c := range drillChanges {
				if _, err := conn.PgConn().Exec(ctx, c.sql).ReadAll(); err != nil {
					return fmt.Errorf("%s: %w", c.sql, err)
				}
			}
			rows, err := conn.Query(ctx, `WITH o AS (SELECT oid, row_number() OVER (ORDER BY oid) n FROM pg_largeobject_metadata WHERE length(lo_get(oid)) > 20000)
				SELECT n::text, oid::text, CASE n WHEN 1 THEN lo_put(oid, 15000, 'x')::text WHEN 2 THEN lo_unlink(oid)::text WHEN 3 THEN lo_put(oid, length(lo_get(oid)), 'longer')::text END
				FROM o WHERE n <= 3 ORDER BY 1`)
			if err != nil {
				return err
			}
			for rows.Next() {
				var n, oid string
				if err := rows.Scan(&n, &oid, nil); err != nil {
					return err
				}
				objects = append(objects, oid)
			}
			if err := rows.Err(); err != nil {
				return err
			}
			_, err = conn.Exec(ctx, `SELECT lo_create(4000000000)`)
			return err
		}
	})
	if !errors.Is(err, ErrIntegrity) || res == nil || res.Result != ResultFailed || res.Schema != SchemaDiffers || len(objects) != 3 {
		t.Fatalf("%v %+v", err, res)
	}
	want := []string{"large object 4000000000: it is there, and not in the archive", "large object " + objects[1] + ": it is not there"}
	for _, c := range drillChanges {
		want = append(want, c.want)
	}
	want = append(want,
		"definition table odd.swapped: it is defined otherwise", "definition table odd.unlogged: it is not there",
		"definition sequence Bücher & Söhne.Nummer: it is not there", "definition sequence owned by Bücher & Söhne.Nummer: it is not there",
		`definition default Bücher & Söhne.Größe "XL" ключ: it is not there`,
	)
	got := make([]string, len(res.Differences))
	for i, d := range res.Differences {
		got[i] = d.String()
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("not found: %s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) && !strings.HasPrefix(g, "large object "+objects[0]+": its ") && !strings.HasPrefix(g, "large object "+objects[2]+": it is longer ") {
			t.Errorf("found besides: %s", g)
		}
	}
	if len(got) != len(want)+2 {
		t.Errorf("%d differences, want %d", len(got), len(want)+2)
	}
	e, err := resolve(t.Context(), b, m.ID, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	records, err := readRecords(t.Context(), b, e, RecordDrill, Trust{})
	if newest := len(records) - 1; err != nil || newest < 0 || records[newest].Record == nil || records[newest].Record.Result != ResultFailed || records[newest].Record.Drill.Differing != len(got) {
		t.Errorf("%v %+v", err, records)
	}
}
