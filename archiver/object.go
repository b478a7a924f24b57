package archiver

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// NoManifest is why there is no evidence for an object that has no manifest.
const NoManifest = "it has no manifest: nothing but its structure could be proved"

// ObjectInfo is a stock custom-format archive that somebody else has stored, as the store
// describes it and as one pass over it found it.
type ObjectInfo struct {
	Key          string    `json:"key"`
	Version      string    `json:"version,omitempty"` // S3 version id or GCS generation
	ETag         string    `json:"etag,omitempty"`
	Size         int64     `json:"size"`
	Stored       time.Time `json:"stored"`
	StorageClass string    `json:"storage_class,omitempty"`
	// SHA256 of all its bytes; "" where only its head was read.
	SHA256 string      `json:"sha256,omitempty"`
	Source Source      `json:"source"` // as far as the dump's header tells
	Tools  Tools       `json:"tools"`
	Made   string      `json:"made,omitempty"` // in the local time of the host that ran pg_dump
	Dump   ArchiveInfo `json:"archive"`
	// Structure is StructureUnchecked where not all was read or understood.
	Structure      string `json:"structure"`
	Evidence       string `json:"evidence"` // EvidenceNone
	EvidenceReason string `json:"evidence_reason"`
	Totals         Totals `json:"totals"`
}

// openObject is an object over which one pass is made. It goes on where it stands:
// readHead, then finish.
type openObject struct {
	stored   storage.Object
	progress *tracker
	body     io.ReadCloser
	src      *bufio.Reader
	packer   *pgarchive.Packer
	whole    hash.Hash
	n        int64 // bytes read
	objects  []IndexObject

	head  *pgarchive.Head
	known bool // its archive version
}

// openForeign opens the newest version of an object, which all later reading is pinned to,
// and refuses what is no archive. keepObjects notes every large object.
func openForeign(ctx context.Context, b storage.Bucket, key string, keepObjects bool, p *tracker) (*openObject, error) {
	if err := storage.CheckKey(key); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	stored, err := b.Stat(ctx, key, "")
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return nil, err
	case errors.Is(err, storage.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no object %s; a key is what follows the bucket URL and its prefix", ErrNoArchive, key)
	case err != nil:
		return nil, fmt.Errorf("look at object: %w", err)
	}
	o := &openObject{stored: stored, progress: p, whole: sha256.New()}
	if o.body, err = b.Open(ctx, key, storage.OpenOptions{Version: stored.Version}); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	if err := o.begin(keepObjects); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// begin looks at the first bytes and reads the head.
func (o *openObject) begin(keepObjects bool) error {
	o.progress.total(o.stored.Size, false)
	look := int(min(o.stored.Size, pgarchive.GuessLength))
	o.src = bufio.NewReaderSize(o.body, look)
	begin, err := o.src.Peek(look)
	if err != nil && err != io.EOF {
		return o.fault(err)
	}
	if what, cure := pgarchive.Guess(begin); what != "" {
		return integrity("%s is no archive of pg_dump -Fc: it seems to be %s; %s", o.stored.Key, what, cure)
	}
	options := pgarchive.PackOptions{Compression: pgarchive.Compression{Algorithm: pgarchive.KeepCompression}}
	if keepObjects {
		options.LargeObject = func(l pgarchive.LargeObject) {
			o.objects = append(o.objects, IndexObject{OID: l.OID, RawBytes: l.RawBytes, SHA256: l.SHA256})
		}
	}
	if o.packer, err = pgarchive.NewPacker(readFunc(o.read), options); err != nil {
		return err
	}
	o.head, err = o.packer.Head()
	if errors.Is(err, pgarchive.ErrUnknownVersion) {
		return nil
	}
	o.known = err == nil
	return o.fault(err)
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// read is what the packer reads of the object.
func (o *openObject) read(p []byte) (int, error) {
	n, err := o.src.Read(p)
	o.whole.Write(p[:n])
	o.n += int64(n)
	o.progress.read(n)
	return n, err
}

// finish reads the object to its end, passing its bytes on to w, which may be nil, and wants
// it to be a complete archive.
func (o *openObject) finish(w io.Writer) error {
	if w == nil {
		w = struct{ io.Writer }{io.Discard} // its ReadFrom would read by small pieces
	}
	if _, err := w.Write(o.packer.HeadBytes()); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := o.packer.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return o.fault(err)
		}
	}
	if o.n != o.stored.Size {
		return integrity("%s has %d bytes, the store said %d: it was changed while it was read", o.stored.Key, o.n, o.stored.Size)
	}
	return nil
}

// fault gives an error that came with the object's bytes its class.
func (o *openObject) fault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgarchive.ErrFormat), errors.Is(err, pgarchive.ErrIncomplete):
		return integrity("%s: %w", o.stored.Key, err)
	}
	return fmt.Errorf("read object: %w", err)
}

// close frees everything; idempotent.
func (o *openObject) close() {
	if o.packer != nil {
		_ = o.packer.Close() // never an error, and nothing was written
	}
	_ = o.body.Close() // how reading ends proves nothing
}

