package pgarchive

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

const (
	unpackBuffer = 64 << 10
	// maxZstdWindow is that of pg_restore's decoder, too.
	maxZstdWindow = 1 << 27
)

// Stream is the content of one TABLE DATA block, or one large object.
type Stream struct {
	DumpID      int
	LargeObject bool
	OID         uint32 // of the large object
	Offset      int64  // of the block
}

// Unpacker reads data blocks and delivers what they hold, uncompressed, stream by stream,
// as archive/tar does with files. It is stricter than pg_restore, which does not notice a
// frame that was cut, loses a second frame in a chunk and hangs at a second zlib stream:
// these are errors here. It does not compare the blocks with a TOC; see [Scanner].
//
// Faults are a *FormatError; errors of the source come back unchanged. Every error but the
// io.EOF of a stream is final.
//
// Memory: a constant, and for zstd the frame's window, at most 128 MiB (zstd:long).
type Unpacker struct {
	src    io.Reader
	alg    string
	parser blockParser
	buf    []byte // buf[r:w] is read and not consumed
	r, w   int
	srcErr error
	err    error

	open    bool      // a stream is being read
	ended   bool      // the payload of the stream
	content io.Reader // decoder of the stream
	walker  frameWalker
	badEnd  error // of the frame; its decoder may not see an error that comes along with data

	zlib *zlibReader
	zstd *zstd.Decoder
	lz4  *lz4.Reader
}

// NewUnpacker reads whole blocks from r, whose first byte stands at offset in the archive.
func NewUnpacker(r io.Reader, c Compression, offset int64) (*Unpacker, error) {
	u := &Unpacker{src: r, alg: c.Algorithm, buf: make([]byte, unpackBuffer)}
	u.parser.pos = offset
	switch c.Algorithm {
	case "none":
	case "gzip":
		u.zlib = newZlibReader()
	case "zstd":
		var err error
		u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
	case "lz4":
		u.lz4 = lz4.NewReader(nil)
	default:
		return nil, fmt.Errorf("compression %q is unknown", c.Algorithm)
	}
	return u, nil
}

// reset makes it begin anew with other blocks of the same compression.
func (u *Unpacker) reset(r io.Reader, offset int64) {
	u.src, u.parser = r, blockParser{pos: offset}
	u.r, u.w, u.srcErr, u.err = 0, 0, nil, nil
	u.open, u.ended, u.content, u.badEnd = false, false, nil, nil
}

// Next goes to the next stream, skipping what is left of the current one unchecked. It
// returns io.EOF behind the last block.
func (u *Unpacker) Next() (Stream, error) {
	for u.open && u.err == nil {
		if u.ended {
			u.open = false
			break
		}
		_, _, u.err = u.step(len(u.buf))
	}
	for u.err == nil {
		ev, _, err := u.step(len(u.buf))
		if u.err = err; err != nil {
			break
		}
		block := &u.parser.cur
		st := Stream{DumpID: block.DumpID, LargeObject: block.BlobBlock, Offset: block.Offset}
		switch {
		case ev == evBlock && !block.BlobBlock:
		case ev == evObject:
			st.OID = uint32(int32(u.parser.oid))
		default:
			continue
		}
		u.open, u.ended, u.content = true, false, nil
		return st, nil
	}
	return Stream{}, u.err
}

// step goes on to the next event, taking at most limit bytes of payload, which are
// returned. At the end of a stream it sets ended.
func (u *Unpacker) step(limit int) (ev blockEvent, payload []byte, err error) {
	for idle := 0; u.r == u.w; idle++ {
		switch {
		case u.srcErr == io.EOF && u.parser.between():
			return evNone, nil, io.EOF
		case u.srcErr == io.EOF:
			return evNone, nil, u.fault(ErrIncomplete, "the stream ends inside the block")
		case u.srcErr != nil:
			return evNone, nil, u.srcErr
		case idle >= 100:
			return evNone, nil, io.ErrNoProgress
		}
		u.r = 0
		u.w, u.srcErr = u.src.Read(u.buf)
	}
	b := u.buf[u.r:u.w]
	if u.parser.state == inChunk {
		b = b[:min(len(b), limit)]
	}
	n, ev, err := u.parser.step(b)
	if err != nil {
		return evNone, nil, err
	}
	u.r += n
	switch ev {
	case evPayload:
		payload = b[:n]
	case evObjectEnd, evBlockEnd:
		u.ended = true
	}
	return ev, payload, nil
}

