package archiver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
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

// Values of Manifest.Evidence.
const (
	// EvidenceContent: the index has the row count and the content hashes of
	// every table, and the hash of every large object.
	EvidenceContent = "content"
	// EvidenceNone: they are not there for all; the reason stands beside it.
	EvidenceNone = "none"
)

// Values of Manifest.Globals.
const (
	GlobalsIncluded   = "included"
	GlobalsOmitted    = "omitted"    // as asked for
	GlobalsUnreadable = "unreadable" // with the rights of this connection
)

// Values of ReadBack.
const (
	ReadBackDone   = "done"
	ReadBackDenied = "denied" // put-only credentials: the store's reply to the upload is all there is
	// ReadBackUnavailable is of the manifest alone: the store confirmed it and
	// could not be reached afterwards. The archive exists.
	ReadBackUnavailable = "unavailable"
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
	// RolePasswords: the globals have the roles' password hashes.
	RolePasswords bool   `json:"role_passwords,omitempty"`
	ReadBack      string `json:"read_back"`
	// Kept is nil in archives made before there were policies.
	Kept *Kept `json:"kept,omitempty"`
	// Previous is nil in archives made before manifests named others.
	Previous *Previous `json:"previous,omitempty"`
	// Recipients are whom the objects are encrypted to, as public keys; none for
	// a plain archive. Of an encrypted one, nothing here names a table.
	Recipients []string `json:"recipients,omitempty"`

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

// origin tells databases apart that may lie under one label: where the cluster
// cannot be told, its host stands for it.
func (s Source) origin() string {
	return cmp.Or(s.SystemIdentifier, "host "+s.Host) + "\x00" + s.Database
}

// Tools are the programs that made the dump.
type Tools struct {
	PgDump string `json:"pg_dump"`
	// PgDumpArgs are the options that were given to it: an archive made with
	// some may be a part of the database.
	PgDumpArgs []string `json:"pg_dump_args,omitempty"`
}

// ArchiveInfo is what the dump's own header says, and the level of compression
// where the header has no place for it.
type ArchiveInfo struct {
	Version          string `json:"version"` // of the custom format, "1.14.0"; "" when unchecked
	Compression      string `json:"compression,omitempty"`
	CompressionLevel int    `json:"compression_level,omitempty"`
}

// Objects are the archive's objects.
type Objects struct {
	Dump    StoredObject  `json:"dump"`
	Index   *StoredObject `json:"index,omitempty"` // nil when the structure is unchecked
	Globals *StoredObject `json:"globals,omitempty"`
}

// StoredObject is one object as the store confirmed it. The dump carries Head
// (unless its structure is unchecked); one with a deferred head carries Body
// as well, all others the SHA256 of the whole. Of an encrypted object, Size and
// SHA256 are those of the age file, Plain and Head those of what is in it.
type StoredObject struct {
	Key      string            `json:"key"`
	Version  string            `json:"version,omitempty"` // S3 version id or GCS generation
	Size     int64             `json:"size"`
	SHA256   string            `json:"sha256,omitempty"`
	Head     *Range            `json:"head,omitempty"`
	Body     *Range            `json:"body,omitempty"`
	Plain    *Plain            `json:"plain,omitempty"`
	Checksum *storage.Checksum `json:"checksum,omitempty"`

	recipients []string // of the manifest that names it
}

// Range is the hash of a first or last part of an object.
type Range struct {
	Length int64  `json:"length"`
	SHA256 string `json:"sha256"`
}

// Totals are sums over the dump.
type Totals struct {
	Bytes        int64 `json:"bytes"`     // stored bytes of the dump
	RawBytes     int64 `json:"raw_bytes"` // of its data blocks before compression
	Blocks       int   `json:"blocks"`
	Tables       int   `json:"tables"` // tables with data
	LargeObjects int   `json:"large_objects"`
	// Rows of all tables; nil without evidence.
	Rows *int64 `json:"rows,omitempty"`
}

// maxManifest bounds what is read as a manifest: a real one has a few KiB.
const maxManifest = 16 << 20

// encode is the manifest as it is stored.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b.Bytes(), nil
}

// checkFormat reads nothing but the format, because a newer major may have
// changed the type of every other field.
func checkFormat(raw []byte, name string, major int) error {
	var f struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return integrity("it is truncated or not JSON: %w", err)
	}
	version, ok := strings.CutPrefix(f.Format, name)
	version, _, _ = strings.Cut(version, ".")
	got, err := strconv.Atoi(version)
	switch {
	case !ok || err != nil || got < 1:
		return integrity("its format is %q, not %s%d", f.Format, name, major)
	case got > major:
		return fmt.Errorf("%w: its format is %q, this one reads up to %s%d; upgrade pgstow",
			ErrFormat, f.Format, name, major)
	}
	return nil
}

// decodeManifest reads and checks what is stored as the manifest of dir.
func decodeManifest(raw []byte, dir Dir) (*Manifest, error) {
	if err := checkFormat(raw, formatName, formatMajor); err != nil {
		return nil, err
	}
	m := new(Manifest)
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, integrity("a field has the wrong type: %w", err)
	}
	if own := dir.Key(ManifestName); m.Key != own {
		return nil, integrity("it belongs to %q: it was copied or moved here", m.Key)
	}
	if m.ID != dir.ID || m.Label != dir.Label || m.Policy != dir.Policy {
		return nil, integrity("its id, label or policy differ from its key")
	}
	return m, m.checkObjects(dir)
}

