package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// printContents prints what the data blocks of each table hold, in lines that
// fit the narrowest usual terminal.
func printContents(rt *runtime, index *archiver.Index) error {
	if index == nil {
		fmt.Fprintln(rt.err, "pgstow: this archive has no index: its format was newer than the pgstow that stored it")
		return nil
	}
	rows := [][]string{{"KIND", "NAME", "ROWS", "RAW", "STORED"}}
	for _, c := range index.Contents() {
		name := c.Name
		if c.Schema != "" {
			name = c.Schema + "." + c.Name
		}
		count := "-"
		if c.Rows >= 0 {
			count = humanize.Comma(c.Rows)
		}
		rows = append(rows, []string{c.Kind, printable(name), count, size(c.RawBytes), size(c.Stored)})
	}
	if len(rows) == 1 {
		return nil
	}
	const nameColumn, gaps = 1, 4 * 2
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	others := gaps
	for i, w := range widths {
		if i != nameColumn {
			others += w
		}
	}
	widths[nameColumn] = min(widths[nameColumn], max(12, helpWidth-others))
	var b strings.Builder
	b.WriteByte('\n')
	for _, row := range rows {
		row[nameColumn] = shorten(row[nameColumn], widths[nameColumn])
		for i, cell := range row {
			pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell)))
			if i > nameColumn {
				b.WriteString("  " + pad + cell)
			} else {
				b.WriteString(strings.Repeat("  ", i) + cell + pad)
			}
		}
		b.WriteByte('\n')
	}
	if _, err := io.WriteString(rt.out, b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// printTOC lists the table of contents as pg_restore -l does, in a form that
// pg_restore -L reads. Names come from the database: see printable.
func printTOC(w io.Writer, head *pgarchive.Head) error {
	var b bytes.Buffer
	err := head.WriteList(&b, time.Local)
	for line := range strings.Lines(b.String()) {
		if err == nil {
			_, err = fmt.Fprintln(w, printable(strings.TrimSuffix(line, "\n")))
		}
	}
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// compressionText is gzip:6, or gzip where the level is not known.
func compressionText(a archiver.ArchiveInfo) string {
	if a.CompressionLevel > 0 {
		return fmt.Sprintf("%s:%d", a.Compression, a.CompressionLevel)
	}
	return a.Compression
}

// valueWidth is what the narrowest usual terminal has room for beside the
// longest label.
const valueWidth = 68

// wrapped is a row whose text goes on below itself.
func wrapped(t table, name, text string) {
	for _, line := range lines(text, valueWidth) {
		t.row(name, line)
		name = ""
	}
}

// lines breaks text at width, a text without words into one empty line.
func lines(text string, width int) []string {
	var all []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			all = append(all, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(all, line)
}
