package pgarchive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func str(s string) Str { return Str{S: s} }

// testEntry is an entry as pg_dump writes it into a pipe.
func testEntry(id int, hadDumper bool, desc, tag string) Entry {
	e := Entry{
		DumpID: id, HadDumper: hadDumper, TableOID: str("0"), OID: str("0"), Tag: str(tag), Desc: str(desc), Section: SectionData,
		Defn: Str{Null: true}, DropStmt: Str{Null: true}, CopyStmt: str("COPY x FROM stdin;\n"), Namespace: str("public"),
		Tablespace: Str{Null: true}, TableAM: Str{Null: true}, Owner: str("me"), WithOIDs: str("false"), OffsetFlag: offsetNoData,
	}
	if hadDumper {
		e.OffsetFlag = offsetNotSet
	}
	return e
}

func testHead(minor byte, entries ...Entry) *Head {
	return &Head{Header: Header{
		Version: Version{1, minor, 0}, IntSize: 4, OffSize: 8, Format: 1, Compression: Compression{Algorithm: "none"},
		Created: [7]int{1, 2, 3, 4, 5, 126, -1}, Database: "db", ServerVersion: "15.18", DumpVersion: "15.18",
	}, Entries: entries}
}

func encode(t testing.TB, h *Head) []byte {
	t.Helper()
	b, err := h.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func appendInt(b []byte, v int) []byte {
	e := encoder{b: b}
	e.int("", v)
	return e.b
}

func appendStream(b []byte, chunks ...string) []byte {
	for _, c := range chunks {
		if c != "" { // a length of 0 ends the stream
			b = append(appendInt(b, len(c)), c...)
		}
	}
	return appendInt(b, 0)
}

func tableBlock(id int, chunks ...string) []byte {
	return appendStream(appendInt([]byte{typeTable}, id), chunks...)
}

func blobsBlock(id int, objects ...string) []byte {
	b := appendInt([]byte{typeBlobs}, id)
	for i, o := range objects {
		b = appendStream(appendInt(b, 16000+i), o)
	}
	return appendInt(b, 0)
}

// The versions of which no program is at hand are made from a golden archive, by the
// changes of layout that its writers are known for.
func TestOlderAndMiddleVersions(t *testing.T) {
	base, err := ParseHead(bytes.NewReader(golden(t, "15-gzip.dump")))
	if err != nil {
		t.Fatal(err)
	}
	for minor := byte(12); minor <= 16; minor++ {
		h := *base
		h.Entries = append([]Entry(nil), base.Entries...)
		h.Version.Minor = minor
		if minor >= 15 {
			h.Compression.Level = 0
		}
		withAM := 0
		for i := range h.Entries {
			if minor < 14 {
				h.Entries[i].TableAM = Str{Null: true}
			}
			if minor == 16 && h.Entries[i].Desc.S == "TABLE" {
				h.Entries[i].RelKind = 'r'
			}
			if h.Entries[i].TableAM.S != "" {
				withAM++
			}
		}
		raw := encode(t, &h)
		got, err := ParseHead(iotest.OneByteReader(bytes.NewReader(raw)))
		if err != nil {
			t.Fatalf("1.%d: %v", minor, err)
		}
		if !reflect.DeepEqual(got, &h) {
			t.Errorf("1.%d: read differently from what was written", minor)
		}
		if minor < 14 != (withAM == 0) {
			t.Errorf("1.%d: %d access methods", minor, withAM)
		}
	}
}

func TestNullIsNotEmpty(t *testing.T) {
	e := testEntry(1, false, "TABLE", "t")
	e.Defn, e.DropStmt, e.CopyStmt, e.Namespace, e.Tablespace = Str{}, Str{Null: true}, Str{}, Str{Null: true}, Str{}
	e.Owner, e.Dependencies = Str{Null: true}, []string{"", "3", ""}
	want := testHead(14, e)
	got, err := ParseHead(bytes.NewReader(encode(t, want)))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\n%+v\n%+v", err, got, want)
	}
}

func TestIntegers(t *testing.T) {
	for _, v := range []int{0, 1, -1, 255, 256, -4096, math.MaxInt32, math.MinInt32} {
		if got, ok := decodeInt(appendInt(nil, v)); !ok || got != v {
			t.Errorf("%d came back as %d, %v", v, got, ok)
		}
	}
	if got := appendInt(nil, -1); !bytes.Equal(got, []byte{1, 1, 0, 0, 0}) {
		t.Errorf("-1 is % x", got)
	}
	for _, raw := range []string{"\x01\x00\x00\x00\x00", "\x02\x01\x00\x00\x00", "\x00\x00\x00\x00\x80", "\x01\x01\x00\x00\x80", "\xff\x01\x00\x00\x00"} {
		if v, ok := decodeInt(raw); ok {
			t.Errorf("% x read as %d", raw, v)
		}
	}
	if math.MaxInt > math.MaxInt32 {
		e := encoder{}
		if e.int("", math.MaxInt); e.err == nil {
			t.Error("an integer beyond 32 bits was written")
		}
	}
}

