package gcs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
)

// content is size bytes that belong to their seed.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

// lab is a strict server with one bucket, opened.
type lab struct {
	*strict
	t      *testing.T
	bucket *Bucket
	name   string
}

func newLab(t *testing.T, adjust func(*Config)) *lab {
	t.Helper()
	s := startStrict(t, gcsserver.Options{})
	l := &lab{strict: s, t: t, name: s.bucket(t)}
	cfg := s.quick(l.name)
	if adjust != nil {
		adjust(&cfg)
	}
	l.bucket = s.open(t, cfg)
	return l
}

// put puts a stream and expects it to be there, whole, afterwards.
func (l *lab) put(key string, data []byte) storage.Object {
	l.t.Helper()
	o, err := l.bucket.Put(l.t.Context(), key, bytes.NewReader(data), storage.PutOptions{})
	if err != nil {
		l.t.Fatalf("Put: %v", err)
	}
	if want := crcText(crc32.Checksum(data, castagnoli)); o.Checksum.Value != want || o.Size != int64(len(data)) {
		l.t.Fatalf("Put returned %+v, expected %d bytes and %s", o, len(data), want)
	}
	l.whole(key, data)
	return o
}

func (l *lab) whole(key string, data []byte) {
	l.t.Helper()
	r, err := l.bucket.Open(l.t.Context(), key, storage.OpenOptions{})
	if err != nil {
		l.t.Fatalf("Open: %v", err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		l.t.Fatalf("read %d bytes of %d, equal %t, error %v", len(got), len(data), bytes.Equal(got, data), err)
	}
}

// nothing expects an empty bucket and no session.
func (l *lab) nothing() {
	l.t.Helper()
	l.ClearFaults()
	for o, err := range l.bucket.List(l.t.Context(), storage.ListOptions{Versions: true}) {
		l.t.Errorf("the bucket shows %+v, error %v", o, err)
	}
	if left := l.leftovers(l.t); len(left) > 0 {
		l.t.Errorf("left over: %q", left)
	}
}

const faultSize = 3*testChunk + 1000

// TestUploadSurvives runs one upload through each fault that must not end it.
func TestUploadSurvives(t *testing.T) {
	none, half := int64(0), int64(testChunk)
	tests := map[string][]gcsserver.Fault{
		"503 storm":                    {{Op: gcsserver.OpChunk, Times: 5, Status: 503}, {Op: gcsserver.OpFinal, Times: 3, Status: 503}},
		"429 storm":                    {{Op: gcsserver.OpChunk, Times: 3, Status: 429}, {Op: gcsserver.OpFinal, Times: 2, Status: 429}},
		"408 and 500":                  {{Op: gcsserver.OpChunk, Status: 408}, {Op: gcsserver.OpFinal, Status: 500}},
		"start refused for a while":    {{Op: gcsserver.OpStart, Times: 4, Status: 503}},
		"start reply lost":             {{Op: gcsserver.OpStart, Skip: 1, DropReply: true}},
		"chunk cut early":              {{Op: gcsserver.OpChunk, CutRequest: 1000}},
		"second chunk cut late":        {{Op: gcsserver.OpChunk, Skip: 1, CutRequest: testChunk - 1}},
		"chunk reply lost":             {{Op: gcsserver.OpChunk, Times: 2, DropReply: true}},
		"nothing persisted (no Range)": {{Op: gcsserver.OpChunk, Persist: &none}},
		"last chunk not persisted":     {{Op: gcsserver.OpFinal, Persist: &none}},
		"part of the chunk persisted":  {{Op: gcsserver.OpChunk, Skip: 1, Times: 2, Persist: &half}},
		"final reply lost":             {{Op: gcsserver.OpFinal, DropReply: true}},
		"final reply lost, then 503":   {{Op: gcsserver.OpFinal, DropReply: true}, {Op: gcsserver.OpFinal, Times: 2, Status: 503}},
	}
	for name, faults := range tests {
		t.Run(name, func(t *testing.T) {
			// Two units per chunk, so that a chunk can be half persisted.
			l := newLab(t, func(c *Config) { c.ChunkSize = 2 * testChunk })
			var injected []*gcsserver.Injected
			for _, f := range faults {
				injected = append(injected, l.Inject(f))
			}
			l.put("key", content(1, 2*faultSize))
			for i, f := range injected {
				if f.Hits() == 0 {
					t.Errorf("fault %d never struck", i)
				}
			}
			if left := l.leftovers(t); len(left) > 0 && name != "start reply lost" {
				t.Errorf("left over: %q", left)
			}
		})
	}
}

// TestSmallUploadSurvives is the same for single requests, whose second attempt
// meets the object that the first one made.
func TestSmallUploadSurvives(t *testing.T) {
	for name, fault := range map[string]gcsserver.Fault{
		"503":        {Op: gcsserver.OpInsert, Times: 3, Status: 503},
		"cut":        {Op: gcsserver.OpInsert, CutRequest: 300},
		"reply lost": {Op: gcsserver.OpInsert, DropReply: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			f := l.Inject(fault)
			data := content(2, 1000)
			o, err := storage.PutBytes(t.Context(), l.bucket, "small", data, storage.PutOptions{})
			if err != nil || o.Size != 1000 {
				t.Fatalf("Put: %+v, %v", o, err)
			}
			if f.Hits() == 0 {
				t.Error("the fault never struck")
			}
			l.whole("small", data)
		})
	}
}

