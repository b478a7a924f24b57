package storage

import (
	"strconv"
	"strings"
	"testing"
)

func TestCheckTags(t *testing.T) {
	many := func(n int) map[string]string {
		tags := map[string]string{}
		for i := range n {
			tags["k"+strconv.Itoa(i)] = ""
		}
		return tags
	}
	for name, tags := range map[string]map[string]string{
		"none": nil, "ten": many(10), "letters": {"Größe": "文字 7 + - = . _ : / @"},
		"long": {strings.Repeat("ü", 128): strings.Repeat("ü", 256)}, "awsome": {"awsome": "x"},
	} {
		if err := CheckTags(tags); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tags := range map[string]map[string]string{
		"eleven": many(11), "no key": {"": "v"}, "long key": {strings.Repeat("k", 129): "v"},
		"long value": {"k": strings.Repeat("v", 257)}, "aws": {"aws:x": "v"}, "AWS": {"AWS:x": "v"},
		"ampersand": {"a&b": "v"}, "line break": {"k": "a\nb"}, "comma": {"k": "a,b"}, "not UTF-8": {"k": "\xff"}, "tab": {"k": "\t"},
	} {
		if err := CheckTags(tags); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
