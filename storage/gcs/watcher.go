package gcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// flight is one Put as its requests show it: what was sent and confirmed, which
// session it has, whether it may have been completed. It travels in the
// context of the Put's requests.
type flight struct {
	report func(storage.Progress) // may be nil

	mu       sync.Mutex
	now      storage.Progress
	session  string // URL of the resumable session
	read     int64  // bytes taken from the source so far
	moved    time.Time
	aborted  bool
	inFlight int
	idle     chan struct{} // closed when aborted and nothing is in flight
	// pending counts completing requests under way; unsure is set when one
	// ended without an answer that settles what it did.
	pending int
	unsure  bool
}

type flightKey struct{}

func newFlight(report func(storage.Progress)) *flight {
	return &flight{report: report, moved: time.Now(), idle: make(chan struct{})}
}

func (f *flight) attach(ctx context.Context) context.Context {
	return context.WithValue(ctx, flightKey{}, f)
}

// change updates the numbers and reports them. The report is made under the
// lock: it comes from one goroutine at a time.
func (f *flight) change(update func(p *storage.Progress)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.now
	update(&f.now)
	if f.now.Acknowledged > before.Acknowledged {
		f.moved = time.Now()
	}
	if f.report != nil && f.now != before {
		f.report(f.now)
	}
}

func (f *flight) opening(on bool) { f.change(func(p *storage.Progress) { p.Opening = on }) }

// took counts bytes of the source.
func (f *flight) took(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read += n
}

// finished is the end of the Put, whatever its outcome.
func (f *flight) finished() {
	f.change(func(p *storage.Progress) { p.Opening, p.Completing = false, false })
}

// abort lets no further request out and waits until those under way, whose
// context has to be cancelled already, have ended.
func (f *flight) abort(limit time.Duration) {
	f.mu.Lock()
	if !f.aborted {
		f.aborted = true
		if f.inFlight == 0 {
			close(f.idle)
		}
	}
	f.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-f.idle:
	case <-timer.C:
	}
}

func (f *flight) state() (session string, unsure bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.session, f.unsure || f.pending > 0
}

// stuckFor is how long no new byte was confirmed.
func (f *flight) stuckFor() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.moved)
}

var errGivenUp = errors.New("the upload was given up")

// begin admits a request.
func (f *flight) begin(k kind) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.aborted {
		return errGivenUp
	}
	f.inFlight++
	if k.completes() {
		f.pending++
	}
	return nil
}

func (f *flight) end(k kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inFlight--
	if k.completes() {
		f.pending--
	}
	if f.aborted && f.inFlight == 0 {
		close(f.idle)
	}
}

// doubt notes what one completing request leaves behind. A refusal settles
// only itself: an earlier attempt whose answer was lost may have succeeded, and
// be the very reason of the refusal.
func (f *flight) doubt(unsure bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unsure = unsure
}

// kind is what a request of a Put does.
type kind int

const (
	kindOther  kind = iota
	kindSingle      // the whole object
	kindStart       // opens a session
	kindChunk       // carries content, more will come
	kindFinal       // carries the rest
)

func (k kind) completes() bool { return k == kindSingle || k == kindFinal }

// classify reads a request; last is the object's size as far as this request
// and those before it carry it.
func (f *flight) classify(req *http.Request) (k kind, last int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != "" && req.URL.String() == f.session {
		return parseContentRange(req.Header.Get("Content-Range"))
	}
	switch req.URL.Query().Get("uploadType") {
	case "multipart":
		return kindSingle, f.read
	case "resumable":
		return kindStart, 0
	}
	return kindOther, 0
}

// parseContentRange reads what the client sends: "bytes a-b/*", "bytes a-b/n"
// or "bytes */n".
func parseContentRange(value string) (kind, int64) {
	span, total, _ := strings.Cut(strings.TrimPrefix(value, "bytes "), "/")
	if n, err := strconv.ParseInt(total, 10, 64); err == nil {
		return kindFinal, n
	}
	_, end, _ := strings.Cut(span, "-")
	n, err := strconv.ParseInt(end, 10, 64)
	if err != nil {
		return kindOther, 0
	}
	return kindChunk, n + 1
}

// clockKey is the context's key for where to note how far the clocks differ.
type clockKey struct{}

// watcher is the transport below the client. Requests that belong to no Put
// pass unchanged.
type watcher struct {
	inner http.RoundTripper
	log   *slog.Logger
}

// CloseIdleConnections is what http.Client looks for.
func (w *watcher) CloseIdleConnections() {}

