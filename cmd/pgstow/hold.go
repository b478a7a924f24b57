package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func holdCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{
				"hold set ARCHIVE --bucket BUCKET --reason TEXT [--by WHO] [--name LABEL] [--json]",
				"hold release ARCHIVE --bucket BUCKET --reason TEXT ...",
			},
			text: `
Sets or releases the legal hold of every object of an archive, its records included, and records who did it and why in an object beside it. A hold has no end, comes on top of any lock, and is released by whoever has the right to. When it fails half-way the archive is held rather than released; run again, it completes what was begun.`,
			examples: []example{
				{"Hold what a court may ask for:",
					"pgstow hold set k7m2q9xd --bucket gs://acme-archives/pg/ \\\n    --reason 'litigation 4711'"},
				{"And let it go:",
					"pgstow hold release k7m2q9xd --bucket gs://acme-archives/pg/ \\\n    --reason '4711 is settled'"},
			},
			exits: []int{exitStorage, exitNotFound, exitRefused, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "hold",
			Usage: "set or release an archive's legal hold",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				nameFlag("`LABEL` under which latest or a time is looked up"),
				&cli.StringFlag{Name: "reason", Usage: "`TEXT` that says why, recorded; one line"},
				byFlag(), signFlag("the record"),
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				h, err := parseHold(c, rt)
				if err != nil {
					return err
				}
				h.opts.Log = rt.log
				return h.run(c.Context, rt)
			},
		},
	}
}

// hold is one parsed "pgstow hold".
type hold struct {
	bucket bucketURL
	opts   archiver.HoldOptions
	json   bool
}

func parseHold(c *cli.Context, rt *runtime) (h hold, err error) {
	args := c.Args().Slice()
	if len(args) == 0 || args[0] != "set" && args[0] != "release" {
		return h, usagef("hold: set or release? Say `pgstow hold set ARCHIVE` or `pgstow hold release ARCHIVE`")
	}
	if len(args) != 2 || args[1] == "" {
		return h, usagef("hold %s: which archive? Give one: an id, the start of one, latest, or a time", args[0])
	}
	if !c.IsSet("reason") {
		return h, usagef("hold %s: why? Give --reason, which is recorded beside the archive", args[0])
	}
	if h.bucket, err = rt.bucketOf(c, c.String(flagName)); err != nil {
		return h, err
	}
	signer, err := rt.signer(c, nil)
	if err != nil {
		return h, err
	}
	h.json = c.Bool(flagJSON)
	h.opts = archiver.HoldOptions{
		Ref: args[1], Name: c.String(flagName), Release: args[0] == "release",
		Reason: c.String("reason"), By: by(c), Pgstow: buildInfo().Version, Signer: signer,
	}
	return h, nil
}

func (h hold) run(ctx context.Context, rt *runtime) error {
	bucket, err := h.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	h.opts.Bucket = bucket
	result, err := archiver.Hold(ctx, h.opts)
	if err != nil {
		return fmt.Errorf("hold %s in %s: %w", h.opts.Ref, h.bucket, err)
	}
	if h.json {
		return printJSON(rt.out, result)
	}
	state := "released"
	if result.Held {
		state = "set"
	}
	t := newTable(rt.out)
	t.row("id", result.ID)
	t.row("label", result.Label)
	t.row("hold", state)
	wrapped(t, "changed", listText(result.Changed))
	wrapped(t, "unchanged", listText(result.Unchanged))
	t.row("record", result.Record)
	t.row("read back", result.ReadBack)
	return t.flush()
}
