package archiver

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"
)

// AllowedSigners are the keys whose signatures count: an allowed_signers file as
// ssh-keygen(1) describes it.
type AllowedSigners struct {
	file  string
	lines []allowedSigner
}

// allowedSigner is one line: who, with which key, for what and when.
type allowedSigner struct {
	principals  string
	namespaces  string // patterns; "" is any
	validAfter  time.Time
	validBefore time.Time
	key         ssh.PublicKey
}

// maxAllowedSigners bounds the file.
const maxAllowedSigners = 4 << 20

// ReadAllowedSigners reads an allowed_signers file. A line that cannot be
// understood is an error: what it was to say could not be kept to.
func ReadAllowedSigners(path string) (*AllowedSigners, error) {
	fail := func(err error) (*AllowedSigners, error) {
		return nil, fmt.Errorf("%w: allowed signers: %w", ErrUsage, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxAllowedSigners+1))
	switch {
	case err != nil:
		return fail(err)
	case len(raw) > maxAllowedSigners:
		return fail(fmt.Errorf("%s is larger than 4 MiB", path))
	}
	a, err := parseAllowedSigners(path, raw, time.Local)
	if err != nil {
		return fail(err)
	}
	return a, nil
}

// parseAllowedSigners reads the lines of a file. zone is that of times that name
// none.
func parseAllowedSigners(path string, raw []byte, zone *time.Location) (*AllowedSigners, error) {
	a := &AllowedSigners{file: path}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxAllowedSigners+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseAllowedSigner(line, zone)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		a.lines = append(a.lines, s)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(a.lines) == 0 {
		return nil, fmt.Errorf("%s names nobody; want lines as in `alice@example.com ssh-ed25519 AAAA…`", path)
	}
	return a, nil
}

func parseAllowedSigner(line string, zone *time.Location) (s allowedSigner, err error) {
	var rest string
	if s.principals, rest, err = cutPrincipals(line); err != nil {
		return s, err
	}
	if options, key := cutOptions(rest); strings.Contains(options, "=") || strings.HasPrefix(strings.ToLower(options), optionAuthority) {
		if err := s.options(options, zone); err != nil {
			return s, err
		}
		rest = key
	}
	if s.key, err = parseKeyText(rest); err != nil {
		return s, err
	}
	if why := unsupportedKey(s.key); why != "" {
		return s, errors.New(why)
	}
	if !s.validBefore.IsZero() && !s.validBefore.After(s.validAfter) {
		return s, errors.New("valid-before is not later than valid-after")
	}
	return s, nil
}

// cutPrincipals takes the first word, which may be quoted.
func cutPrincipals(line string) (principals, rest string, err error) {
	if quoted, ok := strings.CutPrefix(line, `"`); ok {
		principals, rest, ok = strings.Cut(quoted, `"`)
		if !ok {
			return "", "", errors.New("a quote is not closed")
		}
	} else if i := strings.IndexFunc(line, unicode.IsSpace); i >= 0 {
		principals, rest = line[:i], line[i:]
	}
	if rest = strings.TrimSpace(rest); principals == "" || rest == "" {
		return "", "", errors.New("want PRINCIPALS [OPTIONS] KEY-TYPE KEY")
	}
	return principals, rest, nil
}

// parseKeyText reads "type base64 [comment]".
func parseKeyText(text string) (ssh.PublicKey, error) {
	if fields := strings.Fields(text); len(fields) >= 2 {
		raw, err := base64.StdEncoding.DecodeString(fields[1])
		if err == nil {
			key, err := ssh.ParsePublicKey(raw)
			if err == nil && key.Type() == fields[0] {
				return key, nil
			}
		}
	}
	return nil, errors.New("its key cannot be read; want options with their values, if there are some, then the key's type and text as they stand in a .pub file")
}

// cutOptions takes everything up to the first blank that is not quoted.
func cutOptions(text string) (options, rest string) {
	quoted := false
	for i, c := range text {
		switch {
		case c == '"' && (i == 0 || text[i-1] != '\\'):
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return text[:i], strings.TrimSpace(text[i:])
		}
	}
	return text, ""
}

// Options of a line.
const (
	optionAuthority  = "cert-authority"
	optionNamespaces = "namespaces"
	optionAfter      = "valid-after"
	optionBefore     = "valid-before"
)

