package pgarchive

import (
	"io"
	"strings"
)

// Section is the part of a restore that an entry belongs to.
type Section int

// The sections, with the numbers of the format.
const (
	SectionNone Section = 1 + iota
	SectionPreData
	SectionData
	SectionPostData
)

// Entry is one entry of the TOC.
type Entry struct {
	DumpID                         int
	HadDumper                      bool // a data block is promised
	TableOID, OID                  Str
	Tag, Desc                      Str
	Section                        Section
	Defn, DropStmt, CopyStmt       Str
	Namespace, Tablespace, TableAM Str // TableAM is NULL before version 1.14
	RelKind                        int // 0 before version 1.16
	Owner                          Str
	WithOIDs                       Str
	Dependencies                   []string // decimal dump IDs, not all of which need be in the TOC
	OffsetFlag                     byte     // 1 not set, 2 set, 3 no data
	Offset                         uint64   // absolute position of the block
}

// HoldsLargeObjects says whether the entry's block is one of large objects (type 3).
func (e *Entry) HoldsLargeObjects() bool { return e.Desc.S == "BLOBS" }

// Label names the entry for people: "TABLE DATA public.orders".
func (e *Entry) Label() string {
	name := oneLine(e.Tag.S)
	if e.Namespace.S != "" {
		name = oneLine(e.Namespace.S) + "." + name
	}
	return oneLine(e.Desc.S) + " " + name
}

var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ")

// oneLine keeps a name from forging lines in lists and logs, as pg_restore does.
func oneLine(s string) string { return lineBreaks.Replace(s) }

// Head is HEADER + TOC.
type Head struct {
	Header
	Entries []Entry
}

// Promised are the entries with a data block, in TOC order, which is the order of the
// blocks in a complete archive.
func (h *Head) Promised() []*Entry {
	var p []*Entry
	for i := range h.Entries {
		if h.Entries[i].HadDumper {
			p = append(p, &h.Entries[i])
		}
	}
	return p
}

// EffectiveSections is the section of each entry as pg_restore sees it: COMMENT, ACL and
// SECURITY LABEL entries have none of their own and take that of the nearest entry before
// them that has one. Filtering a TOC can therefore move them; this is their true place.
func (h *Head) EffectiveSections() []Section {
	sections := make([]Section, len(h.Entries))
	current := SectionPreData
	for i := range h.Entries {
		if s := h.Entries[i].Section; s != SectionNone {
			current = s
		}
		sections[i] = current
	}
	return sections
}

// ParseHead reads exactly the head from r, by many small reads: give it a buffered reader
// where reads are dear. An error of r comes back unchanged. On ErrUnknownVersion the head
// holds the version and nothing else, and 8 bytes have been read.
func ParseHead(r io.Reader) (*Head, error) {
	h, _, _, err := readHead(r)
	return h, err
}

// readHead also returns the head as it came and, for each promised entry, the position of
// its offset's flag.
//
// The head is walked twice: from the stream, to find its end and every fault, and again to
// cut the entries out of the one text that then exists. So a count that lies allocates
// nothing, and the strings take no memory beside the text.
func readHead(r io.Reader) (h *Head, text string, flags []int, err error) {
	walk := decoder{src: r, text: new(strings.Builder)}
	h = &Head{Header: walk.header()}
	at, count := walk.pos, walk.int("count")
	if count < 0 {
		walk.fail(at, ErrFormat, "%d entries", count)
	}
	seen := make(map[int]struct{})
	for i := 0; i < count && walk.err == nil; i++ {
		walk.entry = i + 1
		start := walk.pos
		e, _ := walk.tocEntry(h.Version)
		if _, twice := seen[e.DumpID]; twice {
			walk.field = "dump ID"
			walk.fail(start, ErrFormat, "%d occurs twice", e.DumpID)
		}
		seen[e.DumpID] = struct{}{}
	}
	if walk.err != nil {
		return h, "", nil, walk.err
	}

	again := decoder{text: walk.text}
	text = again.text.String()
	h.Header = again.header()
	again.int("count")
	h.Entries = make([]Entry, count)
	for i := range h.Entries {
		var flag int
		h.Entries[i], flag = again.tocEntry(h.Version)
		if h.Entries[i].HadDumper {
			flags = append(flags, flag)
		}
	}
	return h, text, flags, again.err
}

