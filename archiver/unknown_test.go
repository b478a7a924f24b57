package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// futureTools are client programs whose pg_dump writes archive version 1.17,
// which no server has yet: the real one's output with one byte changed.
func futureTools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"pg_restore", "pg_dumpall"} {
		if err := os.Symlink(testenv.Tool(t, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf(`#!/bin/bash
set -o pipefail
case "$1" in --version|-V) exec %[1]s "$@";; esac
%[1]s "$@" | { dd bs=1 count=6 status=none; dd bs=1 count=1 of=/dev/null status=none; printf '\021'; cat; }
`, testenv.Tool(t, "pg_dump"))
	if err := os.WriteFile(filepath.Join(dir, "pg_dump"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// An archive version that is not known yet is stored all the same, unindexed
// and with a warning; pg_dump's exit status still gates it.
func TestArchiveOfAnUnknownVersion(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	tools := futureTools(t)
	memory := func() *storagetest.Memory { return storagetest.NewMemory(storagetest.MemoryOptions{}) }
	for name, b := range map[string]storage.Bucket{"deferred head": memory(), "sequential": sequential{memory()}} {
		t.Run(name, func(t *testing.T) {
			res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), PGBin: tools, Pgstow: "test"})
			if err != nil {
				t.Fatal(err)
			}
			m := res.Manifest
			if m.Structure != StructureUnchecked || m.Objects.Index != nil || m.Objects.Dump.Head != nil ||
				len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "1.17") {
				t.Errorf("result is %+v, %q", m, res.Warnings)
			}
			all := content(t, b)
			validate(t, all[m.Key])
			dump := all[m.Objects.Dump.Key]
			if len(all) != 3 || hexSum(dump) != m.Objects.Dump.SHA256 || !bytes.HasPrefix(dump, []byte("PGDMP\x01\x11")) {
				t.Errorf("%d objects, dump %.8q, %+v", len(all), dump, m.Objects.Dump)
			}
			var out bytes.Buffer
			if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Output: &out}); err != nil || !bytes.Equal(out.Bytes(), dump) {
				t.Errorf("%d of %d bytes came out, %v", out.Len(), len(dump), err)
			}
			// The pg_restore at hand says that it cannot read it; so does pgstow.
			_, err = Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Conn: connTo(t, pg, pg.CreateDatabase(t))})
			if !errors.Is(err, dumper.ErrRestore) || errors.Is(err, ErrIntegrity) {
				t.Errorf("restored by an older pg_restore: %v", err)
			}
			oneLiner(t, err)
		})
	}
	t.Run("encrypted", func(t *testing.T) {
		k, b := newKeys(t, "age"), memory()
		res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), PGBin: tools, Pgstow: "test", Recipients: recipients(t, k.recipient)})
		if err != nil {
			t.Fatal(err)
		}
		m, all := res.Manifest, content(t, b)
		validate(t, all[m.Key])
		dump := mustDecrypt(t, "age", k.identity, &m.Objects.Dump, all)
		var out bytes.Buffer
		opts := RestoreOptions{Bucket: b, Ref: m.ID, Output: &out, Identities: identities(t, k.identity)}
		if _, err := Restore(t.Context(), opts); err != nil || !bytes.Equal(out.Bytes(), dump) || m.Objects.Index != nil {
			t.Errorf("%d of %d bytes came out, %v", out.Len(), len(dump), err)
		}
		all[m.Objects.Dump.Key] = flip(all[m.Objects.Dump.Key], -20000)
		opts.Bucket = bucketOf(t, all)
		if _, err := Restore(t.Context(), opts); !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), DumpName) {
			t.Errorf("a flipped byte: %v", err)
		}
	})
	b := memory()
	_, err := Archive(t.Context(), ArchiveOptions{
		Bucket: b, Conn: connTo(t, pg, source), PGBin: tools, DumpArgs: []string{"--table=not_there"},
	})
	if !errors.Is(err, dumper.ErrDump) && !errors.Is(err, dumper.ErrUsage) {
		t.Errorf("a dump that fails: %v", err)
	}
	nothingLeft(t, b)
}
