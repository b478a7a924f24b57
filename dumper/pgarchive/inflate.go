package pgarchive

import (
	"encoding/binary"
	"errors"
	"hash"
	"hash/adler32"
	"io"
)

// Inflating is what reading an archive back costs most, and cannot be split within a
// table. The libraries at hand decode a symbol at a time from 32 bits that are filled
// byte by byte; here a 64-bit buffer is filled at once and serves several symbols, as
// libdeflate does. What is accepted is what zlib accepts, which pg_restore reads with.

const (
	inflateIn     = 32 << 10
	inflateKept   = 8 // bytes in front of the next: they may be given back
	inflateOut    = inflateWindow + 64<<10
	inflateWindow = 32 << 10
	inflateLimit  = inflateOut - 258 - 16 // a match and the slack of its copy fit behind it

	litBits, distBits = 11, 9
	maxCodeLen        = 15
)

// A table entry has the length of its code in the lowest 4 bits (0: no such code), the
// number of extra bits in the next 4, what it is, and a value in the upper 16.
const (
	entryLiteral = 1 << 8
	entrySub     = 1 << 9 // the value is where the table of longer codes begins
	entryEnd     = 1 << 10
)

var (
	errInflateCut = io.ErrUnexpectedEOF
	errInflate    = errors.New("invalid zlib stream")
)

func inflateFault(detail string) error { return &inflateError{detail} }

type inflateError struct{ detail string }

func (e *inflateError) Error() string { return e.detail }
func (e *inflateError) Unwrap() error { return errInflate }

type inflateState uint8

const (
	inflateHeader inflateState = iota
	inflateBlock
	inflateCodes
	inflateStored
	inflateTrailer
	inflateDone
)

// zlibReader decodes one zlib stream. It reads ahead of it: see trailing.
type zlibReader struct {
	src    io.Reader
	srcErr error
	in     []byte // in[r:w] is read and not in the bit buffer
	r, w   int
	bits   uint64
	n      uint // bits in it; more may stand above, which are those of in[r:]
	padded int  // zero bytes that were put into it behind the end of src

	out   []byte // history, then what is decoded
	o, d  int    // out[d:o] is not delivered yet
	state inflateState
	last  bool
	left  int // of a stored block
	sum   hash.Hash32
	err   error

	lit, dist       *codeTable
	ownLit, ownDist codeTable
	lens            [286 + 30]uint8
}

func newZlibReader() *zlibReader {
	return &zlibReader{in: make([]byte, inflateIn), out: make([]byte, inflateOut), sum: adler32.New()}
}

func (z *zlibReader) reset(src io.Reader) {
	z.src, z.srcErr, z.err = src, nil, nil
	z.r, z.w, z.bits, z.n, z.padded = inflateKept, inflateKept, 0, 0, 0
	z.o, z.d, z.state, z.last = 0, 0, inflateHeader, false
	z.sum.Reset()
}

// Read delivers the content; io.EOF when the stream was whole and its checksum right.
func (z *zlibReader) Read(p []byte) (int, error) {
	for z.d == z.o {
		switch {
		case z.err != nil:
			return 0, z.err
		case z.state == inflateDone:
			return 0, io.EOF
		}
		z.step()
	}
	n := copy(p, z.out[z.d:z.o])
	z.d += n
	return n, nil
}

// trailing says whether something follows the stream.
func (z *zlibReader) trailing() (bool, error) {
	if z.r < z.w || z.fill() {
		return true, nil
	}
	if z.srcErr != io.EOF {
		return false, z.srcErr
	}
	return false, nil
}

// step decodes until there is something to deliver, the end or an error.
func (z *zlibReader) step() {
	if z.o > inflateLimit {
		copy(z.out, z.out[z.o-inflateWindow:z.o])
		z.o, z.d = inflateWindow, inflateWindow
	}
	from := z.o
	for z.err == nil && z.state != inflateDone && z.o <= inflateLimit {
		switch z.state {
		case inflateHeader:
			z.err = z.header()
		case inflateBlock:
			z.err = z.block()
		case inflateCodes:
			z.err = z.codes()
		case inflateStored:
			z.err = z.stored()
		case inflateTrailer:
			z.sum.Write(z.out[from:z.o])
			from = z.o
			z.err = z.trailer()
		}
	}
	z.sum.Write(z.out[from:z.o])
}

