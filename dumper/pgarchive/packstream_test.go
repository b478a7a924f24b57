package pgarchive

import (
	"bytes"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
)

// testArchive has one table per COPY text and one block with the large objects.
func testArchive(t testing.TB, texts []string, objects ...string) []byte {
	t.Helper()
	head := testHead(14)
	var blocks []byte
	for i, text := range texts {
		head.Entries = append(head.Entries, testEntry(i+1, true, "TABLE DATA", fmt.Sprint("t", i)))
		blocks = appendInt(append(blocks, typeTable), i+1)
		for row := range strings.Lines(text + endMark[:3]) { // a chunk per row
			blocks = append(appendInt(blocks, len(row)), row...)
		}
		blocks = appendInt(append(appendInt(blocks, 2), endMark[3:]...), 0)
	}
	if objects != nil {
		id := len(texts) + 1
		head.Entries = append(head.Entries, testEntry(id, true, "BLOBS", "lo"))
		blocks = appendInt(append(blocks, typeBlobs), id)
		for i, o := range objects {
			oid := 16000 + i
			if i == 1 {
				oid = -1294967296 // 3000000000 as pg_dump writes it
			}
			blocks = appendInt(blocks, oid)
			if o != "" {
				blocks = append(appendInt(blocks, len(o)), o...)
			}
			blocks = appendInt(blocks, 0)
		}
		blocks = appendInt(blocks, 0)
	}
	return append(encode(t, head), blocks...)
}

// textOf is COPY text of exactly n bytes: rows of random lengths, the last one of what is left.
func textOf(rng *rand.Rand, n, longest int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefgh\t0123456"[rng.IntN(1+rng.IntN(16))]
	}
	for at := 0; n > 0; {
		at += rng.IntN(longest)
		if at >= n {
			b[n-1] = '\n'
			break
		}
		b[at] = '\n'
		at++
	}
	return string(b)
}

// Lengths around the places where segments are cut, rows longer than a segment, and the
// end mark across the cut.
func TestPackSegmentBoundaries(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	var texts, objects []string
	for d := -7; d <= 7; d++ {
		texts = append(texts, textOf(rng, segmentSize+d, 300))
	}
	const tail = len(endMark)
	texts = append(texts, "", "\n", "\n\n\n", strings.Repeat("x", 3*segmentSize+17)+"\nshort\n", strings.Repeat("\n", segmentSize+1),
		strings.Repeat("y", segmentSize-1)+"\n", strings.Repeat("z", segmentSize)+"\n", "short\n"+strings.Repeat("w", 2*segmentSize)+"\n",
		textOf(rng, 2*segmentSize-tail, 100), textOf(rng, 2*segmentSize, 100), textOf(rng, 2*segmentSize+tail, 3*segmentSize))
	noise := make([]byte, 2*segmentSize+3*tail)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for _, n := range []int{0, 1, segmentSize - 1, segmentSize, segmentSize + tail - 1, segmentSize + tail, segmentSize + tail + 1, 2 * segmentSize, 2*segmentSize + tail, 0} {
		objects = append(objects, string(noise[:n]))
	}
	archive := testArchive(t, texts, objects...)
	for _, c := range []Compression{{"none", 0}, {"gzip", 1}, {"gzip", 6}, {"gzip", 7}, {"zstd", 1}, {"lz4", 0}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			var seen []LargeObject
			p, packed := mustPack(t, archive, PackOptions{Compression: c, Workers: 3, Verify: true, LargeObject: func(o LargeObject) { seen = append(seen, o) }})
			checkPacked(t, p, packed, archive, seen)
			// The bytes do not depend on who was quicker.
			if _, alone := mustPack(t, archive, PackOptions{Compression: c, Workers: 1}); !bytes.Equal(alone, packed) {
				t.Error("one worker writes other bytes than three")
			}
			// And back: the decoder beside the stream finds the same.
			var again []LargeObject
			kept, same := mustPack(t, packed, PackOptions{Compression: Compression{Algorithm: KeepCompression}, Workers: 2, LargeObject: func(o LargeObject) { again = append(again, o) }})
			if !bytes.Equal(same, packed) {
				t.Error("the archive was changed")
			}
			checkPacked(t, kept, same, archive, again)
		})
	}
}