// TestStalledChunkIsSentAgain: a chunk that hangs is given up after
// ChunkTimeout and sent again.
func TestStalledChunkIsSentAgain(t *testing.T) {
	l := newLab(t, func(c *Config) { c.ChunkTimeout = 200 * time.Millisecond })
	chunk := l.Inject(gcsserver.Fault{Op: gcsserver.OpChunk, Skip: 1, Hang: true})
	final := l.Inject(gcsserver.Fault{Op: gcsserver.OpFinal, Hang: true, HangAfterBody: true})
	l.put("key", content(3, faultSize))
	if chunk.Hits() != 1 || final.Hits() != 1 {
		t.Errorf("%d and %d hits", chunk.Hits(), final.Hits())
	}
}

// TestWrongChecksum: what was damaged on the way is refused by the store, in
// the request that would complete it.
func TestWrongChecksum(t *testing.T) {
	for name, test := range map[string]struct {
		op   gcsserver.Op
		size int
	}{
		"chunk": {gcsserver.OpChunk, faultSize}, "last chunk": {gcsserver.OpFinal, faultSize}, "single": {gcsserver.OpInsert, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			// In a single request the content follows the metadata: break it
			// there by claiming a wrong checksum, as its first byte is a hyphen.
			fault := gcsserver.Fault{Op: test.op, Damage: true}
			if test.op == gcsserver.OpInsert {
				fault = gcsserver.Fault{Op: test.op, Before: func() {}, Match: func(r *http.Request) bool {
					r.Body = replacing(r.Body, `"crc32c":"`, `"crc32c":"AAAA`)
					r.ContentLength = -1
					return true
				}}
			}
			l.Inject(fault)
			_, err := l.bucket.Put(t.Context(), "key", bytes.NewReader(content(4, test.size)), storage.PutOptions{Size: knownIf(test.op == gcsserver.OpInsert, test.size)})
			if !errors.Is(err, storage.ErrIntegrity) {
				t.Errorf("Put: %v", err)
			}
			l.nothing()
		})
	}
}

func knownIf(known bool, size int) int64 {
	if known {
		return int64(size)
	}
	return 0
}

// replacing changes the text of a body, keeping its length.
func replacing(body io.ReadCloser, old, replacement string) io.ReadCloser {
	all, err := io.ReadAll(body)
	if err != nil {
		return body
	}
	at := bytes.Index(all, []byte(old))
	copy(all[at:], replacement)
	return io.NopCloser(bytes.NewReader(all))
}

