package dumper

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/internal/testenv"
)

// databaseHead is a head whose database was created by defn.
func databaseHead(defn, properties string) *pgarchive.Head {
	s := func(s string) pgarchive.Str { return pgarchive.Str{S: s} }
	return &pgarchive.Head{Entries: []pgarchive.Entry{
		{Desc: s("ENCODING"), Defn: s("SET client_encoding = 'UTF8';\n")},
		{Desc: s("DATABASE"), Defn: s(defn)},
		{Desc: s("DATABASE PROPERTIES"), Defn: s(properties)},
	}}
}

func TestCreateScratch(t *testing.T) {
	const plain = `CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'de_DE.UTF-8';`
	const icu = `CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = icu LC_COLLATE = 'C' LC_CTYPE = 'C.UTF-8' ICU_LOCALE = 'de''s';`
	const builtin = `CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = builtin LOCALE = 'C' BUILTIN_LOCALE = 'C.UTF-8';`
	const begin = `CREATE DATABASE "x" TEMPLATE template0 ENCODING 'UTF8'`
	for _, c := range []struct {
		defn  string
		major int
		want  string
	}{
		{plain, 15, begin + ` LOCALE_PROVIDER 'libc' LOCALE 'de_DE.UTF-8'`},
		{plain, 13, begin + ` LOCALE 'de_DE.UTF-8'`},
		{icu, 17, begin + ` LOCALE_PROVIDER 'icu' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8' ICU_LOCALE 'de''s'`},
		{icu, 14, ""},
		{builtin, 17, begin + ` LOCALE_PROVIDER 'builtin' LOCALE 'C' BUILTIN_LOCALE 'C.UTF-8'`},
		{builtin, 16, ""},
		{"", 15, begin},
	} {
		got, err := createScratch(ScratchOptions{Name: "x", Head: databaseHead(c.defn, "")}, c.major)
		if got != c.want || (err != nil) != (c.want == "") || err != nil && !errors.Is(err, ErrScratch) {
			t.Errorf("%d: %q, %v; want %q", c.major, got, err, c.want)
		}
	}
}

func TestInheritedSettings(t *testing.T) {
	got := inheritedSettings(databaseHead("", "ALTER DATABASE shop SET bytea_output TO 'escape';\nALTER DATABASE shop SET role TO 'other';\n"+
		"ALTER DATABASE \"shop; x\" SET lc_monetary TO 'de_DE''s';\nALTER ROLE x IN DATABASE shop SET bytea_output TO 'hex';\n"))
	if len(got) != 2 || got[0] != (setting{"bytea_output", "escape"}) || got[1] != (setting{"lc_monetary", "de_DE's"}) {
		t.Errorf("%q", got)
	}
}

