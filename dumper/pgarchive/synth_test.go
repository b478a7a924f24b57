package pgarchive

import (
	"bytes"
	"io"
	"reflect"
	"slices"
	"testing"
)

// goldenHead is the head of a golden archive and its blocks.
func goldenHead(t testing.TB, name string) (*Head, []Block, []byte) {
	t.Helper()
	archive := golden(t, name+".dump")
	s := mustScan(t, archive)
	head, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	return head, s.Blocks(), archive
}

// Every block, and all of them, make an archive of their own that is complete.
func TestSynthesise(t *testing.T) {
	eachGolden(t, func(t *testing.T, name string, _ []byte) {
		head, blocks, archive := goldenHead(t, name)
		sections := head.EffectiveSections()
		place := map[int]int{}
		for i := range head.Entries {
			place[head.Entries[i].DumpID] = i
		}
		build := func(chosen []int, blocks ...Block) *Head {
			t.Helper()
			var readers []io.Reader
			for _, b := range blocks {
				readers = append(readers, bytes.NewReader(archive[b.Offset:b.Offset+b.Length]))
			}
			r, err := head.Synthesise(chosen).Archive(readers...)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			s := mustScan(t, raw)
			for i, b := range s.Blocks() {
				if b.DumpID != blocks[i].DumpID || b.SHA256 != blocks[i].SHA256 {
					t.Errorf("block %d is %+v, want %+v", i, b, blocks[i])
				}
			}
			made, err := s.Head()
			if err != nil {
				t.Fatal(err)
			}
			return made
		}
		for _, b := range blocks {
			made := build([]int{place[b.DumpID]}, b)
			if n := len(made.Entries); n != 4 || made.Entries[3].DumpID != b.DumpID || made.Header != head.Header {
				t.Errorf("%d entries for one block, header %+v", n, made.Header)
			}
		}
		all := make([]int, len(head.Entries))
		for i := range all {
			all[i] = len(all) - 1 - i // whatever the order they are given in
		}
		made := build(append(all, all...), blocks...)
		if len(made.Entries) != len(head.Entries) {
			t.Fatalf("%d entries of %d", len(made.Entries), len(head.Entries))
		}
		for i := range made.Entries {
			got, want := made.Entries[i], head.Entries[i]
			if got.Section != sections[i] {
				t.Errorf("%s is in section %d, pg_restore sees it in %d", got.Label(), got.Section, sections[i])
			}
			got.Section, want.Section = 0, 0
			if want.OffsetFlag == offsetSet {
				want.OffsetFlag, want.Offset = offsetNotSet, 0
			}
			if !slices.Equal(got.Dependencies, want.Dependencies) {
				t.Errorf("%s depends on %v, not %v", got.Label(), got.Dependencies, want.Dependencies)
			}
			got.Dependencies, want.Dependencies = nil, nil
			if !reflect.DeepEqual(got, want) {
				t.Errorf("entry %+v became %+v", want, got)
			}
		}
	})
}

// Offsets would send pg_restore to where the blocks were.
func TestSynthesiseForgetsOffsets(t *testing.T) {
	for _, name := range []string{"13-gzip", "15-gzip", "17-gzip", "18-gzip"} {
		var raw [2][]byte
		for i, suffix := range []string{".dump", ".file"} {
			head, err := ParseHead(bytes.NewReader(golden(t, name+suffix)))
			if err != nil {
				t.Fatal(err)
			}
			head.Created = [7]int{}
			var chosen []int
			for i := range head.Entries {
				chosen = append(chosen, i)
			}
			if raw[i], err = head.Synthesise(chosen).AppendBinary(nil); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(raw[0], raw[1]) {
			t.Errorf("%s: differs from what is made of the archive without offsets", name)
		}
	}
}

// Filtering must not move a comment into the section of what then stands before it.
func TestSynthesiseKeepsSections(t *testing.T) {
	for _, name := range []string{"13-gzip", "15-gzip", "17-gzip", "18-gzip"} {
		head, _, _ := goldenHead(t, name)
		var chosen []int
		for i := range head.Entries {
			if e := &head.Entries[i]; e.Desc.S == "SEQUENCE SET" || e.Tag.S == "INDEX customer_pkey" {
				chosen = append(chosen, i)
			}
		}
		made := head.Synthesise(chosen)
		last := made.Entries[len(made.Entries)-1]
		if last.Desc.S != "COMMENT" || last.Section != SectionPostData || made.EffectiveSections()[len(made.Entries)-1] != SectionPostData {
			t.Errorf("%s: %s is in section %d", name, last.Label(), last.Section)
		}
	}
}
