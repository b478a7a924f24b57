package dumper

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// serviceName is what the client programs find their connection under.
const serviceName = "pgstow"

// maxServiceLine: libpq gives up on longer lines (1024 bytes since 14, 256 before).
const maxServiceLine = 250

// childConn is how a client program gets its connection: as a service file that
// only its own file descriptor reaches. argv is readable by everybody on the
// machine, and the environment is inherited by every descendant; an anonymous
// memory file is neither, and is gone with the last process that holds it.
type childConn struct {
	env     []string
	files   []*os.File // inherited from descriptor 3 on
	lines   []string   // parameter per line of the service file, to name the one libpq refuses
	cleanup func()
}

// newChildConn prepares the environment of a client program. Where the system
// has no memory files the password goes by PGPASSWORD and the rest, free of
// secrets, through a temporary file of mode 0600.
func newChildConn(c Conn, environ []string) (*childConn, error) {
	return buildChildConn(c, environ, openMemFile)
}

func buildChildConn(c Conn, environ []string, openMem func() (*os.File, error)) (*childConn, error) {
	params := maps.Clone(c.params)
	if params == nil {
		params = map[string]string{}
	}
	env := cleanEnv(environ)
	// pg_dump names itself as the fallback, so the string's has to come as the name itself.
	if name := params["fallback_application_name"]; name != "" && c.get("application_name") == "" {
		params["application_name"] = name
	}
	delete(params, "fallback_application_name")
	if params["application_name"] == "" && os.Getenv("PGAPPNAME") == "" {
		env = setEnv(env, "PGAPPNAME", "pgstow")
	}
	if c.get("connect_timeout") == "" {
		env = setEnv(env, "PGCONNECT_TIMEOUT", "30")
	}

	mem, err := openMem()
	if err != nil {
		return nil, fmt.Errorf("memory file for the connection: %w", err)
	}
	cc := &childConn{cleanup: func() {}}
	file := mem
	if mem == nil {
		if file, err = os.CreateTemp("", "pgstow-service-*"); err != nil {
			return nil, fmt.Errorf("service file for the connection: %w", err)
		}
		path := file.Name()
		cc.cleanup = func() { _ = os.Remove(path) }
	}
	var text strings.Builder
	text.WriteString("[" + serviceName + "]\n")
	cc.lines = []string{""}
	for _, key := range slices.Sorted(maps.Keys(params)) {
		value := params[key]
		line := key + "=" + value
		inFile := len(line) <= maxServiceLine && !strings.ContainsAny(value, "\r\n") &&
			strings.TrimRight(line, " \t\v\f") == line && (mem != nil || !secretParams[key])
		switch {
		case value == "":
		case inFile:
			text.WriteString(line + "\n")
			cc.lines = append(cc.lines, key)
		case libpqParams[key] != "":
			env = setEnv(env, libpqParams[key], value)
		default:
			_ = file.Close()
			cc.cleanup()
			return nil, fail(ErrConnInfo, "connection string: the value of "+key+" cannot be handed to pg_dump (too long, ends in a space, holds a line break, or is a secret on a system without memory files)")
		}
	}
	if _, err := io.WriteString(file, text.String()); err != nil {
		_ = file.Close()
		cc.cleanup()
		return nil, fmt.Errorf("service file for the connection: %w", err)
	}
	env = setEnv(env, "PGSERVICE", serviceName)
	if mem != nil {
		cc.files = []*os.File{mem}
		env = setEnv(env, "PGSERVICEFILE", "/proc/self/fd/3")
	} else {
		env = setEnv(env, "PGSERVICEFILE", file.Name())
		if err := file.Close(); err != nil {
			cc.cleanup()
			return nil, fmt.Errorf("service file for the connection: %w", err)
		}
	}
	cc.env = env
	return cc, nil
}

// Close releases what only the child needed; the child keeps its own descriptor.
func (cc *childConn) Close() {
	for _, f := range cc.files {
		_ = f.Close()
	}
	cc.cleanup()
}

// cleanEnv is the environment with messages in English, times in UTC and
// without what no client program needs to know.
func cleanEnv(environ []string) []string {
	var out []string
	all := ""
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		switch {
		case key == "LC_ALL":
			all = value
		case key == "LANGUAGE", key == "LC_MESSAGES", key == "PG_COLOR", key == "PGTZ":
		case strings.HasPrefix(key, "PGSTOW_"), key == "AWS_SECRET_ACCESS_KEY", key == "AWS_SESSION_TOKEN":
		default:
			out = append(out, kv)
		}
	}
	if all != "" { // its character set stays, its messages do not
		out = setEnv(out, "LC_CTYPE", all)
	}
	return append(out, "LC_MESSAGES=C", "PG_COLOR=never", "PGTZ=UTC")
}

func setEnv(env []string, key, value string) []string {
	env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, key+"=") })
	return append(env, key+"="+value)
}
