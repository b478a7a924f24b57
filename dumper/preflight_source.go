package dumper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SourceOptions say how to look at a source.
type SourceOptions struct {
	AllowPooler bool
	// DumpArgs are the pg_dump options of the dump to come: missing rights matter for
	// what these select alone.
	DumpArgs []string
	Wait     time.Duration // for a sleeping database; 0 means a minute
	Log      *slog.Logger
}

// Source is what the preflight learned about a server and database.
type Source struct {
	ServerVersion    string
	ServerMajor      int
	Database         string
	Encoding         string
	SystemIdentifier string // "" when not readable
	InRecovery       bool
	TableBytes       int64         // heap + toast of tables and large objects, without indexes: basis of the size estimate
	Tables           []SourceTable // what TableBytes is the sum of, with LargeObjectBytes
	LargeObjectBytes int64
	Snapshot         string // exported, valid until Release; "" when it could not be had
	Warnings         []string

	conn   Conn
	holder *pgx.Conn // the session that exports the snapshot
}

// SourceTable is the size of one table as the server guesses or knows it, for
// those who show how far a dump has come.
type SourceTable struct {
	Schema, Name string
	Rows         int64 // the planner's estimate, -1 where there is none
	Bytes        int64 // heap and toast, without indexes
}

// Conn is the connection string pinned to the server that was inspected: with
// several hosts, or several addresses behind one name, pg_dump would else look
// for the snapshot on another server.
func (s *Source) Conn() Conn { return s.conn }

// Release ends the exported snapshot's session; idempotent.
func (s *Source) Release(ctx context.Context) error {
	if s == nil || s.holder == nil {
		return nil
	}
	holder := s.holder
	s.holder = nil
	if err := holder.Close(ctx); err != nil {
		return fmt.Errorf("end the snapshot's session: %w", err)
	}
	return nil
}

// InspectSource is the preflight of a dump: connection (waits up to a minute for a sleeping
// database), pooler, version, rights, row security, recovery; exports a snapshot when it can.
// The caller releases it.
func InspectSource(ctx context.Context, c Conn, opts SourceOptions) (*Source, error) {
	args, err := dumpOptions.parse(opts.DumpArgs)
	if err != nil {
		return nil, err
	}
	if !opts.AllowPooler {
		if err := checkPoolerName(c); err != nil {
			return nil, err
		}
	}
	log := logger(opts.Log)
	conn, err := c.connectWaiting(ctx, opts.Wait, log)
	if err != nil {
		return nil, err
	}
	s := &Source{conn: c.pinned(conn), holder: conn}
	if err := s.inspect(ctx, opts, args, log); err != nil {
		_ = s.Release(context.WithoutCancel(ctx))
		return nil, err
	}
	return s, nil
}

func (s *Source) inspect(ctx context.Context, opts SourceOptions, args []option, log *slog.Logger) error {
	if !opts.AllowPooler {
		warning, err := provePooler(ctx, s.conn, s.holder, log)
		if err != nil {
			return err
		}
		if warning != "" {
			s.Warnings = append(s.Warnings, warning)
		}
	}
	steps := []func(context.Context, pgx.Tx) error{
		s.identify,
		func(ctx context.Context, tx pgx.Tx) error { return s.rights(ctx, tx, args) },
		s.recovery,
	}
	if err := s.readOnly(ctx, args, steps...); err != nil {
		return s.inspectError(ctx, err)
	}
	// A busy lock or an unreadable file must not cost the dump: the estimate is one.
	if err := s.readOnly(ctx, nil, s.size); err != nil {
		if ctx.Err() != nil || s.holder.IsClosed() {
			return s.inspectError(ctx, err)
		}
		if err := s.readOnly(ctx, nil, s.sizeFromPages); err != nil {
			return s.inspectError(ctx, err)
		}
	}
	return s.export(ctx)
}

func (s *Source) inspectError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return failCause(ErrConnect, fmt.Sprintf("inspect %s: %v", s.conn, cause), cause)
	}
	if errors.Is(err, ErrDump) || errors.Is(err, ErrUsage) {
		return err
	}
	return failCause(ErrConnect, fmt.Sprintf("inspect %s: %s", s.conn, oneLine(err.Error())), err)
}

// timeouts off, for this transaction alone: behind a pooler a session's settings
// would stay with somebody else's.
func quietTransaction(ctx context.Context, tx pgx.Tx, major int) error {
	settings := []string{"statement_timeout", "idle_in_transaction_session_timeout"}
	if major >= 17 {
		settings = append(settings, "transaction_timeout")
	}
	for _, name := range settings {
		if _, err := tx.Exec(ctx, "SET LOCAL "+name+" = 0"); err != nil {
			return err
		}
	}
	// Waiting for a lock is the dump's business, with the user's own limit.
	for _, stmt := range []string{"SET LOCAL lock_timeout = '5s'", "SET LOCAL search_path = pg_catalog"} {
		if _, err := tx.Exec(ctx, stmt); err != nil {
			return err
		}
	}
	return nil
}

