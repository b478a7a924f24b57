//go:build versions

package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
)

// majors is the sample in a server of every major, and an environment whose
// PATH has the client programs of all.
type majors struct {
	env     environment
	sources map[int]source
}

type source struct {
	pg *testenv.Cluster
	db string
	// items are the sample's as this major shows them.
	items []sample.Item
}

func loadMajors(t *testing.T) majors {
	t.Helper()
	m := majors{env: newEnvironment(t), sources: map[int]source{}}
	var path []string
	for _, major := range testenv.Majors {
		path = append(path, testenv.MajorBin(t, major))
		pg := testenv.PostgresMajor(t, major)
		s := source{pg: pg, db: pg.CreateDatabase(t)}
		if err := sample.Load(t.Context(), pg.URL(s.db), sample.Options{NoPgbench: true}); err != nil {
			t.Fatalf("PostgreSQL %d: %v", major, err)
		}
		var err error
		if s.items, err = sample.Snapshot(t.Context(), pg.URL(s.db)); err != nil {
			t.Fatal(err)
		}
		m.sources[major] = s
		m.env = m.env.hiding(pg.Password)
	}
	m.env = m.env.with("PATH=" + strings.Join(append(path, "/usr/bin", "/bin"), ":"))
	return m
}

// holds compares a copy in a server of this major with the source, which may be
// of another. Definitions read differently there: they are compared with those
// of the sample itself in this server.
func (s source) holds(t *testing.T, from source, db string) {
	t.Helper()
	got, err := sample.Snapshot(t.Context(), s.pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(from.items) || len(got) < 15 {
		t.Errorf("%d things were restored of %d", len(got), len(from.items))
	}
	for i, want := range from.items {
		if want.Kind == "definitions" {
			want = s.items[slices.IndexFunc(s.items, func(i sample.Item) bool { return i.Kind == "definitions" })]
		}
		if i < len(got) && got[i] != want {
			t.Errorf("restored %+v, want %+v", got[i], want)
		}
	}
}

// shown is what archive, show and restore --json say.
type shown struct {
	Manifest struct {
		ID     string
		Source struct {
			ServerVersion string `json:"server_version"`
		}
		Tools struct {
			PgDump string `json:"pg_dump"`
		}
		Archive   struct{ Version, Compression string }
		Structure string
		Evidence  string
		Totals    struct{ Tables, Rows, Bytes int64 }
	}
	PgTool   string `json:"pg_restore"`
	Errors   []string
	Warnings []string
}

func decoded(t *testing.T, out string) (s shown) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s
}

// TestVersionsRoundTrip archives from every major with its own client programs,
// in every compression, and restores into this and every later major.
func TestVersionsRoundTrip(t *testing.T) {
	m := loadMajors(t)
	for _, major := range testenv.Majors {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			from := m.sources[major]
			bucket := "file://" + t.TempDir()
			env := m.env.with("PGSTOW_DB=" + from.pg.URL(from.db))
			targets := slices.DeleteFunc(slices.Clone(testenv.Majors), func(to int) bool { return to < major })
			compressions := []string{"auto", "none", "gzip:1", "gzip:6", "zstd", "lz4", "pg_dump"}
			for i, how := range compressions {
				t.Run(how, func(t *testing.T) {
					label := fmt.Sprint("c", i)
					made := decoded(t, run(t, env, 0, "archive", "--json", "--to", bucket, "--name", label, "--compress", how)).Manifest
					if made.Structure != "complete" || made.Evidence != "content" || made.Totals.Rows != 12103 ||
						!strings.HasPrefix(made.Source.ServerVersion, fmt.Sprint(major, ".")) || !strings.HasPrefix(made.Tools.PgDump, fmt.Sprint(major, ".")) {
						t.Errorf("archived %+v", made)
					}
					m.catalogued(t, bucket, label, made.ID)
					// auto goes everywhere; of the others each goes to one major.
					into := targets
					if how != "auto" {
						into = []int{targets[i%len(targets)]}
					}
					for _, to := range into {
						t.Run(fmt.Sprint("into ", to), func(t *testing.T) { m.restores(t, bucket, made.ID, from, m.sources[to]) })
					}
				})
			}
			if got := len(list(t, env, bucket)); got != len(compressions) {
				t.Errorf("%d archives are listed", got)
			}
		})
	}
}

