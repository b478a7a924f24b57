package gcsserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// chunkUnit: every chunk but the last is a multiple of it, and an interrupted
// one is persisted up to a multiple of it.
// https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
const chunkUnit = 256 << 10

// sessionLife: https://cloud.google.com/storage/docs/resumable-uploads#session-uris
const sessionLife = 7 * 24 * time.Hour

type sessionState int

const (
	sessionOpen sessionState = iota
	sessionDone
	sessionGone // cancelled, or ended by an error
)

// session is one resumable upload. busy serialises its requests; the other
// fields are guarded by Server.mu.
type session struct {
	busy    sync.Mutex
	state   sessionState
	bucket  string
	meta    metadata
	pre     preconditions
	who     Permissions
	content *content
	total   int64 // X-Upload-Content-Length, -1 when not given
	started time.Time
	result  *object
}

// serveStart opens a session: the metadata and the conditions come now, the
// content later.
// https://cloud.google.com/storage/docs/performing-resumable-uploads#initiate-session
func (s *Server) serveStart(w http.ResponseWriter, r *http.Request, rt route, who Permissions) *apiError {
	if r.Method != http.MethodPost {
		return &apiError{code: http.StatusMethodNotAllowed, reason: "methodNotAllowed", message: "Method not allowed"}
	}
	u := &session{bucket: rt.bucket, who: who, total: -1}
	body, rerr := io.ReadAll(r.Body)
	if rerr != nil {
		return badRequest("The request body was cut: %v", rerr)
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &u.meta); err != nil {
			return badRequest("Parse Error: %v", err)
		}
	}
	if err := fromQuery(&u.meta, rt); err != nil {
		return err
	}
	if u.meta.ContentType == "" {
		u.meta.ContentType = r.Header.Get("X-Upload-Content-Type")
	}
	if length := r.Header.Get("X-Upload-Content-Length"); length != "" {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			return badRequest("Invalid X-Upload-Content-Length %q", length)
		}
		u.total = n
	}
	var err *apiError
	if u.pre, err = parsePreconditions(rt.query.Get); err != nil {
		return err
	}
	c, cerr := newContent(s.opts.SpillDir)
	if cerr != nil {
		return &apiError{code: http.StatusInternalServerError, reason: "internalError", message: cerr.Error()}
	}
	u.content = c
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.creating(rt, &u.meta, u.pre, who); err != nil {
		c.discard()
		return err
	}
	s.lastID++
	id := fmt.Sprintf("session-%d", s.lastID)
	u.started = s.now()
	s.sessions[id] = u
	q := url.Values{"uploadType": {"resumable"}, "name": {u.meta.Name}, "upload_id": {id}}
	w.Header().Set("Location", "http://"+r.Host+"/upload/storage/v1/b/"+url.PathEscape(rt.bucket)+"/o?"+q.Encode())
	w.Header().Set("X-GUploader-UploadID", id)
	w.WriteHeader(http.StatusOK)
	return nil
}

// session finds the upload of a request. A session that ended without an
// object is 410 for a week and 404 later, like one that never was.
// https://cloud.google.com/storage/docs/resumable-uploads#session-uris
// https://cloud.google.com/storage/docs/json_api/v1/status-codes#410-gone
func (s *Server) session(rt route) (*session, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.sessions[rt.query.Get("upload_id")]
	if u == nil || u.bucket != rt.bucket || s.now().Sub(u.started) > sessionLife {
		return nil, &apiError{code: http.StatusNotFound, plain: true, message: "No such upload session"}
	}
	if u.state == sessionGone {
		return nil, &apiError{code: http.StatusGone, plain: true, message: "The upload session has ended"}
	}
	return u, nil
}

// serveCancel: "If successful, the response contains a 499 status code."
// https://cloud.google.com/storage/docs/performing-resumable-uploads#cancel-upload
func (s *Server) serveCancel(w http.ResponseWriter, _ *http.Request, rt route, _ Permissions) *apiError {
	u, err := s.session(rt)
	if err != nil {
		return err
	}
	u.busy.Lock()
	defer u.busy.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.state != sessionOpen {
		return &apiError{code: http.StatusGone, plain: true, message: "The upload session has ended"}
	}
	u.state = sessionGone
	u.content.discard()
	w.WriteHeader(499)
	return nil
}

// contentRange is a Content-Range of an upload; total is -1 for "*".
type contentRange struct {
	query       bool // "bytes */..."
	first, last int64
	total       int64
}

var contentRangeSyntax = regexp.MustCompile(`^bytes (?:\*|(\d+)-(\d+))/(\*|\d+)$`)

func parseContentRange(value string) (contentRange, error) {
	m := contentRangeSyntax.FindStringSubmatch(value)
	if m == nil {
		return contentRange{}, fmt.Errorf("invalid Content-Range %q", value)
	}
	cr := contentRange{query: m[1] == "", total: -1}
	var err error
	number := func(text string) int64 {
		n, perr := strconv.ParseInt(text, 10, 64)
		if perr != nil {
			err = fmt.Errorf("invalid Content-Range %q", value)
		}
		return n
	}
	if !cr.query {
		cr.first, cr.last = number(m[1]), number(m[2])
	}
	if m[3] != "*" {
		cr.total = number(m[3])
	}
	if err == nil && !cr.query && (cr.last < cr.first || cr.total >= 0 && cr.last >= cr.total) {
		err = fmt.Errorf("invalid Content-Range %q", value)
	}
	return cr, err
}

