package archiver

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// IndexFormat is the "format" of the indexes this version writes.
const (
	IndexFormat     = "pgstow-index/1"
	indexFormatName = "pgstow-index/"
	indexMajor      = 1
)

// Kinds of data blocks.
const (
	KindTable        = "table"
	KindLargeObjects = "large objects"
)

// Index is the JSON of index.json.gz: where each data block lies in the dump,
// and what is in it.
type Index struct {
	Format  string       `json:"format"`
	ID      string       `json:"id"`
	Dump    IndexDump    `json:"dump"`
	Entries int          `json:"entries"` // in the dump's table of contents
	Blocks  []IndexBlock `json:"blocks"`
	// LargeObjects are those of all blocks, in the order of the dump: each
	// block has the next IndexBlock.LargeObjects of them.
	LargeObjects []IndexObject `json:"large_objects,omitempty"`
	// Withheld is what the manifest of an encrypted archive does not tell.
	Withheld *Withheld `json:"withheld,omitempty"`
}

// IndexDump ties the index to one dump, as it is before it is encrypted.
type IndexDump struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	Head   *Range `json:"head,omitempty"`
	Body   *Range `json:"body,omitempty"`
}

// IndexBlock is one data block. A table may have several.
type IndexBlock struct {
	DumpID       int    `json:"dump_id"`
	Kind         string `json:"kind"`
	Schema       string `json:"schema,omitempty"`
	Name         string `json:"name"`
	Offset       int64  `json:"offset"` // of its type byte, from the start of the dump
	Length       int64  `json:"length"` // from the type byte to behind the closing zero
	SHA256       string `json:"sha256"` // of these bytes
	LargeObjects int    `json:"large_objects,omitempty"`
	// RawBytes is the length of its content before compression.
	RawBytes int64 `json:"raw_bytes"`
	// Content is the evidence of a table's rows; nil where Reason says why
	// there is none, and for large objects, which have theirs one by one.
	Content *IndexContent `json:"content,omitempty"`
	Reason  string        `json:"reason,omitempty"`
}

// IndexContent is the evidence of a table's rows; see docs/content-hashes.md.
type IndexContent struct {
	Rows int64 `json:"rows"`
	// SHA256 of the COPY text in the order of the dump.
	SHA256 string `json:"sha256"`
	// RowSums do not depend on the order: two 64-bit sums as 16 hexadecimal
	// digits each, since numbers in JSON lose bits beyond 53.
	RowSums [2]string `json:"row_sums"`
}

// IndexObject is the evidence of one large object, in JSON the array
// [oid, bytes, "sha256"].
type IndexObject struct {
	OID      uint32
	RawBytes int64
	SHA256   [sha256.Size]byte
}

// MarshalJSON writes the array.
func (o IndexObject) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `[%d,%d,"%x"]`, o.OID, o.RawBytes, o.SHA256), nil
}

// UnmarshalJSON reads the array.
func (o *IndexObject) UnmarshalJSON(b []byte) error {
	var sum string
	fields := []any{&o.OID, &o.RawBytes, &sum}
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	if len(fields) < 3 || o.RawBytes < 0 {
		return fmt.Errorf("%s is no [oid, bytes, sha256]", b)
	}
	return decodeSum(&o.SHA256, sum)
}