// Read delivers the content of the current stream.
func (u *Unpacker) Read(p []byte) (int, error) {
	switch {
	case u.err != nil:
		return 0, u.err
	case !u.open:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if u.content == nil {
		if u.err = u.begin(); u.err != nil {
			return 0, u.err
		}
	}
	n, err := u.content.Read(p)
	if err != nil && err != io.EOF {
		u.err = u.explain(err)
		return n, u.err
	}
	if err == io.EOF {
		if u.err = u.finish(); u.err != nil {
			return n, u.err
		}
	}
	return n, err
}

// begin sets up the decoder of a stream.
func (u *Unpacker) begin() error {
	payload := (*payloadReader)(u)
	switch u.alg {
	case "gzip":
		u.zlib.reset(payload)
		u.content = u.zlib
	case "zstd", "lz4":
		u.content = (*framesReader)(u)
		u.walker.reset(u.alg)
		return u.beginFrame()
	default:
		u.content = payload
	}
	return nil
}

// finish checks that the decoder took all there is.
func (u *Unpacker) finish() error {
	if u.alg == "gzip" {
		more, err := u.zlib.trailing()
		switch {
		case more:
			return u.fault(ErrFormat, "bytes follow the zlib stream, at which pg_restore hangs")
		case err != nil:
			return u.explain(err)
		}
	}
	return nil
}

// explain turns an error of a decoder into one that says where.
func (u *Unpacker) explain(err error) error {
	var fe *FormatError
	switch {
	case errors.As(err, &fe):
		return err
	case u.srcErr != nil && u.srcErr != io.EOF && errors.Is(err, u.srcErr):
		return u.srcErr
	case u.ended && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return u.fault(ErrIncomplete, "the "+u.alg+" stream is cut")
	}
	return u.fault(ErrFormat, u.alg+": "+err.Error())
}

func (u *Unpacker) fault(kind error, detail string) error {
	return &FormatError{Offset: u.parser.pos, Detail: fmt.Sprintf("%s (block of dump ID %d)", detail, u.parser.cur.DumpID), Err: kind}
}

// payloadReader delivers the stored payload of the current stream.
type payloadReader Unpacker

func (r *payloadReader) Read(p []byte) (int, error) {
	u := (*Unpacker)(r)
	for !u.ended {
		_, payload, err := u.step(len(p))
		if err != nil {
			if err == io.EOF { // cannot be: only between blocks
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if len(payload) > 0 {
			return copy(p, payload), nil
		}
	}
	return 0, io.EOF
}

// frameReader delivers the bytes of one frame to its decoder.
type frameReader Unpacker

func (r *frameReader) Read(p []byte) (int, error) {
	u := (*Unpacker)(r)
	if u.walker.done {
		return 0, io.EOF
	}
	n, err := (*payloadReader)(r).Read(p)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	used, err := u.walker.walk(p[:n])
	if err != nil {
		return 0, u.fault(ErrFormat, err.Error())
	}
	if u.walker.done && (used < n || u.parser.state == inChunk) {
		u.badEnd = u.fault(ErrFormat, "bytes follow a "+u.alg+" frame in its chunk, which pg_restore would lose")
	}
	return used, u.badEnd
}

// framesReader delivers the content of a sequence of frames.
type framesReader Unpacker

// beginFrame sets the decoder to the next frame, if there is one.
func (u *Unpacker) beginFrame() error {
	var err error
	if u.alg == "zstd" {
		err = u.zstd.Reset((*frameReader)(u))
	} else {
		u.lz4.Reset((*frameReader)(u))
	}
	if err != nil {
		return u.explain(err)
	}
	return nil
}

func (r *framesReader) Read(p []byte) (n int, err error) {
	u := (*Unpacker)(r)
	for {
		if !u.walker.begun {
			if end, err := u.atEnd(); end || err != nil {
				if err == nil {
					err = io.EOF
				}
				return 0, err
			}
		}
		if u.alg == "zstd" {
			n, err = u.zstd.Read(p)
		} else {
			n, err = u.lz4.Read(p)
		}
		if u.badEnd != nil {
			return n, u.badEnd
		}
		if err != io.EOF {
			return n, err
		}
		if !u.walker.done {
			return n, io.ErrUnexpectedEOF
		}
		u.walker.reset(u.alg)
		if err := u.beginFrame(); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// atEnd says whether the stream ends where a frame could begin.
func (u *Unpacker) atEnd() (bool, error) {
	for !u.ended && u.parser.state != inChunk {
		if _, _, err := u.step(0); err != nil {
			return false, err
		}
	}
	return u.ended, nil
}
