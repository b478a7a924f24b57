package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

const (
	flagServer   = "server"
	flagSample   = "sample"
	flagSeed     = "seed"
	flagKeepCopy = "keep-database"
	flagNoWrite  = "no-write"
)

func drillCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{
				"drill --from BUCKET ARCHIVE --server URL [--jobs N] [--table [S.]T]... [--sample N% [--seed S]] [--no-write] [--json]",
			},
			text: `
Restores an archive into a database that it creates on a scratch server, and compares what is there then with what was archived: the rows of every table, by their number and by sums that do not depend on their order, the values of sequences, the content of large objects, and the definitions. The result is a record beside the archive, kept as long as the archive, and the time that the restore took is what a recovery takes. The database is dropped again, whatever happens.

The scratch server is any PostgreSQL server of the source's major version or a newer one where the connecting role may create databases; others there are not touched. What it lacks is named before anything is restored. Where it has not all the roles that the archive names, owners and privileges are left out, and the result says so, as it says of everything that was not compared.

Where the copy differs, the result names what differs, with the first row by its primary key, and the exit code is 14. So it is where the archive does not restore for a reason that is not the server's.

A huge archive is drilled in part: --table takes the rows of some tables, --sample those of tables chosen by chance that make up about N percent of the content. All is defined then, foreign keys to other rows and the content of materialized views aside.`,
			examples: []example{
				{"The newest archive of a label, on a server beside production:",
					"export PGSTOW_BUCKET='s3://acme-archives/pg/?region=eu-central-1'\n" +
						"pgstow drill latest --name orders --server service=scratch"},
				{"On a throwaway server:",
					"docker run -d -p 5433:5432 -e POSTGRES_PASSWORD=x postgres:17\n" +
						"PGPASSWORD=x pgstow drill k7m2q9xd \\\n    --server postgres://postgres@localhost:5433"},
				{"A tenth of a huge one, the same tables as last time:",
					"pgstow drill k7m2q9xd --server service=scratch --sample 10% --seed q3"},
				{"To look into the copy afterwards:",
					"pgstow drill k7m2q9xd --server service=scratch --keep-database"},
			},
			exits: []int{exitDatabase, exitStorage, exitNotFound, exitRefused, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "drill",
			Usage: "restore into a scratch database and prove the content equal",
			Flags: []cli.Flag{
				bucketFlag("from"),
				&cli.StringFlag{Name: flagServer, EnvVars: []string{"PGSTOW_SERVER"}, Usage: "`URL` or keyword string of the scratch server, naming any of its databases"},
				nameFlag("`LABEL` under which latest or a time is looked up"),
				&cli.StringSliceFlag{Name: "table", Usage: "only the rows of this `[SCHEMA.]TABLE` and its partitions"},
				&cli.StringFlag{Name: flagSample, Usage: "only the rows of tables chosen by chance, about `N%` of the content"},
				&cli.StringFlag{Name: flagSeed, Usage: "with --sample: the `SEED` of an earlier drill chooses the same tables again"},
				&cli.IntFlag{Name: flagJobs, Usage: "restore and compare `N` tables at once; by default as many as this machine has cores, 8 at most"},
				&cli.BoolFlag{Name: flagKeepCopy, Usage: "do not drop the scratch database"},
				&cli.BoolFlag{Name: flagNoWrite, Aliases: []string{"no-record"}, Usage: "write no record beside the archive"},
				byFlag(), signFlag("the record"), allowedSignersFlag("take only what"), ignoreFlag(),
				&cli.StringFlag{Name: flagThaw, Usage: "an archive in a cold storage class is thawed first, as fast as `TIER` says: expedited, standard or bulk"},
				daysFlag(),
				&cli.BoolFlag{Name: flagWait, Usage: "with --thaw: wait until it can be read, which takes minutes to days"},
				identityFlag(), pgBinFlag(), jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				d, err := newDrill(c, rt)
				if err != nil {
					return err
				}
				return d.run(c.Context, rt)
			},
		},
	}
}

// drill is one parsed "pgstow drill".
type drill struct {
	bucket bucketURL
	opts   archiver.DrillOptions
	json   bool
}

func newDrill(c *cli.Context, rt *runtime) (*drill, error) {
	ref, err := archiveArgument(c)
	if err != nil {
		return nil, err
	}
	d := &drill{
		json: c.Bool(flagJSON),
		opts: archiver.DrillOptions{
			Ref: ref, Name: c.String(flagName), PGBin: c.String(flagPGBin), Jobs: c.Int(flagJobs),
			Tables: c.StringSlice("table"), Seed: c.String(flagSeed),
			KeepDatabase: c.Bool(flagKeepCopy), NoRecord: c.Bool(flagNoWrite),
			By: by(c), Pgstow: buildInfo().Version, Log: rt.log,
		},
	}
	if d.opts.Trust, err = rt.trust(c); err != nil {
		return nil, err
	}
	if d.opts.Signer, err = rt.signer(c, nil); err != nil {
		return nil, err
	}
	if d.bucket, err = rt.bucketOf(c, c.String(flagName)); err != nil {
		return nil, err
	}
	if c.String(flagServer) == "" {
		return nil, usagef("drill: on which server? Give --server or set PGSTOW_SERVER; it is never guessed from the source's")
	}
	if d.opts.Server, err = rt.conn(c, flagServer); err != nil {
		return nil, err
	}
	if c.IsSet(flagJobs) && d.opts.Jobs < 1 {
		return nil, usagef("drill: --jobs %d: want 1 or more", d.opts.Jobs)
	}
	if d.opts.Identities, err = rt.identities(c); err != nil {
		return nil, err
	}
	if err := d.readSample(c); err != nil {
		return nil, err
	}
	return d, d.readThaw(c, rt)
}

