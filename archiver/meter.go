package archiver

import (
	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// TableProgress is how far one table's data have come. A total is the source's
// own estimate, 0 where it has none.
type TableProgress struct {
	Name       string // "schema.table", or "large objects"
	Rows       int64
	RowsTotal  int64
	Bytes      int64 // as text
	BytesTotal int64 // on the source's disk
}

// share is how much of the table has passed, as far as the estimates tell.
func (t TableProgress) share() float64 {
	share := 0.0
	switch {
	case t.RowsTotal > 0 && t.Rows > 0:
		share = float64(t.Rows) / float64(t.RowsTotal)
	case t.BytesTotal > 0:
		share = float64(t.Bytes) / float64(t.BytesTotal)
	}
	return min(share, 0.99) // an estimate may be short, and the end is not here yet
}

// tableMeter weighs the data blocks of a dump by what the source says of their
// tables.
type tableMeter struct {
	blocks []TableProgress // in the order of the dump
	index  map[int]int     // of a block, by its dump id
	before []int64         // weight of all blocks before
	weight int64           // of all
}

// blockWeight keeps a thousand small tables from weighing nothing.
const blockWeight = 8 << 10

func newTableMeter(head *pgarchive.Head, src *dumper.Source) *tableMeter {
	type name struct{ schema, table string }
	known := make(map[name]dumper.SourceTable, len(src.Tables))
	for _, t := range src.Tables {
		known[name{t.Schema, t.Name}] = t
	}
	promised := head.Promised()
	objectBlocks := int64(0)
	for _, e := range promised {
		if e.HoldsLargeObjects() {
			objectBlocks++
		}
	}
	m := &tableMeter{index: make(map[int]int, len(promised))}
	for i, e := range promised {
		p := TableProgress{Name: e.Namespace.S + "." + e.Tag.S}
		if e.HoldsLargeObjects() {
			p.Name, p.BytesTotal = KindLargeObjects, src.LargeObjectBytes/objectBlocks
		} else if t, ok := known[name{e.Namespace.S, e.Tag.S}]; ok {
			p.RowsTotal, p.BytesTotal = max(t.Rows, 0), t.Bytes
		}
		m.index[e.DumpID] = i
		m.blocks = append(m.blocks, p)
		m.before = append(m.before, m.weight)
		m.weight += p.BytesTotal + blockWeight
	}
	return m
}

// at is the state when this much of a block has passed.
func (m *tableMeter) at(now pgarchive.Passing) (t TableProgress, done int, share float64) {
	i, ok := m.index[now.DumpID]
	if !ok || m.weight == 0 {
		return TableProgress{}, 0, 0
	}
	t = m.blocks[i]
	t.Rows, t.Bytes = now.Rows, now.RawBytes
	share = float64(m.before[i]) + t.share()*float64(t.BytesTotal+blockWeight)
	return t, i, share / float64(m.weight)
}
