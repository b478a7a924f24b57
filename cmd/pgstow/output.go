package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

const timeFormat = "2006-01-02T15:04:05Z"

// printJSON writes one value as data for programs.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// table aligns rows in columns. Errors of its writer show in flush.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) table {
	return table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
}

// row ends every cell but the last with a tab. Cells come from databases and
// buckets: control characters would move the terminal's cursor.
func (t table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t "))
}

func (t table) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// below are lines that stand under rows, which they would take out of line.
const (
	belowName  = 11
	belowWidth = 80 - 2 - belowName - 2
)

// newBelow is a table for printBelow.
func newBelow() (table, *bytes.Buffer) {
	var text bytes.Buffer
	return newTable(&text), &text
}

// detail is one thing that is said under a row.
func detail(name, text string) []string {
	var all []string
	for _, line := range lines(printable(text), belowWidth) {
		all = append(all, strings.TrimRight(fmt.Sprintf("  %-*s  %s", belowName, name, line), " "))
		name = ""
	}
	return all
}

// printBelow prints the table, and under each of its rows what belongs there.
func printBelow(w io.Writer, t table, text *bytes.Buffer, below [][]string) error {
	if err := t.flush(); err != nil {
		return err
	}
	for i, row := range strings.SplitAfter(strings.TrimSuffix(text.String(), "\n"), "\n") {
		row = strings.TrimSuffix(row, "\n") + "\n"
		if i < len(below) && len(below[i]) > 0 {
			row += strings.Join(below[i], "\n") + "\n"
		}
		if _, err := io.WriteString(w, row); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
	return nil
}

// printable replaces what would move the cursor, end the line, or turn the
// direction of what follows.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return '?'
		}
		return r
	}, s)
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }

func utc(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(timeFormat)
}

func age(t, now time.Time) string {
	return strings.TrimSpace(humanize.RelTime(t, now, "", "ahead"))
}

// shorten cuts the middle out of s, where labels differ least.
func shorten(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	tail := (width - 1) / 2
	return string(r[:width-1-tail]) + "…" + string(r[len(r)-tail:])
}

// joined joins what is not empty.
func joined(separator string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), separator)
}
