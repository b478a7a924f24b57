package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// DefaultJobs is how many tables are restored at once unless a number is given: as many
// as this machine has cores, 8 at most. The target's cores would be the better measure,
// and cannot be asked for.
func DefaultJobs() int { return min(runtime.NumCPU(), 8) }

// dumpBlocks are the blocks of a stored dump, and what is needed to read them.
type dumpBlocks struct {
	head   *pgarchive.Head
	key    string // of the dump, for errors
	parts  map[int]pgarchive.ExpectedPart
	sizes  map[int]int64
	rows   map[int]int64
	source rangeOpener

	progress *tracker
	loads    *loadMeter   // nil where no block is read
	n        atomic.Int64 // bytes read
}

// newDumpBlocks wants every promised block in the index.
func newDumpBlocks(head *pgarchive.Head, o StoredObject, ix *Index, source rangeOpener, progress *tracker) (*dumpBlocks, error) {
	want, err := expected(o, ix)
	if err != nil {
		return nil, err
	}
	d := &dumpBlocks{
		head: head, key: o.Key, source: source, progress: progress, loads: newLoadMeter(ix, progress),
		parts: make(map[int]pgarchive.ExpectedPart, len(ix.Blocks)), sizes: make(map[int]int64, len(ix.Blocks)),
		rows: make(map[int]int64, len(ix.Blocks)),
	}
	for i, b := range ix.Blocks {
		d.parts[b.DumpID] = want.Blocks[i]
		// The content's size tells how long loading takes, the stored one does not.
		if d.sizes[b.DumpID] = b.RawBytes; b.RawBytes <= 0 {
			d.sizes[b.DumpID] = b.Length
		}
		if b.Content != nil {
			d.rows[b.DumpID] = b.Content.Rows
		}
	}
	for _, e := range head.Promised() {
		if _, ok := d.parts[e.DumpID]; !ok {
			return nil, integrity("%s promises data of %s, and the index has none", o.Key, e.Label())
		}
	}
	return d, nil
}

func (d *dumpBlocks) count(n int) {
	d.n.Add(int64(n))
	d.progress.read(n)
}

// blocksIn are those of the entries that have a block, as they lie in the dump.
func (d *dumpBlocks) blocksIn(entries []int) []pgarchive.ExpectedPart {
	var parts []pgarchive.ExpectedPart
	for _, i := range entries {
		if e := &d.head.Entries[i]; e.HadDumper {
			parts = append(parts, d.parts[e.DumpID])
		}
	}
	return parts
}

// stored is how many bytes the blocks of the entries have.
func (d *dumpBlocks) stored(entries []int) (n int64) {
	for _, p := range d.blocksIn(entries) {
		n += p.Length
	}
	return n
}

// proveInserts reads the blocks of INSERTs once before pg_restore does. A COPY that never
// sees its end is rolled back; INSERTs are committed one by one, so that holding back
// the end of their block would come too late.
func (d *dumpBlocks) proveInserts(ctx context.Context, entries []int) error {
	for _, i := range entries {
		e := &d.head.Entries[i]
		if !e.HadDumper || e.HoldsLargeObjects() || e.CopyStmt.S != "" {
			continue
		}
		r := &provedRange{parts: []pgarchive.ExpectedPart{d.parts[e.DumpID]}, read: func(int) {},
			open: func(offset, length int64) (io.ReadCloser, error) { return d.source.openRange(ctx, offset, length) }}
		_, err := io.Copy(io.Discard, r)
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return storedFault(d.key, err)
		}
	}
	return nil
}

