package dumper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// maxGlobals bounds what is held in memory; a role takes a few hundred bytes.
const maxGlobals = 64 << 20

// GlobalsOptions choose what DumpGlobals returns.
type GlobalsOptions struct {
	// RolePasswords includes the roles' password hashes, which superusers and
	// members of pg_read_all_data may read. Whoever asks for them keeps them
	// encrypted.
	RolePasswords bool
}

// DumpGlobals returns roles and tablespaces as SQL. ErrGlobals: the connecting
// role may not read them.
func DumpGlobals(ctx context.Context, c Conn, t Tools, o GlobalsOptions) ([]byte, error) {
	conn, err := newChildConn(c, os.Environ())
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start pg_dumpall: %w", err)
	}
	defer func() { _ = r.Close() }()
	args := []string{"--globals-only", "--no-password"}
	if !o.RolePasswords {
		args = append(args, "--no-role-passwords")
	}
	// Without it pg_dumpall connects to postgres or template1, which managed
	// services may deny. libpq would take a name with = for a connection string.
	if db := c.Database(); db != "" && !strings.ContainsAny(db, "=:") {
		args = append(args, "--database="+db)
	}
	proc, err := startProcess(ctx, "pg_dumpall", conn, processOptions{path: filepath.Join(t.Dir, "pg_dumpall"), args: args, stdout: w})
	if err != nil {
		return nil, failCause(ErrDump, err.Error(), err)
	}
	sql, readErr := io.ReadAll(io.LimitReader(r, maxGlobals+1))
	if readErr != nil || len(sql) > maxGlobals {
		proc.stop()
	}
	<-proc.done
	switch failure := proc.failure(); {
	case len(sql) > maxGlobals:
		return nil, fail(ErrDump, "pg_dumpall: more than 64 MiB of roles and tablespaces")
	case failure != nil && ctx.Err() != nil:
		return nil, failCause(ErrDump, "pg_dumpall stopped: "+context.Cause(ctx).Error(), context.Cause(ctx))
	case failure != nil && proc.state.ExitCode() == 1 && globalsDenied(ctx, c, o, failure):
		return nil, deniedGlobals(failure)
	case failure != nil:
		return nil, failCause(ErrDump, failure.Error(), failure)
	case readErr != nil:
		return nil, failCause(ErrDump, "read from pg_dumpall: "+readErr.Error(), readErr)
	}
	return sql, nil
}

func deniedGlobals(cause error) error {
	return &failure{kinds: []error{ErrGlobals, ErrDump}, msg: cause.Error(), cause: cause}
}

// globalsDenied tells a lack of rights from other failures. The server's
// messages come in its own language; SQLSTATE does not.
func globalsDenied(ctx context.Context, c Conn, o GlobalsOptions, failure error) bool {
	if strings.Contains(failure.Error(), "permission denied") {
		return true
	}
	conn, err := c.Connect(ctx)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	roles := "pg_roles"
	if o.RolePasswords {
		roles = "pg_authid"
	}
	for _, catalogue := range []string{roles, "pg_auth_members", "pg_tablespace", "pg_db_role_setting", "pg_shseclabel", "pg_parameter_acl"} {
		_, err := conn.Exec(ctx, "SELECT FROM pg_catalog."+catalogue+" LIMIT 0")
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && pgErr.Code == "42501" {
			return true
		}
	}
	return false
}

// GlobalsResult tells what RunGlobals did.
type GlobalsResult struct {
	Executed int
	Skipped  []string // one line each: what existed already, or is the provider's own
}

