package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRunner runs the runner over a module of its own, with the real go test.
func TestRunner(t *testing.T) {
	bin := runner(t)
	const (
		passing  = "func TestGood(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Log(\"chatty\") }) }\n"
		failing  = "func TestBad(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"broken here\") }) }\n"
		skipping = "func TestLazy(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Skip(\"no server\") }) }\n"
		hanging  = "func TestHang(t *testing.T) { t.Log(\"before\"); select {} }\n"
	)
	tests := []struct {
		name, source, list string
		ok                 bool
		want               []string
		not                []string
	}{
		{"pass", passing, "require a TestGood/sub", true,
			[]string{"ok  \texample.org/m/a\t", "2 tests passed, 0 failed, 0 skipped; 1 of 1 required suites ran"}, []string{"chatty", "FAIL"}},
		{"fail", passing + failing, "", false,
			[]string{"--- FAIL: TestBad", "broken here", "FAIL\texample.org/m/a\t"}, []string{"chatty"}},
		{"skip", skipping, "", false,
			[]string{"FAIL: skip that is not allowed: example.org/m/a TestLazy/sub: ", "no server", "ok  \texample.org/m/a\t"}, nil},
		{"allowed skip", skipping, "allow-skip a TestLazy/sub there is no server", true, []string{"1 skipped"}, []string{"FAIL"}},
		{"allowed skip in a required suite", skipping, "require a TestLazy\nallow-skip a TestLazy/sub why not", false,
			[]string{"FAIL: skip in required suite TestLazy"}, nil},
		{"required suite is gone", passing, "require a TestOther\nrequire b TestGood", false,
			[]string{"required suite example.org/m/a TestOther did not run", "example.org/m/b TestGood did not run", "0 of 2"}, nil},
		{"no build", passing + "func broken() { nonsense }\n", "", false, []string{"undefined: nonsense", "[build failed]"}, nil},
		{"timeout", hanging, "require a TestHang", false, []string{"panic: test timed out", "TestHang"}, nil},
		{"panic", "func TestPanic(t *testing.T) { panic(\"boom\") }\n", "", false, []string{"boom", "FAIL\texample.org/m/a"}, nil},
		{"reason missing", passing, "allow-skip a TestGood", false, []string{"line 3: an allowed skip needs a reason"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module example.org/m\n\ngo 1.26.0\n")
			write(t, filepath.Join(dir, "a/a_test.go"), "package a\n\nimport \"testing\"\n\n"+tt.source)
			write(t, filepath.Join(dir, "list"), "# comment\n\n"+tt.list+"\n")
			cmd := exec.Command(bin, "-list", "list", "-timeout", "2s", "./...")
			cmd.Dir = dir
			data, err := cmd.CombinedOutput()
			out := strings.Replace(string(data), "# comment\n", "", 1)
			if (err == nil) != tt.ok {
				t.Errorf("exit: %v, want success = %v", err, tt.ok)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("output lacks %q", want)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(out, not) {
					t.Errorf("output has %q", not)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// TestRunnerChooses takes the tests that a build tag brings, and no others.
func TestRunnerChooses(t *testing.T) {
	bin, dir := runner(t), t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.org/m\n\ngo 1.26.0\n")
	write(t, filepath.Join(dir, "a/a_test.go"), "package a\n\nimport \"testing\"\n\nfunc TestBad(t *testing.T) { t.Error(\"broken\") }\n")
	write(t, filepath.Join(dir, "a/b_test.go"), "//go:build extra\n\npackage a\n\nimport \"testing\"\n\nfunc TestExtra(t *testing.T) {}\n")
	write(t, filepath.Join(dir, "list"), "require a TestExtra\n")
	for tags, ok := range map[string]bool{"extra": true, "": false} {
		cmd := exec.Command(bin, "-list", "list", "-tags", tags, "-run", "^TestExtra", "./...")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if (err == nil) != ok || ok != strings.Contains(string(out), "1 tests passed, 0 failed") {
			t.Errorf("tags %q: %v\n%s", tags, err, out)
		}
	}
}

// runner is the path of the built program.
func runner(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "runtests")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
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