func TestPackEmptyLargeObject(t *testing.T) {
	_, packed := mustPack(t, testArchive(t, nil, ""), PackOptions{Compression: Compression{"gzip", 6}})
	if want := "\x78\x9c\x01\x00\x00\xff\xff\x00\x00\x00\x01"; !strings.Contains(string(packed), want) {
		t.Error("an empty large object is not the shortest zlib stream")
	}
}

// The head comes out with offsets unset though the source, a file, had them.
func TestPackSourceWithOffsets(t *testing.T) {
	archive := golden(t, "15-none.dump")
	patched, err := mustScan(t, archive).PatchedHead()
	if err != nil {
		t.Fatal(err)
	}
	withOffsets := slices.Concat(patched, archive[len(patched):])
	_, want := mustPack(t, archive, PackOptions{Compression: Compression{"gzip", 6}})
	p, got := mustPack(t, withOffsets, PackOptions{Compression: Compression{"gzip", 6}})
	if !bytes.Equal(got, want) {
		t.Error("offsets in the source show in the result")
	}
	checkPacked(t, p, got, archive, nilObjects(t, archive))
}

func nilObjects(t *testing.T, archive []byte) (objects []LargeObject) {
	mustPack(t, archive, PackOptions{Compression: Compression{"none", 0}, LargeObject: func(o LargeObject) { objects = append(objects, o) }})
	return objects
}

