package pgarchive

import (
	"bytes"
	stdzlib "compress/zlib"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
)

// inflateSamples are contents that make every kind of block, code and match.
func inflateSamples(t testing.TB) map[string][]byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(9, 9))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	skewed := make([]byte, 400_000) // needs the longest codes
	for i := range skewed {
		skewed[i] = byte(int(rng.ExpFloat64() * 9))
	}
	far := append(bytes.Clone(noise[:inflateWindow]), noise[:inflateWindow]...)
	sample := map[string][]byte{
		"nothing": nil, "a byte": []byte("x"), "one byte again and again": bytes.Repeat([]byte("a"), 500_000), "noise": noise,
		"skewed": skewed, "the farthest distance": far, "rows": []byte(textOf(rng, 700_000, 300)),
		"lengths of output": bytes.Repeat([]byte("0123456789abcdef"), inflateOut/16*3+1),
	}
	for n := 1; n < 12; n++ { // matches that overlap themselves
		sample[fmt.Sprint("distance ", n)] = bytes.Repeat(noise[:n], 3000)
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		sample["source"] = append(sample["source"], raw...)
	}
	return sample
}

// streams are zlib streams of a content, by several writers.
func zlibStreams(t testing.TB, content []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, level := range []int{flate.HuffmanOnly, 0, 1, 6, 9} {
		for name, open := range map[string]func(io.Writer) (io.WriteCloser, error){
			"standard":  func(w io.Writer) (io.WriteCloser, error) { return stdzlib.NewWriterLevel(w, level) },
			"klauspost": func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriterLevel(w, level) },
		} {
			var b bytes.Buffer
			w, err := open(&b)
			if err != nil {
				t.Fatal(err)
			}
			half := len(content) / 2
			_, err = w.Write(content[:half])
			if f, ok := w.(interface{ Flush() error }); ok && err == nil {
				err = f.Flush()
			}
			if _, again := w.Write(content[half:]); errors.Join(err, again, w.Close()) != nil {
				t.Fatal(err, again)
			}
			all[fmt.Sprint(name, " ", level)] = b.Bytes()
		}
	}
	return all
}

func inflateAll(z *zlibReader, r io.Reader) ([]byte, error) {
	z.reset(r)
	return io.ReadAll(z)
}

func TestInflate(t *testing.T) {
	z := newZlibReader()
	for what, content := range inflateSamples(t) {
		for by, stream := range zlibStreams(t, content) {
			got, err := inflateAll(z, bytes.NewReader(stream))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s by %s: %d of %d bytes, %v", what, by, len(got), len(content), err)
			}
			if more, err := z.trailing(); more || err != nil {
				t.Errorf("%s by %s: something follows: %v, %v", what, by, more, err)
			}
			got, err = inflateAll(z, iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(append(bytes.Clone(stream), 'x')))))
			if more, _ := z.trailing(); err != nil || !bytes.Equal(got, content) || !more {
				t.Errorf("%s by %s, a byte behind: %d of %d bytes, %v, %v", what, by, len(got), len(content), more, err)
			}
		}
	}
}

// A stream that is cut is cut, wherever; a source that fails says so itself.
func TestInflateCut(t *testing.T) {
	z := newZlibReader()
	content := []byte(strings.Repeat("what is cut is no stream\n", 30) + textOf(rand.New(rand.NewPCG(3, 3)), 3000, 90))
	broken := errors.New("broken")
	for by, stream := range zlibStreams(t, content) {
		for n := range stream {
			got, err := inflateAll(z, iotest.OneByteReader(bytes.NewReader(stream[:n])))
			if err != io.ErrUnexpectedEOF || !bytes.HasPrefix(content, got) { //nolint:errorlint // bare
				t.Fatalf("%s, cut to %d of %d: %d bytes, %v", by, n, len(stream), len(got), err)
			}
			if n%7 == 0 {
				if _, err := inflateAll(z, io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken))); err != broken { //nolint:errorlint // bare
					t.Fatalf("%s, broken at %d: %v", by, n, err)
				}
			}
		}
	}
}

// Whatever the bytes are, the standard library comes to the same verdict and content.
func FuzzInflate(f *testing.F) {
	for what, content := range inflateSamples(f) {
		if len(content) > 5000 {
			content = content[:5000]
		}
		for by, stream := range zlibStreams(f, content) {
			if by == "standard 6" || what == "rows" || what == "noise" {
				f.Add(stream)
			}
		}
	}
	f.Add([]byte("\x78\x9c\x04\xc0\x81\x08\x00\x00\x00\x00\x20\x7f\xeb\x0b\x00\x00\x00\x00\x01")) // a single code
	z := newZlibReader()
	f.Fuzz(func(t *testing.T, b []byte) { sameVerdict(t, z, b) })
}

func sameVerdict(t testing.TB, z *zlibReader, b []byte) {
	t.Helper()
	const most = 8 << 20
	z.reset(bytes.NewReader(b))
	got, err := io.ReadAll(io.LimitReader(z, most))
	if err != nil && err != io.ErrUnexpectedEOF && !errors.Is(err, errInflate) { //nolint:errorlint // bare
		t.Fatalf("unexplained: %v", err)
	}
	var want []byte
	theirs, wantErr := stdzlib.NewReader(bytes.NewReader(b))
	if wantErr == nil {
		want, wantErr = io.ReadAll(io.LimitReader(theirs, most))
	}
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%d bytes, %v; the standard library: %d, %v", len(got), err, len(want), wantErr)
	}
	if err == nil && !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, the standard library has %d others", len(got), len(want))
	}
}

// One bit anywhere is found, as others find it.
func TestInflateFlipped(t *testing.T) {
	z := newZlibReader()
	content := []byte(textOf(rand.New(rand.NewPCG(4, 4)), 700, 60))
	for by, stream := range zlibStreams(t, content) {
		for n := range stream {
			for bit := range 8 {
				b := bytes.Clone(stream)
				b[n] ^= 1 << bit
				sameVerdict(t, z, b)
				if t.Failed() {
					t.Fatalf("%s, bit %d of byte %d", by, bit, n)
				}
			}
		}
	}
}

func BenchmarkInflate(b *testing.B) {
	content := bytes.Repeat(inflateSamples(b)["source"], 8)
	var stream bytes.Buffer
	w := zlib.NewWriter(&stream)
	if _, err := w.Write(content); err != nil || w.Close() != nil {
		b.Fatal(err)
	}
	z := newZlibReader()
	b.Run("own", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			z.reset(bytes.NewReader(stream.Bytes()))
			if n, err := io.Copy(io.Discard, z); err != nil || n != int64(len(content)) {
				b.Fatal(n, err)
			}
		}
	})
	for name, open := range map[string]func(io.Reader) (io.ReadCloser, error){"standard": stdzlib.NewReader, "klauspost": zlib.NewReader} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				r, err := open(bytes.NewReader(stream.Bytes()))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(content)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
