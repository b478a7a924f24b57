package archiver

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// drillPlan is what a drill restores and compares.
type drillPlan struct {
	head    *pgarchive.Head
	entries []int // places in head.Entries
	whole   bool
	part    *DrillPart
	sample  *DrillSample

	tables    []*drilledTable
	sequences []drilledSequence
	objects   []IndexObject
	// allObjects: there are no others than objects.
	allObjects bool

	noOwners, noTablespaces, noSubscriptions bool
	left                                     []string // what is not compared, and why
	// missed: some of it is content, or what defines it.
	missed bool
}

// drilledTable is what one statement of the archive loads: a table, or all that is loaded
// through a partitioned one. It may lie in several blocks.
type drilledTable struct {
	target dumper.CopyTarget
	label  string
	blocks []IndexBlock
	// through: the rows of other tables, its partitions, are loaded by it.
	through bool
	// countOnly: the columns of the blocks stand in different orders.
	countOnly bool

	rows  int64
	sums  pgarchive.RowSums
	bytes int64 // of COPY text with the blocks' end marks
}

// drilledSequence is a sequence and the value that it was given.
type drilledSequence struct {
	dumper.SequenceName
	value dumper.SequenceValue
}

// miss notes content, or definitions, that are not compared.
func (p *drillPlan) miss(what, why string) {
	p.missed = true
	p.leave(what, why)
}

// leave notes what is not compared.
func (p *drillPlan) leave(what, why string) {
	if text := what + ": " + why; !slices.Contains(p.left, text) {
		p.left = append(p.left, text)
	}
}

// leaveTemplate leaves out the comments on what belongs to the server's own role in every new
// database: nobody else may set them.
func (p *drillPlan) leaveTemplate(major int) {
	p.entries = slices.DeleteFunc(p.entries, func(i int) bool {
		e := &p.head.Entries[i]
		if e.Desc.S != "COMMENT" || e.Tag.S != "EXTENSION plpgsql" && (e.Tag.S != "SCHEMA public" || major >= 15) {
			return false
		}
		kind, name, _ := strings.Cut(e.Tag.S, " ")
		p.leave("the comment on "+strings.ToLower(kind)+" "+name, "the drill's role may not set it")
		return true
	})
}

func newDrillPlan(head *pgarchive.Head, ix *Index, opts DrillOptions) (*drillPlan, error) {
	p := &drillPlan{head: head, whole: true}
	if len(ix.Blocks) > 0 && !slices.ContainsFunc(head.Entries, func(e pgarchive.Entry) bool {
		return e.Section == pgarchive.SectionPreData && e.Desc.S != "BLOB"
	}) {
		return nil, fmt.Errorf("%w: the archive holds data without definitions (pg_dump --data-only); a drill has nothing to load them into", ErrUsage)
	}
	chosen := map[int]bool{} // dump ids of blocks
	for _, b := range ix.Blocks {
		chosen[b.DumpID] = true
	}
	var err error
	switch {
	case len(opts.Tables) > 0:
		chosen, err = p.chooseTables(ix, opts.Tables)
	case opts.Sample > 0:
		chosen = p.chooseSample(ix, opts.Sample, opts.Seed)
	}
	if err != nil {
		return nil, err
	}
	p.choose(chosen)
	p.readTables(ix, chosen)
	p.readObjects(ix, chosen)
	p.readSequences()
	return p, nil
}

