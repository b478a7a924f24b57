package archiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// A dump is read back once, by ranges that several readers fetch beside each other. What
// they bring goes, in the order of the dump, to one goroutine that takes the hashes of the
// stored bytes, which cannot be split, and by blocks to lanes that decode them. A lane
// always has the earliest block that is not through, so that chunks come free and the
// memory stays bounded however large a block is.
const (
	// maxLanes bounds the memory: each has an Inspector.
	maxLanes    = 4
	laneWorkers = 2
	laneQueue   = 64 // blocks
)

// dumpPass is one reading of a dump.
type dumpPass struct {
	object   StoredObject
	unsealed *sealedDump // of an encrypted dump whose content is to be read
	index    *Index      // nil: there is none, or it cannot be relied on
	head     *pgarchive.Head
	progress *tracker

	entries []*pgarchive.Entry // of the index's blocks, nil where the head has none
	objects []int              // of the index's large objects, the first of each block
	found   []foundBlock
	whole   hash.Hash // of the plain dump, or of what follows its head where that was stored last
	stored  hash.Hash // of the age file, when it is decrypted; else nil
	damaged string    // what does not decrypt
	n       atomic.Int64
	done    atomic.Int64 // blocks
}

// foundBlock is what was found where the index has a block.
type foundBlock struct {
	sum    [sha256.Size]byte
	block  pgarchive.Block
	looked bool
	err    error // it does not decode, or holds something else
}

// read reads the whole dump. Its error is that of the store, or of ctx; what is wrong
// with the dump is left in the pass, and for what keeps it from being read on there is an
// ErrIntegrity.
func (p *dumpPass) read(ctx context.Context, source storedDump) (problems []Problem, err error) {
	p.whole = sha256.New()
	var plain rangeOpener = source
	switch {
	case p.unsealed != nil:
		plain, p.stored = p.unsealed, sha256.New()
	case p.object.Encrypted(): // its hash is all there is
		if err := p.stream(ctx, source, 0); err != nil {
			return nil, err
		}
		return p.judgeWhole(), nil
	}
	at := int64(0)
	if h := p.object.Head; h != nil {
		raw, err := readRange(ctx, plain, 0, h.Length)
		if err != nil && (p.unsealed == nil || !errors.Is(err, ErrIntegrity)) {
			return nil, err
		}
		if p.unsealed == nil { // an age file is read from its beginning
			at = h.Length
			p.n.Add(h.Length)
			p.progress.read(int(h.Length))
			if p.object.Body == nil {
				p.whole.Write(raw)
			}
		}
		problems = p.takeHead(raw)
	}
	if err := p.stream(ctx, source, at); err != nil {
		return problems, err
	}
	return append(problems, p.judge()...), nil
}

func readRange(ctx context.Context, source rangeOpener, offset, length int64) ([]byte, error) {
	body, err := source.openRange(ctx, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var raw bytes.Buffer // a length may be wrong
	if _, err = io.CopyN(&raw, body, length); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return raw.Bytes(), err
}

// takeHead checks the head and finds the entries of the blocks. Without a head that can be
// relied on, blocks are held against their hashes alone.
func (p *dumpPass) takeHead(raw []byte) []Problem {
	if hexSum(raw) != p.object.Head.SHA256 {
		return []Problem{p.problem("", "its head differs from the SHA-256 in the manifest")}
	}
	r := bytes.NewReader(raw)
	head, err := pgarchive.ParseHead(r)
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("%d bytes follow it", r.Len())
	}
	if err != nil {
		return []Problem{p.problem("", "its head: "+oneLine(err))}
	}
	if p.index == nil {
		return nil
	}
	p.head = head
	byID := map[int]*pgarchive.Entry{}
	for _, e := range head.Promised() {
		byID[e.DumpID] = e
	}
	objects := 0
	for i := range p.index.Blocks {
		b := &p.index.Blocks[i]
		p.entries = append(p.entries, byID[b.DumpID])
		p.objects = append(p.objects, objects)
		objects += b.LargeObjects
	}
	if p.index.Entries != len(head.Entries) {
		return []Problem{{Object: IndexName, What: fmt.Sprintf("it says that the dump has %d entries, its table of contents has %d", p.index.Entries, len(head.Entries))}}
	}
	return nil
}