// catalogued wants the archive in the list, and its contents shown.
func (m majors) catalogued(t *testing.T, bucket, label, id string) {
	t.Helper()
	if found := list(t, m.env, bucket, "--name", label); len(found) != 1 || found[0].ID != id || !found[0].Complete {
		t.Errorf("listed are %+v", found)
	}
	if text := run(t, m.env, 0, "show", id, "--from", bucket); !strings.Contains(text, "shop.customer") || !strings.Contains(text, "2,000") {
		t.Errorf("shown is\n%s", text)
	}
	if toc := run(t, m.env, 0, "show", "--toc", id, "--from", bucket); !strings.Contains(toc, "TABLE DATA shop customer") {
		t.Errorf("the table of contents is\n%s", toc)
	}
}

// restores restores an archive whole, and one table of it.
func (m majors) restores(t *testing.T, bucket, id string, from, to source) {
	t.Helper()
	db := to.pg.CreateDatabase(t)
	res := decoded(t, run(t, m.env.with("PGSTOW_DB="+to.pg.URL(db)), 0, "restore", "--json", id, "--from", bucket, "--jobs", "2"))
	if len(res.Errors) > 0 {
		t.Errorf("errors: %q", res.Errors)
	}
	to.holds(t, from, db)

	db = to.pg.CreateDatabase(t)
	to.pg.Exec(t, db, `CREATE SCHEMA shop; CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent; really', 'it''s back')`)
	run(t, m.env.with("PGSTOW_DB="+to.pg.URL(db)), 0, "restore", id, "--from", bucket, "--table", "shop.purchase", "--table", "shop.event")
	got, err := sample.Snapshot(t.Context(), to.pg.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for _, item := range got {
		if item.Kind != "table" {
			continue
		}
		tables = append(tables, item.Name)
		if !slices.Contains(from.items, item) {
			t.Errorf("one table: restored %+v, of another content", item)
		}
	}
	if names := strings.Join(tables, " "); names != "event_2024 event_2025_click event_2025_other event_rest purchase" {
		t.Errorf("restored are %s", names)
	}
}

// TestVersionsNewerClient archives with newer client programs than the server,
// and restores into servers older than pg_restore: that they do not know
// transaction_timeout is no error.
func TestVersionsNewerClient(t *testing.T) {
	m := loadMajors(t)
	for _, c := range []struct{ server, client, into int }{{13, 15, 13}, {13, 18, 13}, {15, 18, 15}, {15, 17, 18}, {17, 18, 17}} {
		t.Run(fmt.Sprintf("pg_dump %d from %d into %d", c.client, c.server, c.into), func(t *testing.T) {
			from, to := m.sources[c.server], m.sources[c.into]
			bucket, bin := "file://"+t.TempDir(), testenv.MajorBin(t, c.client)
			env := m.env.with("PGSTOW_DB=" + from.pg.URL(from.db))
			made := decoded(t, run(t, env, 0, "archive", "--json", "--to", bucket, "--pg-bin", bin)).Manifest
			if !strings.HasPrefix(made.Tools.PgDump, fmt.Sprint(c.client, ".")) || made.Evidence != "content" {
				t.Errorf("archived %+v", made)
			}
			m.restores(t, bucket, made.ID, from, to)
			// As one run of pg_restore, too.
			db := to.pg.CreateDatabase(t)
			env = m.env.with("PGSTOW_DB=" + to.pg.URL(db))
			p := start(t, env, "restore", made.ID, "--from", bucket, "--", "--no-comments").want(0)
			if strings.Contains(p.stderr.String(), "transaction_timeout") {
				t.Errorf("the user is told\n%s", p.stderr.String())
			}
		})
	}
}

// TestVersionsOnePartition restores a partition without its parent: up to 13 it
// is attached where it is created, later in an entry of its own.
func TestVersionsOnePartition(t *testing.T) {
	m := loadMajors(t)
	for _, major := range testenv.Majors {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			from, bucket := m.sources[major], "file://"+t.TempDir()
			id := archive(t, m.env.with("PGSTOW_DB="+from.pg.URL(from.db)), bucket)
			db := from.pg.CreateDatabase(t)
			from.pg.Exec(t, db, `CREATE SCHEMA shop`)
			p := start(t, m.env.with("PGSTOW_DB="+from.pg.URL(db)), "restore", id, "--from", bucket, "--table", "shop.event_2024").want(0)
			p.says("skipped: TABLE ATTACH shop.event_2024 (TABLE shop.event is not there)")
			if strings.Contains(p.stderr.String(), "does not bring") {
				t.Errorf("it says that more is needed:\n%s", p.stderr.String())
			}
			got, err := sample.Snapshot(t.Context(), from.pg.URL(db))
			if err != nil {
				t.Fatal(err)
			}
			tables := slices.DeleteFunc(got, func(i sample.Item) bool { return i.Kind != "table" })
			if len(tables) != 1 || tables[0].Name != "event_2024" || !slices.Contains(from.items, tables[0]) {
				t.Errorf("restored %+v", tables)
			}
		})
	}
}
