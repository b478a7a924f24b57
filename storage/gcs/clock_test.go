package gcs

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestClockSkew: the store's clock is read from its answers.
func TestClockSkew(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"kind": "storage#bucket", "name": "archives"}`))
	}))
	defer srv.Close()
	b, err := Open(t.Context(), Config{Bucket: "archives", Endpoint: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	// A second may have passed meanwhile.
	if skew := b.Capabilities().ClockSkew; skew != -time.Hour && skew != -59*time.Minute {
		t.Errorf("the clock is ahead by %s, expected less an hour", skew)
	}
}
