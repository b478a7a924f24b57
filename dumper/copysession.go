package dumper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// CopySession is a session that reads a restored database as pg_dump read its source: with
// the same settings, in the archive's encoding. Texts go in and come out as bytes of that
// encoding. One goroutine uses it at a time.
type CopySession struct {
	conn  *pgx.Conn
	where Conn
	paths bool // the search_path follows the table: an archive of before there was an entry for it
}

// OpenCopySession connects to c as pg_dump, with these options, connected to the source of
// the archive. The caller closes it.
func OpenCopySession(ctx context.Context, c Conn, head *pgarchive.Head, dumpArgs []string) (*CopySession, error) {
	conn, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	s := &CopySession{conn: conn, where: c, paths: !slices.ContainsFunc(head.Entries, func(e pgarchive.Entry) bool { return e.Desc.S == "SEARCHPATH" })}
	for _, sql := range dumpSettings(head, dumpArgs, serverMajor(conn)) {
		if err := s.Exec(ctx, sql); err != nil {
			_ = s.Close(ctx)
			return nil, err
		}
	}
	return s, nil
}

// dumpSettings are what pg_dump sets in its session (setup_connection), and pgstow for it.
func dumpSettings(head *pgarchive.Head, dumpArgs []string, major int) []string {
	digits, quote := "3", "off"
	args, _ := dumpOptions.parse(dumpArgs) // checked when the dump was made
	for _, a := range args {
		switch a.name {
		case "extra-float-digits":
			digits = a.value
		case "quote-all-identifiers": // also in the text of a regclass
			quote = "on"
		}
	}
	bytea := "hex"
	for _, set := range inheritedSettings(head) {
		if set.name == "bytea_output" {
			bytea = set.value
		}
	}
	all := []string{
		"SET datestyle = 'ISO'", "SET intervalstyle = 'postgres'", "SET extra_float_digits = " + quoteLiteral(digits),
		"SET timezone = 'UTC'", "SET bytea_output = " + quoteLiteral(bytea), "SET quote_all_identifiers = " + quote, "SET synchronize_seqscans = off",
		"SET row_security = off", "SET statement_timeout = 0", "SET lock_timeout = 0",
		"SET idle_in_transaction_session_timeout = 0", "SET xmloption = content",
	}
	if major >= 17 {
		all = append(all, "SET transaction_timeout = 0")
	}
	for i := range head.Entries {
		switch e := &head.Entries[i]; e.Desc.S {
		case "STDSTRINGS", "SEARCHPATH":
			all = append(all, e.Defn.S)
		}
	}
	// Last, for what follows is in it.
	if enc := archiveEncoding(head); enc != "" {
		all = append(all, "SET client_encoding = "+quoteLiteral(enc))
	}
	return all
}

// Close ends the session.
func (s *CopySession) Close(ctx context.Context) error { return s.conn.Close(ctx) }

// Exec runs statements that return nothing.
func (s *CopySession) Exec(ctx context.Context, sql string) error {
	_, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
	return s.explain(ctx, sql, err)
}

// Query returns the rows of a statement with all values as text, NULL as "".
func (s *CopySession) Query(ctx context.Context, sql string, args ...string) ([][]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	result := s.conn.PgConn().ExecParams(ctx, sql, params, nil, nil, nil)
	var rows [][]string
	for result.NextRow() {
		row := make([]string, len(result.Values()))
		for i, v := range result.Values() {
			row[i] = string(v)
		}
		rows = append(rows, row)
	}
	_, err := result.Close()
	return rows, s.explain(ctx, sql, err)
}

// Copy sends the rows of t, as pg_dump has read or would have read them, to w: COPY text
// without an end mark. Columns that are generated or dropped are not among them.
func (s *CopySession) Copy(ctx context.Context, w io.Writer, t CopyTarget) error {
	if s.paths {
		if err := s.Exec(ctx, "SET search_path = "+QuoteName(t.Schema)+", pg_catalog"); err != nil {
			return err
		}
	}
	sql := t.toStdout()
	_, err := s.conn.PgConn().CopyTo(ctx, w, sql)
	return s.explain(ctx, sql, err)
}

// CopyForced is Copy of a table with FORCE ROW LEVEL SECURITY by its owner, from whom the
// policies would hide rows: they are not forced meanwhile.
func (s *CopySession) CopyForced(ctx context.Context, w io.Writer, t CopyTarget) error {
	table := "ALTER TABLE ONLY " + t.name
	if err := s.Exec(ctx, table+" NO FORCE ROW LEVEL SECURITY"); err != nil {
		return err
	}
	err := s.Copy(ctx, w, t)
	return errors.Join(err, s.Exec(ctx, table+" FORCE ROW LEVEL SECURITY"))
}

// SwitchBytea sets the other form of bytea_output, which pg_dump takes as it finds it.
func (s *CopySession) SwitchBytea(ctx context.Context) error {
	return s.Exec(ctx, "SELECT pg_catalog.set_config('bytea_output', CASE pg_catalog.current_setting('bytea_output') WHEN 'hex' THEN 'escape' ELSE 'hex' END, false)")
}

