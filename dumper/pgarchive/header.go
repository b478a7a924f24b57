package pgarchive

import (
	"fmt"
	"strings"
	"time"
)

const (
	magic        = "PGDMP"
	preambleLen  = len(magic) + 3 // the version follows the magic
	formatCustom = 1
	formatTar    = 3
)

// Version is the version of the archive format, which is not that of PostgreSQL.
type Version struct{ Major, Minor, Rev byte }

func (v Version) String() string { return fmt.Sprintf("%d.%d-%d", v.Major, v.Minor, v.Rev) }

// known says whether this package can read the version.
func (v Version) known() bool { return v.Major == 1 && v.Minor >= 12 && v.Minor <= 16 }

func (v Version) unknown() error {
	return fmt.Errorf("%w %v; known are 1.12 to 1.16", ErrUnknownVersion, v)
}

// The layout changes within the known versions.
func (v Version) hasTableAM() bool         { return v.Minor >= 14 }
func (v Version) hasCompressionByte() bool { return v.Minor >= 15 }
func (v Version) hasRelKind() bool         { return v.Minor >= 16 }

// Header is what stands before the TOC.
type Header struct {
	Version                              Version
	IntSize, OffSize                     byte // always 4 and 8
	Format                               byte // always 1, custom
	Compression                          Compression
	Created                              [7]int // sec, min, hour, mday, mon, year-1900, isdst
	Database, ServerVersion, DumpVersion string
}

// CreatedAt is the time of creation, which the archive holds in the local time of the
// host that ran pg_dump, without its zone: loc is the caller's guess at it.
func (h *Header) CreatedAt(loc *time.Location) time.Time {
	c := h.Created
	return time.Date(c[5]+1900, time.Month(c[4]+1), c[3], c[2], c[1], c[0], 0, loc)
}

// Compression is how the payload of every block is compressed.
type Compression struct {
	Algorithm string // "none", "gzip" (a zlib stream per block), "lz4", "zstd"
	Level     int    // as the header holds it, -1 for zlib's default; 0 where it holds none
}

// algorithms by the number that versions from 1.15 on write.
var algorithms = [...]string{"none", "gzip", "lz4", "zstd"}

// preamble reads the magic and the version.
func (d *decoder) preamble() (v Version) {
	d.field = "magic"
	for i := range len(magic) {
		// Byte by byte, so that a short stream of something else is told from a cut archive.
		if s := d.take(1); s != "" && s[0] != magic[i] {
			d.fail(0, ErrFormat, "not a custom-format archive (pg_dump -Fc): it begins with %q%s", d.text.String(), looksLike(d.text.String()))
		}
	}
	v.Major = d.byte("version")
	v.Minor = d.byte("version")
	v.Rev = d.byte("version")
	return v
}

// looksLike names the usual suspects by what tells them from the magic.
func looksLike(begin string) string {
	switch {
	case strings.HasPrefix(begin, "-"), strings.HasPrefix(begin, "\n"):
		return ", like a plain SQL script"
	case strings.HasPrefix(begin, "t"):
		return ", like a tar archive (pg_dump -Ft)"
	case strings.HasPrefix(begin, "\x1f"):
		return ", like a gzip file"
	}
	return ""
}

// header reads the header; on an unknown version err is ErrUnknownVersion and only
// Version is set.
func (d *decoder) header() (h Header) {
	h.Version = d.preamble()
	if d.err != nil {
		return h
	}
	if !h.Version.known() {
		d.err = h.Version.unknown()
		return h
	}
	h.IntSize = d.byteOf("integer size", intSize)
	h.OffSize = d.byteOf("offset size", offSize)
	h.Format = d.byte("format")
	switch {
	case d.err != nil:
	case h.Format == formatTar:
		d.fail(d.pos-1, ErrFormat, "the TOC of a tar or directory archive, not a custom-format archive (pg_dump -Fc)")
	case h.Format != formatCustom:
		d.fail(d.pos-1, ErrFormat, "%d, want %d", h.Format, formatCustom)
	}
	h.Compression = d.compression(h.Version)
	for i := range h.Created {
		h.Created[i] = d.int("creation time")
	}
	h.Database = d.notNull("database")
	h.ServerVersion = d.notNull("server version")
	h.DumpVersion = d.notNull("pg_dump version")
	return h
}

func (d *decoder) byteOf(field string, want byte) byte {
	v := d.byte(field)
	if d.err == nil && v != want {
		d.fail(d.pos-1, ErrFormat, "%d bytes, want %d", v, want)
	}
	return v
}

func (d *decoder) notNull(field string) string {
	at := d.pos
	s := d.str(field)
	if s.Null {
		d.fail(at, ErrFormat, "NULL")
	}
	return s.S
}

func (d *decoder) compression(v Version) Compression {
	const field = "compression"
	if v.hasCompressionByte() {
		b := d.byte(field)
		if int(b) >= len(algorithms) {
			d.fail(d.pos-1, ErrFormat, "algorithm %d is unknown", b)
			return Compression{}
		}
		return Compression{Algorithm: algorithms[b]}
	}
	level := d.int(field)
	if level == 0 {
		return Compression{Algorithm: "none"}
	}
	return Compression{Algorithm: "gzip", Level: level}
}

func (e *encoder) header(h *Header) {
	if !h.Version.known() {
		e.err = h.Version.unknown()
		return
	}
	if h.IntSize != intSize || h.OffSize != offSize || h.Format != formatCustom {
		e.fail("header", "integer size %d, offset size %d, format %d; only %d, %d and %d are written",
			h.IntSize, h.OffSize, h.Format, intSize, offSize, formatCustom)
		return
	}
	e.b = append(e.b, magic...)
	e.b = append(e.b, h.Version.Major, h.Version.Minor, h.Version.Rev, h.IntSize, h.OffSize, h.Format)
	e.compression(h.Version, h.Compression)
	for _, v := range h.Created {
		e.int("creation time", v)
	}
	e.str("database", Str{S: h.Database})
	e.str("server version", Str{S: h.ServerVersion})
	e.str("pg_dump version", Str{S: h.DumpVersion})
}

func (e *encoder) compression(v Version, c Compression) {
	const field = "compression"
	if v.hasCompressionByte() {
		for i, name := range algorithms {
			if name == c.Algorithm {
				e.byte(byte(i))
				return
			}
		}
		e.fail(field, "algorithm %q is unknown", c.Algorithm)
		return
	}
	// Up to 1.14 the level alone says whether there is compression.
	if (c.Algorithm == "none") != (c.Level == 0) || (c.Algorithm != "none" && c.Algorithm != "gzip") {
		e.fail(field, "version %v cannot say %s with level %d", v, c.Algorithm, c.Level)
		return
	}
	e.int(field, c.Level)
}
