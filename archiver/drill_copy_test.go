package archiver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// created is a database with options of its own.
func created(t *testing.T, pg *testenv.Cluster, options string) string {
	t.Helper()
	name := pg.CreateDatabase(t)
	pg.Exec(t, "postgres", `DROP DATABASE `+name)
	pg.Exec(t, "postgres", `CREATE DATABASE `+name+` TEMPLATE template0 `+options)
	return name
}

// What the text of a row depends on, in the source's database and not in the session of
// pg_dump, raises no alarm; and under each of them a changed byte is found.
func TestDrillOfOtherDatabases(t *testing.T) {
	pg := testenv.Postgres(t)
	const latin = `CREATE SCHEMA "Gemüse"; CREATE TABLE "Gemüse"."Größe" ("Ä" text PRIMARY KEY); INSERT INTO "Gemüse"."Größe" VALUES ('é'), ('ß');
		CREATE SEQUENCE "Gemüse"."Zähler"; COMMENT ON TABLE "Gemüse"."Größe" IS 'Übergröße'; CREATE INDEX "schön" ON "Gemüse"."Größe" (lower("Ä"))`
	for _, c := range []struct{ name, options, sql, change, what string }{
		{"LATIN1, dumped so", `ENCODING 'LATIN1' LOCALE 'C'`, latin, `UPDATE "Gemüse"."Größe" SET "Ä" = 'è' WHERE "Ä" = 'é'`, "2 rows as expected"},
		{"LATIN1, dumped so", `ENCODING 'LATIN1' LOCALE 'C'`, latin, `DROP INDEX "Gemüse"."schön"`, "it is not there"},
		{"LATIN1", `ENCODING 'LATIN1' LOCALE 'C'`,
			latin,
			`UPDATE "Gemüse"."Größe" SET "Ä" = 'è' WHERE "Ä" = 'é'`, "2 rows as expected"},
		{"SQL_ASCII", `ENCODING 'SQL_ASCII' LOCALE 'C'`, `CREATE TABLE a (id int PRIMARY KEY, b text); INSERT INTO a VALUES (1, E'\344\377'), (2, E'\303\244')`,
			`UPDATE a SET b = E'\344\376' WHERE id = 1`, "id=1"},
		{"an order of its own", `LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C'`,
			`CREATE TABLE word (w text PRIMARY KEY) PARTITION BY RANGE (w);
			CREATE TABLE word_a PARTITION OF word FOR VALUES FROM ('a') TO ('m'); CREATE TABLE word_m PARTITION OF word FOR VALUES FROM ('m') TO (MAXVALUE);
			INSERT INTO word VALUES ('a'), ('B'), ('ä'), ('Z'), ('m')`,
			`UPDATE word SET w = 'ö' WHERE w = 'ä'`, "w=ä"},
		{"bytea_output of the database", ``, `CREATE TABLE a (id int PRIMARY KEY, b bytea); INSERT INTO a SELECT i, decode(md5(i::text), 'hex') FROM generate_series(1, 50) i;
			DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET bytea_output = escape', current_database()); END $$`,
			`UPDATE a SET b = b || '\x00' WHERE id = 50`, "id=50"},
		{"bytea_output of the role", ``, `CREATE TABLE a (id int PRIMARY KEY, b bytea); INSERT INTO a SELECT i, decode(md5(i::text), 'hex') FROM generate_series(1, 50) i;
			DO $$ BEGIN EXECUTE format('ALTER ROLE postgres IN DATABASE %I SET bytea_output = escape', current_database()); END $$`,
			`UPDATE a SET b = set_byte(b, 15, 0) WHERE id = 50`, "id=50"},
		{"settings that pg_dump overrides", ``, `CREATE TABLE a (id int PRIMARY KEY, f float8, i interval, t timestamptz, d date);
			INSERT INTO a SELECT i, 1 / i::float8, make_interval(days => i, secs => i), now() + make_interval(secs => i / 7.0), current_date + i FROM generate_series(1, 50) i;
			DO $$ DECLARE s text; BEGIN FOREACH s IN ARRAY ARRAY['datestyle = "German"', 'intervalstyle = iso_8601', 'extra_float_digits = -5', 'timezone = "Asia/Kathmandu"', 'search_path = nowhere'] LOOP
			EXECUTE format('ALTER DATABASE %I SET ', current_database()) || s; END LOOP; END $$`,
			`UPDATE a SET t = t + interval '1 microsecond' WHERE id = 49`, "id=49"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := created(t, pg, c.options)
			pg.Exec(t, db, c.sql)
			b := storagetest.NewMemory(storagetest.MemoryOptions{})
			var args []string
			if strings.HasSuffix(c.name, "dumped so") {
				args = []string{"--encoding=LATIN1"}
			}
			archive, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Pgstow: "test", DumpArgs: args})
			if err != nil {
				t.Fatal(err)
			}
			m := archive.Manifest
			const settings = `SELECT concat_ws(' ', pg_encoding_to_char(encoding), datlocprovider, datcollate, daticulocale) FROM pg_database WHERE datname = `
			res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
				o.restored = func(_ context.Context, copied dumper.Conn) error {
					want, got := text(t, pg, "postgres", settings+"'"+db+"'"), text(t, pg, "postgres", settings+"'"+copied.Database()+"'")
					if got != want {
						t.Errorf("the scratch database is %s, the source %s", got, want)
					}
					return nil
				}
			})
			if err != nil || !res.Complete || res.Rows == 0 {
				t.Fatalf("%v %+v", err, res)
			}
			res, err = drilled(t, pg, b, m.ID, func(o *DrillOptions) {
				o.restored = func(_ context.Context, copied dumper.Conn) error {
					pg.Exec(t, copied.Database(), c.change)
					return nil
				}
			})
			if err == nil || len(res.Differences) == 0 || !strings.Contains(err.Error(), c.what) {
				t.Errorf("%v %+v", err, res)
			}
		})
	}
}