// chooseTables finds the blocks of what was named, with partitions and heirs.
func (p *drillPlan) chooseTables(ix *Index, tables []string) (map[int]bool, error) {
	want, err := dumper.RestoreOptions{Tables: tables}.Selection(p.head)
	if err != nil {
		return nil, err
	}
	chosen := map[int]bool{}
	for _, i := range p.head.Select(want).Entries {
		if e := &p.head.Entries[i]; e.HadDumper && !e.HoldsLargeObjects() {
			chosen[e.DumpID] = true
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%w: the archive has no rows of what was named; a drill of nothing proves nothing", ErrUsage)
	}
	p.whole = false
	p.part = new(DrillPart)
	p.part.Tables, p.part.Of = countTables(ix, chosen)
	return chosen, nil
}

// countTables counts those that are chosen, and all.
func countTables(ix *Index, chosen map[int]bool) (n, of int) {
	some, all := map[string]bool{}, map[string]bool{}
	for i := range ix.Blocks {
		b := &ix.Blocks[i]
		if b.Kind != KindTable {
			continue
		}
		all[b.label()] = true
		if chosen[b.DumpID] {
			some[b.label()] = true
		}
	}
	return len(some), len(all)
}

// chooseSample takes tables and blocks of large objects in the order of a hash of the seed and
// their names until there are enough. What is loaded through one partitioned table stays
// together.
func (p *drillPlan) chooseSample(ix *Index, percent int, seed string) map[int]bool {
	if seed == "" {
		seed = newID()
	}
	type group struct {
		order [sha256.Size]byte
		size  int64
		ids   []int
	}
	statements := p.copies()
	groups := map[string]*group{}
	var total int64
	for i := range ix.Blocks {
		b := &ix.Blocks[i]
		name := b.label()
		if t, err := dumper.ParseCopy(statements[b.DumpID]); err == nil {
			name = KindTable + " " + cmp.Or(t.Schema, b.Schema) + "." + t.Table
		}
		g := groups[name]
		if g == nil {
			g = &group{order: sha256.Sum256([]byte(seed + "\x00" + name))}
			groups[name] = g
		}
		g.size += max(b.RawBytes, 1)
		g.ids = append(g.ids, b.DumpID)
		total += max(b.RawBytes, 1)
	}
	var list []*group
	for _, g := range groups {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *group) int { return bytes.Compare(a.order[:], b.order[:]) })
	chosen := map[int]bool{}
	var size int64
	for _, g := range list {
		if size*100 >= total*int64(percent) {
			break
		}
		size += g.size
		for _, id := range g.ids {
			chosen[id] = true
		}
	}
	p.whole = false
	p.sample = &DrillSample{Percent: percent, Seed: seed}
	p.sample.Tables, p.sample.Of = countTables(ix, chosen)
	return chosen
}

// copies are the COPY statements by dump id.
func (p *drillPlan) copies() map[int]string {
	all := map[int]string{}
	for i := range p.head.Entries {
		if e := &p.head.Entries[i]; e.HadDumper {
			all[e.DumpID] = e.CopyStmt.S
		}
	}
	return all
}

// choose decides on the entries. Of a part all is defined, so that no type or function is
// missing, but for what wants the rows of other tables: foreign keys, and the content of
// materialized views.
func (p *drillPlan) choose(chosen map[int]bool) {
	full := map[string]bool{} // dump ids of tables whose rows are all there
	for i := range p.head.Entries {
		if e := &p.head.Entries[i]; e.HadDumper && chosen[e.DumpID] && len(e.Dependencies) > 0 {
			full[e.Dependencies[0]] = true
		}
	}
	tables := map[string]bool{}
	for i := range p.head.Entries {
		if e := &p.head.Entries[i]; e.Desc.S == "TABLE" || e.Desc.S == "FOREIGN TABLE" {
			tables[strconv.Itoa(e.DumpID)] = true
		}
	}
	dropped := map[string]bool{}
	keys := 0
	for i := range p.head.Entries {
		e := &p.head.Entries[i]
		drop := slices.ContainsFunc(e.Dependencies, func(id string) bool { return dropped[id] })
		switch {
		case e.Desc.S == "SUBSCRIPTION": // pg_restore leaves it away
			p.noSubscriptions = true
			p.leave("subscriptions", "a drill must not connect to a publisher")
			drop = true
		case p.whole:
		case e.HadDumper:
			drop = drop || !chosen[e.DumpID]
		case e.Desc.S == "MATERIALIZED VIEW DATA":
			drop = true
		case e.Desc.S == "FK CONSTRAINT" && slices.ContainsFunc(e.Dependencies, func(id string) bool { return tables[id] && !full[id] }):
			drop = true
			keys++
		}
		if drop {
			dropped[strconv.Itoa(e.DumpID)] = true
			continue
		}
		p.entries = append(p.entries, i)
	}
	if keys > 0 {
		p.leave(countedNoun(keys, "foreign key"), "the rows of one side are not in this part")
	}
}

