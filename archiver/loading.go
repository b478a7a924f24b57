package archiver

import (
	"slices"
	"sync"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// loadMeter follows the tables of a restore. A restore does not decode what it passes on, so
// the rows that are done are those of the index, in proportion to the bytes of their block.
type loadMeter struct {
	progress *tracker

	mu          sync.Mutex
	blocks      map[int64]*loadBlock // by the offset in the dump
	rows, total int64
	workers     []*loadWorker
}

// loadBlock is one block, and how much of it has passed.
type loadBlock struct {
	table        *TableProgress // shared by the blocks of one table
	rows, length int64
	done         int64
}

// loadWorker is one run of pg_restore.
type loadWorker struct {
	meter *loadMeter
	now   *TableProgress
}

func newLoadMeter(ix *Index, progress *tracker) *loadMeter {
	m := &loadMeter{progress: progress, blocks: make(map[int64]*loadBlock, len(ix.Blocks))}
	tables := map[string]*TableProgress{}
	for i := range ix.Blocks {
		b := &ix.Blocks[i]
		name := b.Name
		if b.Schema != "" {
			name = b.Schema + "." + b.Name
		}
		if b.Kind == KindLargeObjects {
			name = KindLargeObjects
		}
		t := tables[name]
		if t == nil {
			t = &TableProgress{Name: name}
			tables[name] = t
		}
		block := &loadBlock{table: t, length: b.Length}
		if b.Content != nil {
			block.rows = b.Content.Rows
		}
		t.RowsTotal += block.rows
		t.BytesTotal += b.Length
		m.blocks[b.Offset] = block
	}
	return m
}

// choose counts the parts among what is to be loaded.
func (m *loadMeter) choose(parts []pgarchive.ExpectedPart) {
	m.mu.Lock()
	for _, p := range parts {
		m.total += m.blocks[p.Offset].rows
	}
	m.mu.Unlock()
	m.report(false)
}

// worker is told of one run of pg_restore; a nil meter's does nothing.
func (m *loadMeter) worker() *loadWorker {
	w := &loadWorker{meter: m}
	if m != nil {
		m.mu.Lock()
		m.workers = append(m.workers, w)
		m.mu.Unlock()
	}
	return w
}

// passed counts n bytes of the block at offset.
func (w *loadWorker) passed(offset, n int64) {
	m := w.meter
	if m == nil {
		return
	}
	m.mu.Lock()
	turned := false
	if b := m.blocks[offset]; b != nil {
		turned = w.now != b.table
		w.now = b.table
		before := b.loaded()
		b.done += n
		rows := b.loaded() - before
		m.rows += rows
		b.table.Rows += rows
		b.table.Bytes += n
	}
	m.mu.Unlock()
	m.report(turned)
}

// loaded are the rows in the bytes that have passed.
func (b *loadBlock) loaded() int64 {
	if b.done >= b.length {
		return b.rows
	}
	return int64(float64(b.rows) * float64(b.done) / float64(b.length))
}

// end takes the worker out of the list.
func (w *loadWorker) end() {
	m := w.meter
	if m == nil {
		return
	}
	m.mu.Lock()
	m.workers = slices.DeleteFunc(m.workers, func(o *loadWorker) bool { return o == w })
	m.mu.Unlock()
	m.report(false)
}

func (m *loadMeter) report(now bool) {
	m.progress.update(now, func(s *Progress) {
		m.mu.Lock()
		defer m.mu.Unlock()
		s.Rows, s.RowsTotal, s.Loading = m.rows, m.total, nil
		for _, w := range m.workers {
			if w.now != nil && !slices.ContainsFunc(s.Loading, func(t TableProgress) bool { return t.Name == w.now.Name }) {
				s.Loading = append(s.Loading, *w.now)
			}
		}
	})
}

// partCursor tells to which parts the bytes of a stream belong that has them one after another.
type partCursor struct {
	parts []pgarchive.ExpectedPart
	done  int64 // of parts[0]
}

// passed takes the next n bytes.
func (c *partCursor) passed(w *loadWorker, n int) {
	for left := int64(n); left > 0 && len(c.parts) > 0; {
		k := min(left, c.parts[0].Length-c.done)
		w.passed(c.parts[0].Offset, k)
		left -= k
		if c.done += k; c.done == c.parts[0].Length {
			c.parts, c.done = c.parts[1:], 0
		}
	}
}
