package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"golang.org/x/term"

	"github.com/pgstow/pgstow/internal/testenv/sample"
)

// width is that of a terminal nobody has enlarged.
const width = 80

// screen prints the demo's own lines.
type screen struct {
	out  io.Writer
	bold bool
}

func newScreen(f *os.File) *screen {
	return &screen{out: f, bold: term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

func (s *screen) emphasise(text string) string {
	if !s.bold {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

func (s *screen) title(text string) { fmt.Fprintf(s.out, "%s\n\n", s.emphasise(text)) }

func (s *screen) section(text string) {
	fmt.Fprintf(s.out, "\n%s\n", s.emphasise("── "+text+" "+strings.Repeat("─", width-4-utf8.RuneCountInString(text))))
}

func (s *screen) command(line string) { fmt.Fprintln(s.out, s.emphasise("$ "+line)) }

func (s *screen) note(text string) { fmt.Fprintf(s.out, "\n%s\n", text) }

func (s *screen) pair(name, value string) { fmt.Fprintf(s.out, "%-8s %s\n", name, value) }

// step says what is being done before it is done, and how it went after.
func (s *screen) step(text string, do func() (string, error)) error {
	fmt.Fprintf(s.out, "%-50s", text)
	start := time.Now()
	result, err := do()
	if err != nil {
		fmt.Fprintln(s.out)
		return err
	}
	fmt.Fprintf(s.out, " %-20s %6.1f s\n", result, time.Since(start).Seconds())
	return nil
}

// comparison prints source beside copy and fails if they differ.
func (s *screen) comparison(diffs []sample.TableDiff) error {
	const format = "%s %9s %9s  %-8s %-8s  %s\n"
	fmt.Fprintf(s.out, format, pad("", 33), "rows", "rows", "hash", "hash", "content")
	fmt.Fprintf(s.out, format, pad("", 33), "source", "copy", "source", "copy", "")
	different := 0
	for _, d := range diffs {
		verdict := "same"
		if !d.Equal() {
			verdict = "DIFFERENT"
			different++
		}
		fmt.Fprintf(s.out, format, pad(name(d), 33), rows(d.SourceRows), rows(d.CopyRows),
			short(d.SourceHash), short(d.CopyHash), verdict)
	}
	if different > 0 {
		return fmt.Errorf("%d of %d differ between source and copy", different, len(diffs))
	}
	fmt.Fprintf(s.out, "All %d are the same. (Of 32 hash digits 8 are shown.)\n", len(diffs))
	return nil
}

func name(d sample.TableDiff) string {
	if d.Schema == "" {
		return d.Kind
	}
	return plain(d.Schema) + "." + plain(d.Name)
}

// plain quotes an identifier only where SQL would need it.
func plain(identifier string) string {
	for _, r := range identifier {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' {
			return pgx.Identifier{identifier}.Sanitize()
		}
	}
	return identifier
}

func pad(text string, n int) string {
	runes := []rune(text)
	if len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text + strings.Repeat(" ", n-len(runes))
}

func short(hash string) string { return hash[:min(8, len(hash))] }

func rows(n int64) string {
	if n < 0 {
		return "missing"
	}
	return grouped(n)
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
