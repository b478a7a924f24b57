package s3

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]struct {
		cfg    Config
		prefix string
	}{
		"s3://b":          {Config{Bucket: "b"}, ""},
		"s3://b/":         {Config{Bucket: "b"}, ""},
		"s3://b/pg":       {Config{Bucket: "b"}, "pg/"},
		"s3://b/pg/prod/": {Config{Bucket: "b"}, "pg/prod/"},
		"s3://b/a%20b":    {Config{Bucket: "b"}, "a b/"},
		"s3://b/p?region=eu-west-1&endpoint=https://s3.example.com:9000&path_style=true&uniform_parts=true&checksum=md5&max_parts=1000": {
			Config{Bucket: "b", Region: "eu-west-1", Endpoint: "https://s3.example.com:9000", PathStyle: true,
				UniformParts: true, Checksum: "md5", MaxParts: 1000}, "p/"},
		"s3://b?path_style=false&checksum=crc64nvme": {Config{Bucket: "b", Checksum: "crc64nvme"}, ""},
		"s3://b/?region=&endpoint=":                  {Config{Bucket: "b"}, ""},
	} {
		cfg, prefix, err := ParseURL(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if prefix != want.prefix || cfg.Bucket != want.cfg.Bucket || cfg.Region != want.cfg.Region || cfg.Endpoint != want.cfg.Endpoint ||
			cfg.PathStyle != want.cfg.PathStyle || cfg.UniformParts != want.cfg.UniformParts ||
			cfg.Checksum != want.cfg.Checksum || cfg.MaxParts != want.cfg.MaxParts {
			t.Errorf("%s: %+v with prefix %q", raw, cfg, prefix)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	const secret = "wJalrXUtnFEMI"
	for raw, want := range map[string]string{
		"gs://b":                           "scheme",
		"s3://":                            "no bucket",
		"s3:b/p":                           "no bucket",
		"s3:///p":                          "no bucket",
		"s3://AKIA:" + secret + "@b/p":     "credentials",
		"s3://b:9000/p":                    "endpoint=",
		"s3://b/p#x":                       "fragment",
		"s3://b/p?regoin=x":                `"regoin"`,
		"s3://b/p?region=a&region=b":       "2 times",
		"s3://b/p?path_style=yes":          "path_style",
		"s3://b/p?uniform_parts=1":         "uniform_parts",
		"s3://b/p?checksum=sha1":           "checksum",
		"s3://b/p?max_parts=many":          "max_parts",
		"s3://b/p?max_parts=1":             "max_parts",
		"s3://b/p?max_parts=10001":         "max_parts",
		"s3://b/p?endpoint=localhost:9000": "endpoint",
		"s3://b/p?endpoint=http://k:" + secret + "@h": "credentials",
		"s3://b/%zz" + secret:                         "not of the form",
		"s3://b/p?a=%zz" + secret:                     "malformed",
	} {
		_, _, err := ParseURL(raw)
		if err == nil {
			t.Errorf("%s is accepted", raw)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, secret) || strings.Contains(text, "\n") {
			t.Errorf("%s: %q, want one line with %q and no secret", raw, text, want)
		}
	}
}

func TestTrustCA(t *testing.T) {
	if _, err := trustCA(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing file is accepted")
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := trustCA(file); err == nil || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Errorf("a file without certificates: %v", err)
	}
}
