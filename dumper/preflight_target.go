package dumper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// Lack is something the target needs and has not.
type Lack struct {
	Kind string // "owner", "grantee", "extension", "tablespace", "collation", "encoding", "database"
	Name string
	Cure string // what is wrong with it, and the flag or command that cures it
}

// Target is what the preflight learned about a restore's target.
type Target struct {
	ServerVersion  string
	ServerMajor    int
	UserTables     int
	UserTableNames []string // the first few
	Lacks          []Lack
	Warnings       []string
}

// InspectTarget is the preflight of a restore of head with opts. It changes nothing.
// A head without entries (of an archive version not known) is not looked into.
func InspectTarget(ctx context.Context, c Conn, head *pgarchive.Head, opts RestoreOptions) (*Target, error) {
	if len(head.Entries) > 0 {
		if err := CheckSelection(head, opts); err != nil {
			return nil, err
		}
	}
	c, conn, err := connectTarget(ctx, c, opts)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	t := new(Target)
	if !opts.AllowPooler {
		warning, err := provePooler(ctx, c, conn, logger(opts.Log))
		if err != nil {
			return nil, err
		}
		if warning != "" {
			t.Warnings = append(t.Warnings, warning)
		}
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, targetError(ctx, c, err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	needs := collectNeeds(head, opts)
	for _, step := range []func() error{
		func() error { return quietTransaction(ctx, tx, serverMajor(conn)) },
		func() error { return t.identify(ctx, tx, opts) },
		func() error { return t.roles(ctx, tx, needs, opts) },
		func() error { return t.catalogues(ctx, tx, needs) },
		func() error { return t.encoding(ctx, tx, head, needs, opts) },
	} {
		if err := step(); err != nil {
			return nil, targetError(ctx, c, err)
		}
	}
	return t, nil
}

func targetError(ctx context.Context, c Conn, err error) error {
	if errors.Is(err, ErrPreflight) {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return failCause(ErrConnect, fmt.Sprintf("inspect %s: %s", c, oneLine(err.Error())), err)
}

// connectTarget connects to where pg_restore will. With --create that is a
// database to issue CREATE DATABASE from; with --clean too it must not be the one dropped.
func connectTarget(ctx context.Context, c Conn, opts RestoreOptions) (Conn, *pgx.Conn, error) {
	if !opts.AllowPooler {
		if err := checkPoolerName(c); err != nil {
			return c, nil, err
		}
	}
	create := opts.Create || hasOption(opts.Args, "create")
	candidates := []Conn{c}
	switch {
	case create && (opts.Clean || hasOption(opts.Args, "clean")):
		candidates = []Conn{c.WithDatabase("postgres"), c, c.WithDatabase("template1")}
	case create:
		candidates = append(candidates, c.WithDatabase("postgres"), c.WithDatabase("template1"))
	}
	var first error
	for _, candidate := range candidates {
		conn, err := candidate.connectWaiting(ctx, 0, logger(opts.Log))
		if err == nil {
			return candidate, conn, nil
		}
		if first == nil {
			first = err
		}
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || (pgErr.Code != "3D000" && pgErr.Code != "42501" && pgErr.Code != "28000") {
			return c, nil, err
		}
		if candidate.Database() == c.Database() {
			first = err // what was asked for is what to report
		}
	}
	return c, nil, first
}

func (t *Target) identify(ctx context.Context, tx pgx.Tx, opts RestoreOptions) error {
	var num int
	var recovery bool
	err := tx.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery()`).
		Scan(&t.ServerVersion, &num, &recovery)
	if err != nil {
		return err
	}
	t.ServerMajor = num / 10000
	if recovery {
		return fail(ErrPreflight, "the target is a standby, which takes no writes: restore into its primary")
	}
	if opts.Create || hasOption(opts.Args, "create") {
		return nil // its tables are the maintenance database's
	}
	t.UserTableNames, t.UserTables, err = namesOf(ctx, tx, `FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't'
		AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`)
	return err
}

func (t *Target) lack(kind, name, cure string) {
	l := Lack{kind, name, cure}
	if !slices.Contains(t.Lacks, l) {
		t.Lacks = append(t.Lacks, l)
	}
}

// roles: what the archive's ownership and grants name must exist, and whoever
// restores must be allowed to give objects away to it.
func (t *Target) roles(ctx context.Context, tx pgx.Tx, n needs, opts RestoreOptions) error {
	wanted := slices.Concat(n.owners, n.grantees, n.policyRoles, n.acting)
	if opts.Role != "" {
		wanted = append(wanted, opts.Role)
	}
	exists := map[string]bool{}
	found, err := column(ctx, tx, `SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1::text[])`, wanted)
	if err != nil {
		return err
	}
	for _, r := range found {
		exists[r] = true
	}
	privilege := "MEMBER"
	if t.ServerMajor >= 16 {
		privilege = "SET"
	}
	actor := opts.Role
	if actor != "" && !exists[actor] {
		t.lack("owner", actor, "--role names a role that the target does not have: create it")
		actor = ""
	}
	if actor != "" {
		may, err := t.mayBecome(ctx, tx, "", actor, privilege)
		if err != nil {
			return err
		}
		if !may {
			t.lack("owner", actor, "whoever connects may not SET ROLE to the role that --role names: GRANT it to them, or leave --role away")
		}
	}
	for _, owner := range n.owners {
		if !exists[owner] {
			t.lack("owner", owner, "the target has no such role: pass --no-owner, or create it (--globals)")
			continue
		}
		may, err := t.mayBecome(ctx, tx, actor, owner, privilege)
		if err != nil {
			return err
		}
		if !may {
			t.lack("owner", owner, "whoever restores is no member of this role and cannot give objects to it: pass --no-owner, or GRANT it to them")
		}
	}
	for _, g := range n.grantees {
		if !exists[g] {
			t.lack("grantee", g, "the target has no such role: pass --no-privileges, or create it (--globals)")
		}
	}
	for _, a := range n.acting {
		if !exists[a] {
			continue // among the grantees already
		}
		may, err := t.mayBecome(ctx, tx, actor, a, privilege)
		if err != nil {
			return err
		}
		if !may {
			t.lack("grantee", a, "whoever restores is no member of this role and cannot alter its default privileges: pass --no-privileges, or GRANT it to them")
		}
	}
	for _, p := range n.policyRoles {
		if !exists[p] {
			t.lack("grantee", p, "a policy or user mapping names this role, which the target does not have: create it (--globals)")
		}
	}
	return nil
}

// mayBecome tells whether actor ("" is the session's own role) may act as role.
func (t *Target) mayBecome(ctx context.Context, tx pgx.Tx, actor, role, privilege string) (may bool, err error) {
	const q = `SELECT a.rolsuper OR pg_has_role(a.oid, r.oid, $3::text) FROM pg_roles a, pg_roles r
		WHERE a.rolname = CASE WHEN $1::text = '' THEN current_user ELSE $1::text::name END AND r.rolname = $2::text`
	err = tx.QueryRow(ctx, q, actor, role, privilege).Scan(&may)
	return may, err
}

// catalogues: extensions, tablespaces and collations.
func (t *Target) catalogues(ctx context.Context, tx pgx.Tx, n needs) error {
	for _, check := range []struct {
		kind, query string
		names       []string
		cure        string
	}{
		{"extension", `SELECT name::text FROM pg_available_extensions WHERE name = ANY($1::text[])`, n.extensions,
			"the target's server does not offer it: install the package that holds it there, or restore without the objects that need it"},
		{"tablespace", `SELECT spcname::text FROM pg_tablespace WHERE spcname = ANY($1::text[])`, n.tablespaces,
			"the target has no such tablespace: pass -- --no-tablespaces, or create it (--globals)"},
		{"collation", `SELECT collname::text FROM pg_collation WHERE collnamespace = 'pg_catalog'::regnamespace AND collname = ANY($1::text[])
			AND collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database()))`, n.collations,
			"the target does not know it: generate the locale on its server and run SELECT pg_import_system_collations('pg_catalog')"},
	} {
		found, err := column(ctx, tx, check.query, check.names)
		if err != nil {
			return err
		}
		for _, name := range check.names {
			if !slices.Contains(found, name) {
				t.lack(check.kind, name, check.cure)
			}
		}
	}
	return nil
}

// encoding: the target must be able to hold every character, and with --create know
// the encoding and locale of the database to be.
func (t *Target) encoding(ctx context.Context, tx pgx.Tx, head *pgarchive.Head, n needs, opts RestoreOptions) error {
	if n.database != nil {
		return t.newDatabase(ctx, tx, n.database, opts)
	}
	from := archiveEncoding(head)
	if from == "" {
		return nil
	}
	var to string
	if err := tx.QueryRow(ctx, `SELECT current_setting('server_encoding')`).Scan(&to); err != nil {
		return err
	}
	switch {
	case from == to, to == "SQL_ASCII":
	case from == "SQL_ASCII":
		t.Warnings = append(t.Warnings, "the archive's text has no declared encoding (SQL_ASCII), the target wants "+to+": rows with other bytes will be refused")
	case to == "UTF8" && from != "MULE_INTERNAL":
	default:
		t.lack("encoding", from, fmt.Sprintf("the target database is %s: create one with ENCODING '%s' TEMPLATE template0, or use --create", to, from))
	}
	return nil
}

// newDatabase looks at the archive's CREATE DATABASE.
func (t *Target) newDatabase(ctx context.Context, tx pgx.Tx, db *pgarchive.Entry, opts RestoreOptions) error {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text)`, db.Tag.S).Scan(&exists); err != nil {
		return err
	}
	if exists && !opts.Clean && !hasOption(opts.Args, "clean") {
		t.lack("database", db.Tag.S, "the target has it already, so --create cannot make it: drop it with --clean, or leave --create away")
	}
	set := databaseSettings(db.Defn.S)
	if enc := set["encoding"]; enc != "" {
		var known bool
		if err := tx.QueryRow(ctx, `SELECT pg_char_to_encoding($1::text::name) >= 0`, enc).Scan(&known); err != nil {
			return err
		}
		if !known {
			t.lack("encoding", enc, "the target's server does not know it: create the database with an encoding it knows and restore without --create")
		}
	}
	provider := set["locale_provider"]
	if (provider != "" && t.ServerMajor < 15) || (provider == "builtin" && t.ServerMajor < 17) {
		t.lack("collation", "provider "+provider, fmt.Sprintf("PostgreSQL %d does not know this locale provider: create the database yourself and restore without --create", t.ServerMajor))
		return nil
	}
	if provider != "" && provider != "libc" {
		return nil // ICU and builtin locales come with the server
	}
	for _, key := range []string{"locale", "lc_collate", "lc_ctype"} {
		name := set[key]
		if name == "" || name == "C" || name == "POSIX" {
			continue
		}
		var known []string
		known, err := column(ctx, tx, `SELECT collcollate::text FROM pg_collation WHERE collprovider = 'c' AND $1::text[] IS NOT NULL
			UNION SELECT datcollate::text FROM pg_database UNION SELECT datctype::text FROM pg_database`, []string{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(known, func(k string) bool { return sameLocale(k, name) }) {
			t.lack("collation", name, "the target does not know it: generate the locale on its server and run SELECT pg_import_system_collations('pg_catalog'), or create the database yourself and restore without --create")
		}
	}
	return nil
}

// sameLocale: systems spell "de_DE.UTF-8" and "de_DE.utf8" alike.
func sameLocale(a, b string) bool {
	norm := func(s string) string {
		lang, charset, _ := strings.Cut(s, ".")
		return lang + "." + strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(charset))
	}
	return norm(a) == norm(b)
}

func column(ctx context.Context, tx pgx.Tx, query string, names []string) ([]string, error) {
	if names == nil {
		return nil, nil
	}
	rows, err := tx.Query(ctx, query, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
