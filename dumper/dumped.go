package dumper

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// dumpChoice is what pg_dump's options leave of a database, as conditions on
// pg_class c and pg_namespace n. Its names are evaluated by the server that pg_dump
// will ask, with the same regular expressions.
type dumpChoice struct {
	tables, schemas       bool // -t, -n: only these
	tablesIn, tablesOut   string
	schemasIn, schemasOut string // oids in array notation
	dataOut               string
	noData, noUnlogged    bool
	largeObjects          bool
	doubt                 string // the option that may leave out more than this knows
}

// patternOptions are the options that take a name pattern.
var patternOptions = map[string]bool{
	"schema": true, "exclude-schema": true, "table": true, "table-and-children": true, "exclude-table": true,
	"exclude-table-and-children": true, "exclude-table-data": true, "exclude-table-data-and-children": true,
}

func chooseDumped(ctx context.Context, tx pgx.Tx, args []option) (dumpChoice, error) {
	oids := map[string][]string{}
	var d dumpChoice
	var extensions, wanted, unwanted bool
	for _, a := range args {
		switch name := strings.TrimSuffix(a.name, "-and-children"); {
		case patternOptions[a.name]:
			found, err := expandPattern(ctx, tx, name, a.value, name != a.name)
			if err != nil {
				return d, err
			}
			if found == nil {
				d.doubt = "--" + a.name
			}
			oids[name] = append(oids[name], found...)
			d.tables = d.tables || name == "table"
			d.schemas = d.schemas || name == "schema"
		case a.name == "schema-only", a.name == "no-data", a.name == "statistics-only":
			d.noData = true
		case a.name == "no-unlogged-table-data":
			d.noUnlogged = true
		case a.name == "extension":
			extensions = true
		case a.name == "large-objects", a.name == "blobs":
			wanted = true
		case a.name == "no-large-objects", a.name == "no-blobs":
			unwanted = true
		case a.name == "filter", a.name == "section", !knownDumpOption(a.name):
			d.doubt = "--" + a.name
		}
	}
	everything := !d.tables && !d.schemas && !extensions
	d.largeObjects = !d.noData && (wanted || everything && !unwanted)
	array := func(name string) string { return "'{" + strings.Join(oids[name], ",") + "}'::oid[]" }
	d.tablesIn, d.tablesOut, d.dataOut = array("table"), array("exclude-table"), array("exclude-table-data")
	d.schemasIn, d.schemasOut = array("schema"), array("exclude-schema")
	return d, nil
}

func knownDumpOption(name string) bool {
	_, known := dumpOptions.long[name]
	for _, short := range dumpOptions.long {
		known = known || strings.TrimPrefix(short, "=") == name
	}
	return known
}

// relation is pg_dump's own rule (selectDumpableTable) for a relation and its schema.
func (d dumpChoice) relation(oid, schema string) string {
	var in string
	switch {
	case d.tables: // schemas are then of no account
		in = fmt.Sprintf("%s = ANY (%s)", oid, d.tablesIn)
	case d.schemas:
		in = fmt.Sprintf("%s = ANY (%s) AND %[1]s <> ALL (%[3]s)", schema, d.schemasIn, d.schemasOut)
	default:
		in = fmt.Sprintf("%s <> ALL (%s)", schema, d.schemasOut)
	}
	return fmt.Sprintf("(%s AND %s <> ALL (%s))", in, oid, d.tablesOut)
}

// relations narrows dumpedRelations. A sequence goes with the table that owns it,
// and an identity column's goes nowhere without.
func (d dumpChoice) relations() string {
	owner := func(deptypes, cond string) string {
		return `EXISTS (SELECT FROM pg_depend d JOIN pg_class o ON o.oid = d.refobjid WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
			AND d.refclassid = 'pg_class'::regclass AND d.deptype IN (` + deptypes + `)` + cond + `)`
	}
	own := d.relation("c.oid", "n.oid")
	cond := ` AND (c.relkind <> 'S' AND ` + own + ` OR c.relkind = 'S' AND (` +
		owner("'a', 'i'", " AND "+d.relation("o.oid", "o.relnamespace")) + ` OR ` + own + ` AND NOT ` + owner("'i'", "") + `))`
	if d.noData {
		cond += ` AND c.relkind <> 'S'` // tables are locked even so
	}
	return cond
}

