package pgarchive

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// recorded is what an index would say of an archive, made without the Scanner.
func recorded(t testing.TB, archive []byte) Expected {
	t.Helper()
	s := mustScan(t, archive)
	h, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	want := Expected{Head: ExpectedPart{Length: s.HeadSize(), SHA256: sha256.Sum256(archive[:s.HeadSize()])}}
	for i, b := range s.Blocks() {
		want.Blocks = append(want.Blocks, ExpectedPart{
			Name: h.Promised()[i].Label(), Offset: b.Offset, Length: b.Length,
			SHA256: sha256.Sum256(archive[b.Offset : b.Offset+b.Length]),
		})
	}
	return want
}

// verify drains a Verifier; err is nil at io.EOF.
func verify(t testing.TB, r io.Reader, want Expected) (out []byte, err error) {
	t.Helper()
	v, err := NewVerifier(r, want)
	if err != nil {
		t.Fatal(err)
	}
	return readBy(v, 1000)
}

// largeArchive has blocks well beyond what a Verifier holds, one of exactly that much, and
// small ones between.
func largeArchive(t testing.TB) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	fill := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	const framing = 1 + intLen + intLen + intLen
	sizes := []int{10, verifyBuffer * 3, holdBack - framing, holdBack + 1 - framing, 1, verifyBuffer - framing, 700_000}
	var entries []Entry
	var blocks []byte
	for i, n := range sizes {
		entries = append(entries, testEntry(i+1, true, "TABLE DATA", fmt.Sprint("t", i)))
		blocks = append(blocks, tableBlock(i+1, fill(n))...)
	}
	entries = append(entries, testEntry(100, true, "BLOBS", "BLOBS"))
	blocks = append(blocks, blobsBlock(100, fill(90_000), "", fill(3))...)
	return append(encode(t, testHead(16, entries...)), blocks...)
}

func TestVerifierPassesOn(t *testing.T) {
	eachGolden(t, func(t *testing.T, _ string, archive []byte) {
		want := recorded(t, archive)
		for what, r := range map[string]io.Reader{
			"plain": bytes.NewReader(archive), "one byte": iotest.OneByteReader(bytes.NewReader(archive)),
			"half": iotest.HalfReader(bytes.NewReader(archive)), "data with EOF": iotest.DataErrReader(bytes.NewReader(archive)),
		} {
			if out, err := verify(t, r, want); err != nil || !bytes.Equal(out, archive) {
				t.Errorf("%s: %d of %d bytes, %v", what, len(out), len(archive), err)
			}
		}
	})
	archive := largeArchive(t)
	want := recorded(t, archive)
	for _, size := range []int{1, 1000, 4096, 65_536, 1 << 20} {
		v, err := NewVerifier(&choppy{archive, 3 * size}, want)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := readBy(v, size); err != nil || !bytes.Equal(out, archive) {
			t.Errorf("reads of %d: %d of %d bytes, %v", size, len(out), len(archive), err)
		}
	}
}

// released is how far a faulty part may get: to its end less what is held back.
func released(want Expected, fault int) (limit int64, name string) {
	if int64(fault) < want.Head.Length {
		return 0, "head"
	}
	for _, b := range want.Blocks {
		if int64(fault) < b.Offset+b.Length {
			return b.Offset + max(0, b.Length-holdBack), b.Name
		}
	}
	return want.Blocks[len(want.Blocks)-1].Offset + want.Blocks[len(want.Blocks)-1].Length, "end of the archive"
}

func wantMismatch(t testing.TB, err error, name string, fault int) {
	t.Helper()
	var me *MismatchError
	if !errors.Is(err, ErrMismatch) || !errors.As(err, &me) || me.Part != name || errors.Is(err, io.EOF) {
		t.Fatalf("fault at %d: %v, want a mismatch of %s", fault, err, name)
	}
}

