package pgarchive

import (
	"slices"
	"strings"
)

// partitions are the places of the tables that are attached to another: by an entry of
// its own, or up to 13 in their definition.
func (h *Head) partitions() map[int]bool {
	type name struct{ schema, name string }
	attached, places := map[name]bool{}, map[int]bool{}
	for i := range h.Entries {
		if e := &h.Entries[i]; e.Desc.S == "TABLE ATTACH" {
			attached[name{e.Namespace.S, e.Tag.S}] = true
		}
	}
	for i := range h.Entries {
		e := &h.Entries[i]
		if !e.isTable() {
			continue
		}
		if _, ok := detached(e.Defn.S); ok || attached[name{e.Namespace.S, e.Tag.S}] {
			places[i] = true
		}
	}
	return places
}

// detached is the definition of a partition without the statement that attaches it to its
// parent, which pg_dump up to 13 writes behind CREATE TABLE, and no TABLE ATTACH; ok tells
// whether there was one.
func detached(defn string) (rest string, ok bool) {
	for at := 0; at < len(defn); {
		end := at + statementEnd(defn[at:])
		statement := strings.TrimLeft(defn[at:end], "\n")
		if strings.HasPrefix(statement, "ALTER TABLE ONLY ") && strings.Contains(statement, " ATTACH PARTITION ") {
			return defn[:at] + defn[end:], true
		}
		at = end
	}
	return defn, false
}

// statementEnd is where the first statement of a table's definition ends, behind its
// semicolon. Strings and names in quotes may hold one; a quote in them is doubled.
func statementEnd(defn string) int {
	var quote byte
	for i := range len(defn) {
		switch c := defn[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'', c == '"':
			quote = c
		case c == ';':
			return i + 1
		}
	}
	return len(defn)
}

// detach takes the attaching statement out of the partitions that are taken without their
// parent, as it leaves out a TABLE ATTACH.
func (p *picker) detach() {
	if p.want.DataOnly {
		return
	}
	whole := p.head
	for i := range whole.Entries {
		e := &whole.Entries[i]
		if !p.taken[i] || !p.partitions[i] {
			continue
		}
		defn, ok := detached(e.Defn.S)
		if !ok {
			continue
		}
		parent := p.absentTable(e)
		if parent == nil {
			continue
		}
		if p.head == whole {
			p.head = &Head{Header: whole.Header, Entries: slices.Clone(whole.Entries)}
		}
		p.head.Entries[i].Defn.S = defn
		p.skipped = append(p.skipped, "TABLE ATTACH "+strings.TrimPrefix(e.Label(), e.Desc.S+" ")+" ("+parent.Label()+" is not there)")
	}
}

// absentTable is a table that e depends on and that is neither taken nor present.
func (p *picker) absentTable(e *Entry) *Entry {
	for _, d := range p.dependencies(e) {
		if o := &p.head.Entries[d]; o.isTable() && !p.taken[d] && !p.present(o.Namespace.S, o.Tag.S) {
			return o
		}
	}
	return nil
}
