package archiver

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// choice is what a restore takes of an archive whose contents are known.
type choice struct {
	head      *pgarchive.Head // of the archive
	entries   []int
	selective bool // less than everything: tables or schemas
	oneRun    string
}

// target is the head as the target has to take it.
func (c *choice) target() *pgarchive.Head {
	if !c.selective {
		return c.head
	}
	return c.head.Synthesise(c.entries)
}

// selection is what --table and --schema come to, with what a user should know of it.
type selection struct {
	*pgarchive.Selected
	selective bool
	warnings  []string
}

// selectEntries carries --table and --schema out, with a look at what the target
// has already. pg_restore is not to be given them any more.
func selectEntries(ctx context.Context, to dumper.Conn, head *pgarchive.Head, o dumper.RestoreOptions) (selection, error) {
	want, err := o.Selection(head)
	if err != nil {
		return selection{}, err
	}
	if want.Selective() {
		if want.Present, err = dumper.TargetNames(ctx, to, o); err != nil {
			return selection{}, err
		}
	}
	s := selection{Selected: head.Select(want), selective: want.Selective()}
	for _, skipped := range s.Skipped {
		s.warnings = append(s.warnings, "skipped: "+skipped)
	}
	if n := len(s.Missing); n > 0 {
		s.warnings = append(s.warnings, "what was selected needs, and does not bring: "+someOf(s.Missing[:min(n, 10)], n)+"; the target must have it already")
	}
	return s, nil
}

// choose decides what is restored, and how. Without an index there is no choice:
// pg_restore gets everything, and --table and --schema are its own.
func (r *restoreRun) choose(ctx context.Context, head *pgarchive.Head) (*choice, error) {
	o := r.opts.Restore
	if r.pick != nil {
		return r.pick(head)
	}
	if r.index == nil && r.pass == nil {
		if len(o.Tables) > 0 {
			r.warn("without an index --table is pg_restore's: definition and data, no indexes, constraints or triggers")
		}
		return nil, nil
	}
	s, err := selectEntries(ctx, r.opts.Conn, head, o)
	if err != nil {
		return nil, err
	}
	r.res.Skipped = s.Skipped
	for _, w := range s.warnings {
		r.warn(w)
	}
	c := &choice{head: s.Head, entries: s.Entries, selective: s.selective, oneRun: o.OneRun()}
	if o.Create && c.oneRun == "" && databaseIn(head) == "" {
		c.oneRun = "the archive does not say how to create its database"
	}
	r.opts.Restore = o.Whole()
	return c, nil
}

func (r *restoreRun) targetOptions(head *pgarchive.Head) targetOptions {
	return targetOptions{conn: r.opts.Conn, head: head, restore: r.opts.Restore, intoNonempty: r.opts.IntoNonempty, log: r.log}
}

// inspectUnread is the preflight of the target without the archive.
func (r *restoreRun) inspectUnread(ctx context.Context, found []dumper.Tools) error {
	o := r.targetOptions(&pgarchive.Head{})
	t, err := dumper.InspectTarget(ctx, o.conn, o.head, o.restore)
	if err != nil {
		return err
	}
	if err := checkEmpty(o, t); err != nil {
		return err
	}
	if len(t.Lacks) > 0 && !r.opts.Globals {
		return &LacksError{Target: o.conn.String(), Lacks: t.Lacks}
	}
	_, err = chooseRestoreTools(found, t.ServerMajor, pgarchive.Version{})
	return err
}

func (r *restoreRun) intoDatabase(ctx context.Context, found []dumper.Tools) error {
	if stored, ok := r.source.(storedDump); ok && r.index != nil {
		// Reading by ranges would not notice bytes that were appended.
		if err := stored.checkSize(ctx, r.dump.Size); err != nil {
			return err
		}
	}
	head, err := r.readHead(ctx)
	if err != nil {
		return err
	}
	if r.opts.Restore.Log == nil {
		r.opts.Restore.Log = r.log
	}
	choice, err := r.choose(ctx, head)
	if err != nil {
		return err
	}
	target := r.targetOptions(head)
	if choice != nil {
		target.head = choice.target()
	}
	if r.opts.Globals {
		target.globals = r.readGlobals
	}
	t, globals, err := prepareTarget(ctx, target)
	if err != nil {
		return err
	}
	r.res.Globals, r.res.Warnings = globals, append(r.res.Warnings, t.Warnings...)
	tools, err := chooseRestoreTools(found, t.ServerMajor, head.Version)
	if err != nil {
		return err
	}
	r.target = r.opts.Conn
	if name := databaseIn(head); r.opts.Restore.Create && name != "" {
		r.target = r.target.WithDatabase(name)
	}
	r.res.Target, r.res.PgTool = r.target.String(), tools.Version
	if r.pass != nil {
		if err := r.readThrough(ctx); err != nil {
			return err
		}
	}
	switch {
	case choice == nil:
		return r.stream(ctx, tools, nil)
	case choice.oneRun == "":
		return r.parallel(ctx, tools, choice)
	}
	r.log.Info("restored in one run of pg_restore, one table after another", "why", choice.oneRun)
	if choice.selective || r.headOnly() {
		return r.streamPart(ctx, tools, choice)
	}
	return r.stream(ctx, tools, choice)
}