// serveChunk takes content, answers status queries and completes the upload.
// https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
// https://cloud.google.com/storage/docs/performing-resumable-uploads#status-check
func (s *Server) serveChunk(w http.ResponseWriter, r *http.Request, rt route, _ Permissions) *apiError {
	if r.Method != http.MethodPut && r.Method != http.MethodPost {
		return &apiError{code: http.StatusMethodNotAllowed, reason: "methodNotAllowed", message: "Method not allowed"}
	}
	u, aerr := s.session(rt)
	if aerr != nil {
		drain(r.Body)
		return aerr
	}
	cr, err := s.requestRange(r)
	if err != nil {
		drain(r.Body)
		return badRequest("%v", err)
	}
	u.busy.Lock()
	defer u.busy.Unlock()
	if u.result != nil {
		// "200 OK or 201 Created: the upload was completed, no further action
		// is necessary"; content that is sent again is ignored.
		drain(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.answerDone(w, u)
	}
	if !cr.query {
		if err := s.takeChunk(r, u, cr); err != nil {
			drain(r.Body)
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.state != sessionOpen {
		return &apiError{code: http.StatusGone, plain: true, message: "The upload session has ended"}
	}
	// "bytes */N" with all N bytes persisted completes the upload; with fewer
	// or more it is a status query.
	if cr.total >= 0 && u.content.size() == cr.total {
		return s.finish(w, r, u)
	}
	resumeIncomplete(w, r, u.content.size())
	return nil
}

// requestRange reads the Content-Range; without one the request carries the
// whole object: https://cloud.google.com/storage/docs/performing-resumable-uploads#single-chunk-upload
func (s *Server) requestRange(r *http.Request) (contentRange, error) {
	value := r.Header.Get("Content-Range")
	if value != "" {
		return parseContentRange(value)
	}
	if r.ContentLength < 0 {
		return contentRange{}, fmt.Errorf("content of unknown length needs a Content-Range")
	}
	return contentRange{query: r.ContentLength == 0, last: r.ContentLength - 1, total: r.ContentLength}, nil
}

// takeChunk appends what is new in a chunk.
func (s *Server) takeChunk(r *http.Request, u *session, cr contentRange) *apiError {
	have := u.content.size()
	length := cr.last - cr.first + 1
	switch {
	case cr.first > have:
		// Seen from production: a 503 with this text.
		return &apiError{code: http.StatusServiceUnavailable, plain: true, message: fmt.Sprintf(
			"Invalid request. According to the Content-Range header, the upload offset is %d byte(s), which exceeds already uploaded size of %d byte(s).", cr.first, have)}
	case r.ContentLength >= 0 && r.ContentLength != length:
		return badRequest("Content-Length %d does not match the Content-Range, which has %d bytes", r.ContentLength, length)
	case (cr.total < 0 || cr.last+1 < cr.total) && length%chunkUnit != 0:
		return badRequest("A chunk of %d bytes: all but the last must be a multiple of 256 KiB", length)
	case u.total >= 0 && (cr.last >= u.total || cr.total >= 0 && cr.total != u.total):
		return badRequest("X-Upload-Content-Length announced %d bytes", u.total)
	}
	data, rerr := io.ReadAll(io.LimitReader(r.Body, length))
	if int64(len(data)) < length {
		// An interrupted chunk stays as far as it is aligned.
		keep := max(0, cr.first+int64(len(data))-have)
		keep -= (have + keep) % chunkUnit
		s.appendNew(u, data, have-cr.first, max(0, keep))
		return badRequest("The request body was cut: %v", rerr)
	}
	// "Cloud Storage ignores any bytes you send at an offset that Cloud
	// Storage has already persisted."
	// https://cloud.google.com/storage/docs/performing-resumable-uploads#resume-upload
	if fresh := cr.last + 1 - have; fresh > 0 {
		return s.appendNew(u, data, have-cr.first, fresh)
	}
	return nil
}

// appendNew persists n bytes of data behind the first skip.
func (s *Server) appendNew(u *session, data []byte, skip, n int64) *apiError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= 0 || u.state != sessionOpen {
		return nil
	}
	if err := u.content.append(data[skip : skip+n]); err != nil {
		return &apiError{code: http.StatusInternalServerError, reason: "internalError", message: err.Error()}
	}
	return nil
}

// finish completes the upload: checksums and conditions are judged now. What
// is refused leaves neither an object nor a session.
func (s *Server) finish(w http.ResponseWriter, r *http.Request, u *session) *apiError {
	b := s.buckets[u.bucket]
	if b == nil {
		return noBucket()
	}
	o, err := s.commit(b, u.meta, u.content, r.Header, u.pre, u.who)
	if err != nil {
		u.state = sessionGone
		u.content.discard()
		return err
	}
	u.state, u.result = sessionDone, o
	return s.answerDone(w, u)
}

func (s *Server) answerDone(w http.ResponseWriter, u *session) *apiError {
	b := s.buckets[u.bucket]
	if b == nil {
		return noBucket()
	}
	writeJSON(w, u.result.resource(b))
	return nil
}

// resumeIncomplete is 308 with the persisted range, and without a Range header
// when nothing is persisted.
// https://cloud.google.com/storage/docs/performing-resumable-uploads#status-check
//
// Clients that take 308 for a redirect ask with X-GUploader-No-308 for 200 and
// a header that says so; no page documents it, googleapis/storage-testbench
// does the same.
func resumeIncomplete(w http.ResponseWriter, r *http.Request, persisted int64) {
	if persisted > 0 {
		w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", persisted-1))
	}
	w.Header().Set("Content-Length", "0")
	if r.Header.Get("X-GUploader-No-308") == "yes" {
		w.Header().Set("X-Http-Status-Code-Override", "308")
		w.WriteHeader(http.StatusOK)
		return
	}
	w.WriteHeader(http.StatusPermanentRedirect)
}
