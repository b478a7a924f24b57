package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// command is a program to be run as a server.
type command struct {
	path string
	args []string
	env  []string
	dir  string
	log  string         // standard output and error are appended to it
	quit syscall.Signal // asks it to end; also what the kernel sends when we die
}

// process is a running server.
type process struct {
	cmd  *exec.Cmd
	log  string
	quit syscall.Signal
	done chan struct{} // closed when it has been waited for
	err  error         // valid after done
}

// start runs c under the Home.
func (h *Home) start(c command) (*process, error) {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.path, c.args...)
	cmd.Dir = c.dir
	// Nothing of the caller's environment: no AWS_ or PG variables leak in.
	cmd.Env = append([]string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + c.dir, "TMPDIR=" + c.dir, "LANG=C.UTF-8", "LC_ALL=C.UTF-8",
	}, c.env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C reaches our program, which ends the servers
	// in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: h.cred, Pdeathsig: c.quit}

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.New("start " + filepath.Base(c.path) + ": the servers were closed")
	}
	if err := startOnThread(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(c.path), err)
	}
	p := &process{cmd: cmd, log: c.log, quit: c.quit, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.procs = append(h.procs, p)
	return p, nil
}

// forget drops a process that has ended.
func (h *Home) forget(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, q := range h.procs {
		if p == q {
			h.procs = append(h.procs[:i:i], h.procs[i+1:]...)
			return
		}
	}
}

var (
	threadOnce sync.Once
	threadJobs chan func()
)

// startOnThread starts cmd from an OS thread that lives as long as we do: the
// kernel sends Pdeathsig when the starting thread dies, not the process, and
// Go ends threads as it sees fit.
func startOnThread(cmd *exec.Cmd) error {
	threadOnce.Do(func() {
		threadJobs = make(chan func())
		go func() {
			runtime.LockOSThread()
			for job := range threadJobs {
				job()
			}
		}()
	})
	errc := make(chan error, 1)
	threadJobs <- func() { errc <- cmd.Start() }
	return <-errc
}

// Start runs cmd as a child that is killed by the kernel if this process dies.
// The caller waits for it. It is for client programs; a Home's servers have it.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return startOnThread(cmd)
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stopGrace is how long a server may take to end by itself.
const stopGrace = 10 * time.Second

// stop asks the process to end, and kills its group if it does not.
func (p *process) stop() error {
	return p.end(p.quit)
}

// end sends sig and waits; after stopGrace it kills.
func (p *process) end(sig syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-p.done:
		return nil
	case <-grace.C:
	}
	// The leader has not been waited for, so its group cannot be another's.
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	<-p.done
	return nil
}

// startAttempts is how often a server is started when its port is taken by
// somebody else between choosing and binding it.
const startAttempts = 5

// readyTimeout bounds the wait for a server's first right answer. It is far
// more than any needs on an idle machine.
const readyTimeout = 90 * time.Second

// startReady starts a server and polls ready until it answers. A process that
// ends at once has lost its port (or is misconfigured): it is started again,
// on a port that next chooses.
func (h *Home) startReady(ctx context.Context, next func() (command, error), ready func(context.Context) error) (*process, error) {
	var last error
	for range startAttempts {
		c, err := next()
		if err != nil {
			return nil, err
		}
		p, err := h.start(c)
		if err != nil {
			return nil, err
		}
		last = p.waitReady(ctx, ready)
		if last == nil {
			return p, nil
		}
		ended := !p.alive()
		err = p.stop()
		h.forget(p)
		if !ended || err != nil {
			return nil, errors.Join(last, err)
		}
	}
	return nil, last
}

// errEnded makes an end with code 0 an error too.
var errEnded = errors.New("server process ended")

func (p *process) waitReady(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	name := filepath.Base(p.cmd.Path)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		try, cancelTry := context.WithTimeout(ctx, 5*time.Second)
		err := ready(try)
		cancelTry()
		if err == nil && p.alive() {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("start %s: %w; its log:\n%s", name, errors.Join(errEnded, p.err), logTail(p.log, 0))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%w): %w; its log:\n%s", name, ctx.Err(), err, logTail(p.log, 0))
		case <-time.After(pause):
		}
	}
}

// logTail is the end of a log from offset on, 16 KiB at most.
func logTail(path string, offset int64) string {
	const limit = 16 << 10
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	offset = max(offset, info.Size()-limit)
	data, err := io.ReadAll(io.NewSectionReader(f, offset, limit))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(data))
}

// logSize is where a log ends now.
func logSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// FreePort chooses a loopback port that nobody listens on. It lies below the
// range from which the kernel takes source ports, so that a server that is
// stopped and started again does not lose its port to an outgoing connection.
func FreePort() (int, error) {
	const low = 12000
	high := 32000
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if fields := bytes.Fields(data); len(fields) == 2 {
			if n, err := strconv.Atoi(string(fields[0])); err == nil {
				high = n
			}
		}
	}
	for range 200 {
		port := 0 // the kernel's choice, if its range leaves no room
		if high-low >= 1000 {
			port = low + rand.IntN(high-low) //nolint:gosec // not a secret
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		port = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return 0, err
		}
		return port, nil
	}
	return 0, errors.New("no free loopback port")
}

// addr is a loopback address.
func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