// proveWhole reads a dump without an index to its end: its one hash is all that
// proves it, and not a byte goes to pg_restore before that. The second reading is
// held against the same hash.
func (r *restoreRun) proveWhole(ctx context.Context) error {
	dump, err := r.openDump(ctx)
	if err != nil {
		return err
	}
	defer dump.Close()
	r.progress.phase(PhaseReadBack)
	if err := dump.toEnd(); err != nil {
		return dump.fault(err)
	}
	r.progress.restart(r.dump.plainSize())
	return nil
}

// stream restores the whole dump by one pg_restore. c is nil for a dump without an
// index.
func (r *restoreRun) stream(ctx context.Context, tools dumper.Tools, c *choice) error {
	if c != nil && !r.opts.Restore.SchemaOnly {
		d, err := newDumpBlocks(c.head, r.dump, r.index, r.source, r.progress)
		if err != nil {
			return err
		}
		if err := d.proveInserts(ctx, c.entries); err != nil {
			return err
		}
	}
	if r.index == nil {
		if err := r.proveWhole(ctx); err != nil {
			return err
		}
	}
	dump, err := r.openDump(ctx)
	if err != nil {
		return err
	}
	defer dump.Close()
	if r.index != nil {
		dump.follow(newLoadMeter(r.index, r.progress))
	}
	r.progress.phase(PhaseData)
	restored, err := dumper.Restore(ctx, r.opts.Conn, tools, dump, r.opts.Restore)
	r.res.Bytes, r.res.Errors = dump.n, restored.Errors
	if err != nil && dump.n == 0 {
		return dump.fault(err)
	}
	if err != nil {
		return partial(r.target, dump.fault(err), "")
	}
	// pg_restore leaves off when it has what it was asked for, and all of that is
	// proved. Without an index nothing is, before the last byte; and a whole
	// restore must not miss what follows the end.
	if r.index == nil || dump.n == r.dump.plainSize() {
		if err := dump.toEnd(); err != nil {
			return partial(r.target, dump.fault(err), "")
		}
	}
	return nil
}

// blocks are those of the dump, of which the head was read.
func (r *restoreRun) blocks(c *choice) (*dumpBlocks, error) {
	if r.headOnly() {
		return &dumpBlocks{head: c.head, key: r.dump.Key, source: r.source, progress: r.progress}, nil
	}
	d, err := newDumpBlocks(c.head, r.dump, r.index, r.source, r.progress)
	if err != nil {
		return nil, err
	}
	r.progress.total(r.dump.Head.Length+d.stored(c.entries), false)
	d.loads.choose(d.blocksIn(c.entries))
	d.count(int(r.dump.Head.Length))
	return d, nil
}

// streamPart restores what was chosen by one pg_restore.
func (r *restoreRun) streamPart(ctx context.Context, tools dumper.Tools, c *choice) error {
	d, err := r.blocks(c)
	if err != nil {
		return err
	}
	restorer, err := dumper.OpenRestorer(ctx, r.opts.Conn, tools, r.opts.Restore)
	if err != nil {
		return err
	}
	r.progress.phase(PhaseData)
	p := &plannedRestore{dumpBlocks: d, restorer: restorer, log: r.log}
	err = p.feed(ctx, c.entries)
	r.res.Bytes, r.res.Errors = d.n.Load(), p.errors
	if err != nil {
		return partial(r.target, err, "")
	}
	return nil
}

// parallel restores what was chosen by several workers.
func (r *restoreRun) parallel(ctx context.Context, tools dumper.Tools, c *choice) error {
	d, err := r.blocks(c)
	if err != nil {
		return err
	}
	jobs := r.opts.Jobs
	if jobs <= 0 {
		jobs = DefaultJobs()
	}
	p := &plannedRestore{
		dumpBlocks: d, jobs: jobs, conn: r.opts.Conn, tools: tools, options: r.opts.Restore, log: r.log,
		plan: c.head.Plan(c.entries, pgarchive.PlanOptions{
			Jobs: jobs, Size: func(id int) int64 { return d.sizes[id] }, Rows: func(id int) int64 { return d.rows[id] },
		}),
	}
	if p.restorer, err = dumper.OpenRestorer(ctx, p.conn, tools, p.options); err != nil {
		return err
	}
	err = p.run(ctx)
	r.res.Jobs, r.res.Bytes, r.res.Errors = jobs, d.n.Load(), p.errors
	if err != nil {
		return partial(r.target, err, p.state())
	}
	return nil
}

// PartialError is a restore that failed when it had begun to change its target.
type PartialError struct {
	Err      error
	Database string
	Holds    string // what is in it, as far as that is known
}

func (e *PartialError) Error() string { return e.Err.Error() + "; " + e.State() }

// Unwrap gives the cause.
func (e *PartialError) Unwrap() error { return e.Err }

// State says what the target holds, and how to start over.
func (e *PartialError) State() string {
	holds := ""
	if e.Holds != "" {
		holds = " (" + e.Holds + ")"
	}
	if errors.Is(e.Err, ErrIntegrity) && !errors.Is(e.Err, ErrIdentity) { // repeating it would not help
		return fmt.Sprintf("database %q may be partly restored%s: drop it, and restore another archive; do not rely on this one", e.Database, holds)
	}
	return fmt.Sprintf("database %q may be partly restored%s: drop and create it again, or repeat with --clean --if-exists", e.Database, holds)
}

func partial(c dumper.Conn, err error, holds string) error {
	return &PartialError{Err: err, Database: c.Database(), Holds: holds}
}