// fill reads more; false at the end of src, or its error.
func (z *zlibReader) fill() bool {
	if z.srcErr != nil {
		return false
	}
	if len(z.in)-z.w < inflateIn/2 {
		n := copy(z.in, z.in[z.r-inflateKept:z.w])
		z.r, z.w = inflateKept, n
	}
	for range 100 {
		var n int
		n, z.srcErr = z.src.Read(z.in[z.w:])
		z.w += n
		if n > 0 {
			return true
		}
		if z.srcErr != nil {
			return false
		}
	}
	z.srcErr = io.ErrNoProgress
	return false
}

// refill makes the bit buffer hold at least 56 bits, zeros behind the end of the stream,
// which must not be used up.
func (z *zlibReader) refill() error {
	for z.w-z.r < 8 && z.fill() {
	}
	if z.w-z.r >= 8 {
		z.bits |= binary.LittleEndian.Uint64(z.in[z.r:]) << z.n
		z.r += int((63 - z.n) >> 3)
		z.n |= 56
		return nil
	}
	if z.srcErr != io.EOF {
		return z.srcErr
	}
	if err := z.overrun(); err != nil {
		return err
	}
	for z.n <= 56 {
		if z.r < z.w {
			z.bits |= uint64(z.in[z.r]) << z.n
			z.r++
		} else {
			z.padded++
		}
		z.n += 8
	}
	return nil
}

// overrun says that bits were used that are not there.
func (z *zlibReader) overrun() error {
	if int(z.n) < 8*z.padded {
		return errInflateCut
	}
	return nil
}

// take takes up to 16 bits.
func (z *zlibReader) take(n uint) (uint32, error) {
	if z.n < n {
		if err := z.refill(); err != nil {
			return 0, err
		}
	}
	v := uint32(z.bits & (1<<n - 1))
	z.bits >>= n
	z.n -= n
	return v, z.overrun()
}

// align goes to the next whole byte and empties the bit buffer.
func (z *zlibReader) align() error {
	if err := z.overrun(); err != nil {
		return err
	}
	z.r -= int(z.n>>3) - z.padded
	z.bits, z.n, z.padded = 0, 0, 0
	return nil
}

// bytes are the next n whole bytes, behind align; they stay until the next call of fill.
func (z *zlibReader) bytes(n int) ([]byte, error) {
	for z.w-z.r < n {
		if !z.fill() {
			if z.srcErr == io.EOF {
				return nil, errInflateCut
			}
			return nil, z.srcErr
		}
	}
	b := z.in[z.r : z.r+n]
	z.r += n
	return b, nil
}

func (z *zlibReader) header() error {
	b, err := z.bytes(2)
	switch {
	case err != nil:
		return err
	case binary.BigEndian.Uint16(b)%31 != 0 || b[0]&15 != 8 || b[0]>>4 > 7:
		return inflateFault("no zlib header")
	case b[1]&0x20 != 0:
		return inflateFault("a preset dictionary is asked for")
	}
	z.state = inflateBlock
	return nil
}

func (z *zlibReader) trailer() error {
	if err := z.align(); err != nil {
		return err
	}
	b, err := z.bytes(4)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(b) != z.sum.Sum32() {
		return inflateFault("invalid checksum")
	}
	z.state = inflateDone
	return nil
}

func (z *zlibReader) block() error {
	if z.last {
		z.state = inflateTrailer
		return nil
	}
	v, err := z.take(3)
	if err != nil {
		return err
	}
	z.last = v&1 != 0
	switch v >> 1 {
	case 0:
		return z.beginStored()
	case 1:
		z.lit, z.dist = fixedLit, fixedDist
	case 2:
		if err := z.readTables(); err != nil {
			return err
		}
		z.lit, z.dist = &z.ownLit, &z.ownDist
	default:
		return inflateFault("invalid block type")
	}
	z.state = inflateCodes
	return nil
}

func (z *zlibReader) beginStored() error {
	if err := z.align(); err != nil {
		return err
	}
	b, err := z.bytes(4)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint16(b)
	if n != ^binary.LittleEndian.Uint16(b[2:]) {
		return inflateFault("invalid length of a stored block")
	}
	z.left, z.state = int(n), inflateStored
	return nil
}

