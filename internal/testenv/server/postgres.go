package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Postgres is a throwaway PostgreSQL cluster on a loopback port. Its superuser
// signs in with a password (SCRAM). It does not fsync.
type Postgres struct {
	Host     string
	Port     int
	User     string
	Password string
	Dir      string // the data directory
	BinDir   string // of the programs that run it
	LogFile  string

	home   *Home
	socket string
	proc   *process
}

// PostgresOptions configure a cluster.
type PostgresOptions struct {
	// Major is one of Majors; 0 stands for the newest that the machine has.
	Major int
	// Config is appended to postgresql.conf, in the order of the keys.
	Config map[string]string
	// HBA lines come before the cluster's own in pg_hba.conf.
	HBA []string
	// InitDB holds further arguments for initdb.
	InitDB []string
	// Extensions are files of extensions that the server gets beside those of the machine, by
	// their names. It then runs from a copy of the programs.
	Extensions map[string]string
}

// StartPostgres creates and starts a cluster.
func (h *Home) StartPostgres(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	bin, err := h.postgresPrograms(opts.Major)
	if err == nil && len(opts.Extensions) > 0 {
		bin, err = h.extended(bin, opts.Extensions)
	}
	if err != nil {
		return nil, err
	}
	base, err := h.mkdir("postgres")
	if err != nil {
		return nil, err
	}
	pg := &Postgres{
		Host: "127.0.0.1", User: "postgres", Password: rand.Text(),
		Dir: filepath.Join(base, "data"), BinDir: bin,
		LogFile: filepath.Join(base, "log"), home: h, socket: base,
	}
	if err := pg.init(ctx, base, opts); err != nil {
		return nil, err
	}
	pg.proc, err = h.startReady(ctx, func() (command, error) {
		pg.Port, err = FreePort()
		return pg.command(), err
	}, pg.ready)
	if err != nil {
		return nil, err
	}
	return pg, nil
}

func (h *Home) postgresPrograms(major int) (bin string, err error) {
	if major != 0 {
		return h.majorBin(major)
	}
	initdb, err := Find("initdb")
	if err != nil {
		return "", err
	}
	initdb, err = filepath.EvalSymlinks(initdb)
	return filepath.Dir(initdb), err
}

func (pg *Postgres) init(ctx context.Context, base string, opts PostgresOptions) error {
	pwfile := filepath.Join(base, "pw")
	if err := pg.home.writeFile(pwfile, pg.Password+"\n"); err != nil {
		return err
	}
	args := append([]string{
		"-D", pg.Dir, "-U", pg.User, "--pwfile", pwfile, "--auth", "scram-sha-256",
		"-E", "UTF8", "--locale", "C.UTF-8", "--no-sync",
	}, opts.InitDB...)
	cmd := exec.CommandContext(ctx, filepath.Join(pg.BinDir, "initdb"), args...)
	cmd.Dir = base
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" + base}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: pg.home.cred}
	if err := run(cmd); err != nil {
		return err
	}
	var conf strings.Builder
	conf.WriteString(`
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
max_wal_size = 2GB
log_min_messages = warning
`)
	keys := make([]string, 0, len(opts.Config))
	for key := range opts.Config {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		fmt.Fprintf(&conf, "%s = '%s'\n", key, strings.ReplaceAll(opts.Config[key], "'", "''"))
	}
	file, err := os.OpenFile(filepath.Join(pg.Dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(conf.String())
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	hba := strings.Join(opts.HBA, "\n") + `
local all all scram-sha-256
host  all all 127.0.0.1/32 scram-sha-256
host  replication all 127.0.0.1/32 scram-sha-256
`
	return pg.home.writeFile(filepath.Join(pg.Dir, "pg_hba.conf"), hba)
}

// run runs a short program and puts its output into the error. Pdeathsig comes
// with Start, so that it does not outlive us.
func run(cmd *exec.Cmd) error {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	name := filepath.Base(cmd.Path)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := Start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, strings.TrimSpace(out.String()))
	}
	return nil
}

func (pg *Postgres) command() command {
	return command{
		path: filepath.Join(pg.BinDir, "postgres"),
		args: []string{"-D", pg.Dir, "-p", fmt.Sprint(pg.Port), "-k", pg.socket},
		dir:  pg.socket,
		log:  pg.LogFile,
		// Immediate shutdown: the postmaster ends its own children. Killing
		// it would leave a busy backend running until it looks up.
		quit: syscall.SIGQUIT,
	}
}

func (pg *Postgres) ready(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, pg.URL("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// URL is the connection string of a database, password included.
func (pg *Postgres) URL(db string) string { return pg.URLAt(pg.Addr(), db) }

// URLAt is URL with another address, a proxy's or a pooler's.
func (pg *Postgres) URLAt(address, db string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(pg.User, pg.Password), Host: address,
		Path: "/" + db, RawQuery: "sslmode=prefer",
	}
	return u.String()
}

// Addr is host:port.
func (pg *Postgres) Addr() string { return addr(pg.Port) }

// SocketDir is the directory of the cluster's Unix socket.
func (pg *Postgres) SocketDir() string { return pg.socket }

// Exec runs SQL, several statements if need be, in a database.
func (pg *Postgres) Exec(ctx context.Context, db, sql string) error {
	conn, err := pgx.Connect(ctx, pg.URL(db))
	if err != nil {
		return fmt.Errorf("connect to database %s: %w", db, err)
	}
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

// Stop ends the cluster in order (fast shutdown).
func (pg *Postgres) Stop() error { return pg.end(syscall.SIGINT) }

// StopImmediate ends the cluster as a crash would: sessions are cut and the
// next start recovers.
func (pg *Postgres) StopImmediate() error { return pg.end(syscall.SIGQUIT) }

func (pg *Postgres) end(sig syscall.Signal) error {
	err := pg.proc.end(sig)
	pg.home.forget(pg.proc)
	return err
}

// Start starts a stopped cluster on its old port.
func (pg *Postgres) Start(ctx context.Context) error {
	if pg.proc.alive() {
		return nil
	}
	p, err := pg.home.startReady(ctx, func() (command, error) { return pg.command(), nil }, pg.ready)
	if err != nil {
		return err
	}
	pg.proc = p
	return nil
}

// Running reports whether the cluster's server process is there.
func (pg *Postgres) Running() bool { return pg.proc.alive() }

// LogSince is the end of the server's log from an offset on; LogSize is the
// offset of its end.
func (pg *Postgres) LogSince(offset int64) string { return logTail(pg.LogFile, offset) }

// LogSize is where the server's log ends now.
func (pg *Postgres) LogSize() int64 { return logSize(pg.LogFile) }

// DatabaseSize is a database's size on disk in bytes.
func (pg *Postgres) DatabaseSize(ctx context.Context, db string) (int64, error) {
	conn, err := pgx.Connect(ctx, pg.URL("postgres"))
	if err != nil {
		return 0, err
	}
	var n int64
	err = conn.QueryRow(ctx, "SELECT pg_database_size($1)", db).Scan(&n)
	return n, errors.Join(err, conn.Close(ctx))
}