// archive is an archive of the entries, blocks included.
func (d *dumpBlocks) archive(ctx context.Context, entries []int) (*partArchive, error) {
	a := &partArchive{key: d.key, load: d.loads.worker()}
	var blocks []io.Reader
	// The entries' order is that of the blocks.
	for _, part := range d.blocksIn(entries) {
		if n := len(a.ranges); n > 0 {
			last := a.ranges[n-1]
			if end := last.parts[len(last.parts)-1]; end.Offset+end.Length == part.Offset {
				last.parts = append(last.parts, part)
				continue
			}
		}
		r := &provedRange{parts: []pgarchive.ExpectedPart{part}, open: func(offset, length int64) (io.ReadCloser, error) {
			return d.source.openRange(ctx, offset, length)
		}}
		a.ranges, blocks = append(a.ranges, r), append(blocks, r)
	}
	for _, r := range a.ranges {
		at := &partCursor{parts: r.parts}
		r.read = func(n int) {
			d.count(n)
			at.passed(a.load, n)
		}
	}
	var err error
	a.Reader, err = d.head.Synthesise(entries).Archive(blocks...)
	return a, err
}

// partArchive is an archive made of ranges of another.
type partArchive struct {
	io.Reader
	key    string
	ranges []*provedRange
	load   *loadWorker
}

// fault gives err the class it has when a range is its cause.
func (a *partArchive) fault(err error) error {
	for _, r := range a.ranges {
		if r.err != nil {
			return storedFault(a.key, r.err)
		}
	}
	return err
}

func (a *partArchive) close() error {
	a.load.end()
	var err error
	for _, r := range a.ranges {
		err = errors.Join(err, r.Close())
	}
	return err
}

// plannedRestore is a restore in several runs of pg_restore, each fed with a part of the
// archive: definitions, then data by several workers, with indexes and keys of what is
// in already, then the rest.
type plannedRestore struct {
	*dumpBlocks
	plan     *pgarchive.Plan
	jobs     int
	conn     dumper.Conn
	tools    dumper.Tools
	options  dumper.RestoreOptions
	log      *slog.Logger
	restorer *dumper.Restorer

	mu       sync.Mutex
	errors   []string // that KeepGoing let pass
	begun    int      // the step, for what is told of a restore that failed
	pending  map[string]int
	tables   int
	schedule schedule
}

// The steps of a plannedRestore.
const (
	stepDefinitions = iota
	stepBlockless
	stepData
	stepFinish
	stepStatistics
)