// A size is a claim. It must not cost memory before the bytes are there.
func TestLyingSizes(t *testing.T) {
	head := testHead(14, testEntry(5, true, "TABLE DATA", "a"))
	raw := encode(t, head)
	huge := appendInt(nil, math.MaxInt32)
	tagLength := bytes.Index(raw, append(appendInt(nil, 1), 'a'))
	count := bytes.Index(raw, append(appendInt(nil, 1), appendInt(nil, 5)...))
	database := bytes.Index(raw, append(appendInt(nil, 2), "db"...))
	if tagLength < 0 || count < 0 || database < 0 {
		t.Fatal("fields not found")
	}
	for name, at := range map[string]int{"string": tagLength, "count": count, "database": database} {
		lie := bytes.Clone(raw)
		copy(lie[at:], huge)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ParseHead(bytes.NewReader(lie))
		runtime.ReadMemStats(&after)
		wantIncomplete(t, name, err)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
	// A chunk that lies costs nothing either: it is never gathered.
	block := append(appendInt([]byte{typeTable}, 5), huge...)
	_, _, err := scanAll(bytes.NewReader(append(raw, block...)))
	wantIncomplete(t, "chunk", err)
}

func TestTOCFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Entry)
		field  string
	}{
		"dump ID 0":      {func(e *Entry) { e.DumpID = 0 }, "dump ID"},
		"negative ID":    {func(e *Entry) { e.DumpID = -7 }, "dump ID"},
		"section 0":      {func(e *Entry) { e.Section = 0 }, "section"},
		"section 5":      {func(e *Entry) { e.Section = 5 }, "section"},
		"flag 0":         {func(e *Entry) { e.OffsetFlag = 0 }, "offset"},
		"flag 4":         {func(e *Entry) { e.OffsetFlag = 4 }, "offset"},
		"data forgotten": {func(e *Entry) { e.OffsetFlag = offsetNoData }, "offset"},
		"NUL in a name":  {func(e *Entry) { e.Tag = str("a\x00b") }, "tag"},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEntry(5, true, "TABLE DATA", "a")
			tc.change(&e)
			var fe *FormatError
			_, err := testHead(14, testEntry(4, false, "TABLE", "a"), e).AppendBinary(nil)
			if !errors.As(err, &fe) || fe.Field != tc.field || fe.Entry != 2 || !errors.Is(err, ErrFormat) {
				t.Errorf("writing: %v", err)
			}
			// Such a head can only be made behind the writer's back.
			enc := encoder{}
			enc.header(&testHead(14).Header)
			enc.int("count", 1)
			start := len(enc.b)
			enc.tocEntry(Version{1, 14, 0}, &e)
			_, err = ParseHead(bytes.NewReader(enc.b))
			if !errors.As(err, &fe) || fe.Field != tc.field || fe.Entry != 1 || fe.Offset < int64(start) || !errors.Is(err, ErrFormat) {
				t.Errorf("reading: %v", err)
			}
			if !strings.Contains(err.Error(), "TOC entry 1, "+tc.field) || !strings.Contains(err.Error(), fmt.Sprint("at byte ", fe.Offset)) {
				t.Errorf("the message does not say where: %v", err)
			}
		})
	}
	for name, e := range map[string]Entry{
		"access method in 1.13": {TableAM: str("heap")},
		"relkind in 1.13":       {TableAM: Str{Null: true}, RelKind: 'r'},
	} {
		e.DumpID, e.Section, e.OffsetFlag = 1, SectionPreData, offsetNoData
		if _, err := testHead(13, e).AppendBinary(nil); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeaderFaults(t *testing.T) {
	for name, change := range map[string]func(*Header){
		"int size":          func(h *Header) { h.IntSize = 8 },
		"directory":         func(h *Header) { h.Format = 3 },
		"zstd in 1.14":      func(h *Header) { h.Compression = Compression{"zstd", 3} },
		"gzip, level 0":     func(h *Header) { h.Compression = Compression{"gzip", 0} },
		"level but none":    func(h *Header) { h.Compression = Compression{"none", 6} },
		"unknown algorithm": func(h *Header) { h.Version.Minor, h.Compression.Algorithm = 15, "brotli" },
	} {
		h := testHead(14)
		change(&h.Header)
		if b, err := h.AppendBinary([]byte("x")); !errors.Is(err, ErrFormat) || string(b) != "x" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	h := testHead(17)
	if _, err := h.AppendBinary(nil); !errors.Is(err, ErrUnknownVersion) {
		t.Error(err)
	}
	raw := encode(t, testHead(14))
	null := bytes.Replace(raw, append(appendInt(nil, 2), "db"...), appendInt(nil, -1), 1)
	if _, err := ParseHead(bytes.NewReader(null)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "database: NULL") {
		t.Error(err)
	}
	negative := bytes.Clone(raw)
	copy(negative[len(raw)-intLen:], appendInt(nil, -1))
	if _, err := ParseHead(bytes.NewReader(negative)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "count: -1 entries") {
		t.Error(err)
	}
}

func TestParseHeadReadsNotBeyond(t *testing.T) {
	raw := encode(t, testHead(16, testEntry(5, true, "TABLE DATA", "a")))
	r := io.MultiReader(bytes.NewReader(raw), iotest.ErrReader(errors.New("read too far")))
	if _, err := ParseHead(r); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseHead(stuck{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that stands still: %v", err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// Large heads: the text is held once, and the entries point into it.
func TestHeadMemory(t *testing.T) {
	const tables = 2000
	raw := func() []byte {
		entries := make([]Entry, 0, tables)
		for i := range tables {
			e := testEntry(i+1, false, "TABLE", fmt.Sprint("t", i))
			e.Defn = str(strings.Repeat("x", 5000))
			entries = append(entries, e)
		}
		return encode(t, testHead(14, entries...))
	}()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := NewScanner(bytes.NewReader(raw))
	h, err := s.Head()
	if err != nil || len(h.Entries) != tables {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	if limit := int64(len(raw)) * 3 / 2; held > limit {
		t.Errorf("a head of %d bytes holds %d, limit %d", len(raw), held, limit)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(raw)
}

func TestOffsetsAreLittleEndian(t *testing.T) {
	e := encoder{}
	e.offset(offsetSet, 0x0102030405060708)
	if e.b[0] != offsetSet || binary.LittleEndian.Uint64(e.b[1:]) != 0x0102030405060708 || e.b[1] != 8 {
		t.Errorf("% x", e.b)
	}
}
