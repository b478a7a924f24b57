package pgarchive

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// KeepCompression as an algorithm leaves the archive as pg_dump compressed it.
const KeepCompression = "pg_dump"

// Levels that stand behind level 0.
const (
	defaultGzip = 6
	defaultZstd = 3
)

// codec compresses segments. It belongs to one worker.
type codec interface {
	// encode sets body, which may share memory with out or with the data.
	encode(s *segment) error
}

// checker undoes what the codec of the same worker did and compares.
type checker interface{ check(s *segment) error }

// resolve fills in the default level and refuses what there is not.
func (c Compression) resolve() (Compression, error) {
	low, high := 0, 0
	switch c.Algorithm {
	case "none", "lz4", KeepCompression:
	case "gzip":
		low, high = 1, 9
		if c.Level == 0 {
			c.Level = defaultGzip
		}
	case "zstd":
		low, high = 1, 19
		if c.Level == 0 {
			c.Level = defaultZstd
		}
	default:
		return c, fmt.Errorf("compression %q is unknown; there are gzip, zstd, lz4, none and %s", c.Algorithm, KeepCompression)
	}
	if c.Level < low || c.Level > high {
		if high == 0 {
			return c, fmt.Errorf("compression %s takes no level", c.Algorithm)
		}
		return c, fmt.Errorf("compression level %s:%d; it goes from %d to %d", c.Algorithm, c.Level, low, high)
	}
	return c, nil
}

// newWorker makes one worker's tools.
func (c Compression) newWorker(verify bool) (w worker, err error) {
	switch c.Algorithm {
	case "gzip":
		w.codec, err = newDeflater(c.Level)
		w.check = &inflater{}
	case "zstd":
		w.codec, err = newZstdEncoder(c.Level)
		if err == nil {
			w.check, err = newZstdChecker()
		}
	case "lz4":
		w.codec, err = newLZ4Encoder()
		w.check = &lz4Checker{r: lz4.NewReader(nil)}
	case "none":
		w.codec = storer{}
	}
	if !verify {
		w.check = nil
	}
	if err != nil {
		return w, fmt.Errorf("compression %s: %w", c.Algorithm, err)
	}
	return w, nil
}

// window is what a segment's codec wants of the segment before it.
func (c Compression) window() int {
	if c.Algorithm == "gzip" {
		return dictSize
	}
	return 0
}

// appender is the simplest io.Writer.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// storer is the codec of none.
type storer struct{}

func (storer) encode(s *segment) error {
	s.body = s.data()
	return nil
}

// combineAdler is the Adler-32 of two pieces put together, the right one of length n.
func combineAdler(left, right uint32, n int64) uint32 {
	const mod = 65521
	a1, b1 := uint64(left&0xffff), uint64(left>>16)
	a2, b2 := uint64(right&0xffff), uint64(right>>16)
	rest := uint64(n) % mod
	a := (a1 + a2 + mod - 1) % mod
	b := (b1 + b2 + rest*(a1+mod-1)) % mod
	return uint32(b<<16 | a)
}

// zstdEncoder makes of each segment one frame. A frame must end where its chunk ends:
// pg_restore loses what follows it in the chunk without a word.
type zstdEncoder struct{ enc *zstd.Encoder }

func newZstdEncoder(level int) (*zstdEncoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(segmentSize))
	return &zstdEncoder{enc}, err
}

func (z *zstdEncoder) encode(s *segment) error {
	s.out = s.out[:0]
	if len(s.data()) > 0 {
		s.out = z.enc.EncodeAll(s.data(), s.out)
	}
	s.body = s.out
	return nil
}

// lz4Encoder makes of each segment one frame.
type lz4Encoder struct {
	w   *lz4.Writer
	out appender
}

func newLZ4Encoder() (*lz4Encoder, error) {
	w := lz4.NewWriter(nil)
	err := w.Apply(lz4.ConcurrencyOption(1), lz4.ChecksumOption(false), lz4.BlockSizeOption(lz4.Block1Mb))
	return &lz4Encoder{w: w}, err
}

func (z *lz4Encoder) encode(s *segment) error {
	z.out.b = s.out[:0]
	if len(s.data()) > 0 {
		z.w.Reset(&z.out)
		if _, err := z.w.Write(s.data()); err != nil {
			return err
		}
		if err := z.w.Close(); err != nil {
			return err
		}
	}
	s.out, s.body = z.out.b, z.out.b
	return nil
}

// errCheck means that memory, processor or compressor failed.
func errCheck(s *segment, detail string) error {
	return fmt.Errorf("check of the compression failed in the block of dump ID %d: %s", s.dumpID, detail)
}

// compareCRC reads r to its end.
func compareCRC(s *segment, r io.Reader, buf []byte) error {
	crc, n := uint32(0), 0
	for {
		k, err := r.Read(buf)
		crc, n = crc32.Update(crc, castagnoli, buf[:k]), n+k
		if err == io.EOF {
			break
		}
		if err != nil {
			return errCheck(s, err.Error())
		}
	}
	if n != len(s.data()) || crc != s.crc {
		return errCheck(s, fmt.Sprintf("%d bytes of CRC-32C %08x became %d bytes of %08x", len(s.data()), s.crc, n, crc))
	}
	return nil
}

const checkBuffer = 64 << 10

type inflater struct {
	r   io.ReadCloser
	buf []byte
}

func (c *inflater) check(s *segment) error {
	body := s.body
	if s.first {
		body = body[len(zlibHeader):]
	}
	// A flate.Reader of its own, so that the inflater takes no byte more than it needs.
	src := bytes.NewReader(append(s.body, lastStored...)[len(s.body)-len(body):])
	if c.r == nil {
		c.buf = make([]byte, checkBuffer)
		c.r = flate.NewReaderDict(src, s.buf[:s.dict])
	} else if err := c.r.(flate.Resetter).Reset(src, s.buf[:s.dict]); err != nil {
		return errCheck(s, err.Error())
	}
	if err := compareCRC(s, c.r, c.buf); err != nil {
		return err
	}
	if src.Len() > 0 {
		return errCheck(s, "the deflate stream ends too early")
	}
	return nil
}

type zstdChecker struct {
	dec *zstd.Decoder
	buf []byte
}

func newZstdChecker() (*zstdChecker, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(2*segmentSize))
	return &zstdChecker{dec: dec, buf: make([]byte, checkBuffer)}, err
}

func (c *zstdChecker) check(s *segment) error {
	if err := c.dec.Reset(onlyReader{bytes.NewReader(s.body)}); err != nil {
		return errCheck(s, err.Error())
	}
	return compareCRC(s, c.dec, c.buf)
}

// onlyReader hides that its bytes lie in memory, which the decoder would decode as a whole.
type onlyReader struct{ io.Reader }

type lz4Checker struct {
	r   *lz4.Reader
	buf []byte
}

func (c *lz4Checker) check(s *segment) error {
	if c.buf == nil {
		c.buf = make([]byte, checkBuffer)
	}
	if len(s.body) == 0 {
		return compareCRC(s, bytes.NewReader(nil), c.buf)
	}
	c.r.Reset(bytes.NewReader(s.body))
	return compareCRC(s, c.r, c.buf)
}
