package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

// errViolations makes an audit that found some end in exitViolations.
var errViolations = errors.New("audit found violations")

func auditCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{"audit [DATABASE] [--bucket BUCKET] [--name LABEL] [--period PERIOD] [--checkpoint FILE] [--allowed-signers FILE] [--html FILE] [--json|--csv]"},
			text: `
Holds every archive against its policy, and says what was found: each object of the manifest there, with its size, version and the store's checksum; locked and held as promised; encrypted, tagged and in the class planned for its age; its signature, and the archives before it that it names; how long ago it was verified and drilled. It reads manifests and records and asks about every object; it reads no dump and changes nothing.

The policy that counts is the one stored with the archive. With a configuration the newest archive of each database is held against the database's policy as well, and missed archives are found: one is missed when the next begins later than "every" and a quarter of it, a day at most. Before --period a missed one is a notice, and so is what breaks no promise: archives past their keep, delete markers, what failed runs have left.

That the newest archives have vanished shows in no other archive. --checkpoint FILE keeps the newest one of each label from audit to audit and looks for it again. Keep that file elsewhere than the bucket, where those who may delete archives cannot write.

Any violation ends in exit code 15. A lock that these credentials may not see is one: nothing proves it.`,
			examples: []example{
				{"A bucket:", "pgstow audit --bucket 's3://acme-archives/pg/?region=eu-central-1'"},
				{"All databases of a configuration, with a page for the auditor:",
					"pgstow --config pgstow.yaml audit --html audit.html \\\n    --checkpoint /var/lib/pgstow/heads.json"},
				{"One database, for a spreadsheet:", "pgstow --config pgstow.yaml audit orders --csv > orders.csv"},
				{"In a pipeline, what is wrong and what to do:",
					"pgstow audit --bucket gs://acme-archives/pg/ --json | \\\n    jq -r '.buckets[].findings[] | [.severity, .text, .do] | @tsv'"},
			},
			exits: []int{exitStorage, exitNotFound, exitViolations},
		},
		Command: &cli.Command{
			Name:  "audit",
			Usage: "hold every archive against its policy",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				nameFlag("only this `LABEL`"),
				&cli.StringFlag{Name: "period", Value: archiver.DefaultAuditPeriod.String(), Usage: "a missed archive is a violation for this `PERIOD`: 30d, 12mo"},
				&cli.StringFlag{Name: "checkpoint", Usage: "`FILE` with the newest archives of the last audit: they are looked for, then it is written anew; keep it elsewhere than the bucket"},
				&cli.StringFlag{Name: "html", Usage: "write a page to `FILE`: one file that loads nothing, to be read, printed and filed"},
				&cli.BoolFlag{Name: "csv", Usage: "print one row for each archive, and for what else was found"},
				allowedSignersFlag("want archives and records that"),
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				a, err := newAudit(c, rt)
				if err != nil {
					return err
				}
				return a.run(c.Context, rt)
			},
		},
	}
}

// audit is one parsed "pgstow audit".
type audit struct {
	places     []auditPlace
	opts       archiver.AuditOptions
	checkpoint string
	html       string
	json, csv  bool
}

// auditPlace is one bucket, and what the configuration wants of it.
type auditPlace struct {
	bucket    bucketURL
	databases []archiver.AuditDatabase
	policies  []archiver.Policy
}

// auditReport is what is printed, of all buckets.
type auditReport struct {
	Format string    `json:"format"`
	Pgstow string    `json:"pgstow"`
	Time   time.Time `json:"time"`
	// Verdict is one of the verdict constants.
	Verdict    string                  `json:"verdict"`
	Violations int                     `json:"violations"`
	Notices    int                     `json:"notices"`
	Archives   int                     `json:"archives"`
	Bytes      int64                   `json:"bytes"`
	Checkpoint *auditCheckpoint        `json:"checkpoint,omitempty"`
	Buckets    []*archiver.AuditResult `json:"buckets"`
	Failed     []auditFailure          `json:"failed,omitempty"`
}

const auditFormat = "pgstow-audit/1"

// Verdicts of an audit.
const (
	verdictCompliant  = "compliant"
	verdictViolations = "violations"
	verdictIncomplete = "incomplete" // a bucket could not be asked
)

// auditCheckpoint is what the audit was compared with.
type auditCheckpoint struct {
	File string `json:"file"`
	// Last is the time of the audit that wrote it; zero when there was none.
	Last time.Time `json:"last,omitzero"`
}