func serverMajor(conn *pgx.Conn) int { return MajorOf(conn.PgConn().ParameterStatus("server_version")) }

// MajorOf is the major version that the text of a version begins with, as servers
// and archives have it ("15.18 (Debian …)"); 0 where there is none.
func MajorOf(version string) (major int) {
	_, _ = fmt.Sscanf(version, "%d", &major)
	return major
}

// readOnly runs steps in one read-only transaction, as the role the dump will take.
func (s *Source) readOnly(ctx context.Context, args []option, steps ...func(context.Context, pgx.Tx) error) error {
	tx, err := s.holder.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := quietTransaction(ctx, tx, serverMajor(s.holder)); err != nil {
		return err
	}
	for _, a := range args {
		if a.name != "role" {
			continue
		}
		if _, err := tx.Exec(ctx, "SET LOCAL ROLE "+pgx.Identifier{a.value}.Sanitize()); err != nil {
			return failCause(ErrDump, fmt.Sprintf("pg_dump --role=%s: %s", a.value, oneLine(err.Error())), err)
		}
	}
	for _, step := range steps {
		if err := step(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) identify(ctx context.Context, tx pgx.Tx) error {
	var num int
	err := tx.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('server_version_num')::int,
		current_database(), current_setting('server_encoding'), pg_is_in_recovery()`).
		Scan(&s.ServerVersion, &num, &s.Database, &s.Encoding, &s.InRecovery)
	if err != nil {
		return err
	}
	s.ServerMajor = num / 10000
	var may bool
	err = tx.QueryRow(ctx, `SELECT coalesce((SELECT has_function_privilege(p.oid, 'EXECUTE') FROM pg_proc p
		WHERE p.proname = 'pg_control_system' AND p.pronamespace = 'pg_catalog'::regnamespace), false)`).Scan(&may)
	if err != nil || !may {
		return err
	}
	return tx.QueryRow(ctx, `SELECT system_identifier::text FROM pg_control_system()`).Scan(&s.SystemIdentifier)
}

// dumpedRelations are the relations whose contents pg_dump reads or locks:
// extensions recreate their members themselves.
const dumpedRelations = `FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
	AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
	AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`

// rights finds the tables pg_dump would fail on, and names them before it starts.
func (s *Source) rights(ctx context.Context, tx pgx.Tx, args []option) error {
	dumped, err := chooseDumped(ctx, tx, args)
	if err != nil {
		return err
	}
	finding, err := s.unreadable(ctx, tx, dumped)
	if err != nil {
		return err
	}
	filters := true
	for _, a := range args {
		if a.name == "enable-row-security" {
			filters = false
			s.Warnings = append(s.Warnings, "--enable-row-security: the archive holds only the rows that the policies show to "+s.conn.User())
		}
	}
	if finding == "" && filters {
		hidden, n, err := namesOf(ctx, tx, dumpedRelations+dumped.rows()+` AND c.relrowsecurity AND row_security_active(c.oid)`)
		if err != nil {
			return err
		}
		if n > 0 {
			finding = fmt.Sprintf("row security would hide rows of %s from %s: %s (dump as their owner or as a role with BYPASSRLS, or leave them out with -- -T)", counted(n, "table"), s.conn.User(), firstFew(hidden, 5))
		}
	}
	switch {
	case finding == "":
		return nil
	case dumped.doubt != "":
		s.Warnings = append(s.Warnings, "unless "+dumped.doubt+" leaves them out, pg_dump will fail: "+finding)
		return nil
	}
	return fail(ErrDump, "pg_dump would fail: "+finding)
}

func (s *Source) unreadable(ctx context.Context, tx pgx.Tx, dumped dumpChoice) (string, error) {
	names, n, err := namesOf(ctx, tx, dumpedRelations+dumped.relations()+` AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'))`)
	if err != nil {
		return "", err
	}
	if n == 0 && dumped.largeObjects {
		err := tx.QueryRow(ctx, `SELECT count(*) FROM pg_largeobject_metadata l WHERE `+unreadableObjects(s.ServerMajor)).Scan(&n)
		if err != nil || n == 0 {
			return "", err
		}
		return fmt.Sprintf("%s cannot read %s (GRANT SELECT ON LARGE OBJECT, dump as their owner, or leave all of them out with -- --no-blobs)", s.conn.User(), counted(n, "large object")), nil
	}
	if n == 0 {
		return "", nil
	}
	return fmt.Sprintf("%s cannot read %d of the tables and sequences: %s (GRANT SELECT on them and USAGE on their schemas, pg_read_all_data for everything, or leave them out with -- -T)", s.conn.User(), n, firstFew(names, 5)), nil
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// namesOf counts what a FROM clause yields and lists the first few.
func namesOf(ctx context.Context, tx pgx.Tx, from string) (names []string, n int, err error) {
	rows, err := tx.Query(ctx, "SELECT format('%I.%I', n.nspname, c.relname), count(*) OVER () "+from+" ORDER BY 1 LIMIT 6")
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name, &n); err != nil {
			return nil, 0, err
		}
		names = append(names, name)
	}
	return names, n, rows.Err()
}

func (s *Source) recovery(ctx context.Context, tx pgx.Tx) error {
	if !s.InRecovery {
		return nil
	}
	var feedback, delay string
	err := tx.QueryRow(ctx, `SELECT current_setting('hot_standby_feedback'), current_setting('max_standby_streaming_delay')`).Scan(&feedback, &delay)
	if err != nil {
		return err
	}
	if feedback == "off" && delay != "-1" {
		s.Warnings = append(s.Warnings, fmt.Sprintf("the source is a standby that cancels queries standing in replication's way after %s: a long dump may fail with a recovery conflict (set hot_standby_feedback = on or max_standby_streaming_delay = -1 there, or dump the primary)", delay))
	}
	return nil
}

func (s *Source) size(ctx context.Context, tx pgx.Tx) error {
	return s.tables(ctx, tx, `pg_table_size(c.oid)`)
}

// sizeFromPages asks no file and takes no lock.
func (s *Source) sizeFromPages(ctx context.Context, tx pgx.Tx) error {
	return s.tables(ctx, tx, `(greatest(c.relpages, 0)::bigint + coalesce(greatest(t.relpages, 0), 0)) * current_setting('block_size')::bigint`)
}

// tables fills in the sizes, which the SQL expression bytes computes of pg_class c and its toast t.
func (s *Source) tables(ctx context.Context, tx pgx.Tx, bytes string) error {
	rows, err := tx.Query(ctx, `SELECT c.oid = 'pg_largeobject'::regclass, n.nspname, c.relname, c.reltuples::bigint, `+bytes+`
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
		WHERE c.relkind = 'r' AND c.relpersistence <> 't'
		AND (c.oid = 'pg_largeobject'::regclass OR c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace))`)
	if err != nil {
		return err
	}
	defer rows.Close()
	s.Tables, s.TableBytes, s.LargeObjectBytes = nil, 0, 0
	for rows.Next() {
		var t SourceTable
		var objects bool
		var size *int64 // NULL: dropped meanwhile
		if err := rows.Scan(&objects, &t.Schema, &t.Name, &t.Rows, &size); err != nil {
			return err
		}
		if size == nil {
			continue
		}
		t.Bytes = *size
		s.TableBytes += t.Bytes
		if objects {
			s.LargeObjectBytes = t.Bytes
		} else {
			s.Tables = append(s.Tables, t)
		}
	}
	return rows.Err()
}

// export opens the transaction that holds the snapshot. Not having it costs no
// correctness: pg_dump then takes its own.
func (s *Source) export(ctx context.Context) error {
	tx, err := s.holder.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return s.inspectError(ctx, err)
	}
	if err := quietTransaction(ctx, tx, s.ServerMajor); err != nil {
		return s.inspectError(ctx, err)
	}
	err = tx.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&s.Snapshot)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		s.Snapshot = ""
		s.Warnings = append(s.Warnings, "the server exports no snapshot: "+oneLine(pgErr.Message))
		if err := tx.Rollback(ctx); err != nil {
			return s.inspectError(ctx, err)
		}
		return nil
	}
	if err != nil {
		return s.inspectError(ctx, err)
	}
	return nil
}

