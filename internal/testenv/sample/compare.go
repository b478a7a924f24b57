package sample

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Item is something in a database that can be compared: a relation's rows, a
// sequence's state, the large objects, the definitions.
type Item struct {
	Kind   string // "table", "materialized view", "sequence", "large objects", "definitions"
	Schema string
	Name   string
	Rows   int64
	// Hash does not depend on the order of rows.
	Hash string
}

// TableDiff sets an Item of one database beside that of another. The one that
// is missing has -1 rows.
type TableDiff struct {
	Kind, Schema, Name     string
	SourceRows, CopyRows   int64
	SourceHash, CopyHash   string
	sourceFound, copyFound bool
}

// Equal reports whether both are there with the same content.
func (d TableDiff) Equal() bool {
	return d.sourceFound && d.copyFound && d.SourceRows == d.CopyRows && d.SourceHash == d.CopyHash
}

// Compare compares the content and the definitions of two databases.
func Compare(ctx context.Context, source, dest string) ([]TableDiff, error) {
	a, err := Snapshot(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("read the source: %w", err)
	}
	b, err := Snapshot(ctx, dest)
	if err != nil {
		return nil, fmt.Errorf("read the copy: %w", err)
	}
	type id struct{ kind, schema, name string }
	copies := map[id]Item{}
	for _, item := range b {
		copies[id{item.Kind, item.Schema, item.Name}] = item
	}
	var diffs []TableDiff
	for _, item := range a {
		d := TableDiff{
			Kind: item.Kind, Schema: item.Schema, Name: item.Name, sourceFound: true,
			SourceRows: item.Rows, SourceHash: item.Hash, CopyRows: -1,
		}
		k := id{item.Kind, item.Schema, item.Name}
		if other, ok := copies[k]; ok {
			d.CopyRows, d.CopyHash, d.copyFound = other.Rows, other.Hash, true
			delete(copies, k)
		}
		diffs = append(diffs, d)
	}
	for _, item := range b {
		if _, ok := copies[id{item.Kind, item.Schema, item.Name}]; ok {
			diffs = append(diffs, TableDiff{
				Kind: item.Kind, Schema: item.Schema, Name: item.Name, copyFound: true,
				SourceRows: -1, CopyRows: item.Rows, CopyHash: item.Hash,
			})
		}
	}
	return diffs, nil
}