// tocEntry reads one entry; flag is the position of its offset's flag.
func (d *decoder) tocEntry(v Version) (e Entry, flag int) {
	at := d.pos
	if e.DumpID = d.int("dump ID"); e.DumpID <= 0 {
		d.fail(at, ErrFormat, "%d", e.DumpID)
	}
	at = d.pos
	switch had := d.int("had dumper"); had {
	case 0, 1:
		e.HadDumper = had == 1
	default:
		d.fail(at, ErrFormat, "%d, want 0 or 1", had)
	}
	e.TableOID = d.str("catalog table OID")
	e.OID = d.str("catalog OID")
	e.Tag = d.str("tag")
	e.Desc = d.str("desc")
	at = d.pos
	if e.Section = Section(d.int("section")); e.Section < SectionNone || e.Section > SectionPostData {
		d.fail(at, ErrFormat, "%d", e.Section)
	}
	e.Defn = d.str("defn")
	e.DropStmt = d.str("drop statement")
	e.CopyStmt = d.str("copy statement")
	e.Namespace = d.str("namespace")
	e.Tablespace = d.str("tablespace")
	e.TableAM = Str{Null: true}
	if v.hasTableAM() {
		e.TableAM = d.str("table access method")
	}
	if v.hasRelKind() {
		e.RelKind = d.int("relkind")
	}
	e.Owner = d.str("owner")
	e.WithOIDs = d.str("with OIDs")
	for d.err == nil {
		dep := d.str("dependencies")
		if dep.Null || d.err != nil {
			break
		}
		e.Dependencies = append(e.Dependencies, dep.S)
	}
	flag = d.pos
	e.OffsetFlag, e.Offset = d.offset("offset")
	if e.HadDumper && e.OffsetFlag == offsetNoData {
		// pg_restore would skip such an entry without a word.
		d.fail(flag, ErrFormat, "flag %d (no data) on an entry that promises data", e.OffsetFlag)
	}
	return e, flag
}

// AppendBinary appends the head to b, byte for byte as ParseHead read it.
func (h *Head) AppendBinary(b []byte) ([]byte, error) {
	e := encoder{b: b}
	e.header(&h.Header)
	e.int("count", len(h.Entries))
	for i := range h.Entries {
		if e.err != nil {
			break
		}
		e.entry = i + 1
		e.tocEntry(h.Version, &h.Entries[i])
	}
	if e.err != nil {
		return b, e.err
	}
	return e.b, nil
}

func (e *encoder) tocEntry(v Version, t *Entry) {
	switch {
	case t.DumpID <= 0:
		e.fail("dump ID", "%d", t.DumpID)
	case t.Section < SectionNone || t.Section > SectionPostData:
		e.fail("section", "%d", t.Section)
	case t.OffsetFlag < offsetNotSet || t.OffsetFlag > offsetNoData:
		e.fail("offset", "flag %d is unknown", t.OffsetFlag)
	case t.HadDumper && t.OffsetFlag == offsetNoData:
		e.fail("offset", "flag %d (no data) on an entry that promises data", t.OffsetFlag)
	case !v.hasTableAM() && !t.TableAM.Null:
		e.fail("table access method", "version %v has no such field", v)
	case !v.hasRelKind() && t.RelKind != 0:
		e.fail("relkind", "version %v has no such field", v)
	}
	e.int("dump ID", t.DumpID)
	had := 0
	if t.HadDumper {
		had = 1
	}
	e.int("had dumper", had)
	e.str("catalog table OID", t.TableOID)
	e.str("catalog OID", t.OID)
	e.str("tag", t.Tag)
	e.str("desc", t.Desc)
	e.int("section", int(t.Section))
	e.str("defn", t.Defn)
	e.str("drop statement", t.DropStmt)
	e.str("copy statement", t.CopyStmt)
	e.str("namespace", t.Namespace)
	e.str("tablespace", t.Tablespace)
	if v.hasTableAM() {
		e.str("table access method", t.TableAM)
	}
	if v.hasRelKind() {
		e.int("relkind", t.RelKind)
	}
	e.str("owner", t.Owner)
	e.str("with OIDs", t.WithOIDs)
	for _, dep := range t.Dependencies {
		e.str("dependencies", Str{S: dep})
	}
	e.str("dependencies", Str{Null: true})
	e.offset(t.OffsetFlag, t.Offset)
}
