package gcsserver

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTranscripts plays raw HTTP against a fresh server per file. A transcript
// is a list of exchanges:
//
//	== title, with the page it is taken from
//	POST /path HTTP/1.1
//	Header: value
//
//	content
//	-- 200
//	Header: value        the header has this value
//	Header: *            the header is there; !Header: it is not
//	.path.to[0].field = "JSON"
//	.field absent
//	~ text               the body holds it
//	= text               the body is it
//	@NAME Header: regexp keeps its first group as {{NAME}}
//	@NAME .field         keeps a field
//
// {{bytes A B}} is the content's bytes from A to B of a fixed generator,
// {{crc32c A B}} and {{md5 A B}} its checksums, {{in 1h}} a time from now.
// Content-Length is added. Lines that start with # are comments.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.http")
	if err != nil || len(files) < 8 {
		t.Fatalf("transcripts: %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &player{t: t, server: Start(t, Options{KMSKeys: transcriptKeys}), vars: map[string]string{}}
			exchanges := strings.Split("\n"+string(text), "\n== ")[1:]
			for _, e := range exchanges {
				p.play(e)
			}
			if len(exchanges) == 0 {
				t.Fatal("no exchange in the file")
			}
		})
	}
}

// transcriptKeys are the keys that the transcripts may use.
var transcriptKeys = map[string]int{"projects/p/locations/eu/keyRings/r/cryptoKeys/k": 7}

type player struct {
	t      *testing.T
	server *Server
	vars   map[string]string
}

// generated is byte i of the content all transcripts use.
func generated(from, to int64) []byte {
	b := make([]byte, to-from)
	for i := range b {
		n := from + int64(i)
		b[i] = byte(n ^ n>>8 ^ n>>16)
	}
	return b
}

var macro = regexp.MustCompile(`\{\{([^}]+)\}\}`)

func (p *player) expand(text string) string {
	return macro.ReplaceAllStringFunc(text, func(m string) string {
		words := strings.Fields(m[2 : len(m)-2])
		span := func() []byte {
			from, err1 := strconv.ParseInt(words[1], 10, 64)
			to, err2 := strconv.ParseInt(words[2], 10, 64)
			if err1 != nil || err2 != nil {
				p.t.Fatalf("bad macro %s", m)
			}
			return generated(from, to)
		}
		switch {
		case words[0] == "bytes" && len(words) == 3:
			return string(span())
		case words[0] == "crc32c" && len(words) == 3:
			sum := crc32.Checksum(span(), crc32.MakeTable(crc32.Castagnoli))
			return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
		case words[0] == "md5" && len(words) == 3:
			sum := md5.Sum(span())
			return base64.StdEncoding.EncodeToString(sum[:])
		case words[0] == "in" && len(words) == 2:
			d, err := time.ParseDuration(words[1])
			if err != nil {
				p.t.Fatal(err)
			}
			return time.Now().Add(d).UTC().Truncate(time.Second).Format("2006-01-02T15:04:05.000Z07:00")
		}
		value, ok := p.vars[words[0]]
		if !ok {
			p.t.Fatalf("unknown macro %s", m)
		}
		return value
	})
}

func (p *player) play(text string) {
	p.t.Helper()
	title, rest, _ := strings.Cut(text, "\n")
	request, expect, ok := strings.Cut(rest, "\n-- ")
	if !ok {
		p.t.Fatalf("%s: no expectation", title)
	}
	res, body := p.send(title, request)
	status, checks, _ := strings.Cut(expect, "\n")
	if got := strconv.Itoa(res.StatusCode); got != strings.TrimSpace(status) {
		p.t.Errorf("%s: status %s, expected %s; body %s", title, got, status, body)
	}
	for line := range strings.SplitSeq(checks, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := p.check(p.expand(line), res, body); err != nil {
			p.t.Errorf("%s: %v", title, err)
		}
	}
}

