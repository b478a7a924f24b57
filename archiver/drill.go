package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// DrillOptions say which archive is restored to prove it, and where.
type DrillOptions struct {
	Bucket    storage.Bucket
	Ref, Name string
	// Server is any database of the scratch server, on which a database is created and
	// dropped again. Others there are not touched.
	Server dumper.Conn
	PGBin  string
	// Jobs is how many tables are restored, and compared, at once; 0 is DefaultJobs.
	Jobs int

	// Tables restores and compares the data of these alone, [SCHEMA.]TABLE each with its
	// partitions and heirs; everything is defined all the same.
	Tables []string
	// Sample, from 1 to 99, takes tables and large objects of about that many percent of the
	// archive's content. Seed decides which, "" makes one up: the same seed takes the same.
	Sample int
	Seed   string

	// KeepDatabase leaves the scratch database to whoever wants to look into it.
	KeepDatabase bool
	// NoRecord writes no record beside the archive.
	NoRecord bool

	// Thaw and Identities are as in RestoreOptions.
	Thaw       ThawOptions
	Identities Identities

	// Trust says whose archives are drilled; Signer signs the record.
	Trust  Trust
	Signer Signer

	By     string // who, recorded
	Pgstow string // this program's version
	Log    *slog.Logger
	Now    func() time.Time
	// Progress is called from several goroutines, one at a time.
	Progress func(Progress)

	// restored is called between restoring and comparing; tests change the copy there.
	restored func(context.Context, dumper.Conn) error
	database string // name of the scratch database, for a test that has taken it
	piece    int64  // in place of drillPiece
}

