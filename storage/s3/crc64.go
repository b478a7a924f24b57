package s3

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/minio/crc64nvme"
)

// A CRC is linear: the value of A|B follows from the values of A and B and the
// length of B. Appending n zero bytes multiplies the CRC's bit vector by a
// matrix over GF(2) that depends on n alone (the method of zlib's
// crc32_combine). So parts are hashed in parallel and in any order, and the
// head that is known last still stands first.

// matrix64 maps bit vectors of 64: row i is the image of bit i.
type matrix64 [64]uint64

func (m *matrix64) times(v uint64) uint64 {
	var sum uint64
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 != 0 {
			sum ^= m[i]
		}
	}
	return sum
}

func (m *matrix64) squared() *matrix64 {
	var sq matrix64
	for i := range m {
		sq[i] = m.times(m[i])
	}
	return &sq
}

// zeroBytes gives the matrix that appends n zero bytes.
func zeroBytes(n int64) *matrix64 {
	// One zero bit: shift right, the dropped bit brings the polynomial in.
	var power matrix64
	power[0] = crc64nvme.NVME
	for i := 1; i < 64; i++ {
		power[i] = 1 << (i - 1)
	}
	p := &power
	for range 3 { // one bit -> one byte
		p = p.squared()
	}
	var result matrix64
	for i := range result {
		result[i] = 1 << i
	}
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			for i := range result {
				result[i] = p.times(result[i])
			}
		}
		p = p.squared()
	}
	return &result
}

// crcSum builds the CRC64NVME of a sequence out of the values of its pieces.
type crcSum struct {
	value  uint64
	length int64     // that shift is for
	shift  *matrix64 // of the last length: most parts are as long as the one before
}

// add appends a piece.
func (s *crcSum) add(crc uint64, length int64) {
	if s.shift == nil || s.length != length {
		s.length, s.shift = length, zeroBytes(length)
	}
	s.value = s.shift.times(s.value) ^ crc
}

// crcBase64 is how S3 prints the value: big-endian, base64.
func crcBase64(crc uint64) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc))
}
