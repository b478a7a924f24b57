package pgarchive

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// PlanOptions shape a Plan.
type PlanOptions struct {
	// Jobs is how many blocks will be restored at once; 0 is 1.
	Jobs int
	// Size is a block's content before compression in bytes, where that is known, else its
	// stored length. nil gives every block a job of its own.
	Size func(dumpID int) int64
	// Rows are those of a block, 0 if nobody counted them. nil knows none.
	Rows func(dumpID int) int64
}

// Plan is a restore in steps, each of them a small archive for a pg_restore of its own
// ([Head.Synthesise]). All numbers are places in Head.Entries, ascending. A step must not
// begin before the one above it has ended; jobs have no order among themselves, and are one
// step with what is built between them.
type Plan struct {
	// PreData are the definitions that data need.
	PreData []int
	// Blockless are entries of the data section without a block: sequence values, and
	// from archive version 1.16 on large objects without their content.
	Blockless []int
	// Jobs are the blocks, those with the longest way to go first.
	Jobs []Job
	// Late are indexes and keys that do not come in the job of their table's data: those of
	// large tables, and of tables whose blocks are spread over several jobs.
	Late []Late
	// Final is everything else: foreign keys, triggers, rules, row security, privileges,
	// materialized views. It may go to a pg_restore with -j.
	Final []int
	// Statistics come last: building an index overwrites some of them.
	Statistics []int
}

// Job is one or several blocks, and the indexes and keys of their tables, which one
// pg_restore builds as soon as the data are in.
type Job struct {
	Blocks []int
	Owned  []int
	Cost   int64 // of all this, and of what waits for it
}

// Late can be built when all of Blocks are in. A key locks its table, so that Keys go to one
// pg_restore, before the indexes, which may be built beside each other.
type Late struct {
	Blocks  []int
	Keys    []int
	Indexes []int
	Each    int64 // what one of them costs
}

// Small blocks share a job, since starting pg_restore and connecting take time: up to a
// sixteenth of what one worker has to do, within bounds.
const (
	minBatch  = 256 << 10
	maxBatch  = 16 << 20
	perBatch  = 16
	maxBlocks = 500 // their entries are text for pg_restore to parse
)

// Costs are bytes of COPY text that take as long. They need not be exact: a wrong order
// costs time alone.
const (
	rowCost   = 32  // of a row, beside its text
	indexCost = 48  // of a row in an index
	usualRow  = 128 // bytes of a row where nobody counted
)

// Plan plans the restore of chosen entries, as Select chooses them.
func (h *Head) Plan(chosen []int, opts PlanOptions) *Plan {
	if opts.Size == nil {
		opts.Size = func(int) int64 { return maxBatch }
	}
	p := &planner{
		head: h, sections: h.EffectiveSections(), opts: opts,
		byID: make(map[string]int, len(h.Entries)), here: make(map[string]bool, len(chosen)), tables: map[string]*tablePlan{},
	}
	for i := range h.Entries {
		p.byID[strconv.Itoa(h.Entries[i].DumpID)] = i
	}
	chosen = slices.Clone(chosen)
	slices.Sort(chosen)
	for _, i := range chosen {
		p.here[strconv.Itoa(h.Entries[i].DumpID)] = true
	}
	for _, i := range chosen {
		p.sort(i)
	}
	p.own()
	p.batch()
	return &p.plan
}

// planner is one run of Head.Plan.
type planner struct {
	head     *Head
	sections []Section
	opts     PlanOptions
	byID     map[string]int
	here     map[string]bool // dump IDs of what is chosen

	plan   Plan
	blocks []int
	post   []int                 // post-data that a table may own
	tables map[string]*tablePlan // by the dump ID of the table
	owner  map[int]*tablePlan    // by block
}

// tablePlan is one table with data.
type tablePlan struct {
	blocks []int
	owned  []int
	rows   int64
}

// sort puts an entry into its step.
func (p *planner) sort(i int) {
	e := &p.head.Entries[i]
	switch desc := e.Desc.S; {
	case e.isSetting(): // every archive has them
	case e.HadDumper:
		p.blocks = append(p.blocks, i)
	case desc == "STATISTICS DATA":
		p.plan.Statistics = append(p.plan.Statistics, i)
	case desc == "ACL" && !early(e), desc == "ACL LANGUAGE", desc == "DEFAULT ACL":
		// pg_restore itself leaves privileges to the end: whoever restores may be among
		// those who lose theirs.
		p.plan.Final = append(p.plan.Final, i)
	case p.sections[i] == SectionPreData:
		p.plan.PreData = append(p.plan.PreData, i)
	case p.sections[i] == SectionData:
		p.plan.Blockless = append(p.plan.Blockless, i)
	case desc == "INDEX" || desc == "CONSTRAINT":
		p.post = append(p.post, i)
	default:
		p.plan.Final = append(p.plan.Final, i)
	}
}

// early tells the privileges that cannot wait: those of a group of large objects, which
// pg_restore sets by the entry of the objects beside them, and those of the database, which
// it sets where it creates the database.
func early(acl *Entry) bool {
	return strings.HasPrefix(acl.Tag.S, "LARGE OBJECTS ") || acl.isDatabase()
}

