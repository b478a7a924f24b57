package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// RestoreOptions choose what Restore reads, and where it goes.
type RestoreOptions struct {
	Bucket storage.Bucket
	// Ref is an id, a unique prefix of one, "latest" or a time; Name the label
	// it is looked up under. See Resolve.
	Ref, Name string
	// Object, instead of Ref, is the key of a stock custom-format archive that has no
	// manifest, because somebody else put it there. One pass over it, before pg_restore gets
	// a byte, proves that it is complete and makes its index; what is read of it afterwards
	// is held against that.
	Object string

	// Identities open an encrypted archive.
	Identities Identities

	// Output, when set, receives the plain archive; then there is no target
	// database and everything below but Thaw, Log and Progress is ignored. What was
	// written is whole and proved only when Restore returns no error.
	Output io.Writer

	Conn  dumper.Conn
	PGBin string
	// Restore are the options of pg_restore.
	Restore dumper.RestoreOptions
	// Globals runs the archive's roles and tablespaces first.
	Globals bool
	// IntoNonempty allows a target that already holds user tables.
	IntoNonempty bool
	// Jobs is how many tables are loaded at once; 0 is DefaultJobs. Some options
	// of pg_restore (dumper.RestoreOptions.OneRun) and archives without an index
	// leave only one.
	Jobs int

	// Trust says whose signatures count: nothing else is checked, read or run
	// before.
	Trust Trust

	// Thaw, with a tier, thaws an archive that lies in a cold class; without Wait
	// it only asks for that, and the error is a *ColdError. Of its fields Tier,
	// Days, Wait, Waiting, Now and Sleep count. Without a tier a cold archive is
	// a *ColdError before anything of its dump is read. What cannot be restored for
	// its signature or for want of an identity is not thawed.
	Thaw ThawOptions

	Log      *slog.Logger
	Progress func(Progress)
}

