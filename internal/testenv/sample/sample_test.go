package sample_test

import (
	"os/exec"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestCompare copies the sample with stock pg_dump and pg_restore, then
// changes one thing at a time.
func TestCompare(t *testing.T) {
	pg := testenv.Postgres(t)
	a, b := pg.CreateDatabase(t), pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(a), sample.Options{}); err != nil {
		t.Fatal(err)
	}
	pipe := exec.Command("sh", "-ec", `"$1" -Fc "$3" | "$2" -d "$4" --exit-on-error`, "sh",
		testenv.Tool(t, "pg_dump"), testenv.Tool(t, "pg_restore"), pg.URL(a), pg.URL(b))
	if out, err := pipe.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	kinds := map[string]int{}
	for _, d := range compare(t, pg.URL(a), pg.URL(b)) {
		kinds[d.Kind]++
		if !d.Equal() {
			t.Errorf("differs after pg_restore: %+v", d)
		}
		switch d.Name {
		case "nothing":
			if d.SourceRows != 0 {
				t.Errorf("the empty table has %d rows", d.SourceRows)
			}
		case "no_columns":
			if d.SourceRows != 3 {
				t.Errorf("the table without columns has %d rows", d.SourceRows)
			}
		case "pgbench_accounts":
			if d.SourceRows != 100_000 {
				t.Errorf("pgbench_accounts has %d rows", d.SourceRows)
			}
		}
		if d.Kind == "large objects" && d.SourceRows != sample.LargeObjects {
			t.Errorf("%d large objects", d.SourceRows)
		}
	}
	if kinds["table"] < 12 || kinds["materialized view"] != 1 || kinds["sequence"] != 3 || kinds["definitions"] != 1 {
		t.Errorf("kinds: %v", kinds)
	}
	if t.Failed() {
		return
	}

	changes := []struct{ sql, kind, name string }{
		{`UPDATE shop.event_rest SET body = body || ' ' WHERE ctid = (SELECT min(ctid) FROM shop.event_rest WHERE body <> '')`, "table", "event_rest"},
		{`DELETE FROM shop.no_columns WHERE ctid = (SELECT min(ctid) FROM shop.no_columns)`, "table", "no_columns"},
		{`SELECT nextval('"Bücher & Söhne"."Nummer"')`, "sequence", "Nummer"},
		{`SELECT lo_put(min(oid), 0, 'x') FROM pg_largeobject_metadata`, "large objects", ""},
		{`ALTER TABLE shop.customer DISABLE TRIGGER touch`, "definitions", ""},
		{`DROP MATERIALIZED VIEW shop.spending`, "materialized view", "spending"},
		{`CREATE TABLE shop.further ()`, "table", "further"},
	}
	before := map[string]bool{}
	for _, change := range changes {
		pg.Exec(t, b, change.sql)
		after := differences(compare(t, pg.URL(a), pg.URL(b)))
		key := change.kind + " " + change.name
		if before[key] || !after[key] {
			t.Errorf("%s: %q differs before: %v, after: %v", change.sql, key, before[key], after[key])
		}
		before = after
	}
}

func compare(t *testing.T, a, b string) []sample.TableDiff {
	t.Helper()
	diffs, err := sample.Compare(t.Context(), a, b)
	if err != nil {
		t.Fatal(err)
	}
	return diffs
}

func differences(diffs []sample.TableDiff) map[string]bool {
	m := map[string]bool{}
	for _, d := range diffs {
		if !d.Equal() {
			m[d.Kind+" "+d.Name] = true
		}
	}
	return m
}
