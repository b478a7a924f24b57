package s3

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// rulesStub is S3 as far as its lifecycle documents go, which it keeps as bytes.
type rulesStub struct {
	*stub
	mu      sync.Mutex
	doc     string // "" is no configuration
	size    string // TransitionDefaultMinimumObjectSize
	reads   int
	writes  int
	edit    func(s *rulesStub)                                    // before each read
	refuse  func(w http.ResponseWriter, op string) (refused bool) // before everything
	request *http.Request
}

const sizeHeader = "X-Amz-Transition-Default-Minimum-Object-Size"

func newRulesStub(t *testing.T, doc string) *rulesStub {
	s := &rulesStub{stub: newStub(t), doc: doc}
	s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !strings.HasSuffix(op, "BucketLifecycle") {
			return false
		}
		if s.refuse != nil && s.refuse(w, op) {
			return true
		}
		switch op {
		case "GetBucketLifecycle":
			s.reads++
			if s.edit != nil {
				s.edit(s)
			}
			if s.doc == "" {
				fail(w, 404, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
				break
			}
			if s.size != "" {
				w.Header().Set(sizeHeader, s.size)
			}
			io.WriteString(w, s.doc)
		case "PutBucketLifecycle":
			s.put(t, w, r)
		case "DeleteBucketLifecycle":
			s.writes++
			s.doc, s.size = "", ""
			w.WriteHeader(204)
		}
		return true
	}
	return s
}

// put insists on a checksum over the body, as AWS does.
func (s *rulesStub) put(t *testing.T, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	sum, crc := md5.Sum(body), binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(body))
	sent, want := r.Header.Get("Content-Md5"), base64.StdEncoding.EncodeToString(sum[:])
	if sent == "" {
		sent, want = r.Header.Get("X-Amz-Checksum-Crc32"), base64.StdEncoding.EncodeToString(crc)
	}
	if sent != want {
		fail(w, 400, "BadDigest", fmt.Sprintf("checksum %q of a body with %q", sent, want))
		return
	}
	s.writes++
	s.doc, s.size, s.request = string(body), r.Header.Get(sizeHeader), r
	if s.size == "" {
		s.size = "all_storage_classes_128K" // what AWS falls back to
	}
	w.Header().Set(sizeHeader, s.size)
}

const foreignRules = `<Rule><ID>a stranger's &amp; old</ID><Prefix>logs/</Prefix><Status>Enabled</Status>` +
	`<Transition><Days>30</Days><StorageClass>STANDARD_IA</StorageClass></Transition>` +
	"<Transition><StorageClass>GLACIER</StorageClass>\n    <Days>90</Days></Transition>" +
	`<Expiration><Date>2031-01-01T00:00:00.000Z</Date></Expiration></Rule>` +
	`<Rule><ID>next year's</ID><Filter><And><Prefix>x</Prefix><Tag><Key>k</Key><Value></Value></Tag>` +
	`<Tag><Key>l</Key><Value>v</Value></Tag><ObjectSizeGreaterThan>500</ObjectSizeGreaterThan>` +
	`<AccessedBefore unit="d">9</AccessedBefore></And></Filter><Status>Disabled</Status><!-- why not -->` +
	`<Freeze mode="solid"><Depth>7</Depth></Freeze><NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays>` +
	`<NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>` +
	`<Rule><ID>abort</ID><Filter/><Status>Enabled</Status><AbortIncompleteMultipartUpload>` +
	`<DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>`

const oldRule = `<Rule><ID>ours</ID><Filter><Prefix>p/</Prefix></Filter><Status>Enabled</Status><Expiration><Days>9</Days></Expiration></Rule>`

func document(rules ...string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/" xmlns:x="urn:x">` +
		`<x:Mode>quiet</x:Mode>` + strings.Join(rules, "\n  ") + "\n</LifecycleConfiguration>"
}

