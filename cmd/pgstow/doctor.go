package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

func doctorCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{
				"doctor [--db URL] [--to BUCKET] [--pg-bin DIR] [--json]",
				"doctor DATABASE --config FILE [--pg-bin DIR] [--json]",
			},
			text: `
Checks what an archive would need: client programs, connection, pooler, rights, and that the bucket is reachable and writable (a tiny object is written and removed again). What is not given is not checked. DATABASE is a name in the configuration, and brings its store with it.`,
			examples: []example{
				{"Before the first archive:",
					"export PGSTOW_DB=service=orders\npgstow doctor --to 's3://acme-archives/pg/?region=eu-central-1'"},
			},
			exits: []int{exitDatabase, exitStorage, exitNotFound, exitRefused},
		},
		Command: &cli.Command{
			Name:  "doctor",
			Usage: "check tools, database and bucket before they matter",
			Flags: []cli.Flag{
				dbFlag("`URL` or keyword string of the database to dump"),
				bucketFlag("to"), pgBinFlag(), poolerFlag(), jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				d, err := newDoctor(c, rt)
				if err != nil {
					return err
				}
				return d.run(c.Context, rt)
			},
		},
	}
}

// doctor is one parsed "pgstow doctor".
type doctor struct {
	opts archiver.DoctorOptions
	json bool
}

func newDoctor(c *cli.Context, rt *runtime) (*doctor, error) {
	source, err := rt.databaseArgument(c)
	if err != nil {
		return nil, err
	}
	d := &doctor{json: c.Bool(flagJSON), opts: archiver.DoctorOptions{
		PGBin: c.String(flagPGBin), AllowPooler: c.Bool(flagPooler), Log: rt.log,
	}}
	if source != nil || c.String(flagDB) != "" || libpqEnvironment() {
		conn, err := rt.sourceConn(c, source)
		if err != nil {
			return nil, err
		}
		d.opts.Conn = &conn
	}
	switch bucket, found, err := rt.findBucket(c, source.label()); {
	case err != nil:
		return nil, err
	case found:
		d.opts.OpenBucket = func(ctx context.Context) (storage.Bucket, error) { return bucket.open(ctx, rt.log) }
	}
	return d, nil
}

func (d *doctor) run(ctx context.Context, rt *runtime) error {
	checks := archiver.Doctor(ctx, d.opts)
	if err := d.print(rt, checks); err != nil {
		return err
	}
	var failed []string
	var first error
	for _, check := range checks {
		if check.Status != archiver.CheckFail {
			continue
		}
		failed = append(failed, check.Name)
		if first == nil {
			first = check.Err
		}
	}
	if len(failed) == 0 {
		return nil
	}
	if first == nil {
		first = errors.New("see above")
	}
	return fmt.Errorf("doctor: %s of %d failed, the first is %s: %w", counted(len(failed), "check"), len(checks), failed[0], first)
}

func (d *doctor) print(rt *runtime, checks []archiver.Check) error {
	if d.json {
		if checks == nil {
			checks = []archiver.Check{}
		}
		return printJSON(rt.out, checks)
	}
	t := newTable(rt.out)
	for _, check := range checks {
		t.row(check.Status, check.Name, oneLine(check.Detail))
		if check.Advice != "" {
			t.row("", "", oneLine(check.Advice))
		}
	}
	return t.flush()
}