// A role that is no superuser, and no member of the owners, can drill: owners are left out, and
// what forced row security hides from their owner is compared all the same.
func TestDrillAsPlainRole(t *testing.T) {
	pg := testenv.Postgres(t)
	b, m := drillSource(t, pg, nil)
	pg.Exec(t, "postgres", `CREATE ROLE drill_plain LOGIN CREATEDB PASSWORD 'plain'`)
	t.Cleanup(func() { pg.Exec(t, "postgres", `DROP ROLE drill_plain`) })
	plain, err := dumper.ParseConn("postgres://drill_plain:plain@" + pg.Addr() + "/postgres")
	if err != nil {
		t.Fatal(err)
	}
	for _, tamper := range []string{"", `DELETE FROM odd.forced WHERE id = 3`} {
		res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
			o.Server = plain
			o.restored = func(_ context.Context, copied dumper.Conn) error {
				pg.Exec(t, copied.Database(), tamper)
				return nil
			}
		})
		if res == nil || (err != nil) != (tamper != "") || !res.Complete || !strings.Contains(strings.Join(res.NotCompared, "\n"), "owners and privileges: the drill's role cannot act for postgres ") {
			t.Fatalf("%v %+v", err, res)
		}
		if tamper != "" && (len(res.Differences) != 1 || res.Differences[0].String() != "table odd.forced: 5 rows expected, 4 found; the first that is not as archived: id=3") {
			t.Errorf("%v", res.Differences)
		}
	}
}

