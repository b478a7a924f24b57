package dumper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// ScratchMark begins the comment of every database that OpenScratch makes: whoever finds
// one that was left over knows by it that nobody needs it.
const ScratchMark = "pgstow scratch database"

// ScratchOptions describe a database that is made to be dropped again.
type ScratchOptions struct {
	Name string
	// Purpose is one line behind the mark in the database's comment.
	Purpose string
	// Head is of the archive that the database is for: it gets that one's encoding and locale.
	Head *pgarchive.Head
	Log  *slog.Logger
}

// Scratch is a database of its own on a server that has others.
type Scratch struct {
	Conn          Conn // to the database
	Name          string
	ServerVersion string
	ServerMajor   int
	// OwnsTemplate: the role may alter what every database has from the beginning, such as
	// the extension plpgsql.
	OwnsTemplate bool

	server Conn // to a database beside it
	oid    uint32
}

const (
	// createWithin and dropWithin bound what goes on when the caller's context has ended.
	createWithin = 10 * time.Minute // it may wait for a checkpoint
	dropWithin   = 10 * time.Minute // of a large one
	comeBack     = 15 * time.Second // for a server that restarts
)

// ScratchServer finds a database of the server to issue CREATE DATABASE from: c's own, else
// postgres or template1. What it returns is pinned to the one server that answered. A role that
// may not create databases is refused.
func ScratchServer(ctx context.Context, c Conn, log *slog.Logger) (Conn, error) {
	c, conn, err := connectTarget(ctx, c, RestoreOptions{Create: true, Log: log})
	if err != nil {
		return c, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	c = c.pinned(conn)
	var may, standby bool
	err = conn.QueryRow(ctx, `SELECT rolcreatedb OR rolsuper, pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_roles WHERE rolname = current_user`).Scan(&may, &standby)
	switch {
	case err != nil:
		return c, targetError(ctx, c, err)
	case standby:
		return c, fail(ErrScratch, fmt.Sprintf("%s is a standby, which takes no writes; drill on a server of its own", c))
	case !may:
		return c, fail(ErrScratch, fmt.Sprintf("%s may not create databases on %s; GRANT it CREATEDB, or connect as a role that has it", c.User(), c))
	}
	return c, nil
}

// OpenScratch creates a database from template0 on a server that ScratchServer has found. It
// never takes one that exists. The caller drops it, with whatever error comes later.
//
// The end of ctx does not interrupt CREATE DATABASE: a database that nobody knows of would
// be left.
func OpenScratch(ctx context.Context, server Conn, o ScratchOptions) (*Scratch, error) {
	conn, err := server.connectWaiting(ctx, 0, logger(o.Log))
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), createWithin)
	defer cancel()
	defer func() { _ = conn.Close(within) }()
	s := &Scratch{
		Conn: server.WithDatabase(o.Name), Name: o.Name, server: server,
		ServerVersion: conn.PgConn().ParameterStatus("server_version"), ServerMajor: serverMajor(conn),
	}
	create, err := createScratch(o, s.ServerMajor)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(within, create); err != nil {
		return nil, s.refused(ctx, err)
	}
	if err := s.mark(within, conn, o); err != nil {
		return nil, errors.Join(s.failed("set up", err), s.Drop(ctx))
	}
	if err := context.Cause(ctx); err != nil {
		return nil, errors.Join(err, s.Drop(ctx))
	}
	return s, nil
}

// refused explains why CREATE DATABASE failed. Unless the server said so, it may have been
// done all the same.
func (s *Scratch) refused(ctx context.Context, err error) error {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return errors.Join(s.failed("create", err), s.Drop(ctx))
	}
	what := oneLine(pgErr.Message)
	switch pgErr.Code {
	case "42P04":
		what = "one of that name is there already; it was not touched, run the drill again for another name"
	case "22023", "42704": // invalid locale, unknown encoding
		what += "; generate the locale on the scratch server, or take a server that has it"
	case "53100":
		what += "; the scratch server's disk is full"
	}
	return failCause(ErrScratch, fmt.Sprintf("cannot create database %q on %s: %s", s.Name, s.server, what), err)
}

func (s *Scratch) failed(what string, err error) error {
	return failCause(ErrScratch, fmt.Sprintf("%s database %q on %s: %s", what, s.Name, s.server, oneLine(err.Error())), err)
}

