package archiver

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
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

// Index is the JSON of index.json.gz: where each data block lies in the dump.
type Index struct {
	Format  string       `json:"format"`
	ID      string       `json:"id"`
	Dump    IndexDump    `json:"dump"`
	Entries int          `json:"entries"` // in the dump's table of contents
	Blocks  []IndexBlock `json:"blocks"`
}

// IndexDump ties the index to one dump.
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
}

// newIndex describes the blocks of a dump that is stored as dump.
func newIndex(id string, head *pgarchive.Head, blocks []pgarchive.Block, dump StoredObject) *Index {
	entries := make(map[int]*pgarchive.Entry, len(head.Entries))
	for i := range head.Entries {
		entries[head.Entries[i].DumpID] = &head.Entries[i]
	}
	ix := &Index{
		Format: IndexFormat, ID: id, Entries: len(head.Entries), Blocks: make([]IndexBlock, len(blocks)),
		Dump: IndexDump{Size: dump.Size, SHA256: dump.SHA256, Head: dump.Head, Body: dump.Body},
	}
	for i, b := range blocks {
		ib := IndexBlock{
			DumpID: b.DumpID, Kind: KindTable, Offset: b.Offset, Length: b.Length,
			SHA256: hex.EncodeToString(b.SHA256[:]), LargeObjects: b.LargeObjects,
		}
		if b.BlobBlock {
			ib.Kind = KindLargeObjects
		}
		if e := entries[b.DumpID]; e != nil {
			ib.Schema, ib.Name = e.Namespace.S, e.Tag.S
		}
		ix.Blocks[i] = ib
	}
	return ix
}

// totals sums the index up.
func (ix *Index) totals() Totals {
	t := Totals{Bytes: ix.Dump.Size, Blocks: len(ix.Blocks)}
	tables := map[[2]string]bool{}
	for _, b := range ix.Blocks {
		t.LargeObjects += b.LargeObjects
		if b.Kind == KindTable {
			tables[[2]string{b.Schema, b.Name}] = true
		}
	}
	t.Tables = len(tables)
	return t
}

// encode is the index as it is stored: one line per block, compressed.
func (ix *Index) encode() ([]byte, error) {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	if err := json.NewEncoder(zw).Encode(ix); err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	if err := zw.Close(); err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	return b.Bytes(), nil
}

// maxIndex bounds an index once it is decompressed: about 5 million blocks.
const maxIndex = 1 << 30

// readIndex reads the index that m names and checks it against m; nil when the
// archive has none.
func readIndex(ctx context.Context, b storage.Bucket, m *Manifest) (*Index, error) {
	o := m.Objects.Index
	if o == nil {
		return nil, nil
	}
	raw, err := readStored(ctx, b, o)
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
	if ix.ID != m.ID || ix.Dump.Size != d.Size || ix.Dump.SHA256 != d.SHA256 ||
		!sameRange(ix.Dump.Head, d.Head) || !sameRange(ix.Dump.Body, d.Body) {
		return integrity("it describes another dump than the manifest")
	}
	if d.Head == nil {
		return integrity("it describes a dump without a head")
	}
	at := d.Head.Length
	for i, b := range ix.Blocks {
		if raw, err := hex.DecodeString(b.SHA256); err != nil || len(raw) != 32 {
			return integrity("block %d: %q is no SHA-256", i, b.SHA256)
		}
		if b.Offset != at || b.Length <= 0 || b.Length > d.Size-at {
			return integrity("block %d does not follow the one before it", i)
		}
		at += b.Length
	}
	if at != d.Size {
		return integrity("its blocks end at %d, the dump at %d", at, d.Size)
	}
	return nil
}

func sameRange(a, b *Range) bool { return a == b || a != nil && b != nil && *a == *b }
