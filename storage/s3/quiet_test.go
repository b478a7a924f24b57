package s3

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// TestSDKWritesNothing: standard error belongs to the command line; the SDK's
// own log lines, such as that of a metadata service that refuses, stay out.
func TestSDKWritesNothing(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	stub := newMetadataRefusal(t)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", stub)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")

	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stderr
	os.Stderr = file
	_, openErr := Open(t.Context(), Config{Bucket: "bucket", Region: "us-east-1", Endpoint: "http://127.0.0.1:1", PathStyle: true})
	os.Stderr = before
	if openErr == nil {
		t.Error("opened without credentials")
	}
	written, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	if len(written) > 0 {
		t.Errorf("written to standard error: %s", written)
	}
}

// newMetadataRefusal is a metadata service that refuses everything.
func newMetadataRefusal(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(s.Close)
	return s.URL
}
