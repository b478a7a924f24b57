package gcsserver

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
)

// serveInsert is a single-request upload: uploadType=media carries the content
// alone, uploadType=multipart the metadata and the content.
// https://cloud.google.com/storage/docs/uploading-objects
// https://cloud.google.com/storage/docs/json_api/v1/objects/insert
func (s *Server) serveInsert(w http.ResponseWriter, r *http.Request, rt route, who Permissions) *apiError {
	if r.Method != http.MethodPost {
		return &apiError{code: http.StatusMethodNotAllowed, reason: "methodNotAllowed", message: "Method not allowed"}
	}
	var meta metadata
	var media io.Reader
	switch rt.query.Get("uploadType") {
	case "media":
		meta.ContentType, media = r.Header.Get("Content-Type"), r.Body
	case "multipart":
		var err *apiError
		if media, err = readRelated(r, &meta); err != nil {
			return err
		}
	default:
		return badRequest("Invalid uploadType %q", rt.query.Get("uploadType"))
	}
	if err := fromQuery(&meta, rt); err != nil {
		return err
	}
	pre, err := parsePreconditions(rt.query.Get)
	if err != nil {
		return err
	}
	s.mu.Lock()
	b, err := s.creating(rt, &meta, pre, who)
	s.mu.Unlock()
	if err != nil {
		drain(r.Body)
		return err
	}
	data, rerr := io.ReadAll(media)
	if rerr != nil {
		return badRequest("The request body was cut: %v", rerr)
	}
	drain(r.Body)
	c, cerr := newContent(s.opts.SpillDir)
	if cerr == nil {
		cerr = c.append(data)
	}
	if cerr != nil {
		return &apiError{code: http.StatusInternalServerError, reason: "internalError", message: cerr.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.commit(b, meta, c, r.Header, pre, who)
	if err != nil {
		c.discard()
		return err
	}
	writeJSON(w, o.resource(b))
	return nil
}

// drain reads what is left of a body, so that the connection can be kept.
func drain(r io.Reader) { _, _ = io.Copy(io.Discard, r) }

// readRelated takes a multipart/related body apart: first the metadata, then
// the content.
func readRelated(r *http.Request, meta *metadata) (io.Reader, *apiError) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/related" {
		return nil, badRequest("Content-Type must be multipart/related, not %q", r.Header.Get("Content-Type"))
	}
	parts := multipart.NewReader(r.Body, params["boundary"])
	first, err := parts.NextRawPart()
	if err != nil {
		return nil, badRequest("Missing metadata part: %v", err)
	}
	if err := json.NewDecoder(first).Decode(meta); err != nil {
		return nil, badRequest("Parse Error: %v", err)
	}
	second, err := parts.NextRawPart()
	if err != nil {
		return nil, badRequest("Missing media part: %v", err)
	}
	if meta.ContentType == "" {
		meta.ContentType = second.Header.Get("Content-Type")
	}
	return &relatedMedia{part: second, parts: parts}, nil
}

// relatedMedia is the content part; it ends well only at the closing boundary,
// so that a cut request creates nothing.
type relatedMedia struct {
	part  io.Reader
	parts *multipart.Reader
}

func (m *relatedMedia) Read(p []byte) (int, error) {
	n, err := m.part.Read(p)
	if err != io.EOF {
		return n, err
	}
	if _, next := m.parts.NextRawPart(); next != io.EOF {
		return n, errors.New("no closing boundary")
	}
	return n, io.EOF
}

// fromQuery: the name comes in the metadata or as a parameter, and the two
// must agree.
func fromQuery(meta *metadata, rt route) *apiError {
	name := rt.query.Get("name")
	if name != "" && meta.Name != "" && name != meta.Name {
		return badRequest("Value '%s' in content does not agree with value '%s'.", meta.Name, name)
	}
	if meta.Name == "" {
		meta.Name = name
	}
	// "Overrides the object metadata's kms_key_name value, if any."
	// https://cloud.google.com/storage/docs/json_api/v1/objects/insert
	if key := rt.query.Get("kmsKeyName"); key != "" {
		meta.KMSKeyName = key
	}
	return nil
}

// creating checks a request that wants to create an object before any content
// is taken. It is called with s.mu held.
func (s *Server) creating(rt route, meta *metadata, pre preconditions, who Permissions) (*bucket, *apiError) {
	if err := who.allows("storage.objects.create"); err != nil {
		return nil, err
	}
	b := s.buckets[rt.bucket]
	if b == nil {
		return nil, noBucket()
	}
	if err := s.checkMetadata(b, meta, who); err != nil {
		return nil, err
	}
	if err := pre.check(b.live(meta.Name), false); err != nil {
		return nil, err
	}
	return b, nil
}

// commit makes the object visible, or refuses and changes nothing. Conditions
// are judged before retention: production answers 412 where both would refuse.
// It is called with s.mu held.
func (s *Server) commit(b *bucket, meta metadata, c *content, header http.Header, pre preconditions, who Permissions) (*object, *apiError) {
	if err := checkHashes(meta, c, header); err != nil {
		return nil, err
	}
	if s.buckets[b.name] != b {
		return nil, noBucket()
	}
	old := b.live(meta.Name)
	if err := pre.check(old, false); err != nil {
		return nil, err
	}
	if old != nil {
		// https://cloud.google.com/storage/docs/performing-resumable-uploads#required-roles
		// (delete "is only required for uploads that overwrite an existing object")
		if err := who.allows("storage.objects.delete"); err != nil {
			return nil, err
		}
		if err := s.kept(b, old, b.versioned()); err != nil {
			return nil, err
		}
		if b.versioned() {
			old.deleted = s.now()
		} else {
			b.remove(old)
			old.content.discard()
		}
	}
	if meta.ContentType == "" {
		meta.ContentType = "application/octet-stream"
	}
	meta.CRC32C, meta.MD5Hash = "", ""
	s.lastGen = max(s.lastGen+1, s.now().UnixMicro())
	o := &object{metadata: meta, content: c, generation: s.lastGen, metageneration: 1, created: s.now(), updated: s.now()}
	b.objects[o.Name] = append(b.objects[o.Name], o)
	return o, nil
}

// checkHashes compares the content with every checksum the client gave: in the
// metadata, or in X-Goog-Hash of the request that completes the upload.
// https://cloud.google.com/storage/docs/data-validation
// https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash
func checkHashes(meta metadata, c *content, header http.Header) *apiError {
	want := map[string][]string{"crc32c": nil, "md5": nil}
	for name, value := range map[string]string{"crc32c": meta.CRC32C, "md5": meta.MD5Hash} {
		if value != "" {
			want[name] = append(want[name], value)
		}
	}
	for _, line := range header.Values("X-Goog-Hash") {
		for item := range strings.SplitSeq(line, ",") {
			name, value, ok := strings.Cut(strings.TrimSpace(item), "=")
			if _, known := want[name]; !ok || !known {
				return badRequest("Invalid X-Goog-Hash: %q", line)
			}
			want[name] = append(want[name], value)
		}
	}
	for _, value := range want["crc32c"] {
		if got := c.crc32c(); value != got {
			return badRequest("Provided CRC32C %q doesn't match calculated CRC32C %q.", value, got)
		}
	}
	for _, value := range want["md5"] {
		if got := c.md5Hash(); value != got {
			return badRequest("Provided MD5 hash %q doesn't match calculated MD5 hash %q.", value, got)
		}
	}
	return nil
}