func TestPackOptions(t *testing.T) {
	for want, c := range map[string]Compression{
		`"brotli" is unknown`: {"brotli", 1}, `"" is unknown`: {}, "gzip:10; it goes from 1 to 9": {"gzip", 10}, "gzip:-1": {"gzip", -1},
		"zstd:20; it goes from 1 to 19": {"zstd", 20}, "lz4 takes no level": {"lz4", 3}, "none takes no level": {"none", 1},
	} {
		if _, err := NewPacker(nil, PackOptions{Compression: c}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	old := testHead(13, testEntry(1, true, "TABLE DATA", "t"))
	archive := append(encode(t, old), tableBlock(1, endMark)...)
	if _, _, err := packAll(t, bytes.NewReader(archive), PackOptions{Compression: Compression{"zstd", 0}}); err == nil || !strings.Contains(err.Error(), "use gzip") {
		t.Errorf("zstd from 1.13: %v", err)
	}
	p, packed := mustPack(t, archive, PackOptions{Compression: Compression{"gzip", 0}})
	checkPacked(t, p, packed, archive, nil)
}

// A COPY that does not end in its mark was cut, whatever the framing says.
func TestPackEndMark(t *testing.T) {
	long := strings.Repeat("row\n", segmentSize/4)
	for payload, want := range map[string]string{
		"":                                   "TABLE DATA public.orders does not end in the mark",
		"row\n":                              "TABLE DATA public.orders does not end in the mark",
		"row\n\\.\n\n":                       "TABLE DATA public.orders does not end in the mark",
		"row\n\\.\n\n\n\n":                   "TABLE DATA public.orders does not end in the mark",
		"row\n\\N\n\n\n":                     "TABLE DATA public.orders does not end in the mark",
		"row\\.\n\n\n":                       "TABLE DATA public.orders has a last row without an end",
		long + "row":                         "TABLE DATA public.orders does not end in the mark",
		long[:len(long)-4] + "row" + endMark: "TABLE DATA public.orders has a last row without an end",
		long[:len(long)-1] + endMark:         "TABLE DATA public.orders has a last row without an end",
		long:                                 "TABLE DATA public.orders does not end in the mark",
	} {
		block := tableBlock(1, payload)
		if payload == "" {
			block = tableBlock(1)
		}
		archive := append(encode(t, testHead(14, testEntry(1, true, "TABLE DATA", "orders"))), block...)
		for _, alg := range []string{"gzip", KeepCompression} {
			_, _, err := packAll(t, bytes.NewReader(archive), PackOptions{Compression: Compression{Algorithm: alg}})
			if wantIncomplete(t, fmt.Sprintf("%s %.20q", alg, payload), err); !strings.Contains(err.Error(), want) {
				t.Errorf("%s %.20q: %v, want %q", alg, payload, err, want)
			}
		}
	}
}

// What is wrong with a stream is told as a Scanner tells it, wherever it is cut.
func TestPackIncomplete(t *testing.T) {
	defer goleak.VerifyNone(t)
	archive := golden(t, "15-none.dump")
	check := func(what string, stream []byte) {
		t.Helper()
		for _, alg := range []string{"gzip", KeepCompression} {
			_, _, want := scanAll(bytes.NewReader(stream))
			p, _, err := packAll(t, bytes.NewReader(stream), PackOptions{Compression: Compression{Algorithm: alg}, Workers: 2})
			if err == nil || err.Error() != want.Error() {
				t.Fatalf("%s, %s: %v, a Scanner says %v", alg, what, err, want)
			}
			if n, again := p.Read(make([]byte, 9)); n != 0 || again != err { //nolint:errorlint // the same
				t.Fatalf("%s: the error is not final: %v", what, again)
			}
			if _, err := p.PatchedHead(); err == nil {
				t.Fatalf("%s: there is a patched head", what)
			}
		}
	}
	for n := 0; n < len(archive); n += 61 {
		check(fmt.Sprint("cut at ", n), archive[:n])
	}
	for _, b := range mustScan(t, archive).Blocks() {
		check("cut before a block", archive[:b.Offset])
		check("cut in a block's type", archive[:b.Offset+1])
		check("cut before a block's end", archive[:b.Offset+b.Length-1])
	}
	check("trailing", append(bytes.Clone(archive), 1))
	check("twice", append(bytes.Clone(archive), archive...))
}

func TestPackSourceErrors(t *testing.T) {
	defer goleak.VerifyNone(t)
	archive := testArchive(t, []string{strings.Repeat("a row of text\n", 400_000), "x\n"}, "object")
	for _, failure := range []error{errors.New("pg_dump exited 1"), io.ErrUnexpectedEOF, fmt.Errorf("wrapped: %w", io.EOF)} {
		for _, at := range []int{0, 5, 300, 5000, 1 << 20, 5 << 20, len(archive) - 1, len(archive)} {
			for _, alg := range []string{"gzip", "none", KeepCompression} {
				r := io.MultiReader(bytes.NewReader(archive[:at]), iotest.ErrReader(failure))
				_, _, err := packAll(t, r, PackOptions{Compression: Compression{Algorithm: alg}, Workers: 2})
				if err != failure { //nolint:errorlint // unchanged
					t.Errorf("%s, %v at %d: got %v", alg, failure, at, err)
				}
			}
		}
	}
}

// A reader that is abandoned anywhere leaves no goroutine, nor does one that failed and was
// never closed.
func TestPackAbandoned(t *testing.T) {
	defer goleak.VerifyNone(t)
	archive := testArchive(t, []string{strings.Repeat("a row of text\n", 600_000)}, "object")
	for _, alg := range []string{"gzip", "zstd", "lz4", "none", KeepCompression} {
		for _, read := range []int64{0, 1, 1000, 1 << 19} {
			p, err := NewPacker(bytes.NewReader(archive), PackOptions{Compression: Compression{Algorithm: alg}, Workers: 2})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, p, read); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			for range 2 {
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.Copy(io.Discard, p); read > 0 && read < 1000 && !errors.Is(err, ErrClosed) {
				t.Errorf("%s: read after Close: %v", alg, err)
			}
		}
		// Not closed, but the source failed.
		p, err := NewPacker(io.MultiReader(bytes.NewReader(archive[:len(archive)/2]), iotest.ErrReader(errors.New("gone"))), PackOptions{Compression: Compression{Algorithm: alg}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, p); err == nil || err.Error() != "gone" {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

// A source that blocks does not block Close; its goroutine ends with the source.
func TestPackCloseWhileSourceBlocks(t *testing.T) {
	defer goleak.VerifyNone(t)
	archive := testArchive(t, []string{strings.Repeat("a row of text\n", 600_000)})
	for _, alg := range []string{"gzip", KeepCompression} {
		r, w := io.Pipe()
		p, err := NewPacker(r, PackOptions{Compression: Compression{Algorithm: alg}})
		if err != nil {
			t.Fatal(err)
		}
		go w.Write(archive[:2<<20]) //nolint:errcheck // and then nothing more
		if _, err := io.CopyN(io.Discard, p, 10); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
}

func TestPackUnknownVersion(t *testing.T) {
	stream := "PGDMP\x01\x11\x00" + strings.Repeat("whatever comes then", 10_000)
	for _, alg := range []string{"gzip", KeepCompression} {
		p, err := NewPacker(strings.NewReader(stream), PackOptions{Compression: Compression{Algorithm: alg}})
		if err != nil {
			t.Fatal(err)
		}
		if head, err := p.Head(); !errors.Is(err, ErrUnknownVersion) || head == nil || head.Version != (Version{1, 17, 0}) {
			t.Errorf("%+v, %v", head, err)
		}
		if all, err := io.ReadAll(p); err != nil || string(all) != stream || p.HeadSize() != 0 || p.HeadBytes() != nil || len(p.Blocks()) != 0 {
			t.Errorf("%d of %d bytes came through: %v", len(all), len(stream), err)
		}
		if _, err := p.PatchedHead(); !errors.Is(err, ErrUnknownVersion) {
			t.Error(err)
		}
	}
}

// breaker spoils what the codec of a worker wrote.
type breaker struct {
	codec
	spoil func(body []byte) []byte
}

func (b breaker) encode(s *segment) error {
	err := b.codec.encode(s)
	s.body = b.spoil(bytes.Clone(s.body))
	return err
}

func TestPackVerifyFindsWhatACodecBroke(t *testing.T) {
	content := []byte(textOf(rand.New(rand.NewPCG(3, 3)), 300_000, 80))
	for _, c := range []Compression{{"gzip", 1}, {"gzip", 6}, {"gzip", 9}, {"zstd", 3}, {"lz4", 0}} {
		for name, spoil := range map[string]func([]byte) []byte{
			"nothing":  func(b []byte) []byte { return b },
			"bit":      func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
			"cut":      func(b []byte) []byte { return b[:len(b)-9] }, // 5 might be an empty block, which nobody needs
			"half":     func(b []byte) []byte { return b[:len(b)/2] },
			"extended": func(b []byte) []byte { return append(b, lastStored...) },
		} {
			w, err := c.newWorker(true)
			if err != nil {
				t.Fatal(err)
			}
			w.codec = breaker{w.codec, spoil}
			line := newPipeline([]worker{w}, c.window(), true)
			feed := &cutter{pipeline: line, begins: true}
			feed.begin(stream{kind: kindObject, dumpID: 77})
			feed.add(content)
			feed.end()
			feed.close()
			s := line.next()
			if name == "nothing" && s.err != nil || name != "nothing" && (s.err == nil || !strings.Contains(s.err.Error(), "dump ID 77")) {
				if name == "extended" && c.Algorithm != "gzip" {
					continue // garbage behind a frame is the unpacker's to find
				}
				t.Errorf("%v, %s: %v", c, name, s.err)
			}
		}
	}
}

func TestCombineAdler(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(rng.Uint32() | 0xf0)
	}
	for range 200 {
		cut, end := rng.IntN(len(data)), rng.IntN(len(data))
		cut, end = min(cut, end), max(cut, end)
		if rng.IntN(10) == 0 {
			cut = 0
		}
		got := combineAdler(adler32.Checksum(data[:cut]), adler32.Checksum(data[cut:end]), int64(end-cut))
		if want := adler32.Checksum(data[:end]); got != want {
			t.Fatalf("%d + %d bytes: %08x, want %08x", cut, end-cut, got, want)
		}
	}
}

// endless is one table that never ends.
type endless struct {
	head, row []byte
	left      int
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.head) > 0 {
		n := copy(p, e.head)
		e.head = e.head[n:]
		return n, nil
	}
	n := 0
	for n+len(e.row) <= len(p) && e.left > 0 {
		n += copy(p[n:], e.row)
		e.left -= len(e.row)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// However much passes, the memory is that of the segments.
func TestPackMemory(t *testing.T) {
	head := append(encode(t, testHead(14, testEntry(1, true, "TABLE DATA", "t"))), appendInt([]byte{typeTable}, 1)...)
	row := []byte("12345\tsome text of no great length\t2024-01-01 00:00:00+00\n")
	for _, alg := range []string{"gzip", "zstd", "lz4", "none"} {
		src := &endless{head: head, row: append(appendInt(nil, len(row)), row...), left: 128 << 20}
		p, err := NewPacker(src, PackOptions{Compression: Compression{Algorithm: alg}, Workers: 4})
		if err != nil {
			t.Fatal(err)
		}
		var peak uint64
		buf := make([]byte, 256<<10)
		for {
			if _, err := p.Read(buf); err != nil {
				wantIncomplete(t, alg, err) // since the block never ends
				break
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
		if peak > 64<<20 {
			t.Errorf("%s: a heap of %d MiB", alg, peak>>20)
		}
		p.Close()
	}
}
