package archiver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// comparison holds a restored database against its archive.
type comparison struct {
	*drill
	jobs int

	relations map[[2]string]*dumper.Relation
	byOID     map[string]*dumper.Relation

	schema, schemaReason string
	sequences            int

	mu          sync.Mutex
	differences []DrillDifference
	tables      int
	rows, bytes int64
	objects     int
}

// run compares everything. Its error is what kept it from doing so; what differs is in
// c.differences.
func (c *comparison) run(ctx context.Context) error {
	c.restore.progress.phase(PhaseSchema)
	if err := c.compareSchema(ctx); err != nil {
		return err
	}
	var total int64
	for _, t := range c.plan.tables {
		total += t.bytes
	}
	for _, o := range c.plan.objects {
		total += o.RawBytes
	}
	c.restore.progress.restart(total)
	c.restore.progress.tables(0, len(c.plan.tables))
	c.restore.progress.phase(PhaseCompare)
	first, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = first.Close(context.WithoutCancel(ctx)) }()
	if err := c.readRelations(ctx, first); err != nil {
		return err
	}
	if err := c.compareSequences(ctx, first); err != nil {
		return err
	}
	if err := c.listObjects(ctx, first); err != nil {
		return err
	}
	if err := c.compareContents(ctx, first); err != nil {
		return err
	}
	slices.SortFunc(c.differences, func(a, b DrillDifference) int {
		return cmp.Or(cmp.Compare(kindOrder(a.Kind), kindOrder(b.Kind)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.What, b.What))
	})
	return nil
}

// kindOrder puts first what hurts most.
func kindOrder(kind string) int {
	return slices.Index([]string{DiffRestore, DiffTable, DiffLargeObject, DiffSequence, DiffSchema}, kind)
}

func (c *comparison) open(ctx context.Context) (*dumper.CopySession, error) {
	s, err := dumper.OpenCopySession(ctx, c.scratch.Conn, c.head, c.dumpArgs())
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	return s, nil
}