// rows narrows relations to the tables whose rows are read.
func (d dumpChoice) rows() string {
	cond := d.relations() + ` AND c.relkind = 'r' AND c.oid <> ALL (` + d.dataOut + `)`
	if d.noUnlogged {
		cond += ` AND c.relpersistence <> 'u'`
	}
	if d.noData {
		cond += ` AND false`
	}
	return cond
}

// expandPattern lists the oids that one of pg_dump's patterns means; nil when that
// cannot be told (pg_dump will say what is wrong with it).
func expandPattern(ctx context.Context, tx pgx.Tx, option, pattern string, children bool) ([]string, error) {
	schema, name, ok := patternRegexps(pattern)
	if isSchema := strings.HasSuffix(option, "schema"); !ok || isSchema && schema != "" {
		return nil, nil
	} else if isSchema {
		return expandQuery(ctx, tx, `SELECT n.oid::text FROM pg_namespace n WHERE n.nspname ~ ($1::text COLLATE pg_catalog."default")`, name)
	}
	query := `SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p') AND c.relname ~ ($1::text COLLATE pg_catalog."default")`
	args := []any{name}
	if schema == "" {
		query += ` AND pg_table_is_visible(c.oid)`
	} else {
		query += ` AND n.nspname ~ ($2::text COLLATE pg_catalog."default")`
		args = append(args, schema)
	}
	if children {
		query = `WITH RECURSIVE t (oid) AS (` + query + ` UNION SELECT i.inhrelid FROM pg_inherits i JOIN t ON i.inhparent = t.oid) SELECT oid FROM t`
	}
	return expandQuery(ctx, tx, `SELECT oid::text FROM (`+query+`) q`, args...)
}

// expandQuery runs in a savepoint, since the pattern may be no regular expression,
// and with the user's own search_path, by which pg_dump judges visibility.
func expandQuery(ctx context.Context, tx pgx.Tx, query string, args ...any) ([]string, error) {
	sub, err := tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Rollback(context.WithoutCancel(ctx)) }() // takes the search_path back, too
	if _, err := sub.Exec(ctx, "SET LOCAL search_path TO DEFAULT"); err != nil {
		return nil, err
	}
	rows, err := sub.Query(ctx, query, args...)
	var found []string
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && strings.HasPrefix(pgErr.Code, "2201") {
		return nil, nil
	}
	if err == nil && found == nil {
		found = []string{}
	}
	return found, err
}

// patternRegexps translates one of psql's name patterns as pg_dump does
// (patternToSQLRegex in string_utils.c); schema is "" for a name without one.
func patternRegexps(pattern string) (schema, name string, ok bool) {
	parts := []string{""}
	quoted := false
	add := func(s string) { parts[len(parts)-1] += s }
	for i := 0; i < len(pattern); i++ {
		switch ch := pattern[i]; {
		case ch == '"' && quoted && strings.HasPrefix(pattern[i+1:], `"`):
			add(`"`)
			i++
		case ch == '"':
			quoted = !quoted
		case ch == '$':
			add(`\$`)
		case quoted && strings.IndexByte("|*+?()[]{}.^\\", ch) >= 0:
			add(`\` + string(rune(ch)))
		case quoted:
			add(pattern[i : i+1])
		case ch >= 'A' && ch <= 'Z':
			add(string(rune(ch + 'a' - 'A')))
		case ch == '*':
			add(".*")
		case ch == '?':
			add(".")
		case ch == '.':
			parts = append(parts, "")
		case strings.HasPrefix(pattern[i:], "[]"):
			add(`\[`)
		default:
			add(pattern[i : i+1])
		}
	}
	for i, p := range parts {
		parts[i] = "^(" + p + ")$"
	}
	switch {
	case quoted || len(parts) > 2: // a database's name in front is not followed
		return "", "", false
	case len(parts) == 2:
		return parts[0], parts[1], true
	}
	return "", parts[0], true
}

// unreadableObjects is the condition on pg_largeobject_metadata l under which pg_dump fails
// on a large object. pg_read_all_data is of no help there.
func unreadableObjects(major int) string {
	if major >= 18 {
		return `NOT has_largeobject_privilege(l.oid, 'SELECT')`
	}
	return `current_setting('lo_compat_privileges') = 'off'
		AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
		AND NOT EXISTS (SELECT FROM aclexplode(coalesce(l.lomacl, acldefault('L', l.lomowner))) a WHERE a.privilege_type = 'SELECT'
			AND CASE a.grantee WHEN 0 THEN true ELSE pg_has_role(a.grantee, 'USAGE') END)`
}
