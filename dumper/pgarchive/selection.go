package pgarchive

import (
	"slices"
	"strconv"
	"strings"
)

// TableName names a relation as the catalogue spells it; without a schema it fits that
// name in every schema.
type TableName struct{ Schema, Name string }

// Selection chooses what of an archive is restored. Without tables and schemas it is all.
type Selection struct {
	// Tables are relations with all that belongs to them: data, partitions and children,
	// owned sequences and their values, defaults, constraints, indexes, triggers, rules,
	// row security, statistics, comments, security labels and privileges.
	Tables []TableName
	// Schemas are schemas with everything in them.
	Schemas              []string
	DataOnly, SchemaOnly bool
	// Database keeps the database itself, which pg_restore --create makes.
	Database bool
	// Present says what the target holds already: a relation or, where name is "", a
	// schema. nil is an empty target with the schema public.
	Present func(schema, name string) bool
}

// Selected is what a Selection comes to.
type Selected struct {
	// Head is the one that was selected from, but for the definitions of partitions that
	// come without their parent and are not to be attached to it.
	Head    *Head
	Entries []int // places in Head.Entries, ascending
	// Skipped belong to what was chosen and cannot be made without something else that is
	// neither chosen nor present: foreign keys to tables that are not there, mostly.
	Skipped []string
	// Missing are in the archive, not chosen, and what is chosen depends on them: types,
	// functions, a view's tables. Whether the target has them is not known here.
	Missing []string
}

// Selective tells whether s chooses less than all objects.
func (s *Selection) Selective() bool { return len(s.Tables) > 0 || len(s.Schemas) > 0 }

// Names tells whether e is a relation, or the data of one, that t names.
func (t TableName) Names(e *Entry) bool {
	return e.Tag.S == t.Name && (t.Schema == "" || !e.Namespace.Null && e.Namespace.S == t.Schema) &&
		(e.isRelation() || e.Desc.S == "TABLE DATA")
}

// Select carries the selection out on the TOC. It follows names and dependencies, as they
// stand there.
func (h *Head) Select(s Selection) *Selected {
	p := &picker{head: h, want: s, byID: make(map[string]int, len(h.Entries)), taken: make([]bool, len(h.Entries))}
	for i := range h.Entries {
		p.byID[strconv.Itoa(h.Entries[i].DumpID)] = i
	}
	if s.Selective() {
		p.partitions = h.partitions()
		p.named()
		p.children()
		p.inSchemas()
		p.schemas()
		p.attached()
		p.detach()
	} else {
		for i := range p.taken {
			p.taken[i] = true
		}
	}
	return p.result()
}

// picker is one run of Select.
type picker struct {
	head       *Head
	want       Selection
	byID       map[string]int
	partitions map[int]bool // places of the tables that are attached to another
	taken      []bool
	skipped    []string
}

// isRelation tells what pg_restore's -t takes by its name.
func (e *Entry) isRelation() bool {
	switch e.Desc.S {
	case "TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE":
		return true
	}
	return false
}

func (e *Entry) isTable() bool { return e.Desc.S == "TABLE" || e.Desc.S == "FOREIGN TABLE" }

// appendage tells the entries that go with the object they depend on, and never by
// themselves.
func (e *Entry) appendage() bool {
	switch e.Desc.S {
	case "FK CONSTRAINT", "TABLE ATTACH", "INDEX ATTACH", "SEQUENCE OWNED BY",
		"COMMENT", "ACL", "SECURITY LABEL", "PUBLICATION TABLE":
		return true
	}
	return false
}

func (e *Entry) isDatabase() bool {
	switch e.Desc.S {
	case "DATABASE", "DATABASE PROPERTIES":
		return true
	case "COMMENT", "ACL", "SECURITY LABEL":
		return strings.HasPrefix(e.Tag.S, "DATABASE ")
	}
	return false
}

// isData tells what a restore of the data alone has, as pg_restore sees it: blocks,
// sequence values, and large objects with their comments and privileges.
func (e *Entry) isData() bool {
	switch e.Desc.S {
	case "SEQUENCE SET", "BLOB", "BLOB METADATA":
		return true
	case "ACL", "COMMENT", "SECURITY LABEL":
		return strings.HasPrefix(e.Tag.S, "LARGE OBJECT")
	}
	return e.HadDumper
}

// named takes the relations that were named.
func (p *picker) named() {
	for i := range p.head.Entries {
		e := &p.head.Entries[i]
		if e.isDatabase() {
			p.taken[i] = p.want.Database
			continue
		}
		p.taken[i] = slices.ContainsFunc(p.want.Tables, func(t TableName) bool { return t.Names(e) })
	}
}

// children takes the partitions and the inheriting tables of every table that is taken: a
// query of that table shows their rows.
func (p *picker) children() {
	for again := true; again; {
		again = false
		for i := range p.head.Entries {
			e := &p.head.Entries[i]
			if p.taken[i] || !e.isTable() || !p.dependsOnTaken(e, (*Entry).isTable) {
				continue
			}
			// A table may also depend on another for the type of its rows.
			if p.partitions[i] || strings.Contains(e.Defn.S, "INHERITS (") {
				p.taken[i], again = true, true
			}
		}
	}
}

// inSchemas takes what stands in the schemas that were named.
func (p *picker) inSchemas() {
	for i := range p.head.Entries {
		e := &p.head.Entries[i]
		if !e.Namespace.Null && slices.Contains(p.want.Schemas, e.Namespace.S) && !e.appendage() {
			p.taken[i] = true
		}
	}
}

