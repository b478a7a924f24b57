package gcsserver

import (
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// serveMedia sends content, by the XML API or by alt=media.
// https://cloud.google.com/storage/docs/xml-api/get-object-download
// https://cloud.google.com/storage/docs/xml-api/reference-headers
func (s *Server) serveMedia(w http.ResponseWriter, r *http.Request, rt route, who Permissions) *apiError {
	if err := who.allows("storage.objects.get"); err != nil {
		return err
	}
	get := rt.query.Get
	if rt.xml {
		get = func(name string) string {
			return r.Header.Get(map[string]string{
				"ifGenerationMatch": "x-goog-if-generation-match", "ifMetagenerationMatch": "x-goog-if-metageneration-match",
			}[name])
		}
	}
	pre, err := parsePreconditions(get)
	if err != nil {
		return err
	}
	s.mu.Lock()
	b, o, err := s.find(rt, who)
	if err == nil {
		err = pre.check(o, true)
	}
	if err == nil {
		err = ifMatch(r.Header, o)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.mediaHeaders(w.Header(), b, o)
	size := o.content.size()
	c := *o.content // the bytes never change; a delete drops only its own view
	zipped := o.ContentEncoding == "gzip"
	s.mu.Unlock()

	if zipped {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			transcode(w, r, &c)
			return nil
		}
		w.Header().Set("Content-Encoding", "gzip")
	}

	first, length, partial, err := parseRange(r.Header.Get("Range"), size)
	if err != nil {
		// Headers of the object do not belong to a refusal.
		clear(w.Header())
		return err
	}
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	if partial {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, first+length-1, size))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.WriteHeader(http.StatusOK)
	}
	if r.Method != http.MethodHead {
		_ = c.writeRange(w, first, length) // a client that left is no error
	}
	return nil
}

// transcode unpacks for a client that does not say that it takes gzip: the whole, whatever
// range was asked for, of a length that is not known.
// https://cloud.google.com/storage/docs/transcoding
func transcode(w http.ResponseWriter, r *http.Request, c *content) {
	w.Header().Set("Warning", "214 UploadServer gunzipped")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	stored, feed := io.Pipe()
	go func() { feed.CloseWithError(c.writeRange(feed, 0, c.size())) }()
	z, err := gzip.NewReader(stored)
	if err == nil {
		_, err = io.Copy(w, z) //nolint:gosec // a test's own object
	}
	stored.CloseWithError(err)
}

func mediaETag(o *object) string {
	sum, _ := base64.StdEncoding.DecodeString(o.content.md5Hash())
	return `"` + hex.EncodeToString(sum) + `"`
}

func (s *Server) mediaHeaders(h http.Header, _ *bucket, o *object) {
	h.Set("Content-Type", o.ContentType)
	h.Set("Accept-Ranges", "bytes")
	h.Set("ETag", mediaETag(o))
	h.Set("Last-Modified", o.updated.Format(http.TimeFormat))
	h.Set("X-Goog-Generation", strconv.FormatInt(o.generation, 10))
	h.Set("X-Goog-Metageneration", strconv.FormatInt(o.metageneration, 10))
	h.Set("X-Goog-Storage-Class", o.StorageClass)
	h.Set("X-Goog-Stored-Content-Length", strconv.FormatInt(o.content.size(), 10))
	h.Set("X-Goog-Stored-Content-Encoding", cmp.Or(o.ContentEncoding, "identity"))
	h.Add("X-Goog-Hash", "crc32c="+o.content.crc32c())
	h.Add("X-Goog-Hash", "md5="+o.content.md5Hash())
	for k, v := range o.Metadata {
		h.Set("X-Goog-Meta-"+k, v)
	}
}