// DrillResult is a drill that came to its end.
type DrillResult struct {
	ID     string `json:"id"`
	Label  string `json:"label"`
	Key    string `json:"key"`
	Result string `json:"result"`           // ResultPassed or ResultFailed
	Record string `json:"record,omitempty"` // its name
	RecordedDrill
	// Differences are what was restored otherwise than it was archived.
	Differences []DrillDifference `json:"differences,omitempty"`
	Scratch     string            `json:"scratch_database"` // its name
	// Database is the scratch database that was left, by KeepDatabase or because it could not
	// be dropped.
	Database string   `json:"database,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Kinds of a DrillDifference.
const (
	DiffRestore     = "restore" // the archive could not be restored
	DiffTable       = "table"
	DiffSequence    = "sequence"
	DiffLargeObject = "large object"
	DiffSchema      = "definition"
)

// DrillDifference is something that was restored otherwise than it was archived.
type DrillDifference struct {
	Kind string `json:"kind"`
	Name string `json:"name,omitempty"`
	What string `json:"what"`
	// RowsExpected and RowsFound are of a table.
	RowsExpected *int64 `json:"rows_expected,omitempty"`
	RowsFound    *int64 `json:"rows_found,omitempty"`
	// Key is the primary key of the first row that differs, where the table has one.
	Key string `json:"key,omitempty"`
}

func (d DrillDifference) String() string { return strings.TrimSpace(d.Kind+" "+d.Name) + ": " + d.What }

// DrillError is a drill that found differences. It is an ErrIntegrity.
type DrillError struct {
	ID          string
	Differences []DrillDifference
}

func (e *DrillError) Error() string {
	first := e.Differences[0]
	text := "the copy differs: " + first.String()
	if first.Kind == DiffRestore {
		text = "the archive does not restore: " + first.What
	}
	if n := len(e.Differences) - 1; n > 0 {
		text += fmt.Sprintf("; and %d more", n)
	}
	return text
}

// Unwrap makes it an ErrIntegrity.
func (e *DrillError) Unwrap() error { return ErrIntegrity }

// LeftDatabaseError is a scratch database that could not be dropped. It unwraps to what ended
// the drill, and to why the database is left where nothing else did.
type LeftDatabaseError struct {
	Err      error // of the drill, nil when it passed
	Database string
	Command  string // SQL that drops it
	Removal  error
}

func (e *LeftDatabaseError) Error() string {
	text := fmt.Sprintf("database %s was left on the scratch server: %s; drop it with: %s", e.Database, oneLine(e.Removal), e.Command)
	if e.Err != nil {
		text = oneLine(e.Err) + "; " + text
	}
	return text
}

// Unwrap gives the cause.
func (e *LeftDatabaseError) Unwrap() error {
	if e.Err != nil {
		return e.Err
	}
	return e.Removal
}

// Drill restores an archive into a database that it creates on a scratch server, compares
// what is there then with what was archived, writes a record of it beside the archive, and
// drops the database, whatever happened.
//
// Compared are the rows of every table, by their number and by sums that do not depend on
// their order, the values of sequences, the content of large objects, and the definitions.
// What was not compared stands in the result, and why. A copy that differs is a *DrillError
// beside the result, and its record says failed; an archive that cannot be restored for a
// reason that is not the server's likewise.
func Drill(ctx context.Context, opts DrillOptions) (*DrillResult, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := checkDrill(opts); err != nil {
		return nil, err
	}
	d := &drill{opts: opts, log: logger(opts.Log), started: opts.Now()}
	d.restore = &restoreRun{
		opts: RestoreOptions{
			Bucket: opts.Bucket, Ref: opts.Ref, Name: opts.Name, PGBin: opts.PGBin, Jobs: opts.Jobs,
			Thaw: opts.Thaw, Identities: opts.Identities, Trust: opts.Trust, Log: opts.Log,
		},
		log: d.log, progress: newTracker(d.clock.watch(opts.Progress)), res: new(RestoreResult), pick: d.pick,
	}
	err := d.run(ctx)
	if d.found == nil {
		return nil, causeOf(ctx, err)
	}
	return d.found, causeOf(ctx, err)
}

func checkDrill(opts DrillOptions) error {
	switch {
	case opts.Sample < 0 || opts.Sample > 99:
		return fmt.Errorf("%w: a sample of %d%%: want 1 to 99", ErrUsage, opts.Sample)
	case opts.Sample > 0 && len(opts.Tables) > 0:
		return fmt.Errorf("%w: a sample and a choice of tables exclude each other", ErrUsage)
	case opts.Seed != "" && opts.Sample == 0:
		return fmt.Errorf("%w: a seed goes with a sample", ErrUsage)
	}
	if opts.NoRecord {
		return nil
	}
	return checkWords("who it is", opts.By, maxBy)
}

// drill is one run of Drill.
type drill struct {
	opts    DrillOptions
	log     *slog.Logger
	restore *restoreRun
	clock   phaseClock
	started time.Time

	tools   []dumper.Tools
	head    *pgarchive.Head
	plan    *drillPlan
	server  dumper.Conn
	scratch *dumper.Scratch
	// restoring is what the restore took, from the first look at the empty database on.
	restoring time.Duration
	found     *DrillResult // nil until something was compared, or the archive found unfit
}

func (d *drill) run(ctx context.Context) error {
	d.restore.progress.phase(PhasePreflight)
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.create(ctx); err != nil {
		return err
	}
	err := d.prove(ctx)
	d.restore.progress.phase(PhaseDrop)
	err = d.drop(ctx, err)
	d.clock.end()
	if cause := context.Cause(ctx); cause != nil && d.found != nil {
		d.found = nil // it is not recorded, and so has not come to its end
		if err == nil {
			err = cause
		}
	}
	if d.found == nil {
		return err
	}
	return d.conclude(ctx, err)
}

// prepare reads what the archive says of itself, plans, and looks at the scratch server.
// Nothing is changed there.
func (d *drill) prepare(ctx context.Context) (err error) {
	r := d.restore
	if d.tools, err = dumper.FindTools(ctx, d.opts.PGBin); err != nil {
		return err
	}
	// First of all, for a thaw may take hours.
	if d.server, err = dumper.ScratchServer(ctx, d.opts.Server, d.log); err != nil {
		return err
	}
	if err := r.readDescription(ctx); err != nil {
		return err
	}
	if r.index == nil {
		return fmt.Errorf("%w: the archive has no index, so that there is nothing to compare with; restore it and look", ErrUsage)
	}
	if d.head, err = r.readHead(ctx); err != nil {
		return err
	}
	if d.plan, err = newDrillPlan(d.head, r.index, d.opts); err != nil {
		return err
	}
	return d.inspect(ctx)
}

// inspect looks whether the scratch server can take the archive, before there is a database:
// what is missing there is named before anything is restored.
func (d *drill) inspect(ctx context.Context) error {
	o := dumper.RestoreOptions{Log: d.log}
	t, err := dumper.InspectTarget(ctx, d.server, d.head, o)
	if err != nil {
		return err
	}
	source := d.restore.res.Manifest.Source
	if major := dumper.MajorOf(source.ServerVersion); major > t.ServerMajor {
		return fmt.Errorf("%w: the scratch server is PostgreSQL %d, the archive is of a server of version %d, which an older one cannot take; drill on a server of version %d or newer",
			dumper.ErrPreflight, t.ServerMajor, major, major)
	}
	var lacks []dumper.Lack
	var missing []string
	for _, l := range t.Lacks {
		switch l.Kind {
		case "encoding", "collation": // of the database that was connected to; the drill makes its own
		case "tablespace":
			d.plan.leave("tablespaces", fmt.Sprintf("the scratch server has no tablespace %q", l.Name))
			d.plan.noTablespaces = true
		case "owner", "grantee":
			if strings.HasPrefix(l.Cure, "a policy or user mapping ") { // no option of pg_restore leaves it away
				lacks = append(lacks, dumper.Lack{Kind: "role", Name: l.Name, Cure: "a policy or user mapping names it, and cannot be made without: CREATE ROLE " + dumper.QuoteName(l.Name) + " NOLOGIN on the scratch server"})
				continue
			}
			missing = append(missing, l.Name)
		default:
			lacks = append(lacks, l)
		}
	}
	if slices.Sort(missing); len(missing) > 0 {
		missing = slices.Compact(missing)
		d.plan.noOwners = true
		d.plan.leave("owners and privileges", "the drill's role cannot act for "+someOf(missing[:min(len(missing), 5)], len(missing))+" on the scratch server, or there is no such role")
	}
	if len(lacks) > 0 {
		return &LacksError{Target: "the scratch server " + d.server.String(), Lacks: lacks}
	}
	return nil
}

func (d *drill) create(ctx context.Context) (err error) {
	m := d.restore.res.Manifest
	name := cmp.Or(d.opts.database, d.scratchName())
	d.scratch, err = dumper.OpenScratch(ctx, d.server, dumper.ScratchOptions{
		Name: name, Head: d.head, Log: d.log,
		Purpose: fmt.Sprintf("drill of archive %s (%s), %s, to be dropped", m.ID, m.Label, d.started.UTC().Format(time.RFC3339)),
	})
	if err != nil {
		return err
	}
	d.log.Debug("created a scratch database", "database", name, "server", d.server.String())
	if !d.scratch.OwnsTemplate {
		d.plan.leaveTemplate(d.scratch.ServerMajor)
	}
	return nil
}

// prove restores and compares. What it finds is in d.found; its error is what kept it from
// finding out.
func (d *drill) prove(ctx context.Context) error {
	d.restore.opts.Conn = d.scratch.Conn
	d.restore.opts.Restore = d.plan.restoreOptions(d.log)
	began := time.Now()
	if err := d.restore.intoDatabase(ctx, d.tools); err != nil {
		return d.notRestored(ctx, err)
	}
	d.restoring = time.Since(began)
	if d.opts.restored != nil {
		if err := d.opts.restored(ctx, d.scratch.Conn); err != nil {
			return err
		}
	}
	c := &comparison{drill: d, jobs: d.opts.Jobs}
	if c.jobs <= 0 {
		c.jobs = DefaultJobs()
	}
	if err := c.run(ctx); err != nil {
		return err
	}
	d.found = d.result(c)
	return nil
}

// drop drops the scratch database and adds to err that it is left.
func (d *drill) drop(ctx context.Context, err error) error {
	if d.opts.KeepDatabase && context.Cause(ctx) == nil {
		d.log.Warn("the scratch database is kept; drop it when you have seen enough", "database", d.scratch.Name, "with", d.scratch.DropCommand())
		if d.found != nil {
			d.found.Database = d.scratch.Name
		}
		return err
	}
	removal := d.scratch.Drop(ctx)
	if removal == nil {
		return err
	}
	if d.found != nil {
		d.found.Database = d.scratch.Name
	}
	return &LeftDatabaseError{Err: err, Database: d.scratch.Name, Command: d.scratch.DropCommand(), Removal: removal}
}

// result is what is known when everything was compared.
func (d *drill) result(c *comparison) *DrillResult {
	res := d.newResult()
	res.Differences = c.differences
	if len(res.Differences) > 0 {
		res.Result = ResultFailed
	}
	res.Tables, res.Rows, res.RawBytes = c.tables, c.rows, c.bytes
	res.Sequences, res.LargeObjects = c.sequences, c.objects
	res.Schema, res.SchemaReason = c.schema, c.schemaReason
	return res
}

func (d *drill) newResult() *DrillResult {
	m := d.restore.res.Manifest
	res := &DrillResult{ID: m.ID, Label: m.Label, Key: d.restore.entry.Key, Result: ResultPassed, Scratch: d.scratch.Name}
	res.Warnings = d.restore.res.Warnings
	res.Started = d.started.UTC().Truncate(time.Second)
	res.ServerVersion, res.PgRestore, res.Jobs = d.scratch.ServerVersion, d.restore.res.PgTool, d.restore.res.Jobs
	res.Bytes = d.restore.res.Bytes
	res.Part, res.Sample = d.plan.part, d.plan.sample
	return res
}

// conclude writes the record and says how it went.
func (d *drill) conclude(ctx context.Context, err error) error {
	res := d.found
	res.Phases, res.Seconds, res.RestoreSeconds = d.clock.list, seconds(d.clock.total()), seconds(d.restoring)
	res.Differing, res.NotCompared = len(res.Differences), d.plan.left
	res.Complete = !d.plan.missed && res.Part == nil && res.Sample == nil && res.Schema != SchemaNotCompared
	if err == nil && res.Result == ResultFailed {
		err = &DrillError{ID: res.ID, Differences: res.Differences}
	}
	if left := (*LeftDatabaseError)(nil); errors.As(err, &left) && left.Err == nil && res.Result == ResultFailed {
		left.Err = &DrillError{ID: res.ID, Differences: res.Differences}
	}
	if d.opts.NoRecord {
		return err
	}
	name, recordErr := d.record(ctx)
	if recordErr != nil {
		recordErr = fmt.Errorf("the drill has %s, but its record could not be written: %w", res.Result, recordErr)
	}
	res.Record = name
	if err == nil {
		return recordErr
	}
	if recordErr != nil {
		d.log.Error(oneLine(recordErr))
	}
	return err
}

// record writes what was found beside the archive.
func (d *drill) record(ctx context.Context) (string, error) {
	e := d.restore.entry
	all, err := look(ctx, d.opts.Bucket, e.dir(), e.Objects)
	if err != nil {
		return "", err
	}
	drilled := d.found.RecordedDrill
	r := Record{
		Kind: RecordDrill, ManifestSHA256: hexSum(d.restore.manifest), By: d.opts.By, Result: d.found.Result, Pgstow: d.opts.Pgstow,
		Drill: &drilled,
	}
	o, err := putRecord(ctx, d.opts.Bucket, e, r, d.opts.Signer, all, d.restore.res.Manifest.Kept, d.opts.Now())
	return o.Name, err
}

// dumpArgs are the options of the archive's pg_dump, which an encrypted archive keeps to itself.
func (d *drill) dumpArgs() []string {
	if w := d.restore.index.Withheld; w != nil && len(w.PgDumpArgs) > 0 {
		return w.PgDumpArgs
	}
	return d.restore.res.Manifest.Tools.PgDumpArgs
}

// scratchName is one that nobody has: the archive's id tells whose it is.
func (d *drill) scratchName() string {
	return "pgstow_drill_" + d.restore.res.Manifest.ID + "_" + newID()
}
