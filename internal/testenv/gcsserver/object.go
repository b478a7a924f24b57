package gcsserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// metadata is what a client may say about an object when it creates it.
// https://cloud.google.com/storage/docs/json_api/v1/objects#resource
type metadata struct {
	Name               string            `json:"name"`
	Bucket             string            `json:"bucket"`
	ContentType        string            `json:"contentType"`
	ContentEncoding    string            `json:"contentEncoding"`
	ContentDisposition string            `json:"contentDisposition"`
	ContentLanguage    string            `json:"contentLanguage"`
	CacheControl       string            `json:"cacheControl"`
	StorageClass       string            `json:"storageClass"`
	CRC32C             string            `json:"crc32c"`
	MD5Hash            string            `json:"md5Hash"`
	CustomTime         *time.Time        `json:"customTime"`
	TemporaryHold      *bool             `json:"temporaryHold"`
	EventBasedHold     *bool             `json:"eventBasedHold"`
	Metadata           map[string]string `json:"metadata"`
	Retention          *retention        `json:"retention"`
	KMSKeyName         string            `json:"kmsKeyName"` // with its version once stored
}

// retention: https://cloud.google.com/storage/docs/object-lock
type retention struct {
	Mode            string    `json:"mode"` // Unlocked, Locked
	RetainUntilTime time.Time `json:"retainUntilTime"`
}

// object is one generation of an object.
type object struct {
	metadata
	content        *content
	generation     int64
	metageneration int64
	created        time.Time
	updated        time.Time
	deleted        time.Time // when it became noncurrent
	released       time.Time // when its event-based hold was taken off
}

func (o *object) etag() string { return fmt.Sprintf("%x/%d", o.generation, o.metageneration) }

