package pgarchive

import "fmt"

// Block is one data block of an archive.
type Block struct {
	DumpID       int
	BlobBlock    bool  // type 3
	Offset       int64 // absolute, of its type byte
	Length       int64 // from the type byte to behind the closing 0
	Payload      int64 // bytes of its chunks, as stored
	Chunks       int64
	LargeObjects int
	SHA256       [32]byte // of the stored Length bytes
	Content      Content  // what a Packer learned; a Scanner does not look
}

const (
	typeTable = 1
	typeBlobs = 3
)

// blockEvent is what a step of the blockParser came upon.
type blockEvent uint8

const (
	evNone      blockEvent = iota // framing, or part of it
	evBlock                       // type and dump ID of a block are known
	evObject                      // a large object begins; its OID is known
	evPayload                     // the bytes consumed are payload
	evObjectEnd                   // the large object's stream has ended
	evBlockEnd                    // the block has ended with the last byte consumed
)

type blockState uint8

const (
	atType blockState = iota
	atID
	atObject // the OID of a large object, or the 0 that closes the block
	atLength // the length of a chunk, or the 0 that closes a stream
	inChunk
)

// blockParser takes the data blocks apart, however the bytes are cut. Its whole memory is
// one integer and the current block.
type blockParser struct {
	pos    int64 // of the next byte, from the start of the archive
	state  blockState
	left   int // bytes to come of the current chunk
	part   [intLen]byte
	parted int   // bytes of part that are there
	oid    int   // of the current large object, as it was written: negative from 2^31 on
	cur    Block // complete at evBlockEnd, but for its hash
}

// step consumes the first n > 0 bytes of p, which must not be empty, up to the next
// event. An error leaves the parser where it was.
func (bp *blockParser) step(p []byte) (n int, ev blockEvent, err error) {
	switch bp.state {
	case inChunk:
		n = min(bp.left, len(p))
		bp.left -= n
		bp.pos += int64(n)
		if bp.left == 0 {
			bp.state = atLength
		}
		return n, evPayload, nil
	case atType:
		if p[0] != typeTable && p[0] != typeBlobs {
			return 0, evNone, bp.fault(bp.pos, "block of type %d", p[0])
		}
		bp.cur = Block{BlobBlock: p[0] == typeBlobs, Offset: bp.pos}
		bp.state = atID
		bp.pos++
		return 1, evNone, nil
	}

	n, v, whole, err := bp.int(p)
	if err != nil || !whole {
		return n, evNone, err
	}
	if ev, err = bp.take(v); err != nil {
		return 0, evNone, err
	}
	bp.parted = 0
	bp.pos += int64(n)
	if ev == evBlockEnd {
		bp.cur.Length = bp.pos - bp.cur.Offset
	}
	return n, ev, nil
}

// int gathers an integer; n bytes of p are its, or its rest.
func (bp *blockParser) int(p []byte) (n, v int, whole bool, err error) {
	raw := p
	if bp.parted > 0 || len(p) < intLen {
		n = copy(bp.part[bp.parted:], p)
		if bp.parted+n < intLen {
			bp.parted += n
			bp.pos += int64(n)
			return n, 0, false, nil
		}
		raw = bp.part[:]
	} else {
		n = intLen
	}
	v, ok := decodeInt(raw[:intLen])
	if !ok {
		return 0, 0, false, bp.fault(bp.pos-int64(bp.parted), "% x is no integer", raw[:intLen])
	}
	return n, v, true, nil
}

// take acts on the integer that the state asked for.
func (bp *blockParser) take(v int) (blockEvent, error) {
	at := bp.pos - int64(bp.parted)
	switch bp.state {
	case atID:
		if v <= 0 {
			return evNone, bp.fault(at, "block of dump ID %d", v)
		}
		bp.cur.DumpID = v
		bp.state = atLength
		if bp.cur.BlobBlock {
			bp.state = atObject
		}
		return evBlock, nil
	case atObject:
		if v == 0 {
			bp.state = atType
			return evBlockEnd, nil
		}
		bp.oid = v
		bp.cur.LargeObjects++
		bp.state = atLength
		return evObject, nil
	}
	switch {
	case v < 0:
		return evNone, bp.fault(at, "chunk of length %d", v)
	case v > 0:
		bp.left = v
		bp.cur.Chunks++
		bp.cur.Payload += int64(v)
		bp.state = inChunk
		return evNone, nil
	case bp.cur.BlobBlock:
		bp.state = atObject
		return evObjectEnd, nil
	}
	bp.state = atType
	return evBlockEnd, nil
}

// between says whether the parser stands between two blocks, the only place where an
// archive may end.
func (bp *blockParser) between() bool { return bp.state == atType }

func (bp *blockParser) fault(at int64, format string, args ...any) error {
	return &FormatError{Offset: at, Detail: fmt.Sprintf(format, args...), Err: ErrFormat}
}

// completeness holds the blocks of a stream against what the TOC promised: the blocks are
// exactly the promised ones, once each, in TOC order, of the right type.
type completeness struct {
	promised []*Entry
	next     int
}

// begin checks the block that has just begun.
func (c *completeness) begin(b *Block) error {
	kind, detail := ErrFormat, ""
	switch i := c.find(b.DumpID); {
	case i < 0:
		detail = fmt.Sprintf("block of dump ID %d, for which the TOC promises no data", b.DumpID)
	case i < c.next:
		detail = fmt.Sprintf("second block of %s (dump ID %d)", c.promised[i].Label(), b.DumpID)
	case i > c.next:
		kind = ErrIncomplete
		detail = fmt.Sprintf("the block of %s should stand here, not that of %s", c.label(), c.promised[i].Label())
	case b.BlobBlock != c.promised[i].HoldsLargeObjects():
		detail = fmt.Sprintf("block of the wrong type for %s", c.label())
	case c.promised[i].OffsetFlag == offsetSet && c.promised[i].Offset != uint64(b.Offset):
		detail = fmt.Sprintf("the TOC says that the block of %s stands at byte %d", c.label(), c.promised[i].Offset)
	default:
		c.next++
		return nil
	}
	return &FormatError{Offset: b.Offset, Detail: detail, Err: kind}
}

// find is quick for the block that is due; the others end the stream anyway.
func (c *completeness) find(id int) int {
	if c.next < len(c.promised) && c.promised[c.next].DumpID == id {
		return c.next
	}
	for i, e := range c.promised {
		if e.DumpID == id {
			return i
		}
	}
	return -1
}

// label names the entry whose block is due.
func (c *completeness) label() string {
	e := c.promised[c.next]
	return fmt.Sprintf("%s (dump ID %d)", e.Label(), e.DumpID)
}

func (c *completeness) allSeen() bool { return c.next == len(c.promised) }

// end checks that the stream may end where the parser stands.
func (c *completeness) end(bp *blockParser) error {
	detail := ""
	switch {
	case bp.state == atID:
		detail = "the stream ends at the very beginning of a block"
	case !bp.between():
		e := c.promised[c.next-1]
		detail = fmt.Sprintf("the stream ends inside the block of %s (dump ID %d), which began at byte %d", e.Label(), e.DumpID, bp.cur.Offset)
	case !c.allSeen():
		detail = fmt.Sprintf("the stream ends before the block of %s", c.label())
	default:
		return nil
	}
	if missing := len(c.promised) - c.next; missing > 0 {
		detail += fmt.Sprintf("; %d of %d blocks never came", missing, len(c.promised))
	}
	return &FormatError{Offset: bp.pos, Detail: detail, Err: ErrIncomplete}
}