// send writes the request's bytes to a connection of their own.
func (p *player) send(title, request string) (*http.Response, []byte) {
	p.t.Helper()
	var lines []string
	for line := range strings.SplitSeq(request, "\n") {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	head, content, hasContent := strings.Cut(p.expand(strings.Join(lines, "\n")), "\n\n")
	method, _, _ := strings.Cut(head, " ")
	head = strings.ReplaceAll(strings.TrimSpace(head), "\n", "\r\n")
	host := strings.TrimPrefix(p.server.URL, "http://")
	head += "\r\nHost: " + host
	if hasContent || method != "GET" {
		if strings.Contains(head, "multipart/related") {
			content = strings.ReplaceAll(content, "\n", "\r\n")
		}
		head += "\r\nContent-Length: " + strconv.Itoa(len(content))
	}
	conn, err := net.Dial("tcp", host)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, head+"\r\n\r\n"+content); err != nil {
		p.t.Fatalf("%s: %v", title, err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		p.t.Fatalf("%s: %v", title, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatalf("%s: %v", title, err)
	}
	return res, body
}

func (p *player) check(line string, res *http.Response, body []byte) error {
	switch line[0] {
	case '~':
		if want := strings.TrimSpace(line[1:]); !bytes.Contains(body, []byte(want)) {
			return fmt.Errorf("the body does not hold %q: %.500s", want, body)
		}
		return nil
	case '.':
		return checkField(line, body)
	case '@':
		return p.capture(line[1:], res, body)
	case '=':
		if want := strings.TrimPrefix(line, "= "); want != string(body) {
			return fmt.Errorf("the body differs: %d bytes, expected %d", len(body), len(want))
		}
		return nil
	case '!':
		if v := res.Header.Values(line[1:]); len(v) > 0 {
			return fmt.Errorf("header %s is there: %q", line[1:], v)
		}
		return nil
	}
	name, want, ok := strings.Cut(line, ": ")
	if !ok {
		return fmt.Errorf("cannot read the expectation %q", line)
	}
	got := strings.Join(res.Header.Values(name), ", ")
	if got == "" || want != "*" && got != want {
		return fmt.Errorf("header %s is %q, expected %q", name, got, want)
	}
	return nil
}

func checkField(line string, body []byte) error {
	path, absent := strings.CutSuffix(line, " absent")
	want := ""
	if !absent {
		path, want, _ = strings.Cut(line, " = ")
	}
	got, ok := field(path, body)
	switch {
	case absent && ok:
		return fmt.Errorf("%s is %v, expected none", path, got)
	case absent:
		return nil
	}
	var value any
	if err := json.Unmarshal([]byte(want), &value); err != nil {
		return fmt.Errorf("expectation %q: %w", line, err)
	}
	if !ok || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", value) {
		return fmt.Errorf("%s is %#v, expected %s; body %.500s", path, got, want, body)
	}
	return nil
}

// field walks ".a.b[2].c" or ".a.#" (a length).
func field(path string, body []byte) (any, bool) {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return nil, false
	}
	for step := range strings.SplitSeq(strings.ReplaceAll(path[1:], "[", ".["), ".") {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[step]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			if step == "#" {
				v = float64(len(at))
				continue
			}
			i, err := strconv.Atoi(strings.Trim(step, "[]"))
			if err != nil || i >= len(at) {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

func (p *player) capture(line string, res *http.Response, body []byte) error {
	name, from, _ := strings.Cut(line, " ")
	if strings.HasPrefix(from, ".") {
		v, ok := field(from, body)
		if !ok {
			return fmt.Errorf("no field %s to keep: %.300s", from, body)
		}
		p.vars[name] = fmt.Sprint(v)
		return nil
	}
	header, pattern, _ := strings.Cut(from, ": ")
	m := regexp.MustCompile(pattern).FindStringSubmatch(res.Header.Get(header))
	if m == nil {
		return fmt.Errorf("header %s is %q, expected %s", header, res.Header.Get(header), pattern)
	}
	p.vars[name] = m[1]
	return nil
}
