package dumper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// killAfter is how long a program may take to end after SIGTERM; straggle is how
// long a pipe may stay open after its program exited.
const (
	killAfter = 5 * time.Second
	straggle  = 5 * time.Second
)

// firstInherited is the descriptor at which a child finds the first file it inherits.
const firstInherited = 3

// process is a running client program. It is waited for exactly once, by its own
// goroutine; done closes when it is reaped and its stderr read to the end.
type process struct {
	name   string // "pg_dump"
	cmd    *exec.Cmd
	conn   *childConn
	stderr *messages
	done   chan struct{}
	state  *os.ProcessState // valid once done is closed

	mu       sync.Mutex
	reaped   bool
	stopping bool
	kill     *time.Timer
}

type processOptions struct {
	path          string
	args          []string
	stdin, stdout *os.File   // the child's ends, nil for /dev/null
	files         []*os.File // inherited behind those of the connection; they stay the caller's
	log           *slog.Logger
	onError       func(text string) // called with the first line of an error as soon as it stands there
	onMessage     func(message)     // called for each message when it is complete
}

// startProcess starts a program that ends with ctx: SIGTERM to its group, SIGKILL
// after 5 s. It closes the child's ends of the pipes in every case.
func startProcess(ctx context.Context, name string, conn *childConn, opts processOptions) (*process, error) {
	defer closeFiles(opts.stdin, opts.stdout)
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd := exec.Command(opts.path, opts.args...)
	cmd.Env = conn.env
	cmd.ExtraFiles = slices.Concat(conn.files, opts.files)
	cmd.SysProcAttr = childAttr()
	cmd.Stderr = errWrite
	if opts.stdin != nil {
		cmd.Stdin = opts.stdin
	}
	if opts.stdout != nil {
		cmd.Stdout = opts.stdout
	}
	p := &process{
		name: name, cmd: cmd, conn: conn, done: make(chan struct{}),
		stderr: newMessages(name, logger(opts.log)),
	}
	if opts.onMessage != nil {
		p.stderr.onMessage = opts.onMessage
	}
	if opts.onError != nil {
		p.stderr.onError = opts.onError
	}
	started := make(chan error)
	go p.run(started, errRead, errWrite)
	if err := <-started; err != nil {
		return nil, err
	}
	go func() {
		select {
		case <-ctx.Done():
			p.stop()
		case <-p.done:
		}
	}()
	return p, nil
}

// run starts the program and waits for it on one thread: the kernel sends the
// parent-death signal when the *thread* that forked ends.
func (p *process) run(started chan<- error, errRead, errWrite *os.File) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	_ = errWrite.Close()
	if err != nil {
		_ = errRead.Close()
		p.conn.Close()
		started <- fmt.Errorf("start %s: %w", p.name, err)
		return
	}
	stderrDone := make(chan struct{})
	go func() {
		defer close(stderrDone)
		_, _ = io.Copy(p.stderr, errRead)
	}()
	started <- nil

	unreaped := awaitExit(p.cmd.Process.Pid)
	if !unreaped {
		_ = p.cmd.Wait() // the state says it all
	}
	p.mu.Lock()
	// Whatever it started and left behind ends with it.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	if unreaped {
		_ = p.cmd.Wait()
	}
	p.reaped = true
	if p.kill != nil {
		p.kill.Stop()
	}
	p.mu.Unlock()
	p.state = p.cmd.ProcessState
	p.conn.Close()
	// A descendant that left the group may hold the pipe; what the program itself
	// wrote is in it already.
	_ = errRead.SetReadDeadline(time.Now().Add(straggle))
	<-stderrDone
	_ = errRead.Close()
	p.stderr.flush()
	close(p.done)
}

// stop ends the program: SIGTERM to the group now, SIGKILL if it is still there
// after 5 s. It does not wait.
func (p *process) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped || p.stopping {
		return
	}
	p.stopping = true
	pgid := -p.cmd.Process.Pid
	_ = syscall.Kill(pgid, syscall.SIGTERM)
	p.kill = time.AfterFunc(killAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.reaped {
			_ = syscall.Kill(pgid, syscall.SIGKILL)
		}
	})
}

// failure is nil if the program exited 0, else how it ended and what it said.
// Only valid once done is closed.
func (p *process) failure() error {
	if p.state.Success() {
		return nil
	}
	end := fmt.Sprintf("exit code %d", p.state.ExitCode())
	if ws, ok := p.state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		end = fmt.Sprintf("killed by %s", signalName(ws.Signal()))
	}
	said := p.translate(p.stderr.summary())
	if said == "" {
		return errors.New(p.name + ": " + end)
	}
	return errors.New(p.name + ": " + said + " (" + end + ")")
}

// translate explains the one message that speaks of our own plumbing.
func (p *process) translate(said string) string {
	const mark = "syntax error in service file"
	_, rest, found := strings.Cut(said, mark)
	if !found {
		return said
	}
	var line int
	if i := strings.LastIndex(rest, "line "); i >= 0 {
		if _, err := fmt.Sscanf(rest[i:], "line %d", &line); err == nil && line >= 1 && line <= len(p.conn.lines) {
			return fmt.Sprintf("its libpq does not know the connection parameter %s; remove it or use newer client programs (--pg-bin)", p.conn.lines[line-1])
		}
	}
	return said
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGPIPE:
		return "SIGPIPE"
	case syscall.SIGINT:
		return "SIGINT"
	}
	return s.String()
}

func closeFiles(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
