package gcsserver

import (
	"io"
	"net/http"
	"slices"
	"sync/atomic"
)

// Fault is something that goes wrong with requests that match. Without any
// effect it only counts them.
type Fault struct {
	Op    Op                       // "" is any
	Match func(*http.Request) bool // nil is any
	Skip  int                      // let so many matching requests pass first
	Times int                      // how many are hit: 0 is one, less than 0 all

	// Status answers without doing anything, with Header and Body.
	Status int
	Header http.Header
	Body   string

	// CutRequest, when > 0, ends the connection after so many bytes of the
	// request's content; what had arrived of a chunk is handled as such.
	CutRequest int64
	// CutResponse, when > 0, ends the connection after so many bytes of the
	// response's content.
	CutResponse int64
	// DropReply does what was asked and ends the connection without a reply.
	DropReply bool
	// Persist, when not nil, keeps only so many bytes of a chunk, or of the
	// final request, and answers 308 as if all was well.
	Persist *int64
	// Damage changes the first byte of the request's content on its way in;
	// DamageReply that of the response's content on its way out.
	Damage      bool
	DamageReply bool
	// Before runs before anything else, for instance to change an object in
	// between; it may call the server.
	Before func()
	// Hang gives no answer until the client leaves or the server is closed. The
	// request's content is read when HangAfterBody is set.
	Hang          bool
	HangAfterBody bool
	// HangAfter does what was asked and then gives no answer.
	HangAfter bool
	// After runs when DropReply or HangAfter has done what was asked.
	After func()
}

// Injected is a fault in place.
type Injected struct {
	fault Fault
	seen  int // guarded by Server.mu
	hits  atomic.Int64
	hit   chan struct{} // closed at the first hit
}

// Hits tells how often it struck.
func (i *Injected) Hits() int { return int(i.hits.Load()) }

// Hit is closed when the fault strikes for the first time.
func (i *Injected) Hit() <-chan struct{} { return i.hit }

// Inject puts a fault in place. Of several that match, the first that has hits
// left strikes.
func (s *Server) Inject(f Fault) *Injected {
	i := &Injected{fault: f, hit: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, i)
	return i
}

// ClearFaults takes all faults away.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// takeFault is called with s.mu held.
func (s *Server) takeFault(op Op, r *http.Request) *Injected {
	for _, i := range s.faults {
		f := &i.fault
		if f.Op != "" && f.Op != op || f.Match != nil && !f.Match(r) {
			continue
		}
		i.seen++
		if i.seen <= f.Skip || f.Times >= 0 && i.seen > f.Skip+max(f.Times, 1) {
			continue
		}
		if i.hits.Add(1) == 1 {
			close(i.hit)
		}
		return i
	}
	return nil
}

func (s *Server) serveFault(w *statusWriter, r *http.Request, rt route, i *Injected) {
	f := i.fault
	if f.Before != nil {
		f.Before()
	}
	switch {
	case f.Hang:
		if f.HangAfterBody {
			drain(r.Body)
		}
		s.hang(r)
	case f.Status != 0:
		drain(r.Body)
		for name, values := range f.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
	case f.CutRequest > 0:
		r.Body = io.NopCloser(io.LimitReader(r.Body, f.CutRequest))
		s.dispatch(&discardWriter{header: http.Header{}}, r, rt)
		panic(http.ErrAbortHandler)
	case f.DropReply:
		s.dispatch(&discardWriter{header: http.Header{}}, r, rt)
		f.done()
		panic(http.ErrAbortHandler)
	case f.CutResponse > 0:
		cut := &cutWriter{ResponseWriter: w, left: f.CutResponse}
		s.dispatch(cut, r, rt)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case f.HangAfter:
		s.dispatch(&discardWriter{header: http.Header{}}, r, rt)
		f.done()
		s.hang(r)
	case f.Damage:
		r.Body = struct {
			io.Reader
			io.Closer
		}{&damagedReader{r: r.Body}, r.Body}
		s.dispatch(w, r, rt)
	case f.DamageReply:
		s.dispatch(&damagingWriter{ResponseWriter: w}, r, rt)
	case f.Persist != nil:
		s.persistPart(w, r, rt, *f.Persist)
	default:
		s.dispatch(w, r, rt)
	}
}

func (f *Fault) done() {
	if f.After != nil {
		f.After()
	}
}

func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.done:
	}
	panic(http.ErrAbortHandler)
}

// persistPart is a chunk that "succeeds" with fewer bytes than were sent, which
// clients must be ready for: they go on behind the Range of the answer.
// https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
func (s *Server) persistPart(w http.ResponseWriter, r *http.Request, rt route, n int64) {
	data, _ := io.ReadAll(r.Body)
	u, aerr := s.session(rt)
	cr, err := s.requestRange(r)
	if aerr != nil || err != nil || cr.query {
		writeError(w, false, badRequest("not a chunk"))
		return
	}
	u.busy.Lock()
	defer u.busy.Unlock()
	have := u.content.size()
	if cr.first <= have {
		if aerr := s.appendNew(u, data, have-cr.first, min(n, cr.last+1-have)); aerr != nil {
			writeError(w, false, aerr)
			return
		}
	}
	resumeIncomplete(w, r, u.content.size())
}

// discardWriter is a reply that never arrives.
type discardWriter struct{ header http.Header }

func (d *discardWriter) Header() http.Header         { return d.header }
func (d *discardWriter) WriteHeader(int)             {}
func (d *discardWriter) Write(p []byte) (int, error) { return len(p), nil }

// cutWriter lets so many bytes of content through.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n := min(c.left, int64(len(p)))
	c.left -= n
	if n > 0 {
		if _, err := c.ResponseWriter.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// damagedReader changes the first byte.
type damagedReader struct {
	r    io.Reader
	done bool
}

func (d *damagedReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if n > 0 && !d.done {
		p[0] ^= 1
		d.done = true
	}
	return n, err
}

// damagingWriter changes the first byte.
type damagingWriter struct {
	http.ResponseWriter
	done bool
}

func (d *damagingWriter) Write(p []byte) (int, error) {
	if len(p) > 0 && !d.done {
		p = slices.Clone(p) // it may be the object's own
		p[0] ^= 1
		d.done = true
	}
	return d.ResponseWriter.Write(p)
}
