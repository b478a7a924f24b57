package dumper

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// needs are the names that an archive, restored with certain options, expects at its target.
type needs struct {
	owners      []string
	grantees    []string // in grants, revokes and default privileges
	acting      []string // whose default privileges are altered
	policyRoles []string // in policies and user mappings, which no flag leaves away
	extensions  []string
	tablespaces []string
	collations  []string         // of pg_catalog
	database    *pgarchive.Entry // with --create
}

// restoreFlags are the options that decide what pg_restore runs, from pgstow's
// own flags and from behind "--".
type restoreFlags struct {
	noOwner, noPrivileges, noTablespaces, noPolicies, create bool
	preData, data, postData                                  bool
	selection                                                selection
	excludedSchemas                                          []string
	// finer: -I, -P, -T or --filter select what this walk does not follow; what
	// they need is left for pg_restore to find.
	finer bool
}

func (o RestoreOptions) flags() restoreFlags {
	has := func(names ...string) bool { return hasOption(o.Args, names...) }
	f := restoreFlags{
		noOwner:      o.NoOwner || has("no-owner"),
		noPrivileges: o.NoPrivileges || has("no-privileges", "no-acl"),
		// --use-set-session-authorization needs the owners all the same.
		noTablespaces: has("no-tablespaces"), noPolicies: has("no-policies"), create: o.Create || has("create"),
	}
	f.selection, _ = o.selection() // checked before
	f.preData = !o.DataOnly && !has("data-only", "no-schema", "statistics-only")
	f.postData = f.preData
	f.data = !o.SchemaOnly && !has("schema-only", "no-data", "statistics-only")
	args, _ := restoreOptions.parse(o.Args)
	var sections []string
	for _, a := range args {
		switch a.name {
		case "section":
			sections = append(sections, a.value)
		case "exclude-schema":
			f.excludedSchemas = append(f.excludedSchemas, a.value)
		case "index", "function", "trigger", "filter":
			f.finer = true
		}
	}
	if len(sections) > 0 {
		f.preData = slices.Contains(sections, "pre-data")
		f.data = slices.Contains(sections, "data")
		f.postData = slices.Contains(sections, "post-data")
	}
	return f
}

// ownedDescs are the entries behind which pg_restore says ALTER ... OWNER TO.
var ownedDescs = map[string]bool{
	"AGGREGATE": true, "BLOB": true, "BLOB METADATA": true, "COLLATION": true, "CONVERSION": true, "DATABASE": true,
	"DOMAIN": true, "EVENT TRIGGER": true, "FOREIGN DATA WRAPPER": true, "FOREIGN TABLE": true, "FUNCTION": true,
	"MATERIALIZED VIEW": true, "OPERATOR": true, "OPERATOR CLASS": true, "OPERATOR FAMILY": true, "PROCEDURAL LANGUAGE": true,
	"PROCEDURE": true, "PUBLICATION": true, "SCHEMA": true, "SEQUENCE": true, "SERVER": true, "STATISTICS": true,
	"SUBSCRIPTION": true, "TABLE": true, "TEXT SEARCH CONFIGURATION": true, "TEXT SEARCH DICTIONARY": true, "TYPE": true, "VIEW": true,
}

// collectNeeds walks the table of contents as pg_restore would (_tocEntryRequired).
func collectNeeds(head *pgarchive.Head, opts RestoreOptions) needs {
	f := opts.flags()
	var n needs
	if f.finer {
		return n
	}
	taken := map[string]bool{} // dump ids, for what hangs on a selected object
	section := pgarchive.SectionPreData
	for i := range head.Entries {
		e := &head.Entries[i]
		if e.Section > pgarchive.SectionNone {
			section = e.Section
		}
		if !f.takes(e, section, taken) {
			continue
		}
		taken[strconv.Itoa(e.DumpID)] = true
		n.entry(e, f)
	}
	return n
}

