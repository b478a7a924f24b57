package dumper

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

const (
	maxMessages    = 16 << 10 // of stderr kept for the error
	maxMessageLine = 8 << 10  // a longer line is cut
	maxSummary     = 2 << 10
)

// message is one of a client program's messages with its continuation lines.
// pg_restore --verbose says before an error what it is doing (creating TABLE "public.t")
// or what entry it is at (from TOC entry 216; 1259 16394 TABLE t owner).
type message struct {
	level string // "error", "warning", "" for the rest
	text  string // first line, without program and level
	more  string // continuation lines: DETAIL, "Command was: ..."
	entry string // what it is about
}

// command is the SQL that pg_restore was running.
func (m message) command() string {
	_, cmd, _ := strings.Cut(m.more, "Command was: ")
	return strings.TrimSpace(cmd)
}

// String is the message as one line, object first.
func (m message) String() string {
	s := m.text
	more, _, _ := strings.Cut(m.more, "Command was: ")
	more, _, _ = strings.Cut(more, "CONTEXT:")
	if more = strings.TrimSpace(more); more != "" {
		s += " (" + clip(more, 500) + ")"
	}
	if cmd := m.command(); cmd != "" {
		s += " (command: " + clip(oneLine(cmd), 200) + ")"
	}
	if m.entry != "" {
		s = m.entry + ": " + s
	}
	return oneLine(s)
}

// restoreSteps is how pg_restore --verbose begins to tell what it does to which object.
var restoreSteps = []string{"creating ", "dropping ", "executing ", "processing data for ", "restoring large object", "setting owner "}

// messages reads a client program's stderr: parsed into messages as it comes,
// logged, and its tail kept within bounds.
type messages struct {
	program   string
	log       *slog.Logger
	onMessage func(message)
	onError   func(text string)

	mu      sync.Mutex
	line    []byte
	cut     bool // the current line is too long, its rest is dropped
	open    *message
	doing   string // the last step pg_restore announced
	entry   string // the entry of pg_restore's last error, if it announced no step
	tail    []byte
	errors  []string // the first ones, bounded
	errSize int
}

func newMessages(program string, log *slog.Logger) *messages {
	return &messages{program: program, log: log, onMessage: func(message) {}, onError: func(string) {}}
}

// Write never fails: the child must not get EPIPE for talking much.
func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tail = append(m.tail, p...)
	if over := len(m.tail) - maxMessages; over > 0 {
		m.tail = append(m.tail[:0], m.tail[over:]...)
	}
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		part := rest
		if i >= 0 {
			part, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		if room := maxMessageLine - len(m.line); len(part) > room {
			part, m.cut = part[:room], true
		}
		m.line = append(m.line, part...)
		if i >= 0 {
			m.endLine()
		}
	}
	return len(p), nil
}

// flush ends the last message; after it summary is complete.
func (m *messages) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.line) > 0 {
		m.endLine()
	}
	m.endMessage()
}

func (m *messages) endLine() {
	line := string(m.line)
	if m.cut {
		line += "…"
	}
	m.line, m.cut = m.line[:0], false
	rest, ours := strings.CutPrefix(line, m.program+": ")
	if !ours {
		m.continueMessage(line)
		return
	}
	m.endMessage()
	if entry, ok := strings.CutPrefix(rest, "from TOC entry "); ok {
		m.entry = tocEntry(entry)
		return
	}
	if strings.HasPrefix(rest, "while ") { // "while INITIALIZING:", "while PROCESSING TOC:"
		m.entry = ""
		return
	}
	for _, step := range restoreSteps {
		if strings.HasPrefix(rest, step) {
			m.doing = rest
		}
	}
	msg := message{text: rest}
	for _, level := range []string{"error", "warning", "detail", "hint"} {
		if text, ok := strings.CutPrefix(rest, level+": "); ok {
			msg.level, msg.text = level, text
		}
	}
	if msg.level == "error" {
		if msg.entry = m.doing; msg.entry == "" {
			msg.entry = m.entry
		}
		m.onError(msg.text)
	}
	m.open = &msg
}

func (m *messages) continueMessage(line string) {
	if m.open == nil {
		m.open = &message{text: line} // a dynamic linker's or a shell's complaint
		return
	}
	if len(m.open.more)+len(line) < maxMessageLine {
		if m.open.more != "" {
			m.open.more += "\n"
		}
		m.open.more += line
	}
}

func (m *messages) endMessage() {
	if m.open != nil {
		m.deliver()
	}
	m.open = nil
}

// deliver hands out the open message, now complete.
func (m *messages) deliver() {
	msg := *m.open
	one := msg.String()
	switch msg.level {
	case "error":
		if m.errSize < maxMessages {
			m.errors = append(m.errors, one)
			m.errSize += len(one)
		}
		m.log.Debug(m.program+" error", "message", one)
	case "detail", "hint":
		if len(m.errors) > 0 && m.errSize < maxMessages {
			m.errors[len(m.errors)-1] += " (" + one + ")"
			m.errSize += len(one)
		}
	case "warning":
		m.log.Warn(m.program, "message", one)
	default:
		m.log.Debug(m.program, "message", one)
	}
	m.onMessage(msg)
}

// summary is the decisive part as one line: its errors, or else the last lines.
func (m *messages) summary() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.errors) > 0 {
		return clip(strings.Join(m.errors, "; "), maxSummary)
	}
	lines := strings.Split(strings.TrimSpace(string(m.tail)), "\n")
	if len(lines) > 3 {
		lines = lines[len(lines)-3:]
	}
	s := oneLine(strings.Join(lines, "; "))
	s = strings.TrimPrefix(s, m.program+": ")
	if len(s) > maxSummary {
		s = "…" + s[len(s)-maxSummary:]
	}
	return strings.ToValidUTF8(s, "?")
}

// tocEntry is pg_restore's description without the numbers:
// "216; 1259 16394 TABLE t owner" is "TABLE t owner".
func tocEntry(s string) string {
	_, rest, ok := strings.Cut(s, "; ")
	if !ok {
		return s
	}
	fields := strings.SplitN(rest, " ", 3)
	if len(fields) < 3 {
		return s
	}
	return fields[2]
}
