package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"github.com/pgstow/pgstow/archiver"
)

type progressMode string

const (
	progressAuto  progressMode = "auto"
	progressPlain progressMode = "plain"
	progressNone  progressMode = "none"
)

const (
	plainInterval = 30 * time.Second
	lineInterval  = 200 * time.Millisecond
)

// meter shows how far a run has come: a line on a terminal, else a log record
// every 30 seconds.
type meter struct {
	what  string
	log   *slog.Logger
	line  *statusLine // nil unless on a terminal
	start time.Time
	done  chan struct{}
	once  sync.Once
	ended sync.WaitGroup

	mu   sync.Mutex
	last archiver.Progress
}

// startMeter returns a meter that reports until stop is called.
func (rt *runtime) startMeter(what string) *meter {
	m := &meter{what: what, log: rt.log, start: time.Now(), done: make(chan struct{})}
	interval := plainInterval
	switch rt.progress {
	case progressNone:
		return m
	case progressAuto:
		m.line, interval = rt.status, lineInterval
	}
	m.ended.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				m.show()
			case <-m.done:
				return
			}
		}
	})
	return m
}

// report takes the newest state; it is cheap.
func (m *meter) report(p archiver.Progress) {
	m.mu.Lock()
	m.last = p
	m.mu.Unlock()
}

// stop ends the reports and removes the line; idempotent.
func (m *meter) stop() {
	m.once.Do(func() { close(m.done) })
	m.ended.Wait()
	if m.line != nil {
		m.line.set("")
	}
}

func (m *meter) show() {
	m.mu.Lock()
	p := m.last
	m.mu.Unlock()
	elapsed := time.Since(m.start)
	if m.line != nil {
		m.line.set(progressText(m.what, p, elapsed))
		return
	}
	attrs := []slog.Attr{
		slog.String("phase", string(p.Phase)), slog.Int64("bytes", p.Bytes),
		slog.Duration("elapsed", elapsed.Round(time.Second)),
	}
	if p.Acknowledged > 0 {
		attrs = append(attrs, slog.Int64("acknowledged", p.Acknowledged))
	}
	if p.Total > 0 {
		attrs = append(attrs, slog.Int64("total", p.Total), slog.Bool("estimated", p.Estimated))
	}
	if p.Tables > 0 {
		attrs = append(attrs, slog.Int("tables", p.Tables), slog.Int("tables_done", p.TablesDone))
	}
	attrs = append(attrs, tableAttrs(p)...)
	m.log.LogAttrs(context.Background(), slog.LevelInfo, m.what, append(attrs, loadAttrs(p)...)...)
}

// tableAttrs say which table passes, and how far it has come by the source's
// own estimates.
func tableAttrs(p archiver.Progress) []slog.Attr {
	t := p.Table
	if t.Name == "" {
		return nil
	}
	attrs := []slog.Attr{
		slog.Int("percent", int(100*p.Share)), slog.String("table", t.Name),
		slog.Int64("table_rows", t.Rows), slog.Int64("table_bytes", t.Bytes),
	}
	if t.RowsTotal > 0 {
		attrs = append(attrs, slog.Int64("table_rows_estimated", t.RowsTotal))
	}
	if t.BytesTotal > 0 {
		attrs = append(attrs, slog.Int64("table_size_on_source", t.BytesTotal))
	}
	return attrs
}

func progressText(what string, p archiver.Progress, elapsed time.Duration) string {
	switch {
	case p.Phase != archiver.PhaseData:
	case p.Table.Name != "":
		return tableText(what, p, elapsed)
	case len(p.Loading) > 0:
		return loadText(what, p, elapsed)
	}
	s := fmt.Sprintf("%s %s", what, p.Phase)
	if p.Bytes > 0 {
		s += "  " + size(p.Bytes)
		switch {
		case p.Total > 0 && p.Estimated:
			s += " of about " + size(p.Total)
		case p.Total > 0:
			s += fmt.Sprintf(" of %s (%d%%)", size(p.Total), 100*min(p.Bytes, p.Total)/p.Total)
		}
		if seconds := elapsed.Seconds(); seconds >= 1 {
			s += fmt.Sprintf("  %s/s", size(int64(float64(p.Bytes)/seconds)))
		}
		if p.Acknowledged > 0 {
			s += "  stored " + size(p.Acknowledged)
		}
		if p.Tables > 0 {
			s += fmt.Sprintf("  %d of %d tables", p.TablesDone, p.Tables)
		}
	}
	return s + "  " + elapsed.Round(time.Second).String()
}

// textWidth is what fits the narrowest usual terminal, with room for the cursor.
const textWidth = 79

// tableText names the table whose data pass. All but its name is short.
func tableText(what string, p archiver.Progress, elapsed time.Duration) string {
	t := p.Table
	rest := ""
	if t.Rows > 0 {
		rest += " " + short(t.Rows)
		if t.RowsTotal > 0 {
			rest += "/" + short(t.RowsTotal)
		}
		rest += " rows"
	}
	rest += " " + size(t.Bytes)
	if p.Acknowledged > 0 {
		rest += "  stored " + size(p.Acknowledged)
	}
	rest += "  " + elapsed.Round(time.Second).String()
	begin := fmt.Sprintf("%s %d%%  ", what, int(100*p.Share))
	return begin + shorten(printable(t.Name), max(8, textWidth-len(begin)-len(rest))) + rest
}