// Of a part all is defined, and the rows of some tables are there.
func TestDrillOfPart(t *testing.T) {
	pg := testenv.Postgres(t)
	b, m := drillSource(t, pg, nil)
	rows := func(t *testing.T, copied dumper.Conn, table string) int {
		return count(t, pg, copied.Database(), table)
	}
	t.Run("tables", func(t *testing.T) {
		res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
			o.Tables = []string{"shop.purchase", "shop.event", "odd.hashed"}
			o.restored = func(_ context.Context, c dumper.Conn) error {
				if p, e, h, other := rows(t, c, "shop.purchase"), rows(t, c, "shop.event"), rows(t, c, "odd.hashed"), rows(t, c, "shop.customer"); p != 5000 || e != 5000 || h != 100 || other != 0 {
					t.Errorf("%d purchases, %d events, %d hashed, %d customers", p, e, h, other)
				}
				return nil
			}
		})
		if err != nil || res.Complete || res.Rows != 10100 || res.LargeObjects != 0 || res.Schema != SchemaEqual || res.Part == nil || res.Part.Tables != 7 || res.Part.Of < 15 {
			t.Fatalf("%v %+v", err, res)
		}
		if !strings.Contains(strings.Join(res.NotCompared, "\n"), "1 foreign key: ") {
			t.Errorf("not compared: %q", res.NotCompared)
		}
	})
	t.Run("samples", func(t *testing.T) {
		var tables []string
		for _, seed := range []string{"one", "one", "two", "three"} {
			res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) { o.Sample, o.Seed = 20, seed })
			if err != nil || res.Complete || res.Sample == nil || res.Sample.Seed != seed || res.Sample.Percent != 20 || res.Sample.Tables == 0 && res.LargeObjects == 0 || res.Sample.Tables == res.Sample.Of {
				t.Fatalf("%v %+v", err, res)
			}
			tables = append(tables, fmt.Sprint(res.Sample.Tables, res.Rows, res.LargeObjects))
		}
		if tables[0] != tables[1] || tables[1] == tables[2] && tables[2] == tables[3] {
			t.Errorf("samples: %q", tables)
		}
	})
	t.Run("a change of what was not chosen is not looked for", func(t *testing.T) {
		for table, found := range map[string]bool{"odd.swapped": false, "odd.texts": true} {
			_, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
				o.Tables = []string{"odd.texts"}
				o.restored = func(_ context.Context, c dumper.Conn) error {
					pg.Exec(t, c.Database(), "DELETE FROM "+table)
					return nil
				}
			})
			if (err != nil) != found {
				t.Errorf("%s: %v", table, err)
			}
		}
	})
}

// Dumps of INSERTs have no evidence: the drill passes, and says what it did not prove.
func TestDrillWithoutEvidence(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	archive, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Pgstow: "test", DumpArgs: []string{"--inserts"}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := drilled(t, pg, b, archive.Manifest.ID, nil)
	if err != nil || res.Complete || res.Tables != 0 || res.LargeObjects != 1 || len(res.NotCompared) == 0 || !strings.Contains(res.NotCompared[0], "4 tables: dumped as INSERT") {
		t.Errorf("%v %+v", err, res)
	}
}

// Of an extension's configuration tables the rows are compared that pg_dump takes, and no
// others: those that the extension brings itself are there twice over at every restore.
func TestDrillOfExtensionConfiguration(t *testing.T) {
	pg := testenv.NewPostgres(t, testenv.PostgresOptions{Extensions: map[string]string{
		"drilled.control": "default_version = '1'\nrelocatable = false\n",
		"drilled--1.sql": `CREATE TABLE conf (id int PRIMARY KEY, value text, builtin boolean NOT NULL DEFAULT false);
			INSERT INTO conf VALUES (1, 'comes with it', true);
			SELECT pg_catalog.pg_extension_config_dump('conf', 'WHERE NOT builtin');
			CREATE TABLE "Alles" (v text);
			SELECT pg_catalog.pg_extension_config_dump('"Alles"', '');
			CREATE TABLE own (v text);
			INSERT INTO own VALUES ('never dumped');
			CREATE SEQUENCE counter;
			SELECT pg_catalog.pg_extension_config_dump('counter', '');`,
	}})
	b, m := archivedSQL(t, pg, `CREATE SCHEMA ext; CREATE EXTENSION drilled SCHEMA ext;
		INSERT INTO ext.conf VALUES (2, 'set'), (3, 'by the user'); UPDATE ext.conf SET value = 'changed' WHERE builtin;
		INSERT INTO ext."Alles" VALUES ('a'), ('b'); SELECT setval('ext.counter', 17)`)
	res, err := drilled(t, pg, b, m.ID, nil)
	if err != nil || !res.Complete || res.Tables != 2 || res.Rows != 4 || res.Sequences != 1 {
		t.Fatalf("%v %+v", err, res)
	}
	for sql, want := range map[string]string{
		`UPDATE ext.conf SET value = 'lost' WHERE id = 3`: "table ext.conf: 2 rows as expected, the content differs; the first that is not as archived: id=3",
		`INSERT INTO ext.conf VALUES (4, 'more')`:         "table ext.conf: 2 rows expected, 3 found; the first that was not archived: id=4",
		`DELETE FROM ext."Alles" WHERE v = 'a'`:           "table ext.Alles: 2 rows expected, 1 found; the first that is not as archived: (without a primary key)",
		`SELECT nextval('ext.counter')`:                   "sequence ext.counter: its value is 18, want 17",
		`UPDATE ext.conf SET value = 'x' WHERE builtin`:   "",
	} {
		res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
			o.restored = func(_ context.Context, c dumper.Conn) error {
				pg.Exec(t, c.Database(), sql)
				return nil
			}
		})
		if res == nil || (err != nil) != (want != "") || len(res.Differences) != min(len(want), 1) || want != "" && res.Differences[0].String() != want {
			t.Errorf("%s: %v %+v", sql, err, res)
		}
	}
}

