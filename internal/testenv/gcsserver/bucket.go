package gcsserver

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// bucket keeps its settings as the JSON it was given: what has no meaning here
// (soft delete, labels, lifecycle once it is checked) is stored and returned.
type bucket struct {
	name           string
	settings       map[string]any
	metageneration int64
	created        time.Time
	updated        time.Time
	objects        map[string][]*object // by name, oldest generation first
}

func (b *bucket) section(name string) map[string]any {
	m, _ := b.settings[name].(map[string]any)
	return m
}

func (b *bucket) flag(name string) bool { on, _ := b.settings[name].(bool); return on }

func (b *bucket) versioned() bool { on, _ := b.section("versioning")["enabled"].(bool); return on }

func (b *bucket) objectRetention() bool { return b.section("objectRetention")["mode"] == "Enabled" }

func (b *bucket) storageClass() string {
	class, _ := b.settings["storageClass"].(string)
	return cmp.Or(class, "STANDARD")
}

// retentionPeriod: https://cloud.google.com/storage/docs/bucket-lock
func (b *bucket) retentionPeriod() time.Duration {
	seconds, _ := strconv.ParseInt(fmt.Sprint(b.section("retentionPolicy")["retentionPeriod"]), 10, 64)
	return time.Duration(seconds) * time.Second
}

func (b *bucket) live(name string) *object {
	if all := b.objects[name]; len(all) > 0 {
		if o := all[len(all)-1]; o.deleted.IsZero() {
			return o
		}
	}
	return nil
}

// generation finds one version; "" is the live one.
func (b *bucket) generation(name, generation string) (*object, *apiError) {
	if generation == "" {
		return b.live(name), nil
	}
	n, err := strconv.ParseInt(generation, 10, 64)
	if err != nil {
		return nil, badRequest("Invalid value for generation: %q", generation)
	}
	for _, o := range b.objects[name] {
		if o.generation == n {
			return o, nil
		}
	}
	return nil, nil
}

func (b *bucket) remove(o *object) {
	b.objects[o.Name] = slices.DeleteFunc(b.objects[o.Name], func(x *object) bool { return x == o })
	if len(b.objects[o.Name]) == 0 {
		delete(b.objects, o.Name)
	}
}

// all is every generation, ordered by name and then by generation.
func (b *bucket) all() []*object {
	var all []*object
	for _, name := range slices.Sorted(maps.Keys(b.objects)) {
		all = append(all, b.objects[name]...)
	}
	return all
}

// resource: https://cloud.google.com/storage/docs/json_api/v1/buckets#resource
func (b *bucket) resource() map[string]any {
	r := maps.Clone(b.settings)
	maps.Copy(r, map[string]any{
		"kind": "storage#bucket", "id": b.name, "name": b.name, "projectNumber": "1",
		"metageneration": strconv.FormatInt(b.metageneration, 10), "etag": fmt.Sprintf("b%d", b.metageneration),
		"timeCreated": stamp(b.created), "updated": stamp(b.updated), "storageClass": b.storageClass(),
	})
	return r
}

// CreateBucket makes a bucket with the settings of a buckets resource, such as
// {"versioning": {"enabled": true}} or {"objectRetention": {"mode": "Enabled"}}.
func (s *Server) CreateBucket(name string, settings map[string]any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.createBucket(name, settings); err != nil {
		return fmt.Errorf("create bucket %s: %s", name, err.message)
	}
	return nil
}

func (s *Server) createBucket(name string, settings map[string]any) *apiError {
	if len(name) < 3 || len(name) > 222 { // https://cloud.google.com/storage/docs/buckets#naming
		return badRequest("Invalid bucket name: '%s'", name)
	}
	if s.buckets[name] != nil {
		return &apiError{code: http.StatusConflict, reason: "conflict", message: "Your previous request to create the named bucket succeeded and you already own it."}
	}
	b := &bucket{name: name, metageneration: 1, created: s.now(), updated: s.now(), objects: map[string][]*object{}, settings: map[string]any{
		"location": "US", "locationType": "multi-region",
		// On for every bucket that does not say otherwise:
		// https://cloud.google.com/storage/docs/soft-delete
		"softDeletePolicy": map[string]any{"retentionDurationSeconds": "604800", "effectiveTime": stamp(s.now())},
	}}
	if err := b.merge(settings, s.now()); err != nil {
		return err
	}
	s.buckets[name] = b
	return nil
}