// Snapshot lists what a database holds, all in one transaction.
func Snapshot(ctx context.Context, url string) ([]Item, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	items, err := snapshot(ctx, conn)
	return items, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// settings make a row's text the same wherever it is read.
const settings = `
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex';
SET extra_float_digits = 1; SET search_path = ''; SET row_security = off;`

func snapshot(ctx context.Context, conn *pgx.Conn) ([]Item, error) {
	if _, err := conn.PgConn().Exec(ctx, settings).ReadAll(); err != nil {
		return nil, err
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	items, err := relations(ctx, tx)
	if err != nil {
		return nil, err
	}
	for i := range items {
		if err := items[i].read(ctx, tx); err != nil {
			return nil, fmt.Errorf("%s %s.%s: %w", items[i].Kind, items[i].Schema, items[i].Name, err)
		}
	}
	objects := Item{Kind: "large objects"}
	err = objects.scan(ctx, tx, `SELECT md5(oid::text || ' ' || encode(lo_get(oid), 'hex')) FROM pg_largeobject_metadata`)
	if err != nil {
		return nil, fmt.Errorf("large objects: %w", err)
	}
	defs, err := definitions(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	return append(items, objects, defs), tx.Commit(ctx)
}

func relations(ctx context.Context, tx pgx.Tx) ([]Item, error) {
	rows, err := tx.Query(ctx, `
		SELECT CASE relkind WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END, nspname, relname
		FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind IN ('r', 'm', 'S') AND nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'`)
	if err != nil {
		return nil, err
	}
	items, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (item Item, err error) {
		return item, row.Scan(&item.Kind, &item.Schema, &item.Name)
	})
	slices.SortFunc(items, func(a, b Item) int { // the database's collation is none of ours
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
	})
	return items, err
}

func (item *Item) read(ctx context.Context, tx pgx.Tx) error {
	name := pgx.Identifier{item.Schema, item.Name}.Sanitize()
	if item.Kind == "sequence" {
		return item.scan(ctx, tx, "SELECT md5(last_value::text || is_called::text) FROM "+name)
	}
	return item.scan(ctx, tx, "SELECT md5(whole_row::text) FROM ONLY "+name+" AS whole_row")
}

// scan counts the rows of a query for MD5 sums and adds them up in two halves:
// equal sums mean equal multisets, whatever the order.
func (item *Item) scan(ctx context.Context, tx pgx.Tx, query string) error {
	var high, low string
	err := tx.QueryRow(ctx, `
		SELECT count(*),
			coalesce(sum(('x' || left(h, 16))::bit(64)::bigint), 0)::text,
			coalesce(sum(('x' || right(h, 16))::bit(64)::bigint), 0)::text
		FROM (`+query+`) AS q (h)`).Scan(&item.Rows, &high, &low)
	if err != nil {
		return err
	}
	a, ok1 := new(big.Int).SetString(high, 10)
	b, ok2 := new(big.Int).SetString(low, 10)
	if !ok1 || !ok2 {
		return fmt.Errorf("not numbers: %q, %q", high, low)
	}
	mod := new(big.Int).Lsh(big.NewInt(1), 64)
	item.Hash = fmt.Sprintf("%016x%016x", a.Mod(a, mod), b.Mod(b, mod)) // Mod is never negative
	return nil
}

// definitions hashes what makes the data a schema: columns, constraints,
// indexes, triggers, policies, functions, types, comments and privileges.
func definitions(ctx context.Context, tx pgx.Tx) (Item, error) {
	rows, err := tx.Query(ctx, definitionsQuery)
	if err != nil {
		return Item{}, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return Item{}, err
	}
	slices.Sort(lines)
	h := sha256.New()
	for _, line := range lines {
		fmt.Fprintf(h, "%d:%s", len(line), line)
	}
	return Item{Kind: "definitions", Rows: int64(len(lines)), Hash: hex.EncodeToString(h.Sum(nil))[:32]}, nil
}

const definitionsQuery = `
WITH user_schema AS (
	SELECT oid, nspname, nspacl FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
)
SELECT concat_ws('|', 'relation', c.oid::regclass, relkind, relrowsecurity, relforcerowsecurity, coalesce(relacl::text, ''),
		coalesce(pg_get_expr(relpartbound, c.oid), ''), coalesce(pg_get_partkeydef(c.oid), ''), obj_description(c.oid, 'pg_class'))
	FROM pg_class c JOIN user_schema n ON n.oid = relnamespace
UNION ALL
SELECT concat_ws('|', 'column', c.oid::regclass, attname, attnum, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
		coalesce(pg_get_expr(adbin, adrelid), ''), coalesce(attacl::text, ''), col_description(c.oid, attnum))
	FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN user_schema n ON n.oid = relnamespace
	LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
	WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT concat_ws('|', 'constraint', conname, conrelid::regclass, contypid::regtype, pg_get_constraintdef(c.oid))
	FROM pg_constraint c JOIN user_schema n ON n.oid = connamespace
	WHERE contype <> 'n' -- a name for what attnotnull says above, made up anew when 18 reads a dump of before 18
UNION ALL
SELECT concat_ws('|', 'index', pg_get_indexdef(indexrelid))
	FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN user_schema n ON n.oid = relnamespace
UNION ALL
SELECT concat_ws('|', 'trigger', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT concat_ws('|', 'policy', polrelid::regclass, polname, polcmd, polpermissive, polroles::regrole[],
		coalesce(pg_get_expr(polqual, polrelid), ''), pg_get_expr(polwithcheck, polrelid))
	FROM pg_policy
UNION ALL
SELECT concat_ws('|', 'view', c.oid::regclass, pg_get_viewdef(c.oid))
	FROM pg_class c JOIN user_schema n ON n.oid = relnamespace WHERE relkind IN ('v', 'm')
UNION ALL
SELECT concat_ws('|', 'function', pg_get_functiondef(p.oid))
	FROM pg_proc p JOIN user_schema n ON n.oid = pronamespace WHERE prokind IN ('f', 'p')
UNION ALL
SELECT concat_ws('|', 'enum', enumtypid::regtype, enumsortorder, enumlabel) FROM pg_enum
UNION ALL
SELECT concat_ws('|', 'statistics', pg_get_statisticsobjdef(oid)) FROM pg_statistic_ext
UNION ALL
SELECT concat_ws('|', 'sequence', seqrelid::regclass, seqstart, seqincrement, seqmin, seqmax, seqcycle) FROM pg_sequence
UNION ALL
SELECT concat_ws('|', 'schema', nspname, coalesce(nspacl::text, ''), obj_description(oid, 'pg_namespace')) FROM user_schema`
