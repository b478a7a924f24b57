package pgarchive

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"
)

// benchArchive has one table of about 64 MiB in chunks of one size.
func benchArchive(b *testing.B, chunk int) []byte {
	archive := encode(b, testHead(14, testEntry(1, true, "TABLE DATA", "t")))
	archive = appendInt(append(archive, typeTable), 1)
	payload := bytes.Repeat([]byte("x"), chunk)
	for n := 0; n < 64<<20; n += chunk {
		archive = append(appendInt(archive, chunk), payload...)
	}
	return appendInt(archive, 0)
}

// BenchmarkParser is the indexer alone; 100 bytes is a chunk per row, as -Z0 writes.
func BenchmarkParser(b *testing.B) {
	for _, chunk := range []int{100, 4096, 1 << 20} {
		b.Run(fmt.Sprint(chunk), func(b *testing.B) {
			archive := benchArchive(b, chunk)
			head, err := ParseHead(bytes.NewReader(archive))
			if err != nil {
				b.Fatal(err)
			}
			body := archive[len(encode(b, head)):]
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				var parser blockParser
				for rest := body; len(rest) > 0; {
					n, _, err := parser.step(rest[:min(len(rest), scanBuffer)])
					if err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
	}
}

// BenchmarkScanner is all of it; BenchmarkSHA256 tells how much of that is the hash.
func BenchmarkScanner(b *testing.B) {
	for _, chunk := range []int{100, 4096, 1 << 20} {
		b.Run(fmt.Sprint(chunk), func(b *testing.B) {
			archive := benchArchive(b, chunk)
			p := make([]byte, 256<<10)
			b.SetBytes(int64(len(archive)))
			for b.Loop() {
				s := NewScanner(bytes.NewReader(archive))
				if _, err := io.CopyBuffer(onlyWriter{}, s, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSHA256(b *testing.B) {
	p := make([]byte, 64<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		sha256.Sum256(p)
	}
}

func BenchmarkVerifier(b *testing.B) {
	archive := benchArchive(b, 4096)
	want := recorded(b, archive)
	p := make([]byte, 32<<10)
	b.SetBytes(int64(len(archive)))
	for b.Loop() {
		v, err := NewVerifier(bytes.NewReader(archive), want)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(onlyWriter{}, v, p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseHead(b *testing.B) {
	entries := make([]Entry, 0, 80_000)
	for i := range 80_000 {
		e := testEntry(i+1, false, "TABLE", fmt.Sprint("table", i))
		e.Defn = str("CREATE TABLE public.t (id bigint NOT NULL, a text, b text, c timestamp with time zone);\n")
		entries = append(entries, e)
	}
	raw := encode(b, testHead(14, entries...))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseHead(bytes.NewReader(raw)); err != nil {
			b.Fatal(err)
		}
	}
}

// onlyWriter hides io.Discard's ReadFrom.
type onlyWriter struct{}

func (onlyWriter) Write(p []byte) (int, error) { return len(p), nil }
