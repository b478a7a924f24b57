package pgarchive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
)

// maxWorkers bounds the memory on large machines: one pg_dump cannot keep more of them busy.
const maxWorkers = 16

// ErrClosed is what a Packer returns that was closed before its end.
var ErrClosed = errors.New("packer is closed")

// PackOptions are the options of a Packer.
type PackOptions struct {
	// Compression is what the blocks shall be compressed with: gzip (levels 1 to 9), zstd (1
	// to 19), lz4 or none, where level 0 stands for the default one. KeepCompression takes an
	// archive with any compression and passes it on unchanged.
	Compression Compression
	// Workers compress and hash rows beside each other; 0 means one per processor, up to 16.
	Workers int
	// Verify undoes the compression of every segment and compares a CRC of the raw bytes.
	Verify bool
	// LargeObject is told of each large object, in the order of the archive, by one goroutine
	// at a time and never after Read returned io.EOF.
	LargeObject func(LargeObject)
}

// Packer reads an archive of pg_dump -Fc -Z0 and turns it into one that is compressed by
// many workers beside each other, still one that every pg_restore reads which knows the
// compression. Meanwhile it indexes the archive, holds it against its TOC as a [Scanner]
// does, counts and hashes the rows, and holds back the head.
//
// Its io.EOF is the same promise as a Scanner's: the source returned a bare io.EOF and the
// archive is complete. Beyond that, every COPY ended in its end mark. Errors of the source
// come back unchanged. Every error is final.
//
// An archive of an unknown version goes through unchanged and unindexed, as with a Scanner.
//
// Memory: two segments of 1 MiB per worker and two more, each with what it is compressed to,
// and a compressor per worker; docs/performance.md has the figures. Beside a kept
// compression it is what an [Unpacker] takes.
//
// A Packer is used by one goroutine at a time, Close excepted.
type Packer struct {
	opts PackOptions
	scan *Scanner // reads the head; all of the archive where nothing is to be compressed
	err  error    // what Read returns from now on

	started bool
	headErr error
	head    *Head  // as it goes out
	text    []byte // the same, offsets unset
	flags   []int  // position in text of each promised entry's offset flag

	line   *pipeline
	tap    *tap
	srcErr error // set before the pipeline's end; io.EOF if the archive is complete

	seg     *segment // being read
	pieces  [3][]byte
	framing []byte
	closing []byte
	piece   int
	adler   uint32
	tally   contentTally
	index   blockIndex
}

// NewPacker reads nothing yet.
func NewPacker(r io.Reader, opts PackOptions) (*Packer, error) {
	var err error
	if opts.Compression, err = opts.Compression.resolve(); err != nil {
		return nil, err
	}
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	opts.Workers = min(opts.Workers, maxWorkers)
	p := &Packer{opts: opts, scan: NewScanner(r)}
	p.tally.report = opts.LargeObject
	return p, nil
}

// Head reads up to the end of the head and returns it as it will be written: with the new
// compression, with version 1.15 where an older one cannot say it, and without offsets.
func (p *Packer) Head() (*Head, error) {
	if !p.started {
		p.started = true
		p.start()
	}
	return p.head, p.headErr
}

func (p *Packer) start() {
	if p.head, p.headErr = p.scan.Head(); p.headErr != nil {
		if !errors.Is(p.headErr, ErrUnknownVersion) {
			p.err = p.headErr
		}
		return
	}
	var err error
	if p.opts.Compression.Algorithm == KeepCompression {
		p.text, p.flags = []byte(p.scan.text), p.scan.flags
		p.tap, err = newTap(p.head, int64(len(p.text)), p.opts)
	} else {
		err = p.startPipeline()
	}
	if err != nil {
		p.head, p.headErr, p.err = nil, err, err
	}
}

func (p *Packer) startPipeline() error {
	if err := p.rewriteHead(); err != nil {
		return err
	}
	workers := make([]worker, p.opts.Workers)
	for i := range workers {
		var err error
		if workers[i], err = p.opts.Compression.newWorker(p.opts.Verify); err != nil {
			return err
		}
	}
	p.index.pos = int64(len(p.text))
	p.line = newPipeline(workers, p.opts.Compression.window(), p.opts.Verify)
	go p.feed(&cutter{pipeline: p.line})
	return nil
}