// options reads NAME="VALUE" with commas between.
func (s *allowedSigner) options(text string, zone *time.Location) error {
	given := map[string]bool{}
	for text != "" {
		name, rest, hasValue := text, "", false
		if i := strings.IndexAny(text, `=,`); i >= 0 {
			name, rest, hasValue = text[:i], text[i:], text[i] == '='
		}
		name = strings.ToLower(name)
		if name == optionAuthority {
			return errors.New("cert-authority: certificates are not supported; list the keys themselves")
		}
		if !hasValue || name != optionNamespaces && name != optionAfter && name != optionBefore {
			return fmt.Errorf(`%q is no option with a value; want namespaces="…", valid-after="…" or valid-before="…"`, name)
		}
		if given[name] {
			return fmt.Errorf("%s is given twice", name)
		}
		given[name] = true
		value, rest, err := cutQuoted(rest[1:])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := s.option(name, value, zone); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case rest == "":
			return nil
		case rest[0] != ',' || len(rest) == 1:
			return errors.New("want options with commas between, and no blanks")
		}
		text = rest[1:]
	}
	return nil
}

// cutQuoted takes a value in double quotes, in which \" is one.
func cutQuoted(text string) (value, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		return "", "", errors.New("want its value in double quotes")
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:], nil
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == '"':
			i++
		}
		b.WriteByte(text[i])
	}
	return "", "", errors.New("a quote is not closed")
}

func (s *allowedSigner) option(name, value string, zone *time.Location) (err error) {
	switch name {
	case optionAfter:
		s.validAfter, err = parseSignerTime(value, zone)
	case optionBefore:
		s.validBefore, err = parseSignerTime(value, zone)
	default:
		if s.namespaces = value; value == "" {
			return errors.New("is empty")
		}
	}
	return err
}

// parseSignerTime reads YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS: UTC with a Z
// behind it, otherwise in zone, as ssh-keygen does.
func parseSignerTime(text string, zone *time.Location) (time.Time, error) {
	digits := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "Z"), "UTC")
	if len(digits) < len(text) {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) != len(layout) || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; want YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with a Z for UTC", text)
}

// find tells who signed with key in pgstow's namespace at a time. Without
// anybody, why says what stands against it.
func (a *AllowedSigners) find(key ssh.PublicKey, at time.Time) (signer, why string) {
	why = unknownSigner
	blob := key.Marshal()
	for _, s := range a.lines {
		switch {
		case !bytes.Equal(s.key.Marshal(), blob):
		case s.namespaces != "" && !matchPatterns(SignatureNamespace, s.namespaces):
			why = fmt.Sprintf("the key of %s is allowed for %s, not for %s", s.principals, s.namespaces, SignatureNamespace)
		case at.IsZero() && !s.validBefore.IsZero():
			why = fmt.Sprintf("the key of %s is valid only before %s, and when it was stored is not known", s.principals, timeText(s.validBefore))
		case at.Before(s.validAfter):
			why = fmt.Sprintf("the key of %s is valid only after %s, and it was stored at %s", s.principals, timeText(s.validAfter), timeText(at))
		case !s.validBefore.IsZero() && at.After(s.validBefore):
			why = fmt.Sprintf("the key of %s is valid only before %s, and it was stored at %s", s.principals, timeText(s.validBefore), timeText(at))
		default:
			return s.principals, ""
		}
	}
	return "", why
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// matchPatterns reports whether text fits one of the patterns (ssh_config(5):
// commas between, * and ? as wildcards) and none that a ! stands before.
func matchPatterns(text, patterns string) bool {
	found := false
	for p := range strings.SplitSeq(patterns, ",") {
		not := strings.HasPrefix(p, "!")
		if !matchPattern(text, strings.TrimPrefix(p, "!")) {
			continue
		}
		if not {
			return false
		}
		found = true
	}
	return found
}

// matchPattern knows * and ?.
func matchPattern(text, pattern string) bool {
	for pattern != "" {
		switch {
		case pattern[0] == '*':
			for i := len(text); i >= 0; i-- {
				if matchPattern(text[i:], pattern[1:]) {
					return true
				}
			}
			return false
		case text == "" || pattern[0] != '?' && pattern[0] != text[0]:
			return false
		}
		text, pattern = text[1:], pattern[1:]
	}
	return text == ""
}
