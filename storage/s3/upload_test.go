package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/pgstow/pgstow/storage"
)

// noise is n bytes that are no pattern.
func noise(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	return data
}

// failing gives a script by which the first answers of op fail.
func failing(op string, times int, how func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request, string, int) bool {
	return func(w http.ResponseWriter, r *http.Request, got string, n int) bool {
		if got != op || n >= times {
			return false
		}
		io.Copy(io.Discard, r.Body)
		how(w)
		return true
	}
}

func answer(status int, code string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { fail(w, status, code, "scripted") }
}

// putStub puts n bytes as a stream.
func putStub(t *testing.T, s *stub, cfg Config, n int) (storage.Object, error) {
	t.Helper()
	b := mustOpen(t, cfg)
	return b.Put(t.Context(), "k", bytes.NewReader(noise(n)), storage.PutOptions{})
}

// TestSlowDownStorm: 64 parts against a store that answers 503 to the first
// requests of every part; the SDK's shared quota would kill the upload.
func TestSlowDownStorm(t *testing.T) {
	s := newStub(t)
	var mu sync.Mutex
	tries := map[string]int{}
	s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		if op != "UploadPart" {
			return false
		}
		part := r.URL.Query().Get("partNumber")
		mu.Lock()
		tries[part]++
		n := tries[part]
		mu.Unlock()
		if n > 12 {
			return false
		}
		io.Copy(io.Discard, r.Body)
		fail(w, 503, "SlowDown", "Please reduce your request rate.")
		return true
	}
	cfg := s.config()
	cfg.MaxConcurrency, cfg.MemoryBudget = 64, 1<<20
	o, err := putStub(t, s, cfg, 64*1000)
	if err != nil || o.Size != 64*1000 {
		t.Fatalf("%+v, %v", o, err)
	}
	if len(tries) != 64 {
		t.Errorf("%d parts were sent", len(tries))
	}
}

func TestPartFailures(t *testing.T) {
	for name, c := range map[string]struct {
		how  func(http.ResponseWriter)
		want error // nil: survives
	}{
		"500":                {answer(500, "InternalError"), nil},
		"connection lost":    {hangUp, nil},
		"request timeout":    {answer(400, "RequestTimeout"), nil},
		"incomplete body":    {answer(400, "IncompleteBody"), nil},
		"damaged on the way": {answer(400, "BadDigest"), nil},
		"expired token":      {answer(400, "ExpiredToken"), nil},
		"429":                {answer(429, "TooManyRequests"), nil},
		"Retry-After": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			fail(w, 503, "ServiceUnavailable", "soon")
		}, nil},
		"access denied":       {answer(403, "AccessDenied"), storage.ErrPermission},
		"upload vanished":     {answer(404, "NoSuchUpload"), nil},
		"quota":               {answer(507, "QuotaExceeded"), storage.ErrUnavailable},
		"entity too large":    {answer(400, "EntityTooLarge"), storage.ErrUnavailable},
		"signature not match": {answer(403, "SignatureDoesNotMatch"), nil}, // once: UNSIGNED-PAYLOAD is given up
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			s.script = failing("UploadPart", 1, c.how)
			started := time.Now()
			_, err := putStub(t, s, s.config(), 3500)
			objects, uploads := s.left()
			if name == "upload vanished" || c.want != nil {
				if err == nil || c.want != nil && !errors.Is(err, c.want) || objects != 0 || uploads != 0 {
					t.Fatalf("%v, want %v; %d objects, %d uploads", err, c.want, objects, uploads)
				}
				if strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), "R1") > 1 || !strings.Contains(err.Error(), "part ") {
					t.Errorf("the text is %q", err)
				}
				return
			}
			if err != nil || objects != 1 || uploads != 0 {
				t.Fatalf("%v; %d objects, %d uploads", err, objects, uploads)
			}
			if name == "Retry-After" && time.Since(started) < time.Second {
				t.Error("did not wait for as long as the store asked")
			}
		})
	}
}

