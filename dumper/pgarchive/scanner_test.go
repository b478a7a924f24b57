package pgarchive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// wantIncomplete asserts that err says "incomplete", and never as an end of file.
func wantIncomplete(t testing.TB, what string, err error) {
	t.Helper()
	var fe *FormatError
	if !errors.Is(err, ErrIncomplete) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &fe) {
		t.Fatalf("%s: %v, want ErrIncomplete", what, err)
	}
}

func TestScannerCutAnywhere(t *testing.T) {
	eachGolden(t, func(t *testing.T, name string, archive []byte) {
		size := int(mustScan(t, archive).HeadSize())
		step := 97
		switch name {
		case "15-gzip", "17-zstd", "18-statistics": // nowhere else is the layout another
			step = 1
		}
		for n := 0; n < len(archive); n += step {
			if n == size+1 {
				step = max(1, (len(archive)-size)/400)
			}
			s, body, err := scanAll(bytes.NewReader(archive[:n]))
			wantIncomplete(t, fmt.Sprintf("cut at %d of %d", n, len(archive)), err)
			if n >= size && !bytes.Equal(body, archive[size:n]) {
				t.Fatalf("cut at %d: the bytes before it were not passed on", n)
			}
			if _, err := s.PatchedHead(); err == nil {
				t.Fatalf("cut at %d: there is a patched head", n)
			}
			if n, err := s.Read(make([]byte, 10)); n != 0 || !errors.Is(err, ErrIncomplete) {
				t.Fatalf("the error is not final: %d, %v", n, err)
			}
		}
	})
}

func TestScannerNamesWhatIsMissing(t *testing.T) {
	archive := golden(t, "15-gzip.dump")
	s := mustScan(t, archive)
	blocks := s.Blocks()
	for n, want := range map[int64]string{
		s.HeadSize():                 "before the block of TABLE DATA Sales & Co.Größe \"M\" (dump ID 3",
		blocks[2].Offset:             "before the block of TABLE DATA public.digest (dump ID ",
		blocks[2].Offset + 1:         "very beginning of a block",
		blocks[2].Offset + 200:       "inside the block of TABLE DATA public.digest (dump ID ",
		int64(len(archive)) - 1:      "inside the block of BLOBS BLOBS (dump ID ",
		s.HeadSize() - 1:             ", offset: the stream ends in the head",
		int64(preambleLen):           "integer size",
		blocks[4].Offset:             "TABLE DATA public.line break",
		blocks[len(blocks)-1].Offset: "1 of 9 blocks never came",
	} {
		_, _, err := scanAll(bytes.NewReader(archive[:n]))
		if wantIncomplete(t, want, err); !strings.Contains(err.Error(), want) {
			t.Errorf("cut at %d: %v, want %q", n, err, want)
		}
	}
}

func TestScannerTrailingBytes(t *testing.T) {
	for _, name := range []string{"15-gzip", "15-schema", "17-zstd"} {
		archive := golden(t, name+".dump")
		for _, tail := range []string{"\x00", "\x01", "\x03", "garbage", "\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00", string(archive)} {
			_, _, err := scanAll(strings.NewReader(string(archive) + tail))
			wantIncomplete(t, fmt.Sprintf("%s + %.10q", name, tail), err)
			if !strings.Contains(err.Error(), fmt.Sprintf("bytes follow the last block (at byte %d)", len(archive))) {
				t.Errorf("%s + %.10q: %v", name, tail, err)
			}
		}
	}
}

// No single flipped bit may go unnoticed: it breaks the structure, or it shows in the
// hashes of head and blocks, which the index holds.
func TestScannerFlippedBits(t *testing.T) {
	archive := golden(t, "15-gzip.dump")
	was := mustScan(t, archive)
	flipped := bytes.Clone(archive)
	broken := 0
	for i := range archive {
		flipped[i] ^= 1 << (i % 8)
		s, _, err := scanAll(bytes.NewReader(flipped))
		switch {
		case err != nil:
			broken++
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrIncomplete) {
				t.Fatalf("byte %d: %v", i, err)
			}
		case bytes.Equal(s.HeadBytes(), was.HeadBytes()) && slices.Equal(s.Blocks(), was.Blocks()):
			t.Fatalf("byte %d: not noticed", i)
		}
		flipped[i] ^= 1 << (i % 8)
	}
	if broken == 0 {
		t.Error("no flip broke the structure")
	}
}