// pinned is c with the one host and address that conn reached.
func (c Conn) pinned(conn *pgx.Conn) Conn {
	addr, ok := conn.PgConn().Conn().RemoteAddr().(*net.TCPAddr)
	if !ok {
		if dir := conn.Config().Host; len(c.endpoints()) > 1 && strings.HasPrefix(dir, "/") {
			return c.with("host", dir).with("port", fmt.Sprint(conn.Config().Port)).with("hostaddr", "")
		}
		return c
	}
	port := fmt.Sprint(addr.Port)
	pinned := c.with("port", port)
	host := reachedHost(c, conn, addr.IP, port)
	if host == "" || addr.Zone != "" {
		return c
	}
	if net.ParseIP(host) != nil { // an address already; hostaddr beside it would change the password file's key
		return pinned.with("host", host).with("hostaddr", "")
	}
	return pinned.with("host", host).with("hostaddr", addr.IP.String())
}

// reachedHost is the name under which the reached address stands in the string:
// certificates and password files go by it.
func reachedHost(c Conn, conn *pgx.Conn, ip net.IP, port string) string {
	hosts, _ := conn.PgConn().CustomData()[lookedUp].(map[string][]string)
	for _, e := range c.endpoints() {
		if e.port != port {
			continue
		}
		for _, a := range hosts[e.host] {
			if ip.Equal(net.ParseIP(a)) {
				return e.host
			}
		}
	}
	return ""
}