func TestVerifierFlippedBits(t *testing.T) {
	small := golden(t, "15-gzip.dump")
	large := largeArchive(t)
	for name, tc := range map[string]struct {
		archive []byte
		step    int
	}{"golden": {small, 3}, "large": {large, len(large) / 200}} {
		t.Run(name, func(t *testing.T) {
			want := recorded(t, tc.archive)
			flipped := bytes.Clone(tc.archive)
			for i := 0; i < len(flipped); i += tc.step {
				flipped[i] ^= 1 << (i % 8)
				out, err := verify(t, bytes.NewReader(flipped), want)
				limit, part := released(want, i)
				wantMismatch(t, err, part, i)
				if int64(len(out)) > limit {
					t.Fatalf("fault at %d in %s: %d bytes went out, limit %d", i, part, len(out), limit)
				}
				flipped[i] ^= 1 << (i % 8)
			}
		})
	}
}

func TestVerifierCutAndLonger(t *testing.T) {
	for name, archive := range map[string][]byte{"golden": golden(t, "17-zstd.dump"), "large": largeArchive(t)} {
		t.Run(name, func(t *testing.T) {
			want := recorded(t, archive)
			places := []int{0, 1, int(want.Head.Length) - 1, int(want.Head.Length), len(archive) - 1}
			for _, b := range want.Blocks {
				places = append(places, int(b.Offset), int(b.Offset)+1, int(b.Offset+b.Length)-1)
			}
			for _, n := range places {
				out, err := verify(t, bytes.NewReader(archive[:n]), want)
				limit, part := released(want, n)
				wantMismatch(t, err, part, n)
				if int64(len(out)) > limit || !strings.Contains(err.Error(), "ends after") {
					t.Fatalf("cut at %d: %d bytes went out, limit %d; %v", n, len(out), limit, err)
				}
			}
			for _, tail := range []string{"\x00", "\x01", strings.Repeat("x", 1<<20)} {
				out, err := verify(t, io.MultiReader(bytes.NewReader(archive), strings.NewReader(tail)), want)
				wantMismatch(t, err, "end of the archive", len(archive))
				if !bytes.Equal(out, archive) {
					t.Fatalf("trailing bytes: %d of %d went out", len(out), len(archive))
				}
			}
		})
	}
}

// Two intact blocks in each other's place are as wrong as a broken one.
func TestVerifierSwappedBlocks(t *testing.T) {
	archive := append(encode(t, testHead(14, testEntry(1, true, "TABLE DATA", "a"), testEntry(2, true, "TABLE DATA", "b"))), tableBlock(1, "aa")...)
	archive = append(archive, tableBlock(2, "bb")...)
	want := recorded(t, archive)
	a, b := want.Blocks[0], want.Blocks[1]
	swapped := bytes.Join([][]byte{archive[:a.Offset], archive[b.Offset:], archive[a.Offset:b.Offset]}, nil)
	out, err := verify(t, bytes.NewReader(swapped), want)
	wantMismatch(t, err, "TABLE DATA public.a", int(a.Offset))
	if int64(len(out)) != want.Head.Length {
		t.Errorf("%d bytes went out", len(out))
	}
}

func TestVerifierSourceErrors(t *testing.T) {
	archive := golden(t, "15-gzip.dump")
	want := recorded(t, archive)
	for _, failure := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF, fmt.Errorf("wrapped: %w", io.EOF)} {
		for n := 0; n <= len(archive); n += 101 {
			for _, r := range []io.Reader{io.MultiReader(bytes.NewReader(archive[:n]), iotest.ErrReader(failure)), &failing{archive[:n], failure}} {
				if _, err := verify(t, r, want); err != failure { //nolint:errorlint // unchanged
					t.Fatalf("%v at %d became %v", failure, n, err)
				}
			}
		}
		whole := &failing{archive, failure}
		if out, err := verify(t, whole, want); err != failure || len(out) != len(archive) { //nolint:errorlint // unchanged
			t.Fatalf("%v at the end: %d bytes, %v", failure, len(out), err)
		}
	}
	v, err := NewVerifier(bytes.NewReader(archive), want)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := v.Read(nil); n != 0 || err != nil {
		t.Errorf("empty read: %d, %v", n, err)
	}
	if _, err := verify(t, stuck{}, want); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a source that stands still: %v", err)
	}
}