// schemas takes the schemas that what is taken stands in and that are not there.
func (p *picker) schemas() {
	needed := map[string]bool{}
	for _, s := range p.want.Schemas {
		needed[s] = true
	}
	for i, taken := range p.taken {
		if ns := p.head.Entries[i].Namespace; taken && !ns.Null {
			needed[ns.S] = true
		}
	}
	for i := range p.head.Entries {
		if e := &p.head.Entries[i]; e.Desc.S == "SCHEMA" && needed[e.Tag.S] && !p.present(e.Tag.S, "") {
			p.taken[i] = true
		}
	}
}

// attached takes what belongs to what is taken, and what belongs to that: the comment of
// a constraint of a table.
func (p *picker) attached() {
	settled := make([]bool, len(p.taken))
	for again := true; again; {
		again = false
		for i := range p.head.Entries {
			e := &p.head.Entries[i]
			if p.taken[i] || settled[i] || !p.belongs(e) {
				continue
			}
			if !p.possible(e) {
				settled[i] = true
				continue
			}
			p.taken[i], again = true, true
		}
	}
}

// belongs tells whether e goes with something that is taken.
func (p *picker) belongs(e *Entry) bool {
	switch e.Desc.S {
	case "SEQUENCE":
		return p.dependsOnTaken(e, (*Entry).isTable) // only one that a column owns depends on its table
	case "SEQUENCE OWNED BY", "SEQUENCE SET":
		return p.dependsOnTaken(e, func(o *Entry) bool { return o.Desc.S == "SEQUENCE" })
	case "DEFAULT", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "RULE", "POLICY":
		// Tagged with table and name; what else they depend on is none of their owners.
		return p.dependsOnTaken(e, func(o *Entry) bool {
			return o.Namespace == e.Namespace && strings.HasPrefix(e.Tag.S, o.Tag.S+" ")
		})
	case "TABLE DATA", "MATERIALIZED VIEW DATA", "ROW SECURITY", "TABLE ATTACH":
		return p.dependsOnTaken(e, func(o *Entry) bool { return o.isRelation() && o.Namespace == e.Namespace && o.Tag == e.Tag })
	case "INDEX", "STATISTICS":
		return p.dependsOnTaken(e, (*Entry).isRelation)
	case "INDEX ATTACH", "COMMENT", "ACL", "SECURITY LABEL", "STATISTICS DATA":
		return !e.isDatabase() && p.dependsOnTaken(e, func(*Entry) bool { return true })
	}
	return false
}

// possible tells whether e, which belongs to something taken, can be made; what cannot is
// noted.
func (p *picker) possible(e *Entry) bool {
	var other func(*Entry) bool
	switch e.Desc.S {
	case "FK CONSTRAINT", "TABLE ATTACH":
		other = (*Entry).isTable
	case "INDEX ATTACH":
		// Without its partition attached an index has nothing to be attached to.
		for _, d := range p.dependencies(e) {
			if !p.taken[d] {
				return false
			}
		}
		return true
	case "SEQUENCE OWNED BY":
		return p.ownerTaken(e)
	default:
		return true
	}
	for _, d := range p.dependencies(e) {
		o := &p.head.Entries[d]
		if other(o) && !p.taken[d] && !p.present(o.Namespace.S, o.Tag.S) {
			p.skipped = append(p.skipped, e.Label()+" ("+o.Label()+" is not there)")
			return false
		}
	}
	return true
}

// ownerTaken tells whether the table that owns a sequence is taken.
func (p *picker) ownerTaken(e *Entry) bool {
	for _, d := range p.dependencies(e) {
		if o := &p.head.Entries[d]; o.Desc.S == "SEQUENCE" && p.dependsOnTaken(o, (*Entry).isTable) {
			return true
		}
	}
	return false
}

func (p *picker) present(schema, name string) bool {
	if p.want.Present == nil {
		return schema == "public" && name == ""
	}
	return p.want.Present(schema, name)
}

// dependencies are the places of the entries that e depends on and that are in the TOC.
func (p *picker) dependencies(e *Entry) []int {
	places := make([]int, 0, len(e.Dependencies))
	for _, id := range e.Dependencies {
		if i, ok := p.byID[id]; ok {
			places = append(places, i)
		}
	}
	return places
}

func (p *picker) dependsOnTaken(e *Entry, fits func(*Entry) bool) bool {
	for _, id := range e.Dependencies {
		if i, ok := p.byID[id]; ok && p.taken[i] && fits(&p.head.Entries[i]) {
			return true
		}
	}
	return false
}

// result masks what is not wanted of all that was taken.
func (p *picker) result() *Selected {
	r := &Selected{Head: p.head, Skipped: p.skipped}
	for i := range p.head.Entries {
		e := &p.head.Entries[i]
		statistics := e.Desc.S == "STATISTICS DATA"
		switch {
		case e.isSetting():
		case !p.taken[i]:
			continue
		case p.want.DataOnly && (statistics || !e.isData()):
			continue
		case p.want.SchemaOnly && (statistics || e.isData()):
			continue
		}
		r.Entries = append(r.Entries, i)
	}
	if p.want.Selective() && !p.want.DataOnly {
		r.Missing = p.missing(r.Entries)
	}
	if p.want.DataOnly {
		r.Skipped = nil // none of them would have been made
	}
	return r
}

// missing lists what chosen entries depend on and do not bring.
func (p *picker) missing(chosen []int) []string {
	var names []string
	for _, i := range chosen {
		for _, d := range p.dependencies(&p.head.Entries[i]) {
			o := &p.head.Entries[d]
			if p.partitions[i] && o.isTable() { // it is created without its parent
				continue
			}
			if p.taken[d] || o.Desc.S == "SCHEMA" && p.present(o.Tag.S, "") || o.isRelation() && p.present(o.Namespace.S, o.Tag.S) {
				continue
			}
			// Constraints and data of other tables only order the restore.
			if o.Section == SectionPreData && !o.isData() && !o.isSetting() {
				names = append(names, o.Label())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