// newIndex describes the blocks of a dump that is stored as dump.
func newIndex(id string, head *pgarchive.Head, blocks []pgarchive.Block, objects []IndexObject, dump StoredObject) *Index {
	entries := make(map[int]*pgarchive.Entry, len(head.Entries))
	for i := range head.Entries {
		entries[head.Entries[i].DumpID] = &head.Entries[i]
	}
	ix := &Index{
		Format: IndexFormat, ID: id, Entries: len(head.Entries), Blocks: make([]IndexBlock, len(blocks)), LargeObjects: objects,
		Dump: IndexDump{Size: dump.plainSize(), SHA256: dump.plainSHA256(), Head: dump.Head, Body: dump.Body},
	}
	for i, b := range blocks {
		ib := IndexBlock{
			DumpID: b.DumpID, Kind: KindTable, Offset: b.Offset, Length: b.Length,
			SHA256: hex.EncodeToString(b.SHA256[:]), LargeObjects: b.LargeObjects,
			RawBytes: b.Content.RawBytes, Reason: b.Content.Reason,
		}
		if b.BlobBlock {
			ib.Kind = KindLargeObjects
		}
		if b.Content.Evidence == pgarchive.EvidenceRows {
			ib.Content = newContent(b.Content)
		}
		if e := entries[b.DumpID]; e != nil {
			ib.Schema, ib.Name = e.Namespace.S, e.Tag.S
		}
		ix.Blocks[i] = ib
	}
	return ix
}

func newContent(c pgarchive.Content) *IndexContent {
	return &IndexContent{Rows: c.Rows, SHA256: hex.EncodeToString(c.SHA256[:]), RowSums: [2]string{
		fmt.Sprintf("%016x", c.RowSums[0]), fmt.Sprintf("%016x", c.RowSums[1]),
	}}
}

// totals sums the index up.
func (ix *Index) totals() Totals {
	t := Totals{Bytes: ix.Dump.Size, Blocks: len(ix.Blocks)}
	tables := map[[2]string]bool{}
	var rows int64
	for _, b := range ix.Blocks {
		t.LargeObjects += b.LargeObjects
		t.RawBytes += b.RawBytes
		if b.Kind == KindTable {
			tables[[2]string{b.Schema, b.Name}] = true
		}
		if b.Content != nil {
			rows += b.Content.Rows
		}
	}
	t.Tables = len(tables)
	if evidence, _ := ix.evidence(); evidence == EvidenceContent {
		t.Rows = &rows
	}
	return t
}

// evidence says whether there is some for everything, or why not.
func (ix *Index) evidence() (evidence, reason string) {
	without, objects := 0, 0
	for _, b := range ix.Blocks {
		objects += b.LargeObjects
		if b.Kind == KindTable && b.Content == nil {
			if without++; without == 1 {
				reason = b.label() + ": " + cmp.Or(b.Reason, "nobody looked at its content")
			}
		}
	}
	switch {
	case without > 1:
		return EvidenceNone, fmt.Sprintf("%s; and %d more", reason, without-1)
	case without == 1:
		return EvidenceNone, reason
	case objects != len(ix.LargeObjects):
		return EvidenceNone, "nobody looked at the large objects"
	}
	return EvidenceContent, ""
}

// encode is the index as it is stored: a line per block and per large object,
// compressed as they come.
func (ix *Index) encode() ([]byte, error) {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	if err := errors.Join(ix.write(zw), zw.Close()); err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	return b.Bytes(), nil
}

func (ix *Index) write(w io.Writer) error {
	rest := *ix
	rest.Blocks, rest.LargeObjects = nil, nil
	begin, err := json.Marshal(struct {
		*Index
		Blocks any `json:"blocks,omitempty"` // hides the one of Index
	}{Index: &rest})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s,\n\"blocks\":[", bytes.TrimSuffix(begin, []byte("}")))
	if err := writeLines(out, ix.Blocks); err != nil {
		return err
	}
	if len(ix.LargeObjects) > 0 {
		fmt.Fprint(out, "],\n\"large_objects\":[")
		if err := writeLines(out, ix.LargeObjects); err != nil {
			return err
		}
	}
	fmt.Fprint(out, "]}\n")
	return out.Flush()
}

// writeLines writes the elements of a JSON array.
func writeLines[T any](w *bufio.Writer, list []T) error {
	for i := range list {
		raw, err := json.Marshal(list[i])
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		fmt.Fprintf(w, "\n%s", raw)
	}
	return nil
}

// maxIndex bounds an index once it is decompressed: about 5 million blocks.
const maxIndex = 1 << 30

