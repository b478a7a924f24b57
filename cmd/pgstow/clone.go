package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func cloneCommand(rt *runtime) *command {
	flags := slices.Concat(
		[]cli.Flag{
			dbFlag("`URL` or keyword string of the database to copy"),
			&cli.StringFlag{Name: flagToDB, EnvVars: []string{"PGSTOW_TO_DB"},
				Usage: "`URL` or keyword string of the target database, which exists already unless --create"},
		},
		restoreFlags(),
		[]cli.Flag{pgBinFlag(), poolerFlag(), jsonFlag()})
	return &command{
		manual: manual{
			usage: []string{
				"clone --db SOURCE --to-db TARGET [options] [-- pg_restore options]",
				"clone DATABASE --config FILE --to-db TARGET [options]",
			},
			client: "pg_restore",
			text: `
A dump piped into a restore, with no bucket between and nothing on disk. A dump that fails or is incomplete fails the restore. DATABASE is a name in the configuration; its options for pg_dump are those of its archives and are not used here.

Options behind "--" go to pg_restore.`,
			examples: []example{
				{"A production database into an empty one, without its roles:",
					"pgstow clone --db service=orders --to-db service=staging \\\n    --no-owner --no-privileges"},
				{"Only the definitions, into a database that this creates:",
					"pgstow clone --db service=orders --to-db service=admin \\\n    --create --schema-only"},
			},
			exits: []int{exitDatabase, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "clone",
			Usage: "copy a database into another, without a bucket",
			Flags: flags,
			Action: func(c *cli.Context) error {
				cl, err := newClone(c, rt)
				if err != nil {
					return err
				}
				return cl.run(c.Context, rt)
			},
		},
	}
}

// clone is one parsed "pgstow clone".
type clone struct {
	opts archiver.CloneOptions
	json bool
}

func newClone(c *cli.Context, rt *runtime) (*clone, error) {
	source, err := rt.databaseArgument(c)
	if err != nil {
		return nil, err
	}
	from, err := rt.sourceConn(c, source)
	if err != nil {
		return nil, err
	}
	to, err := rt.targetConn(c, flagToDB, "PGSTOW_TO_DB")
	if err != nil {
		return nil, err
	}
	restore, err := rt.restoreOptions(c)
	if err != nil {
		return nil, err
	}
	return &clone{
		json: c.Bool(flagJSON),
		opts: archiver.CloneOptions{
			From: from, To: to, PGBin: c.String(flagPGBin), AllowPooler: c.Bool(flagPooler),
			Restore: restore, Globals: c.Bool("globals"), IntoNonempty: c.Bool("into-nonempty"),
			Log: rt.log,
		},
	}, nil
}

func (cl *clone) run(ctx context.Context, rt *runtime) error {
	meter := rt.startMeter("clone")
	defer meter.stop()
	opts := cl.opts
	opts.Progress = meter.report
	result, err := archiver.Clone(ctx, opts)
	meter.stop()
	if err != nil {
		rt.explainLacks(err)
		return fmt.Errorf("clone %s to %s: %w", opts.From, opts.To, err)
	}
	if err := cl.print(rt, result); err != nil {
		return err
	}
	return leftErrors(rt, result.Errors)
}

func (cl *clone) print(rt *runtime, result *archiver.CloneResult) error {
	if cl.json {
		return printJSON(rt.out, result)
	}
	t := newTable(rt.out)
	t.row("copied", fmt.Sprintf("%s, %s", size(result.Bytes), contents(result.Totals)))
	t.row("from", cl.opts.From.String())
	t.row("to", result.Target)
	printGlobals(t, result.Globals)
	return t.flush()
}