func (c *comparison) differs(d DrillDifference) {
	// Names come in the archive's encoding, whatever that is.
	for _, s := range []*string{&d.Name, &d.What, &d.Key} {
		*s = strings.ToValidUTF8(*s, "?")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.differences = append(c.differences, d)
}

func (c *comparison) readRelations(ctx context.Context, s *dumper.CopySession) error {
	all, err := s.Relations(ctx)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	c.relations, c.byOID = map[[2]string]*dumper.Relation{}, map[string]*dumper.Relation{}
	for i := range all {
		c.relations[[2]string{all[i].Schema, all[i].Name}] = &all[i]
		c.byOID[all[i].OID] = &all[i]
	}
	return nil
}

// drillTask is a piece of work for whoever has a session.
type drillTask func(context.Context, *dumper.CopySession) error

// compareContents compares tables and large objects, several at once; s answers what is asked
// before.
func (c *comparison) compareContents(ctx context.Context, s *dumper.CopySession) error {
	var tasks []drillTask
	for _, t := range c.plan.tables {
		some, err := c.tasksOf(ctx, s, t)
		if err != nil {
			return err
		}
		tasks = append(tasks, some...)
	}
	for batch := range objectBatches(c.plan.objects) {
		tasks = append(tasks, func(ctx context.Context, s *dumper.CopySession) error { return c.compareObjects(ctx, s, batch) })
	}
	queue := make(chan drillTask, len(tasks))
	for _, task := range tasks {
		queue <- task
	}
	close(queue)
	workers, ctx := errgroup.WithContext(ctx)
	for range min(c.jobs, len(tasks)) {
		workers.Go(func() error {
			own, err := c.open(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = own.Close(context.WithoutCancel(ctx)) }()
			for task := range queue {
				if err := task(ctx, own); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return workers.Wait()
}

// compareTable reads a table and compares its sums.
func (c *comparison) compareTable(ctx context.Context, s *dumper.CopySession, t *drilledTable) error {
	target, relation := c.targetOf(t)
	switch {
	case relation == nil:
		rows, none := t.rows, int64(0)
		c.differs(DrillDifference{Kind: DiffTable, Name: t.label, What: "it is not there", RowsExpected: &rows, RowsFound: &none})
		return nil
	case relation.Kind == 'f':
		c.mu.Lock()
		c.plan.miss("foreign tables", "their rows lie elsewhere")
		c.mu.Unlock()
		return nil
	}
	copied := s.Copy
	tally, err := c.read(ctx, copied, target)
	if refused := (*dumper.ReadError)(nil); errors.As(err, &refused) && refused.Code == "42501" && relation.Forced {
		copied = s.CopyForced
		tally, err = c.read(ctx, copied, target)
	}
	if err != nil {
		return c.unread(t, err)
	}
	return c.judge(ctx, s, copied, t, tally)
}

// judge compares what was read of a table, in whatever pieces, with what was archived.
func (c *comparison) judge(ctx context.Context, s *dumper.CopySession, copied copying, t *drilledTable, tally *pgarchive.Tally) error {
	target, relation := c.targetOf(t)
	ways := []copying{copied}
	if !t.equals(tally) && !t.countOnly {
		// bytea_output is no setting of pg_dump's: the source may have had the other one.
		other := otherBytea(s, copied)
		again, err := c.read(ctx, other, target)
		if err != nil {
			return fmt.Errorf("compare %s: %w", t.label, err)
		}
		if again.Sums() != tally.Sums() { // there are such values
			ways = append(ways, other)
		}
		if t.equals(again) {
			tally = again
		}
	}
	c.count(tally)
	if t.equals(tally) {
		return nil
	}
	found := tally.Rows()
	diff := DrillDifference{Kind: DiffTable, Name: t.label, RowsExpected: &t.rows, RowsFound: &found}
	diff.What = fmt.Sprintf("%s expected, %d found", countedNoun(t.rows, "row"), found)
	if found == t.rows {
		diff.What = countedNoun(found, "row") + " as expected, the content differs"
	}
	if !t.countOnly {
		if err := c.locate(ctx, s, ways, t, target, relation, &diff); err != nil {
			return err
		}
	}
	c.differs(diff)
	return nil
}

// count adds a table that was compared.
func (c *comparison) count(tally *pgarchive.Tally) {
	c.mu.Lock()
	c.tables++
	c.rows += tally.Rows()
	c.bytes += tally.Bytes()
	n := c.tables
	c.mu.Unlock()
	c.restore.progress.tables(n, len(c.plan.tables))
}

func (t *drilledTable) equals(found *pgarchive.Tally) bool {
	return found.Rows() == t.rows && (t.countOnly || found.Sums() == t.sums)
}

// targetOf completes what is to be read by what the restored database says of it.
func (c *comparison) targetOf(t *drilledTable) (dumper.CopyTarget, *dumper.Relation) {
	target := t.target
	relation := c.relations[[2]string{target.Schema, target.Table}]
	if relation == nil {
		return target, nil
	}
	target.Condition = relation.Condition
	if relation.Kind == 'p' {
		target.Query = true
		target.Without = c.besides(relation)
	}
	return target, relation
}

// besides are the partitions of root, at whatever depth, that are loaded by themselves.
func (c *comparison) besides(root *dumper.Relation) (oids []string) {
	for _, t := range c.plan.tables {
		r := c.relations[[2]string{t.target.Schema, t.target.Table}]
		for up := r; up != nil && up.Parent != ""; {
			if up = c.byOID[up.Parent]; up == root {
				oids = append(oids, r.OID)
			}
		}
	}
	return oids
}

// copying is a way to read a table.
type copying func(context.Context, io.Writer, dumper.CopyTarget) error

func (c *comparison) read(ctx context.Context, copied copying, target dumper.CopyTarget) (*pgarchive.Tally, error) {
	tally := new(pgarchive.Tally)
	err := copied(ctx, countedWriter{tally, c.restore.progress}, target)
	if err == nil && !tally.Whole() {
		err = errors.New("the server sent half a row")
	}
	return tally, err
}

// countedWriter reports what passes as progress.
type countedWriter struct {
	*pgarchive.Tally
	progress *tracker
}

func (w countedWriter) Write(p []byte) (int, error) {
	w.progress.read(len(p))
	return w.Tally.Write(p)
}

// unread makes a table that cannot be read a difference where the table is to blame, and an
// error where the server is.
func (c *comparison) unread(t *drilledTable, err error) error {
	var refused *dumper.ReadError
	if !errors.As(err, &refused) {
		return fmt.Errorf("compare %s: %w", t.label, err)
	}
	switch refused.Code {
	case "42P01", "42703", "3F000": // no such table, column or schema
		rows, none := t.rows, int64(0)
		c.differs(DrillDifference{Kind: DiffTable, Name: t.label, What: oneLine(refused.Err), RowsExpected: &rows, RowsFound: &none})
		return nil
	}
	return fmt.Errorf("compare %s: %w", t.label, err)
}

// otherBytea is a way to read a table with the other form of bytea.
func otherBytea(s *dumper.CopySession, copied copying) copying {
	return func(ctx context.Context, w io.Writer, t dumper.CopyTarget) error {
		if err := s.SwitchBytea(ctx); err != nil {
			return err
		}
		return errors.Join(copied(ctx, w, t), s.SwitchBytea(ctx))
	}
}

// compareSequences compares where sequences stand, many at once.
func (c *comparison) compareSequences(ctx context.Context, s *dumper.CopySession) error {
	for batch := range slices.Chunk(c.plan.sequences, 200) {
		names := make([]dumper.SequenceName, len(batch))
		for i, q := range batch {
			names[i] = q.SequenceName
		}
		values, err := s.Sequences(ctx, names)
		if refused := (*dumper.ReadError)(nil); errors.As(err, &refused) {
			values, err = c.oneByOne(ctx, s, names)
		}
		if err != nil {
			return fmt.Errorf("compare sequences: %w", err)
		}
		for i, q := range batch {
			c.compareSequence(q, values[i])
		}
		c.sequences += len(batch)
	}
	return nil
}

// oneByOne reads sequences of which one cannot be read; that one has no value.
func (c *comparison) oneByOne(ctx context.Context, s *dumper.CopySession, names []dumper.SequenceName) ([]dumper.SequenceValue, error) {
	all := make([]dumper.SequenceValue, len(names))
	for i := range names {
		one, err := s.Sequences(ctx, names[i:i+1])
		var refused *dumper.ReadError
		switch {
		case err == nil:
			all[i] = one[0]
		case errors.As(err, &refused) && (refused.Code == "42P01" || refused.Code == "3F000"):
		default:
			return nil, err
		}
	}
	return all, nil
}

func (c *comparison) compareSequence(q drilledSequence, found dumper.SequenceValue) {
	if found == q.value {
		return
	}
	what := fmt.Sprintf("its value is %s, want %s", found.Value, q.value.Value)
	switch {
	case found.Value == "":
		what = "it is not there"
	case found.Value == q.value.Value:
		what = fmt.Sprintf("its value is %s, called: %v, want called: %v", found.Value, found.Called, q.value.Called)
	}
	c.differs(DrillDifference{Kind: DiffSequence, Name: q.Schema + "." + q.Name, What: what})
}

// listObjects compares which large objects there are.
func (c *comparison) listObjects(ctx context.Context, s *dumper.CopySession) error {
	list, err := s.LargeObjects(ctx)
	if err != nil {
		return fmt.Errorf("compare large objects: %w", err)
	}
	there := make(map[string]bool, len(list))
	for _, oid := range list {
		there[oid] = true
	}
	c.plan.objects = slices.DeleteFunc(slices.Clone(c.plan.objects), func(o IndexObject) bool {
		oid := strconv.FormatUint(uint64(o.OID), 10)
		if there[oid] {
			delete(there, oid)
			return false
		}
		c.differs(DrillDifference{Kind: DiffLargeObject, Name: oid, What: "it is not there"})
		return true
	})
	if c.plan.allObjects {
		for oid := range there {
			c.differs(DrillDifference{Kind: DiffLargeObject, Name: oid, What: "it is there, and not in the archive"})
		}
	}
	return nil
}

const (
	objectPiece = 1 << 20 // read at once of a large object
	batchBytes  = 4 << 20
	batchLength = 500
)

// objectBatches cuts the large objects into what is a task each.
func objectBatches(all []IndexObject) func(func([]IndexObject) bool) {
	return func(yield func([]IndexObject) bool) {
		for from := 0; from < len(all); {
			to, size := from, int64(0)
			for to < len(all) && to-from < batchLength && size < batchBytes {
				size += all[to].RawBytes
				to++
			}
			if !yield(all[from:to]) {
				return
			}
			from = to
		}
	}
}

func (c *comparison) compareObjects(ctx context.Context, s *dumper.CopySession, batch []IndexObject) error {
	for _, o := range batch {
		what, err := c.compareObject(ctx, s, o)
		if err != nil {
			return fmt.Errorf("compare large object %d: %w", o.OID, err)
		}
		if what != "" {
			c.differs(DrillDifference{Kind: DiffLargeObject, Name: strconv.FormatUint(uint64(o.OID), 10), What: what})
		}
	}
	c.mu.Lock()
	c.objects += len(batch)
	c.mu.Unlock()
	return nil
}

// compareObject reads one byte more than there should be, so that a longer one shows.
func (c *comparison) compareObject(ctx context.Context, s *dumper.CopySession, o IndexObject) (string, error) {
	h := sha256.New()
	var n int64
	for {
		want := int(min(o.RawBytes+1-n, objectPiece))
		piece, err := s.LargeObject(ctx, o.OID, n, want)
		if err != nil {
			return "", err
		}
		h.Write(piece)
		n += int64(len(piece))
		c.restore.progress.read(len(piece))
		if n > o.RawBytes {
			return fmt.Sprintf("it is longer than the %d bytes that were archived", o.RawBytes), nil
		}
		if len(piece) < want {
			break
		}
	}
	switch {
	case n < o.RawBytes:
		return fmt.Sprintf("it has %d bytes, %d were archived", n, o.RawBytes), nil
	case [sha256.Size]byte(h.Sum(nil)) != o.SHA256:
		return fmt.Sprintf("its %d bytes differ from what was archived", n), nil
	}
	return "", nil
}
