package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// CloneOptions choose what Clone copies, and where to.
type CloneOptions struct {
	From, To    dumper.Conn
	PGBin       string
	AllowPooler bool
	// DumpArgs are further options for pg_dump.
	DumpArgs []string
	// Restore are the options of pg_restore.
	Restore dumper.RestoreOptions
	// Globals copies roles and tablespaces first.
	Globals bool
	// IntoNonempty allows a target that already holds user tables.
	IntoNonempty bool

	Log      *slog.Logger
	Progress func(Progress)
}

// CloneResult is a clone that ended well.
type CloneResult struct {
	Source   Source                `json:"source"`
	Target   string                `json:"target"`
	Bytes    int64                 `json:"bytes"`
	Totals   Totals                `json:"totals"`
	Globals  *dumper.GlobalsResult `json:"globals,omitempty"`
	Errors   []string              `json:"errors,omitempty"`  // that KeepGoing let pass
	Skipped  []string              `json:"skipped,omitempty"` // as in RestoreResult
	Warnings []string              `json:"warnings,omitempty"`
}

// Clone pipes a dump of From into a restore of To, with no bucket between. A
// dump that fails or is incomplete fails the restore. The source is inspected
// before the dump starts, the target when the dump's head is known and before
// anything is changed in it.
func Clone(ctx context.Context, opts CloneOptions) (*CloneResult, error) {
	c := &cloneRun{opts: opts, log: logger(opts.Log), progress: newTracker(opts.Progress), res: new(CloneResult)}
	if err := c.run(ctx); err != nil {
		return nil, causeOf(ctx, err)
	}
	return c.res, nil
}

// cloneRun is one run of Clone.
type cloneRun struct {
	opts     CloneOptions
	log      *slog.Logger
	progress *tracker
	res      *CloneResult

	src       *dumper.Source
	dumpTools dumper.Tools
}

func (c *cloneRun) run(ctx context.Context) error {
	if err := dumper.CheckRestoreArgs(c.opts.Restore.Args); err != nil {
		return err
	}
	c.progress.phase(PhasePreflight)
	found, err := dumper.FindTools(ctx, c.opts.PGBin)
	if err != nil {
		return err
	}
	c.src, c.dumpTools, err = inspectSource(ctx, sourceOptions{
		conn: c.opts.From, pgBin: c.opts.PGBin, allowPooler: c.opts.AllowPooler, args: c.dumpArgs(), log: c.log,
	})
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer releaseSnapshot(ctx, c.src, c.log)
	if err := c.refuseSelf(ctx); err != nil {
		return err
	}
	c.res.Source = newSource(c.opts.From, c.src)
	c.res.Warnings = append(c.res.Warnings, c.src.Warnings...)
	c.progress.total(c.src.TableBytes, true)

	// Its own context: whatever ends this function early ends pg_dump.
	dumping, stop := context.WithCancel(ctx)
	defer stop()
	stream := newDumpStream(false, c.progress, func() (dumpSource, func() error, error) {
		return c.startDump(dumping)
	})
	stream.weigh = func(head *pgarchive.Head) *tableMeter { return newTableMeter(head, c.src) }
	err = c.pipe(ctx, stream, found)
	if closeErr := stream.close(); err == nil {
		err = closeErr
	}
	return err
}

// selective: pg_dump writes everything, so that what belongs to a table can be told.
func (c *cloneRun) selective() bool {
	return len(c.opts.Restore.Tables) > 0 || len(c.opts.Restore.Schemas) > 0
}

// dumpArgs spares pg_dump what pg_restore would throw away.
func (c *cloneRun) dumpArgs() []string {
	args := slices.Clone(c.opts.DumpArgs)
	if c.opts.Restore.SchemaOnly {
		args = append(args, "--schema-only")
	}
	if c.opts.Restore.DataOnly && !c.selective() {
		args = append(args, "--data-only")
	}
	return args
}

func (c *cloneRun) startDump(ctx context.Context) (dumpSource, func() error, error) {
	c.progress.phase(PhaseCatalogue)
	dump, err := dumper.StartDump(ctx, c.src.Conn(), c.dumpTools, dumper.DumpOptions{
		Snapshot: c.src.Snapshot, Args: c.dumpArgs(), Log: c.log,
		Compression: uncompressed, // between two processes of one machine it would only take time
	})
	if err != nil {
		return nil, nil, err
	}
	scanner := pgarchive.NewScanner(dump)
	if _, err := scanner.Head(); err != nil && !errors.Is(err, pgarchive.ErrUnknownVersion) {
		return nil, nil, errors.Join(sourceFault(err), dump.Close())
	}
	releaseSnapshot(ctx, c.src, c.log)
	return scanner, dump.Close, nil
}

