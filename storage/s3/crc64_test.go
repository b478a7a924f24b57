package s3

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/minio/crc64nvme"
)

func TestCRCCheckValue(t *testing.T) {
	const want = 0xae8b14860a799888 // CRC64NVME("123456789")
	whole := []byte("123456789")
	for cut := 0; cut <= len(whole); cut++ {
		var sum crcSum
		for _, piece := range [][]byte{whole[:cut], whole[cut:]} {
			sum.add(crc64nvme.Checksum(piece), int64(len(piece)))
		}
		if sum.value != want {
			t.Errorf("cut at %d: %016x, want %016x", cut, sum.value, uint64(want))
		}
	}
	if got := crcBase64(want); got != "rosUhgp5mIg=" {
		t.Errorf("printed as %s", got)
	}
}

func TestCRCCombineRandomSplits(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	for range 200 {
		whole := data[:rnd.IntN(len(data)+1)]
		var sum crcSum
		for rest := whole; len(rest) > 0; {
			n := 1 + rnd.IntN(len(rest))
			sum.add(crc64nvme.Checksum(rest[:n]), int64(n))
			rest = rest[n:]
		}
		if want := crc64nvme.Checksum(whole); sum.value != want {
			t.Fatalf("%d bytes: %016x, want %016x", len(whole), sum.value, want)
		}
	}
}

func TestCRCCombineLongZeros(t *testing.T) {
	// 5 GiB of zeros, built from one GiB each: lengths beyond 32 bits.
	piece := make([]byte, 1<<20)
	crc := crc64nvme.Checksum(piece)
	var bySmall, byLarge, large crcSum
	for range 1024 {
		large.add(crc, 1<<20)
	}
	for range 5 * 1024 {
		bySmall.add(crc, 1<<20)
	}
	byLarge.add(large.value, 1<<30)
	for range 4 {
		byLarge.add(large.value, 1<<30)
	}
	if bySmall.value != byLarge.value {
		t.Errorf("%016x in MiB, %016x in GiB", bySmall.value, byLarge.value)
	}
	two := crcSum{value: large.value}
	rest := crcSum{}
	for range 4 {
		rest.add(large.value, 1<<30)
	}
	two.add(rest.value, 4<<30)
	if two.value != bySmall.value {
		t.Errorf("%016x with a piece of 4 GiB, want %016x", two.value, bySmall.value)
	}
}

func BenchmarkCRCCombine(b *testing.B) {
	var sum crcSum
	for i := range b.N {
		sum.add(uint64(i), int64(i)) // another length each time: no cached matrix
	}
}
