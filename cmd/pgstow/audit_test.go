package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgstow/pgstow/archiver"
)

// The JSON that is written piece by piece is what would be written at once.
func TestAuditJSON(t *testing.T) {
	for name, r := range map[string]*auditReport{
		"violations": samplePage(), "compliant": compliantPage(),
		"empty": {Format: auditFormat, Verdict: verdictIncomplete, Buckets: []*archiver.AuditResult{}, Failed: []auditFailure{{"b", hostile}}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := printAuditJSON(&b, r); err != nil {
				t.Fatal(err)
			}
			whole, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := json.Unmarshal(b.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(whole, &want); err != nil {
				t.Fatal(err)
			}
			if len(r.Buckets) > 0 && !reflect.DeepEqual(got, want) {
				t.Error("it differs from what is written at once")
			}
			if len(r.Buckets) == 0 && got.(map[string]any)["buckets"] == nil {
				t.Error("no list of buckets")
			}
		})
	}
}

// Every archive has its row, and so has what is about none; a spreadsheet takes no
// cell for a formula.
func TestAuditCSV(t *testing.T) {
	r := samplePage()
	r.Buckets[0].Findings[0].Text = "=1+1"
	r.Buckets[0].Databases[0].Archives[0].StorageClass = "@SUM(A1)"
	var b bytes.Buffer
	if err := printAuditCSV(&b, r); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, row := range rows[1:] {
		count[row[0]+" "+row[5]]++
		for _, cell := range row {
			if strings.ContainsAny(cell[:min(1, len(cell))], "=+-@") {
				t.Errorf("%q", cell)
			}
		}
	}
	want := map[string]int{"archive ok": r.Archives - 4, "archive violation": 3, "archive notice": 1, "finding violation": 2}
	if !reflect.DeepEqual(count, want) || !slices.Equal(rows[0], auditColumns) {
		t.Errorf("%v, want %v", count, want)
	}
}

// Only what looked at all of an archive, and found it good, dates its proof.
func TestLastPassed(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	facts := []archiver.AuditedFact{
		{Time: day(1), Passed: true}, {Time: day(3), Passed: true}, {Time: day(2), Passed: true},
		{Time: day(4), Passed: true, Part: true}, {Time: day(5)},
	}
	if at := lastPassed(facts); !at.Equal(day(3)) {
		t.Errorf("passed last at %s", at)
	}
	if at := lastPassed(facts[3:]); !at.IsZero() {
		t.Errorf("a part and a failure passed at %s", at)
	}
}

// In a terminal the verdict comes first, then the databases, then what is wrong and
// what to do; nothing is wider than 80 columns or moves the cursor.
func TestAuditTable(t *testing.T) {
	r := samplePage()
	r.Failed = []auditFailure{{"s3://other/", "access denied"}}
	r.Buckets[0].Findings[0].Text += "\x1b[2J"
	for range 80 {
		r.Buckets[0].Findings = append(r.Buckets[0].Findings, archiver.AuditFinding{Severity: archiver.SeverityNotice, Check: "keep", Label: strings.Repeat("x", 100), Text: "a", Do: "b"})
	}
	r.judge()
	var b bytes.Buffer
	if err := printAudit(&b, r); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	at := -1
	for _, want := range []string{
		"INCOMPLETE: 1 of 2 buckets could not be audited; 5 violations in the others, 2026-11-26T06:00:00Z\n", "s3://other/ could not be audited: access denied",
		"s3://acme-archives/pg/: 443 archives of 4 databases", "DATABASE ", "orders ", "Violations:", "[lock]", "-> find out who could weaken it", "Notices:", "and 31 more; --json has them all",
	} {
		i := strings.Index(text, want)
		if i < at {
			t.Errorf("%q is missing, or comes too early", want)
		}
		at = i
	}
	if strings.Contains(text, "\x1b") {
		t.Error("an escape sequence")
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 && strings.Contains(strings.TrimSpace(line), " ") && !strings.Contains(line, strings.Repeat("x", 70)) {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
