package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/internal/testenv"
)

// memoryLimit is what README and design promise for archives up to 100 GiB.
const memoryLimit = 200 << 20

// An archive of several hundred megabytes takes no more memory than promised,
// with every compression and as many workers as there are by default.
func TestArchiveMemory(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	// Unlogged: nothing but the pages is written. Random text compresses badly,
	// so that the uploads are large, too.
	pg.Exec(t, db, `CREATE UNLOGGED TABLE big AS SELECT i AS id, a || b || a || c || b || md5(c) AS body FROM (
		SELECT i, md5(i::text) AS a, md5((i * 7)::text) AS b, md5((-i)::text) AS c FROM generate_series(1, 1700000) i) AS x`)
	bin := filepath.Join(t.TempDir(), "pgstow")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, bin); err != nil {
		t.Fatal(err)
	}
	srv := testenv.VersityGW(t)
	for _, how := range []string{"gzip:1", "zstd:1", "none", "pg_dump"} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), bin, "archive", "--to", srv.BucketURL(srv.NewBucket(t, testenv.BucketOptions{}), ""),
				"--compress", how, "--no-globals", "--json")
			cmd.Env = append(srv.Env(), "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(), "PGSTOW_DB="+pg.URL(db))
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, errs.String())
			}
			var res archiver.ArchiveResult
			if err := json.Unmarshal(out.Bytes(), &res); err != nil {
				t.Fatal(err)
			}
			m := res.Manifest
			if m.Totals.RawBytes < 300<<20 || m.Totals.Rows == nil || *m.Totals.Rows != 1_700_000 || m.Evidence != archiver.EvidenceContent {
				t.Errorf("totals are %+v", m.Totals)
			}
			usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			if !ok {
				t.Fatal("no resource usage of the child")
			}
			peak := usage.Maxrss << 10 // of pgstow or pg_dump, whichever is larger
			t.Logf("peak memory %d MiB for %d MiB stored of %d MiB", peak>>20, m.Totals.Bytes>>20, m.Totals.RawBytes>>20)
			if peak > memoryLimit {
				t.Errorf("peak memory is %d MiB", peak>>20)
			}
		})
	}
}