func TestScannerBlocksNotAsPromised(t *testing.T) {
	entry := func(id int, desc, tag string) Entry { return testEntry(id, true, desc, tag) }
	head := testHead(14, entry(5, "TABLE DATA", "a"), testEntry(6, false, "TABLE", "b"), entry(7, "TABLE DATA", "c"), entry(8, "BLOBS", "BLOBS"))
	a, b, c, los := tableBlock(5, "rows"), tableBlock(6, "rows"), tableBlock(7, "rows"), blobsBlock(8, "lo")
	stranger := tableBlock(99, "rows")
	wrongA, wrongLOs := blobsBlock(5, "lo"), tableBlock(8, "rows")
	wrongOffset := testHead(14, entry(5, "TABLE DATA", "a"))
	wrongOffset.Entries[0].OffsetFlag, wrongOffset.Entries[0].Offset = offsetSet, 12

	for name, tc := range map[string]struct {
		head   *Head
		blocks [][]byte
		err    error
		want   string
	}{
		"whole":            {head, [][]byte{a, c, los}, nil, ""},
		"second block":     {head, [][]byte{a, a, c, los}, ErrFormat, "second block of TABLE DATA public.a (dump ID 5)"},
		"second at end":    {head, [][]byte{a, c, los, a}, ErrIncomplete, "bytes follow"},
		"out of order":     {head, [][]byte{c, a, los}, ErrIncomplete, "the block of TABLE DATA public.a (dump ID 5) should stand here, not that of TABLE DATA public.c"},
		"one left out":     {head, [][]byte{a, los}, ErrIncomplete, "the block of TABLE DATA public.c (dump ID 7) should stand here"},
		"last missing":     {head, [][]byte{a, c}, ErrIncomplete, "before the block of BLOBS public.BLOBS (dump ID 8); 1 of 3 blocks never came"},
		"not promised":     {head, [][]byte{a, b, c, los}, ErrFormat, "dump ID 6, for which the TOC promises no data"},
		"stranger":         {head, [][]byte{stranger, a, c, los}, ErrFormat, "dump ID 99"},
		"table as LOs":     {head, [][]byte{wrongA, c, los}, ErrFormat, "wrong type for TABLE DATA public.a"},
		"LOs as table":     {head, [][]byte{a, c, wrongLOs}, ErrFormat, "wrong type for BLOBS"},
		"garbage between":  {head, [][]byte{a, []byte("g"), c, los}, ErrFormat, "block of type 103 where the block of TABLE DATA public.c"},
		"negative chunk":   {head, [][]byte{a[:6], {1, 1, 0, 0, 0}}, ErrFormat, "chunk of length -1"},
		"negative zero":    {head, [][]byte{a[:6], {1, 0, 0, 0, 0}}, ErrFormat, "01 00 00 00 00 is no integer inside the block of TABLE DATA public.a"},
		"sign byte":        {head, [][]byte{a[:6], {2, 1, 0, 0, 0}}, ErrFormat, "is no integer"},
		"chunk too long":   {head, [][]byte{a[:6], {0, 255, 255, 255, 255}}, ErrFormat, "is no integer"},
		"dump ID 0":        {head, [][]byte{{1, 0, 0, 0, 0, 0}}, ErrFormat, "dump ID 0"},
		"offset elsewhere": {wrongOffset, [][]byte{a}, ErrFormat, "stands at byte 12"},
		"empty blocks":     {head, [][]byte{tableBlock(5), tableBlock(7), blobsBlock(8)}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			archive := bytes.Join(append([][]byte{encode(t, tc.head)}, tc.blocks...), nil)
			for _, r := range []io.Reader{bytes.NewReader(archive), iotest.OneByteReader(bytes.NewReader(archive))} {
				_, body, err := scanAll(r)
				if !errors.Is(err, tc.err) || (err != nil && !strings.Contains(err.Error(), tc.want)) {
					t.Fatalf("%v, want %v: %s", err, tc.err, tc.want)
				}
				if !bytes.HasPrefix(archive[len(encode(t, tc.head)):], body) {
					t.Error("the scanner changed the stream")
				}
			}
		})
	}
}

