package storage

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTags is how many tags an object can have.
const MaxTags = 10

// CheckTags refuses tags that S3 would. Every driver that takes tags refuses
// them alike, so that an archive can move.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
func CheckTags(tags map[string]string) error {
	if len(tags) > MaxTags {
		return fmt.Errorf("%d tags, an object can have %d", len(tags), MaxTags)
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		value := tags[key]
		switch {
		case key == "":
			return fmt.Errorf("a tag without a key (its value is %q)", value)
		case utf8.RuneCountInString(key) > 128:
			return fmt.Errorf("the key of tag %q is longer than 128 characters", key)
		case utf8.RuneCountInString(value) > 256:
			return fmt.Errorf("the value of tag %q is longer than 256 characters", key)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return fmt.Errorf("tag %q: keys that start with aws: are the store's own", key)
		}
		for _, text := range []string{key, value} {
			if i := strings.IndexFunc(text, func(r rune) bool { return !isTagRune(r) }); i >= 0 {
				r, _ := utf8.DecodeRuneInString(text[i:])
				return fmt.Errorf("tag %q with the value %q holds %q: letters, digits, spaces and + - = . _ : / @ are allowed", key, value, r)
			}
		}
	}
	return nil
}

func isTagRune(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == ' ' || strings.ContainsRune("+-=._:/@", r))
}
