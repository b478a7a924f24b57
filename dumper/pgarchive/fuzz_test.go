package pgarchive

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// What a Packer wrote decodes to what it read, whatever the rows, the cuts and the
// compression; the evidence is that of the slow and obvious way.
func FuzzPack(f *testing.F) {
	f.Add([]byte("one\ntwo\n"), []byte("object"), uint16(3), uint8(0))
	f.Add([]byte("\n"), []byte(""), uint16(30000), uint8(2))
	f.Add([]byte("a\tb\n\\N\n"), []byte("\x00"), uint16(9000), uint8(5))
	f.Fuzz(func(t *testing.T, row, object []byte, times uint16, how uint8) {
		longest := 32 << 10 // the places where segments are cut are dear to come to
		if how&16 != 0 {
			longest = segmentSize + 100
		}
		text := strings.Repeat(string(row), min(int(times), longest/(1+len(row))))
		if text != "" && text[len(text)-1] != '\n' {
			text += "\n"
		}
		archive := testArchive(t, []string{text, ""}, string(object), "", text)
		c := everyCompression[int(how)%len(everyCompression)]
		var objects, again []LargeObject
		p, packed := mustPack(t, archive, PackOptions{Compression: c, Workers: 1 + int(how>>6), Verify: how&32 != 0, LargeObject: func(o LargeObject) { objects = append(objects, o) }})
		checkPacked(t, p, packed, archive, objects)
		kept, same := mustPack(t, packed, PackOptions{Compression: Compression{Algorithm: KeepCompression}, Workers: 1, LargeObject: func(o LargeObject) { again = append(again, o) }})
		if !bytes.Equal(same, packed) {
			t.Fatal("the archive was changed")
		}
		checkPacked(t, kept, same, archive, again)
	})
}

// Any bytes as blocks: an error that says why, or content, and the same however they are
// cut into reads.
func FuzzBlockStream(f *testing.F) {
	algs := []string{"none", "gzip", "lz4", "zstd"}
	addGoldens(f, func(b []byte) {
		r := bytes.NewReader(b)
		h, err := ParseHead(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[len(b)-r.Len():], uint8(slices.Index(algs, h.Compression.Algorithm)), uint8(1))
	})
	f.Add(tableBlock(1, compressed(f, "zstd", "one")+compressed(f, "zstd", "two")), uint8(3), uint8(7))
	f.Add(tableBlock(1, compressed(f, "gzip", "one"), compressed(f, "gzip", "two")), uint8(1), uint8(200))
	f.Fuzz(func(t *testing.T, b []byte, alg, size uint8) {
		algorithm := algs[int(alg)%len(algs)]
		u, err := NewUnpacker(bytes.NewReader(b), Compression{Algorithm: algorithm}, 0)
		if err != nil {
			t.Fatal(err)
		}
		cut, err := NewUnpacker(&choppy{b, int(size) + 1}, Compression{Algorithm: algorithm}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for {
			st, err := u.Next()
			st2, err2 := cut.Next()
			if st != st2 || (err == nil) != (err2 == nil) {
				t.Fatalf("whole: %+v, %v; cut: %+v, %v", st, err, st2, err2)
			}
			if err != nil {
				explained(t, err)
				return
			}
			n, sum, err := drain(u)
			n2, sum2, err2 := drain(cut)
			if (err == nil) != (err2 == nil) || (err == nil && (n != n2 || sum != sum2)) {
				t.Fatalf("whole: %d bytes, %v; cut: %d bytes, %v", n, err, n2, err2)
			}
			if err != nil {
				explained(t, err)
				return
			}
		}
	})
}

func explained(t *testing.T, err error) {
	t.Helper()
	if err != io.EOF && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrIncomplete) { //nolint:errorlint // bare
		t.Fatalf("unexplained: %v", err)
	}
}

// drain reads a stream, but not all that a few bytes may claim to stand for.
func drain(r io.Reader) (n int64, sum uint32, err error) {
	h := crc32.NewIEEE()
	n, err = io.Copy(h, io.LimitReader(r, 2<<20))
	return n, h.Sum32(), err
}