// RunGlobals executes the SQL of DumpGlobals through pgx, never psql.
//
// Roles and tablespaces that exist are left as they are, their attributes and
// settings too; the roles of managed services are not replayed. A psql command
// other than pg_dumpall's own \restrict pair is refused before anything runs.
func RunGlobals(ctx context.Context, c Conn, r io.Reader) (GlobalsResult, error) {
	script, err := io.ReadAll(io.LimitReader(r, maxGlobals+1))
	if err != nil {
		return GlobalsResult{}, fmt.Errorf("read globals: %w", err)
	}
	if len(script) > maxGlobals {
		return GlobalsResult{}, fail(ErrRestore, "globals: more than 64 MiB")
	}
	stmts, err := splitSQL(string(script))
	if err != nil {
		return GlobalsResult{}, failCause(ErrRestore, "globals: "+err.Error()+"; nothing was run", err)
	}
	conn, err := c.connectWaiting(ctx, 0, logger(nil))
	if err != nil {
		return GlobalsResult{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	run := &globalsRun{conn: conn}
	if err := run.look(ctx); err != nil {
		return run.result, failCause(ErrConnect, "globals: "+oneLine(err.Error()), err)
	}
	for _, stmt := range stmts {
		if err := run.statement(ctx, stmt); err != nil {
			return run.result, failCause(ErrRestore, fmt.Sprintf("globals: %s: %s", clip(oneLine(hidePassword(stmt)), 120), oneLine(globalsReason(err))), err)
		}
	}
	if err := run.commit(ctx); err != nil {
		return run.result, failCause(ErrRestore, "globals: "+oneLine(err.Error()), err)
	}
	return run.result, nil
}

// rolePassword is how pg_dumpall writes a role's password hash.
var rolePassword = regexp.MustCompile(` PASSWORD '(?:[^']|'')*'`)

// hidePassword makes a statement fit for a message.
func hidePassword(stmt string) string { return rolePassword.ReplaceAllString(stmt, " PASSWORD '…'") }

func globalsReason(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		if pgErr.Detail != "" {
			return pgErr.Message + " (" + pgErr.Detail + ")"
		}
		return pgErr.Message
	}
	return err.Error()
}

// globalsRun executes statements in as few transactions as CREATE TABLESPACE, which
// wants none, allows: a role without its attributes would count as existing next time.
type globalsRun struct {
	conn   *pgx.Conn
	tx     pgx.Tx
	inTx   int // statements of the open transaction
	result GlobalsResult

	super       bool
	roles       map[string]bool // those that existed before
	tablespaces map[string]bool
}

func (g *globalsRun) look(ctx context.Context) error {
	if err := g.conn.QueryRow(ctx, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").Scan(&g.super); err != nil {
		return err
	}
	for _, set := range []struct {
		query string
		into  *map[string]bool
	}{
		{"SELECT rolname::text FROM pg_catalog.pg_roles", &g.roles},
		{"SELECT spcname::text FROM pg_catalog.pg_tablespace", &g.tablespaces},
	} {
		rows, err := g.conn.Query(ctx, set.query)
		if err != nil {
			return err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		*set.into = map[string]bool{}
		for _, n := range names {
			(*set.into)[n] = true
		}
	}
	return nil
}

func (g *globalsRun) statement(ctx context.Context, stmt string) error {
	toks := tokenize(stmt)
	if why := g.skip(toks); why != "" {
		add(&g.result.Skipped, why)
		return nil
	}
	if len(toks) > 1 && toks[0].is("create") && toks[1].is("tablespace") {
		if err := g.commit(ctx); err != nil {
			return err
		}
		// The extended protocol takes one statement only, whatever the splitter thought.
		if _, err := g.conn.Exec(ctx, stmt); err != nil {
			return err
		}
		g.result.Executed++
		return nil
	}
	if g.tx == nil {
		tx, err := g.conn.Begin(ctx)
		if err != nil {
			return err
		}
		g.tx = tx
	}
	if _, err := g.tx.Exec(ctx, g.adapt(stmt, toks)); err != nil {
		_ = g.tx.Rollback(context.WithoutCancel(ctx))
		return err
	}
	g.inTx++
	return nil
}

func (g *globalsRun) commit(ctx context.Context) error {
	if g.tx == nil {
		return nil
	}
	tx := g.tx
	g.tx = nil
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	g.result.Executed += g.inTx
	g.inTx = 0
	return nil
}

// providerRole matches what managed services keep for themselves.
var providerRole = regexp.MustCompile(`^(pg_.*|cloud_admin|neon_superuser|neon_service|rdsadmin|rds_.*|rdsrepladmin|rdstopmgr|azure_.*|azuresu|cloudsql.*|alloydb.*|supabase_.*)$`)

// skip says why a statement is not run, "" if it is.
func (g *globalsRun) skip(toks []token) string {
	if len(toks) < 3 {
		return ""
	}
	name := toks[2].text
	switch verb, object := toks[0], toks[1]; {
	case (verb.is("create") || verb.is("alter")) && (object.is("role") || object.is("user")), verb.is("comment") && object.is("on") && name == "role" && len(toks) > 3:
		if verb.is("comment") {
			name = toks[3].text
		}
		switch {
		case providerRole.MatchString(name):
			return "role " + name + " belongs to the provider"
		case g.roles[name]:
			return "role " + name + " exists"
		}
	case verb.is("create") && object.is("tablespace"), verb.is("alter") && object.is("tablespace"):
		if g.tablespaces[name] {
			return "tablespace " + name + " exists"
		}
	case verb.is("grant") && !slices.ContainsFunc(toks, func(t token) bool { return t.is("on") }):
		return g.skipMembership(toks)
	case verb.is("grant"), verb.is("revoke"):
		for i := range toks {
			if toks[i].is("on") && i+2 < len(toks) && toks[i+1].is("tablespace") && g.tablespaces[toks[i+2].text] {
				return "tablespace " + toks[i+2].text + " exists"
			}
		}
		for _, r := range granteesOf(toks) {
			if providerRole.MatchString(r) {
				return "role " + r + " belongs to the provider"
			}
		}
	}
	return ""
}

// skipMembership: GRANT role TO member. Between two roles that existed before, nothing changes hands.
func (g *globalsRun) skipMembership(toks []token) string {
	to := slices.IndexFunc(toks, func(t token) bool { return t.is("to") })
	if to < 2 || to+1 >= len(toks) {
		return ""
	}
	role, member := toks[1].text, toks[to+1].text
	switch {
	case providerRole.MatchString(member):
		return "role " + member + " belongs to the provider"
	case providerRole.MatchString(role) && !g.roles[role]:
		return "role " + role + " belongs to the provider"
	case g.roles[role] && g.roles[member]:
		return "roles " + role + " and " + member + " exist"
	}
	return ""
}

func granteesOf(toks []token) []string {
	for i := range toks {
		if (toks[i].is("to") || toks[i].is("from")) && i+1 < len(toks) {
			return []string{toks[i+1].text}
		}
	}
	return nil
}

var (
	// attributes whose very mention needs a superuser; a new role has none of them anyway.
	defaultAttributes = regexp.MustCompile(` (NOSUPERUSER|NOREPLICATION|NOBYPASSRLS)\b`)
	grantedBy         = regexp.MustCompile(` GRANTED BY ("(?:[^"]|"")*"|[a-z_][a-z0-9_$]*)$`)
)

// adapt words a statement for a role that is no superuser, as managed services
// give out, and for grantors that are not here.
func (g *globalsRun) adapt(stmt string, toks []token) string {
	switch {
	case len(toks) > 3 && toks[0].is("alter") && toks[1].is("role") && toks[3].is("with") && !g.super:
		head, attributes, ok := strings.Cut(stmt, " WITH ")
		if !ok || strings.Contains(toks[2].text, " WITH ") {
			return stmt
		}
		attributes = strings.TrimSpace(defaultAttributes.ReplaceAllString(" "+attributes, ""))
		return head + " WITH " + attributes
	case len(toks) > 3 && toks[0].is("grant"):
		m := grantedBy.FindStringSubmatch(stmt)
		if m == nil {
			return stmt
		}
		grantor := tokenize(m[1])
		if !g.super || len(grantor) != 1 || !g.roles[grantor[0].text] {
			return grantedBy.ReplaceAllString(stmt, "")
		}
	}
	return stmt
}
