package pgarchive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// everyCompression is one of each kind and the ends of the levels.
var everyCompression = []Compression{
	{"none", 0}, {"lz4", 0}, {"gzip", 0}, {"gzip", 1}, {"gzip", 9}, {"zstd", 0}, {"zstd", 1}, {"zstd", 19},
}

// packAll packs an archive to its end.
func packAll(t testing.TB, r io.Reader, opts PackOptions) (p *Packer, archive []byte, err error) {
	t.Helper()
	p, err = NewPacker(r, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	body, err := io.ReadAll(p)
	return p, append(p.HeadBytes(), body...), err
}

func mustPack(t testing.TB, archive []byte, opts PackOptions) (p *Packer, packed []byte) {
	t.Helper()
	p, packed, err := packAll(t, bytes.NewReader(archive), opts)
	if err != nil {
		t.Fatalf("%+v: %v", opts, err)
	}
	return p, packed
}

type unpacked struct {
	Stream
	content []byte
}

// unpackAll decodes every stream of an archive.
func unpackAll(t testing.TB, archive []byte) (all []unpacked, err error) {
	t.Helper()
	r := bytes.NewReader(archive)
	head, err := ParseHead(r)
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUnpacker(r, head.Compression, int64(len(archive)-r.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for {
		st, err := u.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		content, err := io.ReadAll(u)
		if err != nil {
			return all, err
		}
		all = append(all, unpacked{st, content})
	}
}

// sameContent compares what two archives hold, wherever their blocks stand.
func sameContent(t testing.TB, got, want []byte) {
	t.Helper()
	a, err := unpackAll(t, got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := unpackAll(t, want)
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != len(b) {
		t.Fatalf("%d streams, want %d", len(a), len(b))
	}
	for i := range a {
		a[i].Offset, b[i].Offset = 0, 0
		if a[i].Stream != b[i].Stream || !bytes.Equal(a[i].content, b[i].content) {
			t.Fatalf("stream %d is %+v with %d bytes, want %+v with %d", i, a[i].Stream, len(a[i].content), b[i].Stream, len(b[i].content))
		}
	}
}

// plainContent computes the evidence of a COPY payload the slow and obvious way.
func plainContent(payload []byte) Content {
	text := strings.TrimSuffix(string(payload), endMark)
	c := Content{Evidence: EvidenceRows, RawBytes: int64(len(payload)), SHA256: sha256.Sum256([]byte(text))}
	for line := range strings.Lines(text) {
		sum := sha256.Sum256([]byte(strings.TrimSuffix(line, "\n")))
		c.Rows++
		c.RowSums[0] += binary.BigEndian.Uint64(sum[:8])
		c.RowSums[1] += binary.BigEndian.Uint64(sum[8:16])
	}
	return c
}

// checkPacked holds a packed archive against the one it was made of.
func checkPacked(t testing.TB, p *Packer, packed, source []byte, objects []LargeObject) {
	t.Helper()
	s := mustScan(t, packed)
	theirs, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := p.Head()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ours, theirs) || p.HeadSize() != s.HeadSize() {
		t.Errorf("Head is\n%+v, written is\n%+v", ours.Header, theirs.Header)
	}
	blocks := slices.Clone(p.Blocks())
	for i := range blocks {
		blocks[i].Content = Content{}
	}
	if !slices.Equal(blocks, s.Blocks()) {
		t.Errorf("Blocks are\n%+v, a Scanner sees\n%+v", blocks, s.Blocks())
	}
	patched, err := p.PatchedHead()
	if err != nil {
		t.Fatal(err)
	}
	if want, err := s.PatchedHead(); err != nil || !bytes.Equal(patched, want) {
		t.Errorf("the patched heads differ: %v", err)
	}
	sameContent(t, packed, source)

	streams, err := unpackAll(t, source)
	if err != nil {
		t.Fatal(err)
	}
	promised := ours.Promised()
	var wantObjects []LargeObject
	for i, e := range promised {
		want := Content{Reason: noEvidenceInserts}
		if e.HoldsLargeObjects() {
			want = Content{Evidence: EvidenceObjects}
		}
		for _, st := range streams {
			if st.DumpID != e.DumpID {
				continue
			}
			switch {
			case st.LargeObject:
				wantObjects = append(wantObjects, LargeObject{st.DumpID, st.OID, int64(len(st.content)), sha256.Sum256(st.content)})
				want.RawBytes += int64(len(st.content))
			case e.CopyStmt.S == "":
				want.RawBytes = int64(len(st.content))
			default:
				want = plainContent(st.content)
			}
		}
		if got := p.Blocks()[i].Content; got != want {
			t.Errorf("%s: %+v, want %+v", e.Label(), got, want)
		}
	}
	if !slices.Equal(objects, wantObjects) {
		t.Errorf("large objects %+v, want %+v", objects, wantObjects)
	}
}

func TestPackGoldens(t *testing.T) {
	eachGolden(t, func(t *testing.T, name string, archive []byte) {
		head, err := ParseHead(bytes.NewReader(archive))
		if err != nil {
			t.Fatal(err)
		}
		if head.Compression.Algorithm != "none" {
			_, _, err := packAll(t, bytes.NewReader(archive), PackOptions{Compression: Compression{"gzip", 6}})
			if err == nil || !strings.Contains(err.Error(), "compressed already ("+head.Compression.Algorithm+")") {
				t.Errorf("a compressed archive: %v", err)
			}
			return
		}
		for _, c := range everyCompression {
			for workers := 1; workers <= 3; workers++ {
				var objects []LargeObject
				p, packed := mustPack(t, archive, PackOptions{Compression: c, Workers: workers, Verify: workers == 2,
					LargeObject: func(o LargeObject) { objects = append(objects, o) }})
				checkPacked(t, p, packed, archive, objects)
			}
		}
	})
}

func TestKeepGoldens(t *testing.T) {
	eachGolden(t, func(t *testing.T, name string, archive []byte) {
		var objects []LargeObject
		p, packed := mustPack(t, archive, PackOptions{Compression: Compression{Algorithm: KeepCompression}, Workers: 2,
			LargeObject: func(o LargeObject) { objects = append(objects, o) }})
		if !bytes.Equal(packed, archive) {
			t.Fatal("the archive was changed")
		}
		checkPacked(t, p, packed, archive, objects)
	})
}
