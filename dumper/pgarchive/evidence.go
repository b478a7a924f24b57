package pgarchive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Evidence says what is known of a block's content.
type Evidence uint8

const (
	// EvidenceNone means that nobody looked, or Content.Reason says why there is none.
	EvidenceNone Evidence = iota
	// EvidenceRows means Rows, SHA256 and RowSums of a table's COPY text.
	EvidenceRows
	// EvidenceObjects means that each large object was given to PackOptions.LargeObject.
	EvidenceObjects
)

// Content is what a Packer learned of a block's content while it passed. Two equal tables
// dumped with the same settings have the same Rows and RowSums; SHA256 also depends on the
// order in which the server delivered the rows.
type Content struct {
	Evidence Evidence
	Reason   string // why Evidence is EvidenceNone; "" where nobody looked
	RawBytes int64  // the payload before compression, with the end mark of a COPY
	Rows     int64
	SHA256   [sha256.Size]byte // of the COPY text: every row with its newline, without the end mark
	RowSums  RowSums
}

// RowSums are two sums modulo 2^64 over all rows, of the big-endian halves of the first 16
// bytes of SHA-256 over a row's COPY text without its newline. They do not depend on the
// order of rows. They find accidents; whoever wants to forge them can.
type RowSums [2]uint64

// LargeObject is what a Packer learned of one large object.
type LargeObject struct {
	DumpID   int // of the block
	OID      uint32
	RawBytes int64
	SHA256   [sha256.Size]byte // of its content
}

// endMark ends the COPY text of a block: the line \. that COPY knows, and two newlines.
const endMark = "\\.\n\n\n"

// noEvidenceInserts is the Reason for a table that was dumped as INSERT statements.
const noEvidenceInserts = "dumped as INSERT statements"

// noEvidenceBuild is the Reason of a build that does not look at content.
const noEvidenceBuild = "made by a build for measurements, which does not look at content"

// rowTally counts rows and adds up their hashes.
type rowTally struct {
	rows int64
	sums RowSums
}

func (t *rowTally) add(o rowTally) {
	t.rows += o.rows
	t.sums[0] += o.sums[0]
	t.sums[1] += o.sums[1]
}

func (t *rowTally) row(sum *[sha256.Size]byte) {
	t.rows++
	t.sums[0] += binary.BigEndian.Uint64(sum[0:8])
	t.sums[1] += binary.BigEndian.Uint64(sum[8:16])
}

// tallyRows takes whole rows: COPY writes a newline inside a value as \n, so that a
// newline byte always ends a row.
func tallyRows(text []byte) (t rowTally) {
	for hashesContent && len(text) > 0 {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			break
		}
		sum := sha256.Sum256(text[:end])
		t.row(&sum)
		text = text[end+1:]
	}
	return t
}

// textHasher makes what needs the segments of a stream in their order: the hash of the
// whole, and the hashes of rows that stand in more than one segment.
type textHasher struct {
	whole, row hash.Hash
}

func newTextHasher() *textHasher { return &textHasher{whole: sha256.New(), row: sha256.New()} }

// add takes the next segment; what belongs to it alone is left to tallyRows.
func (h *textHasher) add(s *segment) {
	if s.first {
		h.whole.Reset()
		h.row.Reset()
	}
	s.joint = rowTally{}
	if !hashesContent {
		return
	}
	data := s.data()
	if s.kind == kindRows {
		data = data[:s.text]
		h.joints(s, data)
	}
	h.whole.Write(data)
	if s.last {
		h.whole.Sum(s.sum[:0])
	}
}

// joints hashes the end of a row that began in an earlier segment, and the beginning of one
// that ends in a later.
func (h *textHasher) joints(s *segment, text []byte) {
	if s.wholeFrom > 0 {
		h.row.Write(text[:s.wholeFrom-1])
		var sum [sha256.Size]byte
		h.row.Sum(sum[:0])
		h.row.Reset()
		s.joint.row(&sum)
	}
	h.row.Write(text[s.wholeTo:])
}

// findRows sets which part of the text consists of whole rows; midRow says that the text
// begins inside one.
func (s *segment) findRows(midRow bool) {
	text := s.data()[:s.text]
	s.wholeFrom = 0
	if midRow {
		s.wholeFrom = bytes.IndexByte(text, '\n') + 1
		if s.wholeFrom == 0 { // nothing but the middle of one long row
			s.wholeTo = 0
			return
		}
	}
	s.wholeTo = bytes.LastIndexByte(text, '\n') + 1
}
