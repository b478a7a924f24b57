package pgarchive

import (
	"errors"
	"io"
	"sync/atomic"
)

const (
	tapBuffer  = 64 << 10
	tapBuffers = 16
)

// tap decodes an archive beside its way through a Packer that keeps the compression, for
// the evidence alone.
type tap struct {
	entries map[int]*Entry
	feed    *tapFeed
	line    *pipeline
	done    chan struct{} // the collector has ended

	decodeErr error // set before the pipeline's end
	err       error // of the collector, before done
	contents  map[int]Content
	passing   atomic.Pointer[Passing]
}

func newTap(head *Head, offset int64, opts PackOptions) (*tap, error) {
	unpacker, err := NewUnpacker(nil, head.Compression, offset)
	if err != nil {
		return nil, err
	}
	t := &tap{
		entries: make(map[int]*Entry), done: make(chan struct{}), contents: make(map[int]Content),
		line: newPipeline(make([]worker, opts.Workers), 0, false),
	}
	t.feed = newTapFeed(t.line.quit)
	unpacker.src = t.feed
	for _, e := range head.Promised() {
		t.entries[e.DumpID] = e
	}
	c := &cutter{pipeline: t.line}
	go func() {
		t.decodeErr = t.decode(c, unpacker)
		c.close()
	}()
	go t.collect(opts.LargeObject)
	return t, nil
}

// decode is the goroutine that unpacks.
func (t *tap) decode(c *cutter, u *Unpacker) error {
	buf := make([]byte, tapBuffer)
	block := 0
	for {
		st, err := u.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		e := t.entries[st.DumpID]
		if e == nil {
			return u.fault(ErrFormat, "block that the TOC does not promise")
		}
		if st.DumpID != block {
			block, c.begins = st.DumpID, true
		}
		if !c.begin(stream{kind: e.streamKind(), dumpID: st.DumpID, blob: st.LargeObject, oid: int(int32(st.OID))}) {
			return ErrClosed
		}
		for {
			n, err := u.Read(buf)
			if !c.add(buf[:n]) {
				return ErrClosed
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return named(err, e)
			}
		}
		if fault := c.end(); fault != "" {
			return &FormatError{Offset: st.Offset, Detail: "the block of " + e.Label() + " " + fault, Err: ErrIncomplete}
		}
	}
}

// named says whose block an Unpacker, which knows dump IDs alone, found fault with.
func named(err error, e *Entry) error {
	if fe := (*FormatError)(nil); errors.As(err, &fe) {
		fe.Detail = "the block of " + e.Label() + ": " + fe.Detail
	}
	return err
}

// collect is the goroutine at the pipeline's end.
func (t *tap) collect(report func(LargeObject)) {
	defer close(t.done)
	tally := contentTally{report: report}
	for {
		s := t.line.next()
		if s == nil {
			break
		}
		content, _ := tally.add(s)
		now := tally.passing(s.dumpID)
		t.passing.Store(&now)
		if s.last {
			t.contents[s.dumpID] = content
		}
		t.line.recycle(s)
	}
	if t.line.stopped() {
		t.err = ErrClosed
		return
	}
	t.err = t.decodeErr
	t.line.abandon() // nobody decodes any more: the feed must not wait
}

// write gives the decoder what has passed; it returns what the decoder found wrong so far.
func (t *tap) write(b []byte) error {
	if t.feed.write(b) {
		return nil
	}
	<-t.done
	if t.err == nil {
		return errors.New("the decoder ended before the archive")
	}
	return t.err
}

// finish waits for the decoder and completes the blocks.
func (t *tap) finish(blocks []Block) error {
	close(t.feed.full)
	<-t.done
	if t.err != nil {
		return t.err
	}
	for i := range blocks {
		b := &blocks[i]
		b.Content = t.contents[b.DumpID]
		if b.BlobBlock {
			b.Content.Evidence = EvidenceObjects // with none in it, nothing told of the block
		}
	}
	return nil
}

func (t *tap) abandon() { t.line.abandon() }

func (t *tap) wait() {
	t.line.pool.Wait()
	<-t.done
}

// tapFeed is a pipe with room: it hands what is written to a reader in another goroutine.
type tapFeed struct {
	full, empty chan []byte
	quit        chan struct{}
	buf, rest   []byte // being read
}

func newTapFeed(quit chan struct{}) *tapFeed {
	f := &tapFeed{full: make(chan []byte, tapBuffers), empty: make(chan []byte, tapBuffers), quit: quit}
	for range tapBuffers {
		f.empty <- nil // made when it is needed
	}
	return f
}

// write copies b; false when nobody reads any more.
func (f *tapFeed) write(b []byte) bool {
	for len(b) > 0 {
		var buf []byte
		select {
		case buf = <-f.empty:
		case <-f.quit:
			return false
		}
		if buf == nil {
			buf = make([]byte, 0, tapBuffer)
		}
		n := min(len(b), cap(buf))
		f.full <- append(buf[:0], b[:n]...)
		b = b[n:]
	}
	return true
}

func (f *tapFeed) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.buf != nil {
			f.empty <- f.buf
			f.buf = nil
		}
		select {
		case b, open := <-f.full:
			if !open {
				return 0, io.EOF
			}
			f.buf, f.rest = b, b
		case <-f.quit:
			return 0, ErrClosed
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}