// checkObjects refuses manifests whose objects lie elsewhere or that lack what
// a restore relies on.
func (m *Manifest) checkObjects(dir Dir) error {
	// All of them are encrypted, or none.
	suffix := ""
	if len(m.Recipients) > 0 {
		suffix = EncryptedSuffix
	}
	checks := []struct {
		object *StoredObject
		name   string
		must   bool
	}{
		{&m.Objects.Dump, DumpName, true},
		{m.Objects.Index, IndexName, m.Structure == StructureComplete},
		{m.Objects.Globals, GlobalsName, m.Globals == GlobalsIncluded},
	}
	for _, c := range checks {
		switch {
		case c.object == nil && !c.must:
			continue
		case c.object == nil:
			return integrity("it names no %s", c.name)
		case c.object.Key != dir.Key(c.name+suffix):
			return integrity("it names %q as its %s", c.object.Key, c.name)
		case c.object.Encrypted() != (suffix != ""):
			return integrity("%s: its recipients and its hashes disagree about whether it is encrypted", c.name)
		}
		c.object.recipients = m.Recipients
		if err := c.object.checkHashes(); err != nil {
			return integrity("%s: %w", c.name, err)
		}
	}
	dump := m.Objects.Dump
	switch {
	case m.Structure != StructureComplete && m.Structure != StructureUnchecked:
		return integrity("its structure is %q", m.Structure)
	case m.Structure == StructureComplete && dump.Head == nil:
		return integrity("it has no hash of the dump's head")
	case m.Objects.Index != nil && m.Objects.Index.SHA256 == "":
		return integrity("it has no hash of the index")
	case m.Objects.Globals != nil && m.Objects.Globals.SHA256 == "":
		return integrity("it has no hash of the globals")
	}
	return nil
}

func (o *StoredObject) checkHashes() error {
	var hashes []string
	if o.SHA256 != "" {
		hashes = append(hashes, o.SHA256)
	}
	if o.Plain != nil {
		hashes = append(hashes, o.Plain.SHA256)
	}
	for _, r := range []*Range{o.Head, o.Body} {
		if r != nil {
			hashes = append(hashes, r.SHA256)
			if r.Length < 0 || r.Length > o.plainSize() {
				return fmt.Errorf("a part of %d bytes in an object of %d", r.Length, o.plainSize())
			}
		}
	}
	for _, h := range hashes {
		if raw, err := hex.DecodeString(h); err != nil || len(raw) != 32 {
			return fmt.Errorf("%q is no SHA-256", h)
		}
	}
	switch {
	case o.Size < 0 || o.plainSize() < 0:
		return fmt.Errorf("size %d", min(o.Size, o.plainSize()))
	case o.Plain != nil && (o.Body != nil || o.Plain.Size >= o.Size):
		return errors.New("no age file is so small or has a part that came last")
	case o.Body != nil && (o.Head == nil || o.Head.Length+o.Body.Length != o.Size):
		return errors.New("head and body do not make up its size")
	case o.Body == nil && o.SHA256 == "":
		return errors.New("no hash of the whole")
	}
	return nil
}

// readManifest reads, checks and returns the manifest of e, and its bytes.
func readManifest(ctx context.Context, b storage.Bucket, e Entry) (*Manifest, []byte, error) {
	raw, err := readManifestBytes(ctx, b, e)
	if err != nil {
		return nil, nil, err
	}
	m, err := understand(raw, e)
	return m, raw, err
}

// readTrusted is readManifest, with the signature as the first thing that is
// checked.
func readTrusted(ctx context.Context, b storage.Bucket, e Entry, t Trust) (*Manifest, []byte, Signature, error) {
	raw, err := readManifestBytes(ctx, b, e)
	if err != nil {
		return nil, nil, Signature{}, err
	}
	s, err := t.trusted(ctx, b, e, ManifestName, raw)
	if err != nil {
		return nil, nil, s, err
	}
	m, err := understand(raw, e)
	return m, raw, s, err
}

func readManifestBytes(ctx context.Context, b storage.Bucket, e Entry) ([]byte, error) {
	raw, err := readSmall(ctx, b, e.dir().Key(ManifestName), e.version(ManifestName), maxManifest)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return raw, nil
}

// understand decodes and checks what was read as the manifest of e.
func understand(raw []byte, e Entry) (*Manifest, error) {
	m, err := decodeManifest(raw, e.dir())
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", e.dir().Key(ManifestName), err)
	}
	return m, nil
}

// readSmall reads one object whole, at most limit bytes. A missing object is
// ErrIntegrity: callers know of it from a listing or a manifest.
func readSmall(ctx context.Context, b storage.Bucket, key, version string, limit int64) ([]byte, error) {
	body, err := b.Open(ctx, key, storage.OpenOptions{Version: version})
	if err != nil {
		return nil, missing(key, err)
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(raw)) > limit:
		return nil, integrity("%s has more than the expected %d bytes", key, limit)
	}
	return raw, nil
}

// missing turns the absence of an object that must be there into ErrIntegrity.
func missing(key string, err error) error {
	if errors.Is(err, storage.ErrNotExist) {
		return integrity("%s is missing from the bucket: %w", key, err)
	}
	return err
}
