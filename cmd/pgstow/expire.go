package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func expireCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{"expire --bucket BUCKET [--name LABEL] [--yes] [--keep-last N] [--require-verified] [--by WHO] [--json]"},
			text: `
Deletes the archives whose time is over, or without --yes says which they are. An archive goes only when the keep of its own stored policy has passed, when no version of any of its objects is locked, held or hidden from these credentials, and when enough newer complete archives of its label stay: as many as its policy's keep-last says, 3 by default, and no less than --keep-last. keep-daily and its like spare the newest archive of each of so many days, ISO weeks, months and years that have one. Archives whose policy has no keep, or leaves them to the store, are never touched.

All of an archive is deleted, or nothing: every version and delete marker, the manifest first, so that half of one is never listed. What an interrupted run has left, the next one finishes. Manifests that cannot be read are left alone and end in exit code 14 (or 2, when a newer pgstow wrote them) after everything else is done. A label under which archives of several database systems lie is left alone and ends in 13; several databases of one system are judged each by itself.`,
			examples: []example{
				{"See first, then do it:",
					"pgstow expire --bucket 's3://acme-archives/pg/?region=eu-central-1'\n" +
						"pgstow expire --bucket 's3://acme-archives/pg/?region=eu-central-1' \\\n    --yes"},
				{"What stays of one label must have passed a verification:",
					"pgstow expire --name orders --require-verified --yes \\\n    --bucket gs://acme-archives/pg/"},
			},
			exits: []int{exitStorage, exitNotFound, exitRefused, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "expire",
			Usage: "delete archives whose time is over",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				nameFlag("only this `LABEL`"),
				yesFlag("delete; without it, only say what would be deleted"),
				&cli.IntFlag{Name: "keep-last", Usage: "keep `N` newer complete archives even where a policy wants fewer"},
				&cli.BoolFlag{Name: "require-verified", Usage: "count only newer archives whose newest verification has passed"},
				byFlag(),
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
				e := expire{bucket: bucket, json: c.Bool(flagJSON), opts: archiver.ExpireOptions{
					Name: c.String(flagName), Yes: c.Bool(flagYes), KeepLast: c.Int("keep-last"),
					RequireVerified: c.Bool("require-verified"), Trust: trust, By: by(c), Pgstow: buildInfo().Version, Log: rt.log,
				}}
				return e.run(c.Context, rt)
			},
		},
	}
}

// expire is one parsed "pgstow expire".
type expire struct {
	bucket bucketURL
	opts   archiver.ExpireOptions
	json   bool
}

func (e expire) run(ctx context.Context, rt *runtime) error {
	bucket, err := e.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	e.opts.Bucket = bucket
	result, err := archiver.Expire(ctx, e.opts)
	if result != nil {
		// What was done is worth knowing even when some of it failed.
		if printErr := e.print(rt, result, err); err == nil {
			err = printErr
		}
	}
	if err != nil {
		return fmt.Errorf("expire %s: %w", e.bucket, err)
	}
	return nil
}

func (e expire) print(rt *runtime, result *archiver.ExpireResult, failure error) error {
	if e.json {
		return printJSON(rt.out, result)
	}
	kept := map[string]int{}
	done := map[string]int{}
	var bytes int64
	t := newTable(rt.out)
	header := true
	for _, a := range result.Archives {
		done[a.Action]++
		if a.Action == archiver.ExpireKept && !interesting[a.Why] {
			kept[a.Why]++
			continue
		}
		if header {
			t.row("ACTION", "ID", "LABEL", "SIZE", "WHY")
			header = false
		}
		if a.Action != archiver.ExpireKept && a.Action != archiver.ExpireSkipped {
			bytes += a.Bytes
		}
		t.row(a.Action, a.ID, shorten(a.Label, 18), size(a.Bytes), shorten(whyText(a), 26))
	}
	if err := t.flush(); err != nil {
		return err
	}
	e.summary(rt, result, summaryPrefix(failure), done, kept, bytes)
	return nil
}

// interesting are the reasons that show although the archive simply stays: its
// policy would have let it go.
var interesting = map[string]bool{archiver.WhyLocked: true, archiver.WhyHeld: true, archiver.WhyDenied: true}

func whyText(a archiver.ExpiredArchive) string {
	switch a.Why {
	case archiver.WhyLocked, archiver.WhyHeld:
		return a.Why + ": " + a.Detail
	}
	return a.Detail
}

func (e expire) summary(rt *runtime, result *archiver.ExpireResult, prefix string, done, kept map[string]int, bytes int64) {
	verb, n := "expired", done[archiver.ExpireDone]+done[archiver.ExpireFinished]
	if !e.opts.Yes {
		verb, n = "would expire", done[archiver.ExpireWould]+done[archiver.ExpireFinish]
	}
	text := fmt.Sprintf("%s%s %s of %d, %s", prefix, verb, counted(n, "archive"), len(result.Archives), size(bytes))
	if !e.opts.Yes && n > 0 {
		text += "; --yes does it"
	}
	fmt.Fprintln(rt.err, text)
	for _, why := range []struct{ why, text string }{
		{archiver.WhyKeep, "until their keep is over"},
		{archiver.WhyKeepLast, "because too few newer ones would stay"},
		{archiver.WhyUnverified, "because too few newer ones are verified"},
		{archiver.WhySpared, "as the newest of a day, week, month or year"},
		{archiver.WhyNoKeep, "for good: their policy has no keep"},
		{archiver.WhyStore, "for the store: a lifecycle rule deletes them"},
	} {
		if kept[why.why] > 0 {
			fmt.Fprintf(rt.err, "%s%d kept %s\n", prefix, kept[why.why], why.text)
		}
	}
	if result.Incomplete > 0 {
		what := "1 directory"
		if result.Incomplete > 1 {
			what = fmt.Sprintf("%d directories", result.Incomplete)
		}
		fmt.Fprintf(rt.err, "%s%s without a manifest left alone, see `pgstow list --incomplete`\n", prefix, what)
	}
}
