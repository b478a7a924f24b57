package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/pgstow/pgstow/dumper"
)

// label is the label of a database's archives; "" of none.
func (d *database) label() string {
	if d == nil {
		return ""
	}
	return d.name
}

func (r *configReader) database(key, value *yaml.Node) {
	d := &database{name: key.Value, key: key}
	what := "database " + d.name
	at := map[string]*yaml.Node{}
	r.object(value, what, fields{
		"url": func(k, v *yaml.Node) {
			at["url"] = k
			d.url, _ = r.databaseURL(v, what+": url")
		},
		"url_file": func(k, v *yaml.Node) {
			at["url_file"] = k
			if t, ok := r.text(v, what+": url_file"); ok {
				d.urlFile = r.beside(t.value)
			}
		},
		"store":  func(_, v *yaml.Node) { d.storeName, _ = r.text(v, what+": store") },
		"policy": func(_, v *yaml.Node) { d.policyName, _ = r.text(v, what+": policy") },
		"every": func(_, v *yaml.Node) {
			if t, ok := r.text(v, what+": every"); ok {
				d.every = r.interval(t, what+": every")
			}
		},
		"dump": func(_, v *yaml.Node) { d.dump = r.dumpOptions(v, what+": dump") },
	}, func(key string) string {
		if strings.Contains(strings.ToLower(key), "password") {
			return "a password belongs in url, url_file, a service file or ~/.pgpass"
		}
		if slices.Contains([]string{"encrypt", "encrypt-to", "sign", "drill-every", "verify-every", "drill-part"}, key) {
			return "stands in the policy that this database names"
		}
		return notYet(key, "notify")
	})
	switch {
	case at["url"] != nil && at["url_file"] != nil:
		r.add(at["url_file"], "%s: url and url_file exclude each other", what)
	case at["url"] == nil && at["url_file"] == nil:
		r.add(key, "%s: has neither url nor url_file", what)
	}
	d.policyAt = d.policyName.node
	r.config.databases = append(r.config.databases, d)
}

// databaseURL is checked as far as it can be here: a variable that is not set
// is a mistake when the database is used and not before, so that who only
// restores needs no access to the sources. Connection strings never stand in
// messages.
func (r *configReader) databaseURL(n *yaml.Node, what string) (text, bool) {
	t, ok := r.lateText(n, what)
	if !ok || t.unset != "" {
		return t, ok
	}
	if err := dumper.CheckConn(t.value); err != nil {
		r.add(n, "%s: %v", what, err)
		return t, false
	}
	return t, true
}

// interval is how often a database is to be archived.
func (r *configReader) interval(t text, what string) time.Duration {
	d, err := parseDuration(t.value)
	if err != nil || d < time.Minute {
		r.add(t.node, "%s: %s: want a duration of a minute or more, such as 90m, 24h or 7d", what, t.shown())
	}
	return d
}

var dumpOptionName = regexp.MustCompile(`^[a-z][a-z-]*[a-z]$`)

// dumpOptions are pg_dump's long options without dashes: a list of values, one
// value, or true for an option that takes none.
func (r *configReader) dumpOptions(n *yaml.Node, what string) (args []string) {
	r.each(n, what, func(key, value *yaml.Node) {
		name, what := key.Value, what+": "+key.Value
		if !dumpOptionName.MatchString(name) {
			r.add(key, "%s: want a long option of pg_dump without its dashes, as in exclude-table-data", what)
			return
		}
		add := func(at *yaml.Node, arg string) {
			if err := dumper.CheckDumpArgs([]string{arg}); err != nil {
				r.add(at, "%s: %v", what, err)
				return
			}
			args = append(args, arg)
		}
		if value.Kind == yaml.ScalarNode && value.Tag == "!!bool" {
			if on, ok := r.flag(value, what); ok && on {
				add(key, "--"+name)
			} else if ok {
				r.add(value, "%s: leave out what is not wanted", what)
			}
			return
		}
		values := []*yaml.Node{value}
		if value.Kind != yaml.ScalarNode {
			values = r.elements(value, what)
		}
		for _, v := range values {
			t, ok := r.text(v, what)
			switch {
			case ok && t.vars:
				r.add(v, "%s: no variables here: everybody can read pg_dump's options in the process list", what)
			case ok:
				add(v, "--"+name+"="+t.value)
			}
		}
	})
	return args
}

// conn is the connection string of a database of the file, read now.
func (rt *runtime) databaseConn(cfg *config, d *database) (dumper.Conn, error) {
	if d.urlFile != "" {
		return rt.connFromFile(d)
	}
	at := fmt.Sprintf("%s:%d:%d: database %s: url", cfg.file, d.url.node.Line, d.url.node.Column, d.name)
	if d.url.unset != "" {
		return dumper.Conn{}, usagef("%s: %s", at, d.url.unset)
	}
	conn, err := dumper.ParseConn(d.url.value)
	if err != nil {
		return dumper.Conn{}, usagef("%s: %w", at, err)
	}
	if conn.PasswordTyped() && !d.url.vars {
		rt.warnReadable(cfg.file, "password")
	}
	return conn, nil
}

// maxURLFile is more than any connection string has.
const maxURLFile = 64 << 10

func (rt *runtime) connFromFile(d *database) (dumper.Conn, error) {
	fail := func(err error) (dumper.Conn, error) {
		return dumper.Conn{}, usagef("database %s: url_file: %w", d.name, err)
	}
	f, err := os.Open(d.urlFile)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxURLFile))
	if err != nil {
		return fail(err)
	}
	url := strings.TrimSpace(string(data))
	if url == "" {
		return fail(fmt.Errorf("%s is empty", d.urlFile))
	}
	conn, err := dumper.ParseConn(url)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", d.urlFile, err))
	}
	if conn.PasswordTyped() {
		rt.warnReadable(d.urlFile, "password")
	}
	return conn, nil
}

// warnReadable warns of a file with a secret that others can read.
func (rt *runtime) warnReadable(path, secret string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
		rt.log.Warn("everybody on this machine can read the "+secret+" in this file; chmod 0600 it", slog.String("file", path))
	}
}
