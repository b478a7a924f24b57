package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func cleanupCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{"cleanup --bucket BUCKET [--older-than 24h] [--dry-run] [--json]"},
			text: `
A run that was killed outright leaves the parts it had sent, which nobody lists and everybody pays for. This aborts such uploads below the bucket's prefix, only under keys that pgstow makes, and only those whose newest part is older than --older-than, so that running archives are spared. It removes no archive.

Stores differ in how well they list unfinished uploads: MinIO forgets them when it restarts, GCS shows none. So it also says what else ends them and after how long: a rule of the bucket ("pgstow lifecycle apply" makes one), the store itself, or nothing.`,
			examples: []example{
				{"See first, then do it:",
					"pgstow cleanup --bucket 's3://acme-archives/pg/?region=eu-central-1' \\\n    --dry-run\n" +
						"pgstow cleanup --bucket 's3://acme-archives/pg/?region=eu-central-1'"},
			},
			exits: []int{exitStorage, exitNotFound},
		},
		Command: &cli.Command{
			Name:  "cleanup",
			Usage: "abort unfinished uploads that killed runs left behind",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				&cli.StringFlag{Name: "older-than", Value: "24h", Usage: "spare uploads with a part younger than this `TIME`"},
				&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be aborted"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				if err := noArguments(c); err != nil {
					return err
				}
				bucket, err := rt.bucketOf(c, "")
				if err != nil {
					return err
				}
				old, err := duration(c, "older-than")
				if err != nil {
					return err
				}
				cl := cleanup{
					bucket: bucket, json: c.Bool(flagJSON),
					opts: archiver.CleanupOptions{OlderThan: old, DryRun: c.Bool("dry-run"), Log: rt.log},
				}
				return cl.run(c.Context, rt)
			},
		},
	}
}

// cleanup is one parsed "pgstow cleanup".
type cleanup struct {
	bucket bucketURL
	opts   archiver.CleanupOptions
	json   bool
}

func (cl cleanup) run(ctx context.Context, rt *runtime) error {
	bucket, err := cl.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	opts := cl.opts
	opts.Bucket = bucket
	result, err := archiver.Cleanup(ctx, opts)
	if result != nil {
		// What was done is worth knowing even when some of it failed.
		if printErr := cl.print(rt, result); err == nil {
			err = printErr
		}
	}
	if err != nil {
		return fmt.Errorf("clean up %s: %w", cl.bucket, err)
	}
	return nil
}

func (cl cleanup) print(rt *runtime, result *archiver.CleanupResult) error {
	if cl.json {
		return printJSON(rt.out, result)
	}
	defer func() {
		p := result.Protection
		fmt.Fprintf(rt.err, "pgstow: besides this: %s\n", joined("; ", p.Detail, p.Advice))
	}()
	if result.Unsupported {
		fmt.Fprintf(rt.err, "pgstow: %s keeps no unfinished uploads that could be listed: nothing to clean up\n", cl.bucket)
		return nil
	}
	if len(result.Uploads) > 0 {
		t := newTable(rt.out)
		t.row("ACTION", "SIZE", "NEWEST PART", "KEY")
		for _, u := range result.Uploads {
			t.row(u.Action, size(u.Size), utc(u.Newest), cl.bucket.key(u.Key))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	verb, n := "aborted", result.Aborted
	if cl.opts.DryRun {
		verb, n = "would abort", 0
		for _, u := range result.Uploads {
			if u.Action == archiver.CleanupWould {
				n++
			}
		}
	}
	fmt.Fprintf(rt.err, "pgstow: %s %s of %s, %s\n", verb, counted(n, "upload"), fmt.Sprint(len(result.Uploads)), size(result.Bytes))
	return nil
}