// readIndex reads the index that m names and checks it against m; nil when the
// archive has none.
func readIndex(ctx context.Context, b storage.Bucket, e Entry, m *Manifest, ids Identities) (*Index, error) {
	o := m.Objects.Index
	if o == nil {
		return nil, nil
	}
	raw, err := readPlain(ctx, b, e, o, ids)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	ix, err := decodeIndex(raw)
	if err == nil {
		err = ix.check(m)
	}
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", o.Key, err)
	}
	return ix, nil
}

// readStored reads a small object that a manifest names and compares it.
func readStored(ctx context.Context, b storage.Bucket, o *StoredObject) ([]byte, error) {
	raw, err := readSmall(ctx, b, o.Key, o.Version, o.Size)
	switch {
	case err != nil:
		return nil, err
	case int64(len(raw)) != o.Size:
		return nil, integrity("%s has %d bytes, the manifest says %d", o.Key, len(raw), o.Size)
	case hexSum(raw) != o.SHA256:
		return nil, integrity("%s differs from its SHA-256 in the manifest", o.Key)
	}
	return raw, nil
}

func decodeIndex(raw []byte) (*Index, error) {
	zr, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, integrity("decompress: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(zr, maxIndex+1))
	if err != nil {
		return nil, integrity("decompress: %w", err)
	}
	if len(text) > maxIndex {
		return nil, integrity("it is larger than %d bytes", maxIndex)
	}
	if err := checkFormat(text, indexFormatName, indexMajor); err != nil {
		return nil, err
	}
	ix := new(Index)
	if err := json.Unmarshal(text, ix); err != nil {
		return nil, integrity("a field has the wrong type: %w", err)
	}
	return ix, nil
}

// check compares the index with the manifest, and its blocks with each other:
// they follow one another from the end of the head to the end of the dump.
func (ix *Index) check(m *Manifest) error {
	d := m.Objects.Dump
	size := d.plainSize()
	if ix.ID != m.ID || ix.Dump.Size != size || ix.Dump.SHA256 != d.plainSHA256() ||
		!sameRange(ix.Dump.Head, d.Head) || !sameRange(ix.Dump.Body, d.Body) {
		return integrity("it describes another dump than the manifest")
	}
	if d.Head == nil {
		return integrity("it describes a dump without a head")
	}
	at, objects := d.Head.Length, 0
	var content, rows int64
	for i, b := range ix.Blocks {
		if raw, err := hex.DecodeString(b.SHA256); err != nil || len(raw) != 32 {
			return integrity("block %d: %q is no SHA-256", i, b.SHA256)
		}
		if b.Offset != at || b.Length <= 0 || b.Length > size-at {
			return integrity("block %d does not follow the one before it", i)
		}
		if b.RawBytes < 0 || b.LargeObjects < 0 {
			return integrity("block %d holds less than nothing", i)
		}
		if err := b.Content.check(); err != nil {
			return integrity("block %d: %w", i, err)
		}
		at += b.Length
		objects += b.LargeObjects
		content += b.RawBytes
		if b.Content != nil {
			rows += b.Content.Rows
		}
		if objects < 0 || content < 0 || rows < 0 {
			return integrity("the blocks up to %d hold more than can be", i)
		}
	}
	if at != size {
		return integrity("its blocks end at %d, the dump at %d", at, size)
	}
	if n := len(ix.LargeObjects); n > 0 && n != objects {
		return integrity("it has %d large objects, its blocks have %d", n, objects)
	}
	return nil
}

// check wants the hashes to be some.
func (c *IndexContent) check() error {
	if c == nil {
		return nil
	}
	for i, s := range append([]string{c.SHA256}, c.RowSums[:]...) {
		want := sha256.Size
		if i > 0 {
			want = 8
		}
		if raw, err := hex.DecodeString(s); err != nil || len(raw) != want {
			return fmt.Errorf("%q is no hash of %d bytes", s, want)
		}
	}
	if c.Rows < 0 {
		return fmt.Errorf("%d rows", c.Rows)
	}
	return nil
}

func sameRange(a, b *Range) bool { return a == b || a != nil && b != nil && *a == *b }