// auditFailure is a bucket that could not be audited.
type auditFailure struct {
	Bucket string `json:"bucket"`
	Error  string `json:"error"`
}

func newAudit(c *cli.Context, rt *runtime) (*audit, error) {
	a := &audit{json: c.Bool(flagJSON), csv: c.Bool("csv"), html: c.String("html"), checkpoint: c.String("checkpoint")}
	if a.json && a.csv {
		return nil, usagef("audit: --json and --csv exclude each other")
	}
	for _, flag := range []string{"html", "checkpoint"} {
		if c.IsSet(flag) && c.String(flag) == "" {
			return nil, usagef("audit: --%s is empty", flag)
		}
		if dir := filepath.Dir(c.String(flag)); c.IsSet(flag) && !isDirectory(dir) { // told before an audit that may take minutes
			return nil, usagef("--%s: there is no directory %s to write it to; make it first", flag, dir)
		}
	}
	period, err := archiver.ParsePeriod(c.String("period"))
	if err != nil {
		return nil, usagef("--period: %s", refusal(err))
	}
	a.opts = archiver.AuditOptions{Name: c.String(flagName), Period: period, Log: rt.log}
	if a.opts.Trust, err = rt.trust(c); err != nil {
		return nil, err
	}
	database, err := rt.databaseArgument(c)
	if err != nil {
		return nil, err
	}
	var buckets []bucketURL
	switch {
	case database != nil && a.opts.Name != "":
		return nil, usagef("audit: DATABASE (%q) and --name exclude each other", database.name)
	case database != nil:
		a.opts.Name = database.name
		buckets = []bucketURL{database.store.bucket}
		if rt.typedBucket() {
			buckets, err = rt.buckets(c)
		}
	default:
		buckets, err = rt.buckets(c)
	}
	if err != nil {
		return nil, err
	}
	for _, b := range buckets {
		place := auditPlace{bucket: b}
		if place.databases, err = rt.auditDatabases(b); err != nil {
			return nil, err
		}
		if place.policies, err = rt.policies(b); err != nil {
			return nil, err
		}
		a.places = append(a.places, place)
	}
	return a, nil
}

// auditDatabases is what the configuration wants of the databases that are kept
// in a bucket.
func (rt *runtime) auditDatabases(b bucketURL) ([]archiver.AuditDatabase, error) {
	cfg, err := rt.config()
	if err != nil {
		return nil, err
	}
	var all []archiver.AuditDatabase
	for _, d := range cfg.databases {
		if d.store == nil || d.store.bucket.place != b.place {
			continue
		}
		want := archiver.AuditDatabase{Label: d.name, Every: d.every, DumpArgs: d.dump}
		if d.policy != nil {
			e := d.policy.evidence
			want.Policy = &d.policy.Policy
			want.Signed, want.Sealed = e.sign, e.encrypt == wordRequired
			want.VerifyEvery, want.DrillEvery, want.DrillPart = e.verifyEvery, e.drillEvery, e.drillPart
		}
		all = append(all, want)
	}
	return all, nil
}

// run audits one bucket after another: one that cannot be asked makes the audit
// incomplete, and keeps nobody from hearing of the others.
func (a *audit) run(ctx context.Context, rt *runtime) error {
	last, err := a.readCheckpoint(rt)
	if err != nil {
		return err
	}
	report := &auditReport{Format: auditFormat, Pgstow: buildInfo().Version, Time: time.Now().UTC().Truncate(time.Second), Buckets: []*archiver.AuditResult{}}
	if a.checkpoint != "" {
		report.Checkpoint = &auditCheckpoint{File: a.checkpoint, Last: last.Time}
	}
	var failures []error
	for _, place := range a.places {
		r, err := a.one(ctx, rt, place, last)
		if err != nil {
			failures = append(failures, fmt.Errorf("audit %s: %w", place.bucket, err))
			report.Failed = append(report.Failed, auditFailure{place.bucket.String(), oneLine(err.Error())})
			if ctx.Err() != nil {
				return errors.Join(failures...)
			}
			continue
		}
		report.add(r)
		last.Buckets[checkpointPlace(place.bucket)] = r.Heads
	}
	report.judge()
	failures = append(failures, a.write(rt, report, last))
	if err := errors.Join(failures...); err != nil {
		return err
	}
	if report.Violations > 0 {
		return fmt.Errorf("%w: %d; each says what to do", errViolations, report.Violations)
	}
	return nil
}

