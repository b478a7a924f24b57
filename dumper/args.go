package dumper

import (
	"fmt"
	"slices"
	"strings"
)

// programOptions is what a client program's getopt_long knows, over all releases from 13 to 18.
type programOptions struct {
	program  string
	short    string            // getopt's string: a colon behind an option that takes an argument
	long     map[string]string // name to short form, "" if it has none; "=" in front if it takes an argument
	refused  map[string]string // long name to reason
	position string            // what a word without a dash would be taken for
}

const (
	reasonStream     = "the archive goes to the bucket in custom format, which pgstow sets itself"
	reasonConnection = "the connection comes from --db"
	reasonCompress   = "compression is pgstow's --compress"
	reasonPrints     = "it prints something else than an archive"
)

var dumpOptions = programOptions{
	program: "pg_dump",
	short:   "abBcCd:e:E:f:F:h:j:n:N:Op:RsS:t:T:U:vVwWxZ:?",
	long: map[string]string{
		"data-only": "a", "blobs": "b", "large-objects": "b", "no-blobs": "B", "no-large-objects": "B",
		"clean": "c", "create": "C", "dbname": "=d", "extension": "=e", "file": "=f", "format": "=F",
		"host": "=h", "jobs": "=j", "schema": "=n", "exclude-schema": "=N", "no-owner": "O",
		"no-reconnect": "R", "port": "=p", "schema-only": "s", "superuser": "=S", "table": "=t",
		"exclude-table": "=T", "no-password": "w", "password": "W", "username": "=U", "verbose": "v",
		"no-privileges": "x", "no-acl": "x", "compress": "=Z", "encoding": "=E", "help": "?", "version": "V",
		"attribute-inserts": "", "binary-upgrade": "", "column-inserts": "", "disable-dollar-quoting": "",
		"disable-triggers": "", "enable-row-security": "", "exclude-extension": "=",
		"exclude-table-and-children": "=", "exclude-table-data": "=", "exclude-table-data-and-children": "=",
		"extra-float-digits": "=", "filter": "=", "if-exists": "", "include-foreign-data": "=",
		"inserts": "", "load-via-partition-root": "", "lock-wait-timeout": "=", "no-comments": "",
		"no-data": "", "no-policies": "", "no-publications": "", "no-schema": "", "no-security-labels": "",
		"no-statistics": "", "no-subscriptions": "", "no-sync": "", "no-synchronized-snapshots": "",
		"no-table-access-method": "", "no-tablespaces": "", "no-toast-compression": "",
		"no-unlogged-table-data": "", "on-conflict-do-nothing": "", "quote-all-identifiers": "",
		"restrict-key": "=", "role": "=", "rows-per-insert": "=", "section": "=", "sequence-data": "",
		"serializable-deferrable": "", "snapshot": "=", "statistics": "", "statistics-only": "",
		"strict-names": "", "sync-method": "=", "table-and-children": "=", "use-set-session-authorization": "",
	},
	refused: map[string]string{
		"format": reasonStream, "file": reasonStream, "jobs": "a parallel pg_dump writes a directory, not a stream",
		"compress": reasonCompress,
		"dbname":   reasonConnection, "host": reasonConnection, "port": reasonConnection,
		"username": reasonConnection, "password": "nobody is there to type it; use PGPASSWORD, a service or a passfile",
		"snapshot":       "pgstow exports the snapshot itself",
		"binary-upgrade": "it is pg_upgrade's own mode", "help": reasonPrints, "version": reasonPrints,
	},
	position: "a database name, and " + reasonConnection,
}

var restoreOptions = programOptions{
	program: "pg_restore",
	short:   "acCd:ef:F:gh:I:j:lL:n:N:Op:P:RsS:t:T:U:vVwWx1?",
	long: map[string]string{
		"clean": "c", "create": "C", "data-only": "a", "globals-only": "g", "dbname": "=d", "exit-on-error": "e",
		"exclude-schema": "=N", "file": "=f", "format": "=F", "function": "=P", "host": "=h", "index": "=I",
		"jobs": "=j", "list": "l", "no-privileges": "x", "no-acl": "x", "no-owner": "O", "no-reconnect": "R",
		"port": "=p", "no-password": "w", "password": "W", "schema": "=n", "schema-only": "s",
		"superuser": "=S", "table": "=t", "trigger": "=T", "use-list": "=L", "username": "=U", "verbose": "v",
		"single-transaction": "1", "help": "?", "version": "V",
		"disable-triggers": "", "enable-row-security": "", "exclude-database": "=", "filter": "=",
		"if-exists": "", "no-comments": "", "no-data": "", "no-data-for-failed-tables": "", "no-policies": "",
		"no-publications": "", "no-schema": "", "no-security-labels": "", "no-statistics": "",
		"no-subscriptions": "", "no-table-access-method": "", "no-tablespaces": "", "restrict-key": "=",
		"role": "=", "section": "=", "statistics": "", "statistics-only": "", "strict-names": "",
		"transaction-size": "=", "use-set-session-authorization": "",
	},
	refused: map[string]string{
		"format": "the archive is in custom format, which pgstow says itself",
		"file":   "pgstow restores into --db; its own --output writes a file", "jobs": "pg_restore cannot restore a stream in parallel",
		"list":     "pgstow show --toc lists an archive",
		"use-list": "a list from another archive would be taken for this one's; select with --table and --schema",
		"dbname":   reasonConnection, "host": reasonConnection, "port": reasonConnection,
		"username": reasonConnection, "password": "nobody is there to type it; use PGPASSWORD, a service or a passfile",
		"exit-on-error": "it is pgstow's own rule; --keep-going lifts it",
		"globals-only":  "use pgstow's --globals", "help": "it restores nothing", "version": "it restores nothing",
	},
	position: "a file name, and the archive comes from the bucket",
}

