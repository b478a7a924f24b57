package pgarchive

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// Tally counts and sums the rows of a COPY text as a Packer does, so that what a server sends
// can be held against an archive's evidence. What is written to it is the text alone, every
// row with its newline, without an end mark, cut anywhere. The zero Tally is empty.
type Tally struct {
	rows  rowTally
	bytes int64
	begun hash.Hash // of a row whose end has not come; nil until there was one
	open  bool
}

// Write takes the next bytes of the text; it never fails.
func (t *Tally) Write(p []byte) (int, error) {
	n := len(p)
	t.bytes += int64(n)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			t.begin(p)
			break
		}
		t.end(p[:end])
		p = p[end+1:]
	}
	return n, nil
}

// begin takes a part of a row that is not its end.
func (t *Tally) begin(part []byte) {
	if t.begun == nil {
		t.begun = sha256.New()
	}
	t.begun.Write(part)
	t.open = true
}

func (t *Tally) end(part []byte) {
	if !t.open {
		sum := sha256.Sum256(part)
		t.rows.row(&sum)
		return
	}
	t.begun.Write(part)
	var sum [sha256.Size]byte
	t.begun.Sum(sum[:0])
	t.begun.Reset()
	t.open = false
	t.rows.row(&sum)
}

// Add adds the rows of another tally, which ends with a whole one.
func (t *Tally) Add(o *Tally) {
	t.rows.add(o.rows)
	t.bytes += o.bytes
}

// Rows is how many newlines have come.
func (t *Tally) Rows() int64 { return t.rows.rows }

// Sums are those of these rows.
func (t *Tally) Sums() RowSums { return t.rows.sums }

// Bytes is the length of the text.
func (t *Tally) Bytes() int64 { return t.bytes }

// Whole reports whether the text ends with a row's newline.
func (t *Tally) Whole() bool { return !t.open }