// provider counts how often credentials are asked for.
type provider struct{ calls atomic.Int32 }

func (p *provider) Retrieve(context.Context) (aws.Credentials, error) {
	n := p.calls.Add(1)
	return aws.Credentials{AccessKeyID: fmt.Sprintf("AKIA%d", n), SecretAccessKey: "s", CanExpire: true, Expires: time.Now().Add(time.Hour)}, nil
}

// TestExpiredTokenIsRenewed: credentials that the store calls expired before
// their time are fetched again, in every operation.
func TestExpiredTokenIsRenewed(t *testing.T) {
	for _, op := range []string{"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject"} {
		t.Run(op, func(t *testing.T) {
			s := newStub(t)
			var p provider
			s.script = func(w http.ResponseWriter, r *http.Request, got string, _ int) bool {
				if got != op || !strings.Contains(r.Header.Get("Authorization"), "AKIA1/") {
					return false
				}
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/xml")
				fail(w, 400, "ExpiredToken", "The provided token has expired.")
				return true
			}
			cfg := s.config()
			cfg.Credentials = &p
			_, err := putStub(t, s, cfg, 2500)
			if err != nil || p.calls.Load() < 2 {
				t.Fatalf("%v after %d fetches of credentials", err, p.calls.Load())
			}
		})
	}
}

// TestWatchdog: a part that the store takes but never answers, and one that it
// does not even take, are sent again.
func TestWatchdog(t *testing.T) {
	for name, read := range map[string]bool{"no answer": true, "no progress": false} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			released := make(chan struct{})
			defer close(released)
			s.script = func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
				if op != "UploadPart" || n > 0 {
					return false
				}
				if read {
					io.Copy(io.Discard, r.Body)
				}
				select {
				case <-released:
				case <-r.Context().Done():
				}
				return true
			}
			cfg := s.config()
			cfg.IdleTimeout, cfg.ResponseTimeout = 300*time.Millisecond, 300*time.Millisecond
			n := 2500
			if !read { // more than the kernels' buffers hold
				cfg.PartSize, cfg.MaxPartSize, cfg.MemoryBudget, n = 32*mib, 32*mib, 64*mib, 33*mib
			}
			if _, err := putStub(t, s, cfg, n); err != nil {
				t.Fatal(err)
			}
			if got := s.seen("UploadPart"); got < 2 {
				t.Errorf("%d part requests", got)
			}
		})
	}
}

