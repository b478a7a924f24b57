// Package gcsserver is a strict Google Cloud Storage server for tests. It is
// written from the documented JSON and XML protocol, never from what one
// client happens to send: each behaviour names the page it was taken from, and
// the raw HTTP transcripts in its own tests hold it to those pages, so that a
// driver and this server do not share one misreading.
//
// It refuses what Cloud Storage refuses: chunks with a gap or of an odd size,
// wrong checksums, failed preconditions, deletes under retention or hold. What
// it does not know it answers with 501. Tests script its faults with Inject.
//
// Pages, all below https://cloud.google.com/storage/docs/: json_api/v1,
// performing-resumable-uploads, resumable-uploads, uploading-objects,
// request-preconditions, object-lock, bucket-lock, object-holds,
// object-versioning, json_api/v1/status-codes, xml-api/reference-headers.
package gcsserver

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options set up a Server. The zero value keeps all content in memory and asks
// nobody for credentials.
type Options struct {
	// SpillDir, when set, receives the content of objects as files.
	SpillDir string
	// Tokens maps bearer tokens to what their holders may do. When it is set,
	// a request without a known token is 401.
	Tokens map[string]Permissions
	// KMSKeys are the Cloud KMS keys that the project's service agent may use,
	// by resource name, with the number of their primary version.
	KMSKeys map[string]int
	// Now is the server's clock, time.Now when nil.
	Now func() time.Time
}

// Permissions are IAM permission names such as "storage.objects.create"; "*"
// grants everything.
// https://cloud.google.com/storage/docs/access-control/iam-permissions
type Permissions []string

// Server is an http.Handler that keeps buckets and objects.
type Server struct {
	// URL is where Start or Listen made it reachable.
	URL string

	opts Options
	http *httptest.Server
	done chan struct{} // closed by Close: lets go of hanging requests

	mu       sync.Mutex
	advanced time.Duration
	lastGen  int64
	lastID   int64
	buckets  map[string]*bucket
	sessions map[string]*session
	faults   []*Injected
	requests []Request
}

// Request is one request that the server saw.
type Request struct {
	Op     Op
	Method string
	URL    string // path and query as sent
	Header http.Header
	Status int // 0 when the connection was cut
}

// New makes a server that is not reachable yet: it is an http.Handler.
func New(opts Options) *Server {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Server{
		opts: opts, done: make(chan struct{}),
		buckets: map[string]*bucket{}, sessions: map[string]*session{},
	}
}

// Start makes a server on a free loopback port, closed when the test ends.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s := New(opts)
	s.http = httptest.NewServer(s)
	s.URL = s.http.URL
	t.Cleanup(s.Close)
	return s
}

// Close ends a started server and lets go of requests that hang.
func (s *Server) Close() {
	s.mu.Lock()
	select {
	case <-s.done:
		s.mu.Unlock()
		return
	default:
		close(s.done)
	}
	s.mu.Unlock()
	if s.http != nil {
		s.http.CloseClientConnections()
		s.http.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.buckets {
		for _, o := range b.all() {
			o.content.discard()
		}
	}
	for _, u := range s.sessions {
		if u.result == nil {
			u.content.discard()
		}
	}
}

// Advance moves the server's clock forward.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanced += d
}

// now is called with s.mu held.
func (s *Server) now() time.Time { return s.opts.Now().Add(s.advanced).UTC() }

// Requests returns what was asked so far, faults included.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Count tells how many requests of one kind came.
func (s *Server) Count(op Op) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Op == op {
			n++
		}
	}
	return n
}

// OpenSession is a resumable upload that was neither completed nor cancelled.
type OpenSession struct {
	Bucket, Name string
	Persisted    int64
}

// OpenSessions lists the unfinished resumable uploads, which no API shows.
func (s *Server) OpenSessions() []OpenSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []OpenSession
	for _, id := range slices.Sorted(maps.Keys(s.sessions)) {
		if u := s.sessions[id]; u.state == sessionOpen {
			open = append(open, OpenSession{Bucket: u.bucket, Name: u.meta.Name, Persisted: u.content.size()})
		}
	}
	return open
}