// The record is signed, and what nobody has signed is not drilled where that is asked for.
func TestDrillSigned(t *testing.T) {
	pg := testenv.Postgres(t)
	key := sshKey(t, "ed25519")
	signers := allowed(t, `me namespaces="pgstow" `+publicText(t, key))
	b := lockable()
	unsigned := archived(t, pg, "postgres", b).Manifest
	trust := Trust{Signers: signers, Require: true}
	if res, err := drilled(t, pg, b, unsigned.ID, func(o *DrillOptions) { o.Trust = trust }); res != nil || !errors.Is(err, ErrIntegrity) || drillRecords(t, b) > 0 {
		t.Errorf("%v %+v", err, res)
	}
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, "postgres"), Name: "signed", Pgstow: "test", Signer: openKey(t, key),
		Policy: Policy{Keep: Period{Days: 30}, Lock: storage.Compliance}})
	if err != nil {
		t.Fatal(err)
	}
	drill, err := drilled(t, pg, b, res.Manifest.ID, func(o *DrillOptions) { o.Trust, o.Signer = trust, openKey(t, key) })
	if err != nil {
		t.Fatal(err)
	}
	records, err := readRecords(t.Context(), b, resolved(t, b, res.Manifest.ID), RecordDrill, trust)
	if err != nil || len(records) != 1 || records[0].Name != drill.Record || records[0].Signature == nil || records[0].Signature.State != SignatureValid {
		t.Errorf("%v %+v", err, records)
	}
	dump, err := b.Stat(t.Context(), res.Manifest.Objects.Dump.Key, "")
	if err != nil || dump.Retention.IsZero() {
		t.Fatal(err, dump)
	}
	for _, name := range []string{drill.Record, drill.Record + SuffixSignature} {
		if o, err := b.Stat(t.Context(), keyOf(res.Manifest, name), ""); err != nil || o.Retention != dump.Retention {
			t.Errorf("%s is kept %+v, the dump %+v, %v", name, o.Retention, dump.Retention, err)
		}
	}
}

// Rows that were loaded through a partitioned table in several orders of columns cannot be told
// apart afterwards: they are counted, and the drill says that it did no more.
func TestDrillOfPartitionsInSeveralOrders(t *testing.T) {
	pg := testenv.Postgres(t)
	b, m := archivedSQL(t, pg, `CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE p (m mood, n int) PARTITION BY HASH (m);
		CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
		CREATE TABLE p1 (n int, m mood); ALTER TABLE p ATTACH PARTITION p1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
		INSERT INTO p SELECT (ARRAY['sad', 'glad']::mood[])[1 + i % 2], i FROM generate_series(1, 60) i`)
	for _, tamper := range []string{"", "DELETE FROM p WHERE n = 7"} {
		res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
			o.restored = func(_ context.Context, c dumper.Conn) error {
				pg.Exec(t, c.Database(), tamper)
				return nil
			}
		})
		if res == nil || (err != nil) != (tamper != "") || res.Complete || !strings.HasPrefix(res.NotCompared[0], "content of a partitioned table: ") {
			t.Fatalf("%v %+v", err, res)
		}
		if tamper != "" && (len(res.Differences) != 1 || res.Differences[0].String() != "table public.p: 60 rows expected, 59 found") {
			t.Errorf("%v", res.Differences)
		}
	}
}
