package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func verifyCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{
				"verify ARCHIVE... --from BUCKET [--name LABEL] [--quick] [--json]",
				"verify --all --from BUCKET [--name LABEL] [--quick] ...",
			},
			text: `
Reads an archive back, once and without touching a disk, and proves that it is what was stored: every object has the size, version and checksum that the manifest says and is locked, held, tagged and encrypted as promised; index, globals and dump have their hashes; the dump's blocks are those that its table of contents promises; and every block is decoded, and its rows, their hashes and the large objects are those of the index.

--quick reads no dump: it asks the store, and compares what that says with the manifest. It proves that the objects are there and protected, and nothing about what is in them.

An encrypted archive is opened with --identity. Without, everything else is verified, and the result says "sealed".

All archives are looked at, whatever is found in one of them. What is wrong is listed by object and table, and ends in exit code 14, also when another archive could not be read. The result is stored as a record beside the archive, which lasts as long as it does; of --quick only when something is wrong. Where the credentials may not write, that is a warning.`,
			examples: []example{
				{"The newest archive of a label:", "pgstow verify latest --name orders --from s3://acme-archives/pg/"},
				{"Everything in a bucket, once a month, with a file for the auditor:",
					"pgstow verify --all --from gs://acme-archives/pg/ --json >verified.json"},
				{"Every night, that all of it is there and locked:", "pgstow verify --all --quick --from s3://acme-archives/pg/"},
				{"One in DEEP_ARCHIVE, which takes half a day:",
					"pgstow verify k7m2q9xd --from s3://acme-archives/pg/ --thaw standard --wait"},
			},
			exits: []int{exitStorage, exitNotFound, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "verify",
			Usage: "read archives back and prove that they are whole",
			Flags: []cli.Flag{
				bucketFlag("from"),
				nameFlag("`LABEL` under which latest or a time is looked up; with --all, only these archives"),
				&cli.BoolFlag{Name: flagAll, Usage: "every archive in the bucket"},
				&cli.BoolFlag{Name: "quick", Usage: "ask the store, read no dump"},
				&cli.BoolFlag{Name: "no-record", Usage: "leave no record beside the archive"},
				byFlag(), identityFlag(), signFlag("the record"), allowedSignersFlag("take only what"), ignoreFlag(),
				&cli.StringFlag{Name: flagThaw, Usage: "make archives in a cold class readable: `TIER` is expedited, standard or bulk"},
				daysFlag(),
				&cli.BoolFlag{Name: flagWait, Usage: "with --thaw: wait until they can be read"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				v, err := parseVerify(c, rt)
				if err != nil {
					return err
				}
				return v.run(c.Context, rt)
			},
		},
	}
}

const flagAll = "all"

// verify is one parsed "pgstow verify".
type verify struct {
	bucket bucketURL
	opts   archiver.VerifyOptions
	json   bool
}

func parseVerify(c *cli.Context, rt *runtime) (v verify, err error) {
	refs := c.Args().Slice()
	for _, ref := range refs {
		if ref == "" {
			return v, usagef("verify: the archive's id is empty")
		}
	}
	switch all := c.Bool(flagAll); {
	case all && len(refs) > 0:
		return v, usagef("verify: --all and ARCHIVE (%q) exclude each other", refs[0])
	case !all && len(refs) == 0:
		return v, usagef("verify: which archive? Give ids, the starts of some, latest or times, or --all; `pgstow list` shows them")
	}
	v.json = c.Bool(flagJSON)
	v.opts = archiver.VerifyOptions{
		Refs: refs, All: c.Bool(flagAll), Name: c.String(flagName), Quick: c.Bool("quick"),
		NoRecord: c.Bool("no-record"), By: by(c), Pgstow: buildInfo().Version, Log: rt.log,
	}
	if v.bucket, err = rt.bucketOf(c, v.opts.Name); err != nil {
		return v, err
	}
	if v.opts.Trust, err = rt.trust(c); err != nil {
		return v, err
	}
	if v.opts.Identities, err = rt.identities(c); err != nil {
		return v, err
	}
	if v.opts.Signer, err = rt.signer(c, nil); err != nil {
		return v, err
	}
	switch typed := rt.typedFlag([]string{flagDays, flagWait}); {
	case !c.IsSet(flagThaw) && typed != "":
		return v, usagef("verify: --%s goes with --thaw", typed)
	case c.IsSet(flagThaw) && v.opts.Quick:
		return v, usagef("verify: --quick reads no dump and needs no --thaw")
	case c.IsSet(flagThaw):
		if v.opts.Thaw, err = thawOptions(c, flagThaw); err != nil {
			return v, err
		}
		v.opts.Thaw.Waiting = rt.waiting(nil)
	}
	return v, nil
}

func (v verify) run(ctx context.Context, rt *runtime) error {
	bucket, err := v.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	v.opts.Bucket = bucket
	p := &verifyPrinter{rt: rt, json: v.json}
	v.opts.Begin, v.opts.Progress, v.opts.Verified = p.begin, p.report, p.verified
	result, err := archiver.Verify(ctx, v.opts)
	p.stop()
	if result != nil {
		// What was found is worth knowing, above all when it is not good.
		if printErr := p.end(result, err); err == nil {
			err = printErr
		}
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", v.bucket, err)
	}
	return nil
}