// merge changes settings as a patch does: null removes, objects merge by field.
// https://cloud.google.com/storage/docs/json_api/v1/buckets/patch
func (b *bucket) merge(change map[string]any, now time.Time) *apiError {
	old := b.section("retentionPolicy")
	policy, touched := change["retentionPolicy"]
	if touched && old["isLocked"] == true {
		next, _ := policy.(map[string]any)
		period, _ := strconv.ParseInt(fmt.Sprint(next["retentionPeriod"]), 10, 64)
		if time.Duration(period)*time.Second < b.retentionPeriod() {
			return &apiError{code: http.StatusForbidden, reason: "retentionPolicyNotMet", message: fmt.Sprintf("Bucket '%s' has a locked Retention Policy which cannot be removed.", b.name)}
		}
	}
	if err := checkLifecycle(change["lifecycle"]); err != nil {
		return err
	}
	for name, value := range change {
		switch next := value.(type) {
		case nil:
			delete(b.settings, name)
		case map[string]any:
			merged := map[string]any{}
			maps.Copy(merged, b.section(name))
			for k, v := range next {
				if v == nil {
					delete(merged, k)
				} else {
					merged[k] = v
				}
			}
			b.settings[name] = merged
		default:
			b.settings[name] = value
		}
	}
	if touched && policy != nil {
		b.section("retentionPolicy")["effectiveTime"] = stamp(now)
	}
	return nil
}

// serveBucket: https://cloud.google.com/storage/docs/json_api/v1/buckets
func (s *Server) serveBucket(w http.ResponseWriter, r *http.Request, rt route, who Permissions) *apiError {
	permission := map[string]string{
		http.MethodGet: "storage.buckets.get", http.MethodPost: "storage.buckets.create",
		http.MethodDelete: "storage.buckets.delete",
	}[r.Method]
	switch {
	case rt.action == "iam/testPermissions":
		return s.testPermissions(w, rt, who)
	case rt.action != "" && rt.action != "lockRetentionPolicy":
		return &apiError{code: http.StatusNotImplemented, reason: "notImplemented", message: "not implemented here: " + rt.action}
	case rt.bucket == "" && r.Method == http.MethodGet:
		permission = "storage.buckets.list"
	case permission == "" || rt.action != "":
		permission = "storage.buckets.update"
	}
	if err := who.allows(permission); err != nil {
		return err
	}
	var body map[string]any
	if r.Method == http.MethodPost && rt.action == "" || r.Method == http.MethodPatch || r.Method == http.MethodPut {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return badRequest("Parse Error: %v", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if rt.bucket == "" {
		return s.bucketCollection(w, r, rt, body)
	}
	b := s.buckets[rt.bucket]
	if b == nil {
		return noBucket()
	}
	pre, err := parsePreconditions(rt.query.Get)
	if err != nil {
		return err
	}
	pre.generation, pre.notGeneration = -1, -1
	if err := pre.check(&object{metageneration: b.metageneration}, r.Method == http.MethodGet); err != nil {
		return err
	}
	return s.changeBucket(w, r, rt, b, pre, body)
}

func (s *Server) bucketCollection(w http.ResponseWriter, r *http.Request, rt route, body map[string]any) *apiError {
	if r.Method == http.MethodGet {
		items := []any{}
		for _, name := range slices.Sorted(maps.Keys(s.buckets)) {
			items = append(items, s.buckets[name].resource())
		}
		writeJSON(w, map[string]any{"kind": "storage#buckets", "items": items})
		return nil
	}
	name, _ := body["name"].(string)
	delete(body, "name")
	// https://cloud.google.com/storage/docs/json_api/v1/buckets/insert
	if rt.query.Get("enableObjectRetention") == "true" {
		body["objectRetention"] = map[string]any{"mode": "Enabled"}
	}
	if err := s.createBucket(name, body); err != nil {
		return err
	}
	writeJSON(w, s.buckets[name].resource())
	return nil
}

func (s *Server) changeBucket(w http.ResponseWriter, r *http.Request, rt route, b *bucket, pre preconditions, body map[string]any) *apiError {
	switch {
	case rt.action == "lockRetentionPolicy":
		// https://cloud.google.com/storage/docs/json_api/v1/buckets/lockRetentionPolicy
		if pre.metageneration < 0 {
			return &apiError{code: http.StatusBadRequest, reason: "required", message: "Required parameter: ifMetagenerationMatch"}
		}
		policy := b.section("retentionPolicy")
		if policy == nil {
			return badRequest("Bucket '%s' has no retention policy.", b.name)
		}
		policy["isLocked"] = true
	case r.Method == http.MethodGet:
		writeJSON(w, b.resource())
		return nil
	case r.Method == http.MethodDelete:
		if len(b.objects) > 0 {
			return &apiError{code: http.StatusConflict, reason: "conflict", message: "The bucket you tried to delete is not empty."}
		}
		delete(s.buckets, b.name)
		w.WriteHeader(http.StatusNoContent)
		return nil
	default:
		if err := b.merge(body, s.now()); err != nil {
			return err
		}
	}
	b.metageneration++
	b.updated = s.now()
	writeJSON(w, b.resource())
	return nil
}

// testPermissions: https://cloud.google.com/storage/docs/json_api/v1/buckets/testIamPermissions
func (s *Server) testPermissions(w http.ResponseWriter, rt route, who Permissions) *apiError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[rt.bucket] == nil {
		return noBucket()
	}
	var granted []string
	for _, p := range rt.query["permissions"] {
		if who.allows(p) == nil {
			granted = append(granted, p)
		}
	}
	writeJSON(w, map[string]any{"kind": "storage#testIamPermissionsResponse", "permissions": granted})
	return nil
}
