// Package e2e_test breaks the built binary between real servers and looks at
// what is left: in the bucket, in the process table, in pg_stat_activity.
package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// patience bounds every wait for something that is to happen. It is long,
// because the machine may be busy; nothing waits for it when all is well.
const patience = 90 * time.Second

var build = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", err
	}
	dir := strings.TrimSpace(string(root))
	path := filepath.Join(dir, ".run", "e2e", "pgstow")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/pgstow")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatalf("build pgstow: %v", err)
	}
	return path
}

// environment is what a run of pgstow sees: nothing of the developer's own.
type environment struct {
	vars    []string
	secrets []string
}

func newEnvironment(t *testing.T) environment {
	home := t.TempDir()
	return environment{vars: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "LANG=C.UTF-8",
		"PGCONNECT_TIMEOUT=30",
	}}
}

func (e environment) with(vars ...string) environment {
	e.vars = append(slices.Clip(e.vars), vars...)
	return e
}

func (e environment) hiding(secrets ...string) environment {
	e.secrets = append(slices.Clip(e.secrets), secrets...)
	return e
}

// process is a running pgstow.
type process struct {
	t              *testing.T
	env            environment
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	done           chan struct{}
}

// start runs pgstow; the test kills it if it still runs at its end.
func start(t *testing.T, env environment, args ...string) *process {
	t.Helper()
	p := &process{t: t, env: env, cmd: exec.Command(binary(t), args...), done: make(chan struct{})}
	p.cmd.Env = env.vars
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	// What outlives pgstow must not keep the test waiting for its pipes.
	p.cmd.WaitDelay = 10 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the exit code is looked at in wait
	}()
	t.Cleanup(func() {
		select {
		case <-p.done:
		default:
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	})
	return p
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal pgstow: %v", err)
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait returns the exit code, -1 for a signal.
func (p *process) wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("pgstow still runs after %s\n%s", within, p.stderr.String())
	}
	for _, secret := range p.env.secrets {
		if strings.Contains(p.stdout.String()+p.stderr.String(), secret) {
			p.t.Errorf("a secret stands in the output of pgstow %s", strings.Join(p.cmd.Args[1:], " "))
		}
	}
	return p.cmd.ProcessState.ExitCode()
}

// want waits for the exit code.
func (p *process) want(code int) *process {
	p.t.Helper()
	if got := p.wait(5 * time.Minute); got != code {
		p.t.Fatalf("pgstow %s: exit code %d, want %d\n%s", p.cmd.Args[1], got, code, p.stderr.String())
	}
	return p
}

// run runs pgstow to its end, which has to be code, and returns stdout.
func run(t *testing.T, env environment, code int, args ...string) string {
	t.Helper()
	return start(t, env, args...).want(code).stdout.String()
}

// says fails unless stderr has text.
func (p *process) says(text string) {
	p.t.Helper()
	if !strings.Contains(p.stderr.String(), text) {
		p.t.Errorf("stderr has no %q:\n%s", text, p.stderr.String())
	}
}

// child waits for a child of pgstow by the name of its program.
func (p *process) child(name string) int {
	p.t.Helper()
	var pid int
	eventually(p.t, "pgstow has started "+name, func() bool {
		if !p.running() {
			p.t.Fatalf("pgstow ended before it started %s\n%s", name, p.stderr.String())
		}
		for _, c := range children(p.cmd.Process.Pid) {
			if comm(c) == name {
				pid = c
				return true
			}
		}
		return false
	})
	return pid
}

// children are the direct children of all of a process's threads.
func children(pid int) []int {
	lists, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		return nil
	}
	var found []int
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}

func comm(pid int) string {
	data, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return strings.TrimSpace(string(data))
}

// alive reports whether a process still runs under its old name: a pid may
// have been given away, and a zombie runs no more.
func alive(pid int, name string) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil || comm(pid) != name {
		return false
	}
	_, after, ok := strings.Cut(string(data), ") ")
	return ok && !strings.HasPrefix(after, "Z")
}

// archived is one archive as list --json shows it.
type archived struct {
	ID       string
	Label    string
	Key      string
	Complete bool
}

func list(t *testing.T, env environment, bucket string, more ...string) []archived {
	t.Helper()
	var entries []archived
	out := run(t, env, 0, append([]string{"list", "--json", "--from", bucket}, more...)...)
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		t.Fatalf("list --json: %v\n%s", err, out)
	}
	return entries
}

// archive archives and returns the id.
func archive(t *testing.T, env environment, bucket string, more ...string) string {
	t.Helper()
	out := run(t, env, 0, append([]string{"archive", "--json", "--to", bucket}, more...)...)
	return idOf(t, out)
}

func idOf(t *testing.T, out string) string {
	t.Helper()
	var result struct{ Manifest struct{ ID string } }
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.Manifest.ID == "" {
		t.Fatalf("archive --json: %v\n%s", err, out)
	}
	return result.Manifest.ID
}

// eventually waits for a condition that is to come about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