// ifMatch: https://cloud.google.com/storage/docs/xml-api/reference-headers#ifmatch
func ifMatch(h http.Header, o *object) *apiError {
	matches := func(list string) bool {
		for tag := range strings.SplitSeq(list, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || tag == mediaETag(o) {
				return true
			}
		}
		return false
	}
	if v := h.Get("If-Match"); v != "" && !matches(v) {
		return conditionNotMet()
	}
	if v := h.Get("If-None-Match"); v != "" && matches(v) {
		return &apiError{code: http.StatusNotModified}
	}
	return nil
}

// parseRange reads one byte range; several, or another unit, are ignored.
// https://cloud.google.com/storage/docs/xml-api/reference-headers#range
// https://www.rfc-editor.org/rfc/rfc9110#section-14.2
func parseRange(value string, size int64) (first, length int64, partial bool, err *apiError) {
	spec, ok := strings.CutPrefix(value, "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return 0, size, false, nil
	}
	// "bytes=-N" are the last N bytes.
	from, to, dash := strings.Cut(spec, "-")
	start, serr := strconv.ParseInt(from, 10, 64)
	end, eerr := strconv.ParseInt(to, 10, 64)
	switch {
	case !dash:
		return 0, size, false, nil
	case from == "" && eerr == nil && end > 0 && size > 0:
		first = max(0, size-end)
		return first, size - first, true, nil
	case serr == nil && start < size && to == "":
		return start, size - start, true, nil
	case serr == nil && eerr == nil && start <= end && start < size:
		return start, min(end, size-1) - start + 1, true, nil
	case from != "" && serr != nil || to != "" && eerr != nil || serr == nil && eerr == nil && end < start:
		return 0, size, false, nil
	}
	return 0, 0, false, &apiError{code: http.StatusRequestedRangeNotSatisfiable, reason: "requestedRangeNotSatisfiable", xmlCode: "InvalidRange", message: "The requested range cannot be satisfied."}
}

// serveList pages through names in the order of their UTF-8 bytes, and with
// versions through generations.
// https://cloud.google.com/storage/docs/json_api/v1/objects/list
func (s *Server) serveList(w http.ResponseWriter, r *http.Request, rt route, who Permissions) *apiError {
	if r.Method != http.MethodGet {
		return &apiError{code: http.StatusMethodNotAllowed, reason: "methodNotAllowed", message: "Method not allowed"}
	}
	if err := who.allows("storage.objects.list"); err != nil {
		return err
	}
	limit := int64(1000)
	if text := rt.query.Get("maxResults"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return badRequest("Invalid value for maxResults: %q", text)
		}
		limit = min(limit, n)
	}
	after, err := parsePageToken(rt.query.Get("pageToken"))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[rt.bucket]
	if b == nil {
		return noBucket()
	}
	items, prefixes := []any{}, []string{}
	next, count := "", int64(0)
	var last pageToken
	for _, o := range b.all() {
		group, skip := listed(o, rt, after)
		if skip || group != "" && slices.Contains(prefixes, group) {
			continue
		}
		if count == limit {
			next = last.encode()
			break
		}
		count++
		if group != "" {
			prefixes = append(prefixes, group)
			last = pageToken{Name: group, Group: true}
			continue
		}
		items = append(items, o.resource(b))
		last = pageToken{Name: o.Name, Generation: o.generation}
	}
	page := map[string]any{"kind": "storage#objects", "items": items}
	if len(prefixes) > 0 {
		page["prefixes"] = prefixes
	}
	if next != "" {
		page["nextPageToken"] = next
	}
	writeJSON(w, page)
	return nil
}

// listed tells whether a list leaves the object out, or shows it as a prefix.
func listed(o *object, rt route, after pageToken) (group string, skip bool) {
	prefix := rt.query.Get("prefix")
	switch {
	case !strings.HasPrefix(o.Name, prefix),
		!o.deleted.IsZero() && rt.query.Get("versions") != "true",
		o.Name < rt.query.Get("startOffset"),
		rt.query.Get("endOffset") != "" && o.Name >= rt.query.Get("endOffset"),
		after.Group && (strings.HasPrefix(o.Name, after.Name) || o.Name < after.Name),
		!after.Group && (o.Name < after.Name || o.Name == after.Name && o.generation <= after.Generation):
		return "", true
	}
	if d := rt.query.Get("delimiter"); d != "" {
		if head, _, ok := strings.Cut(o.Name[len(prefix):], d); ok {
			return prefix + head + d, false
		}
	}
	return "", false
}

