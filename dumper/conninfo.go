package dumper

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strings"
)

// Conn is a parsed connection string. It prints without its password.
//
// The zero Conn is libpq's own environment. PG* variables stay libpq's defaults
// for whatever the string leaves out; a service named by the string or by
// PGSERVICE is resolved when the string is parsed.
type Conn struct {
	params        map[string]string // as libpq would see them: the string's own over its service's
	passwordTyped bool
}

var bareDatabase = regexp.MustCompile(`^[A-Za-z0-9_.$-]+$`)

// ParseConn takes libpq's URI and keyword forms; "" means libpq's own environment.
// A single word is a database name, as it is for psql. Errors never quote the
// string: what makes it unreadable may be the password.
func ParseConn(s string) (Conn, error) {
	params, err := parseConnString(s)
	if err != nil {
		return Conn{}, err
	}
	typed := params["password"] != ""
	if params, err = resolveService(params); err != nil {
		return Conn{}, err
	}
	c := Conn{params: params, passwordTyped: typed}
	return c, c.check()
}

// CheckConn finds what is wrong with a connection string by itself: a service
// that it names is not looked for.
func CheckConn(s string) error {
	params, err := parseConnString(s)
	if err != nil || params["service"] != "" {
		return err // a service may name the hosts that go with the string's ports
	}
	return Conn{params: params}.check()
}

