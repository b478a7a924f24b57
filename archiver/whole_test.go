package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// brokenTools are client programs whose pg_dump's output goes through a filter,
// a shell command, and whose exit status is the filter's.
func brokenTools(t *testing.T, filter string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"pg_restore", "pg_dumpall"} {
		if err := os.Symlink(testenv.Tool(t, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("#!/bin/bash\ncase \"$1\" in --version|-V) exec %[1]s \"$@\";; esac\n%[1]s \"$@\" | { %[2]s; }\n",
		testenv.Tool(t, "pg_dump"), filter)
	if err := os.WriteFile(filepath.Join(dir, "pg_dump"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A dump that fails, or is not whole whatever pg_dump's exit status says,
// never becomes an archive and leaves nothing running.
func TestArchiveOfABrokenDump(t *testing.T) {
	pg := testenv.Postgres(t)
	db := longSource(t, pg)
	goroutines := goleak.IgnoreCurrent()
	for _, c := range []struct{ name, filter string }{
		{"fails in mid-stream", "head -c 9000000; exit 1"},
		{"is killed in mid-stream", "head -c 9000000; kill -9 $$"},
		{"is cut and says that all is well", "head -c 9000000; exit 0"},
		{"lacks its last byte", "head -c -1"},
		{"has something behind it", "cat; printf x"},
		{"has a block without an end", "head -c -5; printf '\\0\\1\\0\\0\\0'"},
		{"fails after its last byte", "cat; exit 1"},
		{"ends at once", "exit 0"},
	} {
		for _, how := range []string{"gzip:1", "none", "pg_dump"} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				compression, err := ParseCompression(how)
				if err != nil {
					t.Fatal(err)
				}
				b := storagetest.NewMemory(storagetest.MemoryOptions{})
				_, err = Archive(t.Context(), ArchiveOptions{
					Bucket: b, Conn: connTo(t, pg, db), PGBin: brokenTools(t, c.filter), Compression: compression, NoGlobals: true,
				})
				if !errors.Is(err, dumper.ErrDump) {
					t.Errorf("error is %v", err)
				}
				oneLiner(t, err)
				nothingLeft(t, b)
				if n := dumpSessions(t, pg, db); n > 0 {
					t.Errorf("%d sessions are left", n)
				}
			})
		}
	}
	goleak.VerifyNone(t, goroutines)
}

// With --compress pg_dump, the stored object is byte for byte the file that
// pg_dump -Fc -f writes, offsets included; its time of creation is not.
func TestStoredDumpIsPgDumps(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(source), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	pg.Exec(t, source, `CREATE TABLE wide AS SELECT i, (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 30) j)
		FROM generate_series(1, 15000) i`) // several parts
	file := filepath.Join(t.TempDir(), "stock.dump")
	// A URL with a password on the command line: a throwaway cluster.
	if out, err := exec.CommandContext(t.Context(), testenv.Tool(t, "pg_dump"), "-Fc", "-f", file, pg.URL(source)).CombinedOutput(); err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, out)
	}
	stock, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	keep, err := ParseCompression("pg_dump")
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(*testing.T) storage.Bucket{
		"file":      openFile,
		"versitygw": func(t *testing.T) storage.Bucket { return openS3(t, testenv.VersityGW(t), testenv.BucketOptions{}) },
		"minio":     func(t *testing.T) storage.Bucket { return openS3(t, testenv.MinIO(t), testenv.BucketOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			defer b.Close()
			res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), Compression: keep, NoGlobals: true})
			if err != nil {
				t.Fatal(err)
			}
			got := content(t, b)[res.Manifest.Objects.Dump.Key]
			if !bytes.Equal(withoutTime(t, got), withoutTime(t, stock)) {
				t.Errorf("the stored dump of %d bytes differs from pg_dump's of %d", len(got), len(stock))
			}
			if res.Manifest.Evidence != EvidenceContent {
				t.Errorf("evidence is %q", res.Manifest.Evidence)
			}
		})
	}
}

// withoutTime blanks the seven integers of the creation time, which stand
// behind the compression: an integer up to version 1.14, a byte since.
func withoutTime(t *testing.T, dump []byte) []byte {
	t.Helper()
	const version, fixed, integer = 6, 11, 5
	if len(dump) < 100 {
		t.Fatalf("a dump of %d bytes", len(dump))
	}
	at := fixed + integer
	if dump[version] >= 15 {
		at = fixed + 1
	}
	dump = bytes.Clone(dump)
	clear(dump[at : at+7*integer])
	return dump
}
