package dumper

import (
	"context"
	"fmt"
	"slices"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// Selection reads --table and --schema for a restore that chooses the entries itself:
// unlike pg_restore's own options, a table brings all that belongs to it, and any mixture
// of names is understood. What names nothing is refused (ErrSelection and ErrUsage), with
// what comes near.
func (o RestoreOptions) Selection(head *pgarchive.Head) (pgarchive.Selection, error) {
	s := pgarchive.Selection{Schemas: o.Schemas, DataOnly: o.DataOnly, SchemaOnly: o.SchemaOnly, Database: o.Create}
	for _, schema := range o.Schemas {
		if !slices.ContainsFunc(head.Entries, func(e pgarchive.Entry) bool { return !e.Namespace.Null && e.Namespace.S == schema }) {
			return s, notInArchive("--schema "+schema, nearNames(schema, schemaNames(head)))
		}
	}
	for _, text := range o.Tables {
		parsed, err := parseTableName(text)
		if err != nil {
			return s, err
		}
		t := pgarchive.TableName{Schema: parsed.schema, Name: parsed.name}
		if !slices.ContainsFunc(head.Entries, func(e pgarchive.Entry) bool { return t.Names(&e) }) {
			return s, notInArchive("--table "+parsed.String(), nearNames(parsed.String(), relationNames(head)))
		}
		s.Tables = append(s.Tables, t)
	}
	return s, nil
}

// harmless are the options of pg_restore that mean the same however a restore is cut into
// runs.
var harmless = []string{
	"enable-row-security", "no-acl", "no-comments", "no-owner", "no-password", "no-policies", "no-privileges",
	"no-publications", "no-reconnect", "no-security-labels", "no-statistics", "no-subscriptions", "no-table-access-method",
	"no-tablespaces", "role", "superuser", "use-set-session-authorization", "verbose",
}

// OneRun says why a restore must be one run of pg_restore; "" if it may be cut into several.
func (o RestoreOptions) OneRun() string {
	args, _ := restoreOptions.parse(o.Args) // checked before
	triggersOff := hasOption(o.Args, "disable-triggers")
	for _, a := range args {
		switch {
		case slices.Contains(harmless, a.name):
		case a.name == "disable-triggers" && o.DataOnly:
		default:
			return "pg_restore's --" + a.name + " means the whole restore"
		}
	}
	switch {
	case o.Clean && !o.Create:
		return "--clean drops everything first, in reverse order"
	case o.DataOnly && !triggersOff:
		return "without definitions the foreign keys of the target may need the order of the archive"
	}
	return ""
}

// Whole is o without --table and --schema, for an archive from which they have chosen.
func (o RestoreOptions) Whole() RestoreOptions {
	o.Tables, o.Schemas = nil, nil
	return o
}

// TargetNames asks the target for its schemas and relations, for pgarchive's
// Selection.Present; nil with --create, when there is no target yet.
func TargetNames(ctx context.Context, c Conn, opts RestoreOptions) (func(schema, name string) bool, error) {
	if opts.Create || hasOption(opts.Args, "create") {
		return nil, nil
	}
	c, conn, err := connectTarget(ctx, c, opts)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, `SELECT nspname::text, '' FROM pg_catalog.pg_namespace
		UNION ALL SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND n.nspname OPERATOR(pg_catalog.!~) '^pg_'`)
	if err != nil {
		return nil, targetError(ctx, c, err)
	}
	defer rows.Close()
	there := map[[2]string]bool{}
	for rows.Next() {
		var name [2]string
		if err := rows.Scan(&name[0], &name[1]); err != nil {
			return nil, targetError(ctx, c, err)
		}
		there[name] = true
	}
	if err := rows.Err(); err != nil {
		return nil, targetError(ctx, c, fmt.Errorf("list its tables: %w", err))
	}
	return func(schema, name string) bool { return there[[2]string{schema, name}] }, nil
}
