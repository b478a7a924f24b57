package dumper

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/internal/testenv"
)

// An archive is restored in two runs of one Restorer: data by a stream, the rest with -j.
func TestRestorer(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	head := headOf(t, archive)
	var definitions, rest []int
	for i, section := range head.EffectiveSections() {
		switch section {
		case pgarchive.SectionPreData:
			definitions = append(definitions, i)
		case pgarchive.SectionPostData:
			rest = append(rest, i)
		}
	}
	raw := func(chosen []int) []byte {
		b, err := head.Synthesise(chosen).AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	db := pg.CreateDatabase(t)
	r, err := OpenRestorer(t.Context(), mustParse(t, pg.URL(db)), realTools(t), RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(t.Context(), bytes.NewReader(raw(definitions))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RunJobs(t.Context(), raw(rest), 2); err != nil {
		t.Fatal(err)
	}
	const keys = `SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE conrelid > 0 AND connamespace::regnamespace::text IN ('public', 'a')`
	if got := queryString(t, pg, db, keys); got != "t_pkey x_id_fkey" {
		t.Errorf("constraints: %s", got)
	}

	// Once more: everything is there already.
	_, err = r.RunJobs(t.Context(), raw(rest), 2)
	if !errors.Is(err, ErrRestore) || !strings.Contains(err.Error(), "t_pkey") {
		t.Errorf("error is %v", err)
	}
	r, err = OpenRestorer(t.Context(), mustParse(t, pg.URL(db)), realTools(t), RestoreOptions{KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	result, err := r.RunJobs(t.Context(), raw(rest), 2)
	if err != nil || len(result.Errors) != 2 {
		t.Errorf("%q, %v", result.Errors, err)
	}
	if _, err := r.RunJobs(t.Context(), raw(rest)[:200], 2); !errors.Is(err, ErrRestore) {
		t.Errorf("half an archive: %v", err)
	}
}

func TestSelection(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, archive := source(t, pg)
	head := headOf(t, archive)
	got, err := RestoreOptions{Tables: []string{"a.x", "t", `"B.b"."Y""q"`}, Schemas: []string{"a"}, DataOnly: true, Create: true}.Selection(head)
	want := []pgarchive.TableName{{Schema: "a", Name: "x"}, {Name: "t"}, {Schema: "B.b", Name: `Y"q`}}
	if err != nil || !slices.Equal(got.Tables, want) || !slices.Equal(got.Schemas, []string{"a"}) || !got.DataOnly || got.SchemaOnly || !got.Database {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tt := range []struct {
		opts RestoreOptions
		says string
	}{
		{RestoreOptions{Tables: []string{"T"}}, "did you mean public.t"},
		{RestoreOptions{Tables: []string{"public.x"}}, "a.x"},
		{RestoreOptions{Tables: []string{"a.b.c"}}, "neither TABLE nor SCHEMA.TABLE"},
		{RestoreOptions{Tables: []string{"t_pkey"}}, "names nothing"},
		{RestoreOptions{Schemas: []string{"A"}}, "did you mean a"},
	} {
		if _, err := tt.opts.Selection(head); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v: %v", tt.opts, err)
		}
	}
}

func TestOneRun(t *testing.T) {
	for _, tt := range []struct {
		opts RestoreOptions
		says string
	}{
		{RestoreOptions{}, ""},
		{RestoreOptions{SchemaOnly: true, NoOwner: true, Role: "r", KeepGoing: true}, ""},
		{RestoreOptions{Args: []string{"-O", "-x", "--no-comments", "--role=r"}}, ""},
		{RestoreOptions{Clean: true, Create: true}, ""},
		{RestoreOptions{Clean: true}, "--clean"},
		{RestoreOptions{DataOnly: true}, "foreign keys"},
		{RestoreOptions{DataOnly: true, Args: []string{"--disable-triggers"}}, ""},
		{RestoreOptions{Args: []string{"--disable-triggers"}}, "--disable-triggers"},
		{RestoreOptions{Args: []string{"-1"}}, "--single-transaction"},
		{RestoreOptions{Args: []string{"--section=data"}}, "--section"},
		{RestoreOptions{Args: []string{"-t", "x"}}, "--table"},
		{RestoreOptions{Args: []string{"--from-a-release-to-come"}}, "--from-a-release-to-come"},
	} {
		if got := tt.opts.OneRun(); (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
			t.Errorf("%+v: %q, want %q", tt.opts, got, tt.says)
		}
	}
}

func TestTargetNames(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db, _ := source(t, pg)
	present, err := TargetNames(t.Context(), mustParse(t, pg.URL(db)), RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[[2]string]bool{
		{"a", ""}: true, {"B.b", `Y"q`}: true, {"public", "t"}: true, {"public", "v"}: true,
		{"public", "x"}: false, {"A", ""}: false, {"public", "t_pkey"}: false,
	} {
		if got := present(name[0], name[1]); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	if present, err := TargetNames(t.Context(), mustParse(t, pg.URL(db)), RestoreOptions{Create: true}); err != nil || present != nil {
		t.Errorf("a database to be created: %v", err)
	}
}
