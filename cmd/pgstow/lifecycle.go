package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

// errLifecycleChanges makes `lifecycle plan --exit-code` end in exitChanges.
var errLifecycleChanges = errors.New("the bucket's rules are not what they should be")

func lifecycleCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{
				"lifecycle show|plan|apply [--bucket BUCKET] [--policy NAME] [--json]",
				"lifecycle plan|apply --bucket BUCKET --policy NAME [--keep PERIOD] [--lock MODE] [--expiry store] [--transition PERIOD:CLASS]... ...",
			},
			text: `
The rules by which the store itself moves dumps to colder classes, deletes archives whose keep is over, and clears away what nobody sees. "show" prints those there are, "plan" what would change, "apply" changes it, then reads the rules again and compares.

Rules of others are never touched, and neither are those of another prefix: pgstow's own are called pgstow-HASH-POLICY-KIND, with a hash of the prefix. On GCS, whose rules have no ids, a rule that matches exactly one policy's prefix and has a form that pgstow writes is its own.

The policy "default", under which archives without a named policy lie, always gets the rules for unfinished uploads and for delete markers, and never one that expires. With a configuration every store of it gets the rules of its policies, and those of policies that are gone go when nothing of theirs is left in the bucket. Without one, rules of policies that are not named are left as they are.

Refused is what cannot go together: somebody's rule that would delete archives before their keep is over, an expiry that comes before a lock ends, an expiry that archives already there were not promised.`,
			examples: []example{
				{"What is there:", "pgstow lifecycle show --bucket s3://acme-archives/pg/"},
				{"All stores of a configuration:", "pgstow --config pgstow.yaml lifecycle apply"},
				{"Dumps to DEEP_ARCHIVE after a month, deleted by S3 after seven years:",
					"pgstow lifecycle apply --bucket s3://acme-archives/pg/ --policy sox-7y \\\n" +
						"    --keep 7y --lock compliance --expiry store \\\n    --transition 30d:DEEP_ARCHIVE"},
				{"In a pipeline, fail when somebody has changed the rules:",
					"pgstow lifecycle plan --bucket s3://acme-archives/pg/ --exit-code"},
			},
			exits: []int{exitStorage, exitNotFound, exitRefused, exitIntegrity, exitChanges},
		},
		Command: &cli.Command{
			Name:  "lifecycle",
			Usage: "rules by which the store moves, expires and clears away",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				&cli.StringFlag{Name: flagPolicy, Usage: "only this policy of the configuration; without one, the `NAME` of the policy that the next options describe"},
				&cli.StringFlag{Name: flagKeep, Usage: "its archives are kept for this `PERIOD`: 30d, 2w, 18mo, 7y"},
				&cli.StringFlag{Name: flagLock, Value: lockNone, Usage: "and locked in this `MODE`: none, governance or compliance"},
				&cli.StringFlag{Name: "expiry", Value: archiver.ExpiryPgstow, Usage: "`WHO` deletes them: pgstow (\"pgstow expire\") or store (a rule)"},
				&cli.StringSliceFlag{Name: "transition", Usage: "dumps move after a time to a class, a `PERIOD:CLASS` such as 30d:DEEP_ARCHIVE"},
				&cli.StringFlag{Name: flagClass, Usage: "storage `CLASS` that dumps begin in"},
				&cli.IntFlag{Name: "abort-uploads-after", Value: archiver.DefaultUploadDays, Usage: "abort unfinished uploads after so many `DAYS`; must exceed the longest dump"},
				&cli.BoolFlag{Name: "exit-code", Usage: "with plan: end with 16 when there are changes"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				l, err := newLifecycle(c, rt)
				if err != nil {
					return err
				}
				return l.run(c.Context, rt)
			},
		},
	}
}

// lifecycle is one parsed "pgstow lifecycle".
type lifecycle struct {
	what       string // show, plan or apply
	places     []lifecyclePlace
	uploadDays int
	exitCode   bool
	json       bool
}

// lifecyclePlace is one bucket and the policies of the archives in it.
type lifecyclePlace struct {
	bucket   bucketURL
	policies []archiver.Policy
	complete bool // these are all there are
}

// lifecycleResult is what is printed about one bucket.
type lifecycleResult struct {
	Bucket string `json:"bucket"`
	*archiver.LifecyclePlan
	Uploads *archiver.UploadProtection `json:"uploads,omitempty"`
}