// LargeObject reads at most n bytes of a large object.
func (s *CopySession) LargeObject(ctx context.Context, oid uint32, offset int64, n int) ([]byte, error) {
	const sql = "SELECT pg_catalog.lo_get($1::oid, $2::int8, $3::int4)"
	text := func(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
	result := s.conn.PgConn().ExecParams(ctx, sql, [][]byte{text(int64(oid)), text(offset), text(int64(n))}, nil, nil, []int16{1})
	var data []byte
	for result.NextRow() {
		data = append(data, result.Values()[0]...)
	}
	_, err := result.Close()
	return data, s.explain(ctx, sql, err)
}

// ReadError is a statement that the server refused while a database was read.
type ReadError struct {
	SQL  string
	Code string // SQLSTATE
	Err  error
}

func (e *ReadError) Error() string { return clip(oneLine(e.SQL), 120) + ": " + oneLine(e.Err.Error()) }

// Unwrap makes it an ErrScratch, too.
func (e *ReadError) Unwrap() []error { return []error{ErrScratch, e.Err} }

func (s *CopySession) explain(ctx context.Context, sql string, err error) error {
	var pgErr *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.As(err, &pgErr):
		return &ReadError{SQL: sql, Code: pgErr.Code, Err: err}
	}
	return failCause(ErrConnect, fmt.Sprintf("read %s: %s", s.where, oneLine(err.Error())), err)
}

// CopyTarget is what a COPY statement of an archive loads.
type CopyTarget struct {
	Schema, Table string   // Schema is "" where the statement has none
	Columns       []string // nil where the statement has none: a table without columns
	// Condition, where pg_dump took only some of the rows: the WHERE clause of an
	// extension's configuration table.
	Condition string
	// Query, not the table itself, is read: a partitioned table's rows with all partitions,
	// but those of Without.
	Query   bool
	Without []string // OIDs
	// Pages, where To or From is set, are those of the table's heap that are read, To not
	// among them; 0 for To is its end.
	Pages struct{ From, To int64 }

	name, list string // as the archive spells them
}

// ParseCopy reads the COPY ... FROM stdin of an archive, in the one form in which pg_dump
// writes it.
func ParseCopy(stmt string) (CopyTarget, error) {
	var t CopyTarget
	body, begins := strings.CutPrefix(strings.TrimSpace(stmt), "COPY ")
	body, ends := strings.CutSuffix(body, " FROM stdin;")
	parts, rest := cutNames(body, ".")
	t.name = body[:len(body)-len(rest)]
	list, spaced := strings.CutPrefix(rest, " ")
	t.list = list
	fits := begins && ends && spaced && (len(parts) == 1 || len(parts) == 2)
	if inner, ok := strings.CutPrefix(list, "("); ok {
		inner, ok = strings.CutSuffix(inner, ")")
		t.Columns, rest = cutNames(inner, ", ")
		fits = fits && ok && rest == "" && len(t.Columns) > 0
	} else {
		fits = fits && list == ""
	}
	if !fits {
		return CopyTarget{}, fmt.Errorf("%q is no COPY that pg_dump writes", clip(oneLine(stmt), 80))
	}
	t.Table = parts[len(parts)-1]
	if len(parts) == 2 {
		t.Schema = parts[0]
	}
	return t, nil
}

// cutNames reads identifiers with separators between them; rest is what follows.
func cutNames(s, separator string) (names []string, rest string) {
	for {
		name, n := "", 0
		if strings.HasPrefix(s, `"`) {
			if name, n = unquote(s); QuoteName(name) != s[:n] || name == "" {
				return nil, s
			}
		} else {
			for n < len(s) && isWordByte(s[n]) {
				n++
			}
			if name = s[:n]; n == 0 {
				return nil, s
			}
		}
		names, s = append(names, name), s[n:]
		more := false
		if s, more = strings.CutPrefix(s, separator); !more {
			return names, s
		}
	}
}

// toStdout is the statement that reads what the archive's loads.
func (t CopyTarget) toStdout() string {
	where := t.Condition
	if len(t.Without) > 0 {
		where = "WHERE tableoid NOT IN (" + strings.Join(t.Without, ", ") + ")"
	}
	if p := t.Pages; p.From > 0 || p.To > 0 {
		where = fmt.Sprintf("WHERE ctid >= '(%d,0)'::tid", p.From)
		if p.To > 0 {
			where += fmt.Sprintf(" AND ctid < '(%d,0)'::tid", p.To)
		}
		return "COPY (SELECT " + t.columns() + " FROM ONLY " + t.name + " " + where + ") TO STDOUT"
	}
	if !t.Query && where == "" {
		return "COPY " + t.name + " " + t.list + " TO STDOUT"
	}
	return "COPY (SELECT " + t.columns() + " FROM " + t.name + " " + where + ") TO STDOUT"
}

func (t CopyTarget) columns() string {
	return strings.TrimSuffix(strings.TrimPrefix(t.list, "("), ")")
}

// WithoutColumns reads rows alone, to be counted.
func (t CopyTarget) WithoutColumns() CopyTarget {
	t.Columns, t.list, t.Query = nil, "", true
	return t
}

// definingOptions are those of pg_dump that change what it says of definitions, or whether.
var definingOptions = []string{
	"quote-all-identifiers", "disable-dollar-quoting", "no-comments", "no-security-labels", "no-publications",
	"no-tablespaces", "no-table-access-method", "no-toast-compression", "no-policies", "no-privileges", "no-acl",
}

// SchemaDumpArgs are the options of a pg_dump that says of a copy's definitions what the
// archive of head, which was made with dumpArgs, says of them.
func SchemaDumpArgs(head *pgarchive.Head, dumpArgs []string) []string {
	args := []string{"--schema-only", "--no-subscriptions"}
	if enc := archiveEncoding(head); enc != "" {
		args = append(args, "--encoding="+enc)
	}
	parsed, _ := dumpOptions.parse(dumpArgs) // checked when the dump was made
	for _, a := range parsed {
		if slices.Contains(definingOptions, a.name) {
			args = append(args, "--"+a.name)
		}
	}
	return args
}
