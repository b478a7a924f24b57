package pgarchive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

var kept = PackOptions{Compression: Compression{Algorithm: KeepCompression}, Workers: 2}

// compressedArchive is an archive of two tables, orders and items, of which the first has this block.
func compressedArchive(t testing.TB, alg string, block []byte) []byte {
	t.Helper()
	head := testHead(15, testEntry(1, true, "TABLE DATA", "orders"), testEntry(2, true, "TABLE DATA", "items"))
	head.Compression = Compression{Algorithm: alg}
	return append(append(encode(t, head), block...), tableBlock(2, compressed(t, alg, "row\n"+endMark))...)
}

// What pg_restore hangs at, loses without a word or does not notice is an error where a
// compression is kept, and the error names the table.
func TestKeepHazards(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, alg := range []string{"gzip", "zstd", "lz4"} {
		rows := strings.Repeat("a row of text\n", 200_000)
		one, two := compressed(t, alg, rows), compressed(t, alg, "another\n"+endMark)
		whole := compressed(t, alg, rows+endMark)
		lying := tableBlock(1, whole)
		binary.LittleEndian.PutUint32(lying[1+2*intLen-4:], 1<<31-1) // the length of its first chunk
		behind, second := ErrIncomplete, error(nil)                  // a frame could begin there
		if alg == "gzip" {
			behind, second = ErrFormat, ErrFormat
		}
		for name, tc := range map[string]struct {
			block []byte
			kind  error // nil: fine
			want  string
		}{
			"whole":                    {tableBlock(1, whole), nil, ""},
			"in pieces":                {tableBlock(1, whole[:7], whole[7:50], whole[50:]), nil, ""},
			"two in a chunk":           {tableBlock(1, one+two), ErrFormat, "bytes follow"},
			"cut":                      {tableBlock(1, whole[:len(whole)-3]), ErrIncomplete, "is cut"},
			"garbage":                  {tableBlock(1, "garbage!"), ErrFormat, alg},
			"bytes behind":             {tableBlock(1, whole, "x"), behind, "stream"},
			"no end mark":              {tableBlock(1, one), ErrIncomplete, "end in the mark"},
			"a chunk of 2 GiB":         {lying, ErrIncomplete, "ends inside the block"},
			"a negative chunk":         {append(tableBlock(1)[:1+intLen], 1, 7, 0, 0, 0), ErrFormat, "chunk of length -7"},
			"nothing":                  {tableBlock(1), ErrIncomplete, ""},
			"a second stream or frame": {tableBlock(1, one, two), second, "bytes follow the zlib stream"},
		} {
			p, _, err := packAll(t, bytes.NewReader(compressedArchive(t, alg, tc.block)), kept)
			if tc.kind == nil {
				if err != nil {
					t.Errorf("%s, %s: %v", alg, name, err)
				}
				continue
			}
			if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "TABLE DATA public.orders") {
				t.Errorf("%s, %s: %v, want %v with %q", alg, name, err, tc.kind, tc.want)
			}
			if n, again := p.Read(make([]byte, 9)); n != 0 || again != err { //nolint:errorlint // the same
				t.Errorf("%s, %s: the error is not final: %v", alg, name, again)
			}
		}
	}
}

// Any bytes as an archive whose compression is kept: an error that says why, or the same bytes and
// an index that covers them.
func FuzzKeep(f *testing.F) {
	addGoldens(f, func(b []byte) { f.Add(b) })
	f.Add(compressedArchive(f, "zstd", tableBlock(1, compressed(f, "zstd", "a\n"+endMark))))
	f.Add(compressedArchive(f, "lz4", tableBlock(1, compressed(f, "lz4", "a\n"), compressed(f, "lz4", endMark))))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := NewPacker(bytes.NewReader(b), kept)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		h, err := p.Head()
		if err != nil {
			return // FuzzHead's
		}
		// A few bytes may claim to stand for many.
		out := &limited{most: int64(len(b))}
		if _, err := io.Copy(out, p); err != nil {
			explained(t, err)
			return
		}
		at := p.HeadSize()
		for i, e := range h.Promised() {
			block := p.Blocks()[i]
			if block.DumpID != e.DumpID || block.Offset != at || block.Content.RawBytes < 0 || block.Content.Rows < 0 {
				t.Fatalf("block %+v at %d", block, at)
			}
			at += block.Length
		}
		if at != int64(len(b)) {
			t.Fatalf("the blocks end at %d of %d", at, len(b))
		}
	})
}

// limited takes no more than was there.
type limited struct{ most int64 }

func (l *limited) Write(p []byte) (int, error) {
	if l.most -= int64(len(p)); l.most < 0 {
		return 0, errors.New("more came out than went in")
	}
	return len(p), nil
}
