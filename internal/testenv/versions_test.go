//go:build versions

package testenv_test

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

// Each major's server is that major's, and so are the client programs beside it.
func TestVersionsStart(t *testing.T) {
	for _, major := range testenv.Majors {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			pg := testenv.PostgresMajor(t, major)
			if again := testenv.PostgresMajor(t, major); again.Port != pg.Port {
				t.Errorf("a second cluster on port %d", again.Port)
			}
			db := pg.CreateDatabase(t)
			var version string
			// A collation of ICU's: its library and data are found too.
			const q = `SELECT current_setting('server_version_num')::int / 10000 || min(x COLLATE "und-x-icu") FROM (VALUES ('b'), ('a')) AS v (x)`
			if err := pg.Connect(t, db).QueryRow(t.Context(), q).Scan(&version); err != nil || version != strconv.Itoa(major)+"a" {
				t.Errorf("the server is %s, %v", version, err)
			}
			for _, name := range []string{"pg_dump", "pg_dumpall", "pg_restore"} {
				out, err := exec.CommandContext(t.Context(), filepath.Join(testenv.MajorBin(t, major), name), "--version").Output()
				if want := name + " (PostgreSQL) " + strconv.Itoa(major) + "."; err != nil || !strings.HasPrefix(string(out), want) {
					t.Errorf("%s says %q, %v", name, out, err)
				}
			}
		})
	}
}
