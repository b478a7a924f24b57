package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/internal/testenv"
)

// memoryLimit is what README and design promise for archives up to 100 GiB.
const memoryLimit = 200 << 20

// An archive of several hundred megabytes takes no more memory than promised,
// with every compression and as many workers as there are by default; nor does
// reading it back.
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
	identity := filepath.Join(t.TempDir(), "identity")
	recipient := ageKey(t, identity)
	for _, c := range []struct {
		how       string
		encrypted bool
	}{{"gzip:1", false}, {"zstd:1", false}, {"none", false}, {"pg_dump", false}, {"none", true}} {
		how, more, name := c.how, []string(nil), c.how
		if c.encrypted {
			more, name = []string{"--encrypt-to", recipient}, how+" encrypted"
		}
		t.Run(name, func(t *testing.T) {
			env := append(srv.Env(), "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(), "PGSTOW_DB="+pg.URL(db),
				"PGSTOW_BUCKET="+srv.BucketURL(srv.NewBucket(t, testenv.BucketOptions{}), ""))
			var res archiver.ArchiveResult
			peak := peakOf(t, env, &res, bin, append([]string{"archive", "--compress", how, "--no-globals", "--json"}, more...)...) // of pgstow or pg_dump, whichever is larger
			m := res.Manifest
			if m.Totals.RawBytes < 300<<20 || m.Totals.Rows == nil || *m.Totals.Rows != 1_700_000 || m.Evidence != archiver.EvidenceContent {
				t.Errorf("totals are %+v", m.Totals)
			}
			t.Logf("peak memory %d MiB for %d MiB stored of %d MiB", peak>>20, m.Totals.Bytes>>20, m.Totals.RawBytes>>20)
			if peak > memoryLimit {
				t.Errorf("peak memory is %d MiB", peak>>20)
			}
			if c.encrypted {
				var restored archiver.RestoreResult
				peak = peakOf(t, env, &restored, bin, "restore", m.ID, "--output", os.DevNull, "--identity", identity, "--json")
				t.Logf("peak memory %d MiB to decrypt %d MiB", peak>>20, restored.Bytes>>20)
				if peak > memoryLimit || len(m.Recipients) != 1 || restored.Bytes != m.Objects.Dump.Plain.Size {
					t.Errorf("peak memory to decrypt it is %d MiB, %d bytes came out", peak>>20, restored.Bytes)
				}
				return
			}
			if how == "none" || how == "pg_dump" {
				return // read back as the others are, with less to decode
			}
			var verified archiver.VerifyResult
			peak = peakOf(t, env, &verified, bin, "verify", m.ID, "--json")
			if v := verified.Archives; len(v) != 1 || v[0].Result != archiver.ResultPassed || v[0].Rows == nil || *v[0].Rows != 1_700_000 {
				t.Errorf("verified is %+v", verified)
			}
			t.Logf("peak memory %d MiB to read it back", peak>>20)
			if peak > memoryLimit {
				t.Errorf("peak memory to read it back is %d MiB", peak>>20)
			}
		})
	}
}

// peakOf runs a command that prints JSON, and returns the memory that it took.
func peakOf(t *testing.T, env []string, result any, name string, args ...string) int64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		t.Fatal(err)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("no resource usage of the child")
	}
	return usage.Maxrss << 10
}

// ageKey makes a key and returns its recipient.
func ageKey(t *testing.T, path string) string {
	t.Helper()
	if out, err := exec.Command("age-keygen", "-o", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command("age-keygen", "-y", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