func (z *zlibReader) stored() error {
	for z.left > 0 && z.o <= inflateLimit {
		if z.r == z.w && !z.fill() {
			_, err := z.bytes(1)
			return err
		}
		n := copy(z.out[z.o:], z.in[z.r:min(z.w, z.r+z.left)])
		z.r += n
		z.o += n
		z.left -= n
	}
	if z.left == 0 {
		z.state = inflateBlock
	}
	return nil
}

// codes decodes a block of codes.
func (z *zlibReader) codes() error {
	var (
		in, r, w  = z.in, z.r, z.w
		out, o    = z.out, z.o
		buf, n    = z.bits, z.n
		lit, dist = z.lit.entries, z.dist.entries
		litSub    = uint64(1)<<z.lit.subBits - 1
		distSub   = uint64(1)<<z.dist.subBits - 1
		sure      = o // what is before it did not come of padding
		fault     error
		blockEnd  bool
	)
	_, _ = lit[1<<litBits-1], dist[1<<distBits-1]
	for {
		if w-r >= 8 {
			buf |= binary.LittleEndian.Uint64(in[r:]) << (n & 63)
			r += int((63 - n) >> 3)
			n |= 56
		} else {
			z.r, z.bits, z.n = r, buf, n
			if fault = z.refill(); fault != nil {
				break
			}
			r, w, buf, n, sure = z.r, z.w, z.bits, z.n, o
		}
		e := lit[buf&(1<<litBits-1)]
		if e&entrySub != 0 {
			e = lit[uint64(e>>16)+buf>>litBits&litSub]
		}
		buf >>= e & 15
		n -= uint(e & 15)
		if e&entryLiteral != 0 {
			out[o] = byte(e >> 16)
			o++
			// At least 41 bits are left: enough for two more literals of the table's own.
			if e = lit[buf&(1<<litBits-1)]; e&entryLiteral != 0 {
				buf >>= e & 15
				n -= uint(e & 15)
				out[o] = byte(e >> 16)
				o++
				if e = lit[buf&(1<<litBits-1)]; e&entryLiteral != 0 {
					buf >>= e & 15
					n -= uint(e & 15)
					out[o] = byte(e >> 16)
					o++
				}
			}
			if o > inflateLimit {
				break
			}
			continue
		}
		if e&15 == 0 {
			fault = inflateFault("invalid code")
			break
		}
		if blockEnd = e&entryEnd != 0; blockEnd {
			break
		}
		extra := e >> 4 & 15
		length := int(e>>16) + int(buf&(1<<extra-1))
		buf >>= extra
		n -= uint(extra)
		e = dist[buf&(1<<distBits-1)]
		if e&entrySub != 0 {
			e = dist[uint64(e>>16)+buf>>distBits&distSub]
		}
		if e&15 == 0 {
			fault = inflateFault("invalid code of a distance")
			break
		}
		buf >>= e & 15
		n -= uint(e & 15)
		extra = e >> 4 & 15
		distance := int(e>>16) + int(buf&(1<<extra-1))
		buf >>= extra
		n -= uint(extra)
		if distance > o {
			fault = inflateFault("a distance reaches behind the beginning")
			break
		}
		copyMatch(out, o, distance, length)
		o += length
		if o > inflateLimit {
			break
		}
	}
	z.r, z.bits, z.n, z.o = r, buf, n, o
	if err := z.overrun(); err != nil { // what came of padding is neither content nor a fault
		z.o = sure
		return err
	}
	if blockEnd {
		z.state = inflateBlock
	}
	return fault
}

// copyMatch may write up to 7 bytes behind the match.
func copyMatch(out []byte, at, distance, length int) {
	from := at - distance
	switch {
	case distance >= length && length > 32:
		copy(out[at:at+length], out[from:])
	case distance >= 8:
		for n := 0; n < length; n += 8 {
			binary.LittleEndian.PutUint64(out[at+n:], binary.LittleEndian.Uint64(out[from+n:]))
		}
	default:
		to, src := out[at:at+length], out[from:at+length]
		for i := range to {
			to[i] = src[i]
		}
	}
}
