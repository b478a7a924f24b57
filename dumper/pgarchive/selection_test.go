package pgarchive

import (
	"slices"
	"strings"
	"testing"
)

func labels(h *Head, entries []int) []string {
	var out []string
	for _, i := range entries {
		if !h.Entries[i].isSetting() {
			out = append(out, h.Entries[i].Label())
		}
	}
	return out
}

func names(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

func TestSelect(t *testing.T) {
	all := []string{"13-gzip", "15-gzip", "17-zstd", "18-gzip"}
	customer := `SEQUENCE public.customer_id_seq
		TABLE public.customer
		COMMENT public.TABLE customer
		ACL public.TABLE customer
		TABLE DATA public.customer
		SEQUENCE SET public.customer_id_seq
		CONSTRAINT public.customer customer_pkey
		COMMENT public.INDEX customer_pkey
		TRIGGER public.customer touched
		ROW SECURITY public.customer
		POLICY public.customer only_short`
	const odd = `Sales & Co.Größe "M"`
	sales := `SCHEMA Sales & Co
		TABLE ` + odd + `
		SEQUENCE ` + odd + `_Id_seq
		SEQUENCE OWNED BY ` + odd + `_Id_seq
		DEFAULT ` + odd + ` Id
		TABLE DATA ` + odd + `
		SEQUENCE SET ` + odd + `_Id_seq
		CONSTRAINT ` + odd + ` Größe "M"_pkey`
	key := `FK CONSTRAINT ` + odd + ` Größe "M"_customer_id_fkey`
	for _, c := range []struct {
		what     string
		archives []string
		s        Selection
		want     string
		skipped  []string
		missing  []string
	}{
		{what: "a table", archives: all, s: Selection{Tables: []TableName{{"public", "customer"}}}, want: customer,
			missing: []string{"FUNCTION public.touch()"}},
		{what: "by its name alone", archives: all, s: Selection{Tables: []TableName{{"", "customer"}}}, want: customer,
			missing: []string{"FUNCTION public.touch()"}},
		{what: "its data", archives: all, s: Selection{Tables: []TableName{{"", "customer"}}, DataOnly: true},
			want: "TABLE DATA public.customer\nSEQUENCE SET public.customer_id_seq"},
		{what: "a foreign key to what is not there", archives: all, s: Selection{Tables: []TableName{{"Sales & Co", `Größe "M"`}}}, want: sales,
			skipped: []string{key + " (TABLE public.customer is not there)"}},
		{what: "a foreign key to what is there", archives: all, want: sales + "\n" + key, s: Selection{
			Tables:  []TableName{{"Sales & Co", `Größe "M"`}},
			Present: func(schema, name string) bool { return schema == "public" && (name == "" || name == "customer") }}},
		{what: "a foreign key to what comes along", archives: all, want: sales + "\n" + key + "\n" + customer,
			s: Selection{Tables: []TableName{{"Sales & Co", `Größe "M"`}, {"", "customer"}}}, missing: []string{"FUNCTION public.touch()"}},
		{what: "a schema", archives: all, s: Selection{Schemas: []string{"Sales & Co"}}, want: sales,
			skipped: []string{key + " (TABLE public.customer is not there)"}},
		{what: "a schema that is there", archives: all, want: strings.Replace(sales, "SCHEMA Sales & Co\n", "", 1), s: Selection{
			Schemas: []string{"Sales & Co"}, Present: func(schema, name string) bool { return name == "" }},
			skipped: []string{key + " (TABLE public.customer is not there)"}},
		{what: "a view", archives: all, s: Selection{Tables: []TableName{{"", "names"}}}, want: "VIEW public.names", missing: []string{"TABLE public.customer"}},
		{what: "a materialized view", archives: all, s: Selection{Tables: []TableName{{"", "totals"}}},
			want:    "MATERIALIZED VIEW public.totals\nINDEX public.totals_idx\nMATERIALIZED VIEW DATA public.totals",
			missing: []string{"TABLE " + odd}},
		{what: "a sequence", archives: all, s: Selection{Tables: []TableName{{"", `Größe "M"_Id_seq`}}},
			want:    "SCHEMA Sales & Co\nSEQUENCE " + odd + "_Id_seq\nSEQUENCE SET " + odd + "_Id_seq",
			missing: []string{"TABLE " + odd}},
		{what: "partitions", archives: all[1:], s: Selection{Tables: []TableName{{"", "measure"}}}, want: `TABLE public.measure
			TABLE public.measure_2024
			TABLE public.measure_rest
			TABLE ATTACH public.measure_2024
			TABLE ATTACH public.measure_rest
			TABLE DATA public.measure_2024
			TABLE DATA public.measure_rest`},
		{what: "partitions of 13", archives: all[:1], s: Selection{Tables: []TableName{{"", "measure"}}}, want: `TABLE public.measure
			TABLE public.measure_2024
			TABLE public.measure_rest
			TABLE DATA public.measure_2024
			TABLE DATA public.measure_rest`},
		{what: "one partition", archives: all, s: Selection{Tables: []TableName{{"", "measure_2024"}}},
			want:    "TABLE public.measure_2024\nTABLE DATA public.measure_2024",
			skipped: []string{"TABLE ATTACH public.measure_2024 (TABLE public.measure is not there)"}},
		{what: "statistics", archives: []string{"18-statistics"}, s: Selection{Tables: []TableName{{"", "customer"}}},
			want:    customer + "\nSTATISTICS DATA public.customer\nSTATISTICS DATA public.customer_pkey",
			missing: []string{"FUNCTION public.touch()"}},
		{what: "nothing", archives: all, s: Selection{Tables: []TableName{{"", "nothing"}}}},
		{what: "a data-only dump", archives: []string{"15-data"}, s: Selection{Tables: []TableName{{"", "customer"}}}, want: "TABLE DATA public.customer"},
	} {
		for _, name := range c.archives {
			t.Run(c.what+" "+name, func(t *testing.T) {
				head, _, _ := goldenHead(t, name)
				got := head.Select(c.s)
				have := labels(head, got.Entries)
				slices.Sort(have)
				if want := names(c.want); !slices.Equal(have, want) {
					t.Errorf("selected\n\t%s\nwant\n\t%s", strings.Join(have, "\n\t"), strings.Join(want, "\n\t"))
				}
				if !slices.Equal(got.Skipped, c.skipped) || !slices.Equal(got.Missing, c.missing) {
					t.Errorf("skipped %q, want %q\nmissing %q, want %q", got.Skipped, c.skipped, got.Missing, c.missing)
				}
				if !slices.IsSorted(got.Entries) {
					t.Errorf("not in order: %v", got.Entries)
				}
			})
		}
	}
}

// Without tables and schemas it is all, or all of one kind; both kinds make the whole.
func TestSelectAll(t *testing.T) {
	eachGolden(t, func(t *testing.T, name string, _ []byte) {
		head, _, _ := goldenHead(t, name)
		whole := head.Select(Selection{}).Entries
		if len(whole) != len(head.Entries) {
			t.Errorf("%d of %d entries", len(whole), len(head.Entries))
		}
		data, schema := head.Select(Selection{DataOnly: true}), head.Select(Selection{SchemaOnly: true})
		for i := range head.Entries {
			e := &head.Entries[i]
			inData, inSchema := slices.Contains(data.Entries, i), slices.Contains(schema.Entries, i)
			switch {
			case e.isSetting() != (inData && inSchema):
				t.Errorf("%s: data %v, schema %v", e.Label(), inData, inSchema)
			case e.HadDumper && !inData, e.Desc.S == "TABLE" && !inSchema, e.Desc.S == "INDEX" && !inSchema:
				t.Errorf("%s is missing", e.Label())
			case !inData && !inSchema && e.Desc.S != "STATISTICS DATA":
				t.Errorf("%s is in neither", e.Label())
			}
		}
	})
}

// Up to 13 a partition's definition attaches it. That goes, and nothing else, when the
// parent is neither selected nor present.
func TestSelectDetaches(t *testing.T) {
	head, _, _ := goldenHead(t, "13-gzip")
	definition := func(s Selection) string {
		got := head.Select(s)
		for _, i := range got.Entries {
			if e := &got.Head.Entries[i]; e.Label() == "TABLE public.measure_2024" {
				return e.Defn.S
			}
		}
		return ""
	}
	whole := definition(Selection{})
	one := Selection{Tables: []TableName{{"", "measure_2024"}}}
	if got := definition(one); got == whole || !strings.HasPrefix(got, "CREATE TABLE public.measure_2024 (") || strings.Contains(got, "ATTACH") {
		t.Errorf("alone it is\n%s", got)
	}
	one.Present = func(schema, name string) bool { return schema == "public" && (name == "" || name == "measure") }
	if got := definition(one); got != whole {
		t.Errorf("beside its parent it is\n%s", got)
	}
	if got := definition(Selection{Tables: []TableName{{"", "measure"}}}); got != whole || !strings.Contains(got, "ATTACH") {
		t.Errorf("with its parent it is\n%s", got)
	}

	const create = "CREATE TABLE s.\"a;b\" (\n    v text DEFAULT 'it''s; \nALTER TABLE ONLY x ATTACH PARTITION y DEFAULT;'::text\n);\n"
	const attach = "ALTER TABLE ONLY s.\"p ATTACH PARTITION \"\"\" ATTACH PARTITION s.\"a;b\" FOR VALUES IN (';''\n');\n"
	const more = "ALTER TABLE ONLY s.\"a;b\" ALTER COLUMN v SET STATISTICS 7;\n"
	for _, c := range []struct{ defn, want string }{
		{"\n" + create + attach + more, "\n" + create + "\n" + more},
		{create + "\n" + attach + "\n\n", create + "\n\n\n"},
		{create + more, ""},
		{create, ""},
		{"", ""},
		{"CREATE TABLE x (a text DEFAULT 'unending", ""},
	} {
		if got, ok := detached(c.defn); ok != (c.want != "") || ok && strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(c.want), " ") {
			t.Errorf("%s\nbecomes\n%s, %v", c.defn, got, ok)
		}
	}
}
