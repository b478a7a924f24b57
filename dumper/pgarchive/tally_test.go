package pgarchive

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// However a text is cut, the tally is that of docs/content-hashes.md, and the order of
// the rows is of no account.
func TestTally(t *testing.T) {
	var numbered strings.Builder
	for i := 1; i <= 1000; i++ {
		fmt.Fprintf(&numbered, "%d\tx\n", i)
	}
	for _, c := range []struct {
		text string
		rows int64
		sums RowSums
	}{
		{"", 0, RowSums{}},
		{"\n\n", 2, RowSums{0xc761888531f83828, 0x35f7e99132df7248}},
		{"1\tone\n2\t\\N\n", 2, RowSums{0x6d6bd68bc07d47d9, 0x43d1737485ceff4c}},
		{"2\t\\N\n1\tone\n", 2, RowSums{0x6d6bd68bc07d47d9, 0x43d1737485ceff4c}},
		{"7\t\xc3\x84\\nb\\\\\\t.\n", 1, RowSums{0x1e12d31615ca2d09, 0xe6fad0d840830891}},
		{numbered.String(), 1000, RowSums{0xd3cfef10e853b426, 0x6cfc3c54cac2421d}},
	} {
		for _, size := range []int{1, 2, 3, 7, 1 << 20} {
			var got Tally
			for rest := []byte(c.text); len(rest) > 0; {
				n := min(size, len(rest))
				if m, err := got.Write(rest[:n]); m != n || err != nil {
					t.Fatal(m, err)
				}
				rest = rest[n:]
			}
			if got.Rows() != c.rows || got.Sums() != c.sums || got.Bytes() != int64(len(c.text)) || !got.Whole() {
				t.Errorf("%.20q in pieces of %d: %d rows, %x", c.text, size, got.Rows(), got.Sums())
			}
		}
	}
	var sum, a, b Tally
	_, _ = a.Write([]byte("1\tone\n"))
	_, _ = b.Write([]byte("2\t\\N\n"))
	sum.Add(&b)
	sum.Add(&a)
	if sum.Rows() != 2 || sum.Sums() != (RowSums{0x6d6bd68bc07d47d9, 0x43d1737485ceff4c}) || sum.Bytes() != 11 {
		t.Errorf("added up: %d rows, %x, %d bytes", sum.Rows(), sum.Sums(), sum.Bytes())
	}
	var cut Tally
	_, _ = cut.Write(bytes.TrimSuffix([]byte("1\n2\n"), []byte("\n")))
	if cut.Whole() || cut.Rows() != 1 {
		t.Errorf("a row without its newline: %d rows, whole: %v", cut.Rows(), cut.Whole())
	}
}
