package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// held is a request that a middlebox keeps and forwards when its client has
// long gone.
type held struct {
	mu      sync.Mutex
	forward []func()
}

// hold keeps all requests of op: hangUp ends the connection at once, else the
// client waits until it loses patience. atHold may be nil.
func hold(s *stub, op string, hangUp bool, atHold func()) *held {
	h := &held{}
	s.script = func(w http.ResponseWriter, r *http.Request, got string, _ int) bool {
		if got != op {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return true
		}
		late := r.Clone(context.WithoutCancel(r.Context()))
		late.Body = io.NopCloser(bytes.NewReader(body))
		h.mu.Lock()
		h.forward = append(h.forward, func() { s.answer(httptest.NewRecorder(), late, op) })
		h.mu.Unlock()
		if atHold != nil {
			atHold()
		}
		if hangUp {
			panic(http.ErrAbortHandler)
		}
		<-r.Context().Done()
		return true
	}
	return h
}

// arrive delivers what was kept.
func (h *held) arrive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.forward {
		f()
	}
}

// TestHeldRequest: the completing request is on its way when its Put is given
// up, and arrives later. A single request cannot be called back, so its outcome
// is unknown although nothing is there; a multipart upload is settled by its
// abort.
func TestHeldRequest(t *testing.T) {
	stop := errors.New("stopped by the test")
	for name, c := range completing {
		single := name == "known"
		check := func(t *testing.T, s *stub, h *held, err, cause error) {
			t.Helper()
			if err == nil || cause != nil && !errors.Is(err, cause) {
				t.Fatalf("Put: %v, want %v", err, cause)
			}
			if got := errors.Is(err, storage.ErrUnknownOutcome); got != single {
				t.Errorf("unknown outcome: %v, want %v: %v", got, single, err)
			}
			h.arrive()
			objects, uploads := s.left()
			if want := map[bool]int{true: 1}[single]; objects != want || uploads != 0 {
				t.Errorf("%d objects, %d uploads, after %v", objects, uploads, err)
			}
		}
		t.Run(name+"/cancelled", func(t *testing.T) {
			s := newStub(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			h := hold(s, c.op, false, func() { cancel(stop) })
			_, err := mustOpen(t, s.config()).Put(ctx, "k", bytes.NewReader(noise(2500)), c.opts)
			check(t, s, h, err, stop)
		})
		t.Run(name+"/cancelled between attempts", func(t *testing.T) {
			s := newStub(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			h := hold(s, c.op, true, func() { cancel(stop) })
			_, err := mustOpen(t, s.config()).Put(ctx, "k", bytes.NewReader(noise(2500)), c.opts)
			check(t, s, h, err, stop)
		})
		t.Run(name+"/patience is over", func(t *testing.T) {
			s := newStub(t)
			h := hold(s, c.op, true, nil)
			cfg := s.config()
			cfg.RetryBudget = 50 * time.Millisecond
			_, err := mustOpen(t, cfg).Put(t.Context(), "k", bytes.NewReader(noise(2500)), c.opts)
			check(t, s, h, err, nil)
		})
	}
}

// TestHeldCompletionAbortFails: the abort that would settle a multipart upload
// fails too, or comes too late.
func TestHeldCompletionAbortFails(t *testing.T) {
	stop := errors.New("stopped by the test")
	t.Run("refused", func(t *testing.T) {
		s := newStub(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		h := hold(s, "CompleteMultipartUpload", false, func() { cancel(stop) })
		s.before(failing("AbortMultipartUpload", 100, answer(403, "AccessDenied")))
		_, err := mustOpen(t, s.config()).Put(ctx, "k", bytes.NewReader(noise(2500)), storage.PutOptions{})
		if !errors.Is(err, storage.ErrUnknownOutcome) || !errors.Is(err, stop) || !errors.Is(err, storage.ErrUploadRemains) {
			t.Errorf("Put: %v", err)
		}
		h.arrive()
	})
	t.Run("the completion comes first", func(t *testing.T) {
		s := newStub(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		h := hold(s, "CompleteMultipartUpload", false, func() { cancel(stop) })
		s.before(func(_ http.ResponseWriter, _ *http.Request, op string, _ int) bool {
			if op == "AbortMultipartUpload" {
				h.arrive()
			}
			return false
		})
		o, err := mustOpen(t, s.config()).Put(ctx, "k", bytes.NewReader(noise(2500)), storage.PutOptions{})
		if err != nil || o.Size != 2500 {
			t.Errorf("Put: %+v, %v", o, err)
		}
	})
}

// TestNothingWasSent: a store that refuses connections has nothing of the
// request, so that the outcome is known.
func TestNothingWasSent(t *testing.T) {
	s := newStub(t)
	cfg := s.config()
	cfg.RetryBudget = 50 * time.Millisecond
	b := mustOpen(t, cfg)
	s.Close()
	if _, err := b.Stat(t.Context(), "k", ""); err == nil { // uses the open connections up
		t.Fatal("the server still answers")
	}
	_, err := b.Put(t.Context(), "k", bytes.NewReader(noise(2500)), storage.PutOptions{Size: 2500})
	if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrUnknownOutcome) {
		t.Errorf("Put: %v", err)
	}
}

// TestAbortIsBounded: after the caller's end a dead store is not waited for
// long, and what stays is told.
func TestAbortIsBounded(t *testing.T) {
	s := newStub(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the test")
	s.script = func(_ http.ResponseWriter, r *http.Request, op string, n int) bool {
		if op != "AbortMultipartUpload" {
			return false
		}
		<-r.Context().Done()
		return true
	}
	started := time.Now()
	_, err := mustOpen(t, s.config()).Put(ctx, "k", io.MultiReader(bytes.NewReader(noise(2500)), readerFunc(func([]byte) (int, error) {
		cancel(stop)
		return 0, stop
	})), storage.PutOptions{})
	// A bound with room for a busy machine; without it this takes 30 s.
	if spent := time.Since(started); spent > 15*time.Second {
		t.Errorf("took %s", spent)
	}
	var remains *storage.UploadRemainsError
	if !errors.Is(err, stop) || !errors.As(err, &remains) || remains.Key != "k" {
		t.Errorf("Put: %v", err)
	}
}
