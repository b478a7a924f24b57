package pgarchive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// compressed is data as one zlib stream or frame, made without the packer.
func compressed(t testing.TB, algorithm, data string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch algorithm {
	case "gzip":
		w = zlib.NewWriter(&b)
	case "zstd":
		enc, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = enc
	case "lz4":
		w = lz4.NewWriter(&b)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// unpackBlocks decodes bare blocks; the streams are joined by a bar.
func unpackBlocks(r io.Reader, algorithm string) (string, error) {
	u, err := NewUnpacker(r, Compression{Algorithm: algorithm}, 1000)
	if err != nil {
		return "", err
	}
	var all []string
	for {
		if _, err := u.Next(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return strings.Join(all, "|"), err
		}
		content, err := io.ReadAll(u)
		if err != nil {
			return strings.Join(all, "|"), err
		}
		all = append(all, string(content))
	}
}

// What pg_restore does not notice, or not well: a frame that was cut, a second frame in a
// chunk, a second zlib stream, bytes behind either.
func TestUnpackHazards(t *testing.T) {
	long := strings.Repeat("many a word of text ", 20_000)
	for _, alg := range []string{"gzip", "zstd", "lz4"} {
		one, two := compressed(t, alg, long), compressed(t, alg, "second")
		type fault struct {
			block []byte
			kind  error
			want  string
		}
		cases := map[string]fault{
			"one chunk":        {tableBlock(1, one), nil, long},
			"three chunks":     {tableBlock(1, one[:1], one[1:5], one[5:]), nil, long},
			"cut":              {tableBlock(1, one[:len(one)-1]), ErrIncomplete, "stream is cut (block of dump ID 1)"},
			"cut at once":      {tableBlock(1, one[:1]), ErrIncomplete, "is cut"},
			"garbage":          {tableBlock(1, "garbage!"), ErrFormat, alg + ": "},
			"garbage behind":   {tableBlock(1, one+"garbage!"), ErrFormat, "bytes follow"},
			"two in a chunk":   {tableBlock(1, one+two), ErrFormat, "bytes follow"},
			"across a chunk":   {tableBlock(1, one+two[:3], two[3:]), ErrFormat, "bytes follow"},
			"in large objects": {blobsBlock(1, one, two), nil, long + "|second"},
			"cut object":       {blobsBlock(1, one[:len(one)-2], two), ErrIncomplete, "is cut"},
		}
		if alg == "gzip" {
			cases["two streams"] = fault{tableBlock(1, one, two), ErrFormat, "bytes follow the zlib stream"}
			cases["no stream"] = fault{tableBlock(1), ErrIncomplete, "is cut"}
			cases["wrong sum"] = fault{tableBlock(1, one[:len(one)-1]+"x"), ErrFormat, "gzip: "}
		} else {
			cases["a frame a chunk"] = fault{tableBlock(1, one, two, one), nil, long + "second" + long}
			cases["second cut"] = fault{tableBlock(1, one, two[:len(two)-1]), ErrIncomplete, "is cut"}
			cases["second garbage"] = fault{tableBlock(1, one, "garbage!"), ErrFormat, alg + ": "}
			cases["no frame"] = fault{tableBlock(1), nil, ""}
			skippable := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, 2)
			cases["skippable frame"] = fault{tableBlock(1, string(skippable)+"xx", one), ErrFormat, "begins no"}
		}
		for name, tc := range cases {
			for _, r := range []io.Reader{bytes.NewReader(tc.block), iotest.OneByteReader(bytes.NewReader(tc.block))} {
				got, err := unpackBlocks(r, alg)
				switch {
				case tc.kind == nil && (err != nil || got != tc.want):
					t.Errorf("%s, %s: %d bytes, %v", alg, name, len(got), err)
				case tc.kind != nil && (!errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want)):
					t.Errorf("%s, %s: %v, want %v, %q", alg, name, err, tc.kind, tc.want)
				}
			}
		}
	}
}

// Wherever the blocks of a golden archive are cut, there is an error, unless it is between
// two of them, which only the TOC can tell.
func TestUnpackCutAnywhere(t *testing.T) {
	eachGolden(t, func(t *testing.T, name string, archive []byte) {
		s := mustScan(t, archive)
		head, _ := s.Head()
		body := archive[s.HeadSize():]
		var ends []int
		for _, b := range s.Blocks() {
			ends = append(ends, int(b.Offset+b.Length-s.HeadSize()))
		}
		for n := 1; n < len(body); n += 1 + len(body)/300 {
			_, err := unpackBlocks(bytes.NewReader(body[:n]), head.Compression.Algorithm)
			if slices.Contains(ends, n) == (err != nil) {
				t.Fatalf("cut at %d of %d: %v", n, len(body), err)
			}
			if err != nil && !errors.Is(err, ErrIncomplete) {
				t.Fatalf("cut at %d: %v", n, err)
			}
		}
	})
}

func TestUnpackSourceErrors(t *testing.T) {
	failure := errors.New("connection reset")
	for _, alg := range []string{"none", "gzip", "zstd", "lz4"} {
		block := tableBlock(1, "rows")
		if alg != "none" {
			block = tableBlock(1, compressed(t, alg, strings.Repeat("rows\n", 1000)))
		}
		for n := range block {
			_, err := unpackBlocks(io.MultiReader(bytes.NewReader(block[:n]), iotest.ErrReader(failure)), alg)
			if err != failure { //nolint:errorlint // unchanged
				t.Fatalf("%s, at %d: %v", alg, n, err)
			}
		}
	}
}

// Streams that are not read, or not to their end, are skipped.
func TestUnpackSkips(t *testing.T) {
	for _, alg := range []string{"gzip", "zstd", "lz4"} {
		blocks := append(tableBlock(7, compressed(t, alg, strings.Repeat("x", 300_000))), blobsBlock(8, compressed(t, alg, "one"), compressed(t, alg, "two"))...)
		u, err := NewUnpacker(bytes.NewReader(blocks), Compression{Algorithm: alg}, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := 0; ; i++ {
			st, err := u.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if _, err := io.ReadFull(u, make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
			}
			got = append(got, fmt.Sprint(st.DumpID, st.LargeObject, st.OID))
		}
		if want := []string{"7 false 0", "8 true 16000", "8 true 16001"}; !slices.Equal(got, want) {
			t.Errorf("%s: %v", alg, got)
		}
		if n, err := u.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // bare
			t.Errorf("%s: read behind the end: %d, %v", alg, n, err)
		}
	}
	if _, err := NewUnpacker(nil, Compression{Algorithm: "brotli"}, 0); err == nil {
		t.Error("brotli")
	}
}
