package archiver

import (
	"testing"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// Rows are told in proportion to the bytes of their block, and add up to those of the index,
// however the bytes are cut, and whoever loads them.
func TestLoadMeter(t *testing.T) {
	ix := &Index{Blocks: []IndexBlock{
		{Kind: KindTable, Schema: "s", Name: "a", Offset: 100, Length: 10, Content: &IndexContent{Rows: 7}},
		{Kind: KindTable, Schema: "s", Name: "a", Offset: 110, Length: 20, Content: &IndexContent{Rows: 1000}},
		{Kind: KindTable, Schema: "s", Name: "b", Offset: 130, Length: 30, Reason: "dumped as INSERT statements"},
		{Kind: KindLargeObjects, Name: "BLOBS", Offset: 160, Length: 40, LargeObjects: 3},
	}}
	var parts []pgarchive.ExpectedPart
	for _, b := range ix.Blocks {
		parts = append(parts, pgarchive.ExpectedPart{Offset: b.Offset, Length: b.Length})
	}
	var p Progress
	tracker := newTracker(func(now Progress) { p = now })
	m := newLoadMeter(ix, tracker)
	m.choose(parts)
	now := func() Progress {
		tracker.phase(PhaseData) // reports at once
		return p
	}
	first, second := m.worker(), m.worker()
	at := &partCursor{parts: parts[:2]}
	at.passed(first, 5)
	if p := now(); p.Rows != 3 || p.RowsTotal != 1007 || len(p.Loading) != 1 || p.Loading[0] != (TableProgress{"s.a", 3, 1007, 5, 30}) {
		t.Errorf("%+v", p)
	}
	at.passed(first, 15) // over the edge
	other := &partCursor{parts: parts[2:]}
	other.passed(second, 10)
	if p := now(); p.Rows != 507 || len(p.Loading) != 2 || p.Loading[0] != (TableProgress{"s.a", 507, 1007, 20, 30}) ||
		p.Loading[1] != (TableProgress{"s.b", 0, 0, 10, 30}) {
		t.Errorf("%+v", p)
	}
	for range 10 {
		at.passed(first, 1)
	}
	first.end()
	other.passed(second, 60)
	if p := now(); p.Rows != 1007 || len(p.Loading) != 1 || p.Loading[0] != (TableProgress{KindLargeObjects, 0, 0, 40, 40}) {
		t.Errorf("%+v", p)
	}
	second.end()
	if p := now(); p.Rows != 1007 || len(p.Loading) != 0 {
		t.Errorf("%+v", p)
	}
}
