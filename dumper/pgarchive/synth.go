package pgarchive

import (
	"bytes"
	"io"
	"slices"
)

// isSetting tells the three entries that pg_restore acts on while it reads the TOC. Every
// archive needs them.
func (e *Entry) isSetting() bool {
	switch e.Desc.S {
	case "ENCODING", "STDSTRINGS", "SEARCHPATH":
		return true
	}
	return false
}

// Synthesise is the head of an archive that holds some of h's entries, chosen by their
// place in h.Entries, in whatever order: they come in TOC order, behind the entries that
// every archive needs. Header and entries are h's but for two things. No offset is set, so
// that the archive can be streamed; and entries without a section of their own get the one
// that pg_restore gives them in h, which depends on what stands before them.
//
// An archive is [Head.AppendBinary]'s bytes and behind them the blocks of the chosen
// entries that have one, in the order of [Head.Promised], each from its type byte to its
// end as it stands in the archive of h. An entry may name others as dependencies that are
// not there: pg_restore takes no offence.
func (h *Head) Synthesise(chosen []int) *Head {
	order := make([]int, 0, len(chosen)+3)
	for i := range h.Entries {
		if h.Entries[i].isSetting() {
			order = append(order, i)
		}
	}
	order = append(order, chosen...)
	slices.Sort(order)
	order = slices.Compact(order)

	s := &Head{Header: h.Header, Entries: make([]Entry, len(order))}
	sections := h.EffectiveSections()
	for n, i := range order {
		e := h.Entries[i]
		e.Section = sections[i]
		if e.OffsetFlag == offsetSet {
			e.OffsetFlag, e.Offset = offsetNotSet, 0
		}
		s.Entries[n] = e
	}
	return s
}

// Archive is an archive as one stream: h and its blocks, which are read one after another,
// each only when the one before has ended in io.EOF.
func (h *Head) Archive(blocks ...io.Reader) (io.Reader, error) {
	raw, err := h.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	return io.MultiReader(append([]io.Reader{bytes.NewReader(raw)}, blocks...)...), nil
}