// own gives indexes and keys to the tables whose data they need, where that is all they
// need: one dependency is a table with blocks, and the others are not restored or
// pre-data.
func (p *planner) own() {
	p.owner = make(map[int]*tablePlan, len(p.blocks))
	for _, i := range p.blocks {
		e := &p.head.Entries[i]
		if len(e.Dependencies) == 0 {
			continue
		}
		id := e.Dependencies[0]
		if at, known := p.byID[id]; known && !p.head.Entries[at].isTable() {
			continue // an extension's table, or large objects
		}
		t := p.tables[id]
		if t == nil {
			t = new(tablePlan)
			p.tables[id] = t
		}
		t.blocks = append(t.blocks, i)
		t.rows += p.rows(i)
		p.owner[i] = t
	}
	for _, i := range p.post {
		if t := p.ownerOf(&p.head.Entries[i]); t != nil {
			t.owned = append(t.owned, i)
		} else {
			p.plan.Final = append(p.plan.Final, i)
		}
	}
	slices.Sort(p.plan.Final)
}

func (p *planner) ownerOf(e *Entry) *tablePlan {
	var owner *tablePlan
	for _, id := range e.Dependencies {
		at, known := p.byID[id]
		switch t := p.tables[id]; {
		case t != nil && owner != nil && t != owner:
			return nil
		case t != nil:
			owner = t
		case known && p.here[id] && p.sections[at] != SectionPreData:
			return nil
		}
	}
	return owner
}

// batch makes jobs of the blocks.
func (p *planner) batch() {
	var total int64
	for _, i := range p.blocks {
		total += p.size(i)
	}
	limit := min(max(total/int64(perBatch*max(p.opts.Jobs, 1)), minBatch), maxBatch)
	var small Job
	var sum int64
	flush := func() {
		if len(small.Blocks) > 0 {
			p.plan.Jobs = append(p.plan.Jobs, small)
		}
		small, sum = Job{}, 0
	}
	for _, i := range p.blocks {
		size := p.size(i)
		if size >= limit {
			p.plan.Jobs = append(p.plan.Jobs, Job{Blocks: []int{i}})
			continue
		}
		if sum+size > limit || len(small.Blocks) == maxBlocks {
			flush()
		}
		small.Blocks = append(small.Blocks, i)
		sum += size
	}
	flush()
	p.handOut()
	slices.SortStableFunc(p.plan.Jobs, func(a, b Job) int { return cmp.Compare(b.Cost, a.Cost) })
}

func (p *planner) size(i int) int64 { return max(p.opts.Size(p.head.Entries[i].DumpID), 0) }

func (p *planner) rows(i int) int64 {
	if p.opts.Rows != nil {
		if n := p.opts.Rows(p.head.Entries[i].DumpID); n > 0 {
			return n
		}
	}
	return p.size(i) / usualRow
}

// handOut adds to each job what its tables own, or leaves it for later. It sets the costs.
func (p *planner) handOut() {
	jobOf := map[int]int{}
	for n := range p.plan.Jobs {
		job := &p.plan.Jobs[n]
		for _, i := range job.Blocks {
			jobOf[i] = n
			job.Cost += p.size(i) + rowCost*p.rows(i)
		}
	}
	for _, i := range p.blocks {
		t := p.owner[i]
		if t == nil || len(t.owned) == 0 || t.blocks[0] != i {
			continue
		}
		each := indexCost * t.rows
		last := -1
		for _, b := range t.blocks {
			if n := jobOf[b]; n != last {
				p.plan.Jobs[n].Cost += each * int64(len(t.owned))
				last = n
			}
		}
		n := jobOf[i]
		if p.apart(n) || slices.ContainsFunc(t.blocks, func(b int) bool { return jobOf[b] != n }) {
			p.leave(t, each)
		} else {
			p.plan.Jobs[n].Owned = append(p.plan.Jobs[n].Owned, t.owned...)
		}
	}
	for n := range p.plan.Jobs {
		slices.Sort(p.plan.Jobs[n].Owned)
	}
}

// apart tells a job whose indexes had better not follow at once: other data, with a longer
// way to go, may be waiting for the worker.
func (p *planner) apart(n int) bool {
	blocks := p.plan.Jobs[n].Blocks
	return p.opts.Jobs > 1 && len(blocks) == 1 && p.size(blocks[0]) >= maxBatch
}

func (p *planner) leave(t *tablePlan, each int64) {
	late := Late{Blocks: t.blocks, Each: each}
	for _, i := range t.owned {
		if locks(&p.head.Entries[i]) {
			late.Keys = append(late.Keys, i)
		} else {
			late.Indexes = append(late.Indexes, i)
		}
	}
	p.plan.Late = append(p.plan.Late, late)
}

// locks tells what locks out others that build on the same table: a key, and an index whose
// definition goes on to alter the table (CLUSTER ON, REPLICA IDENTITY), which two sessions
// at once would end in a deadlock.
func locks(e *Entry) bool { return e.Desc.S != "INDEX" || strings.Contains(e.Defn.S, "ALTER ") }
