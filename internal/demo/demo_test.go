package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgstow/pgstow/internal/testenv/sample"
)

// bin holds the demo and pgstow, built for this run.
var bin string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "demo-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	for name, pkg := range map[string]string{"demo": ".", "pgstow": "../../cmd/pgstow"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, out)
			return 1
		}
	}
	return m.Run()
}

func command(tmp string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "demo"), "-pgstow", filepath.Join(bin, "pgstow"), "-scale", "1")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// tempDir is short, for a socket's path is limited to 107 bytes, and may be
// passed through by the servers' user.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDemo(t *testing.T) {
	tmp := tempDir(t)
	cmd := command(tmp)
	page := filepath.Join(t.TempDir(), "audit.html")
	cmd.Args = append(cmd.Args, "-page", page)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := string(out)
	unpadded := regexp.MustCompile(` +`).ReplaceAllString(text, " ")
	for _, want := range []string{
		"$ export PGSTOW_DB=postgres://postgres@127.0.0.1:", "$ pgstow archive --name shop\n", "$ pgstow list\n",
		"$ pgstow show latest --name shop\n", "$ pgstow restore latest --name shop",
		"public.pgbench_accounts 100,000 100,000 ", "large objects 50 50 ",
		`"Bücher & Söhne"."Größe ""XL"""`, "All 19 are the same.", "$ pgstow drill latest --name shop", "result passed: the copy is equal\n", "definitions equal\n", "$ pgstow verify latest --name shop\n", "result passed", "full: every byte was read, decoded and compared", "COMPLIANT: no violation, ", "bucket archives at http://127.0.0.1:", "key pg/default/shop/",
	} {
		if !strings.Contains(unpadded, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "$") && utf8.RuneCountInString(strings.TrimSpace(line)) > width {
			t.Errorf("wider than %d columns: %s", width, line)
		}
	}
	if html, err := os.ReadFile(page); err != nil || !bytes.Contains(html, []byte("Compliant</h1>")) {
		t.Errorf("the audit's page: %v, %d bytes", err, len(html))
	}
	if t.Failed() {
		t.Log(text)
	}
	nothingLeft(t, tmp)
}

// TestInterrupt ends the demo at every stage, in every way a terminal, a
// service manager or a user does.
func TestInterrupt(t *testing.T) {
	group := func(sig syscall.Signal) func(*exec.Cmd) error {
		return func(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, sig) }
	}
	alone := func(sig syscall.Signal) func(*exec.Cmd) error {
		return func(cmd *exec.Cmd) error { return cmd.Process.Signal(sig) }
	}
	tests := []struct {
		name  string
		after string // output after which the signal comes
		send  func(*exec.Cmd) error
		code  int // -1: died of the signal
	}{
		{"title, Ctrl-C", "whole or absent", group(syscall.SIGINT), 130},
		{"starting PostgreSQL, Ctrl-C", "Starting a throwaway", group(syscall.SIGINT), 130},
		{"starting PostgreSQL, killed", "Starting a throwaway", alone(syscall.SIGKILL), -1},
		{"starting S3, SIGINT to the program alone", "Starting an S3", alone(syscall.SIGINT), 130},
		{"loading, Ctrl-C", "Loading the sample", group(syscall.SIGINT), 130},
		{"loading, terminal closed", "Loading the sample", group(syscall.SIGHUP), 129},
		{"loading, killed", "Loading the sample", alone(syscall.SIGKILL), -1},
		{"archive, Ctrl-C", "$ pgstow archive", group(syscall.SIGINT), 130},
		{"archive, SIGTERM to the program alone", "$ pgstow archive", alone(syscall.SIGTERM), 143},
		{"archive, killed", "$ pgstow archive", alone(syscall.SIGKILL), -1},
		{"show, Ctrl-C", "$ pgstow show", group(syscall.SIGINT), 130},
		{"restore, Ctrl-C", "$ pgstow restore", group(syscall.SIGINT), 130},
		{"restore, SIGTERM to all", "$ pgstow restore", group(syscall.SIGTERM), 143},
		{"verify, Ctrl-C", "$ pgstow verify", group(syscall.SIGINT), 130},
		{"drill, Ctrl-C", "$ pgstow drill", group(syscall.SIGINT), 130},
		{"audit, Ctrl-C", "$ pgstow audit", group(syscall.SIGINT), 130},
		{"compare, Ctrl-C", "── Source and copy", group(syscall.SIGINT), 130},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tmp := tempDir(t)
			cmd := command(tmp)
			out := interruptAfter(t, cmd, tt.after, tt.send)
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d, want %d\n%s", code, tt.code, out)
			}
			nothingLeft(t, tmp)
		})
	}
}

// interruptAfter runs cmd and calls send when its output contains text.
func interruptAfter(t *testing.T, cmd *exec.Cmd, text string, send func(*exec.Cmd) error) string {
	t.Helper()
	r, w, err := os.Pipe() // not StdoutPipe: Wait would close it under the reader
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	in := bufio.NewReader(r)
	for !bytes.Contains(seen.Bytes(), []byte(text)) {
		b, err := in.ReadByte() // steps print before they start, without a newline
		if err != nil {
			break
		}
		seen.WriteByte(b)
	}
	if err := send(cmd); err != nil {
		t.Errorf("send the signal: %v", err)
	}
	_ = cmd.Wait() // the exit code is the caller's
	_, _ = io.Copy(&seen, in)
	_ = r.Close()
	if !strings.Contains(seen.String(), text) {
		t.Errorf("%q never came:\n%s", text, seen.String())
	}
	return seen.String()
}

// nothingLeft waits until no process has tmp in its environment or command
// line, and checks that it is empty.
func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		procs := mentioning(t, tmp)
		entries, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		if len(procs) == 0 && len(entries) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left after 30 s: processes %q, files %v", procs, entries)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func mentioning(t *testing.T, text string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		for _, file := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join("/proc", e.Name(), file))
			if err == nil && bytes.Contains(data, []byte(text)) {
				found = append(found, e.Name()+" "+strings.ReplaceAll(string(data), "\x00", " "))
			}
		}
	}
	return found
}

func TestComparison(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out}
	same := sample.TableDiff{Kind: "table", Schema: "shop", Name: strings.Repeat("ü", 60), SourceRows: 1234567, CopyRows: 1234567}
	err := s.comparison([]sample.TableDiff{same}) // found on neither side: not the same
	if err == nil || err.Error() != "1 of 1 differ between source and copy" {
		t.Errorf("error = %v", err)
	}
	if !strings.Contains(out.String(), "1,234,567 1,234,567") || !strings.Contains(out.String(), "DIFFERENT") {
		t.Errorf("output:\n%s", out.String())
	}
}
