package pgarchive

import "math/bits"

// codeOrder is that in which the lengths of the codes for lengths come.
var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readTables reads the codes of a block.
func (z *zlibReader) readTables() error {
	v, err := z.take(14)
	if err != nil {
		return err
	}
	lits, dists, codes := int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if lits > 286 || dists > 30 {
		return inflateFault("too many codes")
	}
	var lens [19]uint8
	for _, i := range codeOrder[:codes] {
		if v, err = z.take(3); err != nil {
			return err
		}
		lens[i] = uint8(v)
	}
	table := &z.ownLit // it is made anew below
	if !table.build(lens[:], litBits, lengthSymbols[:], false) {
		return inflateFault("invalid codes for lengths of codes")
	}
	all := z.lens[:lits+dists]
	for i := 0; i < len(all); {
		if z.n < 32 {
			if err := z.refill(); err != nil {
				return err
			}
		}
		e := table.entries[z.bits&(1<<litBits-1)]
		if e&15 == 0 {
			return inflateFault("invalid length of a code")
		}
		z.bits >>= e & 15
		z.n -= uint(e & 15)
		value, times := uint8(0), 1
		switch symbol := e >> 16; symbol {
		case 16, 17, 18:
			r := repeats[symbol-16]
			if symbol == 16 {
				if i == 0 {
					return inflateFault("a length of a code repeats nothing")
				}
				value = all[i-1]
			}
			if v, err = z.take(r.bits); err != nil {
				return err
			}
			times = r.least + int(v)
		default:
			value = uint8(symbol)
		}
		if i+times > len(all) {
			return inflateFault("too many lengths of codes")
		}
		for range times {
			all[i] = value
			i++
		}
	}
	if err := z.overrun(); err != nil {
		return err
	}
	if all[256] == 0 {
		return inflateFault("no code for the end of a block")
	}
	// zlib takes an incomplete code when it is a single one of length 1.
	if !z.ownLit.build(all[:lits], litBits, litSymbols[:], true) || !z.ownDist.build(all[lits:], distBits, distSymbols[:], true) {
		return inflateFault("invalid codes")
	}
	return nil
}

var repeats = [3]struct {
	bits  uint
	least int
}{{2, 3}, {3, 3}, {7, 11}}

// codeTable finds a code by its first bits, a longer one in a table behind.
type codeTable struct {
	entries []uint32
	subBits uint
}

// build makes the table of canonical codes with these lengths; false when they are none.
// Unless single allows one code of one bit, or none at all, every sequence of bits must be one.
func (t *codeTable) build(lens []uint8, root uint, symbols []uint32, single bool) bool {
	var count, next [maxCodeLen + 2]int
	longest := uint(0)
	for _, l := range lens {
		count[l]++
		longest = max(longest, uint(l))
	}
	count[0] = 0
	left, code := 1, 0
	for l := 1; l <= maxCodeLen; l++ {
		left = left<<1 - count[l]
		if left < 0 {
			return false
		}
		code = (code + count[l-1]) << 1
		next[l] = code
	}
	if left > 0 && (!single || longest > 1) {
		return false
	}
	t.subBits = 0
	if longest > root {
		t.subBits = longest - root
	}
	size := 1 << root
	if cap(t.entries) < size {
		t.entries = make([]uint32, size, 2*size+4096)
	}
	t.entries = t.entries[:size]
	clear(t.entries)
	for symbol, l := range lens {
		if l == 0 {
			continue
		}
		code := uint(bits.Reverse16(uint16(next[l])) >> (16 - l))
		next[l]++
		if symbol >= len(symbols) || symbols[symbol] == 0 {
			continue // there is no such symbol: its entries stay invalid
		}
		e := symbols[symbol]&^1 | uint32(l)
		if uint(l) <= root {
			for i := code; i < 1<<root; i += 1 << l {
				t.entries[i] = e
			}
			continue
		}
		prefix := code & (1<<root - 1)
		if t.entries[prefix] == 0 {
			t.entries[prefix] = uint32(len(t.entries))<<16 | entrySub
			t.entries = append(t.entries, make([]uint32, 1<<t.subBits)...)
		}
		sub := t.entries[t.entries[prefix]>>16:]
		for i := code >> root; i < 1<<t.subBits; i += 1 << (uint(l) - root) {
			sub[i] = e
		}
	}
	return true
}

// Symbols as table entries without their codes' lengths; the lowest bit only makes them
// differ from what is no symbol.
var (
	litSymbols    = makeLitSymbols()
	distSymbols   = makeDistSymbols()
	lengthSymbols = makeLengthSymbols()

	fixedLit, fixedDist = makeFixed()
)

func makeLitSymbols() (s [288]uint32) {
	for i := range uint32(256) {
		s[i] = i<<16 | entryLiteral | 1
	}
	s[256] = entryEnd | 1
	base := uint32(3)
	for i := range uint32(28) {
		extra := uint32(0)
		if i >= 8 {
			extra = i/4 - 1
		}
		s[257+i] = base<<16 | extra<<4 | 1
		base += 1 << extra
	}
	s[285] = 258<<16 | 1
	return s
}

func makeDistSymbols() (s [32]uint32) {
	base := uint32(1)
	for i := range uint32(30) {
		extra := uint32(0)
		if i >= 4 {
			extra = i/2 - 1
		}
		s[i] = base<<16 | extra<<4 | 1
		base += 1 << extra
	}
	return s
}

func makeLengthSymbols() (s [19]uint32) {
	for i := range uint32(19) {
		s[i] = i<<16 | 1
	}
	return s
}

func makeFixed() (lit, dist *codeTable) {
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	lit, dist = new(codeTable), new(codeTable)
	lit.build(lens[:], litBits, litSymbols[:], true)
	for i := range 32 {
		lens[i] = 5
	}
	dist.build(lens[:32], distBits, distSymbols[:], true)
	return lit, dist
}