func (f restoreFlags) takes(e *pgarchive.Entry, section pgarchive.Section, taken map[string]bool) bool {
	desc := e.Desc.S
	switch section {
	case pgarchive.SectionPreData:
		if !f.preData {
			return false
		}
	case pgarchive.SectionData:
		if !f.data {
			return false
		}
	case pgarchive.SectionPostData:
		if !f.postData {
			return false
		}
	}
	switch {
	case desc == "ENCODING", desc == "STDSTRINGS", desc == "SEARCHPATH":
		return false
	case (desc == "ACL" || desc == "DEFAULT ACL" || desc == "ACL LANGUAGE") && f.noPrivileges:
		return false
	case desc == "POLICY" && f.noPolicies:
		return false
	case desc == "DATABASE" || desc == "DATABASE PROPERTIES":
		return f.create
	case (desc == "ACL" || desc == "COMMENT" || desc == "SECURITY LABEL") && strings.HasPrefix(e.Tag.S, "DATABASE "):
		return f.create
	}
	if !e.Namespace.Null && slices.Contains(f.excludedSchemas, e.Namespace.S) {
		return false
	}
	selective := len(f.selection.tables) > 0 || len(f.selection.schemas) > 0
	switch {
	case !selective:
		return true
	case desc == "ACL" || desc == "COMMENT" || desc == "SECURITY LABEL":
		return slices.ContainsFunc(e.Dependencies, func(d string) bool { return taken[d] })
	}
	return f.selection.takes(e)
}

func (n *needs) entry(e *pgarchive.Entry, f restoreFlags) {
	desc := e.Desc.S
	// Without a DROP the object is not the archive's to give away: schema public, mostly.
	if !f.noOwner && ownedDescs[desc] && e.Owner.S != "" && e.DropStmt.S != "" {
		add(&n.owners, e.Owner.S)
	}
	if !f.noTablespaces && !e.Tablespace.Null && e.Tablespace.S != "" {
		add(&n.tablespaces, e.Tablespace.S)
	}
	switch desc {
	case "EXTENSION":
		add(&n.extensions, e.Tag.S)
	case "ACL", "ACL LANGUAGE", "DEFAULT ACL":
		for _, stmt := range statements(e.Defn.S) {
			for _, r := range rolesIn(stmt) {
				add(&n.grantees, r)
			}
			if toks := tokenize(stmt); desc == "DEFAULT ACL" && len(toks) > 5 && toks[3].is("for") {
				add(&n.acting, toks[5].text)
			}
		}
	case "POLICY", "USER MAPPING":
		for _, stmt := range statements(e.Defn.S) {
			for _, r := range rolesIn(stmt) {
				add(&n.policyRoles, r)
			}
		}
	case "DATABASE":
		n.database = e
		if ts := databaseSettings(e.Defn.S)["tablespace"]; ts != "" && !f.noTablespaces {
			add(&n.tablespaces, ts)
		}
	case "DATABASE PROPERTIES":
		for _, stmt := range statements(e.Defn.S) {
			if toks := tokenize(stmt); len(toks) > 3 && toks[0].is("alter") && toks[1].is("role") {
				add(&n.policyRoles, toks[2].text)
			}
		}
	case "TABLE", "FOREIGN TABLE", "TYPE", "DOMAIN", "INDEX", "VIEW", "MATERIALIZED VIEW", "CONSTRAINT", "DEFAULT", "STATISTICS":
		for _, name := range systemCollations(e.Defn.S) {
			add(&n.collations, name)
		}
	}
}

// statements cuts a definition of pg_dump's; one it cannot cut is none of those looked at.
func statements(defn string) []string {
	out, err := splitSQL(defn)
	if err != nil {
		return nil
	}
	return out
}

// systemCollations finds COLLATE pg_catalog."xx": pg_dump qualifies every collation that is not a type's default.
func systemCollations(defn string) []string {
	if !strings.Contains(defn, "COLLATE") {
		return nil
	}
	var out []string
	toks := tokenize(defn)
	for i := 0; i+3 < len(toks); i++ {
		if toks[i].is("collate") && toks[i+1].text == "pg_catalog" && toks[i+2].is(".") && !toks[i+3].str {
			out = append(out, toks[i+3].text)
		}
	}
	return out
}

// databaseSettings are the KEY = value pairs of CREATE DATABASE.
func databaseSettings(defn string) map[string]string {
	out := map[string]string{}
	for _, stmt := range statements(defn) {
		toks := tokenize(stmt)
		if len(toks) < 3 || !toks[0].is("create") || !toks[1].is("database") {
			continue
		}
		for i := 3; i+2 < len(toks); i++ {
			if !toks[i].quoted && !toks[i].str && toks[i+1].is("=") {
				out[toks[i].text] = toks[i+2].text
			}
		}
	}
	return out
}

func archiveEncoding(head *pgarchive.Head) string {
	for i := range head.Entries {
		if head.Entries[i].Desc.S != "ENCODING" {
			continue
		}
		toks := tokenize(head.Entries[i].Defn.S)
		for j, tok := range toks {
			if tok.str && j > 0 {
				return tok.text
			}
		}
	}
	return ""
}

func add(list *[]string, name string) {
	if !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}
