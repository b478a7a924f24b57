package main

import (
	"strings"
	"testing"
)

func TestParseBucketURL(t *testing.T) {
	tests := []struct{ url, name, prefix string }{
		{"s3://b", "s3://b/", ""},
		{"s3://b/", "s3://b/", ""},
		{"s3://b/a/c?region=x&endpoint=http://h:1&path_style=true", "s3://b/a/c/", "a/c/"},
		{"gs://b/p/?endpoint=http://h:1", "gs://b/p/", "p/"},
		{"file:///srv/archives", "file:///srv/archives/", ""},
	}
	for _, tt := range tests {
		b, err := parseBucketURL(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if b.String() != tt.name || b.prefix != tt.prefix {
			t.Errorf("%s: name %q, prefix %q", tt.url, b, b.prefix)
		}
		if got := b.key("k"); got != tt.name+"k" {
			t.Errorf("%s: key %q", tt.url, got)
		}
	}
}

func TestParseBucketURLRefuses(t *testing.T) {
	for _, text := range []string{
		"", "b", "/dir", "ftp://secret/x", "s3:secret", "s3://k:secret@b/", "s3://secret@b/", "gs://u:secret@b/",
		"s3://b:99999999/secret%zz", "s3://", "gs://", "file://host/secret", "file://", "file:///d?secret=x",
		"s3://b/?unknown=secret", "gs://b/?unknown=secret",
	} {
		_, err := parseBucketURL(text)
		if err == nil {
			t.Errorf("%s is taken", text)
			continue
		}
		if code := exitCode(t.Context(), err); code != exitUsage {
			t.Errorf("%s: exit code %d", text, code)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: repeated in %q", text, err)
		}
	}
}