func newLifecycle(c *cli.Context, rt *runtime) (*lifecycle, error) {
	l := &lifecycle{uploadDays: c.Int("abort-uploads-after"), exitCode: c.Bool("exit-code"), json: c.Bool(flagJSON)}
	switch c.Args().Len() {
	case 0:
		return nil, usagef("lifecycle: want show, plan or apply")
	case 1:
		l.what = c.Args().First()
	default:
		return nil, usagef("lifecycle: unexpected argument %q", c.Args().Get(1))
	}
	switch {
	case l.what != "show" && l.what != "plan" && l.what != "apply":
		return nil, usagef("lifecycle: no %q; want show, plan or apply", l.what)
	case l.exitCode && l.what != "plan":
		return nil, usagef("lifecycle: --exit-code goes with plan")
	case l.uploadDays < 1:
		return nil, usagef("--abort-uploads-after %d: want at least 1 day", l.uploadDays)
	}
	var err error
	l.places, err = lifecyclePolicies(c, rt)
	return l, err
}

// describingFlags say what a policy is, where no file does.
var describingFlags = []string{flagKeep, flagLock, "expiry", "transition", flagClass}

// lifecyclePolicies are the buckets to work on, and the policies of each: with a
// configuration those that may be kept there, or the one that --policy names;
// without one, what the flags describe.
func lifecyclePolicies(c *cli.Context, rt *runtime) ([]lifecyclePlace, error) {
	cfg, err := rt.config()
	if err != nil {
		return nil, err
	}
	buckets, err := rt.buckets(c)
	if err != nil {
		return nil, err
	}
	if cfg.file == "" {
		policies, err := rt.policyOfFlags(c)
		return []lifecyclePlace{{bucket: buckets[0], policies: policies}}, err
	}
	if typed := rt.typedFlag(describingFlags); typed != "" {
		return nil, usagef("lifecycle: --%s describes a policy, and those are in %s", typed, cfg.file)
	}
	var places []lifecyclePlace
	for _, b := range buckets {
		place := lifecyclePlace{bucket: b}
		place.complete = find(cfg.stores, func(s *store) bool { return s.bucket.place == b.place }) != nil
		if place.policies, err = rt.policies(b); err != nil {
			return nil, err
		}
		if rt.line.typed[flagPolicy] {
			p, err := cfg.policyOf(c.String(flagPolicy))
			if err != nil {
				return nil, err
			}
			if why := unfit(p, b.scheme); why != "" {
				return nil, usagef("lifecycle: policy %s does not go with %s: %s", p.Name, b, why)
			}
			place.policies, place.complete = []archiver.Policy{p}, false
		}
		if b.scheme == "file" && len(buckets) > 1 {
			rt.log.Info("a folder has no lifecycle rules", "bucket", b.String())
			continue
		}
		places = append(places, place)
	}
	return places, nil
}

// policyOfFlags is the one policy that flags describe, or none.
func (rt *runtime) policyOfFlags(c *cli.Context) ([]archiver.Policy, error) {
	if !rt.line.typed[flagPolicy] {
		if typed := rt.typedFlag(describingFlags); typed != "" {
			return nil, usagef("lifecycle: --%s describes a policy: give its name with --policy", typed)
		}
		return nil, nil
	}
	p := archiver.Policy{Name: c.String(flagPolicy), Expiry: c.String("expiry"), StorageClass: c.String(flagClass)}
	if keep := c.String(flagKeep); keep != "" {
		var err error
		if p.Keep, err = archiver.ParsePeriod(keep); err != nil {
			return nil, usagef("--keep: %s", refusal(err))
		}
	}
	switch mode := c.String(flagLock); mode {
	case lockNone, string(storage.Governance), string(storage.Compliance):
		p.Lock = lockMode(mode)
	default:
		return nil, usagef("--lock %q: want none, governance or compliance", mode)
	}
	for _, text := range c.StringSlice("transition") {
		after, class, ok := strings.Cut(text, ":")
		period, err := archiver.ParsePeriod(after)
		if !ok || err != nil {
			return nil, usagef("--transition %q: want a time and a class, such as 30d:DEEP_ARCHIVE", text)
		}
		p.Transitions = append(p.Transitions, archiver.Transition{After: period, To: class})
	}
	return []archiver.Policy{p}, p.Check(p.Keep)
}

