package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/dumper"
)

const (
	flagOutput = "output"
	flagJobs   = "jobs"
)

func restoreCommand(rt *runtime) *command {
	flags := slices.Concat(
		[]cli.Flag{
			bucketFlag("from"),
			dbFlag("`URL` or keyword string of the target database, which exists already unless --create"),
			nameFlag("`LABEL` under which latest or a time is looked up"),
			objectFlag(),
		},
		restoreFlags(),
		[]cli.Flag{
			&cli.IntFlag{Name: flagJobs, Usage: "load `N` tables at once; by default as many as this machine has cores, 8 at most"},
			&cli.StringFlag{Name: flagOutput, Usage: "write the plain archive to `FILE`, or - for stdout, instead of restoring it"},
			&cli.StringFlag{Name: flagThaw, Usage: "an archive in a cold storage class is thawed first, as fast as `TIER` says: expedited, standard or bulk"},
			daysFlag(),
			&cli.BoolFlag{Name: flagWait, Usage: "with --thaw: wait until it can be read, which takes minutes to days"},
			allowedSignersFlag("take only what"), ignoreFlag(),
			identityFlag(), pgBinFlag(), jsonFlag(),
		})
	return &command{
		manual: manual{
			usage: []string{
				"restore --from BUCKET ARCHIVE --db URL [options] [-- pg_restore options]",
				"restore --from BUCKET --object KEY --db URL [options] [-- pg_restore options]",
				"restore --from BUCKET (ARCHIVE | --object KEY) --output FILE",
			},
			client: "pg_restore",
			text: `
ARCHIVE is an id, the start of one, "latest" (with --name), or a time such as 2026-11-22, which means the newest archive at or before it.

The archive is streamed, nothing is staged on local disk. Signature, manifest, index and head are checked before pg_restore gets a byte, and the last bytes of each table are held back until its hash matches. Before any SQL runs, what the target lacks is listed with the option that cures it. The restore stops at the first error unless --keep-going.

Several tables are loaded at once, the largest first, indexes and keys are built when their table's data are in, beside other tables, and the rest comes at the end. With --table or --schema only what they need is read. With --clean, with --data-only and with some options of pg_restore one table is loaded after another.

With --object any object that pg_dump -Fc has written is restored, whoever put it there (archive versions 1.12 to 1.16). It is read twice: once through, which proves that it is complete and decodes before pg_restore gets a byte, then as any other archive, each block held against the hash of the first time. Without a manifest nothing else can be proved. With --schema-only only its head is read, with --output it is read once.

An archive in GLACIER or DEEP_ARCHIVE cannot be read before it is thawed: the restore says so and how long each tier takes, and ends with code 11. With --thaw TIER it asks for that, and with --wait it goes on when the archive can be read.

An encrypted archive is opened with --identity; passphrases are asked for on the terminal.

Options behind "--" go to pg_restore.`,
			examples: []example{
				{"The newest archive of a label into an empty database:",
					"export PGSTOW_BUCKET='s3://acme-archives/pg/?region=eu-central-1'\n" +
						"pgstow restore latest --name orders --db service=scratch"},
				{"Into a provider that has other roles than the source:",
					"pgstow restore --from gs://acme-archives/pg/ k7m2q9xd --db service=neon \\\n" +
						"    --no-owner --no-privileges"},
				{"One table, with its indexes, into a database of its own, to look at it:",
					"pgstow restore k7m2q9xd --db service=scratch --table public.items"},
				{"What \"pg_dump -Fc | aws s3 cp - s3://acme-dumps/nightly/orders.dump\" has stored:",
					"pgstow restore --from s3://acme-dumps/ --object nightly/orders.dump \\\n    --db service=scratch --jobs 4"},
				{"From DEEP_ARCHIVE, which takes half a day:",
					"pgstow restore k7m2q9xd --db service=scratch --thaw standard --wait"},
				{"Only the file, for pg_restore:",
					"pgstow restore k7m2q9xd --output orders.dump && \\\n    pg_restore --list orders.dump"},
			},
			exits: []int{exitDatabase, exitStorage, exitNotFound, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "restore",
			Usage: "stream an archive back into a database or a file",
			Flags: flags,
			Action: func(c *cli.Context) error {
				r, err := newRestore(c, rt)
				if err != nil {
					return err
				}
				return r.run(c.Context, rt)
			},
		},
	}
}

// restore is one parsed "pgstow restore".
type restore struct {
	bucket bucketURL
	opts   archiver.RestoreOptions
	output string // file or "-", "" for a database
	json   bool
}

func newRestore(c *cli.Context, rt *runtime) (*restore, error) {
	ref, object, err := subject(c)
	if err != nil {
		return nil, err
	}
	bucket, err := rt.bucketOf(c, c.String(flagName))
	if err != nil {
		return nil, err
	}
	trust, err := rt.trust(c)
	if err != nil {
		return nil, err
	}
	if object != "" && c.Bool("globals") {
		return nil, usagef("restore: --globals needs an archive of pgstow's: beside an object lie none")
	}
	r := &restore{
		bucket: bucket, output: c.String(flagOutput), json: c.Bool(flagJSON),
		opts: archiver.RestoreOptions{Ref: ref, Name: c.String(flagName), Object: object, Trust: trust, Log: rt.log},
	}
	if err := r.checkThaw(c, rt); err != nil {
		return nil, err
	}
	if r.opts.Identities, err = rt.identities(c); err != nil {
		return nil, err
	}
	if c.IsSet(flagOutput) {
		return r, r.checkOutput(c, rt)
	}
	if r.opts.Conn, err = rt.targetConn(c, flagDB, "PGSTOW_DB"); err != nil {
		return nil, err
	}
	if r.opts.Restore, err = rt.restoreOptions(c); err != nil {
		return nil, err
	}
	if r.opts.Jobs = c.Int(flagJobs); c.IsSet(flagJobs) && r.opts.Jobs < 1 {
		return nil, usagef("restore: --jobs %d: want 1 or more", r.opts.Jobs)
	}
	r.opts.PGBin = c.String(flagPGBin)
	r.opts.Globals, r.opts.IntoNonempty = c.Bool("globals"), c.Bool("into-nonempty")
	return r, nil
}

// checkThaw reads how a cold archive is made readable.
func (r *restore) checkThaw(c *cli.Context, rt *runtime) (err error) {
	if !c.IsSet(flagThaw) {
		if typed := rt.typedFlag([]string{flagDays, flagWait}); typed != "" {
			return usagef("restore: --%s goes with --thaw", typed)
		}
		return nil
	}
	if r.opts.Object != "" {
		return usagef("restore: --thaw needs an archive of pgstow's; thaw an object with the store's own tools")
	}
	if r.opts.Thaw, err = thawOptions(c, flagThaw); err != nil {
		return err
	}
	r.opts.Thaw.Waiting = rt.waiting(nil)
	return nil
}

// checkOutput refuses what means nothing to a file. PGSTOW_DB may be set.
func (r *restore) checkOutput(c *cli.Context, rt *runtime) error {
	for _, f := range slices.Concat(restoreFlags(), []cli.Flag{dbFlag(""), pgBinFlag(), &cli.IntFlag{Name: flagJobs}}) {
		if name := f.Names()[0]; rt.line.typed[name] {
			return usagef("restore: --output writes the whole archive as it is stored, --%s has no place there", name)
		}
	}
	switch {
	case len(rt.line.passthrough) > 0:
		return usagef("restore: --output runs no pg_restore, its options have no place there")
	case r.output == "":
		return usagef("restore: --output needs a file, or - for stdout")
	case r.output == "-" && r.json:
		return usagef("restore: --output - and --json both want stdout")
	case r.output == "-" && isTerminal(rt.out):
		return usagef("restore: an archive is binary: send stdout to a file or a program, or name a file")
	}
	if info, err := os.Stat(r.output); r.output != "-" && err == nil && info.IsDir() {
		return usagef("restore: --output %s is a directory", r.output)
	}
	return nil
}

func (r *restore) run(ctx context.Context, rt *runtime) error {
	bucket, err := r.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	meter := rt.startMeter("restore")
	defer meter.stop()
	opts := r.opts
	opts.Bucket, opts.Progress = bucket, meter.report

	var result *archiver.RestoreResult
	switch r.output {
	case "":
		result, err = archiver.Restore(ctx, opts)
	case "-":
		opts.Output = rt.out
		result, err = archiver.Restore(ctx, opts)
	default:
		err = writeFile(r.output, func(f *os.File) error {
			opts.Output = f
			result, err = archiver.Restore(ctx, opts)
			return err
		})
	}
	meter.stop()
	if err != nil {
		rt.explainLacks(err)
		return fmt.Errorf("restore %s from %s: %w", opts.Ref+opts.Object, r.bucket, err)
	}
	if err := r.print(rt, result); err != nil {
		return err
	}
	return leftErrors(rt, result.Errors)
}

func (r *restore) print(rt *runtime, result *archiver.RestoreResult) error {
	if r.json {
		return printJSON(rt.out, result)
	}
	if r.output == "-" {
		return nil
	}
	t := newTable(rt.out)
	var totals archiver.Totals
	if m := result.Manifest; m != nil {
		totals = m.Totals
		t.row("id", m.ID)
		t.row("label", m.Label)
		t.row("archived", utc(m.Started))
		signatureRow(t, result.Signature)
	} else {
		totals = result.Object.Totals
		objectRows(t, r.bucket, result.Object)
	}
	o := r.opts.Restore
	if r.output == "" && (len(o.Tables) > 0 || len(o.Schemas) > 0 || o.SchemaOnly) {
		// The archive's totals would be those of what was left out, too.
		t.row("read", fmt.Sprintf("%s of %s", size(result.Bytes), size(totals.Bytes)))
	} else {
		t.row("dump", fmt.Sprintf("%s, %s", size(result.Bytes), contents(totals)))
	}
	if r.output != "" {
		t.row("file", r.output)
		return t.flush()
	}
	t.row("restored to", result.Target)
	printGlobals(t, result.Globals)
	return t.flush()
}

func printGlobals(t table, g *dumper.GlobalsResult) {
	if g != nil {
		t.row("globals", fmt.Sprintf("%d statements run, %d skipped", g.Executed, len(g.Skipped)))
	}
}

// explainLacks prints what a target lacks, one line each; the error's own line
// only counts them.
func (rt *runtime) explainLacks(err error) {
	var lacks *archiver.LacksError
	if !errors.As(err, &lacks) {
		return
	}
	for _, line := range lacks.Lines() {
		rt.log.Error(oneLine(line))
	}
}

// leftErrors makes a restore that kept going over errors a failed one.
func leftErrors(rt *runtime, list []string) error {
	if len(list) == 0 {
		return nil
	}
	for _, line := range list {
		rt.log.Error(oneLine(line))
	}
	return fmt.Errorf("%w: %s passed over by --keep-going", dumper.ErrRestore, counted(len(list), "error"))
}

// writeFile creates path when write succeeded, and not before: what stands
// under that name is whole. Devices and pipes cannot be replaced and are
// written directly.
func writeFile(path string, write func(*os.File) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.partial")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