// object describes it as a dump of an archive of our own would be.
func (o *openObject) object() StoredObject {
	so := StoredObject{Key: o.stored.Key, Version: o.stored.Version, Size: o.stored.Size, Checksum: checksumOf(o.stored)}
	if o.known {
		so.Head = &Range{Length: o.packer.HeadSize(), SHA256: hexSum(o.packer.HeadBytes())}
	}
	return so
}

// index is what finish has found.
func (o *openObject) index() *Index {
	so := o.object()
	so.SHA256 = hex.EncodeToString(o.whole.Sum(nil))
	return newIndex("", o.head, o.packer.Blocks(), o.objects, so)
}

// info describes the object; index is nil where only its head was read.
func (o *openObject) info(index *Index) *ObjectInfo {
	s := o.stored
	info := &ObjectInfo{
		Key: s.Key, Version: s.Version, ETag: s.ETag, Size: s.Size, Stored: s.Created, StorageClass: s.StorageClass,
		Structure: StructureUnchecked, Evidence: EvidenceNone, EvidenceReason: NoManifest, Totals: Totals{Bytes: s.Size},
		Dump: ArchiveInfo{Version: o.head.Version.String()},
	}
	if o.known {
		h := o.head
		info.Source = Source{Database: h.Database, ServerVersion: h.ServerVersion}
		info.Tools.PgDump = h.DumpVersion
		info.Made = h.CreatedAt(time.UTC).Format("2006-01-02T15:04:05")
		info.Dump = ArchiveInfo{
			Version:     fmt.Sprintf("%d.%d.%d", h.Version.Major, h.Version.Minor, h.Version.Rev),
			Compression: h.Compression.Algorithm, CompressionLevel: h.Compression.Level,
		}
	}
	if index != nil {
		info.SHA256, info.Structure, info.Totals = index.Dump.SHA256, StructureComplete, index.totals()
		info.Totals.Rows = index.rows()
	}
	return info
}

// rows of all tables; nil where one was not counted.
func (ix *Index) rows() *int64 {
	var rows int64
	for _, b := range ix.Blocks {
		if b.Kind != KindTable {
			continue
		}
		if b.Content == nil {
			return nil
		}
		rows += b.Content.Rows
	}
	return &rows
}

// ownDump says so when the key is that of an archive of pgstow's.
func ownDump(key string) string {
	d, name, ok := ParseKey(key)
	if !ok || name != DumpName {
		return ""
	}
	return fmt.Sprintf("this key is the dump of archive %s: named by its id it is checked against manifest and index", d.ID)
}

// ShowObjectOptions choose what ShowObject looks at.
type ShowObjectOptions struct {
	Bucket storage.Bucket
	Key    string
	// HeadOnly reads the table of contents and nothing else.
	HeadOnly bool
	Log      *slog.Logger
	Progress func(Progress)
}

// ShowObjectResult is what is known of an archive that has no manifest.
type ShowObjectResult struct {
	Object   *ObjectInfo     `json:"object"`
	Index    *Index          `json:"index,omitempty"` // made by the pass; nil with HeadOnly
	TOC      []TOCEntry      `json:"toc,omitempty"`
	Head     *pgarchive.Head `json:"-"`
	Warnings []string        `json:"warnings,omitempty"`
}

// ShowObject reads a stock custom-format archive that has no manifest, all of it unless
// HeadOnly, and tells what is in it. One that is incomplete or damaged is ErrIntegrity, and so is
// what is no such archive; the error then says what it seems to be.
func ShowObject(ctx context.Context, opts ShowObjectOptions) (*ShowObjectResult, error) {
	res, err := showObject(ctx, opts)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	return res, nil
}

func showObject(ctx context.Context, opts ShowObjectOptions) (*ShowObjectResult, error) {
	p := newTracker(opts.Progress)
	p.phase(PhaseIndex)
	o, err := openForeign(ctx, opts.Bucket, opts.Key, true, p)
	if err != nil {
		return nil, err
	}
	defer o.close()
	if !o.known {
		return nil, unknownObject(o)
	}
	res := &ShowObjectResult{Head: o.head}
	if note := ownDump(opts.Key); note != "" {
		logger(opts.Log).Warn(note)
		res.Warnings = append(res.Warnings, note)
	}
	if opts.HeadOnly {
		res.TOC = tocOf(o.head)
	} else {
		if err := o.finish(nil); err != nil {
			return nil, err
		}
		res.Index = o.index()
	}
	res.Object = o.info(res.Index)
	return res, nil
}

// unknownObject refuses an archive that cannot be looked into.
func unknownObject(o *openObject) error {
	return fmt.Errorf("%w: %s: %w %s; upgrade pgstow, or pass it on unproved: pgstow restore --object KEY --output - | pg_restore -d URL",
		ErrFormat, o.stored.Key, pgarchive.ErrUnknownVersion, strings.TrimSuffix(o.head.Version.String(), "-0"))
}