// A scratch database is made once, marked, and dropped with whoever is in it, by nobody else.
func TestScratch(t *testing.T) {
	pg := testenv.Postgres(t)
	server, err := ScratchServer(t.Context(), mustParse(t, pg.URL("no_such_database")), nil)
	if err != nil || server.Database() != "postgres" {
		t.Fatal(err, server.Database())
	}
	o := ScratchOptions{Name: "scratch_test", Purpose: "a test's", Head: databaseHead("", "ALTER DATABASE a SET bytea_output TO 'escape'; ALTER DATABASE a SET lc_monetary TO 'nowhere';")}
	s, err := OpenScratch(t.Context(), server, o)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := s.Conn.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var comment, bytea string
	if err := conn.QueryRow(t.Context(), `SELECT shobj_description(oid, 'pg_database'), current_setting('bytea_output') FROM pg_database WHERE datname = current_database()`).Scan(&comment, &bytea); err != nil {
		t.Fatal(err)
	}
	if comment != ScratchMark+": a test's" || bytea != "escape" {
		t.Errorf("comment %q, bytea_output %s", comment, bytea)
	}
	if _, err := OpenScratch(t.Context(), server, o); !errors.Is(err, ErrScratch) || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second time: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Drop(ended); err != nil { // with a session in it, by a context that has ended
		t.Error(err)
	}
	if err := s.Drop(t.Context()); err != nil { // it is gone
		t.Error(err)
	}
	again, err := OpenScratch(t.Context(), server, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(t.Context()); !errors.Is(err, ErrScratch) || !strings.Contains(err.Error(), "not the database that was created") {
		t.Errorf("another of that name: %v", err)
	}
	if err := again.Drop(t.Context()); err != nil {
		t.Error(err)
	}
	o.Head = databaseHead(`CREATE DATABASE a WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE = 'xx_XX.UTF-8';`, "")
	if _, err := OpenScratch(t.Context(), server, o); !errors.Is(err, ErrScratch) || !strings.Contains(err.Error(), "locale") {
		t.Errorf("a locale that is not there: %v", err)
	}
}

func TestParseCopy(t *testing.T) {
	for stmt, want := range map[string]struct {
		schema, table, columns, out string
	}{
		"COPY public.a (id, body) FROM stdin;\n":              {"public", "a", "id|body", "COPY public.a (id, body) TO STDOUT"},
		"COPY shop.no_columns  FROM stdin;\n":                 {"shop", "no_columns", "", "COPY shop.no_columns  TO STDOUT"},
		"COPY a (id) FROM stdin;\n":                           {"", "a", "id", "COPY a (id) TO STDOUT"},
		`COPY "A. b"."c (""d"")" (", ", "a(b)") FROM stdin;`:  {"A. b", `c ("d")`, ", |a(b)", `COPY "A. b"."c (""d"")" (", ", "a(b)") TO STDOUT`},
		`COPY "Bücher"."Größe" ("值", "ключ") FROM stdin;`:     {"Bücher", "Größe", "值|ключ", `COPY "Bücher"."Größe" ("值", "ключ") TO STDOUT`},
		"COPY a (id) FROM stdin; DROP TABLE a; FROM stdin;\n": {},
		"INSERT INTO a VALUES (1);":                           {},
		"":                                                    {},
		"COPY a (id FROM stdin;":                              {},
	} {
		got, err := ParseCopy(stmt)
		if (err != nil) != (want.table == "") {
			t.Errorf("%q: %v", stmt, err)
		} else if err == nil && (got.Schema != want.schema || got.Table != want.table || strings.Join(got.Columns, "|") != want.columns || got.toStdout() != want.out) {
			t.Errorf("%q is %+v, %q", stmt, got, got.toStdout())
		}
	}
	t.Run("conditions", func(t *testing.T) {
		got, err := ParseCopy("COPY public.conf (a, b) FROM stdin;\n")
		got.Condition = "WHERE NOT builtin"
		if sql := got.toStdout(); err != nil || sql != "COPY (SELECT a, b FROM public.conf WHERE NOT builtin) TO STDOUT" {
			t.Error(sql, err)
		}
		got.Condition, got.Query, got.Without = "", true, []string{"1", "2"}
		if sql := got.toStdout(); sql != "COPY (SELECT a, b FROM public.conf WHERE tableoid NOT IN (1, 2)) TO STDOUT" {
			t.Error(sql)
		}
		got.Without = nil
		got.Pages.To = 8
		if sql := got.toStdout(); sql != "COPY (SELECT a, b FROM ONLY public.conf WHERE ctid >= '(0,0)'::tid AND ctid < '(8,0)'::tid) TO STDOUT" {
			t.Error(sql)
		}
		got.Pages.From, got.Pages.To = 8, 0
		if sql := got.toStdout(); sql != "COPY (SELECT a, b FROM ONLY public.conf WHERE ctid >= '(8,0)'::tid) TO STDOUT" {
			t.Error(sql)
		}
		got.Pages.From = 0
		if sql := got.WithoutColumns().toStdout(); sql != "COPY (SELECT  FROM public.conf ) TO STDOUT" {
			t.Error(sql)
		}
	})
}

func TestParseSetval(t *testing.T) {
	for defn, want := range map[string]SequenceValue{
		"SELECT pg_catalog.setval('public.s', 42, true);\n\n\n":                    {"42", true},
		"SELECT pg_catalog.setval('public.s', 1, false);":                          {"1", false},
		"SELECT pg_catalog.setval('\"a, -5, true\"', -9223372036854775808, true);": {"-9223372036854775808", true},
	} {
		if got, ok := ParseSetval(defn); !ok || got != want {
			t.Errorf("%q is %+v, %v", defn, got, ok)
		}
	}
	for _, defn := range []string{"", "SELECT 1;", "SELECT pg_catalog.setval('s', 1, maybe);", "SELECT a; SELECT pg_catalog.setval('s', 1, true);"} {
		if got, ok := ParseSetval(defn); ok {
			t.Errorf("%q is %+v", defn, got)
		}
	}
}

// FuzzParseCopy: what is taken for a COPY is that statement and nothing beside it.
func FuzzParseCopy(f *testing.F) {
	for _, stmt := range []string{"COPY public.a (id, body) FROM stdin;\n", "COPY a  FROM stdin;", `COPY "a.""b"."c d" ("x, y", z) FROM stdin;`, "COPY a (b) FROM stdin; DROP TABLE a; COPY a FROM stdin;"} {
		f.Add(stmt)
	}
	f.Fuzz(func(t *testing.T, stmt string) {
		c, err := ParseCopy(stmt)
		if err != nil {
			return
		}
		if c.Table == "" || strings.TrimSpace(stmt) != "COPY "+c.name+" "+c.list+" FROM stdin;" {
			t.Errorf("%q became %+v", stmt, c)
		}
		toks := tokenize(c.toStdout())
		depth := 0
		for i, tok := range toks {
			switch {
			case tok.is("("):
				depth++
			case tok.is(")"):
				depth--
			case tok.is(";"), depth == 0 && tok.is("to") && i != len(toks)-2:
				t.Errorf("%q would run %q", stmt, c.toStdout())
			}
		}
	})
}