// TestAbortAfterCancel: the abort is sent although the caller's context is over.
func TestAbortAfterCancel(t *testing.T) {
	s := newStub(t)
	b := mustOpen(t, s.config())
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the run was stopped")
	src := io.MultiReader(bytes.NewReader(noise(5000)), readerFunc(func([]byte) (int, error) {
		cancel(why)
		return 0, errors.New("killed")
	}))
	_, err := b.Put(ctx, "k", src, storage.PutOptions{})
	objects, uploads := s.left()
	if !errors.Is(err, why) || !errors.Is(err, context.Canceled) || objects+uploads != 0 || s.seen("AbortMultipartUpload") == 0 {
		t.Fatalf("%v; %d objects, %d uploads, %d aborts", err, objects, uploads, s.seen("AbortMultipartUpload"))
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestAbortFails: the cause stays, the failure of the abort is joined to it.
func TestAbortFails(t *testing.T) {
	s := newStub(t)
	s.script = failing("AbortMultipartUpload", 100, answer(403, "AccessDenied"))
	b := mustOpen(t, s.config())
	broken := errors.New("pg_dump: server closed the connection")
	_, err := b.Put(t.Context(), "k", io.MultiReader(bytes.NewReader(noise(2500)), readerFunc(func([]byte) (int, error) { return 0, broken })), storage.PutOptions{})
	if !errors.Is(err, broken) || !errors.Is(err, storage.ErrUploadRemains) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
}

func TestOutOfParts(t *testing.T) {
	s := newStub(t)
	cfg := s.config()
	cfg.MaxParts, cfg.UniformParts, cfg.MaxPartSize = 4, true, 1000
	b := mustOpen(t, cfg)
	_, err := b.Put(t.Context(), "k", bytes.NewReader(noise(4000)), storage.PutOptions{})
	if err != nil {
		t.Errorf("a stream that fills its parts exactly: %v", err)
	}
	_, err = b.Put(t.Context(), "more", bytes.NewReader(noise(4001)), storage.PutOptions{SizeEstimate: 3000})
	if err == nil || !strings.Contains(err.Error(), "all 4 equal parts") || !strings.Contains(err.Error(), "2.93 KiB were estimated") {
		t.Errorf("one byte too many: %v", err)
	}
	_, err = b.Put(t.Context(), "much", readerFunc(func([]byte) (int, error) { t.Error("read"); return 0, io.EOF }), storage.PutOptions{SizeEstimate: 5000})
	if err == nil || !strings.Contains(err.Error(), "are estimated") {
		t.Errorf("an estimate that does not fit: %v", err)
	}
	if _, uploads := s.left(); uploads != 0 {
		t.Errorf("%d uploads are left", uploads)
	}
}

// TestUniformParts: all parts but the last have one size, the head's included.
func TestUniformParts(t *testing.T) {
	s := newStub(t)
	var mu sync.Mutex
	sizes := map[string]int64{}
	s.script = func(_ http.ResponseWriter, r *http.Request, op string, _ int) bool {
		if op == "UploadPart" {
			mu.Lock()
			sizes[r.URL.Query().Get("partNumber")] = r.ContentLength
			mu.Unlock()
		}
		return false
	}
	cfg := s.config()
	cfg.UniformParts = true
	b := mustOpen(t, cfg)
	head := noise(1300)
	o, err := b.Put(t.Context(), "k", bytes.NewReader(noise(3000)), storage.PutOptions{Head: &storage.DeferredHead{
		Size: func() int64 { return 1300 }, Bytes: func() ([]byte, error) { return head, nil },
	}})
	if err != nil || o.Size != 4300 {
		t.Fatalf("%+v, %v", o, err)
	}
	want := map[string]int64{"1": 1000, "2": 1000, "3": 1000, "4": 1000, "5": 300}
	if fmt.Sprint(sizes) != fmt.Sprint(want) {
		t.Errorf("parts %v, want %v", sizes, want)
	}
}

// TestMemory pushes a long stream at a store that discards it, and looks at
// the live heap.
func TestMemory(t *testing.T) {
	s := newStub(t)
	cfg := s.config()
	cfg.PartSize, cfg.MinPart, cfg.MemoryBudget = 4*mib, 4*mib, 24*mib
	b := mustOpen(t, cfg)
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	const total = 1 * gib
	chunk := noise(1 * mib)
	var sent, peak uint64
	src := readerFunc(func(p []byte) (int, error) {
		if sent >= total {
			return 0, io.EOF
		}
		n := copy(p, chunk)
		if sent/(64*mib) != (sent+uint64(n))/(64*mib) {
			runtime.GC()
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
		sent += uint64(n)
		return n, nil
	})
	head := noise(1000)
	if _, err := b.Put(t.Context(), "k", src, storage.PutOptions{Head: &storage.DeferredHead{
		Size: func() int64 { return 1000 }, Bytes: func() ([]byte, error) { return head, nil },
	}}); err != nil {
		t.Fatal(err)
	}
	grown := int64(peak) - int64(before.HeapAlloc)
	t.Logf("%s passed, the heap grew by %s", size(int64(sent)), size(max(grown, 0)))
	if limit := int64(32 * mib); grown > limit {
		t.Errorf("the heap grew by %s, more than %s", size(grown), size(limit))
	}
}
