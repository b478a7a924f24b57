package dumper

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// tableName is one --table: a name and perhaps its schema, both as they stand in
// the catalogue (pg_restore matches case and all).
type tableName struct{ schema, name string }

// parseTableName reads [SCHEMA.]TABLE. A part that holds a dot or a quote stands in double
// quotes, as in SQL; unquoted ones are not folded to lower case, as with pg_restore.
func parseTableName(s string) (tableName, error) {
	bad := fail(ErrUsage, fmt.Sprintf("--table %s: neither TABLE nor SCHEMA.TABLE (put names that hold dots or quotes in double quotes)", s))
	var parts []string
	for rest := s; ; {
		part, tail, ok := namePart(rest)
		if !ok || part == "" {
			return tableName{}, bad
		}
		parts = append(parts, part)
		if tail == "" {
			break
		}
		rest = tail[1:]
	}
	switch len(parts) {
	case 1:
		return tableName{name: parts[0]}, nil
	case 2:
		return tableName{parts[0], parts[1]}, nil
	}
	return tableName{}, bad
}

// namePart takes one name off the front; tail is empty or starts with a dot.
func namePart(s string) (part, tail string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexByte(s, '.')
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:], !strings.Contains(s[:i], `"`)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		tail = s[i+1:]
		return b.String(), tail, tail == "" || tail[0] == '.'
	}
	return "", "", false
}

// selection is what --table and --schema, and pg_restore's -t and -n behind "--", name.
type selection struct {
	tables  []tableName
	schemas []string
}

func (o RestoreOptions) selection() (selection, error) {
	s := selection{schemas: slices.Clone(o.Schemas)}
	for _, t := range o.Tables {
		n, err := parseTableName(t)
		if err != nil {
			return selection{}, err
		}
		s.tables = append(s.tables, n)
	}
	args, err := restoreOptions.parse(o.Args)
	if err != nil {
		return selection{}, err
	}
	for _, a := range args {
		switch a.name {
		case "table":
			s.tables = append(s.tables, tableName{name: a.value})
		case "schema":
			s.schemas = append(s.schemas, a.value)
		}
	}
	return s, s.check()
}

// check: pg_restore knows one list of schemas for all its tables.
func (s selection) check() error {
	qualified := 0
	for _, t := range s.tables {
		if t.schema != "" {
			qualified++
		}
	}
	switch {
	case qualified > 0 && len(s.schemas) > 0:
		return fail(ErrUsage, "--table SCHEMA.TABLE and --schema exclude each other: pg_restore would look for every table in every schema named")
	case qualified > 0 && qualified < len(s.tables):
		return fail(ErrUsage, "give every --table its schema, or none: pg_restore would look for all of them in the schemas named")
	}
	return nil
}

// args are pg_restore's -n and -t for the qualified tables, whose schema pg_restore
// takes apart from the name.
func (s selection) schemaArgs() []string {
	var out []string
	for _, t := range s.tables {
		if t.schema != "" && !slices.Contains(out, t.schema) {
			out = append(out, t.schema)
		}
	}
	return out
}

// tableDescs are the entries that pg_restore's -t selects (_tocEntryRequired).
var tableDescs = map[string]bool{
	"TABLE": true, "TABLE DATA": true, "VIEW": true, "FOREIGN TABLE": true, "MATERIALIZED VIEW": true,
	"MATERIALIZED VIEW DATA": true, "SEQUENCE": true, "SEQUENCE SET": true,
}

// takes tells whether pg_restore would take a standalone entry for this selection.
func (s selection) takes(e *pgarchive.Entry) bool {
	schemas := s.schemas
	if q := s.schemaArgs(); len(q) > 0 {
		schemas = q
	}
	if len(schemas) > 0 && (e.Namespace.Null || !slices.Contains(schemas, e.Namespace.S)) {
		return false
	}
	if len(s.tables) == 0 {
		return true
	}
	return tableDescs[e.Desc.S] && slices.ContainsFunc(s.tables, func(t tableName) bool { return t.name == e.Tag.S })
}

// CheckSelection refuses a selection that pg_restore would carry out as nothing, or
// as something else than was asked, before anything runs. The error is both
// ErrSelection and ErrUsage and names what comes near.
func CheckSelection(head *pgarchive.Head, opts RestoreOptions) error {
	s, err := opts.selection()
	if err != nil {
		return err
	}
	for _, schema := range s.schemas {
		if !slices.ContainsFunc(head.Entries, func(e pgarchive.Entry) bool { return !e.Namespace.Null && e.Namespace.S == schema }) {
			return notInArchive("--schema "+schema, nearNames(schema, schemaNames(head)))
		}
	}
	for _, t := range s.tables {
		one := selection{tables: []tableName{t}, schemas: s.schemas}
		if !slices.ContainsFunc(head.Entries, func(e pgarchive.Entry) bool { return one.takes(&e) }) {
			return notInArchive("--table "+t.String(), nearNames(t.String(), relationNames(head)))
		}
	}
	return s.checkCross(head)
}

// checkCross: `-n a -n b -t x -t y` also takes a.y and b.x.
func (s selection) checkCross(head *pgarchive.Head) error {
	if len(s.schemaArgs()) < 2 {
		return nil
	}
	for i := range head.Entries {
		e := &head.Entries[i]
		if s.takes(e) && !slices.Contains(s.tables, tableName{e.Namespace.S, e.Tag.S}) {
			return fail(ErrUsage, fmt.Sprintf("pg_restore cannot take these tables together without taking %s too: restore one schema at a time",
				tableName{e.Namespace.S, e.Tag.S}))
		}
	}
	return nil
}

func notInArchive(what string, near []string) error {
	msg := what + " names nothing in the archive"
	if len(near) > 0 {
		msg += "; did you mean " + firstFew(near, 5) + "?"
	} else {
		msg += " (`pgstow show --toc` lists what it holds)"
	}
	return &failure{kinds: []error{ErrSelection, ErrUsage}, msg: msg}
}

func (t tableName) String() string {
	if t.schema == "" {
		return quotePart(t.name)
	}
	return quotePart(t.schema) + "." + quotePart(t.name)
}

func quotePart(s string) string {
	if strings.ContainsAny(s, `."`) {
		return QuoteName(s)
	}
	return s
}

func schemaNames(head *pgarchive.Head) []string {
	var out []string
	for i := range head.Entries {
		if ns := head.Entries[i].Namespace; !ns.Null && ns.S != "" && !slices.Contains(out, ns.S) {
			out = append(out, ns.S)
		}
	}
	return out
}

func relationNames(head *pgarchive.Head) []string {
	seen := map[string]bool{}
	var out []string
	for i := range head.Entries {
		e := &head.Entries[i]
		if name := (tableName{e.Namespace.S, e.Tag.S}).String(); tableDescs[e.Desc.S] && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}

// nearNames are the names a typo, a wrong case or a wrong schema would explain, nearest first.
func nearNames(wanted string, names []string) []string {
	type near struct {
		name string
		d    int
	}
	bare := func(s string) string {
		if i := strings.LastIndexByte(s, '.'); i >= 0 {
			s = s[i+1:]
		}
		return strings.ToLower(strings.Trim(s, `"`))
	}
	var found []near
	for _, n := range names {
		d := min(editDistance(strings.ToLower(wanted), strings.ToLower(n)), editDistance(bare(wanted), bare(n)))
		if d <= max(1, min(2, len(bare(wanted))/3)) {
			found = append(found, near{n, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return a.d - b.d })
	out := make([]string, len(found))
	for i, n := range found {
		out[i] = n.name
	}
	return out
}
