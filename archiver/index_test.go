package archiver

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// goldenIndex is the index of a golden dump, stored as it is.
func goldenIndex(t testing.TB, file string) *Index {
	t.Helper()
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var objects []IndexObject
	p, err := pgarchive.NewPacker(bytes.NewReader(golden), pgarchive.PackOptions{
		Compression: pgarchive.Compression{Algorithm: pgarchive.KeepCompression}, Workers: 1,
		LargeObject: func(o pgarchive.LargeObject) {
			objects = append(objects, IndexObject{OID: o.OID, RawBytes: o.RawBytes, SHA256: o.SHA256})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := io.Copy(io.Discard, p); err != nil {
		t.Fatal(err)
	}
	head, err := p.Head()
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(golden))
	return newIndex("a0000001", head, p.Blocks(), objects, StoredObject{
		Size: size, SHA256: hexSum(golden), Head: &Range{Length: p.HeadSize(), SHA256: hexSum(golden[:p.HeadSize()])},
	})
}

// Any bytes as an index: a reason why it is none, or one that is consistent in
// itself and is written back the same. Fuzzed is the text, as no change of
// compressed bytes gets past gzip's own checksum, and the compressed bytes.
func FuzzIndex(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.dump"))
	if err != nil || len(files) < 18 {
		f.Fatalf("golden dumps: %d, %v", len(files), err)
	}
	for _, file := range files {
		ix := goldenIndex(f, file)
		raw, err := ix.encode()
		if err != nil {
			f.Fatal(err)
		}
		text := unzipped(f, raw)
		if ix, err = decodeIndex(raw); err != nil || ix.check(describing(ix)) != nil {
			f.Fatalf("%s: %v", file, err)
		}
		f.Add(text, false)
		f.Add(raw, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, compressed bool) {
		raw := b
		if !compressed {
			raw = zipped(t, b)
		}
		ix, err := decodeIndex(raw)
		if err == nil {
			m := describing(ix)
			if m.Objects.Dump.checkHashes() != nil {
				return // no manifest that was read says this, so neither does an index that is compared with one
			}
			err = ix.check(m)
		}
		if err != nil {
			if !errors.Is(err, ErrIntegrity) && !errors.Is(err, ErrFormat) {
				t.Fatalf("unclassified: %v", err)
			}
			return
		}
		checkIndex(t, ix)
		useIndex(t, ix)
		first, err := ix.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeIndex(first)
		if err != nil {
			t.Fatalf("does not read what it wrote: %v", err)
		}
		if err := again.check(describing(ix)); err != nil {
			t.Fatalf("refuses what it wrote: %v", err)
		}
		if second, err := again.encode(); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("written back differently: %v\n%s\n%s", err, unzipped(t, first), unzipped(t, second))
		}
	})
}

// describing is a manifest of the dump that the index says it is of.
func describing(ix *Index) *Manifest {
	m := &Manifest{ID: ix.ID}
	m.Objects.Dump = StoredObject{Size: ix.Dump.Size, SHA256: ix.Dump.SHA256, Head: ix.Dump.Head, Body: ix.Dump.Body}
	return m
}

// checkIndex wants an index that was accepted to say nothing impossible.
func checkIndex(t *testing.T, ix *Index) {
	t.Helper()
	at := ix.Dump.Head.Length
	var raw, rows int64
	for i, b := range ix.Blocks {
		if b.Offset != at || b.Length <= 0 {
			t.Fatalf("block %d is %+v, the one before ends at %d", i, b, at)
		}
		at += b.Length
		if raw += b.RawBytes; raw < 0 || b.RawBytes < 0 {
			t.Fatalf("block %d: %d bytes of content", i, raw)
		}
		if b.Content == nil {
			continue
		}
		if rows += b.Content.Rows; rows < 0 || b.Content.Rows < 0 {
			t.Fatalf("block %d: %d rows", i, rows)
		}
	}
	if at != ix.Dump.Size {
		t.Fatalf("the blocks end at %d of %d", at, ix.Dump.Size)
	}
	totals := ix.totals()
	evidence, reason := ix.evidence()
	if totals.RawBytes != raw || totals.LargeObjects < len(ix.LargeObjects) || (totals.Rows != nil) != (evidence == EvidenceContent) ||
		(evidence == EvidenceNone) != (reason != "") {
		t.Fatalf("totals %+v, evidence %q, %q", totals, evidence, reason)
	}
	for _, c := range ix.Contents() {
		if c.RawBytes < 0 || c.Rows < -1 {
			t.Fatalf("contents %+v", c)
		}
	}
}

func zipped(t testing.TB, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unzipped(t testing.TB, raw []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// useIndex takes an index that was accepted for what a restore does with it.
func useIndex(t *testing.T, ix *Index) {
	d := describing(ix).Objects.Dump
	want, err := expected(d, ix)
	if err != nil {
		t.Fatalf("hashes that were checked: %v", err)
	}
	if _, err := pgarchive.NewVerifier(strings.NewReader(""), want); err != nil {
		t.Fatalf("places that were checked: %v", err)
	}
	if totals, contents := ix.totals(), ix.Contents(); len(contents) > totals.Blocks {
		t.Fatalf("%+v, %d contents", totals, len(contents))
	}
	meter := newLoadMeter(ix, newTracker(nil))
	meter.choose(want.Blocks)
	at := &partCursor{parts: want.Blocks}
	at.passed(meter.worker(), int(d.Size))
	if meter.rows != meter.total {
		t.Fatalf("%d of %d rows when all has passed", meter.rows, meter.total)
	}
}
