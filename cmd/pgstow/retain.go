package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

const (
	flagUntil   = "until"
	flagMaxKeep = "max-keep"
)

func retainCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{"retain ARCHIVE --bucket BUCKET (--until TIME | --keep PERIOD) [--lock governance|compliance] [--max-keep PERIOD] [--name LABEL] [--json]"},
			text: `
Locks every object of an archive, its records included, for longer than now, and reads the lock back. It never shortens: an earlier time than the archive has is refused, and nothing is changed. --keep counts from the archive's end and adds the margin of a day that archives get. Modes stay as they are unless --lock compliance is given; an archive without a lock gets the one that --lock names. A compliance lock can be lifted by nobody before its time.`,
			examples: []example{
				{"Until the end of a day, in UTC:",
					"pgstow retain k7m2q9xd --bucket gs://acme-archives/pg/ --until 2033-12-31"},
				{"Ten years from its end, and from now on undeletable by anybody:",
					"pgstow retain k7m2q9xd --keep 10y --lock compliance \\\n    --bucket 's3://acme-archives/pg/?region=eu-central-1'"},
			},
			exits: []int{exitStorage, exitNotFound, exitRefused, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "retain",
			Usage: "extend an archive's lock, never shorten it",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				nameFlag("`LABEL` under which latest or a time is looked up"),
				&cli.StringFlag{Name: flagUntil, Usage: "lock it until this `TIME`: 2033-12-31 (its end), 2033-12-31T12:00Z"},
				&cli.StringFlag{Name: "keep", Usage: "lock it for this `PERIOD` from its end on: 30d, 18mo, 7y"},
				&cli.StringFlag{Name: "lock", Usage: "`MODE` for what has none: governance or compliance; compliance replaces governance"},
				&cli.StringFlag{Name: flagMaxKeep, DefaultText: "max-keep of the configuration, or 10y", Usage: "refuse compliance locks longer than this `PERIOD`"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				r, err := parseRetain(c, rt)
				if err != nil {
					return err
				}
				r.opts.Log = rt.log
				return r.run(c.Context, rt)
			},
		},
	}
}

// retain is one parsed "pgstow retain".
type retain struct {
	bucket bucketURL
	opts   archiver.RetainOptions
	json   bool
}

func parseRetain(c *cli.Context, rt *runtime) (r retain, err error) {
	r.json = c.Bool(flagJSON)
	if r.opts.Ref, err = archiveArgument(c); err != nil {
		return r, err
	}
	if r.bucket, err = rt.bucketOf(c, c.String(flagName)); err != nil {
		return r, err
	}
	r.opts.Name = c.String(flagName)
	cfg, err := rt.config()
	if err != nil {
		return r, err
	}
	r.opts.MaxKeep = cfg.maxKeep
	if c.IsSet(flagMaxKeep) {
		if r.opts.MaxKeep, err = archiver.ParsePeriod(c.String(flagMaxKeep)); err != nil {
			return r, usagef("--%s: %w", flagMaxKeep, err)
		}
	}
	if c.IsSet(flagUntil) == c.IsSet("keep") {
		return r, usagef("%s: until when? Give --until or --keep, and one of them", c.Command.Name)
	}
	if c.IsSet("keep") {
		if r.opts.Keep, err = archiver.ParsePeriod(c.String("keep")); err != nil {
			return r, usagef("--keep: %w", err)
		}
	} else if r.opts.Until, err = parseUntil(c.String(flagUntil)); err != nil {
		return r, err
	}
	switch mode := storage.LockMode(strings.ToLower(c.String("lock"))); {
	case !c.IsSet("lock"):
	case mode != storage.Governance && mode != storage.Compliance:
		return r, usagef("--lock %q: want governance or compliance", c.String("lock"))
	default:
		r.opts.Lock = mode
	}
	return r, nil
}

// parseUntil reads a time in UTC; a day means its end.
func parseUntil(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usagef("--%s %q: want a time such as 2033-12-31, which means its end, or 2033-12-31T12:00Z", flagUntil, text)
}

func (r retain) run(ctx context.Context, rt *runtime) error {
	bucket, err := r.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	r.opts.Bucket = bucket
	result, err := archiver.Retain(ctx, r.opts)
	if err != nil {
		return fmt.Errorf("retain %s in %s: %w", r.opts.Ref, r.bucket, err)
	}
	if r.json {
		return printJSON(rt.out, result)
	}
	t := newTable(rt.out)
	t.row("id", result.ID)
	t.row("label", result.Label)
	t.row("lock", lockText(result.Lock, result.Until))
	wrapped(t, "extended", listText(result.Extended))
	wrapped(t, "unchanged", listText(result.Unchanged))
	t.row("read back", result.ReadBack)
	return t.flush()
}

func listText(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}
