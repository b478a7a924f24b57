package main

import (
	"context"
	"fmt"
	"slices"
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
			usage: []string{
				"archive --db URL --to BUCKET [options] [-- pg_dump options]",
				"archive DATABASE --config FILE [options] [-- pg_dump options]",
			},
			client: "pg_dump",
			text: `
The archive exists when this command exits 0, and not otherwise: pg_dump has to exit 0, the stream has to be structurally complete and the store has to confirm size and checksum before the manifest is written, which is what makes an archive. (Should only the summary fail to be printed, the archive is stored all the same: the code is 1 and the message says so.) Nothing is staged on local disk.

The stored dump is a stock custom-format archive that pg_restore reads by itself. pg_dump writes it uncompressed, and pgstow compresses it on all processors beside it; meanwhile it counts and hashes the rows of every table, which the archive's index then holds. With --compress pg_dump, pg_dump compresses by itself, in one thread, and pgstow looks on.

DATABASE is a name in the configuration, which then says where it is, in which store it is kept, by which policy, and which options pg_dump gets; its name is the archive's label. Flags win over the configuration, and that over the environment.

How the archive is kept comes from one place: --policy, the policy of DATABASE, or --keep, --lock, --legal-hold, --storage-class, --tag and --sse. The store is asked for it in the request that creates each object, and is read back; what is weaker than asked for is a failure.

With --encrypt-to, dump, index and globals are age files that "age -d" opens with the key of any recipient; the manifest names no tables then. This machine needs no private key. docs/evidence.md says more.

Options behind "--" go to pg_dump; those that would change the stream (-F -f -j -Z -d) are refused.`,
			examples: []example{
				{"A Neon database into S3; the direct host, not the -pooler one:",
					"export PGSTOW_DB='postgresql://app@ep-cool-rain-123456.eu-central-1.aws.neon.tech/neondb?sslmode=require'\n" +
						"export PGPASSFILE=~/.pgpass\n" +
						"pgstow archive --to 's3://acme-archives/pg/?region=eu-central-1'"},
				{"A database from pg_service.conf into GCS, without two tables' data:",
					"pgstow archive --db service=orders --to gs://acme-archives/pg/ \\\n" +
						"    -- --exclude-table-data=audit.events --exclude-table-data=cache"},
				{"Locked for seven years, so that nobody can delete it before:",
					"pgstow archive --db service=orders --to s3://acme-vault/pg/ \\\n" +
						"    --keep 7y --lock compliance --tag owner=finance"},
				{"By name, as the configuration says; see docs/configuration.md:",
					"export PGSTOW_CONFIG=/etc/pgstow/pgstow.yaml\npgstow archive orders"},
				{"Encrypted to age keys, SSH keys or a file of them:",
					"pgstow archive --db service=orders --to gs://acme-archives/pg/ \\\n" +
						"    --encrypt-to age1... --encrypt-to ~/.ssh/id_ed25519.pub"},
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
			Flags: slices.Concat([]cli.Flag{
				dbFlag("`URL` or keyword string of the database to dump"),
				bucketFlag("to"),
				nameFlag("`LABEL` of the archive (default: host and database)"),
			}, keepingFlags(), []cli.Flag{
				signFlag("the archive"),
				&cli.StringFlag{Name: "compress", Value: "auto",
					Usage: "compress the dump as `HOW`: gzip[:1-9], zstd[:1-19], lz4, none, or pg_dump by itself; auto is gzip:6, and zstd:1 with pg_dump 16 and later"},
				&cli.IntFlag{Name: "jobs", DefaultText: "one per processor", Usage: "compress and hash with `N` workers"},
				&cli.BoolFlag{Name: "verify-compression", Usage: "decompress everything right away and compare; with a lock this is always done"},
				encryptToFlag("encrypt it to this `RECIPIENT`: an age recipient, an SSH public key, or a file with these; each of them can read it"),
				&cli.BoolFlag{Name: "no-globals", Usage: "leave out roles and tablespaces"},
				&cli.BoolFlag{Name: flagRolePasswords, Usage: "take the roles' password hashes into the globals; needs --encrypt-to, and a role that may read them: a superuser, or one in pg_read_all_data"},
				pgBinFlag(), poolerFlag(),
				&cli.StringFlag{Name: "stall-timeout", Value: "5m",
					Usage: "end pg_dump when the store accepts no byte for this `TIME`"},
				jsonFlag(),
			}),
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
	source, err := rt.databaseArgument(c)
	if err != nil {
		return nil, err
	}
	label, dumpArgs, err := rt.labelAndOptions(c, source)
	if err != nil {
		return nil, err
	}
	bucket, err := rt.bucketOf(c, source.label())
	if err != nil {
		return nil, err
	}
	policy, maxKeep, err := rt.keeping(c, source, bucket)
	if err != nil {
		return nil, err
	}
	conn, err := rt.sourceConn(c, source)
	if err != nil {
		return nil, err
	}
	named, err := rt.namedPolicy(c, source)
	if err != nil {
		return nil, err
	}
	recipients, err := rt.archiveRecipients(c, named)
	if err != nil {
		return nil, err
	}
	signer, err := rt.signer(c, named)
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
			Conn: conn, Name: label, NoGlobals: c.Bool("no-globals"),
			PGBin: c.String(flagPGBin), AllowPooler: c.Bool(flagPooler),
			StallTimeout: stall, DumpArgs: dumpArgs,
			Compression: compression, Jobs: jobs, VerifyCompression: c.Bool("verify-compression"),
			Policy: policy, MaxKeep: maxKeep,
			Recipients: recipients, RequireEncryption: named != nil && named.evidence.encrypt == wordRequired,
			RolePasswords:   c.Bool(flagRolePasswords),
			RequireReadBack: c.Bool("require-read-back"), AllowNoEvidence: c.Bool("allow-no-evidence"), Signer: signer,
			Pgstow: buildInfo().Version, Log: rt.log,
		},
	}, nil
}

// labelAndOptions are those of a database of the configuration, unless flags say
// otherwise; pg_dump's options add up. A database's label without its entry
// would be archived without its policy: that is refused.
func (rt *runtime) labelAndOptions(c *cli.Context, source *database) (label string, dumpArgs []string, err error) {
	label, dumpArgs = c.String(flagName), rt.line.passthrough
	if source != nil {
		dumpArgs = slices.Concat(source.dump, dumpArgs)
	}
	switch cfg, err := rt.config(); {
	case err != nil:
		return "", nil, err
	case label == "" || label == source.label():
		return source.label(), dumpArgs, nil
	case cfg.database(label) != nil:
		return "", nil, usagef("archive: --name %s is the label of a database in %s; `pgstow archive %s` keeps it as that says, with --db from elsewhere", label, cfg.file, label)
	}
	return label, dumpArgs, nil
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
	if a.opts.Signer != nil {
		t.row("signed", a.opts.Signer.Fingerprint())
	}
	if n := len(m.Recipients); n > 0 {
		t.row("encrypted", "to "+counted(n, "recipient"))
	}
	kept := keptText(m.Kept)
	if kept != "" {
		wrapped(t, "kept", kept)
	}
	if kept != "" || m.ReadBack != archiver.ReadBackDone {
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
