package archiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// ShowResult is one archive with its manifest and index, both checked.
type ShowResult struct {
	Entry          Entry     `json:"entry"`
	Manifest       *Manifest `json:"manifest"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	Signature      Signature `json:"signature"`       // of the manifest
	Index          *Index    `json:"index,omitempty"` // nil for an archive of an unknown version
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

// ShowOptions choose what Show looks at.
type ShowOptions struct {
	Bucket    storage.Bucket
	Ref, Name string
	Trust     Trust
}

// Show reads manifest and index of the archive that ref names, its records, and
// how the store keeps it now.
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
	ix, err := readIndex(ctx, b, m)
	if err != nil {
		return nil, err
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
		Thaw: thawState(all), Signature: signature,
	}, nil
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
func (r *ShowResult) LoadTOC(ctx context.Context, b storage.Bucket) error {
	o := r.Manifest.Objects.Dump
	if o.Head == nil {
		return fmt.Errorf("%w: its dump has an archive version that was not known then; pg_restore -l lists it", ErrFormat)
	}
	version := o.Version
	if version == "" {
		version = r.Entry.version(DumpName)
	}
	body, err := b.Open(ctx, o.Key, storage.OpenOptions{Version: version, Length: o.Head.Length})
	if err != nil {
		return fmt.Errorf("read dump: %w", missing(o.Key, err))
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, o.Head.Length))
	if err != nil {
		return fmt.Errorf("read dump: %w", err)
	}
	if hexSum(raw) != o.Head.SHA256 {
		return integrity("%s: its head differs from the SHA-256 in the manifest", o.Key)
	}
	if r.Head, err = pgarchive.ParseHead(bytes.NewReader(raw)); err != nil {
		return integrity("%s: %w", o.Key, err)
	}
	r.TOC = tocOf(r.Head)
	return nil
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
