package archiver

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// drillPiece is how many bytes of COPY text one task reads, about. A larger table is read in
// pieces, by several sessions at once: its sums do not depend on the order of its rows.
const drillPiece = 128 << 20

// tasksOf are what is to be done to compare a table.
func (c *comparison) tasksOf(ctx context.Context, s *dumper.CopySession, t *drilledTable) ([]drillTask, error) {
	whole := []drillTask{func(ctx context.Context, s *dumper.CopySession) error { return c.compareTable(ctx, s, t) }}
	target, relation := c.targetOf(t)
	pieces := t.bytes / cmp.Or(c.opts.piece, drillPiece)
	switch {
	case c.jobs < 2, pieces < 2, c.scratch.ServerMajor < 14: // which knows no scan of a range of a table
		return whole, nil
	case relation == nil, relation.Kind != 'r', relation.Forced, target.Condition != "", target.Query, target.Columns == nil:
		return whole, nil
	}
	pages, err := s.Pages(ctx, relation.OID)
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", t.label, err)
	}
	if pieces = min(pieces, pages); pieces < 2 {
		return whole, nil
	}
	all := &piecedTable{left: int(pieces)}
	tasks := make([]drillTask, pieces)
	for i := range tasks {
		part := target
		part.Pages.From, part.Pages.To = pages*int64(i)/pieces, pages*int64(i+1)/pieces
		if i == len(tasks)-1 {
			part.Pages.To = 0 // whatever is behind
		}
		tasks[i] = func(ctx context.Context, s *dumper.CopySession) error { return c.comparePiece(ctx, s, t, part, all) }
	}
	return tasks, nil
}

// piecedTable adds up what several sessions read of a table.
type piecedTable struct {
	mu    sync.Mutex
	left  int
	total pgarchive.Tally
}

// comparePiece reads a piece of a table; whoever reads the last one compares.
func (c *comparison) comparePiece(ctx context.Context, s *dumper.CopySession, t *drilledTable, part dumper.CopyTarget, all *piecedTable) error {
	tally, err := c.read(ctx, s.Copy, part)
	if err != nil {
		return fmt.Errorf("compare %s: %w", t.label, err)
	}
	all.mu.Lock()
	all.total.Add(tally)
	all.left--
	last := all.left == 0
	all.mu.Unlock()
	if !last {
		return nil
	}
	return c.judge(ctx, s, s.Copy, t, &all.total)
}
