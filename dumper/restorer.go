package dumper

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
)

// Restorer runs pg_restore on one target, as often as need be and from several goroutines
// at once. The server was asked for its version when it was opened.
type Restorer struct {
	conn      Conn
	tools     Tools
	opts      RestoreOptions
	args      []string
	oldServer bool
}

// OpenRestorer checks the options and connects to the target once.
func OpenRestorer(ctx context.Context, c Conn, t Tools, opts RestoreOptions) (*Restorer, error) {
	args, err := opts.args()
	if err != nil {
		return nil, err
	}
	c, serverMajor, err := restoreServer(ctx, c, opts)
	if err != nil {
		return nil, err
	}
	r := &Restorer{conn: c, tools: t, opts: opts, args: args}
	// A pg_restore of 17 or later sends SET transaction_timeout, which an older
	// server refuses; -e would end there. Its errors are watched instead.
	r.oldServer = t.Major >= 17 && serverMajor < 17
	if !opts.KeepGoing && !r.oldServer {
		r.args = append([]string{"--exit-on-error"}, r.args...)
	}
	if r.oldServer && (hasOption(opts.Args, "single-transaction") || hasOption(opts.Args, "transaction-size")) {
		return nil, fail(ErrUsage, fmt.Sprintf("pg_restore %d cannot restore in one transaction into a server of version %d: it sends SET transaction_timeout, which that server refuses", t.Major, serverMajor))
	}
	return r, nil
}

// Run is Restore without asking the target for its version again.
func (r *Restorer) Run(ctx context.Context, archive io.Reader) (RestoreResult, error) {
	run := &restore{opts: r.opts, oldServer: r.oldServer}
	return run.run(ctx, r.conn, r.tools, archive, r.args)
}

// RunJobs is Run for a small archive, one without data, with several sessions at once
// (pg_restore -j). That wants a file, which is one in memory: where the system has none,
// and where the errors of a newer pg_restore have to be told apart, it is Run.
func (r *Restorer) RunJobs(ctx context.Context, archive []byte, jobs int) (RestoreResult, error) {
	if jobs <= 1 || r.oldServer {
		return r.Run(ctx, bytes.NewReader(archive))
	}
	file, err := openMemFile()
	if err != nil {
		return RestoreResult{}, fmt.Errorf("memory file for pg_restore: %w", err)
	}
	if file == nil {
		return r.Run(ctx, bytes.NewReader(archive))
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Write(archive); err != nil {
		return RestoreResult{}, fmt.Errorf("memory file for pg_restore: %w", err)
	}
	conn, err := newChildConn(r.conn, os.Environ())
	if err != nil {
		return RestoreResult{}, err
	}
	run := &restore{opts: r.opts, oldServer: r.oldServer, parallel: true}
	// Each of its processes opens the path anew, and so has a position of its own.
	path := fmt.Sprintf("/proc/self/fd/%d", firstInherited+len(conn.files))
	// Not verbose: what its processes are at would come mixed. An error shows its command.
	args := append([]string{"--jobs=" + strconv.Itoa(jobs)}, r.args...)
	if err := run.start(ctx, conn, r.tools, processOptions{args: append(args, path), files: []*os.File{file}}); err != nil {
		return RestoreResult{}, err
	}
	<-run.proc.done
	return run.verdict(ctx, nil)
}

// restoreServer finds the database to connect to and the server's major version.
func restoreServer(ctx context.Context, c Conn, opts RestoreOptions) (Conn, int, error) {
	c, conn, err := connectTarget(ctx, c, opts)
	if err != nil {
		return c, 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var num string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('server_version_num')").Scan(&num); err != nil {
		return c, 0, failCause(ErrConnect, "ask the target for its version: "+oneLine(err.Error()), err)
	}
	n, err := strconv.Atoi(num)
	if err != nil {
		return c, 0, failCause(ErrConnect, "the target says its version is "+clip(num, 20), err)
	}
	return c, n / 10000, nil
}
