package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRunner fuzzes a module of its own with the real go test: a target that
// holds, one that does not, and one in an external test package.
func TestRunner(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "runfuzz")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const (
		holds = "func FuzzHolds(f *testing.F) { f.Add(\"x\"); f.Fuzz(func(t *testing.T, s string) { _ = len(s) }) }\n"
		fails = "func FuzzFails(f *testing.F) { f.Add(\"x\"); f.Fuzz(func(t *testing.T, s string) { if s != \"x\" { t.Error(\"broken here\") } }) }\n"
	)
	write(t, filepath.Join(dir, "go.mod"), "module example.org/m\n\ngo 1.26.0\n")
	write(t, filepath.Join(dir, "a", "a_test.go"), "package a\n\nimport \"testing\"\n\n"+holds+"\n"+fails)
	write(t, filepath.Join(dir, "b", "b.go"), "package b\n")
	write(t, filepath.Join(dir, "b", "b_test.go"), "package b_test\n\nimport \"testing\"\n\n"+holds)
	write(t, filepath.Join(dir, "c", "c.go"), "package c\n")
	for _, c := range []struct {
		packages string
		ok       bool
		want     []string
	}{
		{"./...", false, []string{
			"ok  \texample.org/m/a\tFuzzHolds\texecs: ", "ok  \texample.org/m/b\tFuzzHolds\texecs: ",
			"FAIL\texample.org/m/a\tFuzzFails\texit status 1", "broken here", "Failing input written to", "FAIL: 1 of 3 fuzz targets failed",
		}},
		{"./b", true, []string{"ok  \texample.org/m/b\tFuzzHolds\texecs: "}},
		{"./c", false, []string{"FAIL: there is no fuzz target"}},
		{"./absent", false, []string{"FAIL: go list: "}},
	} {
		cmd := exec.Command(bin, "-time", "2s", c.packages)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.packages, err)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: output lacks %q", c.packages, want)
			}
		}
		if t.Failed() {
			t.Logf("%s", out)
		}
	}
}

// The end of the time is no failure; anything else is, whatever else it says.
func TestVerdict(t *testing.T) {
	const status = "fuzz: elapsed: 0s, gathering baseline coverage: 0/9 completed\nfuzz: elapsed: 57s, execs: 8991 (574/sec), new interesting: 242 (total: 280)\n" +
		"fuzz: elapsed: 1m0s, execs: 8991 (0/sec), new interesting: 242 (total: 280)\n"
	const end = "FAIL\nexit status 1\nFAIL\texample.org/m\t60.131s\n"
	exit := errors.New("exit status 1")
	for name, c := range map[string]struct {
		out string
		err error
		ok  bool
	}{
		"pass":                  {status + "PASS\nok  \texample.org/m\t60.1s\n", nil, true},
		"nothing was fuzzed":    {"fuzz: elapsed: 1m0s, gathering baseline coverage: 0/9 completed\nPASS\nok  \texample.org/m\t60.1s\n", nil, false},
		"deadline":              {status + "--- FAIL: FuzzX (60.12s)\n    context deadline exceeded\n" + end, exit, true},
		"deadline, two FAILs":   {status + "--- FAIL: FuzzX (60.12s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\texample.org/m\t60.131s\nFAIL\n", exit, true},
		"deadline, too early":   {status + "--- FAIL: FuzzX (12.00s)\n    context deadline exceeded\n" + end, exit, false},
		"deadline, no fuzzing":  {"fuzz: elapsed: 1m0s, gathering baseline coverage: 0/9 completed\n--- FAIL: FuzzX (60.12s)\n    context deadline exceeded\n" + end, exit, false},
		"the target's deadline": {status + "--- FAIL: FuzzX (60.12s)\n    --- FAIL: FuzzX (0.00s)\n        x_test.go:7: context deadline exceeded\n    \n    Failing input written to testdata/fuzz/FuzzX/1\n" + end, exit, false},
		"deadline and input":    {status + "--- FAIL: FuzzX (60.12s)\n    context deadline exceeded\n    Failing input written to testdata/fuzz/FuzzX/1\n" + end, exit, false},
		"a hang":                {status + "--- FAIL: FuzzX (60.12s)\n    fuzzing process hung or terminated unexpectedly: exit status 2\n" + end, exit, false},
		"no build":              {"# example.org/m\n./x.go:1:1: undefined: y\nFAIL\texample.org/m [build failed]\nFAIL\n", exit, false},
	} {
		if err := verdict(c.out, c.err, time.Minute); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
