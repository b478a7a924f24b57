package dumper

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// RestoreOptions reach pg_restore with its own meaning.
type RestoreOptions struct {
	NoOwner, NoPrivileges, Clean, IfExists, Create, DataOnly, SchemaOnly bool
	Role                                                                 string
	Tables                                                               []string // [SCHEMA.]TABLE, as CheckSelection reads them
	Schemas                                                              []string
	KeepGoing                                                            bool
	Args                                                                 []string // further pg_restore options, checked by CheckRestoreArgs
	Log                                                                  *slog.Logger

	AllowPooler bool // restore through a pooled endpoint all the same
}

// RestoreResult holds what KeepGoing let pass: with it, pg_restore's errors are
// no error of Restore as long as it went on to its end. The caller must look.
type RestoreResult struct {
	Errors []string // one line each: object and message
}

// Restore feeds archive to pg_restore. Any read error of archive but io.EOF kills pg_restore
// and is returned; success only when pg_restore exited 0 (transaction_timeout and KeepGoing
// aside). pg_restore leaves the archive when it has what it needs: what lies behind
// that is left unread, the caller's to check.
//
// With Create, c names the database to issue CREATE DATABASE from, as with
// pg_restore; where it does not exist, postgres or template1 serve.
func Restore(ctx context.Context, c Conn, t Tools, archive io.Reader, opts RestoreOptions) (RestoreResult, error) {
	r, err := OpenRestorer(ctx, c, t, opts)
	if err != nil {
		return RestoreResult{}, err
	}
	return r.Run(ctx, archive)
}

// hasOption tells whether a pg_restore option stands in checked args.
func hasOption(args []string, names ...string) bool {
	parsed, _ := restoreOptions.parse(args) // checked before
	for _, o := range parsed {
		for _, n := range names {
			if o.name == n {
				return true
			}
		}
	}
	return false
}

// args are pg_restore's arguments but for the connection and -e.
func (o RestoreOptions) args() ([]string, error) {
	s, err := o.selection()
	if err != nil {
		return nil, err
	}
	var args []string
	for _, f := range []struct {
		on   bool
		flag string
	}{
		{o.NoOwner, "--no-owner"}, {o.NoPrivileges, "--no-privileges"}, {o.Clean, "--clean"},
		{o.IfExists, "--if-exists"}, {o.Create, "--create"}, {o.DataOnly, "--data-only"}, {o.SchemaOnly, "--schema-only"},
	} {
		if f.on {
			args = append(args, f.flag)
		}
	}
	if o.Role != "" {
		args = append(args, "--role="+o.Role)
	}
	for _, schema := range append(s.schemaArgs(), o.Schemas...) {
		args = append(args, "--schema="+schema)
	}
	for i := range o.Tables {
		args = append(args, "--table="+s.tables[i].name)
	}
	return append(args, o.Args...), nil
}

// restore is one run of pg_restore.
type restore struct {
	opts      RestoreOptions
	oldServer bool
	parallel  bool // with -j: several processes write messages
	proc      *process

	mu      sync.Mutex
	benign  int      // the transaction_timeout message
	errors  []string // all others
	ignored int      // as pg_restore counted them at its end
}

// run streams an archive into pg_restore.
func (r *restore) run(ctx context.Context, c Conn, t Tools, archive io.Reader, args []string) (RestoreResult, error) {
	conn, err := newChildConn(c, os.Environ())
	if err != nil {
		return RestoreResult{}, err
	}
	stdin, feed, err := os.Pipe()
	if err != nil {
		conn.Close()
		return RestoreResult{}, fmt.Errorf("start pg_restore: %w", err)
	}
	widenPipe(feed)
	// Only --verbose names the object that an error is about.
	if err := r.start(ctx, conn, t, processOptions{args: append([]string{"--verbose"}, args...), stdin: stdin}); err != nil {
		_ = feed.Close()
		return RestoreResult{}, err
	}
	readErr := r.feed(archive, feed)
	<-r.proc.done
	return r.verdict(ctx, readErr)
}

