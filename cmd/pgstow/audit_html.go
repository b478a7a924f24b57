package main

import (
	"bufio"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgstow/pgstow/archiver"
)

// What one page shows. Everything beyond is counted there, and in --json.
const (
	pageRows    = 60  // archives of a database, and findings of a severity
	pageAllRows = 600 // of all databases
	pageMinRows = 8
)

var (
	//go:embed audit.html.tmpl
	auditPage string
	//go:embed audit.css
	auditStyle string

	auditTemplate = template.Must(template.New("audit").Funcs(template.FuncMap{
		"utc": minute, "iso": csvTime, "bytes": size,
		"prose": prose, "sentence": sentence,
		"half":       func(n int) string { return fmt.Sprint(float64(-n) / 2) },
		"barsHeight": func(n int) int { return n + axisHeight },
		"axisY":      func(n int) int { return n + axisHeight - 4 },
	}).Parse(auditPage))
)

// printAuditHTML writes the report as one page that loads nothing. What it says
// depends on the report alone.
func printAuditHTML(w io.Writer, r *auditReport) error {
	b := bufio.NewWriterSize(w, 64<<10)
	return errors.Join(auditTemplate.Execute(b, newPage(r)), b.Flush())
}

// page is what the template shows.
type page struct {
	Style      template.CSS
	Report     *auditReport
	Class      string // of the verdict
	Headline   string
	Summary    string
	Where      string
	Facts      []pageFact
	Violations pageFindingList
	Notices    pageFindingList
	Databases  []pageDatabase
	Version    string
}

type pageFact struct{ Name, Value string }

type pageFindingList struct {
	Rows  []pageFinding
	Total int
}

// Left is how many are not shown.
func (l pageFindingList) Left() int { return l.Total - len(l.Rows) }

// pageFinding is one row, with what was compared.
type pageFinding struct {
	archiver.AuditFinding
	Bucket   string
	Database string // the anchor of its section, "" without one
	Evidence []archiver.AuditCheck
}

// opened is what a row opens to.
type opened struct {
	Of     string
	Checks []archiver.AuditCheck
}

// Results: the checks have some; what a database was held against has not.
func (o opened) Results() bool { return len(o.Checks) > 0 && o.Checks[0].Result != "" }

// View is the row's evidence.
func (f pageFinding) View() opened {
	return opened{Of: joined(" ", f.Label, f.Archive, f.Check), Checks: f.Evidence}
}

// View is the row's evidence.
func (a pageArchive) View() opened { return opened{Of: a.ID, Checks: a.Checks} }

type pageDatabase struct {
	ID, Label, Bucket string
	Class, Verdict    string
	Facts             []pageFact
	Timeline          *timeline
	Rows              []pageArchive
	Total             int
}

// Left is how many archives are not shown.
func (d pageDatabase) Left() int { return d.Total - len(d.Rows) }

type pageArchive struct {
	archiver.AuditedArchive
	Class, Verdict, Lock, Keep, Verified, Drilled string
}

func newPage(r *auditReport) *page {
	p := &page{Style: template.CSS(auditStyle), Report: r, Version: r.Pgstow} //nolint:gosec // our own file
	p.verdict()
	labels, databases := 0, 0
	for _, one := range r.Buckets {
		databases += len(one.Databases)
	}
	rows := min(pageRows, max(pageMinRows, pageAllRows/max(databases, 1)))
	for _, one := range r.Buckets {
		anchors := map[string]string{}
		checks := map[string][]archiver.AuditCheck{}
		for _, d := range one.Databases {
			labels++
			id := fmt.Sprintf("db-%d", labels)
			anchors[d.Label] = id
			for _, a := range d.Archives {
				if a.Violations+a.Notices > 0 {
					checks[a.ID] = a.Checks
				}
			}
			p.Databases = append(p.Databases, newPageDatabase(id, one, d, rows, len(r.Buckets) > 1))
		}
		shown := map[string]int{}
		for _, f := range one.Findings {
			row := pageFinding{AuditFinding: f, Bucket: one.Bucket, Database: anchors[f.Label], Evidence: checks[f.Archive]}
			if row.Evidence == nil {
				row.Evidence = databaseEvidence(one, f.Label)
			}
			list := &p.Violations
			if f.Severity != archiver.SeverityViolation {
				list = &p.Notices
			}
			list.Total++
			key := f.Severity + " " + f.Label
			if shown[key]++; shown[key] <= rows {
				list.Rows = append(list.Rows, row)
			}
		}
	}
	p.facts(databases)
	return p
}

