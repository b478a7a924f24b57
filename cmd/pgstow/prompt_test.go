package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/internal/testenv"
)

// A passphrase is asked for on a terminal, not shown as it is typed, and the
// terminal is as it was afterwards. Where there is none, that is said.
func TestPassphrasePrompt(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE TABLE items (id int)`)
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "pgstow")
	if err := os.Symlink(self, bin); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "PGSTOW_DB=" + pg.URL(db), "PGSTOW_BUCKET=file://" + dir + "/bucket"}
	var res archiver.ArchiveResult
	peakOf(t, env, &res, bin, "archive", "--encrypt-to", key+".pub", "--json")
	show := []string{bin, "show", res.Manifest.ID, "--identity", key}

	alone := exec.CommandContext(t.Context(), show[0], show[1:]...)
	alone.Env, alone.SysProcAttr = env, &syscall.SysProcAttr{Setsid: true}
	out, err := alone.CombinedOutput()
	if alone.ProcessState.ExitCode() != exitUsage || !bytes.Contains(out, []byte("no terminal to ask")) || !bytes.Contains(out, []byte(key)) {
		t.Errorf("without a terminal: %v\n%s", err, out)
	}

	for typed, want := range map[string]string{
		"open sesame\r":         "public.items",
		"open sesamo\x7fe\r":    "public.items",
		"wrong\r":               "pgstow: show",
		"\x03":                  "nothing was typed",
		"open\x15open sesame\r": "public.items",
	} {
		// script runs a command on a terminal of its own; stty tells what is left of it.
		cmd := exec.CommandContext(t.Context(), "script", "-qefc", strings.Join(show, " ")+"; stty -a", "/dev/null")
		cmd.Env = append(slices.Clone(env), "SHELL=/bin/sh", "TERM=dumb")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		screen, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(screen)
		begin, err := r.ReadString(':') // of "Passphrase of FILE:"
		if err != nil || !strings.Contains(begin, "Passphrase of "+key) {
			t.Errorf("asked: %q, %v", begin, err)
		}
		if _, err := io.WriteString(in, typed); err != nil {
			t.Error(err)
		}
		rest, err := io.ReadAll(r)
		_ = in.Close()
		_ = cmd.Wait()
		text := string(rest)
		if err != nil || !strings.Contains(text, want) || strings.Contains(text, "sesam") || !strings.Contains(text, " echo ") || !strings.Contains(text, " icanon ") {
			t.Errorf("typed %q: %v\n%s", typed, err, text)
		}
	}
}
