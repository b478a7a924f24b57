package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

const (
	flagTier = "tier"
	flagThaw = "thaw"
	flagDays = "days"
	flagWait = "wait"
)

func thawCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{"thaw ARCHIVE --bucket BUCKET [--tier TIER] [--days N] [--wait] [--json]"},
			text: `
Asks S3 for a readable copy of an archive whose dump lies in GLACIER or DEEP_ARCHIVE. What is being thawed already is joined, what is readable for a shorter time is prolonged, and what needs no thaw (GLACIER_IR, every class of GCS, a folder) is said to need none.

GLACIER: expedited takes 1 to 5 minutes, standard 3 to 5 hours, bulk 5 to 12 hours. DEEP_ARCHIVE: standard takes 12 hours, bulk 48 hours. The faster, the dearer.

Without --wait it returns when the store has taken the request; run again, it says how far it is. With --wait it returns when the archive can be read. Interrupted, the thaw goes on.`,
			examples: []example{
				{"Ask in the evening, restore in the morning:",
					"pgstow thaw latest --name orders --bucket s3://acme-archives/pg/ \\\n    --tier bulk --days 3"},
				{"Wait for it, then restore:",
					"pgstow thaw k7m2q9xd --bucket s3://acme-archives/pg/ --wait && \\\n    pgstow restore k7m2q9xd --from s3://acme-archives/pg/ \\\n        --db service=scratch"},
			},
			exits: []int{exitStorage, exitNotFound},
		},
		Command: &cli.Command{
			Name:  "thaw",
			Usage: "make an archive in a cold storage class readable",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				nameFlag("`LABEL` under which latest or a time is looked up"),
				&cli.StringFlag{Name: flagTier, Value: "standard", Usage: "how fast: `TIER` is expedited, standard or bulk"},
				daysFlag(),
				&cli.BoolFlag{Name: flagWait, Usage: "return when it can be read"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				ref, err := archiveArgument(c)
				if err != nil {
					return err
				}
				bucket, err := rt.bucketOf(c, c.String(flagName))
				if err != nil {
					return err
				}
				th := thaw{bucket: bucket, json: c.Bool(flagJSON)}
				if th.opts, err = thawOptions(c, flagTier); err != nil {
					return err
				}
				th.opts.Ref, th.opts.Name, th.opts.Log = ref, c.String(flagName), rt.log
				return th.run(c.Context, rt)
			},
		},
	}
}

func daysFlag() cli.Flag {
	return &cli.IntFlag{Name: flagDays, Value: archiver.DefaultThawDays, Usage: "keep the thawed copy for `N` days"}
}

// thawOptions reads the tier from the flag of that name.
func thawOptions(c *cli.Context, tier string) (o archiver.ThawOptions, err error) {
	if o.Tier, err = archiver.ParseThawTier(c.String(tier)); err != nil {
		return o, usagef("--%s %q: want expedited, standard or bulk", tier, c.String(tier))
	}
	if o.Days = c.Int(flagDays); o.Days < 1 {
		return o, usagef("--days %d: want 1 or more", o.Days)
	}
	o.Wait = c.Bool(flagWait)
	return o, nil
}

// thaw is one parsed "pgstow thaw".
type thaw struct {
	bucket bucketURL
	opts   archiver.ThawOptions
	json   bool
}

func (th thaw) run(ctx context.Context, rt *runtime) error {
	bucket, err := th.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	th.opts.Bucket, th.opts.Waiting = bucket, rt.waiting(rt.status)
	result, err := archiver.Thaw(ctx, th.opts)
	if rt.status != nil {
		rt.status.set("")
	}
	if err != nil {
		return fmt.Errorf("thaw %s in %s: %w", th.opts.Ref, th.bucket, err)
	}
	if th.json {
		return printJSON(rt.out, result)
	}
	t := newTable(rt.out)
	t.row("id", result.ID)
	t.row("label", result.Label)
	wrapped(t, "state", thawText(result))
	for _, o := range result.Objects {
		if o.State != archiver.ThawNotNeeded {
			t.row(o.Name, fmt.Sprintf("%s, %s", o.Class, o.State))
		}
	}
	return t.flush()
}

func thawText(r *archiver.ThawResult) string {
	switch r.State {
	case archiver.ThawNotNeeded:
		return "needs no thaw: it is read as it is"
	case archiver.ThawReadable:
		if r.Until.IsZero() {
			return "readable"
		}
		return "readable until " + utc(r.Until)
	case archiver.ThawJoined:
		return "being thawed already; `pgstow thaw --wait` waits for it"
	}
	return fmt.Sprintf("requested (%s), takes %s; `pgstow thaw --wait` waits for it", r.Tier, r.Takes)
}

// waiting shows that a thaw is waited for: on a line of a terminal, else in a
// log record for each look at it.
func (rt *runtime) waiting(line *statusLine) func(archiver.ThawResult) {
	start := time.Now()
	return func(r archiver.ThawResult) {
		elapsed := time.Since(start).Round(time.Second)
		switch {
		case rt.progress == progressNone:
		case line != nil && rt.progress == progressAuto:
			line.set(fmt.Sprintf("thaw %s: %s, takes %s; waiting since %s", r.ID, r.State, r.Takes, elapsed))
		default:
			rt.log.Info("waiting for the thaw", "id", r.ID, "state", r.State, "takes", r.Takes, "elapsed", elapsed)
		}
	}
}
