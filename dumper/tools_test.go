package dumper

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestFindTools(t *testing.T) {
	found, err := FindTools(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no client programs installed")
	}
	for i, tool := range found {
		if i > 0 && tool.Major < found[i-1].Major {
			t.Errorf("not in order: %v", found)
		}
		if real, _ := filepath.EvalSymlinks(filepath.Join(tool.Dir, "pg_dump")); filepath.Base(real) == "pg_wrapper" {
			t.Errorf("%s is Debian's wrapper", tool.Dir)
		}
	}
	again, err := FindTools(t.Context(), found[0].Dir)
	if err != nil || len(again) != 1 || again[0] != found[0] {
		t.Errorf("--pg-bin: %v, %v", again, err)
	}
}

// fakeTools is a directory whose programs are shell scripts.
func fakeTools(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"pg_dump", "pg_restore"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPgBin(t *testing.T) {
	for version, major := range map[string]int{
		"17.2 (Debian 17.2-1.pgdg120+1)": 17, "18beta1": 18, "19devel": 19, "13.16": 13, "9.6.24": 9,
	} {
		dir := fakeTools(t, fmt.Sprintf("echo 'pg_dump (PostgreSQL) %s'", version))
		found, err := FindTools(t.Context(), dir)
		if err != nil || len(found) != 1 || found[0] != (Tools{dir, major, version}) {
			t.Errorf("%s: %v, %v", version, found, err)
		}
	}
	_, err := FindTools(t.Context(), t.TempDir())
	wantError(t, err, ErrVersion, "--pg-bin", "no pg_dump there")
	_, err = FindTools(t.Context(), fakeTools(t, "echo libpq.so.5: not found >&2; exit 127"))
	wantError(t, err, ErrVersion, "libpq.so.5")
	_, err = FindTools(t.Context(), fakeTools(t, "echo hello"))
	wantError(t, err, ErrVersion, "hello")
}

func TestPathIsSearched(t *testing.T) {
	dir := fakeTools(t, "echo 'pg_dump (PostgreSQL) 77.1'")
	t.Setenv("PATH", dir+":relative:"+os.Getenv("PATH"))
	found, err := FindTools(t.Context(), "")
	if err != nil || found[len(found)-1].Dir != dir {
		t.Errorf("%v, %v", found, err)
	}
}

func TestChooseTools(t *testing.T) {
	set := func(majors ...int) (out []Tools) {
		for i, m := range majors {
			out = append(out, Tools{Dir: fmt.Sprintf("/pg/%d", m), Major: m, Version: fmt.Sprintf("%d.%d (x)", m, 9+i)})
		}
		return out
	}
	for _, tt := range []struct {
		found        []Tools
		server, want int
		minor        string
	}{
		{set(13, 15, 17), 15, 15, "15.10 (x)"}, {set(13, 15, 17), 14, 15, "15.10 (x)"}, {set(13, 17, 18), 15, 17, "17.10 (x)"},
		{set(15, 15), 15, 15, "15.10 (x)"}, {set(18), 9, 18, "18.9 (x)"},
	} {
		got, err := ChooseTools(tt.found, tt.server)
		if err != nil || got.Major != tt.want || got.Version != tt.minor {
			t.Errorf("%v for %d: %v, %v", tt.found, tt.server, got, err)
		}
	}
	_, err := ChooseTools(set(13, 15), 17)
	wantError(t, err, ErrVersion, "server is 17", "15.10 in /pg/15", "postgresql-client-17", "--pg-bin")
	_, err = ChooseTools(nil, 17)
	wantError(t, err, ErrVersion, "no pg_dump found", "postgresql-client-17")
}
