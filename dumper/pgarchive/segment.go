package pgarchive

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"sync"
)

const (
	// segmentSize is the unit of parallel work. Smaller ones cost ratio, larger ones memory.
	segmentSize = 1 << 20
	// segmentTail more bytes are gathered before a segment is cut off, and go to the next
	// one, so that the end mark of a COPY always stands whole in the last segment and no
	// last segment is empty but that of an empty stream.
	segmentTail = len(endMark)
	// dictSize is deflate's window: what the inflater has seen when it comes to a segment.
	dictSize = 32 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type contentKind uint8

const (
	kindFraming contentKind = iota // no content: the end of a block of large objects
	kindRows
	kindInserts
	kindObject
)

// A stream is the content of one TABLE DATA block or of one large object.
type stream struct {
	kind   contentKind
	dumpID int
	blob   bool // the block is one of large objects
	oid    int  // of the large object, as the archive writes it
}

// segment is a stretch of one stream on its way through the pipeline.
type segment struct {
	stream
	begins, ends bool   // its block
	first, last  bool   // of its stream
	buf          []byte // up to dictSize bytes of what came before, then the data
	dict         int    // length of the former

	text               int // of a COPY: bytes of data before the end mark
	wholeFrom, wholeTo int // of text: whole rows
	crc                uint32
	trial, verdict     *trial // of the deflater, nil for most and for the first

	// By the worker.
	out    []byte // reused
	body   []byte // what is stored of the data
	adler  uint32
	tally  rowTally
	err    error
	packed chan struct{}

	// By the hasher.
	joint  rowTally
	sum    [sha256.Size]byte // of the stream, in its last segment
	hashed chan struct{}
}

func (s *segment) data() []byte { return s.buf[s.dict:] }

// worker is one member of the pool.
type worker struct {
	codec codec // nil: evidence alone
	check checker
}

func (w *worker) do(s *segment) error {
	s.tally = rowTally{}
	if s.kind == kindRows {
		s.tally = tallyRows(s.data()[s.wholeFrom:s.wholeTo])
	}
	if w.codec == nil || s.kind == kindFraming {
		return nil
	}
	if err := w.codec.encode(s); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	if w.check == nil {
		return nil
	}
	return w.check.check(s)
}

// pipeline takes segments from a cutter through a pool of workers and the hasher to one
// consumer, in order. Its segments are all there ever are: they bound the memory, and no
// send on a channel ever blocks.
type pipeline struct {
	free, order, work, hash chan *segment
	quit                    chan struct{}
	stop                    sync.Once
	pool                    sync.WaitGroup
	dict                    int  // bytes that a segment takes from the one before
	crc                     bool // of the data, taken before anything is done with them
}

func newPipeline(workers []worker, dict int, crc bool) *pipeline {
	n := 2*len(workers) + 2
	p := &pipeline{
		free: make(chan *segment, n), order: make(chan *segment, n), work: make(chan *segment, n), hash: make(chan *segment, n),
		quit: make(chan struct{}), dict: dict, crc: crc,
	}
	for range n {
		p.free <- &segment{packed: make(chan struct{}, 1), hashed: make(chan struct{}, 1)}
	}
	for i := range workers {
		p.pool.Go(func() {
			p.each(p.work, func(s *segment) {
				s.err = workers[i].do(s)
				s.packed <- struct{}{}
			})
		})
	}
	p.pool.Go(func() {
		hasher := newTextHasher()
		p.each(p.hash, func(s *segment) {
			hasher.add(s)
			s.hashed <- struct{}{}
		})
	})
	return p
}

// each runs until the channel is closed or the pipeline abandoned.
func (p *pipeline) each(c chan *segment, f func(*segment)) {
	for {
		select {
		case s, open := <-c:
			if !open {
				return
			}
			f(s)
		case <-p.quit:
			return
		}
	}
}

func (p *pipeline) stopped() bool {
	select {
	case <-p.quit:
		return true
	default:
		return false
	}
}

// abandon makes everything end that does not wait for the source.
func (p *pipeline) abandon() { p.stop.Do(func() { close(p.quit) }) }

// next is the next segment in order, when worker and hasher are through with it; nil at
// the end, or when abandoned.
func (p *pipeline) next() *segment {
	var s *segment
	select {
	case s = <-p.order:
	case <-p.quit:
	}
	if s == nil {
		return nil
	}
	for _, done := range []chan struct{}{s.packed, s.hashed} {
		select {
		case <-done:
		case <-p.quit:
			return nil
		}
	}
	return s
}

// recycle gives a segment back.
func (p *pipeline) recycle(s *segment) { p.free <- s }

// cutter cuts streams into segments. It is the one producer of a pipeline.
type cutter struct {
	*pipeline
	cur    *segment
	begins bool // the next segment begins a block
	midRow bool // the next segment of the stream begins inside a row
	raw    int64
	trials trials
}

// close ends the pipeline behind the segments that are in it.
func (c *cutter) close() {
	close(c.order)
	close(c.work)
	close(c.hash)
}

// acquire is nil when the pipeline was abandoned.
func (c *cutter) acquire() *segment {
	select {
	case <-c.quit:
		return nil
	case s := <-c.free:
		return s
	}
}

// begin starts a stream; false when the pipeline was abandoned.
func (c *cutter) begin(st stream) bool {
	s := c.acquire()
	if s == nil {
		return false
	}
	s.start(st, 0)
	s.begins, s.first = c.begins, true
	c.begins, c.midRow, c.raw, c.trials = false, false, 0, trials{}
	c.trials.assign(s)
	c.cur = s
	return true
}

// start makes a used segment new.
func (s *segment) start(st stream, dict int) {
	if s.buf == nil && st.kind != kindFraming {
		s.buf = make([]byte, dictSize+segmentSize+segmentTail)
	}
	*s = segment{stream: st, buf: s.buf[:dict], dict: dict, out: s.out, packed: s.packed, hashed: s.hashed}
}

// add takes content of the current stream; false when the pipeline was abandoned.
func (c *cutter) add(b []byte) bool {
	for len(b) > 0 {
		s := c.cur
		end := len(s.buf)
		n := copy(s.buf[end:s.dict+segmentSize+segmentTail], b)
		s.buf = s.buf[:end+n]
		b = b[n:]
		c.raw += int64(n)
		if len(s.buf)-s.dict == segmentSize+segmentTail && !c.cut() {
			return false
		}
	}
	return true
}

// cut sends the current segment on and begins the next one with its tail.
func (c *cutter) cut() bool {
	next := c.acquire()
	if next == nil {
		return false
	}
	s := c.cur
	data := s.data()
	next.start(s.stream, c.dict)
	c.trials.assign(next)
	copy(next.buf, data[segmentSize-c.dict:segmentSize])
	next.buf = append(next.buf, data[segmentSize:]...)
	s.buf = s.buf[:s.dict+segmentSize]
	s.text = segmentSize
	c.cur = next
	c.send(s)
	return true
}

// end ends the current stream. It says what is wrong with COPY text that has no end.
func (c *cutter) end() (fault string) {
	s := c.cur
	c.cur = nil
	s.last, s.ends = true, !s.blob
	if s.kind == kindRows {
		text, ok := bytes.CutSuffix(s.data(), []byte(endMark))
		switch {
		case !ok:
			fault = `does not end in the mark \. of a complete COPY`
		case len(text) == 0 && c.midRow, len(text) > 0 && text[len(text)-1] != '\n':
			fault = "has a last row without an end"
		}
		s.text = len(text)
	}
	c.send(s)
	return fault
}

// endBlobs ends a block of large objects, which has an end of its own.
func (c *cutter) endBlobs(dumpID int) bool {
	s := c.acquire()
	if s == nil {
		return false
	}
	s.start(stream{kind: kindFraming, dumpID: dumpID, blob: true}, 0)
	s.begins, s.ends = c.begins, true
	c.begins = false
	c.send(s)
	return true
}

func (c *cutter) send(s *segment) {
	if s.kind == kindRows {
		s.findRows(c.midRow)
		if s.text > 0 {
			c.midRow = s.data()[s.text-1] != '\n'
		}
	}
	if c.crc {
		s.crc = crc32.Checksum(s.data(), castagnoli)
	}
	c.order <- s
	c.work <- s
	if s.kind == kindRows || s.kind == kindObject {
		c.hash <- s
	} else {
		s.hashed <- struct{}{}
	}
}