// readTables groups the blocks by what loads them.
func (p *drillPlan) readTables(ix *Index, chosen map[int]bool) {
	statements := p.copies()
	byStatement := map[string]*drilledTable{}
	without := map[string]int{} // reason to number of tables
	for _, b := range ix.Blocks {
		if b.Kind != KindTable || !chosen[b.DumpID] {
			continue
		}
		stmt := statements[b.DumpID]
		target, err := dumper.ParseCopy(stmt)
		if err != nil || b.Content == nil {
			without[cmp.Or(b.Reason, "there is no evidence of their rows")]++
			continue
		}
		target.Schema = cmp.Or(target.Schema, b.Schema)
		t := byStatement[stmt]
		if t == nil {
			t = &drilledTable{target: target, label: target.Schema + "." + target.Table}
			byStatement[stmt] = t
			p.tables = append(p.tables, t)
		}
		t.through = t.through || target.Schema != b.Schema || target.Table != b.Name
		t.add(b)
	}
	for reason, n := range without {
		p.miss(countedNoun(n, "table"), reason)
	}
	p.tables = joinOrders(p.tables)
	for _, t := range p.tables {
		if t.countOnly {
			p.miss("content of a partitioned table", "its partitions were loaded through it, with their columns in different orders; its rows are counted")
		}
	}
	// The largest first, so that the last ones to run are small.
	slices.SortStableFunc(p.tables, func(a, b *drilledTable) int { return cmp.Compare(b.bytes, a.bytes) })
}

func (t *drilledTable) add(b IndexBlock) {
	t.blocks = append(t.blocks, b)
	t.bytes += b.RawBytes
	t.rows += b.Content.Rows
	for i, text := range b.Content.RowSums {
		n, _ := strconv.ParseUint(text, 16, 64) // checked when the index was read
		t.sums[i] += n
	}
}

// joinOrders makes one of those that load through the same partitioned table with different
// lists of columns: which rows came by which list cannot be told afterwards.
func joinOrders(all []*drilledTable) []*drilledTable {
	first := map[string]*drilledTable{}
	var list []*drilledTable
	for _, t := range all {
		f := first[t.label]
		if f == nil || !t.through && !f.through {
			first[t.label] = t
			list = append(list, t)
			continue
		}
		for _, b := range t.blocks {
			f.add(b)
		}
		f.through, f.countOnly = true, true
		f.target = f.target.WithoutColumns()
	}
	return list
}

// readObjects finds the large objects of the chosen blocks.
func (p *drillPlan) readObjects(ix *Index, chosen map[int]bool) {
	total, at := 0, 0
	for _, b := range ix.Blocks {
		total += b.LargeObjects
	}
	if total != len(ix.LargeObjects) {
		p.miss(countedNoun(total, "large object"), "there is no evidence of them")
		return
	}
	for _, b := range ix.Blocks {
		if chosen[b.DumpID] {
			p.objects = append(p.objects, ix.LargeObjects[at:at+b.LargeObjects]...)
		}
		at += b.LargeObjects
	}
	p.allObjects = len(p.objects) == total
	if total > 0 {
		p.leave("owners and privileges of large objects", "pg_dump gives them along with their content alone")
	}
}

func (p *drillPlan) readSequences() {
	unread := 0
	for _, i := range p.entries {
		e := &p.head.Entries[i]
		if e.Desc.S != "SEQUENCE SET" {
			continue
		}
		value, ok := dumper.ParseSetval(e.Defn.S)
		if !ok {
			unread++
			continue
		}
		p.sequences = append(p.sequences, drilledSequence{dumper.SequenceName{Schema: e.Namespace.S, Name: e.Tag.S}, value})
	}
	if unread > 0 {
		p.miss(countedNoun(unread, "sequence"), "their definition is not understood")
	}
}

// restoreOptions are those of the drill's restore.
func (p *drillPlan) restoreOptions(log *slog.Logger) dumper.RestoreOptions {
	o := dumper.RestoreOptions{NoOwner: p.noOwners, NoPrivileges: p.noOwners, Log: log}
	if p.noTablespaces {
		o.Args = append(o.Args, "--no-tablespaces")
	}
	if p.noSubscriptions {
		o.Args = append(o.Args, "--no-subscriptions")
	}
	return o
}

// pick gives the restore what the plan has chosen.
func (d *drill) pick(head *pgarchive.Head) (*choice, error) {
	return &choice{head: head, entries: d.plan.entries, selective: !d.plan.whole, oneRun: d.restore.opts.Restore.OneRun()}, nil
}

func countedNoun[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