func (p *page) verdict() {
	r := p.Report
	names := make([]string, 0, len(r.Buckets))
	for _, one := range r.Buckets {
		names = append(names, one.Bucket)
	}
	for _, f := range r.Failed {
		names = append(names, f.Bucket)
	}
	p.Where = strings.Join(names, ", ")
	switch r.Verdict {
	case verdictIncomplete:
		p.Class, p.Headline = "note", "Incomplete"
		p.Summary = fmt.Sprintf("%s could not be audited. Nothing is known of what lies there.", counted(len(r.Failed), "bucket"))
		if r.Violations > 0 {
			p.Summary += fmt.Sprintf(" In the others %s.", wereFound(r.Violations))
		}
	case verdictViolations:
		p.Class, p.Headline = "bad", "Not compliant"
		p.Summary = strings.ToUpper(wereFound(r.Violations)[:1]) + wereFound(r.Violations)[1:] + ". Each stands below with what to do about it."
	default:
		p.Class, p.Headline = "ok", "Compliant"
		p.Summary = "Every archive is there, whole as far as the store tells, and kept as it was promised."
		if r.Archives == 0 {
			p.Summary = "Nothing is promised, and nothing is there: no archive was found."
		}
	}
}

func wereFound(n int) string {
	if n == 1 {
		return "1 violation was found"
	}
	return fmt.Sprintf("%d violations were found", n)
}

func (p *page) facts(databases int) {
	r := p.Report
	add := func(name, value string) { p.Facts = append(p.Facts, pageFact{name, value}) }
	add("Archives", grouped(r.Archives))
	add("Databases", grouped(databases))
	add("Stored", size(r.Bytes))
	add("Violations", grouped(r.Violations))
	add("Notices", grouped(r.Notices))
	if len(r.Buckets) > 0 {
		add("Missed archives count since", r.Buckets[0].Since.Format(time.DateOnly))
	}
	switch c := r.Checkpoint; {
	case c == nil:
		add("Compared with the last audit", "no: no checkpoint was given")
	case c.Last.IsZero():
		add("Compared with the last audit", "no: this is the first with this checkpoint")
	default:
		add("Compared with the audit of", minute(c.Last))
	}
	rules := map[string]int{}
	for _, one := range r.Buckets {
		rules[one.Rules]++
	}
	switch {
	case rules[archiver.RulesDenied] > 0:
		add("Lifecycle rules", "could not be read")
	case rules[archiver.RulesJudged] > 0:
		add("Lifecycle rules", "read and judged")
	}
}

func newPageDatabase(id string, r *archiver.AuditResult, d archiver.AuditedDatabase, rows int, many bool) pageDatabase {
	v := pageDatabase{ID: id, Label: d.Label, Class: "ok", Verdict: "compliant", Total: len(d.Archives), Timeline: newTimeline(id, d, r.Time)}
	if many {
		v.Bucket = r.Bucket
	}
	if d.Violations > 0 {
		v.Class, v.Verdict = "bad", counted(d.Violations, "violation")
	}
	for _, c := range databaseEvidence(r, d.Label) {
		v.Facts = append(v.Facts, pageFact{c.Check, c.Detail})
	}
	for _, a := range chosenArchives(d.Archives, rows) {
		v.Rows = append(v.Rows, newPageArchive(a))
	}
	return v
}

// chosenArchives are the newest with violations, then the newest; newest first.
func chosenArchives(all []archiver.AuditedArchive, most int) []archiver.AuditedArchive {
	newest := slices.Clone(all)
	slices.Reverse(newest)
	slices.SortStableFunc(newest, func(a, b archiver.AuditedArchive) int {
		return cmp.Compare(min(b.Violations, 1), min(a.Violations, 1))
	})
	newest = newest[:min(most, len(newest))]
	slices.SortStableFunc(newest, func(a, b archiver.AuditedArchive) int { return b.Time.Compare(a.Time) })
	return newest
}