// run restores; after an error, state says how far it came.
func (p *plannedRestore) run(ctx context.Context) error {
	p.prepare()
	for step, do := range []func(context.Context) error{
		stepDefinitions: p.definitions,
		stepBlockless:   func(ctx context.Context) error { return p.toc(ctx, p.plan.Blockless) },
		stepData:        p.data,
		stepFinish:      p.finish,
		stepStatistics:  func(ctx context.Context) error { return p.toc(ctx, p.plan.Statistics) },
	} {
		p.begun = step
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// state says what the target holds after run has failed.
func (p *plannedRestore) state() string {
	switch p.begun {
	case stepDefinitions:
		return "some of the definitions, no data"
	case stepBlockless:
		return "the definitions, no data"
	case stepData:
		return fmt.Sprintf("the definitions and the data of %d of %d tables", p.tables-len(p.pending), p.tables)
	case stepFinish:
		return "definitions and data, not all of the constraints, triggers and privileges"
	}
	return "everything but the planner's statistics"
}

func (p *plannedRestore) prepare() {
	p.pending, p.schedule = map[string]int{}, newSchedule(p.plan)
	for _, job := range p.plan.Jobs {
		for _, part := range p.blocksIn(job.Blocks) {
			p.pending[part.Name]++
		}
	}
	p.tables = len(p.pending)
	p.progress.tables(0, p.tables)
}

// definitions also makes the database where that is asked for; everything else then goes
// into that one.
func (p *plannedRestore) definitions(ctx context.Context) (err error) {
	p.progress.phase(PhaseDefinitions)
	if err := p.toc(ctx, p.plan.PreData); err != nil || !p.options.Create {
		return err
	}
	o := p.options
	o.Create, o.Clean, o.IfExists = false, false, false
	p.conn = p.conn.WithDatabase(databaseIn(p.head))
	p.restorer, err = dumper.OpenRestorer(ctx, p.conn, p.tools, o)
	return err
}

// databaseIn is the name of the database that an archive makes, "" if it makes none.
func databaseIn(head *pgarchive.Head) string {
	for i := range head.Entries {
		if e := &head.Entries[i]; e.Desc.S == "DATABASE" {
			return e.Tag.S
		}
	}
	return ""
}

// toc restores entries without blocks.
func (p *plannedRestore) toc(ctx context.Context, entries []int) error {
	if len(entries) == 0 {
		return nil
	}
	return p.feed(ctx, entries)
}

// feed runs one pg_restore on an archive of the entries.
func (p *plannedRestore) feed(ctx context.Context, entries []int) error {
	if err := p.proveInserts(ctx, entries); err != nil {
		return err
	}
	archive, err := p.archive(ctx, entries)
	if err != nil {
		return err
	}
	result, err := p.restorer.Run(ctx, archive)
	p.note(result)
	if err != nil {
		err = archive.fault(err)
	}
	// What was read is proved; how a connection ends proves nothing.
	if closeErr := archive.close(); closeErr != nil {
		p.log.Debug("close a range of the dump", "error", closeErr)
	}
	return err
}

func (p *plannedRestore) note(result dumper.RestoreResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errors = append(p.errors, result.Errors...)
}

// data loads the blocks, and builds what only needs them. The first failure ends all.
func (p *plannedRestore) data(ctx context.Context) error {
	p.progress.phase(PhaseData)
	jobs := max(p.jobs, 1)
	workers, ctx := errgroup.WithContext(ctx)
	ended := make(chan struct{}, jobs)
	for running := 0; ; {
		for running < jobs {
			t, ok := p.next()
			if !ok {
				break
			}
			running++
			workers.Go(func() error {
				if err := p.do(ctx, t); err != nil {
					return err
				}
				p.done(t)
				ended <- struct{}{}
				return nil
			})
		}
		if running == 0 {
			return workers.Wait()
		}
		select {
		case <-ended:
			running--
		case <-ctx.Done():
			cause := context.Cause(ctx)
			if err := workers.Wait(); err != nil {
				return err
			}
			return cause
		}
	}
}

// do runs a task.
func (p *plannedRestore) do(ctx context.Context, t *task) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := p.feed(ctx, t.entries)
	switch {
	case err == nil:
		return nil
	case t.loads:
		return fmt.Errorf("load %s: %w", p.names(t.blocks), err)
	}
	return fmt.Errorf("indexes and keys of %s: %w", p.names(t.blocks), err)
}

func (p *plannedRestore) next() (*task, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.schedule.next()
}

// done counts the blocks that a task has loaded.
func (p *plannedRestore) done(t *task) {
	p.mu.Lock()
	p.schedule.done(t)
	if t.loads {
		for _, part := range p.blocksIn(t.blocks) {
			if p.pending[part.Name]--; p.pending[part.Name] == 0 {
				delete(p.pending, part.Name)
			}
		}
	}
	left := len(p.pending)
	p.mu.Unlock()
	p.progress.tables(p.tables-left, p.tables)
}

// names lists what blocks are of, the first few.
func (p *plannedRestore) names(blocks []int) string {
	const most = 5
	var names []string
	for _, part := range p.blocksIn(blocks) {
		if !slices.Contains(names, part.Name) {
			names = append(names, part.Name)
		}
	}
	if more := len(names) - most; more > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

// finish restores what needs all data: foreign keys, triggers, privileges.
func (p *plannedRestore) finish(ctx context.Context) error {
	p.progress.phase(PhaseFinish)
	if len(p.plan.Final) == 0 {
		return nil
	}
	raw, err := p.head.Synthesise(p.plan.Final).AppendBinary(nil)
	if err != nil {
		return err
	}
	result, err := p.restorer.RunJobs(ctx, raw, p.jobs)
	p.note(result)
	return err
}