// RoundTrip follows one request of a Put.
func (w *watcher) RoundTrip(req *http.Request) (*http.Response, error) {
	f, _ := req.Context().Value(flightKey{}).(*flight)
	if f == nil {
		res, err := w.inner.RoundTrip(req)
		if seen, ok := req.Context().Value(clockKey{}).(*time.Duration); ok && err == nil {
			*seen = storage.ClockSkew(res.Header, time.Now())
		}
		return res, err
	}
	k, last := f.classify(req)
	if err := f.begin(k); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	defer f.end(k)
	trip := w.inner.RoundTrip
	if k == kindStart || k == kindSingle {
		trip = w.linger
	}
	res, err := trip(f.depart(req, k, last))
	res, err = f.arrive(res, err, k, last)
	if err != nil || res.StatusCode >= 400 {
		status := 0
		if res != nil {
			status = res.StatusCode
		}
		w.log.Debug("upload request failed", "offset", last, "status", status, "error", describeNil(err))
	}
	return res, err
}

// linger waits a little longer for an answer than the caller does. A session
// whose URL is lost cannot be cancelled; and a single request that was cut off
// may still create its object after we have looked for it in vain.
func (w *watcher) linger(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(req.Context()))
	stop := context.AfterFunc(req.Context(), func() { time.AfterFunc(lingerTime, cancel) })
	res, err := w.inner.RoundTrip(req.WithContext(ctx))
	stop()
	if err != nil {
		cancel()
		return nil, err
	}
	res.Body = &watchedBody{ReadCloser: res.Body, closed: cancel}
	return res, nil
}

func describeNil(err error) string {
	if err == nil {
		return ""
	}
	return describe(err)
}

// depart notes what a request carries.
func (f *flight) depart(req *http.Request, k kind, last int64) *http.Request {
	f.change(func(p *storage.Progress) {
		p.Opening = k == kindStart
		p.Sent = max(p.Sent, last)
	})
	if !k.completes() {
		return req
	}
	completing := func() { f.change(func(p *storage.Progress) { p.Completing = true }) }
	if req.Body == nil || req.Body == http.NoBody {
		completing()
		return req
	}
	// The request completes the object when its content is out.
	sent := *req
	sent.Body = &watchedBody{ReadCloser: req.Body, atEOF: completing}
	return &sent
}

// arrive notes what the store answered.
func (f *flight) arrive(res *http.Response, err error, k kind, last int64) (*http.Response, error) {
	defer f.change(func(p *storage.Progress) { p.Opening = false })
	if err != nil || retried(res.StatusCode) {
		if k.completes() && !isUnsent(err) && (err != nil || res.StatusCode != http.StatusTooManyRequests) {
			f.doubt(true)
		}
		f.change(func(p *storage.Progress) { p.Completing = false })
		return res, err
	}
	incomplete := res.Header.Get("X-Http-Status-Code-Override") == "308"
	switch {
	case k == kindStart && res.StatusCode == http.StatusOK:
		f.mu.Lock()
		f.session = res.Header.Get("Location")
		f.moved = time.Now()
		f.mu.Unlock()
	case incomplete:
		return f.persisted(res, k, last)
	case k.completes() && res.StatusCode < 300:
		f.doubt(true) // until the client has read the answer
		f.change(func(p *storage.Progress) { p.Acknowledged = last })
	}
	return res, nil
}

// isUnsent reports that no connection came about, so that nothing was sent.
func isUnsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// retried are the answers after which the client tries again.
func retried(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
}

// persisted compares what the store kept with what was sent, and turns a
// partial success into an answer that makes the client send the chunk again;
// the store ignores what it has.
// https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
func (f *flight) persisted(res *http.Response, k kind, last int64) (*http.Response, error) {
	have := int64(0)
	if _, end, ok := strings.Cut(res.Header.Get("Range"), "-"); ok {
		n, err := strconv.ParseInt(end, 10, 64)
		if err != nil {
			n = -1
		}
		have = n + 1
	}
	f.change(func(p *storage.Progress) {
		p.Acknowledged = max(p.Acknowledged, min(have, last))
		p.Completing = false
	})
	if k.completes() {
		f.doubt(false) // the session says that it is not complete
	}
	if have == last && !k.completes() {
		return res, nil
	}
	status, text := http.StatusServiceUnavailable, "only %d of %d bytes were kept"
	if have >= last {
		status, text = http.StatusConflict, "the store counts %d bytes, %d were sent"
	}
	res.Body.Close()
	answer := *res
	answer.StatusCode, answer.Status = status, strconv.Itoa(status)+" "+http.StatusText(status)
	answer.Header = http.Header{"Content-Type": {"text/plain"}}
	answer.Body = io.NopCloser(strings.NewReader(fmt.Sprintf(text, have, last)))
	answer.ContentLength = -1
	return &answer, nil
}

// watchedBody tells when all of a body was read, and when it was closed.
type watchedBody struct {
	io.ReadCloser
	atEOF  func() // may be nil
	closed func() // may be nil
}

func (b *watchedBody) Close() error {
	if b.closed != nil {
		defer b.closed()
	}
	return b.ReadCloser.Close()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && b.atEOF != nil {
		b.atEOF()
		b.atEOF = nil
	}
	return n, err
}
