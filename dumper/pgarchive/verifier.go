package pgarchive

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// Sizes of a Verifier.
const (
	// holdBack is how much of a block's end waits for the block's hash. It covers the 0
	// that closes the block, without which pg_restore cannot end the COPY.
	holdBack     = 64 << 10
	verifyBuffer = 5 * holdBack
)

// ExpectedPart is what was recorded of a stretch of an archive.
type ExpectedPart struct {
	Name   string // for errors: the block's table
	Offset int64  // from the start of the archive
	Length int64
	SHA256 [sha256.Size]byte
}

// Expected is what was recorded of an archive: its head and its blocks, in the order in
// which they stand. They must cover it without gaps. A head of length 0 is left out: so an
// archive of an unknown version is checked as one part, and a range of an archive by the
// blocks in it.
type Expected struct {
	Head   ExpectedPart // Name and Offset are not used
	Blocks []ExpectedPart
}

// Verifier passes a stream on unchanged and lets nothing through that was not recorded:
// nothing of the head before the head's hash matched, and of each block not its last
// 64 KiB (or the whole of a smaller one) before the block's hash matched. A COPY fed with a
// block that was tampered with therefore never sees its end and is rolled back.
//
// io.EOF comes only when the source returned a bare io.EOF and every part came whole and
// right. A difference is a *MismatchError; errors of the source come back unchanged. Every
// error is final. The memory taken is the head, and a constant.
//
// A Verifier is used by one goroutine at a time.
type Verifier struct {
	src  *bufio.Reader
	sum  hash.Hash
	err  error // final, returned once everything releasable is out
	part []ExpectedPart
	head bool  // part[0] is the head: nothing of it goes out unproved
	done int64 // bytes of part[0] that were read
	last int64 // end of the last recorded part

	buf        []byte
	start, end int // of the bytes in buf that are not out yet
	free       int // bytes from start on that may go out
}

// NewVerifier checks that the recorded parts are whole in themselves, and reads nothing.
func NewVerifier(r io.Reader, want Expected) (*Verifier, error) {
	parts := make([]ExpectedPart, 0, 1+len(want.Blocks))
	if head := want.Head; head.Length != 0 {
		head.Name, head.Offset = "head", 0
		parts = append(parts, head)
	}
	parts = append(parts, want.Blocks...)
	for i, p := range parts {
		if p.Offset < 0 || p.Length <= 0 || p.Offset+p.Length < p.Offset {
			return nil, &MismatchError{Part: p.Name, Offset: p.Offset, Detail: fmt.Sprintf("the index gives it a length of %d", p.Length)}
		}
		if i > 0 && p.Offset != parts[i-1].Offset+parts[i-1].Length {
			return nil, &MismatchError{Part: p.Name, Offset: p.Offset, Detail: "the index does not place it right behind " + parts[i-1].Name}
		}
	}
	return &Verifier{
		src: bufio.NewReaderSize(r, scanBuffer), sum: sha256.New(), part: parts,
		head: want.Head.Length != 0, buf: make([]byte, verifyBuffer),
	}, nil
}

// Read delivers what has been proved, and of a large block all but its end.
func (v *Verifier) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for idle := 0; v.free == 0; idle++ {
		switch before := v.done; {
		case v.err != nil:
			return 0, v.err
		case idle >= 100:
			v.err = io.ErrNoProgress
		default:
			if v.fill(); v.done != before {
				idle = 0
			}
		}
	}
	n := copy(p, v.buf[v.start:v.start+v.free])
	v.start += n
	v.free -= n
	return n, nil
}

// fill reads once from the source, never beyond the end of the current part.
func (v *Verifier) fill() {
	if len(v.part) == 0 {
		v.atEnd()
		return
	}
	v.makeRoom()
	want := &v.part[0]
	room := v.buf[v.end:]
	if left := want.Length - v.done; int64(len(room)) > left {
		room = room[:left]
	}
	n, err := v.src.Read(room)
	v.sum.Write(room[:n])
	v.end += n
	v.done += int64(n)
	switch {
	case v.done == want.Length: // an error that came along with the last byte comes again
		v.close()
		return
	case err == io.EOF:
		v.err = v.mismatch(fmt.Sprintf("the archive ends after %d of its %d bytes", v.done, want.Length))
		return
	case err != nil:
		v.err = err
		return
	}
	if !v.head {
		v.free = max(0, v.end-v.start-holdBack)
	}
}

// makeRoom moves what is held back to the front; for the head, which is held back whole,
// the buffer grows, in step with what came and not with the length that was claimed.
func (v *Verifier) makeRoom() {
	if v.start == v.end {
		v.start, v.end = 0, 0
		if len(v.buf) > verifyBuffer {
			v.buf = make([]byte, verifyBuffer) // the head is out
		}
	}
	if len(v.buf)-v.end >= holdBack {
		return // moving what is held for every short read would cost more than the reads
	}
	v.end = copy(v.buf, v.buf[v.start:v.end])
	v.start = 0
	if len(v.buf)-v.end < holdBack {
		grown := make([]byte, 2*len(v.buf))
		copy(grown, v.buf[:v.end])
		v.buf = grown
	}
}

// close ends the current part: all that is held of it is proved, or nothing ever will be.
func (v *Verifier) close() {
	var got [sha256.Size]byte
	v.sum.Sum(got[:0])
	v.sum.Reset()
	if got != v.part[0].SHA256 {
		v.err = v.mismatch(fmt.Sprintf("SHA-256 is %x, recorded is %x", got, v.part[0].SHA256))
		return
	}
	v.free = v.end - v.start
	v.last = v.part[0].Offset + v.part[0].Length
	v.part = v.part[1:]
	v.done, v.head = 0, false
}

// atEnd wants the end of the stream behind the last part.
func (v *Verifier) atEnd() {
	if _, v.err = v.src.Peek(1); v.err == nil {
		v.err = &MismatchError{Part: "end of the archive", Offset: v.last, Detail: "bytes follow the last recorded part"}
	}
}

func (v *Verifier) mismatch(detail string) error {
	return &MismatchError{Part: v.part[0].Name, Offset: v.part[0].Offset, Detail: detail}
}
