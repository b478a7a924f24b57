package pgarchive

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The vectors of docs/content-hashes.md, read from the page itself.
func TestContentHashVectors(t *testing.T) {
	page, err := os.ReadFile("../../docs/content-hashes.md")
	if err != nil {
		t.Fatal(err)
	}
	vector := regexp.MustCompile("(?m)^\\| (?:1,000 rows )?`(\".*?\")`.*? \\| (\\d+) \\| `([0-9a-f]{64})` \\| `([0-9a-f]{16})` \\| `([0-9a-f]{16})` \\|$")
	found := vector.FindAllStringSubmatch(string(page), -1)
	if len(found) != 6 {
		t.Fatalf("%d vectors", len(found))
	}
	for _, v := range found {
		text, err := strconv.Unquote(v[1])
		if err != nil {
			t.Fatal(v[1], err)
		}
		if strings.Contains(text, "%d") {
			format := text
			text = ""
			for i := range 1000 {
				text += fmt.Sprintf(format, i+1)
			}
		}
		p, _ := mustPack(t, testArchive(t, []string{text}), PackOptions{Compression: Compression{Algorithm: "none"}})
		c := p.Blocks()[0].Content
		got := fmt.Sprintf("%d %x %016x %016x", c.Rows, c.SHA256, c.RowSums[0], c.RowSums[1])
		if want := strings.Join(v[2:], " "); got != want {
			t.Errorf("%s: %s, want %s", v[1], got, want)
		}
		if c.RawBytes != int64(len(text)+len(endMark)) {
			t.Errorf("%s: %d raw bytes", v[1], c.RawBytes)
		}
	}
}
