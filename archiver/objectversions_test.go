//go:build versions

package archiver

import (
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
)

// Every golden archive, whatever its version and compression, is an object that a newest server
// takes.
func TestVersionsForeignGoldens(t *testing.T) {
	const newest = 18
	pg := testenv.PostgresMajor(t, newest)
	for name, raw := range goldens(t) {
		if strings.Contains(name, "-data") || strings.Contains(name, "-schema") || strings.Contains(name, "-predata") {
			continue // parts of a database
		}
		t.Run(name, func(t *testing.T) {
			db := pg.CreateDatabase(t)
			res, err := Restore(t.Context(), RestoreOptions{
				Bucket: foreignBucket(t, raw), Object: foreignKey, Conn: connTo(t, pg, db), PGBin: testenv.MajorBin(t, newest),
				Jobs: 2, Restore: dumper.RestoreOptions{NoOwner: true, NoPrivileges: true},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := text(t, pg, db, `SELECT count(*) || ' ' || sum(i) FROM digest`); got != "300 45150" {
				t.Errorf("digest holds %s", got)
			}
			if got := text(t, pg, db, `SELECT count(*) FROM pg_largeobject_metadata`); got == "0" || res.Object.Structure != StructureComplete {
				t.Errorf("%s large objects, %+v", got, res.Object)
			}
		})
	}
}