// RestoreResult is a restore that ended well.
type RestoreResult struct {
	Manifest  *Manifest             `json:"manifest,omitempty"` // nil for an Object
	Signature Signature             `json:"signature"`
	Object    *ObjectInfo           `json:"object,omitempty"`
	Bytes     int64                 `json:"bytes"`          // of the dump read
	Jobs      int                   `json:"jobs,omitempty"` // 0 for one stream
	Target    string                `json:"target,omitempty"`
	PgTool    string                `json:"pg_restore,omitempty"` // version
	Globals   *dumper.GlobalsResult `json:"globals,omitempty"`
	// Errors are those that KeepGoing let pass, one line each. A caller that
	// finds some reports the restore as failed (exit 10).
	Errors []string `json:"errors,omitempty"`
	// Skipped belong to selected tables and could not be made without others:
	// foreign keys to tables that are not there.
	Skipped  []string `json:"skipped,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Restore streams an archive into a database, or as a plain archive to
// Output. The manifest's key, the index's and the head's hashes are checked
// before pg_restore gets a byte, and the last bytes of each data block are
// held back until the block's hash has matched.
//
// An archive with an index is restored by several workers, each reading the
// ranges of its tables, and with Restore.Tables or Schemas only what was
// selected is read; see pgarchive.Selection for what a table brings.
//
// The target is inspected before any SQL runs: what it lacks is a
// *LacksError (dumper.ErrPreflight), and one that holds user tables is
// dumper.ErrTargetInUse unless Clean or IntoNonempty is set.
func Restore(ctx context.Context, opts RestoreOptions) (*RestoreResult, error) {
	r := &restoreRun{opts: opts, log: logger(opts.Log), progress: newTracker(opts.Progress), res: new(RestoreResult)}
	if err := r.run(ctx); err != nil {
		return nil, causeOf(ctx, err)
	}
	return r.res, nil
}

// restoreRun is one run of Restore.
type restoreRun struct {
	opts     RestoreOptions
	log      *slog.Logger
	progress *tracker
	res      *RestoreResult

	entry    Entry
	manifest []byte
	dump     StoredObject
	source   rangeOpener // of the dump
	index    *Index
	pass     *openObject // over an Object
	etag     string      // of an Object
	target   dumper.Conn // what is restored into: with Create, the database it creates
	// unread looks at the target as far as that goes before anything of the archive
	// can be read; nil where there is none.
	unread func(context.Context) error
	// pick, when set, decides what is restored in place of --table and --schema.
	pick func(*pgarchive.Head) (*choice, error)
}

func (r *restoreRun) run(ctx context.Context) error {
	var found []dumper.Tools
	var err error
	if r.opts.Output == nil {
		if err := dumper.CheckRestoreArgs(r.opts.Restore.Args); err != nil {
			return err
		}
		if found, err = dumper.FindTools(ctx, r.opts.PGBin); err != nil {
			return err
		}
	}
	r.progress.phase(PhasePreflight)
	if r.opts.Object != "" {
		return r.foreign(ctx, found)
	}
	if r.opts.Output == nil {
		r.unread = func(ctx context.Context) error { return r.inspectUnread(ctx, found) }
	}
	if err := r.readDescription(ctx); err != nil {
		return err
	}
	if r.opts.Output != nil {
		return r.writeOutput(ctx)
	}
	return r.intoDatabase(ctx, found)
}

// readDescription reads manifest and index, each checked by the one before.
func (r *restoreRun) readDescription(ctx context.Context) (err error) {
	if r.entry, err = resolve(ctx, r.opts.Bucket, r.opts.Ref, r.opts.Name, r.log); err != nil {
		return err
	}
	if r.res.Manifest, r.manifest, r.res.Signature, err = readTrusted(ctx, r.opts.Bucket, r.entry, r.opts.Trust); err != nil {
		return err
	}
	if text := r.opts.Trust.doubt(r.res.Signature); text != "" {
		r.warn(text)
	}
	r.dump = r.res.Manifest.Objects.Dump
	if r.index, err = readIndex(ctx, r.opts.Bucket, r.entry, r.res.Manifest, r.opts.Identities); err != nil {
		return err
	}
	// A thaw costs money and hours: what will not be restored is not thawed.
	if err := r.warm(ctx); err != nil {
		return err
	}
	if r.source, err = openDump(ctx, r.opts.Bucket, r.entry, r.res.Manifest, r.opts.Identities); err != nil {
		return err
	}
	if r.index == nil {
		r.warn("the archive has no index: its hash is all that proves it")
	}
	r.progress.total(r.dump.plainSize(), false)
	return nil
}

// writeOutput writes the plain archive, every byte of it proved.
func (r *restoreRun) writeOutput(ctx context.Context) error {
	dump, err := r.openDump(ctx)
	if err != nil {
		return err
	}
	defer dump.Close()
	r.progress.phase(PhaseData)
	_, err = io.Copy(r.opts.Output, dump)
	r.res.Bytes = dump.n
	switch {
	case err == nil:
		return nil
	case dump.err != nil:
		return fmt.Errorf("%w; what was written is not the whole archive", dump.fault(err))
	}
	return fmt.Errorf("write the archive: %w", err)
}

// readHead reads the dump's head alone, checked by its hash. That of an
// unknown version is empty: its archive cannot be looked into.
func (r *restoreRun) readHead(ctx context.Context) (*pgarchive.Head, error) {
	o := r.dump
	switch {
	case r.pass != nil:
		return r.pass.head, nil
	case o.Head == nil:
		return &pgarchive.Head{}, nil
	}
	return readHead(ctx, r.source, o)
}

// openDump opens the whole dump behind a verifier.
func (r *restoreRun) openDump(ctx context.Context) (*checkedDump, error) {
	want, err := expected(r.dump, r.index)
	if err != nil {
		return nil, err
	}
	body, err := r.source.openRange(ctx, 0, 0)
	if err != nil {
		return nil, err
	}
	v, err := pgarchive.NewVerifier(body, want)
	if err != nil {
		return nil, errors.Join(integrity("%w", err), body.Close())
	}
	return &checkedDump{Verifier: v, want: want, body: body, key: r.dump.Key, progress: r.progress}, nil
}

// readGlobals reads the stored roles and tablespaces.
func (r *restoreRun) readGlobals(ctx context.Context) ([]byte, error) {
	m := r.res.Manifest
	if m.Objects.Globals == nil {
		return nil, fmt.Errorf("%w: the archive holds no globals (%s); restore without --globals", ErrUsage, m.Globals)
	}
	raw, err := readPlain(ctx, r.opts.Bucket, r.entry, m.Objects.Globals, r.opts.Identities)
	if err != nil {
		return nil, fmt.Errorf("read globals: %w", err)
	}
	return raw, nil
}

func (r *restoreRun) warn(text string) {
	r.log.Warn(text)
	r.res.Warnings = append(r.res.Warnings, text)
}
