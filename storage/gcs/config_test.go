package gcs

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
)

func TestMain(m *testing.M) {
	// Nothing on the machine may lend us its credentials or server.
	os.Unsetenv("GOOGLE_APPLICATION_CREDENTIALS")
	os.Unsetenv("STORAGE_EMULATOR_HOST")
	os.Exit(m.Run())
}

func TestParseURL(t *testing.T) {
	for url, want := range map[string]struct{ bucket, prefix, endpoint string }{
		"gs://acme":           {"acme", "", ""},
		"gs://acme/":          {"acme", "", ""},
		"gs://acme/pg":        {"acme", "pg/", ""},
		"gs://acme/pg/x%20y/": {"acme", "pg/x y/", ""},
		"gs://acme/pg?endpoint=http://127.0.0.1:4443":    {"acme", "pg/", "http://127.0.0.1:4443"},
		"gs://acme/pg?endpoint=https://gcs.example.com/": {"acme", "pg/", "https://gcs.example.com"},
		"gs://acme?endpoint=":                            {"acme", "", ""},
		"gs://bucket_with.dots":                          {"bucket_with.dots", "", ""},
	} {
		cfg, prefix, err := ParseURL(url)
		if err != nil || cfg.Bucket != want.bucket || prefix != want.prefix || cfg.Endpoint != want.endpoint {
			t.Errorf("%s: %+v, prefix %q, error %v", url, cfg, prefix, err)
		}
	}
	for url, want := range map[string]string{
		"s3://acme":                                "scheme",
		"gs:acme":                                  "no bucket",
		"gs:///pg":                                 "no bucket",
		"gs://user:hunter2@acme/pg":                "credentials",
		"gs://acme:443/pg":                         "port",
		"gs://acme/pg#x":                           "fragment",
		"gs://acme?region=eu":                      "unknown parameter",
		"gs://acme?endpoint=http://a&endpoint=b":   "2 times",
		"gs://acme?endpoint=127.0.0.1:4443":        "endpoint is not",
		"gs://acme?endpoint=ftp://x":               "endpoint is not",
		"gs://acme?endpoint=http://u:hunter2@host": "credentials",
		"gs://acme?endpoint=http://host/path":      "path",
		"gs://acme?%zz":                            "malformed",
		"gs://%zz":                                 "not of the form",
	} {
		_, _, err := ParseURL(url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, expected %q", url, err, want)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	c, err := Config{Bucket: "b"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if c.ChunkSize != 16<<20 || c.ChunkTimeout != 256*time.Second || c.RetryBudget != 30*time.Minute || c.Endpoint != defaultEndpoint {
		t.Errorf("defaults: %+v", c)
	}
	c, err = Config{Bucket: "b", ChunkSize: 1}.withDefaults()
	if err != nil || c.ChunkSize != 256<<10 || c.ChunkTimeout != time.Minute {
		t.Errorf("smallest chunk: %+v, %v", c, err)
	}
	for _, bad := range []Config{{}, {Bucket: "b", ChunkSize: -1}, {Bucket: "b", Endpoint: "host:1"}} {
		if _, err := Open(t.Context(), bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// TestEmulatorHost: the client's own variable, with and without a scheme, and
// the URL's endpoint before it.
func TestEmulatorHost(t *testing.T) {
	s := startStrict(t, gcsserver.Options{})
	name := s.bucket(t)
	for _, host := range []string{s.URL, strings.TrimPrefix(s.URL, "http://")} {
		t.Setenv("STORAGE_EMULATOR_HOST", host)
		b := s.open(t, Config{Bucket: name})
		if _, err := storage.PutBytes(t.Context(), b, "key "+host[:4], []byte("x"), storage.PutOptions{}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	t.Setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
	s.open(t, s.quick(name))
}

// TestNoCredentials: who has none is told what to do, before any request.
func TestNoCredentials(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "missing.json"))
	for name, cfg := range map[string]Config{
		"default": {Bucket: "acme"}, "impersonating": {Bucket: "acme", Impersonate: "one@p.iam.gserviceaccount.com,two@p.iam.gserviceaccount.com"},
	} {
		_, err := Open(t.Context(), cfg)
		if !errors.Is(err, storage.ErrCredentials) || !strings.Contains(err.Error(), "gcloud auth application-default login") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSilentServer: a server that takes connections and says nothing is an
// error for a person, in time.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Open(t.Context(), Config{Bucket: "acme", Endpoint: "http://" + l.Addr().String(), MetadataTimeout: 200 * time.Millisecond})
	if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "200ms") {
		t.Errorf("Open: %v", err)
	}
	noSecrets(t, err)
}

// TestUnreachableInMidUpload: a store that does not come back ends the upload
// when the budget is used up, not before, and not never.
func TestUnreachableInMidUpload(t *testing.T) {
	l := newLab(t, func(c *Config) { c.RetryBudget, c.MetadataTimeout = 300*time.Millisecond, 300*time.Millisecond })
	source := &cancelling{r: endless{}, at: 2 * testChunk, cancel: l.wire.kill}
	_, err := l.bucket.Put(t.Context(), "key", source, storage.PutOptions{})
	if !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Put: %v", err)
	}
	noSecrets(t, err)
}

// TestRetention extends and strengthens, and never weakens.
func TestRetention(t *testing.T) {
	l := newLab(t, nil)
	now := time.Now().UTC().Truncate(time.Second)
	day := func(n int) time.Time { return now.Add(time.Duration(n) * 24 * time.Hour) }
	kept := func(mode storage.LockMode, days int) storage.Retention {
		return storage.Retention{Mode: mode, Until: day(days)}
	}
	if _, err := l.bucket.Put(t.Context(), "key", bytes.NewReader([]byte("x")), storage.PutOptions{Retention: kept(storage.Governance, 10)}); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		to   storage.Retention
		kind error
		then storage.Retention
	}{
		{kept(storage.Governance, 5), storage.ErrLocked, kept(storage.Governance, 10)},
		{storage.Retention{}, storage.ErrLocked, kept(storage.Governance, 10)},
		{kept(storage.Governance, 12), nil, kept(storage.Governance, 12)},
		{kept(storage.Compliance, 11), storage.ErrLocked, kept(storage.Governance, 12)},
		{kept(storage.Compliance, 12), nil, kept(storage.Compliance, 12)},
		{kept(storage.Governance, 20), storage.ErrLocked, kept(storage.Compliance, 12)},
		{kept(storage.Compliance, 20), nil, kept(storage.Compliance, 20)},
		{storage.Retention{Mode: "forever", Until: day(30)}, errors.ErrUnsupported, kept(storage.Compliance, 20)},
	} {
		err := l.bucket.SetRetention(t.Context(), "key", "", step.to)
		if !errors.Is(err, step.kind) || err != nil && step.kind == nil {
			t.Errorf("step %d: %v, expected %v", i, err, step.kind)
		}
		if o, err := l.bucket.Stat(t.Context(), "key", ""); err != nil || o.Retention != step.then {
			t.Errorf("step %d: %+v, %v", i, o.Retention, err)
		}
	}
	o, err := l.bucket.Stat(t.Context(), "key", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.bucket.Delete(t.Context(), "key", o.Version); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("Delete: %v", err)
	}
	if err := l.bucket.SetRetention(t.Context(), "missing", "", kept(storage.Governance, 1)); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("a missing object: %v", err)
	}
	if err := l.bucket.SetLegalHold(t.Context(), "key", o.Version, true); err != nil {
		t.Errorf("hold: %v", err)
	}
	// A hold keeps even from becoming noncurrent.
	if err := l.bucket.Delete(t.Context(), "key", ""); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("Delete of a held object: %v", err)
	}
}

// TestListAnswersLate: one page that does not come ends the listing.
func TestListAnswersLate(t *testing.T) {
	l := newLab(t, func(c *Config) { c.MetadataTimeout = 200 * time.Millisecond })
	l.Inject(gcsserver.Fault{Op: gcsserver.OpList, Times: -1, Hang: true})
	for _, err := range l.bucket.List(context.Background(), storage.ListOptions{}) {
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("List: %v", err)
		}
	}
}