// run goes on to the next bucket after a failure: they have nothing to do with
// each other.
func (l *lifecycle) run(ctx context.Context, rt *runtime) error {
	results := []lifecycleResult{}
	var failures []error
	changes := 0
	for _, place := range l.places {
		r, err := l.one(ctx, rt, place)
		if r.LifecyclePlan != nil {
			results = append(results, r)
			changes += r.Changes
			l.print(rt, r)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("lifecycle of %s: %w", place.bucket, err))
		}
	}
	if l.json {
		failures = append(failures, printJSON(rt.out, results))
	}
	if err := errors.Join(failures...); err != nil {
		return err
	}
	if l.exitCode && changes > 0 {
		return fmt.Errorf("%w: %s; `pgstow lifecycle apply` makes them", errLifecycleChanges, counted(changes, "change"))
	}
	return nil
}

func (l *lifecycle) one(ctx context.Context, rt *runtime, place lifecyclePlace) (r lifecycleResult, err error) {
	r.Bucket = place.bucket.String()
	bucket, err := place.bucket.open(ctx, rt.log)
	if err != nil {
		return r, err
	}
	defer bucket.Close()
	opts := archiver.LifecycleOptions{
		Bucket: bucket, Policies: place.policies, Complete: place.complete, UploadDays: l.uploadDays, Log: rt.log,
	}
	switch l.what {
	case "plan":
		r.LifecyclePlan, err = archiver.PlanLifecycle(ctx, opts)
	case "apply":
		r.LifecyclePlan, err = archiver.ApplyLifecycle(ctx, opts)
	default:
		r.LifecyclePlan, err = archiver.ShowLifecycle(ctx, bucket)
	}
	if err == nil {
		uploads := archiver.ProtectUploads(ctx, bucket)
		r.Uploads = &uploads
	}
	return r, err
}

// marks are the signs of a diff.
var marks = map[string]string{
	archiver.LifecycleAdd: "+", archiver.LifecycleChanged: "~", archiver.LifecycleRemove: "-",
	archiver.LifecycleUnchanged: "=", archiver.LifecycleKept: "=",
}

// print writes one bucket's rules for people.
func (l *lifecycle) print(rt *runtime, r lifecycleResult) {
	for _, w := range r.Warnings {
		rt.log.Warn(w)
	}
	if l.json {
		return
	}
	var b strings.Builder
	line := func(first int, text string) { writeWrapped(&b, printable(text), first, first+2) }
	line(0, r.Bucket+": "+l.headline(r.LifecyclePlan))
	for _, c := range r.Rules {
		name := c.ID
		if name == "" {
			name = c.Policy + " " + c.Kind
		}
		line(2, marks[c.Action]+" "+name)
		switch c.Action {
		case archiver.LifecycleChanged:
			line(6, "was "+c.Was)
			line(6, "now "+c.Will)
		case archiver.LifecycleAdd:
			line(6, c.Will)
		default:
			line(6, c.Was)
		}
		if c.Reason != "" {
			line(6, "("+c.Reason+")")
		}
	}
	if len(r.Foreign) > 0 {
		line(0, "Not pgstow's, or of another prefix, and left alone: "+counted(len(r.Foreign), "rule"))
		for _, f := range r.Foreign {
			name := "(no id)"
			if f.ID != "" {
				name = strconv.Quote(f.ID)
			}
			line(2, "  "+name)
			line(6, f.Says)
		}
	}
	if r.Uploads != nil {
		line(0, "Unfinished uploads: "+joined("; ", r.Uploads.Detail, r.Uploads.Advice)+".")
	}
	if len(r.Limits) > 0 {
		line(0, "To know:")
		for _, limit := range r.Limits {
			line(2, "- "+limit)
		}
	}
	fmt.Fprint(rt.out, b.String())
}

// headline counts what is planned, or was done.
func (l *lifecycle) headline(p *archiver.LifecyclePlan) string {
	count := map[string]int{}
	for _, c := range p.Rules {
		count[c.Action]++
	}
	if l.what == "show" {
		return counted(len(p.Rules), "rule") + " of pgstow's"
	}
	words := map[string][2]string{
		archiver.LifecycleAdd: {"to add", "added"}, archiver.LifecycleChanged: {"to change", "changed"},
		archiver.LifecycleRemove: {"to remove", "removed"},
	}
	var parts []string
	for _, action := range []string{archiver.LifecycleAdd, archiver.LifecycleChanged, archiver.LifecycleRemove} {
		word := words[action][0]
		if p.Applied {
			word = words[action][1]
		}
		if n := count[action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, word))
		}
	}
	switch {
	case p.Changes == 0:
		return "nothing to change"
	case p.Applied:
		return strings.Join(parts, ", ") + "; read back"
	}
	return strings.Join(parts, ", ")
}
