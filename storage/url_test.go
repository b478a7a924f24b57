package storage

import (
	"maps"
	"strings"
	"testing"
)

func TestParseBucketURL(t *testing.T) {
	for raw, want := range map[string]BucketURL{
		"s3://b":                    {Bucket: "b"},
		"s3://b/":                   {Bucket: "b"},
		"s3://b/p":                  {Bucket: "b", Prefix: "p/"},
		"s3://b/p/q/":               {Bucket: "b", Prefix: "p/q/"},
		"s3://b/p?region=r&size=":   {Bucket: "b", Prefix: "p/", Params: map[string]string{"region": "r"}},
		"s3://b?size=1&region=a%26": {Bucket: "b", Params: map[string]string{"size": "1", "region": "a&"}},
	} {
		got, err := ParseBucketURL(raw, "s3", "the chain", "region", "size")
		if err != nil || got.Bucket != want.Bucket || got.Prefix != want.Prefix || !maps.Equal(got.Params, want.Params) {
			t.Errorf("%s: %+v, %v", raw, got, err)
		}
	}
	const secret = "hunter2"
	for raw, want := range map[string]string{
		"gs://b":                      `scheme is "gs"`,
		"s3:///p":                     "no bucket",
		"s3:b":                        "no bucket",
		"s3://key:" + secret + "@b/p": "leave them to the chain",
		"s3://b:9000/p":               "port",
		"s3://b/p#x":                  "fragment",
		"s3://b?regoin=" + secret:     `unknown parameter "regoin"; known: region, size`,
		"s3://b?size=1&size=2":        "given 2 times",
		"s3://b?size=%zz" + secret:    "malformed",
		"s3://b/%zz" + secret:         "not of the form",
	} {
		_, err := ParseBucketURL(raw, "s3", "the chain", "region", "size")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want %q", raw, err, want)
		}
	}
}

func TestCheckEndpoint(t *testing.T) {
	for _, good := range []string{"https://h", "http://127.0.0.1:9000", "https://h/path"} {
		if err := CheckEndpoint(good, "the chain"); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"h:9000", "ftp://h", "http://", "http://u:hunter2@h", "http://h?x=1", "http://h#f"} {
		if err := CheckEndpoint(bad, "the chain"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