// loadAttrs say which tables a restore is loading, and how many rows are in.
func loadAttrs(p archiver.Progress) []slog.Attr {
	if len(p.Loading) == 0 {
		return nil
	}
	list := make(loading, len(p.Loading))
	for i, t := range p.Loading {
		list[i] = loadingTable{t.Name, t.Rows, t.RowsTotal, t.Bytes, t.BytesTotal}
	}
	attrs := []slog.Attr{slog.Any("loading", list)}
	if p.RowsTotal > 0 {
		attrs = append(attrs, slog.Int64("rows", p.Rows), slog.Int64("rows_total", p.RowsTotal))
	}
	return attrs
}

// loading is a list of tables, an array in a JSON log and a readable text elsewhere.
type loading []loadingTable

type loadingTable struct {
	Table      string `json:"table"`
	Rows       int64  `json:"rows"`
	RowsTotal  int64  `json:"rows_total"`
	Bytes      int64  `json:"bytes"` // as they are stored
	BytesTotal int64  `json:"bytes_total"`
}

func (l loading) String() string {
	list := make([]string, len(l))
	for i, t := range l {
		list[i] = printable(t.Table) + " " + done(t.Rows, t.RowsTotal, t.Bytes, t.BytesTotal)
	}
	return strings.Join(list, ", ")
}

// done is how much of something has been done, in rows where they were counted.
func done(rows, rowsTotal, bytes, bytesTotal int64) string {
	if rowsTotal > 0 {
		return short(rows) + "/" + short(rowsTotal) + " rows"
	}
	return size(bytes) + "/" + size(bytesTotal)
}

// loadText names as many of the tables that are being loaded as fit.
func loadText(what string, p archiver.Progress, elapsed time.Duration) string {
	begin := what
	if p.Total > 0 {
		begin += fmt.Sprintf(" %d%%", 100*min(p.Bytes, p.Total)/p.Total)
	}
	if p.RowsTotal > 0 {
		begin += "  " + short(p.Rows) + "/" + short(p.RowsTotal) + " rows"
	}
	if p.Tables > 0 {
		begin += fmt.Sprintf("  %d/%d tables", p.TablesDone, p.Tables)
	}
	end := "  " + elapsed.Round(time.Second).String()
	room := textWidth - len(begin) - len(end)
	for n := len(p.Loading); n > 0; n-- {
		if list, ok := loadList(p.Loading[:n], len(p.Loading)-n, room); ok {
			return begin + list + end
		}
	}
	return begin + end
}

// loadList gives the names of tables what room is left, if that is enough to know them by.
func loadList(tables []archiver.TableProgress, more, room int) (list string, ok bool) {
	const least = 8
	end := ""
	if more > 0 {
		end = fmt.Sprintf(" +%d", more)
	}
	room -= len(end)
	counts := make([]string, len(tables))
	for i, t := range tables {
		counts[i] = " " + strings.TrimSuffix(done(t.Rows, t.RowsTotal, t.Bytes, t.BytesTotal), " rows")
		room -= len("  ") + len(counts[i])
	}
	for i, t := range tables {
		name := []rune(printable(t.Name))
		width := min(len(name), room/(len(tables)-i))
		if width < min(len(name), least) {
			return "", false
		}
		list += "  " + shorten(string(name), width) + counts[i]
		room -= width
	}
	return list + end, true
}

// short is a number in a few characters.
func short(n int64) string {
	if n < 100_000 {
		return fmt.Sprint(n)
	}
	return strings.ReplaceAll(humanize.SIWithDigits(float64(n), 1, ""), " ", "")
}

// statusLine keeps one changing line below all that is written to a terminal.
type statusLine struct {
	mu   sync.Mutex
	term *os.File
	text string
	off  bool // somebody is being asked something
}

var _ io.Writer = (*statusLine)(nil)

const clearLine = "\r\x1b[K"

// Write puts p above the line.
func (s *statusLine) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == "" {
		return s.term.Write(p)
	}
	_, _ = io.WriteString(s.term, clearLine)
	n, err := s.term.Write(p)
	_, _ = io.WriteString(s.term, s.text)
	return n, err
}

// set replaces the line, "" removes it.
func (s *statusLine) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if width, _, err := term.GetSize(int(s.term.Fd())); err == nil && width > 1 {
		text = shorten(text, width-1)
	}
	if text == s.text || s.off {
		return
	}
	s.text = text
	_, _ = io.WriteString(s.term, clearLine+text)
}

// pause takes the line away for as long as somebody is asked something.
func (s *statusLine) pause() (resume func()) {
	if s == nil {
		return func() {}
	}
	s.set("")
	off := func(on bool) {
		s.mu.Lock()
		s.off = on
		s.mu.Unlock()
	}
	off(true)
	return func() { off(false) }
}