// start starts pg_restore and sees to it that an error ends it where -e cannot.
func (r *restore) start(ctx context.Context, conn *childConn, t Tools, o processOptions) (err error) {
	stop := make(chan struct{}, 1)
	o.path = filepath.Join(t.Dir, "pg_restore")
	o.args = append([]string{"--format=custom", "--no-password", "--dbname=service=" + serviceName}, o.args...)
	// Called while pg_restore may still be starting: r.proc is not ours to touch there.
	o.onError = func(text string) { r.onError(text, stop) }
	o.onMessage, o.log = r.onMessage, r.opts.Log
	if r.proc, err = startProcess(ctx, "pg_restore", conn, o); err != nil {
		return failCause(ErrRestore, err.Error(), err)
	}
	go func() {
		select {
		case <-stop:
			r.proc.stop()
		case <-r.proc.done:
		}
	}()
	return nil
}

// feed copies the archive to pg_restore and returns the archive's error. That
// pg_restore takes no more is none: how it ended says why.
func (r *restore) feed(archive io.Reader, stdin *os.File) error {
	defer func() { _ = stdin.Close() }()
	go func() { // a descendant that left the group may hold the other end of the pipe
		<-r.proc.done
		_ = stdin.Close()
	}()
	buf := make([]byte, 256<<10)
	for {
		n, err := archive.Read(buf)
		// What came with an error may be unproved: pg_restore is not to see it.
		if err != nil && err != io.EOF {
			r.proc.stop()
			return err
		}
		if n > 0 {
			if _, werr := stdin.Write(buf[:n]); werr != nil {
				return nil
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// onError stops pg_restore at the first error where -e could not be given.
func (r *restore) onError(text string, stop chan<- struct{}) {
	if r.oldServer && !r.opts.KeepGoing && !strings.Contains(text, "transaction_timeout") {
		select {
		case stop <- struct{}{}:
		default:
		}
	}
}

func (r *restore) onMessage(m message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.level != "error" {
		if n, ok := strings.CutPrefix(m.text, "errors ignored on restore: "); ok && m.level == "warning" {
			r.ignored, _ = strconv.Atoi(n)
		}
		return
	}
	// The server's message may be in any language; the command is what pg_restore sent.
	if r.oldServer && m.command() == "SET transaction_timeout = 0;" {
		r.benign++
		return
	}
	r.errors = append(r.errors, m.String())
}

// verdict weighs how the archive and pg_restore ended.
func (r *restore) verdict(ctx context.Context, readErr error) (RestoreResult, error) {
	failure := r.proc.failure()
	r.mu.Lock()
	defer r.mu.Unlock()
	var result RestoreResult
	if r.opts.KeepGoing {
		result.Errors = r.errors
	}
	// pg_restore counts its errors in its last words; whoever dies of one has none.
	wentOn := failure != nil && r.ignored > 0 && r.proc.state.ExitCode() == 1
	switch {
	case readErr != nil:
		return result, fmt.Errorf("read archive: %w", readErr)
	case failure != nil && ctx.Err() != nil:
		cause := context.Cause(ctx)
		return result, failCause(ErrRestore, "pg_restore stopped: "+cause.Error(), cause)
	case wentOn && r.parallel && r.opts.KeepGoing:
		// With -j it counts some errors twice. Messages of two processes may have run
		// into each other, but none may look like no error.
		if len(r.errors) == 0 {
			result.Errors = append(result.Errors, "pg_restore counted errors and named none; see its log")
		}
		return result, nil
	case wentOn && (r.opts.KeepGoing || len(r.errors) == 0) && r.ignored == len(r.errors)+r.benign:
		return result, nil
	case len(r.errors) > 0:
		return result, failCause(ErrRestore, "pg_restore: "+r.errors[0], failure)
	case failure != nil:
		return result, failCause(ErrRestore, failure.Error(), failure)
	}
	return result, nil
}