func (a *audit) one(ctx context.Context, rt *runtime, place auditPlace, last *archiver.Checkpoint) (*archiver.AuditResult, error) {
	bucket, err := place.bucket.open(ctx, rt.log)
	if err != nil {
		return nil, err
	}
	defer bucket.Close()
	opts := a.opts
	opts.Bucket, opts.Place = bucket, place.bucket.String()
	opts.Databases, opts.Policies = place.databases, place.policies
	opts.Heads = last.Buckets[checkpointPlace(place.bucket)]
	report, end := rt.auditProgress(place.bucket)
	defer end()
	opts.Progress = report
	return archiver.Audit(ctx, opts)
}

// auditProgress shows how many archives are done, now and then.
func (rt *runtime) auditProgress(b bucketURL) (report func(done, total int), end func()) {
	interval, last := plainInterval, time.Now()
	switch {
	case rt.progress == progressNone:
		return nil, func() {}
	case rt.status != nil:
		interval, last = lineInterval, time.Time{}
	}
	report = func(done, total int) {
		if time.Since(last) < interval {
			return
		}
		last = time.Now()
		if rt.status != nil {
			rt.status.set(fmt.Sprintf("audit  %s of %s archives", grouped(done), grouped(total)))
			return
		}
		rt.log.Info("audit", "bucket", b.String(), "archives_done", done, "archives", total)
	}
	return report, func() {
		if rt.status != nil {
			rt.status.set("")
		}
	}
}

func (r *auditReport) add(one *archiver.AuditResult) {
	r.Buckets = append(r.Buckets, one)
	r.Violations += one.Violations
	r.Notices += one.Notices
	r.Archives += one.Archives
	r.Bytes += one.Bytes
}

func (r *auditReport) judge() {
	switch {
	case len(r.Failed) > 0:
		r.Verdict = verdictIncomplete
	case r.Violations > 0:
		r.Verdict = verdictViolations
	default:
		r.Verdict = verdictCompliant
	}
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// write prints the report, writes the page, and then the checkpoint: what was
// compared is not forgotten before it is told.
func (a *audit) write(rt *runtime, report *auditReport, next *archiver.Checkpoint) error {
	var err error
	switch {
	case a.json:
		err = printAuditJSON(rt.out, report)
	case a.csv:
		err = printAuditCSV(rt.out, report)
	default:
		err = printAudit(rt.out, report)
	}
	if err != nil {
		return err
	}
	if a.html != "" {
		mode := pageMode(a.html)
		write := func(f *os.File) error { return errors.Join(printAuditHTML(f, report), f.Chmod(mode)) }
		if err := writeFile(a.html, write); err != nil {
			return fmt.Errorf("write the page: %w", err)
		}
	}
	if a.checkpoint == "" || len(report.Buckets) == 0 {
		return nil
	}
	next.Time = report.Time
	raw, err := next.Encode()
	if err != nil {
		return err
	}
	err = writeFile(a.checkpoint, func(f *os.File) error {
		_, err := f.Write(raw)
		return err
	})
	if err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	return nil
}

// pageMode is what the page before had, or what others may read: it is meant for
// them, and holds nothing that is secret.
func pageMode(path string) os.FileMode {
	if info, err := os.Stat(path); err == nil {
		return info.Mode().Perm()
	}
	return 0o644
}

// checkpointPlace names a bucket in a checkpoint, its server included.
func checkpointPlace(b bucketURL) string { return strings.TrimSpace(b.place) }

// maxCheckpoint is more than the heads of any bucket take.
const maxCheckpoint = 64 << 20

// readCheckpoint is what the last audit has left; empty when there was none.
func (a *audit) readCheckpoint(rt *runtime) (*archiver.Checkpoint, error) {
	c := &archiver.Checkpoint{Buckets: map[string][]archiver.AuditHead{}}
	if a.checkpoint == "" {
		return c, nil
	}
	f, err := os.Open(a.checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		rt.log.Warn("there is no checkpoint yet: what vanished before this audit is not noticed", "file", a.checkpoint)
		return c, nil
	}
	if err != nil {
		return nil, usagef("--checkpoint: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxCheckpoint))
	if err != nil {
		return nil, usagef("--checkpoint: %w", err)
	}
	if c, err = archiver.DecodeCheckpoint(raw); err != nil {
		return nil, usagef("--checkpoint: %s is no checkpoint of pgstow's: %w; it is left as it is, name another file", a.checkpoint, err)
	}
	if c.Buckets == nil {
		c.Buckets = map[string][]archiver.AuditHead{}
	}
	return c, nil
}
