package archiver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// targetOptions are what restore and clone share of preparing a target.
type targetOptions struct {
	conn         dumper.Conn
	head         *pgarchive.Head
	restore      dumper.RestoreOptions
	intoNonempty bool
	// globals, when set, delivers roles and tablespaces to run first.
	globals func(context.Context) ([]byte, error)
	log     *slog.Logger
}

// prepareTarget inspects the target before anything is changed in it, and
// runs the globals. What globals may bring is allowed to lack until they ran.
func prepareTarget(ctx context.Context, o targetOptions) (*dumper.Target, *dumper.GlobalsResult, error) {
	t, err := dumper.InspectTarget(ctx, o.conn, o.head, o.restore)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range t.Warnings {
		o.log.Warn(w)
	}
	if err := checkEmpty(o, t); err != nil {
		return nil, nil, err
	}
	lacks := t.Lacks
	if o.globals != nil {
		lacks = slices.DeleteFunc(slices.Clone(lacks), func(l dumper.Lack) bool { return fromGlobals(l.Kind) })
	}
	if len(lacks) > 0 {
		return nil, nil, &LacksError{Target: o.conn.String(), Lacks: lacks}
	}
	if o.globals == nil {
		return t, nil, nil
	}
	sql, err := o.globals(ctx)
	if err != nil {
		return nil, nil, err
	}
	ran, err := dumper.RunGlobals(ctx, o.conn, bytes.NewReader(sql))
	if err != nil {
		return nil, nil, fmt.Errorf("run globals: %w", err)
	}
	for _, s := range ran.Skipped {
		o.log.Info("globals: skipped", "what", s)
	}
	if len(t.Lacks) == 0 {
		return t, &ran, nil
	}
	if t, err = dumper.InspectTarget(ctx, o.conn, o.head, o.restore); err != nil {
		return nil, nil, err
	}
	if len(t.Lacks) > 0 {
		return nil, nil, &LacksError{Target: o.conn.String(), Lacks: t.Lacks, AfterGlobals: true}
	}
	return t, &ran, nil
}

// checkEmpty refuses a target that holds user tables. With Create the archive
// goes into a database of its own.
func checkEmpty(o targetOptions, t *dumper.Target) error {
	if t.UserTables == 0 || o.intoNonempty || o.restore.Clean || o.restore.Create {
		return nil
	}
	noun := "user tables"
	if t.UserTables == 1 {
		noun = "user table"
	}
	return fmt.Errorf("%w: %s holds %d %s (%s); restore into an empty database, or use --clean --if-exists to replace them or --into-nonempty to add to them",
		dumper.ErrTargetInUse, o.conn.String(), t.UserTables, noun, someOf(t.UserTableNames, t.UserTables))
}

// someOf lists the names that are known of n things.
func someOf(names []string, n int) string {
	list := strings.Join(names, ", ")
	if len(names) < n {
		list += ", …"
	}
	return list
}

// fromGlobals reports whether globals may bring what is lacking.
func fromGlobals(kind string) bool {
	return kind == "owner" || kind == "grantee" || kind == "tablespace"
}

// LacksError says what the target needs and has not. Its Error is one line;
// Lines has the rest, one line each with its cure, for the caller to print.
type LacksError struct {
	Target string
	Lacks  []dumper.Lack
	// AfterGlobals: roles and tablespaces have been created already.
	AfterGlobals bool
}

func (e *LacksError) Error() string {
	count := map[string]int{}
	var kinds []string
	for _, l := range e.Lacks {
		if count[l.Kind]++; count[l.Kind] == 1 {
			kinds = append(kinds, l.Kind)
		}
	}
	for i, k := range kinds {
		kinds[i] = fmt.Sprintf("%s: %d", k, count[k])
	}
	changed := "nothing was changed"
	if e.AfterGlobals {
		changed = "globals were run, nothing else was changed"
	}
	return fmt.Sprintf("%s: %s lacks what the archive needs (%s); %s",
		dumper.ErrPreflight, e.Target, strings.Join(kinds, ", "), changed)
}

// Unwrap makes the error a dumper.ErrPreflight.
func (e *LacksError) Unwrap() error { return dumper.ErrPreflight }

// Lines are the lacks, one line each with its cure.
func (e *LacksError) Lines() []string {
	lines := make([]string, len(e.Lacks))
	for i, l := range e.Lacks {
		lines[i] = fmt.Sprintf("%s %q: %s", l.Kind, l.Name, l.Cure)
	}
	return lines
}

// chooseRestoreTools picks the pg_restore of the target's own major if it can
// read archives of the version, else a newer one. An unknown version (zero)
// goes to the newest there is.
func chooseRestoreTools(found []dumper.Tools, targetMajor int, v pgarchive.Version) (dumper.Tools, error) {
	need := targetMajor
	switch {
	case v == pgarchive.Version{}:
		for _, t := range found {
			need = max(need, t.Major)
		}
	case v.Minor >= 16:
		need = max(need, 17)
	case v.Minor == 15:
		need = max(need, 16)
	}
	tools, err := dumper.ChooseTools(found, need)
	if err != nil && need > targetMajor {
		return tools, fmt.Errorf("an archive of version %d.%d needs pg_restore %d or newer: %w", v.Major, v.Minor, need, err)
	}
	return tools, err
}
