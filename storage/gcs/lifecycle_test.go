package gcs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
)

// rulesStub keeps a bucket's lifecycle section as bytes.
type rulesStub struct {
	*httptest.Server
	mu             sync.Mutex
	section        string
	metageneration int
	patches        []string
	lose           int // so many replies to patches
}

func newRulesStub(t *testing.T, section string) *rulesStub {
	s := &rulesStub{section: section, metageneration: 41}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *rulesStub) open(t *testing.T) *Bucket {
	b, err := Open(t.Context(), Config{Bucket: "rules", Endpoint: s.URL, MaxBackoff: 5 * time.Millisecond, MetadataTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func (s *rulesStub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodPatch {
		body, _ := io.ReadAll(r.Body)
		s.patches = append(s.patches, string(body))
		if r.URL.Query().Get("ifMetagenerationMatch") != fmt.Sprint(s.metageneration) {
			w.WriteHeader(http.StatusPreconditionFailed)
			io.WriteString(w, `{"error":{"code":412,"message":"At least one of the pre-conditions you specified did not hold."}}`)
			return
		}
		s.section = strings.TrimSuffix(strings.TrimPrefix(string(body), `{"lifecycle":`), "}")
		s.metageneration++
		if s.lose > 0 {
			s.lose--
			panic(http.ErrAbortHandler)
		}
	}
	fmt.Fprintf(w, `{"name":"rules","metageneration":"%d","lifecycle":%s}`, s.metageneration, s.section)
}

// What others wrote: conditions that no client models, zeros that clients drop,
// odd spelling.
const foreignRules = `{"action":{"type":"Delete"},"condition":{"age":0,"sizeAboveBytes":"1234567890123456789","matchesPrefix":["logs/","tmp/"]}},` +
	`{ "condition" : {"isLive":false , "numNewerVersions":3,"daysSinceNoncurrentTime":0}, "action":{"type":"Delete","why":"&<>"}, "note":1e2 },` +
	`{"action":{"type":"AbortIncompleteMultipartUpload"},"condition":{"age":3}},` +
	`{"action":{"type":"SetStorageClass","storageClass":"NEARLINE"},"condition":{"age":30,"isLive":true,"createdBefore":"2030-02-01"}}`

var (
	expireByCustomTime = storage.LifecycleRule{
		Filter:  storage.LifecycleFilter{Prefixes: []string{"p/<&>/"}},
		Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Days: 30, Clock: storage.LifecycleSinceCustomTime}},
	}
	moveDumps = storage.LifecycleRule{
		Filter: storage.LifecycleFilter{Prefixes: []string{"p/"}, Suffixes: []string{"/archive.dump"}, Classes: []string{"STANDARD", "NEARLINE"}},
		Actions: []storage.LifecycleAction{
			{Kind: storage.LifecycleTransition, Days: 30, Clock: storage.LifecycleSinceCreation, Class: "COLDLINE"}},
	}
)

// TestLifecycleForeignRules: what others wrote goes back byte for byte.
func TestLifecycleForeignRules(t *testing.T) {
	s := newRulesStub(t, `{"rule":[`+foreignRules+`]}`)
	b := s.open(t)
	l, err := b.Lifecycle(t.Context())
	if err != nil || len(l.Rules) != 4 || l.Revision != "41" {
		t.Fatalf("%+v, %v", l, err)
	}
	created := storage.LifecycleSinceCreation
	for i, want := range []storage.LifecycleRule{
		{Filter: storage.LifecycleFilter{Prefixes: []string{"logs/", "tmp/"}},
			Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Clock: created}}, Unknown: []string{"condition sizeAboveBytes"}},
		{Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpireNoncurrent, Clock: storage.LifecycleSinceNoncurrent, NewerVersions: 3}},
			Unknown: []string{"action why", "note"}},
		{Actions: []storage.LifecycleAction{{Kind: storage.LifecycleAbortUploads, Days: 3, Clock: created}}},
		{Actions: []storage.LifecycleAction{{Kind: storage.LifecycleTransition, Days: 30, Clock: created, Class: "NEARLINE",
			Before: time.Date(2030, 2, 1, 0, 0, 0, 0, time.UTC)}}, Unknown: []string{"condition isLive"}},
	} {
		got := l.Rules[i]
		got.Raw = nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("rule %d: %+v, want %+v", i, got, want)
		}
	}
	l.Rules = append(l.Rules, expireByCustomTime, moveDumps)
	if err := b.SetLifecycle(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if len(s.patches) != 1 || !strings.HasPrefix(s.patches[0], `{"lifecycle":{"rule":[`+foreignRules) {
		t.Errorf("sent %q", s.patches)
	}
	again, err := b.Lifecycle(t.Context())
	if err != nil || len(again.Rules) != 6 || again.Revision != "42" {
		t.Fatalf("%+v, %v", again, err)
	}
	for i, want := range []storage.LifecycleRule{expireByCustomTime, moveDumps} {
		got := again.Rules[4+i]
		got.Raw = nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// TestLifecycleLostReply: a patch whose reply was lost is repeated, meets its own
// work, and is no change of somebody else's.
func TestLifecycleLostReply(t *testing.T) {
	s := newRulesStub(t, `{}`)
	s.lose = 1
	b := s.open(t)
	l, err := b.Lifecycle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Rules = []storage.LifecycleRule{moveDumps}
	if err := b.SetLifecycle(t.Context(), l); err != nil || len(s.patches) != 2 || s.metageneration != 42 {
		t.Errorf("%v after %d patches, metageneration %d", err, len(s.patches), s.metageneration)
	}
	l.Rules = []storage.LifecycleRule{expireByCustomTime} // at the old revision
	if err := b.SetLifecycle(t.Context(), l); !errors.Is(err, storage.ErrChanged) || s.metageneration != 42 {
		t.Errorf("%v, metageneration %d", err, s.metageneration)
	}
}

// TestLifecycleStrictServer: what is written is what Cloud Storage takes; other
// settings of the bucket stay; a change of any of them counts as one.
func TestLifecycleStrictServer(t *testing.T) {
	s := startStrict(t, gcsserver.Options{Tokens: map[string]gcsserver.Permissions{"owner": {"*"}, "reader": {"storage.buckets.get"}}})
	bucket := s.bucketWith(t, map[string]any{"labels": map[string]any{"team": "x"}, "lifecycle": map[string]any{"future": true}})
	open := func(token string) *Bucket {
		cfg := s.quick(bucket)
		cfg.tokens = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token})
		return s.open(t, cfg)
	}
	b := open("owner")
	l, err := b.Lifecycle(t.Context())
	if err != nil || len(l.Rules) != 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	l.Rules = []storage.LifecycleRule{expireByCustomTime, moveDumps}
	if err := open("reader").SetLifecycle(t.Context(), l); !errors.Is(err, storage.ErrPermission) || !strings.Contains(err.Error(), "storage.buckets.update") {
		t.Errorf("without the right: %v", err)
	}
	if err := b.SetLifecycle(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	res, err := b.call(t.Context(), http.MethodGet, s.URL+"/storage/v1/b/"+bucket, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var settings struct {
		Labels    map[string]string
		Lifecycle struct {
			Future bool
			Rule   []map[string]any
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&settings); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"action": map[string]any{"type": "Delete"},
			"condition": map[string]any{"daysSinceCustomTime": 30.0, "matchesPrefix": []any{"p/<&>/"}}},
		{"action": map[string]any{"type": "SetStorageClass", "storageClass": "COLDLINE"},
			"condition": map[string]any{"age": 30.0, "matchesPrefix": []any{"p/"}, "matchesSuffix": []any{"/archive.dump"},
				"matchesStorageClass": []any{"STANDARD", "NEARLINE"}}},
	}
	if !reflect.DeepEqual(settings.Lifecycle.Rule, want) || !settings.Lifecycle.Future || settings.Labels["team"] != "x" {
		t.Errorf("the bucket has %+v", settings)
	}
	l, err = b.Lifecycle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.call(t.Context(), http.MethodPatch, s.URL+"/storage/v1/b/"+bucket, []byte(`{"labels":{"team":"y"}}`), nil); err != nil {
		t.Fatal(err)
	}
	l.Rules = l.Rules[:1]
	if err := b.SetLifecycle(t.Context(), l); !errors.Is(err, storage.ErrChanged) {
		t.Errorf("over a changed bucket: %v", err)
	}
	bad := moveDumps
	bad.Actions = []storage.LifecycleAction{{Kind: storage.LifecycleTransition, Days: 1, Clock: storage.LifecycleSinceCreation, Class: "TEPID"}}
	l, _ = b.Lifecycle(t.Context())
	l.Rules = append(l.Rules, bad)
	if err := b.SetLifecycle(t.Context(), l); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("a class that there is not: %v", err)
	}
	for name, r := range map[string]storage.LifecycleRule{
		"tags":    {Filter: storage.LifecycleFilter{Prefixes: []string{"p/"}, Tags: map[string]string{"a": "b"}}, Actions: moveDumps.Actions},
		"markers": {Filter: storage.LifecycleFilter{Prefixes: []string{"p/"}}, Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpireMarkers, Days: 1}}},
		"at once": {Filter: storage.LifecycleFilter{Prefixes: []string{"p/"}}, Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Clock: storage.LifecycleSinceCreation}}},
		"all":     {Actions: expireByCustomTime.Actions},
	} {
		l.Rules = []storage.LifecycleRule{r}
		if err := b.SetLifecycle(t.Context(), l); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, err := b.Lifecycle(t.Context()); err != nil || len(now.Rules) != 2 {
		t.Errorf("%+v, %v", now, err)
	}
}
