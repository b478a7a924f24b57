package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pgstow/pgstow/archiver"
)

// shownFindings is how many of a severity a terminal gets; --json has all.
const shownFindings = 50

// printAudit writes the verdict, then a line for each database, then what is
// wrong and what to do about it.
func printAudit(w io.Writer, r *auditReport) error {
	var b strings.Builder
	line := func(first, others int, text string) { writeWrapped(&b, printable(text), first, others) }
	line(0, 0, auditHeadline(r))
	for _, f := range r.Failed {
		line(2, 4, f.Bucket+" could not be audited: "+f.Error)
	}
	for _, one := range r.Buckets {
		b.WriteByte('\n')
		line(0, 2, fmt.Sprintf("%s: %s of %s, %s", one.Bucket, counted(one.Archives, "archive"), counted(len(one.Databases), "database"), size(one.Bytes)))
		if err := auditTable(&b, one); err != nil {
			return err
		}
	}
	printFindings(&b, r, archiver.SeverityViolation, "Violations")
	printFindings(&b, r, archiver.SeverityNotice, "Notices")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// auditHeadline is the verdict in a sentence.
func auditHeadline(r *auditReport) string {
	at := r.Time.Format(timeFormat)
	switch r.Verdict {
	case verdictIncomplete:
		return fmt.Sprintf("INCOMPLETE: %d of %s could not be audited; %s in the others, %s", len(r.Failed),
			counted(len(r.Failed)+len(r.Buckets), "bucket"), counted(r.Violations, "violation"), at)
	case verdictViolations:
		return fmt.Sprintf("NOT COMPLIANT: %s, %s, %s", counted(r.Violations, "violation"), counted(r.Notices, "notice"), at)
	}
	return fmt.Sprintf("COMPLIANT: no violation, %s, %s", counted(r.Notices, "notice"), at)
}

func auditTable(b *strings.Builder, r *archiver.AuditResult) error {
	if len(r.Databases) == 0 {
		return nil
	}
	t := newTable(b)
	t.row("DATABASE", "ARCHIVES", "SIZE", "NEWEST", "VERIFIED", "DRILLED", "VERDICT")
	for _, d := range r.Databases {
		t.row(shorten(d.Label, 20), fmt.Sprint(len(d.Archives)), size(d.Bytes), ago(d.Newest, r.Time),
			ago(proofTime(d.Verified), r.Time), ago(proofTime(d.Drilled), r.Time), databaseVerdict(d))
	}
	return t.flush()
}

func proofTime(p *archiver.AuditedProof) time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.Time
}

func databaseVerdict(d archiver.AuditedDatabase) string {
	if d.Violations > 0 {
		return counted(d.Violations, "violation")
	}
	return "ok"
}

// ago is a short age: "3d", "5h", "never".
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 0:
		return "ahead"
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

func printFindings(b *strings.Builder, r *auditReport, severity, title string) {
	shown, all := 0, 0
	for _, one := range r.Buckets {
		for _, f := range one.Findings {
			if f.Severity != severity {
				continue
			}
			if all++; shown == shownFindings {
				continue
			}
			if shown == 0 {
				section(b, title)
			}
			shown++
			writeWrapped(b, printable(findingSubject(one, f)), 2, 4)
			writeWrapped(b, printable(f.Text), 6, 6)
			writeWrapped(b, printable("-> "+f.Do), 6, 9)
		}
	}
	if all > shown {
		fmt.Fprintf(b, "  and %d more; --json has them all\n", all-shown)
	}
}

// findingSubject is what a finding is about.
func findingSubject(r *archiver.AuditResult, f archiver.AuditFinding) string {
	at := ""
	if !f.Time.IsZero() {
		at = f.Time.UTC().Format(timeFormat)
	}
	subject := joined("  ", f.Label, f.Archive, at)
	if subject == "" {
		subject = r.Bucket
	}
	return subject + "  [" + f.Check + "]"
}
