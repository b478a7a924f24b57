package pgarchive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func addGoldens(f *testing.F, add func(archive []byte)) {
	files, err := filepath.Glob("testdata/*.dump")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden archives", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		add(b)
	}
	add(append(encode(f, testHead(14, testEntry(5, true, "TABLE DATA", "a"), testEntry(8, true, "BLOBS", "b"))),
		append(tableBlock(5, "one", "two"), blobsBlock(8, "lo", "")...)...))
	add(encode(f, testHead(16, testEntry(1, false, "TABLE", "t"))))
}

// A head that parses is written back byte for byte; one that does not is refused with a
// reason.
func FuzzHead(f *testing.F) {
	addGoldens(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := ParseHead(r)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrUnknownVersion) {
				t.Fatalf("unexplained: %v", err)
			}
			return
		}
		head := b[:len(b)-r.Len()]
		if got, err := h.AppendBinary(nil); err != nil || !bytes.Equal(got, head) {
			t.Fatalf("written back differently: %v", err)
		}
		if err := h.WriteList(io.Discard, time.UTC); err != nil {
			t.Fatal(err)
		}
		if len(h.EffectiveSections()) != len(h.Entries) {
			t.Fatal("sections")
		}
	})
}

// However the stream is cut into reads, the Scanner comes to one verdict; what it calls
// complete is consistent in itself and in the eyes of a Verifier.
func FuzzScanner(f *testing.F) {
	addGoldens(f, func(b []byte) { f.Add(b, uint8(1)); f.Add(b, uint8(200)) })
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		s, body, err := scanAll(bytes.NewReader(b))
		if !bytes.HasPrefix(b[min(len(b), int(s.HeadSize())):], body) {
			t.Fatal("the stream was changed")
		}
		cut := NewScanner(&choppy{b, int(size) + 1})
		_, cutErr := readBy(cut, 2*scanBuffer)
		if (err == nil) != (cutErr == nil) || (err != nil && err.Error() != cutErr.Error()) || !slices.Equal(s.Blocks(), cut.Blocks()) {
			t.Fatalf("whole: %v, cut: %v", err, cutErr)
		}
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrIncomplete) {
				t.Fatalf("unexplained: %v", err)
			}
			return
		}
		h, err := s.Head()
		if errors.Is(err, ErrUnknownVersion) {
			if !bytes.Equal(body, b) {
				t.Fatal("not passed through whole")
			}
			return
		}
		checkComplete(t, b, h, s)
	})
}

func checkComplete(t *testing.T, b []byte, h *Head, s *Scanner) {
	t.Helper()
	at := s.HeadSize()
	for i, e := range h.Promised() {
		block := s.Blocks()[i]
		if block.DumpID != e.DumpID || block.Offset != at || block.Length < 11-intLen {
			t.Fatalf("block %+v at %d", block, at)
		}
		at += block.Length
	}
	if at != int64(len(b)) {
		t.Fatalf("the blocks end at %d of %d", at, len(b))
	}
	patched, err := s.PatchedHead()
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := scanAll(io.MultiReader(bytes.NewReader(patched), bytes.NewReader(b[len(patched):])))
	if err != nil || !slices.Equal(again.Blocks(), s.Blocks()) {
		t.Fatalf("the patched archive: %v", err)
	}
	if out, err := verify(t, bytes.NewReader(b), recorded(t, b)); err != nil || !bytes.Equal(out, b) {
		t.Fatalf("verifier: %v", err)
	}
}