// A block promised twice is a fault of the TOC.
func TestScannerDumpIDTwice(t *testing.T) {
	head := testHead(14, testEntry(5, true, "TABLE DATA", "a"), testEntry(5, true, "TABLE DATA", "b"))
	_, _, err := scanAll(bytes.NewReader(append(encode(t, head), tableBlock(5)...)))
	var fe *FormatError
	if !errors.As(err, &fe) || !errors.Is(err, ErrFormat) || fe.Entry != 2 || fe.Field != "dump ID" {
		t.Fatal(err)
	}
}

func TestScannerReadSizes(t *testing.T) {
	for _, name := range []string{"15-none", "15-gzip", "17-lz4"} {
		archive := golden(t, name+".dump")
		want := mustScan(t, archive)
		check := func(what string, s *Scanner, body []byte, err error) {
			t.Helper()
			if err != nil || !bytes.Equal(body, archive[want.HeadSize():]) || !slices.Equal(s.Blocks(), want.Blocks()) {
				t.Fatalf("%s, %s: %v", name, what, err)
			}
		}
		for what, wrap := range map[string]func(io.Reader) io.Reader{
			"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
		} {
			s, body, err := scanAll(wrap(bytes.NewReader(archive)))
			check(what, s, body, err)
		}
		for size := 1; size < 70; size++ {
			s := NewScanner(bytes.NewReader(archive))
			body, err := readBy(s, size)
			check(fmt.Sprint("reads of ", size), s, body, err)
			// The same cuts on the other side, where they reach the parser unbuffered.
			s = NewScanner(&choppy{archive, size})
			body, err = readBy(s, 2*scanBuffer)
			check(fmt.Sprint("chunks of ", size), s, body, err)
		}
	}
}

// readBy reads r to its end with reads of one size.
func readBy(r io.Reader, size int) ([]byte, error) {
	var all []byte
	p := make([]byte, size)
	for {
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

// choppy delivers at most size bytes at once.
type choppy struct {
	rest []byte
	size int
}

func (c *choppy) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest[:min(c.size, len(c.rest))])
	c.rest = c.rest[n:]
	return n, nil
}

// Whatever the source says but a bare io.EOF is its own error and comes back as it is,
// even where the archive would be complete.
func TestScannerSourceErrors(t *testing.T) {
	archive := golden(t, "15-gzip.dump")
	blocks := mustScan(t, archive).Blocks()
	places := []int64{0, 3, 8, 9, 500, blocks[0].Offset, blocks[0].Offset + 1, blocks[3].Offset + 30, blocks[5].Offset, int64(len(archive)) - 1, int64(len(archive))}
	for _, failure := range []error{errors.New("pg_dump exited 1"), io.ErrUnexpectedEOF, fmt.Errorf("wrapped: %w", io.EOF)} {
		for _, at := range places {
			for what, r := range map[string]io.Reader{
				"after data": io.MultiReader(bytes.NewReader(archive[:at]), iotest.ErrReader(failure)),
				"with data":  &failing{archive[:at], failure},
			} {
				s, _, err := scanAll(r)
				if err != failure { //nolint:errorlint // unchanged is what is asked for
					t.Errorf("%v at %d %s: got %v", failure, at, what, err)
				}
				if _, err := s.PatchedHead(); err == nil {
					t.Errorf("%v at %d: there is a patched head", failure, at)
				}
			}
		}
	}
}

// failing returns its error together with the last data.
type failing struct {
	rest []byte
	err  error
}

func (f *failing) Read(p []byte) (int, error) {
	n := copy(p, f.rest)
	if f.rest = f.rest[n:]; len(f.rest) == 0 {
		return n, f.err
	}
	return n, nil
}