var added = storage.LifecycleRule{
	ID:     "ours",
	Filter: storage.LifecycleFilter{Prefixes: []string{"p/"}, Tags: map[string]string{"role": "dump", "a": "<&>"}},
	Actions: []storage.LifecycleAction{
		{Kind: storage.LifecycleTransition, Days: 30, Clock: storage.LifecycleSinceCreation, Class: "GLACIER"},
		{Kind: storage.LifecycleTransition, Days: 180, Clock: storage.LifecycleSinceCreation, Class: "DEEP_ARCHIVE"},
	},
}

// TestLifecycleForeignRules: what others wrote goes back byte for byte, with
// elements that nobody here knows, abort rules, several transitions of one
// rule, what stands beside the rules, and the header that a plain PUT resets.
func TestLifecycleForeignRules(t *testing.T) {
	for _, checksum := range []string{ChecksumCRC64NVME, ChecksumMD5} {
		t.Run(checksum, func(t *testing.T) {
			s := newRulesStub(t, document(foreignRules, oldRule))
			s.size = "varies_by_storage_class"
			cfg := s.config()
			cfg.Checksum = checksum
			b := mustOpen(t, cfg)
			l, err := b.Lifecycle(t.Context())
			if err != nil || len(l.Rules) != 4 {
				t.Fatalf("%+v, %v", l, err)
			}
			l.Rules[3] = added
			if err := b.SetLifecycle(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{foreignRules, `<x:Mode>quiet</x:Mode>`, `xmlns:x="urn:x"`} {
				if !strings.Contains(s.doc, want) {
					t.Errorf("%s\nis lost in\n%s", want, s.doc)
				}
			}
			if s.size != "varies_by_storage_class" {
				t.Errorf("TransitionDefaultMinimumObjectSize became %q", s.size)
			}
			_, crc := s.request.Header["X-Amz-Checksum-Crc32"]
			if _, sum := s.request.Header["Content-Md5"]; sum != (checksum == ChecksumMD5) || crc == sum {
				t.Errorf("headers %v", s.request.Header)
			}
			again, err := b.Lifecycle(t.Context())
			if err != nil || len(again.Rules) != 4 {
				t.Fatalf("%+v, %v", again, err)
			}
			got := again.Rules[3]
			got.Raw = nil
			if !reflect.DeepEqual(got, added) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestLifecycleParse: what a rule says, and what of it is not understood.
func TestLifecycleParse(t *testing.T) {
	b := mustOpen(t, newRulesStub(t, document(foreignRules)).config())
	l, err := b.Lifecycle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.Rules {
		l.Rules[i].Raw = nil
	}
	created, noncurrent := storage.LifecycleSinceCreation, storage.LifecycleSinceNoncurrent
	want := []storage.LifecycleRule{
		{ID: "a stranger's & old", Filter: storage.LifecycleFilter{Prefixes: []string{"logs/"}}, Actions: []storage.LifecycleAction{
			{Kind: storage.LifecycleTransition, Days: 30, Clock: created, Class: "STANDARD_IA"},
			{Kind: storage.LifecycleTransition, Days: 90, Clock: created, Class: "GLACIER"},
			{Kind: storage.LifecycleExpire, Clock: created, Date: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)},
		}},
		{ID: "next year's", Disabled: true,
			Filter:  storage.LifecycleFilter{Prefixes: []string{"x"}, Tags: map[string]string{"k": "", "l": "v"}, LargerThan: 500},
			Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpireNoncurrent, Days: 3, Clock: noncurrent, NewerVersions: 2}},
			Unknown: []string{"Filter/And/AccessedBefore", "Freeze"}},
		{ID: "abort", Actions: []storage.LifecycleAction{{Kind: storage.LifecycleAbortUploads, Days: 3, Clock: created}}},
	}
	if !reflect.DeepEqual(l.Rules, want) {
		t.Errorf("got  %+v\nwant %+v", l.Rules, want)
	}
}

// TestLifecycleChangedBetween: an edit between our reading and our writing.
func TestLifecycleChangedBetween(t *testing.T) {
	for what, edit := range map[string]func(s *rulesStub){
		"a rule":   func(s *rulesStub) { s.doc = document(foreignRules, oldRule) },
		"a space":  func(s *rulesStub) { s.doc = strings.Replace(s.doc, "<Days>90", "<Days> 90", 1) },
		"its end":  func(s *rulesStub) { s.doc = "" },
		"the size": func(s *rulesStub) { s.size = "varies_by_storage_class" },
	} {
		s := newRulesStub(t, document(foreignRules))
		b := mustOpen(t, s.config())
		l, err := b.Lifecycle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.edit = func(s *rulesStub) { edit(s) }
		l.Rules = append(l.Rules, added)
		if err := b.SetLifecycle(t.Context(), l); !errors.Is(err, storage.ErrChanged) || s.writes != 0 {
			t.Errorf("%s: %v, %d writes", what, err, s.writes)
		}
	}
}

// TestLifecycleEmpty: no configuration is an empty document. The last rule takes
// the configuration with it, unless more stands in it.
func TestLifecycleEmpty(t *testing.T) {
	s := newRulesStub(t, "")
	b := mustOpen(t, s.config())
	l, err := b.Lifecycle(t.Context())
	if err != nil || len(l.Rules) != 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	if err := b.SetLifecycle(t.Context(), l); err != nil || s.writes != 0 {
		t.Errorf("nothing over nothing: %v, %d writes", err, s.writes)
	}
	l.Rules = []storage.LifecycleRule{added}
	if err := b.SetLifecycle(t.Context(), l); err != nil || !strings.HasPrefix(s.doc, lifecycleRoot+"<Rule><ID>ours") {
		t.Fatalf("%v: %s", err, s.doc)
	}
	if l, err = b.Lifecycle(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Rules = nil
	if err := b.SetLifecycle(t.Context(), l); err != nil || s.doc != "" || s.seen("DeleteBucketLifecycle") != 1 {
		t.Errorf("%v, left is %q", err, s.doc)
	}
	s.doc = document(oldRule)
	if l, err = b.Lifecycle(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Rules = nil
	if err := b.SetLifecycle(t.Context(), l); !errors.Is(err, errors.ErrUnsupported) || s.doc != document(oldRule) || !strings.Contains(err.Error(), "x:Mode") {
		t.Errorf("%v, left is %q", err, s.doc)
	}
}

// TestLifecycleErrors: each refusal is of its kind, in one line that helps.
func TestLifecycleErrors(t *testing.T) {
	for name, c := range map[string]struct {
		op         string
		status     int
		code, says string
		want       error
	}{
		"read denied":    {"GetBucketLifecycle", 403, "AccessDenied", "s3:GetLifecycleConfiguration", storage.ErrPermission},
		"write denied":   {"PutBucketLifecycle", 403, "AccessDenied", "s3:PutLifecycleConfiguration", storage.ErrPermission},
		"no rules":       {"GetBucketLifecycle", 501, "NotImplemented", "no lifecycle rules", errors.ErrUnsupported},
		"rule not taken": {"PutBucketLifecycle", 400, "MalformedXML", "nothing was changed", errors.ErrUnsupported},
		"class unknown":  {"PutBucketLifecycle", 400, "InvalidStorageClass", "nothing was changed", errors.ErrUnsupported},
		"no bucket":      {"GetBucketLifecycle", 404, "NoSuchBucket", "no such bucket", storage.ErrBucketNotExist},
	} {
		s := newRulesStub(t, "")
		s.refuse = func(w http.ResponseWriter, op string) bool {
			if op == c.op {
				fail(w, c.status, c.code, "said the store")
			}
			return op == c.op
		}
		b := mustOpen(t, s.config())
		l, err := b.Lifecycle(t.Context())
		if err == nil {
			l.Rules = []storage.LifecycleRule{added}
			err = b.SetLifecycle(t.Context(), l)
		}
		var e *storage.Error
		if !errors.Is(err, c.want) || !errors.As(err, &e) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLifecycleUnreadable: what cannot be taken apart is not written either.
func TestLifecycleUnreadable(t *testing.T) {
	for name, doc := range map[string]string{
		"another root":  "<LifeCycle>" + oldRule + "</LifeCycle>",
		"prefixed root": `<s:LifecycleConfiguration xmlns:s="urn:s">` + oldRule + `</s:LifecycleConfiguration>`,
		"cut off":       "<LifecycleConfiguration>" + oldRule,
		"no number":     document(strings.Replace(oldRule, ">9<", ">nine<", 1)),
		"no date":       document(strings.Replace(oldRule, "<Days>9</Days>", "<Date>soon</Date>", 1)),
	} {
		s := newRulesStub(t, doc)
		b := mustOpen(t, s.config())
		if l, err := b.Lifecycle(t.Context()); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

// TestLifecycleCannotSay: rules that S3 has no words for are refused before
// anything is sent.
func TestLifecycleCannotSay(t *testing.T) {
	s := newRulesStub(t, "")
	b := mustOpen(t, s.config())
	expire := storage.LifecycleAction{Kind: storage.LifecycleExpire, Days: 1, Clock: storage.LifecycleSinceCreation}
	custom := expire
	custom.Clock = storage.LifecycleSinceCustomTime
	prefix := storage.LifecycleFilter{Prefixes: []string{"p/"}}
	for name, r := range map[string]storage.LifecycleRule{
		"no id":       {Filter: prefix, Actions: []storage.LifecycleAction{expire}},
		"no prefix":   {ID: "x", Actions: []storage.LifecycleAction{expire}},
		"suffix":      {ID: "x", Filter: storage.LifecycleFilter{Prefixes: []string{"p/"}, Suffixes: []string{"z"}}, Actions: []storage.LifecycleAction{expire}},
		"custom time": {ID: "x", Filter: prefix, Actions: []storage.LifecycleAction{custom}},
		"twice":       {ID: "x", Filter: prefix, Actions: []storage.LifecycleAction{expire, {Kind: storage.LifecycleExpireMarkers}}},
	} {
		l, err := b.Lifecycle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Rules = []storage.LifecycleRule{r}
		if err := b.SetLifecycle(t.Context(), l); !errors.Is(err, errors.ErrUnsupported) || s.writes != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLifecycleSplit: whatever a document looks like, its rules are cut out byte
// for byte, and joining them gives a document with the same rules.
func TestLifecycleSplit(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	for range 2000 {
		var rules []string
		for range rnd.IntN(5) {
			var b strings.Builder
			b.WriteString(pick("<Rule>", "<Rule >", "<Rule\n a='>' b=\"/>\">"))
			for range rnd.IntN(6) {
				b.WriteString(pick(" ", "\r\n\t", "<ID>é&#x20;&lt;/Rule&gt;</ID>", "<!-- </Rule> <Rule> -->", "<Rule><Days>1</Days></Rule>",
					"<![CDATA[</Rule>]]>", "<Filter/>", "<x:y xmlns:x='u'>&amp;</x:y>", "<?pi </Rule>?>"))
			}
			b.WriteString(pick("</Rule>", "</Rule >"))
			rules = append(rules, b.String())
		}
		doc := pick("", `<?xml version="1.0" encoding="UTF-8"?>`) + pick("", "\n", "<!-- head -->") +
			pick("<LifecycleConfiguration>", lifecycleRoot) + strings.Join(rules, pick("", "\n", "<Other/>", "<!-- between -->")) + "</LifecycleConfiguration>\n"
		got, err := splitLifecycle([]byte(doc))
		if err != nil {
			t.Fatalf("seed %d: %v in %q", seed, err, doc)
		}
		cut := make([]string, len(got.rules))
		for i, r := range got.rules {
			cut[i] = string(r)
		}
		if !slices.Equal(cut, rules) {
			t.Fatalf("seed %d: %q\nis cut into %q", seed, doc, cut)
		}
		again, err := splitLifecycle(got.bytes())
		if err != nil || !slices.EqualFunc(again.rules, got.rules, bytes.Equal) || again.revision() != got.revision() {
			t.Fatalf("seed %d: %q becomes %q, %v", seed, doc, got.bytes(), err)
		}
	}
}
