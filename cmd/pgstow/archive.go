package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/dumper"
)

func archiveCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage:  []string{"archive --db URL --to BUCKET [options] [-- pg_dump options]"},
			client: "pg_dump",
			text: `
The archive exists when this command exits 0, and not otherwise: pg_dump has to exit 0, the stream has to be structurally complete and the store has to confirm size and checksum before the manifest is written, which is what makes an archive. (Should only the summary fail to be printed, the archive is stored all the same: the code is 1 and the message says so.) Nothing is staged on local disk.

The stored dump is a stock custom-format archive that pg_restore reads by itself. pg_dump writes it uncompressed, and pgstow compresses it on all processors beside it; meanwhile it counts and hashes the rows of every table, which the archive's index then holds. With --compress pg_dump, pg_dump compresses by itself, in one thread, and pgstow looks on.

Options behind "--" go to pg_dump; those that would change the stream (-F -f -j -Z -d) are refused.`,
			examples: []example{
				{"A Neon database into S3; the direct host, not the -pooler one:",
					"export PGSTOW_DB='postgresql://app@ep-cool-rain-123456.eu-central-1.aws.neon.tech/neondb?sslmode=require'\n" +
						"export PGPASSFILE=~/.pgpass\n" +
						"pgstow archive --to 's3://acme-archives/pg/?region=eu-central-1'"},
				{"A database from pg_service.conf into GCS, without two tables' data:",
					"pgstow archive --db service=orders --to gs://acme-archives/pg/ \\\n" +
						"    -- --exclude-table-data=audit.events --exclude-table-data=cache"},
				{"As fast as it goes, for any version of pg_restore:",
					"pgstow archive --db service=orders --to gs://acme-archives/pg/ \\\n    --compress gzip:1"},
				{"Into a folder, under a label of its own, the id for a script:",
					"pgstow archive --db service=lab --to file:///srv/archives --name lab \\\n" +
						"    --json | jq -r .manifest.id"},
			},
			exits: []int{exitDatabase, exitStorage, exitNotFound, exitRefused, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "archive",
			Usage: "dump a database into a bucket, whole or absent",
			Flags: []cli.Flag{
				dbFlag("`URL` or keyword string of the database to dump"),
				bucketFlag("to"),
				nameFlag("`LABEL` of the archive (default: host and database)"),
				&cli.StringFlag{Name: "compress", Value: "auto",
					Usage: "compress the dump as `HOW`: gzip[:1-9], zstd[:1-19], lz4, none, or pg_dump by itself; auto is gzip:6, and zstd:1 with pg_dump 16 and later"},
				&cli.IntFlag{Name: "jobs", DefaultText: "one per processor", Usage: "compress and hash with `N` workers"},
				&cli.BoolFlag{Name: "verify-compression", Usage: "decompress everything right away and compare"},
				&cli.BoolFlag{Name: "no-globals", Usage: "leave out roles and tablespaces"},
				pgBinFlag(), poolerFlag(),
				&cli.StringFlag{Name: "stall-timeout", Value: "5m",
					Usage: "end pg_dump when the store accepts no byte for this `TIME`"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				a, err := newArchive(c, rt)
				if err != nil {
					return err
				}
				return a.run(c.Context, rt)
			},
		},
	}
}

// archive is one parsed "pgstow archive".
type archive struct {
	bucket bucketURL
	opts   archiver.ArchiveOptions
	json   bool
}

func newArchive(c *cli.Context, rt *runtime) (*archive, error) {
	if err := noArguments(c); err != nil {
		return nil, err
	}
	bucket, err := bucketOf(c)
	if err != nil {
		return nil, err
	}
	conn, err := rt.sourceConn(c)
	if err != nil {
		return nil, err
	}
	if err := dumper.CheckDumpArgs(rt.line.passthrough); err != nil {
		return nil, err
	}
	stall, err := duration(c, "stall-timeout")
	if err != nil {
		return nil, err
	}
	if stall < time.Second {
		return nil, usagef("--stall-timeout %s: want at least 1s", stall)
	}
	compression, err := archiver.ParseCompression(c.String("compress"))
	if err != nil {
		return nil, usagef("--compress: %w", err)
	}
	jobs := c.Int("jobs")
	if c.IsSet("jobs") && jobs < 1 {
		return nil, usagef("--jobs %d: want at least 1", jobs)
	}
	return &archive{
		bucket: bucket,
		json:   c.Bool(flagJSON),
		opts: archiver.ArchiveOptions{
			Conn: conn, Name: c.String(flagName), NoGlobals: c.Bool("no-globals"),
			PGBin: c.String(flagPGBin), AllowPooler: c.Bool(flagPooler),
			StallTimeout: stall, DumpArgs: rt.line.passthrough,
			Compression: compression, Jobs: jobs, VerifyCompression: c.Bool("verify-compression"),
			Pgstow: buildInfo().Version, Log: rt.log,
		},
	}, nil
}

func (a *archive) run(ctx context.Context, rt *runtime) error {
	bucket, err := a.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	meter := rt.startMeter("archive")
	defer meter.stop()
	opts := a.opts
	opts.Bucket, opts.Progress = bucket, meter.report
	result, err := archiver.Archive(ctx, opts)
	if err != nil {
		return fmt.Errorf("archive %s to %s: %w", opts.Conn, a.bucket, err)
	}
	meter.stop()
	if err := a.print(rt, result); err != nil {
		return fmt.Errorf("archive %s is stored, but its summary could not be printed: %w", result.Manifest.ID, err)
	}
	return nil
}

func (a *archive) print(rt *runtime, result *archiver.ArchiveResult) error {
	if a.json {
		return printJSON(rt.out, result)
	}
	m := result.Manifest
	t := newTable(rt.out)
	t.row("id", m.ID)
	t.row("label", m.Label)
	t.row("dump", fmt.Sprintf("%s, %s", size(m.Objects.Dump.Size), contents(m.Totals)))
	t.row("evidence", withReason(m.Evidence, m.EvidenceReason))
	t.row("globals", m.Globals)
	if kept := keptText(m.Kept); kept != "" {
		wrapped(t, "kept", kept)
		t.row("read back", m.ReadBack)
	}
	t.row("took", m.Finished.Sub(m.Started).Round(time.Second/10).String())
	t.row("manifest", a.bucket.key(m.Key))
	return t.flush()
}

// keptText says in words what a policy asked for, "" for nothing.
func keptText(k *archiver.Kept) string {
	if k == nil || k.IsZero() {
		return ""
	}
	var parts []string
	switch {
	case k.Lock != "":
		parts = append(parts, fmt.Sprintf("%s lock until %s", k.Lock, utc(k.RetainUntil)))
	case !k.KeepUntil.IsZero():
		parts = append(parts, "until "+utc(k.KeepUntil)+", not locked")
	}
	if k.LegalHold {
		parts = append(parts, "legal hold")
	}
	if k.StorageClass != "" {
		parts = append(parts, "class "+k.StorageClass)
	}
	if k.Encryption.Mode != "" {
		parts = append(parts, "sse "+string(k.Encryption.Mode))
	}
	return strings.Join(parts, ", ")
}

// contents says in words what a dump holds.
func contents(t archiver.Totals) string {
	s := counted(t.Tables, "table")
	if t.Rows != nil {
		s += ", " + counted(*t.Rows, "row")
	}
	if t.LargeObjects > 0 {
		s += ", " + counted(t.LargeObjects, "large object")
	}
	return s
}

func counted[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%s %ss", humanize.Comma(int64(n)), noun)
}
