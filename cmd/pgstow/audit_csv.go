package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/pgstow/pgstow/archiver"
)

var auditColumns = []string{
	"kind", "bucket", "label", "archive", "time", "verdict", "size", "policy", "keep_until",
	"promised_lock", "promised_until", "lock", "lock_until", "legal_hold", "storage_class",
	"verified", "drilled", "manifest_sha256", "findings", "to_do",
}

// printAuditCSV writes a row for each archive, and one for each finding that is
// about no archive there is.
func printAuditCSV(w io.Writer, r *auditReport) error {
	out := csv.NewWriter(w)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = harmless(c)
		}
		_ = out.Write(cells) // Flush tells
	}
	row(auditColumns...)
	for _, one := range r.Buckets {
		of := map[string][]archiver.AuditFinding{}
		for _, f := range one.Findings {
			of[f.Archive] = append(of[f.Archive], f)
		}
		for _, d := range one.Databases {
			for _, a := range d.Archives {
				found := of[a.ID]
				delete(of, a.ID)
				row("archive", one.Bucket, d.Label, a.ID, csvTime(a.Time), worst(found), strconv.FormatInt(a.Size, 10), a.Policy, csvTime(a.KeepUntil),
					string(a.Promised.Mode), csvTime(a.Promised.Until), string(a.Lock.Mode), csvTime(a.Lock.Until), strconv.FormatBool(a.LegalHold), a.StorageClass,
					csvTime(lastPassed(a.Verified)), csvTime(lastPassed(a.Drilled)), a.ManifestSHA256, texts(found), dos(found))
			}
		}
		for _, f := range one.Findings {
			if _, left := of[f.Archive]; !left {
				continue
			}
			cells := make([]string, len(auditColumns))
			copy(cells, []string{"finding", one.Bucket, f.Label, f.Archive, csvTime(f.Time), f.Severity})
			cells[len(cells)-2], cells[len(cells)-1] = f.Check+": "+f.Text, f.Do
			row(cells...)
		}
	}
	for _, f := range r.Failed {
		cells := make([]string, len(auditColumns))
		copy(cells, []string{"failed", f.Bucket})
		cells[len(cells)-2] = f.Error
		row(cells...)
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// harmless keeps a spreadsheet from taking a cell for a formula.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

func csvTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}

// worst is the verdict on an archive with these findings.
func worst(found []archiver.AuditFinding) string {
	verdict := "ok"
	for _, f := range found {
		if f.Severity == archiver.SeverityViolation {
			return f.Severity
		}
		verdict = f.Severity
	}
	return verdict
}

func texts(found []archiver.AuditFinding) string {
	list := make([]string, len(found))
	for i, f := range found {
		list[i] = f.Check + ": " + f.Text
	}
	return strings.Join(list, " | ")
}

func dos(found []archiver.AuditFinding) string {
	list := make([]string, len(found))
	for i, f := range found {
		list[i] = f.Do
	}
	return strings.Join(list, " | ")
}

// lastPassed is when all of an archive was last looked at and found good.
func lastPassed(facts []archiver.AuditedFact) (at time.Time) {
	for _, f := range facts {
		if f.Passed && !f.Part && f.Time.After(at) {
			at = f.Time
		}
	}
	return at
}