// Op names the kind of a request.
type Op string

// The kinds of requests, as far as tests tell them apart.
const (
	OpBucket    Op = "bucket"    // anything on buckets
	OpInsert    Op = "insert"    // single-request upload
	OpStart     Op = "start"     // start of a resumable session
	OpChunk     Op = "chunk"     // chunk that is not the last
	OpFinal     Op = "final"     // request that can complete a session
	OpQuery     Op = "query"     // status query "bytes */*"
	OpCancel    Op = "cancel"    // DELETE of a session
	OpGet       Op = "get"       // metadata
	OpMedia     Op = "media"     // content
	OpList      Op = "list"      // objects of a bucket
	OpPatch     Op = "patch"     // patch or update of an object
	OpDelete    Op = "delete"    // delete of an object
	OpRewrite   Op = "rewrite"   // rewrite or copy
	OpUndefined Op = "undefined" // not known here
)

// route is a request taken apart.
type route struct {
	op     Op
	xml    bool
	bucket string
	object string
	action string // what follows the resource: "lockRetentionPolicy", ...
	query  url.Values
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt := parseRoute(r)
	rec := &statusWriter{ResponseWriter: w}
	s.mu.Lock()
	at := len(s.requests)
	s.requests = append(s.requests, Request{Op: rt.op, Method: r.Method, URL: r.URL.RequestURI(), Header: r.Header.Clone()})
	fault := s.takeFault(rt.op, r)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.requests[at].Status = rec.status
		s.mu.Unlock()
	}()
	if fault != nil {
		s.serveFault(rec, r, rt, fault)
		return
	}
	s.dispatch(rec, r, rt)
}

// parseRoute reads the URL. Object names are one percent-encoded segment in
// the JSON API: https://cloud.google.com/storage/docs/request-endpoints#encoding
func parseRoute(r *http.Request) route {
	rt := route{op: OpUndefined, query: r.URL.Query()}
	path := r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(path, "/upload/storage/v1/b/"):
		seg := segments(strings.TrimPrefix(path, "/upload/storage/v1/b/"))
		if len(seg) == 2 && seg[1] == "o" {
			rt.bucket = seg[0]
			rt.op = uploadOp(r, rt.query)
		}
	case strings.HasPrefix(path, "/storage/v1/b"):
		parseJSONRoute(r, &rt, strings.TrimPrefix(path, "/storage/v1/b"))
	case strings.HasPrefix(path, "/download/storage/v1/b"):
		parseJSONRoute(r, &rt, strings.TrimPrefix(path, "/download/storage/v1/b"))
	default:
		// https://cloud.google.com/storage/docs/xml-api/get-object-download
		b, o, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		b, berr := url.PathUnescape(b)
		o, oerr := url.PathUnescape(o)
		rt.xml = true
		if ok && b != "" && o != "" && berr == nil && oerr == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			rt.op, rt.bucket, rt.object = OpMedia, b, o
		}
	}
	return rt
}

func parseJSONRoute(r *http.Request, rt *route, rest string) {
	seg := segments(strings.TrimPrefix(rest, "/"))
	if len(seg) > 0 {
		rt.bucket = seg[0]
	}
	switch {
	case len(seg) <= 1:
		rt.op = OpBucket
	case seg[1] != "o":
		rt.op, rt.action = OpBucket, strings.Join(seg[1:], "/")
	case len(seg) == 2:
		rt.op = OpList
	case len(seg) == 3:
		rt.object = seg[2]
		rt.op = map[string]Op{
			http.MethodGet: OpGet, http.MethodPatch: OpPatch, http.MethodPut: OpPatch, http.MethodDelete: OpDelete,
		}[r.Method]
		if rt.op == OpGet && rt.query.Get("alt") == "media" {
			rt.op = OpMedia
		}
		if rt.op == "" {
			rt.op = OpUndefined
		}
	case len(seg) == 8 && (seg[3] == "rewriteTo" || seg[3] == "copyTo") && seg[4] == "b" && seg[6] == "o":
		rt.op, rt.object, rt.action = OpRewrite, seg[2], strings.Join([]string{seg[3], seg[5], seg[7]}, "\x00")
	}
}

