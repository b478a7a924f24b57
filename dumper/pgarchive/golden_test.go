package pgarchive

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// golden reads one file of testdata.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eachGolden runs f on every golden archive that went through a pipe.
func eachGolden(t *testing.T, f func(t *testing.T, name string, archive []byte)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.dump")
	if err != nil || len(files) < 18 {
		t.Fatalf("golden archives: %d, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dump")
		t.Run(name, func(t *testing.T) { f(t, name, golden(t, name+".dump")) })
	}
}

// scanAll drains a Scanner and returns what it passed on; err is nil at io.EOF.
func scanAll(r io.Reader) (s *Scanner, body []byte, err error) {
	s = NewScanner(r)
	var out bytes.Buffer
	_, err = out.ReadFrom(s)
	return s, out.Bytes(), err
}

// mustScan scans an archive that is complete.
func mustScan(t testing.TB, archive []byte) *Scanner {
	t.Helper()
	s, body, err := scanAll(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(s.HeadBytes(), body...), archive) {
		t.Fatal("the scanner changed the stream")
	}
	return s
}

func TestGoldenRoundTrip(t *testing.T) {
	eachGolden(t, func(t *testing.T, _ string, archive []byte) {
		r := bytes.NewReader(archive)
		head, err := ParseHead(r)
		if err != nil {
			t.Fatal(err)
		}
		size := len(archive) - r.Len()
		got, err := head.AppendBinary([]byte("kept"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, append([]byte("kept"), archive[:size]...)) {
			t.Error("the head is written back differently")
		}
		if s := mustScan(t, archive); int(s.HeadSize()) != size {
			t.Errorf("HeadSize %d, ParseHead read %d", s.HeadSize(), size)
		}
	})
}

func TestGoldenBlocks(t *testing.T) {
	eachGolden(t, func(t *testing.T, _ string, archive []byte) {
		s := mustScan(t, archive)
		head, err := s.Head()
		if err != nil {
			t.Fatal(err)
		}
		promised := head.Promised()
		if len(s.Blocks()) != len(promised) {
			t.Fatalf("%d blocks of %d", len(s.Blocks()), len(promised))
		}
		at := s.HeadSize()
		for i, b := range s.Blocks() {
			if b.DumpID != promised[i].DumpID || b.Offset != at || b.BlobBlock != (promised[i].Desc.S == "BLOBS") {
				t.Errorf("block %d is %+v at %d, promised %s", i, b, at, promised[i].Label())
			}
			if b.SHA256 != sha256.Sum256(archive[b.Offset:b.Offset+b.Length]) {
				t.Errorf("hash of %s", promised[i].Label())
			}
			at += b.Length
		}
		if at != int64(len(archive)) {
			t.Errorf("the blocks end at %d of %d", at, len(archive))
		}
	})
}

// The counts are those of sample.sql.
func TestGoldenCounts(t *testing.T) {
	block := func(name, tag string) (Block, bool) {
		s := mustScan(t, golden(t, name))
		h, _ := s.Head()
		i := slices.IndexFunc(h.Promised(), func(e *Entry) bool { return e.Tag.S == tag })
		if i < 0 {
			return Block{}, false
		}
		return s.Blocks()[i], true
	}
	// -Z0 writes a chunk per row, and one for the end mark.
	for _, name := range []string{"13-none.dump", "15-none.dump", "17-none.dump", "18-none.dump"} {
		for tag, chunks := range map[string]int64{"digest": 301, "empty_table": 1, "zero_columns": 2, "line\nbreak": 2, "Größe \"M\"": 21} {
			if b, ok := block(name, tag); !ok || b.Chunks != chunks {
				t.Errorf("%s, %s: %+v, want %d chunks", name, tag, b, chunks)
			}
		}
		if b, ok := block(name, "empty_table"); !ok || b.Payload != 5 {
			t.Errorf("%s: an empty table has the payload \\.\\n\\n\\n, not %d bytes", name, b.Payload)
		}
	}
	if b, ok := block("15-gzip.dump", "digest"); !ok || b.Chunks < 2 {
		t.Errorf("digest is meant to need several chunks: %+v", b)
	}
	if b, ok := block("15-gzip.dump", "BLOBS"); !ok || b.LargeObjects != 3 {
		t.Errorf("BLOBS up to 1.15: %+v, want 3 large objects", b)
	}
	if b, ok := block("17-gzip.dump", "16001..3000000000"); !ok || b.LargeObjects != 2 {
		t.Errorf("BLOBS from 1.16 on: %+v, want the 2 large objects of one owner", b)
	}
	for _, name := range []string{"15-schema.dump", "15-predata.dump"} {
		if s := mustScan(t, golden(t, name)); len(s.Blocks()) != 0 {
			t.Errorf("%s has %d blocks", name, len(s.Blocks()))
		}
	}
}

// pg_dump's own file with offsets is the witness for ours.
func TestGoldenPatchedHead(t *testing.T) {
	for _, major := range []string{"13", "15", "17", "18"} {
		piped, file := golden(t, major+"-gzip.dump"), golden(t, major+"-gzip.file")
		got, err := mustScan(t, piped).PatchedHead()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, piped[len(got):]...)
		copyCreated(t, got, file)
		if !bytes.Equal(got, file) {
			t.Errorf("%s: the patched archive is not pg_dump's own", major)
		}
		// An archive with offsets scans as well, and patching it changes nothing.
		again, err := mustScan(t, file).PatchedHead()
		if err != nil || !bytes.Equal(again, file[:len(again)]) {
			t.Errorf("%s: patching a patched head: %v", major, err)
		}
	}
}

