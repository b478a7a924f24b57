package archiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// ShowResult is one archive with its manifest and index, both checked.
type ShowResult struct {
	Entry          Entry     `json:"entry"`
	Manifest       *Manifest `json:"manifest"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	Signature      Signature `json:"signature"` // of the manifest
	// Index is nil for an archive of an unknown version, and for an encrypted one
	// without identities.
	Index *Index `json:"index,omitempty"`
	// Protection is how the store keeps the archive now.
	Protection *Shown `json:"protection"`
	// Thaw is whether the dump can be read now; nil where its class needs none.
	Thaw *ThawState `json:"thaw,omitempty"`
	// Records are later facts about it, oldest first.
	Records []RecordEntry `json:"records,omitempty"`
	// TOC is filled in by LoadTOC.
	TOC []TOCEntry `json:"toc,omitempty"`
	// Head is what TOC was made of.
	Head *pgarchive.Head `json:"-"`

	opts ShowOptions
}

// ThawState is how far a dump in a cold class is from being read.
type ThawState struct {
	Class   string    `json:"storage_class"`
	Ongoing bool      `json:"ongoing,omitempty"`
	Until   time.Time `json:"until,omitzero"` // the readable copy stays
	// Tiers is how long a thaw takes, in words.
	Tiers string `json:"tiers"`
}

// thawState is that of an archive's dump.
func thawState(all []seen) *ThawState {
	for _, s := range all {
		if roleOf(s.Name) == RoleDump && s.o.Thaw.Cold {
			return &ThawState{Class: s.o.StorageClass, Ongoing: s.o.Thaw.Ongoing, Until: s.o.Thaw.Until, Tiers: thawTimesText(s.o.StorageClass)}
		}
	}
	return nil
}

// TOCEntry is one entry of the dump's table of contents.
type TOCEntry struct {
	DumpID int    `json:"dump_id"`
	Desc   string `json:"desc"` // TABLE, INDEX, ACL…
	Schema string `json:"schema,omitempty"`
	Name   string `json:"name"`
	Owner  string `json:"owner,omitempty"`
	Data   bool   `json:"data,omitempty"` // it has a data block
}

// Content is what all data blocks of one table hold, or all of one block of
// large objects.
type Content struct {
	Kind         string
	Schema, Name string
	Rows         int64 // of a table, or large objects; -1 where nobody counted
	RawBytes     int64
	Stored       int64
}

// ShowOptions say which archive is shown.
type ShowOptions struct {
	Bucket    storage.Bucket
	Ref, Name string // see Resolve
	// Identities open the index of an encrypted archive. Without any, the manifest
	// alone is shown.
	Identities Identities
	Trust      Trust
}

// Show reads manifest and index of an archive, its records, and how the store
// keeps it now.
func Show(ctx context.Context, opts ShowOptions) (*ShowResult, error) {
	b := opts.Bucket
	e, err := Resolve(ctx, b, opts.Ref, opts.Name)
	if err != nil {
		return nil, err
	}
	m, raw, signature, err := readTrusted(ctx, b, e, opts.Trust)
	if err != nil {
		return nil, err
	}
	var ix *Index
	if len(m.Recipients) == 0 || !opts.Identities.IsZero() {
		if ix, err = readIndex(ctx, b, e, m, opts.Identities); err != nil {
			return nil, err
		}
	}
	all, err := look(ctx, b, e.dir(), e.Objects)
	if err != nil {
		return nil, err
	}
	records, err := readRecords(ctx, b, e, "", opts.Trust)
	if err != nil {
		return nil, err
	}
	return &ShowResult{
		Entry: e, Manifest: m, ManifestSHA256: hexSum(raw), Index: ix, Protection: shown(all), Records: records,
		Thaw: thawState(all), Signature: signature, opts: opts,
	}, nil
}

// Told is what the manifest says, or where it leaves that to the encrypted index,
// the index.
func (r *ShowResult) Told() Withheld {
	m := r.Manifest
	if r.Index != nil && r.Index.Withheld != nil {
		w := *r.Index.Withheld
		w.Warnings = append(slices.Clone(w.Warnings), m.Warnings[min(1, len(m.Warnings), len(w.Warnings)):]...)
		return w
	}
	return Withheld{PgDumpArgs: m.Tools.PgDumpArgs, EvidenceReason: m.EvidenceReason, Warnings: m.Warnings}
}

// Contents sums up the blocks of each table, in the order of the dump.
func (ix *Index) Contents() []Content {
	type key struct{ kind, schema, name string }
	at := make(map[key]int)
	var list []Content
	for _, b := range ix.Blocks {
		k := key{b.Kind, b.Schema, b.Name}
		i, ok := at[k]
		if !ok {
			i = len(list)
			at[k] = i
			list = append(list, Content{Kind: b.Kind, Schema: b.Schema, Name: b.Name})
		}
		c := &list[i]
		c.RawBytes += b.RawBytes
		c.Stored += b.Length
		switch {
		case b.Kind == KindLargeObjects:
			c.Rows += int64(b.LargeObjects)
		case b.Content == nil || c.Rows < 0:
			c.Rows = -1
		default:
			c.Rows += b.Content.Rows
		}
	}
	return list
}

// LoadTOC reads the dump's head, which holds its table of contents, and
// compares it with the manifest's hash. An archive of an unknown version has
// none that can be read: ErrFormat.
func (r *ShowResult) LoadTOC(ctx context.Context) error {
	o := r.Manifest.Objects.Dump
	if o.Head == nil {
		return fmt.Errorf("%w: its dump has an archive version that was not known then; pg_restore -l lists it", ErrFormat)
	}
	dump, err := openDump(ctx, r.opts.Bucket, r.Entry, r.Manifest, r.opts.Identities)
	if err != nil {
		return err
	}
	if r.Head, err = readHead(ctx, dump, o); err != nil {
		return err
	}
	r.TOC = tocOf(r.Head)
	return nil
}

// readHead reads the head of a dump and compares it with the manifest's hash.
func readHead(ctx context.Context, dump rangeOpener, o StoredObject) (*pgarchive.Head, error) {
	body, err := dump.openRange(ctx, 0, o.Head.Length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, o.Head.Length))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read dump: %w", err)
	case hexSum(raw) != o.Head.SHA256:
		return nil, integrity("%s: its head differs from the SHA-256 in the manifest", o.Key)
	}
	head, err := pgarchive.ParseHead(bytes.NewReader(raw))
	if err != nil {
		return nil, integrity("%s: %w", o.Key, err)
	}
	return head, nil
}

func tocOf(head *pgarchive.Head) []TOCEntry {
	list := make([]TOCEntry, len(head.Entries))
	for i := range head.Entries {
		e := &head.Entries[i]
		list[i] = TOCEntry{
			DumpID: e.DumpID, Desc: e.Desc.S, Schema: e.Namespace.S, Name: e.Tag.S, Owner: e.Owner.S, Data: e.HadDumper,
		}
	}
	return list
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