func segments(path string) []string {
	if path == "" {
		return nil
	}
	var out []string
	for s := range strings.SplitSeq(path, "/") {
		s, err := url.PathUnescape(s)
		if err != nil {
			return []string{"", "", "", "", ""}
		}
		out = append(out, s)
	}
	return out
}

// uploadOp tells the requests below /upload apart.
// https://cloud.google.com/storage/docs/performing-resumable-uploads
func uploadOp(r *http.Request, q url.Values) Op {
	switch {
	case q.Get("upload_id") != "" && r.Method == http.MethodDelete:
		return OpCancel
	case q.Get("upload_id") != "":
		cr, err := parseContentRange(r.Header.Get("Content-Range"))
		switch {
		case err == nil && cr.query && cr.total < 0:
			return OpQuery
		case err == nil && !cr.query && (cr.total < 0 || cr.last+1 < cr.total):
			return OpChunk
		}
		return OpFinal
	case q.Get("uploadType") == "resumable":
		return OpStart
	}
	return OpInsert
}

func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, rt route) {
	// The session URI is its own credential, so it is asked for none:
	// https://cloud.google.com/storage/docs/resumable-uploads#session-uris
	var who Permissions
	switch rt.op {
	case OpChunk, OpFinal, OpQuery, OpCancel:
	default:
		var err *apiError
		if who, err = s.authenticate(r); err != nil {
			writeError(w, rt.xml, err)
			return
		}
	}
	handle := map[Op]func(http.ResponseWriter, *http.Request, route, Permissions) *apiError{
		OpBucket: s.serveBucket, OpInsert: s.serveInsert, OpStart: s.serveStart,
		OpChunk: s.serveChunk, OpFinal: s.serveChunk, OpQuery: s.serveChunk, OpCancel: s.serveCancel,
		OpGet: s.serveGet, OpMedia: s.serveMedia, OpList: s.serveList, OpPatch: s.servePatch,
		OpDelete: s.serveDelete, OpRewrite: s.serveRewrite,
	}[rt.op]
	if handle == nil {
		writeError(w, rt.xml, &apiError{code: http.StatusNotImplemented, reason: "notImplemented", message: "not implemented here: " + r.Method + " " + r.URL.Path})
		return
	}
	if err := handle(w, r, rt, who); err != nil {
		writeError(w, rt.xml, err)
	}
}

// authenticate checks the bearer token: 401 for none or a wrong one.
// https://cloud.google.com/storage/docs/json_api/v1/status-codes#401-unauthorized
func (s *Server) authenticate(r *http.Request) (Permissions, *apiError) {
	if s.opts.Tokens == nil {
		return Permissions{"*"}, nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, &apiError{code: http.StatusUnauthorized, reason: "required", message: "Anonymous caller does not have storage access to the resource."}
	}
	p, ok := s.opts.Tokens[token]
	if !ok {
		return nil, &apiError{code: http.StatusUnauthorized, reason: "authError", message: "Invalid Credentials"}
	}
	return p, nil
}

// allows is 403 where the permission is missing.
// https://cloud.google.com/storage/docs/json_api/v1/status-codes#403-forbidden
func (p Permissions) allows(permission string) *apiError {
	if slices.Contains(p, "*") || slices.Contains(p, permission) {
		return nil
	}
	return &apiError{
		code: http.StatusForbidden, reason: "forbidden", xmlCode: "AccessDenied",
		message: "caller does not have " + permission + " access to the Google Cloud Storage resource. Permission '" + permission + "' denied on resource (or it may not exist).",
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
