package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

// shell runs pgstow as a process with an environment of its own.
type shell struct {
	bin string
	env []string
}

func newShell(t testing.TB, env ...string) shell {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "pgstow")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, bin); err != nil {
		t.Fatal(err)
	}
	return shell{bin: bin, env: append(env, "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir())}
}

func (c shell) run(t testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.bin, args...)
	cmd.Env = append(append([]string(nil), c.env...), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// The printed policy of a vault, given to a user as it is, is enough to archive;
// that user sees nothing of it, and others see what could not be read back.
func TestVaultFromTheCommandLine(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE t AS SELECT generate_series(1, 100) AS x")
	srv := testenv.MinIO(t)
	c := newShell(t, "PGSTOW_DB="+pg.URL(db), "PGSTOW_BUCKET="+srv.BucketURL(srv.NewBucket(t, testenv.BucketOptions{ObjectLock: true}), "team/pg"))
	do := func(env []string, want int, args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, code := c.run(t, env, args...)
		if code != want {
			t.Fatalf("%s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
		}
		return stdout, stderr
	}
	keep := []string{"--keep", "2d", "--lock", "governance", "--tag", "owner=finance"}
	policy, _ := do(nil, exitOK, append([]string{"doctor", "--print-policy", "vault"}, keep...)...)
	vault := srv.NewUser(t, policy).Env()

	if out, stderr := do(vault, exitOK, append([]string{"doctor"}, keep...)...); !strings.Contains(out, "vault: adds archives") || !strings.Contains(stderr, "--no-write leaves it out") {
		t.Errorf("doctor says\n%s%s", out, stderr)
	}
	if out, _ := do(vault, exitOK, append([]string{"archive", "--name", "orders"}, keep...)...); !strings.Contains(out, "denied") {
		t.Errorf("archive says\n%s", out)
	}
	// Another mode than the policy's is denied, and the right is named.
	if out, _ := do(vault, exitStorage, "doctor", "--keep", "2d", "--lock", "compliance"); !strings.Contains(out, "s3:PutObjectRetention") {
		t.Errorf("doctor says\n%s", out)
	}
	_, stderr := do(vault, exitStorage, "list")
	if !strings.Contains(stderr, "denied") {
		t.Errorf("list says\n%s", stderr)
	}
	if out, _ := do(srv.Env(), exitOK, "show", "latest"); !strings.Contains(out, "read back  denied") {
		t.Errorf("show says\n%s", out)
	}
	target := pg.CreateDatabase(t)
	do(srv.Env(), exitOK, "restore", "latest", "--db", pg.URL(target))
	do(nil, exitUsage, "doctor", "--print-policy", "everything")
}
