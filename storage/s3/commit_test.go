package s3

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// completing is the request that makes the object visible, for both ways.
var completing = map[string]struct {
	op   string
	opts storage.PutOptions
}{
	"stream": {"CompleteMultipartUpload", storage.PutOptions{}},
	"known":  {"PutObject", storage.PutOptions{Size: 2500}},
}

// lose lets the stub act on the first request of op and then loses its reply.
func lose(s *stub, op string, times int) {
	s.script = func(w http.ResponseWriter, r *http.Request, got string, n int) bool {
		if got != op || n >= times {
			return false
		}
		s.answer(httptest.NewRecorder(), r, got)
		hangUp(w)
		return true
	}
}

// before lets another script look first.
func (s *stub) before(script func(http.ResponseWriter, *http.Request, string, int) bool) {
	next := s.script
	s.script = func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
		return script(w, r, op, n) || next != nil && next(w, r, op, n)
	}
}

func put(t *testing.T, s *stub, opts storage.PutOptions) (storage.Object, error) {
	t.Helper()
	return mustOpen(t, s.config()).Put(t.Context(), "k", bytes.NewReader(noise(2500)), opts)
}

// TestLostReply: the request took effect, its reply did not come. The look-up
// by upload token settles it, and nothing is aborted.
func TestLostReply(t *testing.T) {
	for name, c := range completing {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			lose(s, c.op, 1)
			o, err := put(t, s, c.opts)
			if err != nil || o.Size != 2500 || o.Checksum.Algorithm != "CRC64NVME" {
				t.Fatalf("%+v, %v", o, err)
			}
			if n := s.seen("AbortMultipartUpload"); n != 0 {
				t.Errorf("%d aborts", n)
			}
		})
	}
}

// TestLostRequest: it never arrived; the look-up finds nothing, and it is sent
// again.
func TestLostRequest(t *testing.T) {
	for name, c := range completing {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			s.script = failing(c.op, 2, hangUp)
			if _, err := put(t, s, c.opts); err != nil {
				t.Fatal(err)
			}
			if n := s.seen(c.op); n != 3 {
				t.Errorf("sent %d times", n)
			}
		})
	}
}

// TestLostReplyPutOnly: looking is denied. A repeated completion that succeeds
// (AWS) is success; one that is refused (MinIO) leaves the outcome unknown, and
// nothing is aborted.
func TestLostReplyPutOnly(t *testing.T) {
	headDenied := func(w http.ResponseWriter, _ *http.Request, op string, _ int) bool {
		if op == "HeadObject" {
			w.WriteHeader(403)
			return true
		}
		return false
	}
	for name, c := range completing {
		t.Run(name+"/refused", func(t *testing.T) {
			s := newStub(t)
			lose(s, c.op, 1)
			s.before(headDenied)
			_, err := put(t, s, c.opts)
			if !errors.Is(err, storage.ErrUnknownOutcome) || s.seen("AbortMultipartUpload") != 0 {
				t.Fatalf("%v, %d aborts", err, s.seen("AbortMultipartUpload"))
			}
			if errors.Is(err, storage.ErrExist) && name == "stream" {
				t.Errorf("claims that another object exists: %v", err)
			}
		})
		t.Run(name+"/never arrived", func(t *testing.T) {
			s := newStub(t)
			s.script = failing(c.op, 1, hangUp)
			s.before(headDenied)
			o, err := put(t, s, c.opts)
			if err != nil || o.Size != 2500 || o.Checksum.Value == "" {
				t.Fatalf("%+v, %v", o, err)
			}
		})
		t.Run(name+"/clean", func(t *testing.T) {
			s := newStub(t)
			s.before(headDenied)
			o, err := put(t, s, c.opts)
			if err != nil || o.Size != 2500 || o.ETag == "" || o.Metadata != nil {
				t.Fatalf("%+v, %v", o, err)
			}
		})
		t.Run(name+"/taken", func(t *testing.T) {
			s := newStub(t)
			s.objects["k"] = &stubObject{header: http.Header{}}
			s.before(headDenied)
			_, err := put(t, s, c.opts)
			if !errors.Is(err, storage.ErrExist) || errors.Is(err, storage.ErrUnknownOutcome) {
				t.Fatal(err)
			}
		})
	}
}