// copyCreated makes the creation times of two archives of one version equal, the only
// bytes in which two dumps of one snapshot differ.
func copyCreated(t testing.TB, dst, src []byte) {
	t.Helper()
	start := preambleLen + 3 + 1
	if dst[6] < 15 {
		start = preambleLen + 3 + intLen
	}
	copy(dst[start:start+7*intLen], src[start:])
}

func TestGoldenList(t *testing.T) {
	eachGolden(t, func(t *testing.T, name string, archive []byte) {
		head, err := ParseHead(bytes.NewReader(archive))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := head.WriteList(&got, time.UTC); err != nil {
			t.Fatal(err)
		}
		if want := golden(t, name+".list"); !bytes.Equal(got.Bytes(), want) {
			t.Errorf("listing differs from pg_restore's:\n%s\nwant:\n%s", got.Bytes(), want)
		}
	})
}

func TestGoldenHeader(t *testing.T) {
	for name, want := range map[string]struct {
		minor       byte
		compression Compression
	}{
		"13-gzip":      {14, Compression{"gzip", -1}},
		"15-none":      {14, Compression{"none", 0}},
		"17-gzip":      {16, Compression{"gzip", 0}},
		"17-none":      {16, Compression{"none", 0}},
		"18-lz4":       {16, Compression{"lz4", 0}},
		"18-zstd-long": {16, Compression{"zstd", 0}},
	} {
		h, err := ParseHead(bytes.NewReader(golden(t, name+".dump")))
		if err != nil {
			t.Fatal(err)
		}
		if h.Version != (Version{1, want.minor, 0}) || h.Compression != want.compression || h.Database != "golden" ||
			!strings.HasPrefix(h.ServerVersion, name[:2]+".") || !strings.HasPrefix(h.DumpVersion, name[:2]+".") || h.CreatedAt(time.UTC).Year() < 2026 {
			t.Errorf("%s: %+v", name, h.Header)
		}
	}
}

func TestEffectiveSections(t *testing.T) {
	h, err := ParseHead(bytes.NewReader(golden(t, "15-gzip.dump")))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Section{
		"SEARCHPATH":             SectionPreData,
		"EXTENSION hstore":       SectionPreData, // COMMENT
		"TABLE customer":         SectionPreData, // COMMENT and ACL
		"LARGE OBJECT 16001":     SectionPreData, // up to 1.15 large objects are created there
		"digest":                 SectionData,
		"customer_id_seq":        SectionData, // SEQUENCE SET, the later one of two entries
		"BLOBS":                  SectionData,
		"customer customer_pkey": SectionPostData,
		"INDEX customer_pkey":    SectionPostData, // COMMENT
		"totals":                 SectionPostData,
	}
	got := map[string]Section{}
	for i, s := range h.EffectiveSections() {
		got[h.Entries[i].Tag.S] = s
	}
	for tag, section := range want {
		if got[tag] != section {
			t.Errorf("%s: section %d, want %d", tag, got[tag], section)
		}
	}
}