// verifyPrinter prints each archive when it has been looked at.
type verifyPrinter struct {
	rt    *runtime
	json  bool
	of    int
	meter *meter
	err   error // of the output
}

func (p *verifyPrinter) begin(e archiver.Entry, n, of int) {
	what := "verify " + e.ID
	if of > 1 {
		what = fmt.Sprintf("verify %d/%d %s", n, of, e.ID)
	}
	p.of, p.meter = of, p.rt.startMeter(what)
}

func (p *verifyPrinter) report(now archiver.Progress) { p.meter.report(now) }

func (p *verifyPrinter) stop() {
	if p.meter != nil {
		p.meter.stop()
	}
}

func (p *verifyPrinter) verified(v *archiver.VerifiedArchive) {
	p.stop()
	if p.json || p.err != nil {
		return
	}
	if p.of == 1 {
		p.err = printVerified(p.rt, v)
		return
	}
	if err := p.line(v); err != nil {
		p.err = fmt.Errorf("write output: %w", err)
	}
}

// line is one of many archives, what is wrong with it below. It is printed at once: all
// of them may take hours.
func (p *verifyPrinter) line(v *archiver.VerifiedArchive) error {
	_, err := fmt.Fprintf(p.rt.out, "%s  %s  %-16s  %-9s  %-6s  %9s\n", v.ID, utc(v.Time), shorten(printable(v.Label), 16), v.Result, v.Mode, size(v.Bytes))
	for _, text := range verifyNotes(v) {
		for _, line := range lines(printable(text), helpWidth-10) {
			if err == nil {
				_, err = fmt.Fprintf(p.rt.out, "          %s\n", line)
			}
		}
	}
	return err
}

// verifyNotes are what is wrong with an archive, and what kept it from being looked at.
func verifyNotes(v *archiver.VerifiedArchive) []string {
	var notes []string
	for _, problem := range v.Problems {
		notes = append(notes, problem.String())
	}
	if v.MoreProblems > 0 {
		notes = append(notes, fmt.Sprintf("and %s more", counted(v.MoreProblems, "problem")))
	}
	if v.Error != "" {
		notes = append(notes, v.Error)
	}
	return notes
}

func (p *verifyPrinter) end(result *archiver.VerifyResult, failure error) error {
	switch {
	case p.json:
		return printJSON(p.rt.out, result)
	case p.err != nil:
		return p.err
	}
	for _, f := range result.Vanished {
		for _, line := range lines("vanished: "+printable(f.String()), helpWidth) {
			if _, err := fmt.Fprintln(p.rt.out, line); err != nil {
				return fmt.Errorf("write output: %w", err)
			}
		}
	}
	if p.of > 1 {
		fmt.Fprintf(p.rt.err, "%s%s: %d passed, %d failed, %d undecided\n", summaryPrefix(failure),
			counted(len(result.Archives), "archive"), result.Passed, result.Failed, result.Undecided)
	}
	return nil
}

func printVerified(rt *runtime, v *archiver.VerifiedArchive) error {
	t := newTable(rt.out)
	t.row("id", v.ID)
	t.row("label", v.Label)
	t.row("archived", utc(v.Time))
	t.row("result", v.Result)
	wrapped(t, "mode", modeText(v))
	t.row("read", fmt.Sprintf("%s, %s looked at", size(v.Bytes), counted(v.Objects, "object")))
	if v.Blocks > 0 || v.Tables > 0 {
		t.row("contents", contents(archiver.Totals{Tables: v.Tables, Rows: v.Rows, LargeObjects: v.LargeObjects}))
	}
	optional(t, "structure", v.Structure)
	optional(t, "evidence", v.Evidence)
	signatureRow(t, v.Signature)
	if s := v.Protection; s != nil {
		t.row("lock now", lockNow(s, time.Now()))
		t.row("hold now", holdNow(s))
	}
	what := "wrong"
	switch v.Result {
	case archiver.ResultUndecided:
		what = "why"
	case archiver.ResultPassed: // all that can be told is why the record is not there
		what = "record"
	}
	for _, text := range verifyNotes(v) {
		wrapped(t, what, text)
	}
	for _, text := range v.Warnings {
		wrapped(t, "warning", text)
	}
	optional(t, "record", v.Record)
	return t.flush()
}

// modeText says what the mode means for this archive.
func modeText(v *archiver.VerifiedArchive) string {
	read := "every byte was read"
	if v.Result == archiver.ResultFailed { // some of it may be missing, or not be what it says
		read = "all that could be was read"
	}
	switch {
	case v.Result == archiver.ResultUndecided:
		return v.Mode + ", and not all of it could be looked at"
	case v.Mode == archiver.ModeQuick:
		return "quick: the store was asked, no content was read"
	case v.Mode == archiver.ModeSealed:
		return "sealed: " + read + "; the content is encrypted and was not looked at"
	case v.Structure == archiver.StructureUnchecked:
		return "full: " + read + ", of an archive version that could not be looked into"
	case v.Evidence == archiver.EvidenceNone:
		return "full: " + read + " and decoded; of some content there is no evidence to compare with"
	}
	return "full: " + read + ", decoded and compared"
}
