package pgarchive

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
)

// advance makes the pieces of the next segment, or sets p.err.
func (p *Packer) advance() {
	if p.seg != nil {
		p.line.recycle(p.seg)
		p.seg = nil
	}
	s := p.line.next()
	switch {
	case s == nil && p.line.stopped():
		p.err = ErrClosed
		return
	case s == nil:
		p.err = p.srcErr
		return
	case s.err != nil:
		p.err = s.err
		p.line.abandon()
		return
	}
	p.seg = s
	p.index.begin(s)
	p.frame(s)
	p.piece = 0
	for _, piece := range p.pieces {
		p.index.stored(piece)
	}
	if content, ends := p.tally.add(s); ends {
		p.index.end(content)
	}
}

// frame puts around a segment's body what the format wants there.
func (p *Packer) frame(s *segment) {
	pre, post := encoder{b: p.framing[:0]}, encoder{b: p.closing[:0]}
	if s.begins {
		typ := byte(typeTable)
		if s.blob {
			typ = typeBlobs
		}
		pre.byte(typ)
		pre.int("dump ID", s.dumpID)
	}
	if s.first && s.kind == kindObject {
		pre.int("large object", s.oid)
	}
	body := s.body
	if p.opts.Compression.Algorithm == "gzip" && s.kind != kindFraming {
		p.trailer(s, &post)
	}
	if n := len(body) + len(post.b); n > 0 {
		pre.int("chunk", n)
		p.index.chunk(n)
	}
	if s.last || s.kind == kindFraming {
		post.int("end", 0)
	}
	p.framing, p.closing = pre.b, post.b
	p.pieces = [3][]byte{pre.b, body, post.b}
}

// trailer ends the zlib stream that the segments of a stream make up.
func (p *Packer) trailer(s *segment, post *encoder) {
	if s.first {
		p.adler = 1 // of no bytes
	}
	p.adler = combineAdler(p.adler, s.adler, int64(len(s.data())))
	if s.last {
		post.b = binary.BigEndian.AppendUint32(append(post.b, lastStored...), p.adler)
	}
}

// blockIndex makes the Blocks of what is written.
type blockIndex struct {
	pos    int64
	cur    Block
	sum    hash.Hash
	blocks []Block
}

func (x *blockIndex) begin(s *segment) {
	if s.begins {
		x.cur = Block{DumpID: s.dumpID, BlobBlock: s.blob, Offset: x.pos}
		if x.sum == nil {
			x.sum = sha256.New()
		}
		x.sum.Reset()
	}
	if s.first && s.kind == kindObject {
		x.cur.LargeObjects++
	}
}

func (x *blockIndex) chunk(n int) {
	x.cur.Chunks++
	x.cur.Payload += int64(n)
}

func (x *blockIndex) stored(b []byte) {
	x.pos += int64(len(b))
	x.sum.Write(b)
}

func (x *blockIndex) end(c Content) {
	x.cur.Length = x.pos - x.cur.Offset
	x.cur.Content = c
	x.sum.Sum(x.cur.SHA256[:0])
	x.blocks = append(x.blocks, x.cur)
}

// contentTally adds up what the segments of a block tell.
type contentTally struct {
	report func(LargeObject)
	cur    Content
	object int64 // raw bytes of the current large object
}

// add returns the content of a block with its last segment.
func (t *contentTally) add(s *segment) (c Content, ends bool) {
	if s.begins {
		t.cur = Content{}
	}
	if s.first {
		t.object = 0
	}
	switch s.kind {
	case kindRows:
		t.cur.Evidence = EvidenceRows
		if !hashesContent {
			t.cur.Evidence, t.cur.Reason = EvidenceNone, noEvidenceBuild
		}
		s.tally.add(s.joint)
		t.cur.Rows += s.tally.rows
		t.cur.RowSums[0] += s.tally.sums[0]
		t.cur.RowSums[1] += s.tally.sums[1]
		if s.last {
			t.cur.SHA256 = s.sum
		}
	case kindInserts:
		t.cur.Reason = noEvidenceInserts
	case kindObject, kindFraming:
		t.cur.Evidence = EvidenceObjects
	}
	t.cur.RawBytes += int64(len(s.data()))
	t.object += int64(len(s.data()))
	if s.kind == kindObject && s.last && t.report != nil && hashesContent {
		t.report(LargeObject{DumpID: s.dumpID, OID: uint32(int32(s.oid)), RawBytes: t.object, SHA256: s.sum})
	}
	return t.cur, s.ends
}

var _ io.ReadCloser = (*Packer)(nil)