func parseConnString(s string) (map[string]string, error) {
	s = strings.TrimLeft(s, " \t\r\n")
	if trimmed := strings.TrimRight(s, " \t\r\n"); !strings.HasSuffix(trimmed, `\`) {
		s = trimmed // a final newline comes from files and secrets; an escaped space is part of a value
	}
	switch {
	case s == "":
		return map[string]string{}, nil
	case strings.ContainsRune(s, 0):
		return nil, fail(ErrConnInfo, "connection string: holds a NUL byte")
	case strings.HasPrefix(s, "postgres://"), strings.HasPrefix(s, "postgresql://"):
		return parseURI(s)
	case bareDatabase.MatchString(s):
		return map[string]string{"dbname": s}, nil
	case strings.Contains(s, "="):
		return parseKeywords(s)
	}
	return nil, fail(ErrConnInfo, "connection string: neither a URI (postgres://user@host/database) nor keyword=value pairs")
}

// check finds what neither libpq nor pgx could make sense of, before anything starts.
func (c Conn) check() error {
	hosts, ports := c.list("host"), c.list("port")
	if addrs := c.list("hostaddr"); len(addrs) > 0 && len(hosts) > 0 && len(addrs) != len(hosts) {
		return fail(ErrConnInfo, fmt.Sprintf("connection string: %d host names but %d hostaddr values", len(hosts), len(addrs)))
	} else if len(addrs) > len(hosts) {
		hosts = addrs
	}
	if len(ports) > 1 && len(ports) != len(hosts) {
		return fail(ErrConnInfo, fmt.Sprintf("connection string: %d ports for %d hosts", len(ports), len(hosts)))
	}
	for _, p := range ports {
		if p != "" && !validPort(p) {
			return fail(ErrConnInfo, "connection string: the port is not a number from 1 to 65535 ("+encodeHint+")")
		}
	}
	for _, a := range c.list("hostaddr") {
		if a != "" && net.ParseIP(strings.SplitN(a, "%", 2)[0]) == nil {
			return fail(ErrConnInfo, "connection string: hostaddr is not an IP address")
		}
	}
	return nil
}

// encodeHint is what helps when reserved characters of a password took the string apart.
const encodeHint = "in a URI, percent-encode : / ? # @ of the password as %3A %2F %3F %23 %40"

func validPort(s string) bool {
	n := 0
	for _, r := range s {
		if r < '0' || r > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(r-'0')
	}
	return n >= 1 && n <= 65535
}

// get is the value libpq would use: the string's (or its service's), else the environment's.
func (c Conn) get(key string) string {
	if v, ok := c.params[key]; ok && v != "" {
		return v
	}
	if env := libpqParams[key]; env != "" {
		return os.Getenv(env)
	}
	return ""
}

// list splits a comma-separated parameter, nil if it is unset.
func (c Conn) list(key string) []string {
	v := c.get(key)
	if v == "" {
		return nil
	}
	return strings.Split(v, ",")
}

// endpoint is one of the addresses a connection string names.
type endpoint struct{ host, port string }

func (c Conn) endpoints() []endpoint {
	hosts, ports := c.list("host"), c.list("port")
	if len(hosts) == 0 {
		hosts = c.list("hostaddr")
	}
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	out := make([]endpoint, len(hosts))
	for i, h := range hosts {
		port := "5432"
		if len(ports) == 1 && ports[0] != "" {
			port = ports[0]
		} else if i < len(ports) && ports[i] != "" {
			port = ports[i]
		}
		out[i] = endpoint{h, port}
	}
	return out
}

func isSocketDir(host string) bool {
	return host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@")
}

// Host is the first host, "" for a socket.
func (c Conn) Host() string {
	h := c.endpoints()[0].host
	if isSocketDir(h) {
		return ""
	}
	return h
}

// User is the role that connects.
func (c Conn) User() string {
	if u := c.get("user"); u != "" {
		return u
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// Database is the database connected to; libpq's default is the user's name.
func (c Conn) Database() string {
	if d := c.get("dbname"); d != "" {
		return d
	}
	return c.User()
}

// WithDatabase is c connected to another database of the same server.
func (c Conn) WithDatabase(name string) Conn {
	return c.with("dbname", name)
}

func (c Conn) with(key, value string) Conn {
	params := maps.Clone(c.params)
	if params == nil {
		params = map[string]string{}
	}
	params[key] = value
	c.params = params
	return c
}

// PasswordTyped tells whether a password stands in the string itself, and so in the shell's
// history and in this process's arguments.
func (c Conn) PasswordTyped() bool { return c.passwordTyped }

// String is user, hosts and database as a URI: no password and no parameters,
// any of which may hold something private.
func (c Conn) String() string {
	var b strings.Builder
	b.WriteString("postgres://")
	if u := c.User(); u != "" {
		b.WriteString(percentEncode(u) + "@")
	}
	for i, e := range c.endpoints() {
		if i > 0 {
			b.WriteByte(',')
		}
		switch {
		case e.host == "":
		case strings.Contains(e.host, ":"):
			b.WriteString("[" + e.host + "]")
		default:
			b.WriteString(percentEncode(e.host))
		}
		if e.port != "5432" {
			b.WriteString(":" + e.port)
		}
	}
	b.WriteString("/" + percentEncode(c.Database()))
	return b.String()
}

// Format keeps every verb, %#v and %+v included, from printing the fields.
func (c Conn) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", c.String())
		return
	}
	fmt.Fprint(f, c.String())
}

// LogValue keeps loggers from printing the fields.
func (c Conn) LogValue() slog.Value { return slog.StringValue(c.String()) }

func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		ch := s[i]
		switch {
		case ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch >= '0' && ch <= '9', strings.IndexByte("-._~", ch) >= 0:
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

// parseKeywords reads libpq's keyword = value form, by libpq's own rules
// (conninfo_parse in fe-connect.c).
func parseKeywords(s string) (map[string]string, error) {
	const space = " \t\n\v\f\r"
	params := map[string]string{}
	for {
		s = strings.TrimLeft(s, space)
		if s == "" {
			return params, nil
		}
		end := strings.IndexAny(s, "="+space)
		if end < 0 {
			return nil, fail(ErrConnInfo, `connection string: a word without "=" (put values with spaces in single quotes)`)
		}
		key := s[:end]
		s = strings.TrimLeft(s[end:], space)
		if !strings.HasPrefix(s, "=") {
			return nil, fail(ErrConnInfo, `connection string: a word without "=" (put values with spaces in single quotes)`)
		}
		s = strings.TrimLeft(s[1:], space)
		value, rest, ok := keywordValue(s)
		if !ok {
			return nil, fail(ErrConnInfo, "connection string: a quoted value does not end (write ' and \\ inside quotes as \\' and \\\\)")
		}
		s = rest
		if err := setParam(params, key, value); err != nil {
			return nil, err
		}
	}
}

// keywordValue takes one value, quoted or not, off the front of s.
func keywordValue(s string) (value, rest string, ok bool) {
	quoted := strings.HasPrefix(s, "'")
	var b strings.Builder
	i := 0
	if quoted {
		i = 1
	}
	for ; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case quoted && ch == '\'':
			return b.String(), s[i+1:], true
		case !quoted && strings.IndexByte(" \t\n\v\f\r", ch) >= 0:
			return b.String(), s[i:], true
		default:
			b.WriteByte(ch)
		}
	}
	return b.String(), "", !quoted
}

func setParam(params map[string]string, key, value string) error {
	switch key {
	case "ssl": // JDBC's spelling, which libpq takes too
		if value != "true" {
			return fail(ErrConnInfo, "connection string: ssl takes only true; use sslmode")
		}
		key, value = "sslmode", "require"
	case "requiressl", "authtype", "tty":
		return fail(ErrConnInfo, "connection string: "+key+" is obsolete: remove it")
	}
	if _, known := libpqParams[key]; !known {
		return fail(ErrConnInfo, "connection string: "+unknownParam(key))
	}
	params[key] = value
	return nil
}

// parseURI reads libpq's URI form, by libpq's own rules (conninfo_uri_parse_options).
func parseURI(s string) (map[string]string, error) {
	params := map[string]string{}
	_, s, _ = strings.Cut(s, "://")

	// Credentials end at the first @ that comes before any slash.
	if i := strings.IndexAny(s, "@/"); i >= 0 && s[i] == '@' {
		userPart, passPart, hasPass := strings.Cut(s[:i], ":")
		if err := setURIParam(params, "user", userPart); err != nil {
			return nil, err
		}
		if hasPass {
			if err := setURIParam(params, "password", passPart); err != nil {
				return nil, err
			}
		}
		s = s[i+1:]
	}

	// A further @ is most likely the password's own: what follows the first would be
	// looked up as a host name or printed as the database's.
	end := hostListEnd(s)
	if path, _, _ := strings.Cut(s[end:], "?"); strings.Contains(s[:end]+path, "@") {
		return nil, fail(ErrConnInfo, `connection string: "@" where a host or database name should stand (`+encodeHint+")")
	}
	hosts, ports, err := parseHostList(s[:end])
	if err != nil {
		return nil, err
	}
	if err := setURIParam(params, "host", strings.Join(hosts, ",")); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(ports, func(p string) bool { return p != "" }) {
		if err := setURIParam(params, "port", strings.Join(ports, ",")); err != nil {
			return nil, err
		}
	}
	s = s[end:]
	if strings.HasPrefix(s, "/") {
		path, query, has := strings.Cut(s[1:], "?")
		if err := setURIParam(params, "dbname", path); err != nil {
			return nil, err
		}
		if !has {
			return params, nil
		}
		s = "?" + query
	}
	return params, parseQuery(params, strings.TrimPrefix(s, "?"))
}

func hostListEnd(s string) int {
	inBrackets := false
	for i := range len(s) {
		switch s[i] {
		case '[':
			inBrackets = true
		case ']':
			inBrackets = false
		case '/', '?':
			if !inBrackets {
				return i
			}
		}
	}
	return len(s)
}

func parseHostList(s string) (hosts, ports []string, err error) {
	for _, hostPort := range strings.Split(s, ",") {
		host, port := hostPort, ""
		if rest, ok := strings.CutPrefix(hostPort, "["); ok {
			addr, tail, closed := strings.Cut(rest, "]")
			if !closed || addr == "" || (tail != "" && tail[0] != ':') {
				return nil, nil, fail(ErrConnInfo, "connection string: an IPv6 address in [ ] is malformed")
			}
			host, port = addr, strings.TrimPrefix(tail, ":")
		} else if h, p, ok := strings.Cut(hostPort, ":"); ok {
			host, port = h, p
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	return hosts, ports, nil
}

func parseQuery(params map[string]string, query string) error {
	if query == "" {
		return nil
	}
	for _, pair := range strings.Split(query, "&") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fail(ErrConnInfo, `connection string: a parameter behind "?" lacks "="`)
		}
		key, err := percentDecode(key)
		if err != nil {
			return err
		}
		value, err = percentDecode(value)
		if err != nil {
			return err
		}
		if err := setParam(params, key, value); err != nil {
			return err
		}
	}
	return nil
}

func setURIParam(params map[string]string, key, encoded string) error {
	value, err := percentDecode(encoded)
	if err != nil {
		return err
	}
	if value != "" {
		params[key] = value
	}
	return nil
}

func percentDecode(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		var ch byte
		if i+2 >= len(s) || !hexByte(s[i+1], s[i+2], &ch) {
			return "", fail(ErrConnInfo, "connection string: a % is not followed by two hex digits (write a literal % as %25)")
		}
		if ch == 0 {
			return "", fail(ErrConnInfo, "connection string: holds %00")
		}
		b.WriteByte(ch)
		i += 2
	}
	return b.String(), nil
}

func hexByte(hi, lo byte, out *byte) bool {
	const digits = "0123456789abcdef"
	h := strings.IndexByte(digits, hi|0x20)
	l := strings.IndexByte(digits, lo|0x20)
	if h < 0 || l < 0 {
		return false
	}
	*out = byte(h<<4 | l)
	return true
}