// resource is the object as the JSON API shows it: 64-bit numbers are strings.
// https://cloud.google.com/storage/docs/json_api/v1/objects#resource
func (o *object) resource(b *bucket) map[string]any {
	r := map[string]any{
		"kind": "storage#object", "id": fmt.Sprintf("%s/%s/%d", b.name, o.Name, o.generation),
		"name": o.Name, "bucket": b.name,
		"generation": strconv.FormatInt(o.generation, 10), "metageneration": strconv.FormatInt(o.metageneration, 10),
		"size": strconv.FormatInt(o.content.size(), 10), "crc32c": o.content.crc32c(), "md5Hash": o.content.md5Hash(),
		"etag": o.etag(), "storageClass": o.StorageClass, "contentType": o.ContentType,
		"timeCreated": stamp(o.created), "updated": stamp(o.updated), "timeStorageClassUpdated": stamp(o.created),
	}
	for name, value := range map[string]string{
		"contentEncoding": o.ContentEncoding, "contentDisposition": o.ContentDisposition,
		"contentLanguage": o.ContentLanguage, "cacheControl": o.CacheControl,
	} {
		if value != "" {
			r[name] = value
		}
	}
	if len(o.Metadata) > 0 {
		r["metadata"] = o.Metadata
	}
	if o.CustomTime != nil {
		r["customTime"] = stamp(*o.CustomTime)
	}
	if o.TemporaryHold != nil {
		r["temporaryHold"] = *o.TemporaryHold
	}
	if o.EventBasedHold != nil {
		r["eventBasedHold"] = *o.EventBasedHold
	}
	if o.Retention != nil {
		r["retention"] = map[string]any{"mode": o.Retention.Mode, "retainUntilTime": stamp(o.Retention.RetainUntilTime)}
	}
	if !o.deleted.IsZero() {
		r["timeDeleted"] = stamp(o.deleted)
	}
	if until := o.keptUntil(b); !until.IsZero() {
		r["retentionExpirationTime"] = stamp(until)
	}
	if o.KMSKeyName != "" {
		r["kmsKeyName"] = o.KMSKeyName
	}
	return r
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

var storageClasses = map[string]bool{
	// https://cloud.google.com/storage/docs/storage-classes
	"STANDARD": true, "NEARLINE": true, "COLDLINE": true, "ARCHIVE": true,
	"MULTI_REGIONAL": true, "REGIONAL": true, "DURABLE_REDUCED_AVAILABILITY": true,
}

// checkName: https://cloud.google.com/storage/docs/objects#naming
func checkName(name string) *apiError {
	switch {
	case name == "":
		return &apiError{code: http.StatusBadRequest, reason: "required", message: "Required parameter: name"}
	case len(name) > 1024, !utf8.ValidString(name), strings.ContainsAny(name, "\r\n"),
		name == ".", name == "..", strings.HasPrefix(name, ".well-known/acme-challenge/"):
		return badRequest("Disallowed object name: %q", name)
	}
	return nil
}

// checkMetadata refuses what no object may be created with, and fills in
// defaults. It is called with s.mu held.
func (s *Server) checkMetadata(b *bucket, m *metadata, who Permissions) *apiError {
	if err := checkName(m.Name); err != nil {
		return err
	}
	if m.Bucket != "" && m.Bucket != b.name {
		return badRequest("Value '%s' in content does not agree with value '%s'.", m.Bucket, b.name)
	}
	if m.StorageClass == "" {
		m.StorageClass = b.storageClass()
	}
	if !storageClasses[m.StorageClass] {
		return badRequest("Invalid storage class %q", m.StorageClass)
	}
	total := 0
	for k, v := range m.Metadata {
		total += len(k) + len(v)
	}
	if total > 8<<10 { // https://cloud.google.com/storage/quotas#objects
		return badRequest("The metadata is too large: %d bytes, the maximum is 8192", total)
	}
	if err := s.checkKMSKey(b, m); err != nil {
		return err
	}
	if m.EventBasedHold == nil && b.flag("defaultEventBasedHold") {
		hold := true
		m.EventBasedHold = &hold
	}
	if m.Retention == nil {
		return nil
	}
	if err := who.allows("storage.objects.setRetention"); err != nil {
		return err
	}
	return s.checkRetention(b, m.Retention, m.EventBasedHold)
}

// checkRetention: https://cloud.google.com/storage/docs/object-lock#overview
// (only in buckets that have the feature, at most 100 years, not together with
// an event-based hold).
func (s *Server) checkRetention(b *bucket, r *retention, eventHold *bool) *apiError {
	switch {
	case !b.objectRetention():
		return badRequest("Object retention is not enabled for bucket '%s'.", b.name)
	case r.Mode != "Unlocked" && r.Mode != "Locked":
		return badRequest("Invalid retention mode %q", r.Mode)
	case !r.RetainUntilTime.After(s.now()):
		return badRequest("Retention.retainUntilTime must be in the future.")
	case r.RetainUntilTime.Sub(s.now()) > 3_155_760_000*time.Second:
		return badRequest("Retention.retainUntilTime is more than 100 years away.")
	case eventHold != nil && *eventHold:
		return badRequest("An object cannot have both an event-based hold and a retention configuration.")
	}
	return nil
}

// bucketRetention is when the bucket's retention policy lets go of the object;
// while an event-based hold stands the time is not known.
// https://cloud.google.com/storage/docs/bucket-lock
func (o *object) bucketRetention(b *bucket) (time.Time, bool) {
	period := b.retentionPeriod()
	if period == 0 || (o.EventBasedHold != nil && *o.EventBasedHold) {
		return time.Time{}, false
	}
	from := o.created
	if o.released.After(from) {
		from = o.released
	}
	return from.Add(period), true
}

// keptUntil is "the earliest time that the object can be deleted, which depends
// on any retention configuration set for the object and any retention policy set
// for the bucket"; zero for none.
// https://cloud.google.com/storage/docs/json_api/v1/objects#resource
func (o *object) keptUntil(b *bucket) time.Time {
	until, _ := o.bucketRetention(b)
	if o.Retention != nil && o.Retention.RetainUntilTime.After(until) {
		until = o.Retention.RetainUntilTime
	}
	return until
}

// kept is 403 while a hold or a retention forbids to remove the object for
// good. archive asks only whether it may become noncurrent: retention allows
// that, holds do not.
// https://cloud.google.com/storage/docs/object-holds
// https://cloud.google.com/storage/docs/object-lock ("an object that hasn't
// reached this retain-until time can still be made noncurrent")
func (s *Server) kept(b *bucket, o *object, archive bool) *apiError {
	hold := ""
	switch {
	case o.TemporaryHold != nil && *o.TemporaryHold:
		hold = "Temporary"
	case o.EventBasedHold != nil && *o.EventBasedHold:
		hold = "Event-Based"
	}
	if hold != "" {
		// The reason is documented as objectUnderActiveHold; production sends
		// "forbidden" and says it in the message only.
		return &apiError{
			code: http.StatusForbidden, reason: "forbidden", xmlCode: "ObjectUnderActiveHold",
			message: fmt.Sprintf("Object '%s/%s' is under active %s hold and cannot be deleted, overwritten or archived until hold is removed.", b.name, o.Name, hold),
		}
	}
	if archive {
		return nil
	}
	if until := o.keptUntil(b); s.now().Before(until) {
		return &apiError{
			code: http.StatusForbidden, reason: "retentionPolicyNotMet", xmlCode: "RetentionPolicyNotMet",
			message: fmt.Sprintf("Object '%s/%s' is subject to bucket's retention policy or object retention and cannot be deleted or overwritten until %s", b.name, o.Name, until.Format(time.RFC3339Nano)),
		}
	}
	return nil
}

// preconditions are the parameters ifGenerationMatch and its kin; -1 is unset.
// https://cloud.google.com/storage/docs/request-preconditions
type preconditions struct {
	generation, notGeneration, metageneration, notMetageneration int64
}

func parsePreconditions(get func(string) string) (preconditions, *apiError) {
	p := preconditions{-1, -1, -1, -1}
	for name, field := range map[string]*int64{
		"ifGenerationMatch": &p.generation, "ifGenerationNotMatch": &p.notGeneration,
		"ifMetagenerationMatch": &p.metageneration, "ifMetagenerationNotMatch": &p.notMetageneration,
	} {
		value := get(name)
		if value == "" {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return p, badRequest("Invalid value for %s: %q", name, value)
		}
		*field = n
	}
	return p, nil
}

// check compares with the live object, nil when there is none: generation 0
// means "does not exist". A read whose NotMatch fails is 304.
func (p preconditions) check(o *object, read bool) *apiError {
	var generation, metageneration int64
	if o != nil {
		generation, metageneration = o.generation, o.metageneration
	}
	if p.generation >= 0 && p.generation != generation || p.metageneration >= 0 && p.metageneration != metageneration {
		return conditionNotMet()
	}
	if p.notGeneration >= 0 && p.notGeneration == generation || p.notMetageneration >= 0 && p.notMetageneration == metageneration {
		if read {
			return &apiError{code: http.StatusNotModified}
		}
		return conditionNotMet()
	}
	return nil
}

// find returns the bucket and the generation that a request names. It is
// called with s.mu held. An object that is missing is 404 only for those who
// may list: https://cloud.google.com/storage/docs/json_api/v1/status-codes#403-forbidden
func (s *Server) find(rt route, who Permissions) (*bucket, *object, *apiError) {
	b := s.buckets[rt.bucket]
	if b == nil {
		return nil, nil, noBucket()
	}
	o, err := b.generation(rt.object, rt.query.Get("generation"))
	if err != nil {
		return nil, nil, err
	}
	if o == nil {
		if err := who.allows("storage.objects.list"); err != nil {
			return nil, nil, err
		}
		return b, nil, noObject(b.name, rt.object)
	}
	return b, o, nil
}

func (s *Server) serveGet(w http.ResponseWriter, _ *http.Request, rt route, who Permissions) *apiError {
	if err := who.allows("storage.objects.get"); err != nil {
		return err
	}
	pre, err := parsePreconditions(rt.query.Get)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, o, err := s.find(rt, who)
	if err != nil {
		return err
	}
	if err := pre.check(o, true); err != nil {
		return err
	}
	writeJSON(w, o.resource(b))
	return nil
}

// serveDelete removes for good, or makes noncurrent: without a generation the
// live version of a versioned bucket stays readable by its generation.
// https://cloud.google.com/storage/docs/object-versioning
func (s *Server) serveDelete(w http.ResponseWriter, _ *http.Request, rt route, who Permissions) *apiError {
	if err := who.allows("storage.objects.delete"); err != nil {
		return err
	}
	pre, err := parsePreconditions(rt.query.Get)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, o, err := s.find(rt, who)
	if err != nil {
		return err
	}
	if err := pre.check(o, false); err != nil {
		return err
	}
	archive := rt.query.Get("generation") == "" && b.versioned()
	if err := s.kept(b, o, archive); err != nil {
		return err
	}
	if archive {
		o.deleted = s.now()
	} else {
		b.remove(o)
		o.content.discard()
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// servePatch merges (PATCH) or replaces (PUT) the editable metadata.
// https://cloud.google.com/storage/docs/json_api/v1/objects/patch
func (s *Server) servePatch(w http.ResponseWriter, r *http.Request, rt route, who Permissions) *apiError {
	if err := who.allows("storage.objects.update"); err != nil {
		return err
	}
	pre, err := parsePreconditions(rt.query.Get)
	if err != nil {
		return err
	}
	var change map[string]json.RawMessage
	if jerr := json.NewDecoder(r.Body).Decode(&change); jerr != nil {
		return badRequest("Parse Error: %v", jerr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, o, err := s.find(rt, who)
	if err != nil {
		return err
	}
	if err := pre.check(o, false); err != nil {
		return err
	}
	if r.Method == http.MethodPut {
		for _, field := range []string{"contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl", "metadata"} {
			if _, ok := change[field]; !ok {
				change[field] = json.RawMessage("null")
			}
		}
	}
	next := o.metadata
	if err := s.applyChange(b, &next, change, who, rt.query.Get("overrideUnlockedRetention") == "true"); err != nil {
		return err
	}
	if o.EventBasedHold != nil && *o.EventBasedHold && (next.EventBasedHold == nil || !*next.EventBasedHold) {
		o.released = s.now()
	}
	o.metadata = next
	o.metageneration++
	o.updated = s.now()
	writeJSON(w, o.resource(b))
	return nil
}

func (s *Server) applyChange(b *bucket, m *metadata, change map[string]json.RawMessage, who Permissions, override bool) *apiError {
	for field, raw := range change {
		var err error
		var refused *apiError
		switch field {
		case "contentType":
			err = mergeString(&m.ContentType, raw)
		case "contentEncoding":
			err = mergeString(&m.ContentEncoding, raw)
		case "contentDisposition":
			err = mergeString(&m.ContentDisposition, raw)
		case "contentLanguage":
			err = mergeString(&m.ContentLanguage, raw)
		case "cacheControl":
			err = mergeString(&m.CacheControl, raw)
		case "metadata":
			m.Metadata, err = mergeMap(m.Metadata, raw)
		case "temporaryHold":
			err = json.Unmarshal(raw, &m.TemporaryHold)
		case "eventBasedHold":
			err = json.Unmarshal(raw, &m.EventBasedHold)
		case "customTime":
			refused = changeCustomTime(m, raw)
		case "retention":
			refused = s.changeRetention(b, m, raw, who, override)
		}
		if err != nil {
			refused = badRequest("Invalid value for %s: %v", field, err)
		}
		if refused != nil {
			return refused
		}
	}
	if m.Retention != nil && m.EventBasedHold != nil && *m.EventBasedHold {
		return badRequest("An object cannot have both an event-based hold and a retention configuration.")
	}
	return nil
}

func mergeString(field *string, raw json.RawMessage) error {
	*field = ""
	return json.Unmarshal(raw, field)
}

// mergeMap: null removes the map, a null value one entry.
func mergeMap(old map[string]string, raw json.RawMessage) (map[string]string, error) {
	var change map[string]*string
	if err := json.Unmarshal(raw, &change); err != nil || change == nil {
		return nil, err
	}
	merged := map[string]string{}
	for k, v := range old {
		merged[k] = v
	}
	for k, v := range change {
		if v == nil {
			delete(merged, k)
		} else {
			merged[k] = *v
		}
	}
	return merged, nil
}

// changeCustomTime: once set it cannot be removed or moved back.
// https://cloud.google.com/storage/docs/metadata#custom-time
func changeCustomTime(m *metadata, raw json.RawMessage) *apiError {
	var next *time.Time
	if err := json.Unmarshal(raw, &next); err != nil {
		return badRequest("Invalid value for customTime: %v", err)
	}
	if m.CustomTime != nil && (next == nil || next.Before(*m.CustomTime)) {
		return badRequest("The customTime of an object cannot be removed or set to an earlier time.")
	}
	m.CustomTime = next
	return nil
}

// changeRetention: overrideUnlockedRetention "must be true to remove the
// retention configuration, reduce its unlocked retention period, or change its
// mode from unlocked to locked"; a locked one can only be extended.
// https://cloud.google.com/storage/docs/json_api/v1/objects/patch
// https://cloud.google.com/storage/docs/object-lock
func (s *Server) changeRetention(b *bucket, m *metadata, raw json.RawMessage, who Permissions, override bool) *apiError {
	if err := who.allows("storage.objects.setRetention"); err != nil {
		return err
	}
	var next *retention
	if err := json.Unmarshal(raw, &next); err != nil {
		return badRequest("Invalid value for retention: %v", err)
	}
	old := m.Retention
	weaker := old != nil && (next == nil || next.RetainUntilTime.Before(old.RetainUntilTime))
	refused := &apiError{
		code: http.StatusForbidden, reason: "forbidden",
		message: fmt.Sprintf("Object '%s/%s' has a retention configuration that does not permit this change.", b.name, m.Name),
	}
	switch {
	case old != nil && old.Mode == "Locked" && (weaker || next.Mode != "Locked"):
		return refused
	case old != nil && old.Mode == "Unlocked" && (weaker || next.Mode != old.Mode):
		if !override {
			return refused
		}
		if err := who.allows("storage.objects.overrideUnlockedRetention"); err != nil {
			return err
		}
	}
	if next != nil {
		if err := s.checkRetention(b, next, m.EventBasedHold); err != nil {
			return err
		}
	}
	m.Retention = next
	return nil
}
