package main

import (
	"bytes"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/internal/testenv"
)

// A password with every special character works in every place where one may
// stand, and appears in nothing that pgstow writes.
func TestPasswordWithSpecialCharacters(t *testing.T) {
	const password = "p \t!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ä€\\\\''"
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	role := "special_" + strings.ReplaceAll(db, "-", "_")
	quoted := pgx.Identifier{role}.Sanitize()
	pg.Exec(t, db, "CREATE TABLE t AS SELECT 1 AS x; CREATE ROLE "+quoted+" LOGIN SUPERUSER PASSWORD '"+strings.ReplaceAll(password, "'", "''")+"'")
	t.Cleanup(func() { pg.Exec(t, "postgres", "DROP ROLE "+quoted) })

	host, port, _ := strings.Cut(pg.Addr(), ":")
	uri := url.URL{Scheme: "postgresql", User: url.UserPassword(role, password), Host: pg.Addr(), Path: "/" + db}
	escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
	keywords := "host=" + host + " port=" + port + " user=" + role + " dbname=" + db
	passfile := filepath.Join(t.TempDir(), "pgpass")
	line := "*:*:*:*:" + strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(password) + "\n"
	if err := os.WriteFile(passfile, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "pgstow")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, bin); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		env  []string
		args []string
	}{
		{"URI in the environment", []string{"PGSTOW_DB=" + uri.String()}, nil},
		{"keywords in the environment", []string{"PGSTOW_DB=" + keywords + " password='" + escape(password) + "'"}, nil},
		{"PGPASSWORD", []string{"PGSTOW_DB=" + keywords, "PGPASSWORD=" + password}, nil},
		{"passfile", []string{"PGSTOW_DB=" + keywords, "PGPASSFILE=" + passfile}, nil},
		{"typed", nil, []string{"--db", uri.String()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(bin, append([]string{"archive", "--to", "file://" + t.TempDir(), "--log-level", "debug"}, tt.args...)...)
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, tt.env...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, secret := range []string{password, url.QueryEscape(password), url.PathEscape(password), escape(password), uri.User.String()} {
				if strings.Contains(out.String(), secret) {
					t.Error("the password stands in the output")
				}
			}
			if warned := strings.Contains(out.String(), "readable in the process list"); warned != (tt.args != nil) {
				t.Errorf("warned of a typed password: %v\n%s", warned, out.String())
			}
		})
	}
}