func TestVerifierRefusesABrokenIndex(t *testing.T) {
	good := recorded(t, golden(t, "15-gzip.dump"))
	for name, change := range map[string]func(*Expected){
		"gap":             func(e *Expected) { e.Blocks[1].Offset++ },
		"overlap":         func(e *Expected) { e.Blocks[2].Offset-- },
		"head too long":   func(e *Expected) { e.Head.Length++ },
		"negative head":   func(e *Expected) { e.Head.Length = -1 },
		"empty block":     func(e *Expected) { e.Blocks[1].Length = 0 },
		"negative block":  func(e *Expected) { e.Blocks[1].Length = -5 },
		"overflow":        func(e *Expected) { e.Blocks[len(e.Blocks)-1].Length = 1<<63 - 1 },
		"negative offset": func(e *Expected) { e.Head.Length, e.Blocks = 0, []ExpectedPart{{Offset: -1, Length: 4}} },
	} {
		bad := good
		bad.Blocks = append([]ExpectedPart(nil), good.Blocks...)
		change(&bad)
		if _, err := NewVerifier(strings.NewReader(""), bad); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A range of an archive, and an archive whose version nobody can index.
func TestVerifierWithoutHead(t *testing.T) {
	archive := golden(t, "15-gzip.dump")
	want := recorded(t, archive)
	some := want.Blocks[2:5]
	part := archive[some[0].Offset : some[2].Offset+some[2].Length]
	if out, err := verify(t, bytes.NewReader(part), Expected{Blocks: some}); err != nil || !bytes.Equal(out, part) {
		t.Errorf("range: %v", err)
	}
	one := Expected{Blocks: []ExpectedPart{{Name: "archive", Length: int64(len(archive)), SHA256: sha256.Sum256(archive)}}}
	if out, err := verify(t, bytes.NewReader(archive), one); err != nil || !bytes.Equal(out, archive) {
		t.Errorf("one part: %v", err)
	}
	if out, err := verify(t, strings.NewReader(""), Expected{}); err != nil || len(out) != 0 {
		t.Errorf("nothing at all: %v", err)
	}
}

// However large the blocks and whatever length the index claims for the head, the memory
// stays that of the bytes that are held.
func TestVerifierMemory(t *testing.T) {
	const size = 256 << 20
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(zeros{}, size)); err != nil {
		t.Fatal(err)
	}
	block := ExpectedPart{Name: "zeros", Length: size}
	sum.Sum(block.SHA256[:0])
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v, err := NewVerifier(io.LimitReader(zeros{}, size), Expected{Blocks: []ExpectedPart{block}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, v); n != size || err != nil {
		t.Fatal(n, err)
	}
	_, err = verify(t, strings.NewReader("short"), Expected{Head: ExpectedPart{Length: 1 << 50}})
	wantMismatch(t, err, "head", 0)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}

// A head larger than the buffer is held whole all the same; afterwards its memory is free.
func TestVerifierLargeHead(t *testing.T) {
	e := testEntry(1, true, "TABLE DATA", "t")
	e.Defn = str(strings.Repeat("x", 5*verifyBuffer))
	archive := append(encode(t, testHead(16, e)), tableBlock(1, strings.Repeat("y", 2*verifyBuffer))...)
	want := recorded(t, archive)
	v, err := NewVerifier(iotest.HalfReader(bytes.NewReader(archive)), want)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := readBy(v, 10_000); err != nil || !bytes.Equal(out, archive) {
		t.Fatalf("%d of %d bytes, %v", len(out), len(archive), err)
	}
	if len(v.buf) != verifyBuffer {
		t.Errorf("the buffer has %d bytes in the end", len(v.buf))
	}
	archive[want.Head.Length-1] ^= 1
	out, err := verify(t, bytes.NewReader(archive), want)
	wantMismatch(t, err, "head", 0)
	if len(out) != 0 {
		t.Errorf("%d bytes of a wrong head went out", len(out))
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
