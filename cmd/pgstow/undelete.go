package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func undeleteCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{"undelete (ARCHIVE | --all) --bucket BUCKET [--later-versions] [--yes] [--name LABEL] [--json]"},
			text: `
A lock keeps an archive's objects from being deleted, not from being covered: on S3 a plain delete puts a delete marker over an object, and a plain put a later version. pgstow reads the oldest version and is not misled; other programs are. This removes the delete markers, or without --yes says where they are. Later versions are not the archive's: they are listed, and deleted with --later-versions only, unless they are locked themselves. With --all, archives whose keep is over and that a rule of the bucket has expired stay so.`,
			examples: []example{
				{"What lies over the archives of a bucket?",
					"pgstow undelete --all --bucket 's3://acme-archives/pg/?region=eu-central-1'"},
				{"Make one as plain readers saw it first:",
					"pgstow undelete k7m2q9xd --later-versions --yes \\\n    --bucket 's3://acme-archives/pg/?region=eu-central-1'"},
			},
			exits: []int{exitStorage, exitNotFound, exitRefused, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "undelete",
			Usage: "remove delete markers from over archives",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				nameFlag("`LABEL` under which latest or a time is looked up; with --all only this label"),
				&cli.BoolFlag{Name: "all", Usage: "every archive of the bucket"},
				&cli.BoolFlag{Name: "later-versions", Usage: "delete what was put over an archive's objects as well"},
				yesFlag("do it; without it, only say what would be removed"),
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				u := undelete{json: c.Bool(flagJSON), opts: archiver.UndeleteOptions{
					Name: c.String(flagName), All: c.Bool("all"), LaterVersions: c.Bool("later-versions"), Yes: c.Bool(flagYes), Log: rt.log,
				}}
				var err error
				if u.opts.All {
					err = noArguments(c)
				} else {
					u.opts.Ref, err = archiveArgument(c)
				}
				if err != nil {
					return err
				}
				if u.bucket, err = rt.bucketOf(c, c.String(flagName)); err != nil {
					return err
				}
				return u.run(c.Context, rt)
			},
		},
	}
}

// undelete is one parsed "pgstow undelete".
type undelete struct {
	bucket bucketURL
	opts   archiver.UndeleteOptions
	json   bool
}

func (u undelete) run(ctx context.Context, rt *runtime) error {
	bucket, err := u.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	u.opts.Bucket = bucket
	result, err := archiver.Undelete(ctx, u.opts)
	if result != nil {
		if printErr := u.print(rt, result, summaryPrefix(err)); err == nil {
			err = printErr
		}
	}
	if err != nil {
		return fmt.Errorf("undelete in %s: %w", u.bucket, err)
	}
	return nil
}

func (u undelete) print(rt *runtime, result *archiver.UndeleteResult, prefix string) error {
	if u.json {
		return printJSON(rt.out, result)
	}
	markers, versions, left := 0, 0, 0
	if len(result.Versions) > 0 {
		t, text := newBelow()
		below, dir := [][]string{nil}, ""
		t.row("ACTION", "WHAT", "SINCE")
		for _, v := range result.Versions {
			what := "later version"
			switch {
			case v.Action == archiver.UndeleteExpired:
				what = "marker"
			case v.Marker:
				what = "marker"
				markers++
			case v.Action == archiver.UndeleteLeft:
				left++
			default:
				versions++
			}
			t.row(v.Action, what, utc(v.Created))
			at, name := splitKey(v.Key)
			lines := detail("object", name)
			if at != dir {
				lines = slices.Concat(detail("archive", at), lines)
				dir = at
			}
			below = append(below, lines)
		}
		if err := printBelow(rt.out, t, text, below); err != nil {
			return err
		}
	}
	if result.Unversioned && len(result.Versions) == 0 {
		fmt.Fprintf(rt.err, "%s%s keeps no versions: there is nothing to undelete\n", prefix, u.bucket)
		return nil
	}
	verb := "would remove"
	if u.opts.Yes {
		verb = "removed"
	}
	text := fmt.Sprintf("%s%s %s, %s", prefix, verb, counted(markers, "delete marker"), counted(versions, "later version"))
	if !u.opts.Yes && markers+versions > 0 {
		text += "; --yes does it"
	}
	fmt.Fprintln(rt.err, text)
	if result.Expired > 0 {
		fmt.Fprintf(rt.err, "%s%s left, past their keep and expired by a rule of the bucket;\n  name an archive to undelete it all the same\n", prefix, counted(result.Expired, "archive"))
	}
	if left > 0 {
		fmt.Fprintf(rt.err, "%s%s left, which plain readers get instead; --later-versions deletes them\n", prefix, counted(left, "later version"))
	} else if result.Covered > 0 {
		fmt.Fprintf(rt.err, "%splain readers still do not see %s as stored; where a store has no\n  markers, copy the old generation: gcloud storage cp gs://BUCKET/KEY#GENERATION ...\n", prefix, counted(result.Covered, "archive"))
	}
	return nil
}

// splitKey parts the key of an archive's object: where the archive lies, and what
// the object is called there.
func splitKey(key string) (dir, name string) {
	for i, slashes := 0, 0; i < len(key); i++ {
		if key[i] != '/' {
			continue
		}
		if slashes++; slashes == 3 {
			return key[:i+1], key[i+1:]
		}
	}
	return "", key
}
