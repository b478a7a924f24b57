package archiver

import (
	"errors"
	"testing"
)

func TestParseCompression(t *testing.T) {
	for text, want := range map[string]string{
		"": "auto", "auto": "auto", "gzip": "gzip", "gzip:1": "gzip:1", "gzip:9": "gzip:9", "zstd": "zstd", "zstd:19": "zstd:19",
		"lz4": "lz4", "none": "none", "pg_dump": "pg_dump",
	} {
		got, err := ParseCompression(text)
		if err != nil || got.String() != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"gzip:0", "gzip:10", "gzip:", "gzip:-1", "gzip:6:1", "zstd:20", "lz4:1", "none:1", "pg_dump:1", "auto:1", "bzip2", "6", "GZIP", " gzip"} {
		if got, err := ParseCompression(text); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %q, %v", text, got, err)
		} else {
			oneLiner(t, err)
		}
	}
}

// auto takes what every pg_restore reads that can read the archive at all.
func TestChoosePacking(t *testing.T) {
	for _, c := range []struct {
		text  string
		major int
		want  string
		needs int
	}{
		{"auto", 13, "gzip:6", 0},
		{"auto", 15, "gzip:6", 0},
		{"auto", 16, "pg_dump's zstd:1", 0},
		{"auto", 18, "pg_dump's zstd:1", 0},
		{"zstd:3", 15, "zstd:3", 16},
		{"lz4", 14, "lz4", 16},
		{"lz4", 17, "lz4", 0},
		{"gzip:1", 17, "gzip:1", 0},
		{"none", 13, "none", 0},
		{"pg_dump", 13, "pg_dump's ", 0},
	} {
		asked, err := ParseCompression(c.text)
		if err != nil {
			t.Fatal(err)
		}
		p := choosePacking(asked, c.major)
		got := Compression{p.pack.Algorithm, p.pack.Level}.String()
		if got == "pg_dump" {
			got = "pg_dump's " + p.pgDump
		} else if p.pgDump != uncompressed {
			t.Errorf("%s with pg_dump %d: it compresses %q", c.text, c.major, p.pgDump)
		}
		if got != c.want || p.needs != c.needs {
			t.Errorf("%s with pg_dump %d: %s, needs %d; want %s, needs %d", c.text, c.major, got, p.needs, c.want, c.needs)
		}
	}
}
