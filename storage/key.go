package storage

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxKey is the longest key in bytes. S3 and GCS take 1,024; the rest is left
// to prefixes and to tools that append something.
const MaxKey = 900

// CheckKey refuses keys that some store or file system would change, refuse or
// resolve to another place: empty ones, more than MaxKey bytes, invalid UTF-8,
// control characters, and segments that are empty, "." or ".." (so also a leading or
// trailing slash). Every driver calls it in Put, Open, Stat and Delete before
// anything is sent or read; the error is ErrInvalidKey.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	case len(key) > MaxKey:
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrInvalidKey, len(key), MaxKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: %q is not UTF-8", ErrInvalidKey, key)
	case strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("%w: %q holds a control character", ErrInvalidKey, key)
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch segment {
		case "":
			return fmt.Errorf("%w: %q has an empty segment", ErrInvalidKey, key)
		case ".", "..":
			return fmt.Errorf("%w: %q has the segment %q", ErrInvalidKey, key, segment)
		}
	}
	return nil
}
