package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func listCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{"list --from BUCKET [--name LABEL] [--long] [--incomplete] [--json]"},
			text: `
One listing of the bucket, oldest archive first. With --long each manifest is read and each object is looked at: until when the policy keeps the archive, the weakest lock of its objects, whether they are on hold, and whether it is signed, with --allowed-signers by whom. With --incomplete, "stays until" is when the last lock of what a failed run left ends. Times are UTC.`,
			examples: []example{
				{"All archives:", "pgstow list --from 's3://acme-archives/pg/?region=eu-central-1'"},
				{"The newest id of a label, for a script:",
					"pgstow list --from gs://acme-archives/pg/ --name orders --json | \\\n    jq -r '.[-1].id'"},
				{"What failed runs left behind:", "pgstow list --from gs://acme-archives/pg/ --incomplete"},
			},
			exits: []int{exitStorage, exitNotFound},
		},
		Command: &cli.Command{
			Name:  "list",
			Usage: "list the archives in a bucket",
			Flags: []cli.Flag{
				bucketFlag("from"),
				nameFlag("only this `LABEL`"),
				&cli.BoolFlag{Name: "long", Usage: "read manifests and signatures: kept until, lock, hold, who signed, database, contents, key"},
				&cli.BoolFlag{Name: "incomplete", Usage: "what has no manifest, instead of the archives"},
				allowedSignersFlag("say what"),
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				if err := noArguments(c); err != nil {
					return err
				}
				bucket, err := rt.bucketOf(c, c.String(flagName))
				if err != nil {
					return err
				}
				trust, err := rt.trust(c)
				if err != nil {
					return err
				}
				l := list{
					bucket: bucket, trust: trust, long: c.Bool("long"), json: c.Bool(flagJSON),
					opts: archiver.ListOptions{Name: c.String(flagName), Incomplete: c.Bool("incomplete"), Log: rt.log},
				}
				return l.run(c.Context, rt)
			},
		},
	}
}

// list is one parsed "pgstow list".
type list struct {
	bucket     bucketURL
	opts       archiver.ListOptions
	trust      archiver.Trust
	long, json bool
}

func (l list) run(ctx context.Context, rt *runtime) error {
	bucket, err := l.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	entries, err := archiver.List(ctx, bucket, l.opts)
	if err == nil && l.long && !l.opts.Incomplete {
		err = archiver.LoadSigned(ctx, bucket, entries, l.trust)
	}
	if err == nil && (l.long || l.opts.Incomplete) {
		err = archiver.LoadProtection(ctx, bucket, entries)
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", l.bucket, err)
	}
	switch {
	case l.json:
		if entries == nil {
			entries = []archiver.Entry{} // [] rather than null
		}
		return printJSON(rt.out, entries)
	case len(entries) == 0:
		fmt.Fprintf(rt.err, "pgstow: no %s in %s\n", l.noun(), l.bucket)
		return nil
	case l.opts.Incomplete:
		return l.printIncomplete(rt, entries)
	case l.long:
		return l.printLong(rt, entries)
	}
	return l.print(rt, entries)
}

func (l list) noun() string {
	noun := "archives"
	if l.opts.Incomplete {
		noun = "incomplete archives"
	}
	if l.opts.Name != "" {
		noun += " named " + l.opts.Name
	}
	return noun
}

// labelWidth lets a row fit 80 columns; --long and --json have whole labels.
const labelWidth = 26

func (l list) print(rt *runtime, entries []archiver.Entry) error {
	return printEntries(rt, entries, func(e archiver.Entry) int64 { return e.DumpSize }, nil)
}

func (l list) printLong(rt *runtime, entries []archiver.Entry) error {
	now := time.Now()
	return printEntries(rt, entries, func(e archiver.Entry) int64 { return e.DumpSize }, func(e archiver.Entry) []string {
		database, holds := "?", e.ManifestError
		if m := e.Manifest; m != nil {
			server, _, _ := strings.Cut(m.Source.ServerVersion, " ")
			database, holds = fmt.Sprintf("%s, server %s", m.Source.Database, server), contents(m.Totals)
		}
		return slices.Concat(detail("kept until", keptUntil(e)), detail("lock now", lockNow(e.Protection, now)), detail("hold now", holdNow(e.Protection)),
			detail("signed", signedText(e.Signature)), detail("database", database), detail("contents", oneLine(holds)), detail("key", e.Key))
	})
}

func (l list) printIncomplete(rt *runtime, entries []archiver.Entry) error {
	now := time.Now()
	total := func(e archiver.Entry) (n int64) {
		for _, o := range e.Objects {
			n += o.Size
		}
		return n
	}
	return printEntries(rt, entries, total, func(e archiver.Entry) []string {
		names := make([]string, len(e.Objects))
		for i, o := range e.Objects {
			names[i] = o.Name
		}
		return slices.Concat(detail("stays until", staysUntil(e.Protection, now)), detail("objects", strings.Join(names, " ")), detail("key", e.Key))
	})
}

// printEntries prints a row for each, and below it what more there is to say.
func printEntries(rt *runtime, entries []archiver.Entry, bytes func(archiver.Entry) int64, more func(archiver.Entry) []string) error {
	now := time.Now()
	below := [][]string{nil}
	t, text := newBelow()
	t.row("ID", "TIME", "LABEL", "SIZE", "AGE")
	for _, e := range entries {
		t.row(e.ID, utc(e.Time), shorten(e.Label, labelWidth), size(bytes(e)), age(e.Time, now))
		if more != nil {
			below = append(below, more(e))
		}
	}
	return printBelow(rt.out, t, text, below)
}