// TestErrorInside200: S3 answers 200 before it has assembled the object.
func TestErrorInside200(t *testing.T) {
	s := newStub(t)
	s.script = failing("CompleteMultipartUpload", 1, func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/xml")
		io.WriteString(w, "   <Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>")
	})
	if _, err := put(t, s, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := s.seen("CompleteMultipartUpload"); n != 2 {
		t.Errorf("completed %d times", n)
	}
	s = newStub(t)
	s.script = failing("CompleteMultipartUpload", 100, func(w http.ResponseWriter) {
		io.WriteString(w, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
	})
	_, err := put(t, s, storage.PutOptions{})
	if objects, uploads := s.left(); err == nil || objects+uploads != 0 {
		t.Fatalf("%v; %d objects, %d uploads", err, objects, uploads)
	}
}

// TestConflict: 409 ConditionalRequestConflict is tried again; a creator who
// wins is reported, one who gives up leaves the key to us.
func TestConflict(t *testing.T) {
	for name, c := range completing {
		t.Run(name+"/passes", func(t *testing.T) {
			s := newStub(t)
			s.script = failing(c.op, 2, answer(409, "ConditionalRequestConflict"))
			if _, err := put(t, s, c.opts); err != nil {
				t.Fatal(err)
			}
		})
		t.Run(name+"/stays", func(t *testing.T) {
			s := newStub(t)
			s.script = failing(c.op, 100, answer(409, "ConditionalRequestConflict"))
			_, err := put(t, s, c.opts)
			if objects, uploads := s.left(); !errors.Is(err, storage.ErrExist) || objects+uploads != 0 {
				t.Fatalf("%v; %d objects, %d uploads", err, objects, uploads)
			}
		})
		t.Run(name+"/lost", func(t *testing.T) {
			s := newStub(t)
			s.script = failing(c.op, 1, func(w http.ResponseWriter) {
				s.mu.Lock()
				s.objects["k"] = &stubObject{header: http.Header{}, etag: `"x"`}
				s.mu.Unlock()
				fail(w, 409, "ConditionalRequestConflict", "in progress")
			})
			_, err := put(t, s, c.opts)
			if objects, uploads := s.left(); !errors.Is(err, storage.ErrExist) || objects != 1 || uploads != 0 {
				t.Fatalf("%v; %d objects, %d uploads", err, objects, uploads)
			}
		})
	}
}

// TestWrongAccount: the store confirms and shows something else than was sent.
func TestWrongAccount(t *testing.T) {
	for name, header := range map[string][2]string{
		"size":         {"Content-Length", "2499"},
		"checksum":     {"X-Amz-Checksum-Crc64nvme", "AAAAAAAAAAA="},
		"no checksum":  {"X-Amz-Checksum-Crc64nvme", ""},
		"composite":    {"X-Amz-Checksum-Type", "COMPOSITE"},
		"other upload": {"X-Amz-Meta-Pgstow-Upload", "somebody"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			var deleted atomic.Int32
			s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				switch op {
				case "HeadObject":
					rec := httptest.NewRecorder()
					s.answer(rec, r, op)
					for k, v := range rec.Header() {
						w.Header()[k] = v
					}
					w.Header().Set(header[0], header[1])
					w.WriteHeader(rec.Code)
					return true
				case "DeleteObject":
					deleted.Add(1)
					w.WriteHeader(204)
					return true
				}
				return false
			}
			_, err := put(t, s, storage.PutOptions{})
			if !errors.Is(err, storage.ErrIntegrity) || s.seen("AbortMultipartUpload") != 0 {
				t.Fatalf("%v, %d aborts", err, s.seen("AbortMultipartUpload"))
			}
			// What is ours and damaged is withdrawn, what is another's is not touched.
			if want := name != "other upload"; (deleted.Load() == 1) != want {
				t.Errorf("deleted %d times", deleted.Load())
			}
		})
	}
}

// TestChecksumNotConfirmed: a store that ignores CRC64NVME is found out at the
// first part, with the way out.
func TestChecksumNotConfirmed(t *testing.T) {
	s := newStub(t)
	s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		r.Header.Del("X-Amz-Checksum-Crc64nvme")
		return false
	}
	_, err := put(t, s, storage.PutOptions{})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "checksum=md5") {
		t.Fatal(err)
	}
	if objects, uploads := s.left(); objects+uploads != 0 {
		t.Errorf("%d objects, %d uploads", objects, uploads)
	}
}

func TestBudgetIsKept(t *testing.T) {
	s := newStub(t)
	s.script = failing("CompleteMultipartUpload", 1_000_000, hangUp)
	s.before(failing("HeadObject", 1_000_000, hangUp))
	cfg := s.config()
	cfg.RetryBudget = 200 * time.Millisecond
	_, err := mustOpen(t, cfg).Put(t.Context(), "k", bytes.NewReader(noise(2500)), storage.PutOptions{})
	if !errors.Is(err, storage.ErrUnknownOutcome) || s.seen("AbortMultipartUpload") != 0 {
		t.Fatalf("%v, %d aborts", err, s.seen("AbortMultipartUpload"))
	}
}
