package archiver

import (
	"time"

	"github.com/pgstow/pgstow/storage"
)

// Format is the "format" of the manifests this version writes, and the newest
// it reads.
const (
	Format      = "pgstow/1"
	formatName  = "pgstow/"
	formatMajor = 1
)

// Values of Manifest.Structure.
const (
	StructureComplete  = "complete"  // every promised data block is there, nothing trails
	StructureUnchecked = "unchecked" // an archive version newer than this pgstow knows
)

// EvidenceNone says that no content evidence was taken; the reason stands
// beside it.
const EvidenceNone = "none"

// Values of Manifest.Globals.
const (
	GlobalsIncluded = "included"
	GlobalsOmitted  = "omitted" // as asked for
	GlobalsDenied   = "denied"  // not readable with the rights of the connection
)

// Values of ReadBack.
const (
	ReadBackDone   = "done"
	ReadBackDenied = "denied" // put-only credentials: the store's reply to the upload is all there is
)

// Manifest describes one archive. It is the JSON of manifest.json; see
// docs/archive-layout.md and docs/manifest.schema.json.
type Manifest struct {
	Format   string    `json:"format"`
	ID       string    `json:"id"`
	Label    string    `json:"label"`
	Policy   string    `json:"policy"`
	Key      string    `json:"key"` // the manifest's own, compared on reading
	Pgstow   string    `json:"pgstow"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`

	Source  Source      `json:"source"`
	Tools   Tools       `json:"tools"`
	Archive ArchiveInfo `json:"archive"`

	Structure      string `json:"structure"`
	Evidence       string `json:"evidence"`
	EvidenceReason string `json:"evidence_reason,omitempty"`
	Globals        string `json:"globals"`
	GlobalsReason  string `json:"globals_reason,omitempty"`
	ReadBack       string `json:"read_back"`

	Objects  Objects  `json:"objects"`
	Totals   Totals   `json:"totals"`
	Warnings []string `json:"warnings,omitempty"`
}

// Source is where the dump came from. It holds no credentials.
type Source struct {
	Host             string `json:"host"` // "" for a socket
	Database         string `json:"database"`
	ServerVersion    string `json:"server_version"`
	Encoding         string `json:"encoding,omitempty"`
	SystemIdentifier string `json:"system_identifier,omitempty"`
	Snapshot         string `json:"snapshot,omitempty"`
	InRecovery       bool   `json:"in_recovery,omitempty"`
}

// Tools are the programs that made the dump.
type Tools struct {
	PgDump string `json:"pg_dump"`
}

// ArchiveInfo is what the dump's own header says.
type ArchiveInfo struct {
	Version          string `json:"version"` // of the custom format, "1.14.0"; "" when unchecked
	Compression      string `json:"compression,omitempty"`
	CompressionLevel int    `json:"compression_level,omitempty"`
}

// Objects are the archive's objects.
type Objects struct {
	Dump    StoredObject  `json:"dump"`
	Index   StoredObject  `json:"index"`
	Globals *StoredObject `json:"globals,omitempty"`
}

// StoredObject is one object as the store confirmed it. The dump carries Head
// (unless its structure is unchecked); one with a deferred head carries Body
// as well, all others the SHA256 of the whole.
type StoredObject struct {
	Key      string            `json:"key"`
	Version  string            `json:"version,omitempty"` // S3 version id or GCS generation
	Size     int64             `json:"size"`
	SHA256   string            `json:"sha256,omitempty"`
	Head     *Range            `json:"head,omitempty"`
	Body     *Range            `json:"body,omitempty"`
	Checksum *storage.Checksum `json:"checksum,omitempty"`
}

// Range is the hash of a first or last part of an object.
type Range struct {
	Length int64  `json:"length"`
	SHA256 string `json:"sha256"`
}

// Totals are sums over the dump.
type Totals struct {
	Bytes        int64 `json:"bytes"` // stored bytes of the dump
	Blocks       int   `json:"blocks"`
	Tables       int   `json:"tables"` // tables with data
	LargeObjects int   `json:"large_objects"`
}