// mark comments on the database, and remembers which one it is.
func (s *Scratch) mark(ctx context.Context, conn *pgx.Conn, o ScratchOptions) error {
	var own bool
	// 10 is the role that initdb made, whose template0 is.
	err := conn.QueryRow(ctx, `SELECT d.oid, r.rolname = current_user, r.rolsuper OR pg_catalog.pg_has_role(r.oid, 10, 'USAGE') FROM pg_catalog.pg_database d
		JOIN pg_catalog.pg_roles r ON r.oid = d.datdba WHERE d.datname = $1::text`, s.Name).Scan(&s.oid, &own, &s.OwnsTemplate)
	switch {
	case err != nil:
		return err
	case !own:
		return errors.New("it belongs to somebody else, which CREATE DATABASE does not do")
	}
	name := pgx.Identifier{s.Name}.Sanitize()
	if _, err := conn.Exec(ctx, "COMMENT ON DATABASE "+name+" IS "+quoteLiteral(ScratchMark+": "+o.Purpose)); err != nil {
		return err
	}
	for _, set := range inheritedSettings(o.Head) {
		if _, err := conn.Exec(ctx, "ALTER DATABASE "+name+" SET "+set.name+" = "+quoteLiteral(set.value)); err != nil {
			logger(o.Log).Warn("the archive's database had a setting that the scratch server does not take", "setting", set.name, "error", oneLine(err.Error()))
		}
	}
	return nil
}

// Drop drops the database with whoever is connected to it, under a context of its own: the
// end of ctx is no reason to leave it. One that is not the one that was created is left alone.
func (s *Scratch) Drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropWithin)
	defer cancel()
	conn, err := s.server.connectWaiting(ctx, comeBack, logger(nil))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var oid uint32
	var own bool
	err = conn.QueryRow(ctx, `SELECT d.oid, r.rolname = current_user FROM pg_catalog.pg_database d
		JOIN pg_catalog.pg_roles r ON r.oid = d.datdba WHERE d.datname = $1::text`, s.Name).Scan(&oid, &own)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return s.failed("drop", err)
	case !own || s.oid != 0 && oid != s.oid:
		return s.failed("drop", errors.New("it is not the database that was created, and stays"))
	}
	name := pgx.Identifier{s.Name}.Sanitize()
	if serverMajor(conn) >= 13 {
		_, err = conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
	} else {
		_, _ = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = $1::text AND pid <> pg_backend_pid()`, s.Name)
		_, err = conn.Exec(ctx, "DROP DATABASE "+name)
	}
	if err != nil {
		return s.failed("drop", err)
	}
	return nil
}

// DropCommand is what drops the database by hand, in SQL.
func (s *Scratch) DropCommand() string {
	return "DROP DATABASE " + pgx.Identifier{s.Name}.Sanitize() + " WITH (FORCE)"
}

// createScratch is a CREATE DATABASE with what the archive says of encoding and locale.
func createScratch(o ScratchOptions, major int) (string, error) {
	set := map[string]string{}
	for i := range o.Head.Entries {
		if e := &o.Head.Entries[i]; e.Desc.S == "DATABASE" {
			set = databaseSettings(e.Defn.S)
		}
	}
	if set["encoding"] == "" {
		set["encoding"] = archiveEncoding(o.Head)
	}
	provider := set["locale_provider"]
	switch {
	case major < 15 && (provider == "" || provider == "libc"):
		delete(set, "locale_provider")
	case major < 15, major < 17 && provider == "builtin":
		return "", fail(ErrScratch, fmt.Sprintf("the archive's database has the locale provider %s, which PostgreSQL %d does not know; take a scratch server of the source's major version", provider, major))
	}
	var b strings.Builder
	b.WriteString("CREATE DATABASE " + pgx.Identifier{o.Name}.Sanitize() + " TEMPLATE template0")
	for _, key := range []string{"encoding", "locale_provider", "locale", "lc_collate", "lc_ctype", "icu_locale", "icu_rules", "builtin_locale"} {
		if set[key] != "" {
			b.WriteString(" " + strings.ToUpper(key) + " " + quoteLiteral(set[key]))
		}
	}
	return b.String(), nil
}

type setting struct{ name, value string }

// inheritedSettings are those of the archive's database on which the text of its rows
// depends, beyond what pg_dump and pg_restore set themselves.
func inheritedSettings(head *pgarchive.Head) []setting {
	var found []setting
	for i := range head.Entries {
		e := &head.Entries[i]
		if e.Desc.S != "DATABASE PROPERTIES" {
			continue
		}
		for _, stmt := range statements(e.Defn.S) {
			// ALTER DATABASE name SET setting TO 'value'
			toks := tokenize(stmt)
			if len(toks) == 7 && toks[0].is("alter") && toks[1].is("database") && toks[3].is("set") && toks[6].str &&
				slices.Contains([]string{"bytea_output", "lc_monetary"}, toks[4].text) {
				found = append(found, setting{toks[4].text, toks[6].text})
			}
		}
	}
	return found
}

// quoteLiteral is safe whatever standard_conforming_strings is.
func quoteLiteral(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

// ProbeWrite tells whether a database can be reached and takes 16 MiB of new rows, which it
// does not keep. It is for whoever wonders why something failed there.
func ProbeWrite(ctx context.Context, c Conn) error {
	conn, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	for _, sql := range []string{
		"CREATE TABLE pgstow_probe (filler text)",
		"ALTER TABLE pgstow_probe ALTER filler SET STORAGE PLAIN",
		"INSERT INTO pgstow_probe SELECT repeat('x', 8000) FROM generate_series(1, 2048)",
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}
