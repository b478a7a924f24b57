package s3

import (
	"crypto/md5"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/minio/crc64nvme"
)

// stub is an S3 server of one bucket that a test can make misbehave: what no
// local server shows. It keeps the parts' sums, not their bytes, unless keep.
type stub struct {
	*httptest.Server
	t testing.TB
	// script, when set, sees every request first, with the operation's name and
	// how often that came before; it returns true when it has answered.
	script func(w http.ResponseWriter, r *http.Request, op string, n int) bool
	keep   bool

	mu      sync.Mutex
	count   map[string]int
	uploads map[string]*stubUpload
	objects map[string]*stubObject
}

type stubUpload struct {
	key    string
	header http.Header
	parts  map[int]stubPart
}

type stubPart struct {
	size int64
	crc  uint64
	md5  [16]byte
	data []byte
}

type stubObject struct {
	header http.Header // of the creating request
	size   int64
	crc    string
	etag   string
	data   []byte
}

func newStub(t testing.TB) *stub {
	s := &stub{t: t, count: map[string]int{}, uploads: map[string]*stubUpload{}, objects: map[string]*stubObject{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// config is a bucket of the stub with tiny parts and short pauses.
func (s *stub) config() Config {
	return Config{
		Bucket: "stub", Region: "us-east-1", Endpoint: s.URL, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("AKIASTUB", "secret", ""),
		PartSize:    1000, MinPart: 500, MemoryBudget: 8000, SinglePut: 4000,
		MaxBackoff: 5 * time.Millisecond,
	}
}

// operation names a request the way S3 does.
func operation(r *http.Request) string {
	q := r.URL.Query()
	object := strings.Count(strings.Trim(r.URL.Path, "/"), "/") > 0
	switch {
	case q.Has("versioning"):
		return "GetBucketVersioning"
	case q.Has("object-lock"):
		return "GetObjectLockConfiguration"
	case q.Has("lifecycle"):
		return map[string]string{"GET": "GetBucketLifecycle", "PUT": "PutBucketLifecycle", "DELETE": "DeleteBucketLifecycle"}[r.Method]
	case q.Has("uploads") && r.Method == http.MethodPost:
		return "CreateMultipartUpload"
	case q.Has("uploads"):
		return "ListMultipartUploads"
	case q.Has("delete"):
		return "DeleteObjects"
	case q.Has("restore"):
		return "RestoreObject"
	case q.Has("tagging"):
		return "GetObjectTagging"
	case q.Has("retention"):
		return map[string]string{"GET": "GetObjectRetention", "PUT": "PutObjectRetention"}[r.Method]
	case q.Has("legal-hold"):
		return map[string]string{"GET": "GetObjectLegalHold", "PUT": "PutObjectLegalHold"}[r.Method]
	case q.Has("uploadId"):
		return map[string]string{"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload", "GET": "ListParts"}[r.Method]
	case object:
		return map[string]string{"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}[r.Method]
	}
	return "List"
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op := operation(r)
	s.mu.Lock()
	n := s.count[op]
	s.count[op]++
	s.mu.Unlock()
	if s.script != nil && s.script(w, r, op, n) {
		return
	}
	s.answer(w, r, op)
}

func (s *stub) seen(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[op]
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message><RequestId>R1</RequestId></Error>", code, message)
}

func (s *stub) answer(w http.ResponseWriter, r *http.Request, op string) {
	key := strings.TrimPrefix(r.URL.Path, "/stub/")
	q := r.URL.Query()
	body, err := readBody(r, s.keep)
	if err != nil {
		return // the client went away: nothing arrived
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch op {
	case "GetBucketVersioning":
		io.WriteString(w, "<VersioningConfiguration/>")
	case "GetObjectLockConfiguration":
		fail(w, 404, "ObjectLockConfigurationNotFoundError", "no lock")
	case "CreateMultipartUpload":
		id := "u" + strconv.Itoa(s.count[op])
		s.uploads[id] = &stubUpload{key: key, header: r.Header.Clone(), parts: map[int]stubPart{}}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case "UploadPart":
		s.uploadPart(w, r, body)
	case "CompleteMultipartUpload":
		s.complete(w, r, key, body.data)
	case "AbortMultipartUpload":
		if s.uploads[q.Get("uploadId")] == nil {
			fail(w, 404, "NoSuchUpload", "no such upload")
			return
		}
		delete(s.uploads, q.Get("uploadId"))
		w.WriteHeader(204)
	case "PutObject":
		s.putObject(w, r, key, body)
	case "HeadObject", "GetObject":
		s.get(w, r, key)
	default:
		fail(w, 501, "NotImplemented", op)
	}
}

// readBody sums a body up; small ones and kept ones stay in memory.
func readBody(r *http.Request, keep bool) (stubPart, error) {
	var p stubPart
	crc, sum := crc64nvme.New(), md5.New()
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Body.Read(buf)
		p.size += int64(n)
		crc.Write(buf[:n])
		sum.Write(buf[:n])
		if keep || p.size < 1<<20 && r.Method == http.MethodPost {
			p.data = append(p.data, buf[:n]...)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return p, err
		}
	}
	if r.ContentLength >= 0 && p.size != r.ContentLength {
		return p, io.ErrUnexpectedEOF
	}
	p.crc = crc.Sum64()
	copy(p.md5[:], sum.Sum(nil))
	return p, nil
}

func (s *stub) uploadPart(w http.ResponseWriter, r *http.Request, p stubPart) {
	u := s.uploads[r.URL.Query().Get("uploadId")]
	if u == nil {
		fail(w, 404, "NoSuchUpload", "no such upload")
		return
	}
	if sent := r.Header.Get("X-Amz-Checksum-Crc64nvme"); sent != "" {
		if sent != crcBase64(p.crc) {
			fail(w, 400, "BadDigest", "part checksum")
			return
		}
		w.Header().Set("X-Amz-Checksum-Crc64nvme", sent)
	}
	n, _ := strconv.Atoi(r.URL.Query().Get("partNumber"))
	u.parts[n] = p
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, p.md5))
}

func (s *stub) complete(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	id := r.URL.Query().Get("uploadId")
	u := s.uploads[id]
	switch {
	case u == nil:
		fail(w, 404, "NoSuchUpload", "no such upload")
		return
	case s.objects[key] != nil && r.Header.Get("If-None-Match") == "*":
		fail(w, 412, "PreconditionFailed", "it exists")
		return
	}
	var list struct {
		Part []struct{ PartNumber int }
	}
	if err := xml.Unmarshal(body, &list); err != nil || len(list.Part) != len(u.parts) {
		fail(w, 400, "InvalidPart", "not all parts")
		return
	}
	if !sort.SliceIsSorted(list.Part, func(i, j int) bool { return list.Part[i].PartNumber < list.Part[j].PartNumber }) {
		fail(w, 400, "InvalidPartOrder", "not ascending")
		return
	}
	o := &stubObject{header: u.header}
	var crc crcSum
	sums := md5.New()
	for _, p := range list.Part {
		part := u.parts[p.PartNumber]
		o.size += part.size
		o.data = append(o.data, part.data...)
		crc.add(part.crc, part.size)
		sums.Write(part.md5[:])
	}
	o.crc, o.etag = crcBase64(crc.value), fmt.Sprintf(`"%x-%d"`, sums.Sum(nil), len(list.Part))
	if sent := r.Header.Get("X-Amz-Checksum-Crc64nvme"); sent != "" && sent != o.crc {
		fail(w, 400, "BadDigest", "whole checksum")
		return
	}
	if sent := r.Header.Get("X-Amz-Mp-Object-Size"); sent != strconv.FormatInt(o.size, 10) {
		fail(w, 400, "InvalidRequest", "object size "+sent)
		return
	}
	s.objects[key] = o
	delete(s.uploads, id)
	fmt.Fprintf(w, "<CompleteMultipartUploadResult><ETag>%s</ETag><ChecksumCRC64NVME>%s</ChecksumCRC64NVME>"+
		"<ChecksumType>FULL_OBJECT</ChecksumType></CompleteMultipartUploadResult>", o.etag, o.crc)
}

func (s *stub) putObject(w http.ResponseWriter, r *http.Request, key string, p stubPart) {
	if s.objects[key] != nil && r.Header.Get("If-None-Match") == "*" {
		fail(w, 412, "PreconditionFailed", "it exists")
		return
	}
	s.objects[key] = &stubObject{header: r.Header.Clone(), size: p.size, crc: crcBase64(p.crc), etag: fmt.Sprintf(`"%x"`, p.md5), data: p.data}
	w.Header().Set("ETag", s.objects[key].etag)
	w.Header().Set("X-Amz-Checksum-Crc64nvme", crcBase64(p.crc))
}

func (s *stub) get(w http.ResponseWriter, r *http.Request, key string) {
	o := s.objects[key]
	if o == nil {
		fail(w, 404, "NoSuchKey", "no such key")
		return
	}
	for name, values := range o.header {
		if strings.HasPrefix(name, "X-Amz-Meta-") {
			w.Header()[name] = values
		}
	}
	w.Header().Set("ETag", o.etag)
	w.Header().Set("X-Amz-Checksum-Crc64nvme", o.crc)
	w.Header().Set("X-Amz-Checksum-Type", "FULL_OBJECT")
	w.Header().Set("Content-Length", strconv.FormatInt(o.size, 10))
	if r.Method == http.MethodGet {
		w.Write(o.data)
	}
}

// left tells what the stub holds.
func (s *stub) left() (objects, uploads int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.objects), len(s.uploads)
}

// hangUp ends the connection without a reply.
func hangUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }
