package pgarchive

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// benchMix is an uncompressed archive of three tables whose text compresses like that of
// real ones: pgbench's accounts, documents with jsonb, and events. PGSTOW_BENCH_ARCHIVE
// names a file of pg_dump -Fc -Z0 to be used instead.
var benchMix = sync.OnceValue(func() []byte {
	if file := os.Getenv("PGSTOW_BENCH_ARCHIVE"); file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		return b
	}
	head := testHead(14, testEntry(1, true, "TABLE DATA", "accounts"), testEntry(2, true, "TABLE DATA", "docs"), testEntry(3, true, "TABLE DATA", "events"))
	archive, err := head.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4096)
	for i := range words {
		words[i] = fmt.Sprintf("%x", rng.Uint64())[:3+i%7]
	}
	text := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString(words[int(rng.ExpFloat64()*400)%len(words)])
			b.WriteByte(' ')
		}
		return b.String()
	}
	table := func(id, size int, row func(i int) string) {
		archive = appendInt(append(archive, typeTable), id)
		for i, end := 0, len(archive)+size; len(archive) < end; i++ {
			r := row(i)
			archive = append(appendInt(archive, len(r)), r...)
		}
		archive = appendInt(append(appendInt(archive, len(endMark)), endMark...), 0)
	}
	pad := strings.Repeat(" ", 84)
	table(1, 56<<20, func(i int) string { return fmt.Sprintf("%d\t%d\t0\t%s\n", i+1, i/100000+1, pad) })
	table(2, 56<<20, func(i int) string {
		return fmt.Sprintf("%d\t%s\t%s\t{\"ip\": \"10.%d.%d.1\", \"tags\": [\"t%d\"], \"user\": %d, \"score\": %v}\t2024-01-%02d 10:%02d:07+00\n",
			i, text(5), text(110), i%256, i*7%256, i%17, rng.IntN(1e6), rng.Float64(), 1+i%28, i%60)
	})
	table(3, 24<<20, func(i int) string {
		return fmt.Sprintf("%d\t%s\t2025-01-%02d %02d:%02d:%02d.%d+00\t%.2f\n", i, words[i%4], 1+i/86400%28, i/3600%24, i/60%60, i%60, i%10, rng.Float64()*1e5)
	})
	return archive
})

// BenchmarkPack tells the raw throughput, the processor's seconds per GB of COPY text and
// the ratio.
func BenchmarkPack(b *testing.B) {
	for _, c := range []Compression{
		{"none", 0}, {"lz4", 0}, {"gzip", 1}, {"gzip", 2}, {"gzip", 3}, {"gzip", 4}, {"gzip", 5}, {"gzip", 6}, {"gzip", 7}, {"gzip", 8}, {"gzip", 9},
		{"zstd", 1}, {"zstd", 3}, {"zstd", 7}, {"zstd", 19},
	} {
		for _, workers := range []int{1, 2, 4} {
			for _, verify := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s:%d/workers=%d/verify=%v", c.Algorithm, c.Level, workers, verify), func(b *testing.B) {
					benchPack(b, benchMix(), PackOptions{Compression: c, Workers: workers, Verify: verify})
				})
			}
		}
	}
}

// BenchmarkKeep decodes beside what pg_dump has compressed itself.
func BenchmarkKeep(b *testing.B) {
	for _, c := range []Compression{{"none", 0}, {"gzip", 6}, {"zstd", 1}, {"zstd", 3}, {"lz4", 0}} {
		b.Run(c.Algorithm, func(b *testing.B) {
			_, packed := mustPack(b, benchMix(), PackOptions{Compression: c})
			benchPack(b, packed, PackOptions{Compression: Compression{Algorithm: KeepCompression}})
		})
	}
}

func benchPack(b *testing.B, archive []byte, opts PackOptions) {
	runtime.GC()
	var raw, stored int64
	cpu := cpuTime()
	b.ReportAllocs()
	p := make([]byte, 256<<10)
	for b.Loop() {
		packer, err := NewPacker(bytes.NewReader(archive), opts)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(onlyWriter{}, packer, p); err != nil {
			b.Fatal(err)
		}
		for _, block := range packer.Blocks() {
			raw += block.Content.RawBytes
			stored += block.Length
		}
	}
	b.SetBytes(raw / int64(b.N))
	b.ReportMetric((cpuTime()-cpu).Seconds()/float64(raw)*1e9, "cpu-s/GB")
	b.ReportMetric(float64(raw)/float64(stored), "ratio")
	b.ReportMetric(float64(stored)/float64(b.N)/1e6, "MB-stored")
}

// cpuTime is what this process has used of the processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
