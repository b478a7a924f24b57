package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/server"
)

// between stands between pgstow and the store and may answer in its place. It
// passes the Host header on, which the signature covers.
func between(t *testing.T, w *world, answer func(http.ResponseWriter, *http.Request, http.Handler)) string {
	t.Helper()
	store := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: w.s3.Addr()})
		r.Out.Host = r.In.Host
	}}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { answer(rw, r, store) }))
	t.Cleanup(s.Close)
	return server.S3URL(w.bucket, prefix, s.URL, w.s3.Region)
}

func isCompletion(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

// The completing request arrives and its reply is lost: the archive exists, so
// the run has to find that out and succeed.
func TestReplyToCompletionLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 24)
	var lost atomic.Int32
	bucket := between(t, w, func(rw http.ResponseWriter, r *http.Request, store http.Handler) {
		if !isCompletion(r) || !lost.CompareAndSwap(0, 1) {
			store.ServeHTTP(rw, r)
			return
		}
		store.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler) // the connection is cut without a reply
	})
	id := archive(t, w.env, bucket)
	if lost.Load() != 1 {
		t.Fatal("no reply was lost")
	}
	w.noUploads()
	w.restores(id)
}

// In a storm of 503 SlowDown every request is refused before it is served.
func TestSlowDownStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 24)
	var mu sync.Mutex
	refused := map[string]int{}
	bucket := between(t, w, func(rw http.ResponseWriter, r *http.Request, store http.Handler) {
		key := r.Method + " " + r.URL.String()
		mu.Lock()
		refuse := refused[key] < 2
		if refuse {
			refused[key]++
		}
		mu.Unlock()
		if !refuse {
			store.ServeHTTP(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "application/xml")
		rw.WriteHeader(http.StatusServiceUnavailable)
		_, _ = rw.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`))
	})
	id := archive(t, w.env, bucket)
	mu.Lock()
	t.Logf("%d different requests were refused twice", len(refused))
	mu.Unlock()
	w.noUploads()
	w.restores(id)
}

// A manifest that cannot be stored is an archive that does not exist, and what
// had been stored for it is removed again.
func TestManifestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 1)
	bucket := between(t, w, func(rw http.ResponseWriter, r *http.Request, store http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/manifest.json") && r.Method == http.MethodPut {
			rw.WriteHeader(http.StatusForbidden)
			_, _ = rw.Write([]byte("<html>a proxy's own page</html>"))
			return
		}
		store.ServeHTTP(rw, r)
	})
	start(t, w.env, "archive", "--to", bucket).want(11)
	w.noUploads()
	w.nothingListed()
}