// option is one parsed option: its long name and its argument.
type option struct{ name, value string }

// CheckDumpArgs refuses the pg_dump options that would break the stream (ErrUsage):
// also as abbreviations, in clusters (-vFt) and as stray words.
func CheckDumpArgs(args []string) error {
	_, err := dumpOptions.parse(args)
	return err
}

// DumpsInserts reports whether the pg_dump options make data INSERT statements.
// What CheckDumpArgs refuses does not.
func DumpsInserts(args []string) bool {
	opts, _ := dumpOptions.parse(args)
	return slices.ContainsFunc(opts, func(o option) bool {
		return slices.Contains([]string{"inserts", "column-inserts", "attribute-inserts", "rows-per-insert"}, o.name)
	})
}

// CheckRestoreArgs is the same for pg_restore.
func CheckRestoreArgs(args []string) error {
	_, err := restoreOptions.parse(args)
	return err
}

func (po programOptions) refuse(shown, reason string) error {
	return fail(ErrUsage, fmt.Sprintf("%s option %s is not allowed: %s", po.program, shown, reason))
}

// parse reads args as getopt_long would.
func (po programOptions) parse(args []string) ([]option, error) {
	var out []option
	for i := 0; i < len(args); i++ {
		arg := args[i]
		var opts []option
		var used int
		var err error
		switch {
		case arg == "--":
			err = po.refuse("--", "what follows it would be "+po.position)
		case strings.HasPrefix(arg, "--"):
			opts, used, err = po.parseLong(arg[2:], args[i+1:])
		case len(arg) > 1 && arg[0] == '-':
			opts, used, err = po.parseShort(arg[1:], args[i+1:])
		default:
			err = fail(ErrUsage, fmt.Sprintf("%s argument %q is not allowed: it would be %s", po.program, clip(arg, 60), po.position))
		}
		if err != nil {
			return nil, err
		}
		out = append(out, opts...)
		i += used
	}
	return out, nil
}

func (po programOptions) parseLong(arg string, rest []string) ([]option, int, error) {
	name, value, hasValue := strings.Cut(arg, "=")
	spec, known := po.long[name]
	if !known {
		// getopt_long takes any unambiguous beginning of a name, and what is
		// unambiguous differs between releases.
		var candidates []string
		for full := range po.long {
			if strings.HasPrefix(full, name) {
				candidates = append(candidates, full)
			}
		}
		slices.Sort(candidates)
		for _, full := range candidates {
			if reason, refused := po.refused[full]; refused {
				return nil, 0, po.refuse("--"+name+" (--"+full+")", reason)
			}
		}
		switch {
		case len(candidates) == 0 && !hasValue:
			// An option of a release newer than this list; nothing tells whether the next word is its own.
			return []option{{name: name}}, 0, nil
		case len(candidates) == 0:
			return []option{{name, value}}, 0, nil
		}
		// Which one is meant only pg_dump's own list can tell; if they disagree it says "ambiguous".
		name = candidates[0]
		spec = po.long[name]
	}
	if reason, refused := po.refused[name]; refused {
		return nil, 0, po.refuse("--"+name, reason)
	}
	if !strings.HasPrefix(spec, "=") || hasValue {
		return []option{{name, value}}, 0, nil
	}
	if len(rest) == 0 {
		return nil, 0, po.refuse("--"+name, "its argument is missing")
	}
	return []option{{name, rest[0]}}, 1, nil
}

func (po programOptions) parseShort(cluster string, rest []string) ([]option, int, error) {
	var out []option
	for i := 0; i < len(cluster); i++ {
		ch := cluster[i : i+1]
		at := strings.Index(po.short, ch)
		if at < 0 || ch == ":" {
			return nil, 0, po.refuse("-"+ch, "no release of "+po.program+" has it")
		}
		name := po.longName(ch)
		if reason, refused := po.refused[name]; refused {
			return nil, 0, po.refuse("-"+ch+" (--"+name+")", reason)
		}
		if at+1 == len(po.short) || po.short[at+1] != ':' {
			out = append(out, option{name: name})
			continue
		}
		if value := cluster[i+1:]; value != "" {
			return append(out, option{name, value}), 0, nil
		}
		if len(rest) == 0 {
			return nil, 0, po.refuse("-"+ch, "its argument is missing")
		}
		return append(out, option{name, rest[0]}), 1, nil
	}
	return out, 0, nil
}

func (po programOptions) longName(short string) string {
	var names []string
	for name, spec := range po.long {
		if strings.TrimPrefix(spec, "=") == short {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return short
	}
	slices.Sort(names)
	return names[len(names)-1] // no-privileges before no-acl, large-objects before blobs
}