func TestScannerUnknownVersion(t *testing.T) {
	for _, version := range []Version{{1, 17, 0}, {2, 0, 0}, {1, 11, 0}, {0, 14, 0}} {
		stream := "PGDMP" + string([]byte{version.Major, version.Minor, version.Rev}) + strings.Repeat("whatever comes then", 10_000)
		s := NewScanner(strings.NewReader(stream))
		head, err := s.Head()
		if !errors.Is(err, ErrUnknownVersion) || head == nil || head.Version != version || !strings.Contains(err.Error(), version.String()) {
			t.Fatalf("%v: %+v, %v", version, head, err)
		}
		if head, err := ParseHead(strings.NewReader(stream)); !errors.Is(err, ErrUnknownVersion) || head.Version != version {
			t.Errorf("%v: ParseHead: %+v, %v", version, head, err)
		}
		if s.HeadSize() != 0 || s.HeadBytes() != nil {
			t.Errorf("%v: there is a head of %d bytes", version, s.HeadSize())
		}
		if all, err := io.ReadAll(s); err != nil || string(all) != stream {
			t.Errorf("%v: %d of %d bytes came through: %v", version, len(all), len(stream), err)
		}
		if _, err := s.PatchedHead(); !errors.Is(err, ErrUnknownVersion) || len(s.Blocks()) != 0 {
			t.Errorf("%v: patched head %v, %d blocks", version, err, len(s.Blocks()))
		}
		// The exit status of pg_dump still gates it.
		failure := errors.New("exit 1")
		if _, _, err := scanAll(io.MultiReader(strings.NewReader(stream), iotest.ErrReader(failure))); err != failure { //nolint:errorlint // unchanged
			t.Errorf("%v: source error became %v", version, err)
		}
	}
}

func TestScannerNotAnArchive(t *testing.T) {
	for stream, want := range map[string]string{
		"--\n-- PostgreSQL database dump\n":      "like a plain SQL script",
		"toc.dat" + strings.Repeat("\x00", 600):  "like a tar archive",
		"\x1f\x8b\x08\x00\x00\x00":               "like a gzip file",
		"PGDMX\x01\x0e\x00":                      `it begins with "PGDMX"`,
		"x":                                      `it begins with "x"`,
		"PGDMP\x01\x0e\x00\x04\x08\x03\x00\x00":  "the TOC of a tar or directory archive",
		"PGDMP\x01\x0e\x00\x08\x08\x01\x00\x00":  "integer size: 8 bytes, want 4",
		"PGDMP\x01\x0e\x00\x04\x04\x01\x00\x00":  "offset size: 4 bytes, want 8",
		"PGDMP\x01\x10\x00\x04\x08\x01\x04\x00 ": "algorithm 4 is unknown",
	} {
		for _, r := range []io.Reader{strings.NewReader(stream), iotest.OneByteReader(strings.NewReader(stream))} {
			if _, err := NewScanner(r).Head(); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
				t.Errorf("%.10q: %v, want %q", stream, err, want)
			}
		}
		if _, err := ParseHead(strings.NewReader(stream)); !errors.Is(err, ErrFormat) {
			t.Errorf("%.10q: ParseHead: %v", stream, err)
		}
	}
	wantIncomplete(t, "empty stream", func() error { _, _, err := scanAll(strings.NewReader("")); return err }())
}

func TestScannerHeadAndReadInAnyOrder(t *testing.T) {
	archive := golden(t, "17-gzip.dump")
	s := NewScanner(bytes.NewReader(archive))
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Fatalf("empty read: %d, %v", n, err)
	}
	body, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := s.Head(); again != first {
		t.Error("Head parses again")
	}
	b := s.HeadBytes()
	b[0] = 'X' // the caller's own copy
	if got := append(s.HeadBytes(), body...); !bytes.Equal(got, archive) {
		t.Error("head and body are not the archive")
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // bare
		t.Errorf("after the end: %d, %v", n, err)
	}
}