// TestConfirmedButDifferent: an object that is not what was sent is removed,
// whatever the store confirmed.
func TestConfirmedButDifferent(t *testing.T) {
	l := newLab(t, nil)
	u := &upload{b: l.bucket, key: "key", flight: newFlight(nil), size: 10, crc: 1}
	l.put("key", content(5, 10))
	a, err := l.bucket.handle.Object("key").Attrs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.confirmed(t.Context(), a); !errors.Is(err, storage.ErrIntegrity) {
		t.Errorf("confirmed: %v", err)
	}
	l.nothing()
}

// failing delivers n bytes and then err; with data when together is set.
func failing(n int, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(content(6, n)), errReader{err})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestSourceErrorsNeverFinalise breaks 200 sources at random bytes: no request
// that could complete an object may ever go out.
func TestSourceErrorsNeverFinalise(t *testing.T) {
	l := newLab(t, nil)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	broken := errors.New("the source broke")
	for i := range 200 {
		cause := []error{broken, io.ErrUnexpectedEOF, fmt.Errorf("wrapped: %w", io.EOF)}[i%3]
		key := fmt.Sprintf("key-%d", i)
		_, err := l.bucket.Put(t.Context(), key, failing(r.IntN(3*testChunk), cause), storage.PutOptions{})
		if !errors.Is(err, cause) {
			t.Fatalf("Put %d: %v", i, err)
		}
	}
	if n := l.Count(gcsserver.OpFinal) + l.Count(gcsserver.OpInsert); n > 0 {
		t.Errorf("%d completing requests were sent", n)
	}
	l.nothing()
}

// TestCancelNeverFinalises cancels 200 uploads after a random number of bytes.
func TestCancelNeverFinalises(t *testing.T) {
	l := newLab(t, nil)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	stop := errors.New("stopped by the test")
	for i := range 200 {
		ctx, cancel := context.WithCancelCause(t.Context())
		at := int64(r.IntN(3 * testChunk))
		source := &cancelling{r: endless{}, at: at, cancel: func() { cancel(stop) }}
		_, err := l.bucket.Put(ctx, fmt.Sprintf("key-%d", i), source, storage.PutOptions{})
		if !errors.Is(err, stop) {
			t.Fatalf("Put %d: %v", i, err)
		}
	}
	if n := l.Count(gcsserver.OpFinal) + l.Count(gcsserver.OpInsert); n > 0 {
		t.Errorf("%d completing requests were sent", n)
	}
	l.nothing()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// cancelling cancels from another goroutine once so many bytes were read, so
// that it hits the upload anywhere.
type cancelling struct {
	r      io.Reader
	at     int64
	cancel func()
	once   sync.Once
}

func (c *cancelling) Read(p []byte) (int, error) {
	n, err := c.r.Read(p[:min(len(p), 10_000)])
	if c.at -= int64(n); c.at <= 0 {
		c.once.Do(func() { go c.cancel() })
	}
	return n, err
}

// TestExpiredSession: a session that the store dropped is a clear error, at
// once.
func TestExpiredSession(t *testing.T) {
	l := newLab(t, nil)
	l.Inject(gcsserver.Fault{Op: gcsserver.OpChunk, Skip: 1, Before: func() { l.Advance(8 * 24 * time.Hour) }})
	_, err := l.bucket.Put(t.Context(), "key", bytes.NewReader(content(7, faultSize)), storage.PutOptions{})
	if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "upload session has expired") {
		t.Errorf("Put: %v", err)
	}
	noSecrets(t, err)
	if n := l.Count(gcsserver.OpChunk); n != 2 {
		t.Errorf("%d chunks were sent, the second was refused for good", n)
	}
}

// noSecrets: a session's URL is a credential, and errors are one line.
func noSecrets(t *testing.T, err error) {
	t.Helper()
	if err != nil && (strings.Contains(err.Error(), "upload_id") || strings.Contains(err.Error(), "\n")) {
		t.Errorf("the error shows a session's URL or has several lines: %v", err)
	}
}

