package dumper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// DumpOptions say what pg_dump is to dump.
type DumpOptions struct {
	Snapshot string   // Source.Snapshot; "" lets pg_dump take its own
	Args     []string // further pg_dump options, checked by CheckDumpArgs
	// Compression is pg_dump's own --compress, which Args may not hold; "0"
	// is none in every release, "" leaves its default.
	Compression string
	Log         *slog.Logger
}

// Dump is a running pg_dump. Read returns io.EOF only after it exited 0.
type Dump struct {
	proc  *process
	out   *os.File
	cause func() error // why the context ended, nil if it did not

	mu     sync.Mutex
	closed bool
	err    error // sticky
}

// StartDump starts pg_dump -Fc. Ending ctx ends it: SIGTERM to the group, SIGKILL after 5 s.
// Its session runs in UTC whatever the environment says. The caller closes it.
func StartDump(ctx context.Context, c Conn, t Tools, opts DumpOptions) (*Dump, error) {
	if err := CheckDumpArgs(opts.Args); err != nil {
		return nil, err
	}
	conn, err := newChildConn(c, os.Environ())
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start pg_dump: %w", err)
	}
	widenPipe(r)
	args := []string{"--format=custom", "--no-password"}
	if opts.Snapshot != "" {
		args = append(args, "--snapshot="+opts.Snapshot)
	}
	if opts.Compression != "" {
		args = append(args, "--compress="+opts.Compression)
	}
	proc, err := startProcess(ctx, "pg_dump", conn, processOptions{
		path: filepath.Join(t.Dir, "pg_dump"), args: append(args, opts.Args...), stdout: w, log: opts.Log,
	})
	if err != nil {
		_ = r.Close()
		return nil, failCause(ErrDump, err.Error(), err)
	}
	d := &Dump{proc: proc, out: r, cause: func() error { return context.Cause(ctx) }}
	go func() { // whoever still holds the pipe after pg_dump exited does not hold up the reader
		<-proc.done
		_ = r.SetReadDeadline(time.Now().Add(straggle))
	}()
	return d, nil
}

// Read delivers the archive. A pg_dump that failed, was killed or was cancelled is
// an error, never io.EOF.
func (d *Dump) Read(p []byte) (int, error) {
	d.mu.Lock()
	err := d.err
	d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if d.exited() { // all it wrote is in the pipe: reading on takes no time
		_ = d.out.SetReadDeadline(time.Now().Add(straggle))
	}
	n, err := d.out.Read(p)
	if err == nil {
		return n, nil
	}
	return n, d.end(err)
}

func (d *Dump) exited() bool {
	select {
	case <-d.proc.done:
		return true
	default:
		return false
	}
}

// end turns the end of the pipe into the verdict on the process.
func (d *Dump) end(readErr error) error {
	if errors.Is(readErr, os.ErrDeadlineExceeded) {
		readErr = errors.New("pg_dump exited, but another process keeps its output open")
	}
	if readErr != io.EOF {
		d.proc.stop()
	}
	<-d.proc.done
	d.mu.Lock()
	defer d.mu.Unlock()
	switch failure := d.proc.failure(); {
	case d.closed:
		d.err = fail(ErrDump, "pg_dump was stopped before its end")
	case failure != nil && d.cause() != nil:
		cause := d.cause()
		d.err = failCause(ErrDump, "pg_dump stopped: "+cause.Error(), cause)
	case failure != nil:
		d.err = failCause(ErrDump, failure.Error(), failure)
	case readErr != io.EOF:
		d.err = failCause(ErrDump, "read from pg_dump: "+readErr.Error(), readErr)
	default:
		d.err = io.EOF
	}
	_ = d.out.Close()
	return d.err
}

// Close ends pg_dump if it still runs and waits for it; idempotent. How pg_dump
// ended is Read's to tell.
func (d *Dump) Close() error {
	d.mu.Lock()
	d.closed = true
	if d.err == nil {
		d.err = fail(ErrDump, "pg_dump was stopped before its end")
	}
	d.mu.Unlock()
	d.proc.stop()
	<-d.proc.done
	_ = d.out.Close()
	return nil
}
