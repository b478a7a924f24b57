package dumper

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// splitSQL cuts a script into statements, without comments in front and without
// semicolons. A backslash outside quotes is psql's: only the pair
// \restrict KEY ... \unrestrict KEY that pg_dumpall writes around its output is
// dropped, any other is refused, since what it would do in psql nobody can undo.
func splitSQL(script string) ([]string, error) {
	if strings.ContainsRune(script, 0) {
		return nil, errors.New("holds a NUL byte")
	}
	if !utf8.ValidString(script) {
		return nil, errors.New("is not UTF-8")
	}
	sp := &splitter{s: script, conforming: true}
	for sp.pos < len(sp.s) {
		if err := sp.step(); err != nil {
			return nil, fmt.Errorf("line %d: %w", 1+strings.Count(script[:min(sp.pos, len(script))], "\n"), err)
		}
	}
	if strings.TrimSpace(sp.cur.String()) != "" {
		return nil, errors.New("the last statement does not end with a semicolon")
	}
	if sp.restrict != "" {
		return nil, errors.New(`\restrict without \unrestrict`)
	}
	return sp.out, nil
}

type splitter struct {
	s          string
	pos        int
	cur        strings.Builder // the statement so far
	out        []string
	restrict   string // key of an open \restrict
	conforming bool   // standard_conforming_strings: no backslash escapes in '...'
}

var dollarTag = regexp.MustCompile(`^\$(?:[A-Za-z_\x80-\xff][A-Za-z_0-9\x80-\xff]*)?\$`)

// step consumes one lexical element.
func (sp *splitter) step() error {
	rest := sp.s[sp.pos:]
	switch ch := rest[0]; {
	case strings.HasPrefix(rest, "--"):
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			end = len(rest)
		}
		sp.pos += end
		sp.cur.WriteByte(' ')
	case strings.HasPrefix(rest, "/*"):
		n, err := commentLength(rest)
		if err != nil {
			return err
		}
		sp.pos += n
		sp.cur.WriteByte(' ')
	case ch == '\'':
		return sp.quoted('\'', !sp.conforming || sp.afterEscapePrefix())
	case ch == '"':
		return sp.quoted('"', false)
	case ch == '$' && !sp.afterWord() && dollarTag.MatchString(rest):
		tag := dollarTag.FindString(rest)
		end := strings.Index(rest[len(tag):], tag)
		if end < 0 {
			return errors.New("a dollar-quoted string does not end")
		}
		sp.take(end + 2*len(tag))
	case ch == '\\':
		return sp.backslash(rest)
	case ch == ';':
		sp.pos++
		sp.statement()
	default:
		sp.take(1)
	}
	return nil
}

func (sp *splitter) take(n int) {
	sp.cur.WriteString(sp.s[sp.pos : sp.pos+n])
	sp.pos += n
}

func (sp *splitter) statement() {
	stmt := strings.TrimSpace(sp.cur.String())
	sp.cur.Reset()
	if stmt == "" {
		return
	}
	if m := conformingSetting.FindStringSubmatch(stmt); m != nil {
		sp.conforming = strings.EqualFold(m[1], "on")
	}
	sp.out = append(sp.out, stmt)
}

var conformingSetting = regexp.MustCompile(`(?i)^SET\s+standard_conforming_strings\s*(?:=|\s+TO\s+)\s*'?(on|off)'?$`)

func isWordByte(ch byte) bool {
	return ch == '_' || ch == '$' || ch >= 0x80 || ch >= '0' && ch <= '9' || ch|0x20 >= 'a' && ch|0x20 <= 'z'
}

func (sp *splitter) afterWord() bool {
	cur := sp.cur.String()
	return cur != "" && isWordByte(cur[len(cur)-1])
}

// afterEscapePrefix: the quote follows an E that is a word of its own.
func (sp *splitter) afterEscapePrefix() bool {
	cur := sp.cur.String()
	n := len(cur)
	return n > 0 && cur[n-1]|0x20 == 'e' && (n == 1 || !isWordByte(cur[n-2]))
}

func (sp *splitter) quoted(quote byte, escapes bool) error {
	for i := sp.pos + 1; i < len(sp.s); i++ {
		switch {
		case escapes && sp.s[i] == '\\':
			i++
		case sp.s[i] == quote && i+1 < len(sp.s) && sp.s[i+1] == quote:
			i++
		case sp.s[i] == quote:
			sp.take(i + 1 - sp.pos)
			return nil
		}
	}
	return errors.New("a quoted string does not end")
}

// commentLength measures a comment; they nest.
func commentLength(s string) (int, error) {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, errors.New("a comment does not end")
}

var restrictCommand = regexp.MustCompile(`^\\(un)?restrict ([A-Za-z0-9]+)[ \t\r]*$`)

func (sp *splitter) backslash(rest string) error {
	line, _, _ := strings.Cut(rest, "\n")
	m := restrictCommand.FindStringSubmatch(line)
	atLineStart := sp.pos == 0 || sp.s[sp.pos-1] == '\n'
	between := strings.TrimSpace(sp.cur.String()) == ""
	switch {
	case m != nil && m[1] == "" && atLineStart && between && len(sp.out) == 0 && sp.restrict == "":
		sp.restrict = m[2]
	case m != nil && m[1] == "un" && atLineStart && between && sp.restrict == m[2]:
		sp.restrict = ""
	default:
		word, _, _ := strings.Cut(line, " ")
		return fmt.Errorf("psql command %q is refused", clip(word, 30))
	}
	sp.pos += len(line)
	return nil
}
