// Package dumper runs PostgreSQL's client programs as streams.
package dumper

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

var errSkeleton = errors.New("skeleton")

// Sentinels; every error of this package that comes from source or target wraps one.
var (
	ErrConnInfo    = errors.New("connection string")              // usage: exit 2
	ErrUsage       = errors.New("refused option")                 // usage: exit 2
	ErrConnect     = errors.New("cannot connect")                 // exit 10
	ErrPooler      = errors.New("pooled endpoint")                // exit 10
	ErrVersion     = errors.New("client and server versions")     // exit 10
	ErrDump        = errors.New("pg_dump failed")                 // exit 10
	ErrRestore     = errors.New("pg_restore failed")              // exit 10
	ErrPreflight   = errors.New("target cannot take the archive") // exit 10
	ErrTargetInUse = errors.New("target database is not empty")   // exit 10
)

// Conn is a parsed connection string. It prints without its password.
type Conn struct{}

// ParseConn takes libpq's URI and keyword forms; "" means libpq's own environment.
func ParseConn(s string) (Conn, error)                        { return Conn{}, errSkeleton }
func (c Conn) String() string                                 { return "" }
func (c Conn) Host() string                                   { return "" } // first host, "" for a socket
func (c Conn) Database() string                               { return "" }
func (c Conn) User() string                                   { return "" }
func (c Conn) WithDatabase(name string) Conn                  { return c }
func (c Conn) PasswordTyped() bool                            { return false } // a password stands in the string itself
func (c Conn) Connect(ctx context.Context) (*pgx.Conn, error) { return nil, errSkeleton }

// Tools is one installed set of client programs.
type Tools struct {
	Dir     string
	Major   int
	Version string // "15.18 (Debian 15.18-0+deb12u1)"
}

// FindTools looks for every installed major; binDir, if set, is the only place looked at.
func FindTools(ctx context.Context, binDir string) ([]Tools, error) { return nil, errSkeleton }

// ChooseTools picks the server's own major or the next higher, ErrVersion if there is none.
func ChooseTools(found []Tools, serverMajor int) (Tools, error) { return Tools{}, errSkeleton }

type SourceOptions struct {
	AllowPooler bool
	Log         *slog.Logger
}

// Source is what the preflight learned about a server and database.
type Source struct {
	ServerVersion    string
	ServerMajor      int
	Database         string
	Encoding         string
	SystemIdentifier string // "" when not readable
	InRecovery       bool
	TableBytes       int64  // heap + toast of tables and large objects, without indexes: basis of the size estimate
	Snapshot         string // exported, valid until Release; "" when it could not be had
	Warnings         []string
}

// Release ends the exported snapshot's session.
func (s *Source) Release(ctx context.Context) error { return nil }

// InspectSource is the preflight of a dump: connection (waits up to a minute for a sleeping
// database), pooler, version, rights, row security, recovery; exports a snapshot when it can.
func InspectSource(ctx context.Context, c Conn, opts SourceOptions) (*Source, error) {
	return nil, errSkeleton
}

// CheckDumpArgs refuses the pg_dump options that would break the stream (ErrUsage).
func CheckDumpArgs(args []string) error { return errSkeleton }

// CheckRestoreArgs is the same for pg_restore.
func CheckRestoreArgs(args []string) error { return errSkeleton }

type DumpOptions struct {
	Snapshot string
	Args     []string // further pg_dump options, checked by CheckDumpArgs
	Log      *slog.Logger
}

// Dump is a running pg_dump. Read returns io.EOF only after it exited 0.
type Dump struct{}

// StartDump starts pg_dump -Fc. Ending ctx ends it: SIGTERM to the group, SIGKILL after 5 s.
func StartDump(ctx context.Context, c Conn, t Tools, opts DumpOptions) (*Dump, error) {
	return nil, errSkeleton
}
func (d *Dump) Read(p []byte) (int, error) { return 0, errSkeleton }

// Close ends pg_dump if it still runs and waits for it; idempotent.
func (d *Dump) Close() error { return errSkeleton }

type RestoreOptions struct {
	NoOwner, NoPrivileges, Clean, IfExists, Create, DataOnly, SchemaOnly bool
	Role                                                                 string
	Tables, Schemas                                                      []string
	KeepGoing                                                            bool
	Args                                                                 []string
	Log                                                                  *slog.Logger
}

// RestoreResult counts what KeepGoing let pass.
type RestoreResult struct {
	Errors []string // one line each: object and message
}

// Restore feeds archive to pg_restore. Any read error of archive but io.EOF kills pg_restore
// and is returned; success only when pg_restore exited 0 (transaction_timeout aside).
func Restore(ctx context.Context, c Conn, t Tools, archive io.Reader, opts RestoreOptions) (RestoreResult, error) {
	return RestoreResult{}, errSkeleton
}

// Lack is something the target needs and has not.
type Lack struct {
	Kind string // "owner", "grantee", "extension", "tablespace", "collation", "encoding"
	Name string
	Cure string // the flag or command that cures it
}

// Target is what the preflight learned about a restore's target.
type Target struct {
	ServerVersion string
	ServerMajor   int
	UserTables    int
	Lacks         []Lack
}

// InspectTarget is the preflight of a restore of head with opts.
func InspectTarget(ctx context.Context, c Conn, head *pgarchive.Head, opts RestoreOptions) (*Target, error) {
	return nil, errSkeleton
}

// DumpGlobals returns roles and tablespaces as SQL, without password hashes.
func DumpGlobals(ctx context.Context, c Conn, t Tools) ([]byte, error) { return nil, errSkeleton }

// GlobalsResult tells what RunGlobals did.
type GlobalsResult struct {
	Executed int
	Skipped  []string // one line each: what existed already
}

// RunGlobals executes the SQL of DumpGlobals through pgx, never psql.
func RunGlobals(ctx context.Context, c Conn, r io.Reader) (GlobalsResult, error) {
	return GlobalsResult{}, errSkeleton
}