// pipe restores the stream.
func (c *cloneRun) pipe(ctx context.Context, stream *dumpStream, found []dumper.Tools) error {
	if err := stream.open(); err != nil {
		return err
	}
	head := stream.parsed
	if !stream.known {
		text := "the structure of the dump is not checked: its archive version is newer than this pgstow knows"
		c.log.Warn(text)
		c.res.Warnings = append(c.res.Warnings, text)
		head = &pgarchive.Head{}
	}
	if c.opts.Restore.Log == nil {
		c.opts.Restore.Log = c.log
	}
	c.opts.Restore.AllowPooler = c.opts.Restore.AllowPooler || c.opts.AllowPooler
	if stream.known && c.selective() {
		var err error
		if head, err = c.selectFrom(ctx, stream); err != nil {
			return err
		}
	}
	target := targetOptions{
		conn: c.opts.To, head: head, restore: c.opts.Restore, intoNonempty: c.opts.IntoNonempty, log: c.log,
	}
	if c.opts.Globals {
		target.globals = func(ctx context.Context) ([]byte, error) {
			return dumper.DumpGlobals(ctx, c.opts.From, c.dumpTools, dumper.GlobalsOptions{})
		}
	}
	t, globals, err := prepareTarget(ctx, target)
	if err != nil {
		return err
	}
	tools, err := chooseRestoreTools(found, t.ServerMajor, head.Version)
	if err != nil {
		return err
	}
	c.res.Target, c.res.Globals = c.opts.To.String(), globals
	c.res.Warnings = append(c.res.Warnings, t.Warnings...)
	c.progress.phase(PhaseData)
	restored, err := dumper.Restore(ctx, c.opts.To, tools, stream, c.opts.Restore)
	if err == nil {
		err = stream.toEnd()
	}
	if err != nil {
		return partial(c.opts.To, err, "")
	}
	c.res.Errors, c.res.Bytes = restored.Errors, stream.size
	c.res.Totals = Totals{Bytes: stream.size}
	if stream.known {
		o := StoredObject{Size: stream.size}
		c.res.Totals = newIndex("", stream.parsed, stream.source.Blocks(), nil, o).totals()
	}
	return nil
}

// selectFrom puts a head with the selected entries in front of the stream.
// pg_restore passes over the blocks of others.
func (c *cloneRun) selectFrom(ctx context.Context, stream *dumpStream) (*pgarchive.Head, error) {
	s, err := selectEntries(ctx, c.opts.To, stream.parsed, c.opts.Restore)
	if err != nil {
		return nil, err
	}
	for _, w := range s.warnings {
		c.log.Warn(w)
	}
	c.res.Warnings, c.res.Skipped = append(c.res.Warnings, s.warnings...), s.Skipped
	head := s.Head.Synthesise(s.Entries)
	stream.pending, err = head.AppendBinary(nil)
	c.opts.Restore = c.opts.Restore.Whole()
	return head, err
}

// refuseSelf refuses to clone a database into itself, under whatever name the
// host goes: --clean would drop the source while it is read.
func (c *cloneRun) refuseSelf(ctx context.Context) error {
	if c.src.SystemIdentifier == "" {
		return nil
	}
	conn, err := c.opts.To.Connect(ctx)
	if err != nil && c.opts.Restore.Create {
		// The database need not exist yet; any other of its server will do.
		conn, err = c.opts.To.WithDatabase("postgres").Connect(ctx)
		if err != nil {
			conn, err = c.opts.To.WithDatabase("template1").Connect(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var system, database string
	const q = `SELECT system_identifier::text, current_database() FROM pg_control_system()`
	if err := conn.QueryRow(ctx, q).Scan(&system, &database); err != nil {
		c.log.Debug("system identifier of the target is not readable", "error", err)
		return nil
	}
	if system != c.src.SystemIdentifier {
		return nil
	}
	if database == c.src.Database && !c.opts.Restore.Create {
		return fmt.Errorf("%w: source and target are the same database %q", ErrUsage, database)
	}
	if c.opts.Restore.Create {
		return fmt.Errorf("%w: --create would restore %q under its own name, and source and target are the same server",
			ErrUsage, c.src.Database)
	}
	return nil
}