// pageToken is where the last page ended; clients must not look inside.
type pageToken struct {
	Name       string
	Generation int64
	Group      bool
}

func (t pageToken) encode() string {
	text, _ := json.Marshal(t) // cannot fail: plain fields
	return base64.RawURLEncoding.EncodeToString(text)
}

func parsePageToken(value string) (pageToken, *apiError) {
	var t pageToken
	if value == "" {
		return t, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(value)
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	if err != nil {
		return t, badRequest("Invalid page token")
	}
	return t, nil
}

// serveRewrite copies within this server, in one call.
// https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
// https://cloud.google.com/storage/docs/json_api/v1/objects/copy
func (s *Server) serveRewrite(w http.ResponseWriter, r *http.Request, rt route, who Permissions) *apiError {
	if r.Method != http.MethodPost {
		return &apiError{code: http.StatusMethodNotAllowed, reason: "methodNotAllowed", message: "Method not allowed"}
	}
	if err := who.allows("storage.objects.get"); err != nil {
		return err
	}
	action := strings.Split(rt.action, "\x00")
	target := route{bucket: action[1], object: action[2], query: rt.query}
	pre, err := parsePreconditions(rt.query.Get)
	if err != nil {
		return err
	}
	var given *metadata
	if jerr := json.NewDecoder(r.Body).Decode(&given); jerr != nil && r.ContentLength > 0 {
		return badRequest("Parse Error: %v", jerr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := rt.query.Get("sourceGeneration"); g != "" {
		rt.query.Set("generation", g)
	}
	_, src, err := s.find(rt, who)
	if err != nil {
		return err
	}
	// Metadata goes along unless the request brings its own; protection never
	// does.
	meta := src.metadata
	if given != nil && given.ContentType != "" {
		meta = *given
	}
	meta.Name, meta.Bucket = target.object, ""
	// "If not specified, the object is encrypted with the destination bucket's
	// default". https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
	meta.KMSKeyName = rt.query.Get("destinationKmsKeyName")
	if given == nil || given.Retention == nil {
		meta.Retention = nil
	}
	meta.TemporaryHold, meta.EventBasedHold = nil, nil
	b, err := s.creating(target, &meta, pre, who)
	if err != nil {
		return err
	}
	o, err := s.copyObject(b, meta, src, pre, who)
	if err != nil {
		return err
	}
	if action[0] == "copyTo" {
		writeJSON(w, o.resource(b))
		return nil
	}
	size := strconv.FormatInt(o.content.size(), 10)
	writeJSON(w, map[string]any{
		"kind": "storage#rewriteResponse", "done": true, "objectSize": size, "totalBytesRewritten": size, "resource": o.resource(b),
	})
	return nil
}

func (s *Server) copyObject(b *bucket, meta metadata, src *object, pre preconditions, who Permissions) (*object, *apiError) {
	c, cerr := newContent(s.opts.SpillDir)
	if cerr == nil {
		cerr = src.content.writeRange(appender{c}, 0, src.content.size())
	}
	if cerr != nil {
		return nil, &apiError{code: http.StatusInternalServerError, reason: "internalError", message: cerr.Error()}
	}
	o, err := s.commit(b, meta, c, http.Header{}, pre, who)
	if err != nil {
		c.discard()
	}
	return o, err
}

// appender writes into content, copying what it is given.
type appender struct{ c *content }

func (a appender) Write(p []byte) (int, error) {
	return len(p), a.c.append(slices.Clone(p))
}
