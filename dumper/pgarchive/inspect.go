package pgarchive

import (
	"fmt"
	"io"
	"runtime"
)

// Inspector decodes stored data blocks one by one, in whatever order, and tells what is in
// each: the counts and hashes that a Packer took of the same content.
//
// Memory: two segments of 1 MiB per worker and two more, and what an [Unpacker] takes.
//
// An Inspector is used by one goroutine at a time.
type Inspector struct {
	cut      *cutter
	unpacker *Unpacker
	tally    contentTally
	ended    bool         // the segment that ends the block is on its way
	contents chan Content // of one block after another
	done     chan struct{}
	buf      []byte
}

// NewInspector is for blocks of an archive with this compression. Workers hash rows beside
// the one that decodes; 0 means one per processor, up to 16.
func NewInspector(c Compression, workers int) (*Inspector, error) {
	unpacker, err := NewUnpacker(nil, c, 0)
	if err != nil {
		return nil, err
	}
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	i := &Inspector{
		unpacker: unpacker, contents: make(chan Content, 1), done: make(chan struct{}), buf: make([]byte, tapBuffer),
		cut: &cutter{pipeline: newPipeline(make([]worker, min(workers, maxWorkers)), 0, false)},
	}
	go i.collect()
	return i, nil
}

// collect is the goroutine at the pipeline's end.
func (i *Inspector) collect() {
	defer close(i.done)
	for {
		s := i.cut.next()
		if s == nil {
			return
		}
		content, ends := i.tally.add(s)
		i.cut.recycle(s)
		if ends {
			i.contents <- content
		}
	}
}

// Inspect reads the one block of e, which begins at offset in its archive and ends where r
// does. report, which may be nil, is told of each large object in it, by one goroutine at a
// time and never after Inspect has returned. What is no whole block of e, or does not decode,
// is a *FormatError; errors of the source come back unchanged. After either, which may leave
// some of r unread, the next block can be inspected. The block's SHA256 is not taken.
func (i *Inspector) Inspect(r io.Reader, e *Entry, offset int64, report func(LargeObject)) (Block, error) {
	i.tally.report = report
	i.unpacker.reset(r, offset)
	i.cut.begins, i.ended = true, false
	err := i.decode(e, offset)
	if !i.end(e) {
		return Block{}, ErrClosed
	}
	b := i.unpacker.parser.cur
	select {
	case b.Content = <-i.contents:
	case <-i.done:
		return Block{}, ErrClosed
	}
	return b, err
}

// decode takes what is in the block, and wants nothing else to be there.
func (i *Inspector) decode(e *Entry, offset int64) error {
	u := i.unpacker
	for {
		st, err := u.Next()
		switch block := &u.parser.cur; {
		case err == io.EOF && block.DumpID == 0:
			return &FormatError{Offset: offset, Detail: "there is no block of " + e.Label(), Err: ErrIncomplete}
		case err != nil && err != io.EOF:
			return named(err, e)
		case block.Offset != offset:
			return &FormatError{Offset: block.Offset, Detail: "another block stands in that of " + e.Label(), Err: ErrFormat}
		case block.DumpID != e.DumpID || block.BlobBlock != e.HoldsLargeObjects():
			return &FormatError{Offset: offset, Detail: fmt.Sprintf("a block of dump ID %d stands where that of %s (dump ID %d) should", block.DumpID, e.Label(), e.DumpID), Err: ErrFormat}
		case err == io.EOF:
			return nil
		}
		if err := i.stream(st, e); err != nil {
			return err
		}
	}
}

// stream takes the rows of a table, or one large object.
func (i *Inspector) stream(st Stream, e *Entry) error {
	if !i.cut.begin(stream{kind: e.streamKind(), dumpID: st.DumpID, blob: st.LargeObject, oid: int(int32(st.OID))}) {
		return ErrClosed
	}
	for {
		n, err := i.unpacker.Read(i.buf)
		if !i.cut.add(i.buf[:n]) {
			return ErrClosed
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return named(err, e)
		}
	}
	i.ended = !st.LargeObject
	if fault := i.cut.end(); fault != "" {
		return &FormatError{Offset: st.Offset, Detail: "the block of " + e.Label() + " " + fault, Err: ErrIncomplete}
	}
	return nil
}

// end sees to it that the collector comes to the block's end, also behind an error; false
// when the Inspector was closed.
func (i *Inspector) end(e *Entry) bool {
	if i.cut.stopped() {
		return false
	}
	if s := i.cut.cur; s != nil {
		i.ended = !s.blob
		i.cut.end() // whatever is wrong with it has been said
	}
	return i.ended || i.cut.endBlobs(e.DumpID)
}

// Close ends the Inspector's goroutines. It must not be called while Inspect runs.
func (i *Inspector) Close() {
	i.cut.abandon()
	i.cut.pool.Wait()
	<-i.done
}

// Complete holds data blocks, in the order in which they stand, against what the head
// promises, as a [Scanner] does with a stream.
func (h *Head) Complete(blocks []Block) error {
	c := completeness{promised: h.Promised()}
	for n := range blocks {
		if c.allSeen() {
			return &FormatError{Offset: blocks[n].Offset, Detail: fmt.Sprintf("block of dump ID %d behind the last that the TOC promises", blocks[n].DumpID), Err: ErrFormat}
		}
		if err := c.begin(&blocks[n]); err != nil {
			return err
		}
	}
	if c.allSeen() {
		return nil
	}
	return &FormatError{Detail: fmt.Sprintf("the block of %s never comes", c.label()), Err: ErrIncomplete}
}
