package storage

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{"a", "a/b", "...", ".a/b.", "a b", "ü/文", "a/...", "a\\b", "-", strings.Repeat("k", MaxKey)} {
		if err := CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "../a", "a/..", "a/../b",
		"\x00", "a\x00b", "a\nb", "a\rb", "a\x1b[2J", "a\u0085b", "\xff", "a/\xc3", strings.Repeat("k", MaxKey+1)} {
		if err := CheckKey(key); !errors.Is(err, ErrInvalidKey) || !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// An error stays one line, whatever the key.
func TestErrorIsOneLine(t *testing.T) {
	err := &Error{Op: "put", Key: "a\nb\x1b[2J", Kind: ErrInvalidKey, Err: CheckKey("a\nb\x1b[2J")}
	if text := err.Error(); strings.ContainsAny(text, "\n\x1b") {
		t.Errorf("the error is %q", text)
	}
}
