package archiver

// IndexFormat is the "format" of the indexes this version writes.
const IndexFormat = "pgstow-index/1"

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
