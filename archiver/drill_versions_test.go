//go:build versions

package archiver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
)

// A drill raises no alarm on a server of the source's major version or of any newer one, and
// finds a change there.
func TestVersionsDrill(t *testing.T) {
	majors := loadMajors(t)
	path := os.Getenv("PATH")
	for _, major := range testenv.Majors { // as if all were installed
		path += string(filepath.ListSeparator) + testenv.MajorBin(t, major)
	}
	t.Setenv("PATH", path)
	for _, source := range testenv.Majors {
		for _, tools := range testenv.Majors {
			// What pg_dump 18.6 makes of a server of 17.12 does not restore into 18 (unrecognized
			// parameter "pg_attver"): a drill finds that, and is right.
			if tools < source || tools > source && (tools != 18 || source == 17) {
				continue
			}
			t.Run(fmt.Sprintf("%d by pg_dump %d", source, tools), func(t *testing.T) {
				drillEverywhere(t, majors, source, tools)
			})
		}
	}
}

func drillEverywhere(t *testing.T, majors map[int]loaded, source, tools int) {
	t.Helper()
	from := majors[source]
	all, m := archivedBy(t, from, testenv.MajorBin(t, tools))
	for _, scratch := range testenv.Majors {
		b := bucketOf(t, all)
		pg := majors[scratch].pg
		if scratch < source {
			if res, err := drilled(t, pg, b, m.ID, nil); res != nil || !errors.Is(err, dumper.ErrPreflight) || !strings.Contains(err.Error(), fmt.Sprintf("is PostgreSQL %d, the archive is of a server of version %d", scratch, source)) {
				t.Errorf("on %d: %v %+v", scratch, err, res)
			}
			continue
		}
		for _, tamper := range []string{"", `UPDATE shop.customer SET ratio = ratio * 1.0000000000000002 WHERE id = 1500`} {
			if tamper != "" && scratch > source {
				continue
			}
			res, err := drilled(t, pg, b, m.ID, func(o *DrillOptions) {
				o.restored = func(_ context.Context, c dumper.Conn) error {
					if tamper != "" {
						pg.Exec(t, c.Database(), tamper)
					}
					return nil
				}
			})
			if res == nil || (err != nil) != (tamper != "") {
				t.Fatalf("on %d: %v %+v", scratch, err, res)
			}
			want := SchemaEqual
			if scratch > tools {
				want = SchemaNotCompared
			}
			if res.Schema != want || res.Complete != (want == SchemaEqual) || res.Rows != *m.Totals.Rows {
				t.Errorf("on %d: %+v", scratch, res)
			}
			if tamper != "" && (len(res.Differences) != 1 || !strings.HasSuffix(res.Differences[0].What, ": id=1500")) {
				t.Errorf("on %d: %v", scratch, res.Differences)
			}
		}
	}
}

// archivedBy is an archive made by certain client programs, as it lies in its bucket.
func archivedBy(t *testing.T, from loaded, bin string) (map[string][]byte, *Manifest) {
	t.Helper()
	res, _, b := compressed(t, from.pg, from.db, "gzip:1", func(o *ArchiveOptions) { o.PGBin = bin })
	return content(t, b), res.Manifest
}
