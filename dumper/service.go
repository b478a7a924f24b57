package dumper

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// resolveService merges the service that params or PGSERVICE name under the
// string's own parameters, which is libpq's order. pg_dump gets the result as one
// service, since libpq does not nest them.
func resolveService(params map[string]string) (map[string]string, error) {
	name := params["service"]
	if name == "" {
		name = os.Getenv("PGSERVICE")
	}
	file := params["servicefile"]
	delete(params, "service")
	delete(params, "servicefile")
	if name == "" {
		return params, nil
	}
	for _, path := range serviceFiles(file) {
		settings, found, err := readService(path, name)
		if err != nil {
			return nil, err
		}
		if found {
			merged := settings
			maps.Copy(merged, params)
			return merged, nil
		}
	}
	return nil, fail(ErrConnInfo, fmt.Sprintf("connection string: service %q is in none of %s", name, strings.Join(serviceFiles(file), ", ")))
}

// serviceFiles are the places libpq looks at: the named file alone or the user's,
// then the system's.
func serviceFiles(named string) []string {
	var files []string
	switch {
	case named != "":
		files = append(files, named)
	case os.Getenv("PGSERVICEFILE") != "":
		files = append(files, os.Getenv("PGSERVICEFILE"))
	default:
		if home, err := os.UserHomeDir(); err == nil {
			files = append(files, filepath.Join(home, ".pg_service.conf"))
		}
	}
	if dir := os.Getenv("PGSYSCONFDIR"); dir != "" {
		return append(files, filepath.Join(dir, "pg_service.conf"))
	}
	// The directory is compiled into libpq; these are the packagers' choices.
	return append(files, "/etc/postgresql-common/pg_service.conf", "/etc/sysconfig/pgsql/pg_service.conf",
		"/opt/homebrew/etc/postgresql/pg_service.conf", "/usr/local/etc/postgresql/pg_service.conf")
}

func readService(path, name string) (map[string]string, bool, error) {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, failCause(ErrConnInfo, fmt.Sprintf("service file %s: %v", path, err), err)
	}
	settings := map[string]string{}
	in, found := false, false
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			if found {
				break
			}
			in = strings.HasPrefix(line, "["+name+"]")
			found = found || in
			continue
		}
		if !in {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			// LDAP lookups stand on a line of their own.
			return nil, false, fail(ErrConnInfo, fmt.Sprintf("service file %s, line %d: not a keyword=value pair", path, i+1))
		}
		if key == "service" || key == "servicefile" {
			return nil, false, fail(ErrConnInfo, fmt.Sprintf("service file %s, line %d: services do not nest", path, i+1))
		}
		if _, known := libpqParams[key]; !known {
			return nil, false, fail(ErrConnInfo, fmt.Sprintf("service file %s, line %d: unknown parameter", path, i+1))
		}
		if _, dup := settings[key]; !dup { // libpq keeps the first
			settings[key] = value
		}
	}
	return settings, found, nil
}