// rewriteHead makes head, text and flags from what the scanner read.
func (p *Packer) rewriteHead() error {
	came := p.head
	if came.Compression.Algorithm != "none" {
		return fmt.Errorf("the archive is compressed already (%s): run pg_dump with -Z0, or keep its compression", came.Compression.Algorithm)
	}
	head := *came
	head.Entries = slices.Clone(came.Entries)
	for i := range head.Entries {
		if e := &head.Entries[i]; e.OffsetFlag == offsetSet {
			e.OffsetFlag, e.Offset = offsetNotSet, 0
		}
	}
	head.Compression = p.opts.Compression
	switch alg := head.Compression.Algorithm; {
	case head.Version.hasCompressionByte():
		head.Compression.Level = 0
	case alg == "zstd", alg == "lz4":
		if !head.Version.hasTableAM() {
			return fmt.Errorf("archive version %v cannot be raised to 1.15, which %s needs: use gzip", head.Version, alg)
		}
		head.Version.Minor = 15
		head.Compression.Level = 0
	}
	e := encoder{}
	e.header(&head.Header)
	if e.err != nil {
		return e.err
	}
	var was encoder
	was.header(&came.Header)
	if was.err != nil {
		return was.err
	}
	shift := len(e.b) - len(was.b)
	p.text = slices.Concat(e.b, []byte(p.scan.text[len(was.b):]))
	p.flags = make([]int, len(p.scan.flags))
	for i, at := range p.scan.flags {
		p.flags[i] = at + shift
		p.text[at+shift] = offsetNotSet
		clear(p.text[at+shift+1 : at+shift+offsetLen])
	}
	p.head = &head
	return nil
}

// HeadSize is the length of the head as it will be written, 0 for an unknown version.
func (p *Packer) HeadSize() int64 { return int64(len(p.text)) }

// HeadBytes is the head as it will be written, offsets unset; nil for an unknown version.
func (p *Packer) HeadBytes() []byte {
	if len(p.text) == 0 {
		return nil
	}
	return slices.Clone(p.text)
}

// PatchedHead is the head with every block's offset set. It is valid only after Read
// returned io.EOF.
func (p *Packer) PatchedHead() ([]byte, error) {
	switch {
	case errors.Is(p.headErr, ErrUnknownVersion):
		return nil, p.headErr
	case p.err != io.EOF:
		return nil, errors.New("offsets are known only at the end of the archive")
	}
	b := p.HeadBytes()
	for i, block := range p.Blocks() {
		at := p.flags[i]
		b[at] = offsetSet
		binary.LittleEndian.PutUint64(b[at+1:], uint64(block.Offset))
	}
	return b, nil
}

// Blocks are the data blocks seen so far, in stream order; those of a complete archive
// stand in the order of Head.Promised. Where the compression is kept, their Content comes
// with io.EOF. The slice is the Packer's own.
func (p *Packer) Blocks() []Block {
	if p.line == nil {
		return p.scan.blocks
	}
	return p.index.blocks
}

// Read delivers the bytes behind the head, reading the head first if Head did not.
func (p *Packer) Read(b []byte) (int, error) {
	p.Head() //nolint:errcheck // a failure stands in p.err, an unknown version is no failure here
	if p.err != nil {
		return 0, p.err
	}
	if len(b) == 0 {
		return 0, nil
	}
	if p.line == nil {
		return p.passThrough(b)
	}
	for {
		for ; p.piece < len(p.pieces); p.piece++ {
			if piece := p.pieces[p.piece]; len(piece) > 0 {
				n := copy(b, piece)
				p.pieces[p.piece] = piece[n:]
				return n, nil
			}
		}
		if p.advance(); p.err != nil {
			return 0, p.err
		}
	}
}

// passThrough reads from the scanner, beside which the tap decodes.
func (p *Packer) passThrough(b []byte) (int, error) {
	n, err := p.scan.Read(b)
	if p.tap == nil { // unknown version
		p.err = err
		return n, err
	}
	if fault := p.tap.write(b[:n]); fault != nil {
		err = fault
	} else if err == io.EOF {
		if fault := p.tap.finish(p.scan.blocks); fault != nil {
			err = fault
		}
	}
	if err != nil {
		p.tap.abandon()
	}
	p.err = err
	return n, err
}

// Close frees what the Packer holds; Read then returns ErrClosed, if it has not come to its
// end. Nothing waits for the source: the goroutine that reads it ends when its last Read
// returns, so end the source, too.
func (p *Packer) Close() error {
	if p.line != nil {
		p.line.abandon()
		p.line.pool.Wait()
	}
	if p.tap != nil {
		p.tap.abandon()
		p.tap.wait()
	}
	return nil
}

// feed is the goroutine that reads the source and cuts it into segments.
func (p *Packer) feed(c *cutter) {
	f := feeder{cutter: c, check: &p.scan.check, parser: &p.scan.parser, scan: p.scan}
	p.srcErr = f.run(p.scan.src)
	c.close()
}
