package pgarchive

import (
	"encoding/binary"
	"fmt"
)

// frameWalker follows the outer structure of one compressed frame, so that its end is
// known: a frame has to end where its chunk ends, since pg_restore loses what comes behind
// it in the chunk, and a frame that does not end was cut, which pg_restore does not notice.
type frameWalker struct {
	need        int // bytes of the current field
	got         []byte
	skip        int // bytes of a block to come
	step        func(w *frameWalker, field []byte) error
	begun, done bool

	checksum      bool // of the content, behind the last block
	blockChecksum bool
	last          bool
}

// reset begins a frame of the algorithm, zstd or lz4.
func (w *frameWalker) reset(algorithm string) {
	*w = frameWalker{got: w.got[:0]}
	if algorithm == "zstd" {
		w.expect(5, (*frameWalker).zstdDescriptor)
	} else {
		w.expect(6, (*frameWalker).lz4Descriptor)
	}
}

func (w *frameWalker) expect(n int, step func(*frameWalker, []byte) error) {
	w.need, w.step = n, step
}

// walk consumes the bytes of p that belong to the frame.
func (w *frameWalker) walk(p []byte) (n int, err error) {
	w.begun = w.begun || len(p) > 0
	for n < len(p) && !w.done {
		if w.skip > 0 {
			k := min(w.skip, len(p)-n)
			w.skip -= k
			n += k
			w.done = w.last && w.skip == 0
			continue
		}
		k := min(w.need-len(w.got), len(p)-n)
		w.got = append(w.got, p[n:n+k]...)
		n += k
		if len(w.got) < w.need {
			break
		}
		if err := w.step(w, w.got); err != nil {
			return n, err
		}
		w.got = w.got[:0]
		w.done = w.last && w.skip == 0
	}
	return n, nil
}

// RFC 8878: magic, frame header descriptor, then the rest of the frame header.
func (w *frameWalker) zstdDescriptor(f []byte) error {
	if binary.LittleEndian.Uint32(f) != 0xfd2fb528 {
		return fmt.Errorf("% x begins no zstd frame", f[:4])
	}
	d := f[4]
	w.checksum = d&4 != 0
	size := [...]int{0, 1, 2, 4}[d&3] + [...]int{0, 2, 4, 8}[d>>6]
	switch single := d&0x20 != 0; {
	case !single:
		size++ // window descriptor
	case d>>6 == 0:
		size++ // content size of one byte
	}
	w.expect(size, func(w *frameWalker, _ []byte) error {
		w.expect(3, (*frameWalker).zstdBlock)
		return nil
	})
	return nil
}

func (w *frameWalker) zstdBlock(f []byte) error {
	h := uint32(f[0]) | uint32(f[1])<<8 | uint32(f[2])<<16
	w.skip = int(h >> 3)
	switch h >> 1 & 3 {
	case 1: // one byte, repeated
		w.skip = 1
	case 3:
		return fmt.Errorf("% x begins no zstd block", f)
	}
	if h&1 != 0 {
		w.lastBlock()
	}
	return nil
}

// LZ4 frame format 1.6: magic, FLG, BD, then content size, dictionary ID and header
// checksum.
func (w *frameWalker) lz4Descriptor(f []byte) error {
	if binary.LittleEndian.Uint32(f) != 0x184d2204 {
		return fmt.Errorf("% x begins no LZ4 frame", f[:4])
	}
	flg := f[4]
	if flg>>6 != 1 {
		return fmt.Errorf("LZ4 frame of version %d", flg>>6)
	}
	w.blockChecksum = flg&0x10 != 0
	w.checksum = flg&0x04 != 0
	size := 1
	if flg&0x08 != 0 {
		size += 8
	}
	if flg&0x01 != 0 {
		size += 4
	}
	w.expect(size, func(w *frameWalker, _ []byte) error {
		w.expect(4, (*frameWalker).lz4Block)
		return nil
	})
	return nil
}

func (w *frameWalker) lz4Block(f []byte) error {
	size := binary.LittleEndian.Uint32(f)
	if size == 0 {
		w.lastBlock()
		return nil
	}
	w.skip = int(size &^ (1 << 31)) // the highest bit says that it is not compressed
	if w.blockChecksum {
		w.skip += 4
	}
	return nil
}

// lastBlock has been begun; behind it stands the checksum, or nothing.
func (w *frameWalker) lastBlock() {
	w.last = true
	if w.checksum {
		w.skip += 4
	}
}