// stream reads from at to the end of the dump.
func (p *dumpPass) stream(ctx context.Context, source storedDump, at int64) error {
	if p.index != nil {
		p.found = make([]foundBlock, len(p.index.Blocks))
	}
	lanes := min(runtime.GOMAXPROCS(0), maxLanes)
	chunks := 2*aheadReaders + lanes
	whole := ctx
	g, ctx := errgroup.WithContext(ctx)
	ahead := newReadAhead(source, at, p.object.Size, chunks)
	ahead.run(ctx, g)
	var from chunkSource = ahead
	if p.unsealed != nil {
		from = p.unseal(ctx, g, ahead, chunks)
	}
	toHash, toLanes := make(chan *chunk, chunks), make(chan *blockFeed, laneQueue)
	g.Go(func() error {
		defer close(toHash)
		defer close(toLanes)
		return p.deal(ctx, from, toHash, toLanes)
	})
	g.Go(func() error {
		p.hash(toHash)
		return nil
	})
	for range lanes {
		g.Go(func() error { return p.lane(ctx, toLanes) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(whole) // a block that was broken off for it is not damaged
}

// deal hands out the chunks.
func (p *dumpPass) deal(ctx context.Context, from chunkSource, toHash chan<- *chunk, toLanes chan<- *blockFeed) error {
	var feed *blockFeed
	for next := 0; ; {
		c, err := from.next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		c.hold(1)
		toHash <- c // there is room for all chunks
		at, rest := p.behindHead(c)
		for len(rest) > 0 && next < len(p.found) {
			if feed == nil {
				feed = &blockFeed{block: next, pieces: make(chan piece, cap(toHash)), quit: ctx.Done()}
				select {
				case toLanes <- feed:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			b := &p.index.Blocks[next]
			n := min(int64(len(rest)), b.Offset+b.Length-at)
			c.hold(1)
			feed.pieces <- piece{c, rest[:n]}
			at, rest = at+n, rest[n:]
			if at == b.Offset+b.Length {
				close(feed.pieces)
				feed, next = nil, next+1
			}
		}
		if p.unsealed == nil {
			p.n.Add(int64(len(c.data)))
			p.progress.read(len(c.data))
		}
		c.release()
	}
}

// behindHead is what a chunk has of the blocks.
func (p *dumpPass) behindHead(c *chunk) (offset int64, data []byte) {
	if len(p.found) == 0 {
		return c.offset, nil
	}
	skip := min(max(0, p.index.Blocks[0].Offset-c.offset), int64(len(c.data)))
	return c.offset + skip, c.data[skip:]
}

// hash takes the hash of the whole and of each block.
func (p *dumpPass) hash(chunks <-chan *chunk) {
	sum, next := sha256.New(), 0
	for c := range chunks {
		p.whole.Write(c.data)
		at, rest := p.behindHead(c)
		for len(rest) > 0 && next < len(p.found) {
			b := &p.index.Blocks[next]
			n := min(int64(len(rest)), b.Offset+b.Length-at)
			sum.Write(rest[:n])
			at, rest = at+n, rest[n:]
			if at == b.Offset+b.Length {
				sum.Sum(p.found[next].sum[:0])
				sum.Reset()
				next++
			}
		}
		c.release()
	}
}

// lane decodes one block after another.
func (p *dumpPass) lane(ctx context.Context, feeds <-chan *blockFeed) error {
	var inspector *pgarchive.Inspector
	if p.head != nil {
		var err error
		if inspector, err = pgarchive.NewInspector(p.head.Compression, laneWorkers); err != nil {
			return integrity("%s: %w", p.object.Key, err)
		}
		defer inspector.Close()
	}
	for feed := range feeds {
		if inspector != nil && p.entries[feed.block] != nil {
			p.inspect(inspector, feed)
		}
		if _, err := io.Copy(io.Discard, feed); err != nil {
			return context.Cause(ctx)
		}
		p.progress.tables(int(p.done.Add(1)), len(p.found))
	}
	return nil
}

// inspect compares what is in a block with the index.
func (p *dumpPass) inspect(inspector *pgarchive.Inspector, feed *blockFeed) {
	b, f := &p.index.Blocks[feed.block], &p.found[feed.block]
	var want []IndexObject
	if len(p.index.LargeObjects) > 0 {
		first := p.objects[feed.block]
		want = p.index.LargeObjects[first : first+b.LargeObjects]
	}
	objects, differs := 0, error(nil)
	f.block, f.err = inspector.Inspect(feed, p.entries[feed.block], b.Offset, func(o pgarchive.LargeObject) {
		if objects < len(want) && differs == nil {
			differs = want[objects].compare(o)
		}
		objects++
	})
	f.looked = true
	if f.err == nil {
		f.err = b.compare(f.block)
	}
	if f.err == nil {
		f.err = differs
	}
}

// compare says in what a block differs from what the index has of it.
func (b *IndexBlock) compare(found pgarchive.Block) error {
	c := found.Content
	switch {
	case (b.Kind == KindLargeObjects) != found.BlobBlock:
		return fmt.Errorf("the index calls it %s", b.Kind)
	case b.Length != found.Length:
		return fmt.Errorf("it has %d bytes, the index says %d", found.Length, b.Length)
	case b.LargeObjects != found.LargeObjects:
		return fmt.Errorf("it has %d large objects, the index says %d", found.LargeObjects, b.LargeObjects)
	case b.RawBytes != c.RawBytes:
		return fmt.Errorf("its content has %d bytes, the index says %d", c.RawBytes, b.RawBytes)
	case b.Content == nil:
		return nil
	case c.Evidence != pgarchive.EvidenceRows:
		return fmt.Errorf("the index has rows of it, and it holds none (%s)", c.Reason)
	}
	switch got, want := newContent(c), b.Content; {
	case got.Rows != want.Rows:
		return fmt.Errorf("it has %d rows, the index says %d", got.Rows, want.Rows)
	case got.SHA256 != want.SHA256:
		return errors.New("its content differs from its SHA-256 in the index")
	case got.RowSums != want.RowSums:
		return errors.New("the sums of its rows differ from those in the index")
	}
	return nil
}

func (o IndexObject) compare(found pgarchive.LargeObject) error {
	switch {
	case o.OID != found.OID:
		return fmt.Errorf("large object %d stands where the index has %d", found.OID, o.OID)
	case o.RawBytes != found.RawBytes:
		return fmt.Errorf("large object %d has %d bytes, the index says %d", o.OID, found.RawBytes, o.RawBytes)
	case o.SHA256 != found.SHA256:
		return fmt.Errorf("large object %d differs from its SHA-256 in the index", o.OID)
	}
	return nil
}

// judge says what is wrong, when everything was read.
func (p *dumpPass) judge() []Problem {
	var problems []Problem
	blocks := make([]pgarchive.Block, 0, len(p.found))
	for i := range p.found {
		b, f := &p.index.Blocks[i], &p.found[i]
		blocks = append(blocks, f.block)
		switch differs := hex.EncodeToString(f.sum[:]) != b.SHA256; {
		case differs && f.err != nil:
			problems = append(problems, p.problem(b.table(), "it differs from its SHA-256 in the index: "+oneLine(f.err)))
		case differs:
			problems = append(problems, p.problem(b.table(), "it differs from its SHA-256 in the index"))
		case f.err != nil:
			problems = append(problems, p.problem(b.table(), oneLine(f.err)))
		case p.head != nil && !f.looked:
			problems = append(problems, Problem{Object: p.indexName(), inside: true, Table: b.table(), What: fmt.Sprintf("the dump's table of contents promises no data of dump ID %d", b.DumpID)})
		}
		if e := p.entry(i); e != nil && (e.Namespace.S != b.Schema || e.Tag.S != b.Name) {
			problems = append(problems, Problem{Object: p.indexName(), inside: true, Table: b.table(), What: "the dump's table of contents calls it " + e.Label()})
		}
	}
	if len(problems) == 0 && p.head != nil {
		if err := p.head.Complete(blocks); err != nil {
			complete := p.problem("", oneLine(err))
			complete.inside = true
			problems = append(problems, complete)
		}
	}
	return append(problems, p.judgeWhole()...)
}

func (p *dumpPass) judgeWhole() (problems []Problem) {
	o := p.object
	stored, sum := p.stored, hex.EncodeToString(p.whole.Sum(nil))
	if o.Encrypted() && stored == nil {
		stored = p.whole
	}
	if p.damaged != "" {
		problems = append(problems, p.problem("", p.damaged))
	}
	if stored != nil && hex.EncodeToString(stored.Sum(nil)) != o.SHA256 {
		problems = append(problems, p.problem("", "it differs from its SHA-256 in the manifest"))
	}
	switch {
	case stored == p.whole:
	case o.Body != nil && sum != o.Body.SHA256:
		problems = append(problems, p.problem("", "what follows its head differs from the SHA-256 in the manifest"))
	case o.Body == nil && o.Plain != nil && sum != o.Plain.SHA256:
		problems = append(problems, p.problem("", "what is in it differs from its SHA-256 in the manifest"))
	case o.Body == nil && o.Plain == nil && sum != o.SHA256:
		problems = append(problems, p.problem("", "it differs from its SHA-256 in the manifest"))
	}
	return problems
}

func (p *dumpPass) entry(block int) *pgarchive.Entry {
	if p.head == nil {
		return nil
	}
	return p.entries[block]
}

// table names the block for a Problem.
func (b *IndexBlock) table() string {
	switch {
	case b.Kind == KindLargeObjects:
		return KindLargeObjects
	case b.Schema == "":
		return b.Name
	}
	return b.Schema + "." + b.Name
}

func (p *dumpPass) indexName() string {
	if p.object.Encrypted() {
		return IndexName + EncryptedSuffix
	}
	return IndexName
}

func (p *dumpPass) problem(table, what string) Problem {
	return Problem{Object: nameOf(p.object.Key), Table: table, What: what, inside: table != ""}
}

// blockFeed delivers the bytes of one block.
type blockFeed struct {
	block  int
	pieces chan piece
	quit   <-chan struct{}
	now    piece
}

// piece is what a chunk has of a block.
type piece struct {
	of   *chunk
	data []byte
}

func (f *blockFeed) Read(b []byte) (int, error) {
	for len(f.now.data) == 0 {
		if f.now.of != nil {
			f.now.of.release()
			f.now.of = nil
		}
		select {
		case next, open := <-f.pieces:
			if !open {
				return 0, io.EOF
			}
			f.now = next
		case <-f.quit:
			return 0, context.Canceled
		}
	}
	n := copy(b, f.now.data)
	f.now.data = f.now.data[n:]
	return n, nil
}
