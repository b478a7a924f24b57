package pgarchive

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
)

const (
	intSize = 4 // bytes of magnitude of an integer
	offSize = 8 // bytes of an offset

	intLen    = 1 + intSize // a sign byte comes first
	offsetLen = 1 + offSize // a flag byte comes first
)

// Flags of an offset.
const (
	offsetNotSet byte = 1
	offsetSet    byte = 2
	offsetNoData byte = 3
)

// Str is a string that may be NULL, which differs from "".
type Str struct {
	S    string
	Null bool
}

// decodeInt takes exactly the forms pg_dump writes for a C int: no negative zero, nothing
// beyond 32 bits. Any other form could not be written back as it came.
func decodeInt[T string | []byte](b T) (v int, ok bool) {
	m := uint32(b[1]) | uint32(b[2])<<8 | uint32(b[3])<<16 | uint32(b[4])<<24
	switch {
	case b[0] == 0 && m <= math.MaxInt32:
		return int(m), true
	case b[0] == 1 && m != 0 && m <= 1<<31:
		return int(-int64(m)), true
	}
	return 0, false
}

// decoder reads the fields of a head. It keeps all it reads in text and its first error
// in err; after an error every further field is a zero value.
type decoder struct {
	src     io.Reader // nil: text is complete
	text    *strings.Builder
	pos     int // of the next field in text
	field   string
	entry   int // number of the TOC entry being read
	scratch []byte
	err     error
}

// fail records a fault of the field that begins at offset.
func (d *decoder) fail(offset int, kind error, format string, args ...any) {
	if d.err == nil {
		d.err = &FormatError{Offset: int64(offset), Entry: d.entry, Field: d.field, Detail: fmt.Sprintf(format, args...), Err: kind}
	}
}

// take returns the next n bytes. A length that lies costs no more memory than the bytes
// that are really there.
func (d *decoder) take(n int) string {
	if d.err != nil {
		return ""
	}
	if missing := d.pos + n - d.text.Len(); missing > 0 && !d.fill(missing) {
		return ""
	}
	s := d.text.String()[d.pos : d.pos+n]
	d.pos += n
	return s
}

func (d *decoder) fill(missing int) bool {
	if d.src == nil {
		d.fail(d.pos, ErrIncomplete, "the head ends here")
		return false
	}
	if d.scratch == nil {
		d.scratch = make([]byte, 16<<10)
	}
	empty := 0
	for missing > 0 {
		n, err := d.src.Read(d.scratch[:min(missing, len(d.scratch))])
		d.text.Write(d.scratch[:n])
		missing -= n
		switch {
		case missing == 0:
		case err == io.EOF:
			d.fail(d.pos, ErrIncomplete, "the stream ends in the head, after %d bytes", d.text.Len())
			return false
		case err != nil: // the source's own error, unchanged
			d.err = err
			return false
		case n > 0:
			empty = 0
		default:
			if empty++; empty >= 100 {
				d.err = io.ErrNoProgress
				return false
			}
		}
	}
	return true
}

func (d *decoder) byte(field string) byte {
	d.field = field
	if s := d.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (d *decoder) int(field string) int {
	d.field = field
	at := d.pos
	s := d.take(intLen)
	if s == "" {
		return 0
	}
	v, ok := decodeInt(s)
	if !ok {
		d.fail(at, ErrFormat, "% x is no integer", s)
	}
	return v
}

func (d *decoder) str(field string) Str {
	at := d.pos
	n := d.int(field)
	switch {
	case n == -1:
		return Str{Null: true}
	case n < 0:
		d.fail(at, ErrFormat, "string of length %d", n)
		return Str{}
	}
	s := d.take(n)
	if strings.IndexByte(s, 0) >= 0 {
		d.fail(at, ErrFormat, "string with a NUL inside")
	}
	return Str{S: s}
}

func (d *decoder) offset(field string) (flag byte, v uint64) {
	d.field = field
	at := d.pos
	s := d.take(offsetLen)
	if s == "" {
		return 0, 0
	}
	if s[0] < offsetNotSet || s[0] > offsetNoData {
		d.fail(at, ErrFormat, "flag %d is unknown", s[0])
	}
	for i := offSize; i > 0; i-- {
		v = v<<8 | uint64(s[i])
	}
	return s[0], v
}

// encoder is the decoder's counterpart.
type encoder struct {
	b     []byte
	entry int
	err   error
}

func (e *encoder) fail(field, format string, args ...any) {
	if e.err == nil {
		e.err = &FormatError{Offset: int64(len(e.b)), Entry: e.entry, Field: field, Detail: fmt.Sprintf(format, args...), Err: ErrFormat}
	}
}

func (e *encoder) byte(v byte) { e.b = append(e.b, v) }

func (e *encoder) int(field string, v int) {
	if int64(v) > math.MaxInt32 || int64(v) < math.MinInt32 {
		e.fail(field, "%d does not fit %d bytes", v, intSize)
		return
	}
	sign, m := byte(0), uint32(v)
	if v < 0 {
		sign, m = 1, uint32(-int64(v))
	}
	e.b = binary.LittleEndian.AppendUint32(append(e.b, sign), m)
}

func (e *encoder) str(field string, s Str) {
	if s.Null {
		e.int(field, -1)
		return
	}
	if strings.IndexByte(s.S, 0) >= 0 {
		e.fail(field, "string with a NUL inside")
	}
	e.int(field, len(s.S))
	e.b = append(e.b, s.S...)
}

func (e *encoder) offset(flag byte, v uint64) {
	e.b = binary.LittleEndian.AppendUint64(append(e.b, flag), v)
}
