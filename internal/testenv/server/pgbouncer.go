package server

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PgBouncer is a connection pooler in front of a cluster. It knows the
// cluster's superuser and every database.
type PgBouncer struct {
	Addr    string // host:port
	LogFile string

	proc *process
}

// PoolMode is PgBouncer's pool_mode.
type PoolMode string

// The modes that matter: only session mode keeps a client on one backend.
const (
	PoolSession     PoolMode = "session"
	PoolTransaction PoolMode = "transaction"
)

// StartPgBouncer starts PgBouncer in front of pg.
func (h *Home) StartPgBouncer(ctx context.Context, pg *Postgres, mode PoolMode) (*PgBouncer, error) {
	path, err := h.executable("pgbouncer")
	if err != nil {
		return nil, err
	}
	dir, err := h.mkdir("pgbouncer")
	if err != nil {
		return nil, err
	}
	users := filepath.Join(dir, "users")
	if err := h.writeFile(users, fmt.Sprintf("%q %q\n", pg.User, pg.Password)); err != nil {
		return nil, err
	}
	b := &PgBouncer{LogFile: filepath.Join(dir, "log")}
	ini := filepath.Join(dir, "pgbouncer.ini")
	b.proc, err = h.startReady(ctx, func() (command, error) {
		port, err := FreePort()
		if err != nil {
			return command{}, err
		}
		b.Addr = addr(port)
		// Ignoring start-up parameters is what people configure to make
		// clients work at all, pg_dump's among them.
		text := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = %s
ignore_startup_parameters = extra_float_digits,options
`, pg.Host, pg.Port, port, users, mode)
		return command{
			path: path, args: []string{ini}, dir: dir, log: b.LogFile, quit: syscall.SIGKILL,
		}, h.writeFile(ini, text)
	}, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, pg.URLAt(b.Addr, "postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
	return b, err
}
