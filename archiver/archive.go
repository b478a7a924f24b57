package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// DefaultStallTimeout is how long a store may accept no new byte.
const DefaultStallTimeout = 5 * time.Minute

// ArchiveOptions choose what Archive stores, and where.
type ArchiveOptions struct {
	Bucket storage.Bucket
	Conn   dumper.Conn
	// Name is the label; "" takes DefaultLabel of host and database.
	Name string
	// Policy says how the archive is kept; the zero value asks for nothing
	// beyond what the bucket does by itself.
	Policy Policy
	// MaxKeep is the longest compliance lock; zero is DefaultMaxKeep.
	MaxKeep Period
	// RequireReadBack makes it an error when the store does not show what it
	// was asked to keep.
	RequireReadBack bool
	// AllowNoEvidence lets a policy with a lock take a dump without evidence.
	AllowNoEvidence bool
	// Recipients, when there are some, are whom dump, index and globals are
	// encrypted to. The manifest then names no tables.
	Recipients Recipients
	// RequireEncryption refuses to run without Recipients.
	RequireEncryption bool
	// NoGlobals leaves roles and tablespaces out.
	NoGlobals bool
	// RolePasswords takes the roles' password hashes into the globals; it needs
	// Recipients, and a role that may read them (a superuser, or pg_read_all_data).
	RolePasswords bool
	// PGBin is the only directory in which client programs are looked for; ""
	// looks in all the usual ones.
	PGBin string
	// AllowPooler accepts pooled endpoints.
	AllowPooler bool
	// Compression of the dump; the zero value is auto.
	Compression Compression
	// Jobs is how many workers compress and hash beside pg_dump; 0 is one per
	// processor.
	Jobs int
	// VerifyCompression undoes the compression of everything right after it
	// was done, and compares. A policy with a lock does so in any case.
	VerifyCompression bool
	// StallTimeout ends the archive when the store accepts no byte for so
	// long; 0 is DefaultStallTimeout, less than 0 never ends it.
	StallTimeout time.Duration
	// DumpArgs are further options for pg_dump.
	DumpArgs []string
	// Signer signs the manifest; nil leaves the archive unsigned.
	Signer Signer
	// Pgstow is this program's version, for the manifest.
	Pgstow string
	// Log receives warnings; nil discards them.
	Log *slog.Logger
	// Progress, when set, is called from one goroutine at a time and must
	// return quickly.
	Progress func(Progress)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// ArchiveResult is a committed archive.
type ArchiveResult struct {
	Manifest       *Manifest `json:"manifest"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	// ReadBack says whether the manifest itself was read back after it was
	// stored: ReadBackDone, ReadBackDenied or ReadBackUnavailable.
	ReadBack string   `json:"read_back"`
	Warnings []string `json:"warnings,omitempty"`
}

// Archive dumps one database into the bucket. The archive exists when Archive
// returns without an error, and not otherwise: whatever fails before the
// manifest is stored leaves nothing that List shows as an archive, and the
// objects of the failed run are removed; those that cannot be are named by a
// *LeftoverError. Two errors come with an archive: when the store's answer to the
// manifest is lost and cannot be found out (storage.ErrUnknownOutcome) it may
// exist, and with a *CommittedError it does: the store shows its manifest to be
// kept less firmly than was asked, or does not show it as RequireReadBack wants.
//
// Ending ctx ends pg_dump, aborts the upload and removes what was stored.
func Archive(ctx context.Context, opts ArchiveOptions) (*ArchiveResult, error) {
	r := newArchiveRun(opts)
	defer r.watch(ctx)()
	res, err := r.run(ctx)
	if err == nil {
		return res, nil
	}
	err = causeOf(ctx, err)
	var unknown *commitUnknownError
	var committed *CommittedError
	if errors.As(err, &unknown) || errors.As(err, &committed) {
		return nil, err // the archive exists, or may: nothing of it may be removed
	}
	return nil, r.leftover(ctx, err)
}

// archiveRun is one run of Archive.
type archiveRun struct {
	opts     ArchiveOptions
	log      *slog.Logger
	stall    time.Duration
	progress *tracker

	src      *dumper.Source
	tools    dumper.Tools
	packing  packing
	keeper   *keeper
	dir      Dir
	manifest *Manifest
	objects  []IndexObject             // large objects, complete with the stream's end
	warnings []string                  // all of them; those of an encrypted archive's manifest name no tables
	stored   []storedKey               // what the run has put, oldest first
	ended    atomic.Pointer[time.Time] // when the caller's context ended
}

func newArchiveRun(opts ArchiveOptions) *archiveRun {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Policy.Lock != storage.LockNone {
		opts.VerifyCompression = true // nobody can take a damaged one away
	}
	if opts.Pgstow == "" {
		opts.Pgstow = "unknown"
	}
	r := &archiveRun{opts: opts, log: logger(opts.Log), stall: opts.StallTimeout, progress: newTracker(opts.Progress)}
	if r.stall == 0 {
		r.stall = DefaultStallTimeout
	}
	return r
}

func (r *archiveRun) run(ctx context.Context) (*ArchiveResult, error) {
	if err := CheckLabel(cmp.Or(r.opts.Name, DefaultPolicy)); err != nil {
		return nil, err
	}
	if err := r.checkSealing(); err != nil {
		return nil, err
	}
	var err error
	if r.keeper, err = newKeeper(r.opts.Bucket, r.opts.Policy, r.opts.MaxKeep, r.opts.RequireReadBack, r.opts.Now()); err != nil {
		return nil, err
	}
	if r.lockWantsEvidence() && dumper.DumpsInserts(r.opts.DumpArgs) {
		return nil, noEvidence("pg_dump would write INSERT statements")
	}
	r.progress.phase(PhasePreflight)
	src, tools, err := inspectSource(ctx, sourceOptions{
		conn: r.opts.Conn, pgBin: r.opts.PGBin, allowPooler: r.opts.AllowPooler, args: r.opts.DumpArgs, log: r.log,
	})
	if err != nil {
		return nil, err
	}
	defer releaseSnapshot(ctx, src, r.log)
	r.src, r.tools, r.packing = src, tools, choosePacking(r.opts.Compression, tools.Major)
	if err := r.begin(); err != nil {
		return nil, err
	}
	if err := r.askRules(ctx); err != nil {
		return nil, err
	}
	stream, err := r.storeDump(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.storeIndex(ctx, stream); err != nil {
		return nil, err
	}
	return r.commit(ctx)
}

// begin fixes the archive's place and starts its manifest.
func (r *archiveRun) begin() error {
	started := r.opts.Now().UTC()
	label := r.opts.Name
	if label == "" {
		label = DefaultLabel(r.opts.Conn.Host(), r.src.Database)
	}
	dir, err := NewDir(r.opts.Policy.segment(), label, started)
	if err != nil {
		return err
	}
	r.dir = dir
	r.progress.total(r.estimate(), true)
	r.manifest = &Manifest{
		Format: Format, ID: dir.ID, Label: dir.Label, Policy: dir.Policy, Key: dir.Key(ManifestName),
		Pgstow: r.opts.Pgstow, Started: started.Truncate(time.Millisecond),
		Source:   newSource(r.opts.Conn, r.src),
		Tools:    Tools{PgDump: r.tools.Version, PgDumpArgs: r.opts.DumpArgs},
		ReadBack: ReadBackDone, Recipients: r.opts.Recipients.Texts(),
	}
	for _, w := range r.src.Warnings {
		r.note(w)
	}
	if r.packing.needs > 0 {
		r.warn(fmt.Sprintf("--compress %s: only pg_restore %d and later can read this archive", r.opts.Compression, r.packing.needs))
	}
	return nil
}

// askRules looks, before pg_dump starts, for lifecycle rules that would delete
// the archive too early.
func (r *archiveRun) askRules(ctx context.Context) error {
	bounded, cancel := r.bounded(ctx)
	defer cancel()
	rules, err := standingRules(bounded, r.keeper, r.dir.String(), r.manifest.Started)
	var odd *oddRulesError
	if errors.As(err, &odd) {
		r.warn("whether a lifecycle rule would delete the archive too early is not known: " + oneLine(err))
		return nil
	}
	r.keeper.standing = rules
	return causeOf(bounded, err)
}

// estimate is what the dump may come to when it is stored.
func (r *archiveRun) estimate() int64 { return int64(float64(r.src.TableBytes) * r.packing.ratio) }

// storeDump uploads the dump and compares what the store made of it. The
// upload is opened first: the stream's first Read, which starts pg_dump, comes
// only when the store has taken the request.
func (r *archiveRun) storeDump(ctx context.Context) (*dumpStream, error) {
	// The chunks of an age file are made in their order, the first one first.
	deferred := r.opts.Bucket.Capabilities().DeferredHead && r.opts.Recipients.IsZero()
	guarded, progress, stop := storage.GuardStall(ctx, r.stall, r.progress.put)
	defer stop()
	stream := newDumpStream(deferred, r.progress, func() (dumpSource, func() error, error) {
		return r.startDump(guarded)
	})
	stream.weigh = func(head *pgarchive.Head) *tableMeter { return newTableMeter(head, r.src) }
	reader, sealed, err := r.sealing(stream)
	if err != nil {
		return nil, err
	}
	name := r.opts.Recipients.name(DumpName)
	put, err := r.keeper.options(name, storage.PutOptions{
		ContentType:  "application/octet-stream",
		SizeEstimate: r.estimate(),
		Progress:     progress,
	}, r.manifest.Started)
	if err != nil {
		return nil, err
	}
	if deferred {
		put.Head = &storage.DeferredHead{Size: reader.headSize, Bytes: reader.headBytes}
	}
	r.progress.phase(PhaseOpening)
	key := r.dir.Key(name)
	o, err := r.opts.Bucket.Put(guarded, key, reader, put)
	if closeErr := stream.close(); err == nil {
		err = closeErr
	}
	r.noteStored(key, o, err)
	if err != nil {
		return nil, causeOf(guarded, stream.blame(err))
	}
	r.keeper.note(key, name, o.Version, put)
	r.progress.phase(PhaseCommit)
	so := stream.storedObject(key, o)
	if sealed != nil {
		sealed.describe(&so)
	}
	r.manifest.Objects.Dump = so
	return stream, r.readBack(ctx, &r.manifest.Objects.Dump, o)
}

// startDump runs when the upload is open: globals first, so that a store that
// fails shows it there, then pg_dump.
func (r *archiveRun) startDump(ctx context.Context) (dumpSource, func() error, error) {
	if err := r.storeGlobals(ctx); err != nil {
		return nil, nil, err
	}
	r.progress.phase(PhaseCatalogue)
	dump, err := dumper.StartDump(ctx, r.src.Conn(), r.tools, dumper.DumpOptions{
		Snapshot: r.src.Snapshot, Args: r.opts.DumpArgs, Log: r.log, Compression: r.packing.pgDump,
	})
	if err != nil {
		return nil, nil, err
	}
	packer, err := pgarchive.NewPacker(dump, pgarchive.PackOptions{
		Compression: r.packing.pack, Workers: r.opts.Jobs, Verify: r.opts.VerifyCompression,
		LargeObject: func(o pgarchive.LargeObject) {
			r.objects = append(r.objects, IndexObject{OID: o.OID, RawBytes: o.RawBytes, SHA256: o.SHA256})
		},
	})
	if err != nil {
		return nil, nil, errors.Join(err, dump.Close())
	}
	// pg_dump first: the packer's reader ends when its Read returns.
	end := func() error { return errors.Join(dump.Close(), packer.Close()) }
	head, err := packer.Head()
	switch {
	case errors.Is(err, pgarchive.ErrUnknownVersion):
		head = nil
		r.unchecked(err)
	case err != nil:
		return nil, nil, errors.Join(sourceFault(err), end())
	default:
		r.describe(head)
	}
	if err := r.wantEvidence(head); err != nil {
		return nil, nil, errors.Join(err, end())
	}
	// pg_dump has its own transaction by now.
	releaseSnapshot(ctx, r.src, r.log)
	r.progress.phase(PhaseData)
	return packer, end, nil
}

// describe records what is known of the dump once its head has come.
func (r *archiveRun) describe(head *pgarchive.Head) {
	r.manifest.Structure = StructureComplete
	level := head.Compression.Level
	if level == 0 {
		level = r.packing.level(head.Compression.Algorithm)
	}
	r.manifest.Archive = ArchiveInfo{
		Version:          fmt.Sprintf("%d.%d.%d", head.Version.Major, head.Version.Minor, head.Version.Rev),
		Compression:      head.Compression.Algorithm,
		CompressionLevel: level,
	}
}

// unchecked is what is said of a dump of an unknown version.
func (r *archiveRun) unchecked(err error) {
	r.manifest.Structure = StructureUnchecked
	r.manifest.Evidence, r.manifest.EvidenceReason = EvidenceNone, oneLine(err)
	text := "the structure of the dump was not checked and it has no index"
	if r.packing.pgDump == uncompressed {
		text += ", and it is stored uncompressed"
	}
	r.warn(fmt.Sprintf("%s: %s; upgrade pgstow", text, oneLine(err)))
}

// storeGlobals stores roles and tablespaces when they can be read.
func (r *archiveRun) storeGlobals(ctx context.Context) error {
	if r.opts.NoGlobals {
		r.manifest.Globals = GlobalsOmitted
		return nil
	}
	r.progress.phase(PhaseGlobals)
	sql, err := dumper.DumpGlobals(ctx, r.opts.Conn, r.tools, dumper.GlobalsOptions{RolePasswords: r.opts.RolePasswords})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, dumper.ErrGlobals) && !r.opts.RolePasswords {
		r.manifest.Globals, r.manifest.GlobalsReason = GlobalsUnreadable, oneLine(err)
		r.warn(fmt.Sprintf("roles and tablespaces are not in the archive: %s", oneLine(err)))
		return nil
	}
	if err != nil {
		return r.globalsFault(err)
	}
	o, err := r.storeSmall(ctx, GlobalsName, sql, "application/sql")
	if err != nil {
		return fmt.Errorf("store globals: %w", err)
	}
	r.manifest.Globals, r.manifest.Objects.Globals = GlobalsIncluded, o
	r.manifest.RolePasswords = r.opts.RolePasswords
	return nil
}

// storeIndex stores the index of a dump whose structure is known.
func (r *archiveRun) storeIndex(ctx context.Context, stream *dumpStream) error {
	r.manifest.Totals.Bytes = r.manifest.Objects.Dump.Size
	if !stream.known {
		r.withhold(nil)
		return nil
	}
	ix := newIndex(r.dir.ID, stream.parsed, stream.source.Blocks(), r.objects, r.manifest.Objects.Dump)
	r.manifest.Totals = ix.totals()
	r.manifest.Totals.Bytes = r.manifest.Objects.Dump.Size
	r.manifest.Evidence, r.manifest.EvidenceReason = ix.evidence()
	if r.manifest.Evidence == EvidenceNone {
		r.warn("the archive holds no evidence of its content: " + r.manifest.EvidenceReason)
	}
	r.withhold(ix)
	raw, err := ix.encode()
	if err != nil {
		return err
	}
	o, err := r.storeSmall(ctx, IndexName, raw, "application/gzip")
	if err != nil {
		return fmt.Errorf("store index: %w", err)
	}
	r.manifest.Objects.Index = o
	return nil
}

func (r *archiveRun) warn(text string) {
	r.log.Warn(text)
	r.note(text)
}

// note keeps a warning that was logged.
func (r *archiveRun) note(text string) {
	r.warnings = append(r.warnings, text)
	r.manifest.Warnings = append(r.manifest.Warnings, text)
}

// newSource is what a manifest says about a source.
func newSource(c dumper.Conn, s *dumper.Source) Source {
	return Source{
		Host: c.Host(), Database: s.Database, ServerVersion: s.ServerVersion, Encoding: s.Encoding,
		SystemIdentifier: s.SystemIdentifier, Snapshot: s.Snapshot, InRecovery: s.InRecovery,
	}
}

// sourceFault makes what is wrong with pg_dump's output a failure of the dump.
func sourceFault(err error) error {
	if errors.Is(err, dumper.ErrDump) ||
		!errors.Is(err, pgarchive.ErrIncomplete) && !errors.Is(err, pgarchive.ErrFormat) {
		return err
	}
	return fmt.Errorf("%w: %w", dumper.ErrDump, err)
}