// TestLostRace: somebody else creates the key during the upload.
func TestLostRace(t *testing.T) {
	l := newLab(t, nil)
	theirs := content(8, 2000)
	l.Inject(gcsserver.Fault{Op: gcsserver.OpFinal, Before: func() {
		l.ClearFaults()
		if _, err := storage.PutBytes(t.Context(), l.bucket, "key", theirs, storage.PutOptions{}); err != nil {
			t.Error(err)
		}
	}})
	_, err := l.bucket.Put(t.Context(), "key", bytes.NewReader(content(9, faultSize)), storage.PutOptions{})
	if !errors.Is(err, storage.ErrExist) {
		t.Errorf("Put: %v", err)
	}
	l.whole("key", theirs)
}

// TestReadsSurvive breaks bodies and their openings.
func TestReadsSurvive(t *testing.T) {
	l := newLab(t, nil)
	data := content(19, faultSize)
	l.put("key", data)
	for name, faults := range map[string][]gcsserver.Fault{
		"503":        {{Op: gcsserver.OpMedia, Times: 3, Status: 503}},
		"cut":        {{Op: gcsserver.OpMedia, Times: 4, CutResponse: 100_000}},
		"no reply":   {{Op: gcsserver.OpMedia, Times: 2, DropReply: true}},
		"cut + 503s": {{Op: gcsserver.OpMedia, CutResponse: 1000}, {Op: gcsserver.OpMedia, Times: 3, Status: 503}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range faults {
				l.Inject(f)
			}
			l.whole("key", data)
			l.ClearFaults()
		})
	}
	l.Inject(gcsserver.Fault{Op: gcsserver.OpMedia, DamageReply: true})
	r, err := l.bucket.Open(t.Context(), "key", storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, storage.ErrIntegrity) {
		t.Errorf("a damaged body was read with error %v", err)
	}
}

// TestReplacedWhileRead: where the generation that was opened is gone, the read
// fails; it never goes on with another.
func TestReplacedWhileRead(t *testing.T) {
	s := startStrict(t, gcsserver.Options{})
	b := s.open(t, s.quick(s.bucketWith(t, nil)))
	old := content(20, 4<<20)
	if _, err := b.Put(t.Context(), "key", bytes.NewReader(old), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	s.Inject(gcsserver.Fault{Op: gcsserver.OpMedia, CutResponse: 1 << 20})
	r, err := b.Open(t.Context(), "key", storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := b.Delete(t.Context(), "key", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "key", bytes.NewReader(content(21, 4<<20)), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if !errors.Is(err, storage.ErrIntegrity) || !bytes.Equal(got, old[:len(got)]) {
		t.Errorf("read %d bytes, error %v", len(got), err)
	}
}

// TestNoGoroutines: nothing of a failed or a good Put lives on.
func TestNoGoroutines(t *testing.T) {
	l := newLab(t, nil)
	before := goleak.IgnoreCurrent()
	b, err := Open(t.Context(), l.quick(l.name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "good", bytes.NewReader(content(22, faultSize)), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "bad", failing(faultSize, io.ErrUnexpectedEOF), storage.PutOptions{}); err == nil {
		t.Fatal("the Put succeeded")
	}
	b.Close()
	goleak.VerifyNone(t, before)
}

// An object that another program has stored with Content-Encoding: gzip is read as it lies there,
// by ranges too.
func TestOpenDoesNotUnpack(t *testing.T) {
	l := newLab(t, nil)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(content(7, 300_000)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	w := l.bucket.handle.Object("zipped").NewWriter(t.Context())
	w.ContentEncoding = "gzip"
	if _, err := w.Write(zipped.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l.whole("zipped", zipped.Bytes())
	body, err := l.bucket.Open(t.Context(), "zipped", storage.OpenOptions{Offset: 1000, Length: 5000})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, zipped.Bytes()[1000:6000]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