func (d *drill) readSample(c *cli.Context) error {
	switch {
	case !c.IsSet(flagSample) && c.IsSet(flagSeed):
		return usagef("drill: --seed goes with --sample")
	case !c.IsSet(flagSample):
		return nil
	case len(d.opts.Tables) > 0:
		return usagef("drill: --sample and --table exclude each other")
	}
	text := c.String(flagSample)
	var rest string
	n, err := fmt.Sscanf(text+" .", "%d%s", &d.opts.Sample, &rest)
	if err != nil || n != 2 || strings.TrimSuffix(strings.TrimSpace(text), "%") != fmt.Sprint(d.opts.Sample) || d.opts.Sample < 1 || d.opts.Sample > 99 {
		return usagef("drill: --sample %q: want a share from 1%% to 99%%", text)
	}
	return nil
}

func (d *drill) readThaw(c *cli.Context, rt *runtime) (err error) {
	if !c.IsSet(flagThaw) {
		if typed := rt.typedFlag([]string{flagDays, flagWait}); typed != "" {
			return usagef("drill: --%s goes with --thaw", typed)
		}
		return nil
	}
	if d.opts.Thaw, err = thawOptions(c, flagThaw); err != nil {
		return err
	}
	d.opts.Thaw.Waiting = rt.waiting(nil)
	return nil
}

func (d *drill) run(ctx context.Context, rt *runtime) error {
	bucket, err := d.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	meter := rt.startMeter("drill")
	defer meter.stop()
	opts := d.opts
	opts.Bucket, opts.Progress = bucket, meter.report
	result, err := archiver.Drill(ctx, opts)
	meter.stop()
	if result != nil {
		if printErr := d.print(rt, result); printErr != nil {
			return errors.Join(err, printErr)
		}
	}
	if err != nil {
		rt.explainLacks(err)
		return fmt.Errorf("drill %s from %s: %w", opts.Ref, d.bucket, err)
	}
	return nil
}

// mostDifferences are printed; JSON has all of them.
const mostDifferences = 20

func (d *drill) print(rt *runtime, r *archiver.DrillResult) error {
	if d.json {
		return printJSON(rt.out, r)
	}
	t := newTable(rt.out)
	t.row("id", r.ID)
	t.row("label", r.Label)
	t.row("result", d.verdict(r))
	restored := len(r.Differences) == 0 || r.Differences[0].Kind != archiver.DiffRestore
	if restored {
		wrapped(t, "compared", joined(", ", counted(r.Tables, "table"), counted(r.Rows, "row"), counted(r.Sequences, "sequence"), counted(r.LargeObjects, "large object")))
		wrapped(t, "definitions", joined("; ", r.Schema, r.SchemaReason))
	}
	if r.Sample != nil {
		wrapped(t, "sample", fmt.Sprintf("%d of %d tables, %d%%, seed %s", r.Sample.Tables, r.Sample.Of, r.Sample.Percent, r.Sample.Seed))
	}
	if r.Part != nil {
		t.row("part", fmt.Sprintf("%d of %d tables", r.Part.Tables, r.Part.Of))
	}
	if restored {
		t.row("restored in", took(r.RestoreSeconds))
	}
	var phases []string
	for _, p := range r.Phases {
		phases = append(phases, string(p.Name)+" "+took(p.Seconds))
	}
	wrapped(t, "took", took(r.Seconds)+": "+strings.Join(phases, ", "))
	wrapped(t, "server", "PostgreSQL "+r.ServerVersion)
	for i, left := range r.NotCompared {
		name := "not compared"
		if i > 0 {
			name = ""
		}
		wrapped(t, name, left)
	}
	for i, diff := range r.Differences {
		if i == mostDifferences {
			t.row("", fmt.Sprintf("and %d more, which --json lists", len(r.Differences)-i))
			break
		}
		name := "differs"
		if i > 0 {
			name = ""
		}
		wrapped(t, name, diff.String())
	}
	if r.Database != "" {
		t.row("left", "database "+r.Database)
	} else {
		t.row("dropped", "database "+r.Scratch)
	}
	optional(t, "record", r.Record)
	return t.flush()
}

func (d *drill) verdict(r *archiver.DrillResult) string {
	switch {
	case r.Result == archiver.ResultFailed:
		return "FAILED: " + counted(len(r.Differences), "difference")
	case r.Complete:
		return "passed: the copy is equal"
	}
	return "passed: what was compared is equal"
}

// took is a duration as people say it.
func took(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
