package pgarchive

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

func TestGuess(t *testing.T) {
	archive := golden(t, "15-gzip.dump")
	sql := "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\nSET statement_timeout = 0;\n" + strings.Repeat("INSERT INTO t VALUES (1);\n", 100)
	tar := "toc.dat" + strings.Repeat("\x00", 250) + "ustar\x0000" + strings.Repeat("\x00", 1000)
	directory := "dump/" + strings.Repeat("\x00", 252) + "ustar\x0000" + strings.Repeat("\x00", 1000)
	compress := func(text string, open func(io.Writer) io.WriteCloser) string {
		var b bytes.Buffer
		w := open(&b)
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	zipped := func(text string) string {
		return compress(text, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	}
	zstandard := func(w io.Writer) io.WriteCloser {
		e, err := zstd.NewWriter(w)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	large := strings.Repeat("-- a comment that compresses\n", 100_000)

	for begin, want := range map[string]struct{ what, cure string }{
		"":                                   {"empty", "older one"},
		sql:                                  {"plain SQL (", "psql"},
		"\n\n" + sql:                         {"plain SQL (", "psql"},
		"CREATE ROLE x;\n":                   {"plain SQL (", "psql"},
		zipped(sql):                          {"plain SQL, compressed with gzip", "gunzip -c | psql"},
		zipped(large):                        {"plain SQL, compressed with gzip", "gunzip -c | psql"},
		zipped(string(archive)):              {"once more with gzip", "gunzip -c | pg_restore -d"},
		zipped(tar):                          {"tar-format dump (pg_dump -Ft), compressed", "pg_restore -Ft"},
		zipped(directory):                    {"a tar file, compressed with gzip", "pg_restore -Fd"},
		zipped("something else"):             {"a gzip file", "see what it is"},
		"\x1f\x8b":                           {"a gzip file", "see what it is"},
		compress(sql, zstandard):             {"plain SQL, compressed with zstd", "zstd -dc | psql"},
		compress(string(archive), zstandard): {"once more with zstd", "zstd -dc | pg_restore"},
		compress(sql, func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) }): {"plain SQL, compressed with lz4", "lz4 -dc | psql"},
		tar:                                     {"a tar-format dump", "pg_restore -Ft"},
		directory:                               {"a tar file, perhaps of a directory", "pg_restore -Fd"},
		"PGDMP\x01\x0e\x00\x04\x08\x03\x00\x00": {"toc.dat of a directory-format", "pg_restore -Fd"},
		"age-encryption.org/v1\n-> X25519 abc":  {"encrypted with age", "age -d"},
		"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl":             {"encrypted with age", "age -d"},
		"-----BEGIN PGP MESSAGE-----\n":                        {"OpenPGP", "gpg -d"},
		"{\n  \"format\": \"pgstow/1\"":                        {"JSON", "by its id"},
		"<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code>": {"failed download", "check the key"},
		"BZh91AY":                  {"bzip2", "bzip2 -dc"},
		"\xfd7zXZ\x00\x00":         {"xz", "xz -dc"},
		"PK\x03\x04":               {"zip", "unpack"},
		"just any text":            {"no archive of pg_dump -Fc", "check the key"},
		"\x00\x01\x02\x03\x04\x05": {"no archive of pg_dump -Fc", "check the key"},
		"PGDMX\x01\x0e\x00":        {"no archive of pg_dump -Fc", "check the key"},
		// What only the parser can tell.
		"PGDMP\x01\x0e\x00\x04\x08\x01": {"", ""},
		"PG":                            {"", ""},
		"P":                             {"", ""},
	} {
		b := []byte(begin)
		what, cure := Guess(b[:min(len(b), GuessLength)])
		if want.what == "" && what+cure != "" || !strings.Contains(what, want.what) || !strings.Contains(cure, want.cure) {
			t.Errorf("%.20q: %q, %q; want %q, %q", begin, what, cure, want.what, want.cure)
		}
	}
	files, err := filepath.Glob("testdata/*.dump")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= min(len(b), 4000); n++ {
			if what, _ := Guess(b[:n]); what != "" {
				t.Fatalf("%s, its first %d bytes: %s", name, n, what)
			}
		}
	}
}

// Whatever a stream begins with, a guess is made, and quickly.
func FuzzGuess(f *testing.F) {
	f.Add([]byte("PGDMP\x01\x0e\x00\x04\x08\x03"))
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x00"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x04\x58"))
	f.Add([]byte("\x04\x22\x4d\x18\x64\x40"))
	f.Add([]byte("-- SQL\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		what, cure := Guess(b[:min(len(b), GuessLength)])
		if (what == "") != (cure == "") {
			t.Errorf("%q, %q", what, cure)
		}
	})
}
