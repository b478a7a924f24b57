package dumper

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Relation is a table of a restored database, with what a comparison of its rows has to know.
type Relation struct {
	OID, Schema, Name string
	Kind              byte   // pg_class.relkind
	Parent            string // OID of the table that it is a partition of, "" for none
	// Condition is the WHERE clause of an extension's configuration table: pg_dump takes
	// only the rows that it names.
	Condition string
	Forced    bool // FORCE ROW LEVEL SECURITY
}

// Relations lists all tables but the catalogue's.
func (s *CopySession) Relations(ctx context.Context) ([]Relation, error) {
	rows, err := s.Query(ctx, `
		SELECT c.oid, n.nspname, c.relname, c.relkind, (SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid AND c.relispartition),
			(SELECT x.condition FROM pg_catalog.pg_extension e, LATERAL unnest(e.extconfig, e.extcondition) x (config, condition) WHERE x.config = c.oid LIMIT 1), c.relforcerowsecurity
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		return nil, err
	}
	all := make([]Relation, len(rows))
	for i, r := range rows {
		all[i] = Relation{OID: r[0], Schema: r[1], Name: r[2], Parent: r[4], Condition: r[5], Forced: r[6] == "t"}
		if r[3] != "" {
			all[i].Kind = r[3][0]
		}
	}
	return all, nil
}

// Pages is how many pages a table's heap has.
func (s *CopySession) Pages(ctx context.Context, oid string) (int64, error) {
	rows, err := s.Query(ctx, "SELECT pg_catalog.pg_relation_size($1::oid) / pg_catalog.current_setting('block_size')::int8", oid)
	if err != nil || len(rows) != 1 {
		return 0, err
	}
	n, err := strconv.ParseInt(rows[0][0], 10, 64)
	return n, err
}

// PrimaryKey names the columns of a table's primary key, nil where it has none.
func (s *CopySession) PrimaryKey(ctx context.Context, oid string) ([]string, error) {
	rows, err := s.Query(ctx, `SELECT a.attname FROM pg_catalog.pg_index i, LATERAL unnest(i.indkey) WITH ORDINALITY k (attnum, place)
		JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum
		WHERE i.indrelid = $1::oid AND i.indisprimary AND a.attrelid = i.indrelid ORDER BY k.place`, oid)
	names := make([]string, len(rows))
	for i, r := range rows {
		names[i] = r[0]
	}
	return names, err
}

// SequenceValue is what setval gave a sequence.
type SequenceValue struct {
	Value  string
	Called bool
}

// ParseSetval reads the definition of a SEQUENCE SET entry.
func ParseSetval(defn string) (SequenceValue, bool) {
	var v SequenceValue
	all := statements(defn)
	if len(all) != 1 {
		return v, false
	}
	// SELECT pg_catalog.setval('s', -1, true)
	toks := tokenize(all[0])
	n := len(toks)
	if n < 9 || !toks[0].is("select") || !toks[n-1].is(")") || !toks[n-3].is(",") || !toks[n-2].is("true") && !toks[n-2].is("false") {
		return v, false
	}
	v.Called = toks[n-2].is("true")
	v.Value = toks[n-4].text
	if toks[n-5].is("-") {
		v.Value = "-" + v.Value
	}
	return v, strings.Trim(v.Value, "-0123456789") == ""
}

// SequenceName is a sequence of an archive.
type SequenceName struct{ Schema, Name string }

// Sequences reads where sequences stand, in one statement, in the order of names. One that
// is not there, or cannot be read, is a *ReadError.
func (s *CopySession) Sequences(ctx context.Context, names []SequenceName) ([]SequenceValue, error) {
	if len(names) == 0 {
		return nil, nil
	}
	selects := make([]string, len(names))
	for i, n := range names {
		selects[i] = fmt.Sprintf("(SELECT %d, last_value::text, is_called::text FROM %s.%s)", i, QuoteName(n.Schema), QuoteName(n.Name))
	}
	rows, err := s.Query(ctx, strings.Join(selects, " UNION ALL ")+" ORDER BY 1")
	if err != nil {
		return nil, err
	}
	values := make([]SequenceValue, len(rows))
	for i, r := range rows {
		values[i] = SequenceValue{Value: r[1], Called: r[2] == "true"}
	}
	return values, nil
}

// LargeObjects lists the OIDs of all large objects.
func (s *CopySession) LargeObjects(ctx context.Context) ([]string, error) {
	rows, err := s.Query(ctx, "SELECT oid FROM pg_catalog.pg_largeobject_metadata")
	oids := make([]string, len(rows))
	for i, r := range rows {
		oids[i] = r[0]
	}
	return oids, err
}
