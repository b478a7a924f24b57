package archiver

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/file"
)

var newLayout = flag.String("new-layout", "", "make testdata/`FORMAT`, the archive of a format about to be released")

// Every archive of a released format keeps restoring. testdata has one of each,
// made by the pgstow of its time:
//
//	go test ./archiver -run TestReleasedLayouts -new-layout pgstow-1
func TestReleasedLayouts(t *testing.T) {
	pg := testenv.Postgres(t)
	if *newLayout != "" {
		makeLayout(t, pg, filepath.Join("testdata", *newLayout))
	}
	// The encrypted one is for the first key; rekey has added the second.
	keys := map[string][]string{"pgstow-1": {""}, "pgstow-1-age": {"testdata/keys/first", "testdata/keys/added"}}
	for format, paths := range keys {
		t.Run(format, func(t *testing.T) {
			b, err := file.Open(t.Context(), file.Config{Dir: filepath.Join("testdata", format)})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			list := listed(t, b)
			if len(list) != 1 || list[0].Label != "orders" {
				t.Fatalf("listed are %+v", list)
			}
			for _, path := range paths {
				restoreLayout(t, pg, b, list[0].ID, path)
			}
		})
	}
}

// restoreLayout restores an archive with the identity in a file, "" for a plain one.
func restoreLayout(t *testing.T, pg *testenv.Cluster, b storage.Bucket, id, identity string) {
	t.Helper()
	var ids Identities
	if identity != "" {
		ids = identities(t, identity)
	}
	shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: id, Identities: ids})
	if err != nil {
		t.Fatal(err)
	}
	if identity == "" {
		checkByHand(t, shown.Manifest, content(t, b))
	}
	db := pg.CreateDatabase(t)
	res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: Latest, Name: "orders", Conn: connTo(t, pg, db), Globals: true, Identities: ids})
	if err != nil {
		t.Fatal(err)
	}
	if res.Manifest.Totals.Tables != 3 || res.Manifest.Totals.LargeObjects != 1 {
		t.Errorf("totals are %+v", res.Manifest.Totals)
	}
	var sum int
	var name, object string
	const q = `SELECT (SELECT sum(id) FROM items), (SELECT "größe" FROM "Öl"),
				convert_from(lo_get((SELECT oid FROM pg_largeobject_metadata)), 'UTF8')`
	if err := pg.Connect(t, db).QueryRow(t.Context(), q).Scan(&sum, &name, &object); err != nil {
		t.Fatal(err)
	}
	if sum != 5050 || name != "à la carte" || object != "a large object" {
		t.Errorf("restored: %d, %q, %q", sum, name, object)
	}
}

func makeLayout(t *testing.T, pg *testenv.Cluster, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	b, err := file.Open(t.Context(), file.Config{Dir: dir, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `
		CREATE TABLE items (id int PRIMARY KEY, body jsonb);
		INSERT INTO items SELECT i, jsonb_build_object('n', i) FROM generate_series(1, 100) i;
		CREATE TABLE "Öl" ("größe" text); INSERT INTO "Öl" VALUES ('à la carte');
		CREATE TABLE empty (id int);
		SELECT lo_from_bytea(0, 'a large object');`)
	now := func() time.Time { return time.Date(2026, 11, 22, 14, 15, 0, 0, time.UTC) }
	opts := ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Name: "orders", Pgstow: "0.1.0", Now: now}
	first, added := "testdata/keys/first", "testdata/keys/added"
	if *newLayout == "pgstow-1-age" {
		opts.Recipients = recipients(t, first+".pub")
	}
	res, err := Archive(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if !opts.Recipients.IsZero() {
		rekeyed(t, b, res.Manifest.ID, first, added+".pub")
	}
}