func newPageArchive(a archiver.AuditedArchive) pageArchive {
	v := pageArchive{AuditedArchive: a, Class: "ok", Verdict: "ok", Lock: "none", Keep: "no promise", Verified: "never", Drilled: "never"}
	switch {
	case a.Violations > 0:
		v.Class, v.Verdict = "bad", counted(a.Violations, "violation")
	case a.Notices > 0:
		v.Class, v.Verdict = "note", counted(a.Notices, "notice")
	}
	if a.Lock.Mode != "" {
		v.Lock = string(a.Lock.Mode) + " until " + a.Lock.Until.Format(time.DateOnly)
	}
	if a.LegalHold {
		v.Lock += ", held"
	}
	if !a.KeepUntil.IsZero() {
		v.Keep = a.KeepUntil.Format(time.DateOnly)
	}
	if t := lastPassed(a.Verified); !t.IsZero() {
		v.Verified = t.Format(time.DateOnly)
	}
	if t := lastPassed(a.Drilled); !t.IsZero() {
		v.Drilled = t.Format(time.DateOnly)
	}
	return v
}

// databaseEvidence is what a label as a whole was held against.
func databaseEvidence(r *archiver.AuditResult, label string) []archiver.AuditCheck {
	i := slices.IndexFunc(r.Databases, func(d archiver.AuditedDatabase) bool { return d.Label == label })
	if i < 0 {
		return nil
	}
	d := r.Databases[i]
	list := []archiver.AuditCheck{{Check: "archives", Detail: "none"}}
	if len(d.Archives) > 0 {
		list[0].Detail = grouped(len(d.Archives)) + ", " + size(d.Bytes)
	}
	add := func(check, detail string) { list = append(list, archiver.AuditCheck{Check: check, Detail: detail}) }
	if len(d.Archives) > 0 {
		made := minute(d.Oldest) + " to " + minute(d.Newest) + ", the newest "
		if len(d.Archives) == 1 {
			made = minute(d.Newest) + ", "
		}
		add("made", made+ago(d.Newest, r.Time))
	}
	if d.EverySeconds > 0 {
		every := time.Duration(d.EverySeconds) * time.Second
		missed := 0
		for _, g := range d.Gaps {
			missed += g.Missed
		}
		add("due", fmt.Sprintf("every %s, at most %s late; missed %s", shortDuration(every), shortDuration(archiver.EveryTolerance(every)), grouped(missed)))
	}
	add("verified", proofText(d.Verified, d.VerifyEvery))
	add("drilled", proofText(d.Drilled, d.DrillEvery))
	return list
}

func proofText(p *archiver.AuditedProof, every archiver.Period) string {
	text := "never"
	if p != nil {
		text = minute(p.Time) + ", archive " + p.Archive
	}
	if !every.IsZero() {
		text += "; due every " + every.String()
	}
	return text
}

// shortDuration is 24h rather than 24h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	text = strings.TrimSuffix(text, "0s")
	if rest, ok := strings.CutSuffix(text, "h0m"); ok {
		text = rest + "h"
	}
	return text
}

// sentence is prose that begins with a capital, unless it begins with a name.
func sentence(text string) template.HTML {
	first, _, _ := strings.Cut(text, " ")
	if r, n := utf8.DecodeRuneInString(text); !strings.ContainsAny(first, "`./_=<") {
		text = string(unicode.ToUpper(r)) + text[n:]
	}
	return prose(text)
}

// prose sets what stands between backquotes as code.
func prose(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			b.WriteString("<code>" + template.HTMLEscapeString(part) + "</code>")
			continue
		}
		b.WriteString(template.HTMLEscapeString(part))
	}
	return template.HTML(b.String()) //nolint:gosec // each part is escaped
}

// minute is a time as the page shows it; all are UTC.
func minute(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// grouped writes 12345 as 12,345.
func grouped(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
