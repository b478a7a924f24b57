package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

const (
	classHeader   = "X-Amz-Storage-Class"
	archiveHeader = "X-Amz-Archive-Status"
	restoreHeader = "X-Amz-Restore"
)

func TestThawState(t *testing.T) {
	until := time.Date(2026, 12, 21, 0, 0, 0, 0, time.UTC)
	ready := `ongoing-request="false", expiry-date="Mon, 21 Dec 2026 00:00:00 GMT"`
	for name, c := range map[string]struct {
		headers  []string
		want     storage.Thaw
		readable bool // two weeks before
	}{
		"standard":               {nil, storage.Thaw{}, true},
		"instant":                {[]string{classHeader, "GLACIER_IR"}, storage.Thaw{}, true},
		"cold":                   {[]string{classHeader, "GLACIER"}, storage.Thaw{Cold: true}, false},
		"deep":                   {[]string{classHeader, "DEEP_ARCHIVE"}, storage.Thaw{Cold: true}, false},
		"under way":              {[]string{classHeader, "GLACIER", restoreHeader, `ongoing-request="true"`}, storage.Thaw{Cold: true, Ongoing: true}, false},
		"thawed":                 {[]string{classHeader, "GLACIER", restoreHeader, ready}, storage.Thaw{Cold: true, Until: until}, true},
		"without a date":         {[]string{classHeader, "GLACIER", restoreHeader, `ongoing-request="false"`}, storage.Thaw{Cold: true}, false},
		"nonsense":               {[]string{classHeader, "GLACIER", restoreHeader, `ongoing-request="`}, storage.Thaw{Cold: true}, false},
		"tiered":                 {[]string{classHeader, "INTELLIGENT_TIERING"}, storage.Thaw{}, true},
		"tiered down":            {[]string{classHeader, "INTELLIGENT_TIERING", archiveHeader, "ARCHIVE_ACCESS"}, storage.Thaw{Cold: true}, false},
		"tiered down, under way": {[]string{classHeader, "INTELLIGENT_TIERING", archiveHeader, "DEEP_ARCHIVE_ACCESS", restoreHeader, `ongoing-request="true"`}, storage.Thaw{Cold: true, Ongoing: true}, false},
		"expired": {[]string{classHeader, "GLACIER", restoreHeader, `ongoing-request="false", expiry-date="Sat, 21 Nov 2026 00:00:00 GMT"`},
			storage.Thaw{Cold: true, Until: until.AddDate(0, -1, 0)}, false},
	} {
		s := lockedStub(t, map[string]func(http.ResponseWriter){"HeadObject": heads(c.headers...)})
		o, err := mustOpen(t, s.config()).Stat(t.Context(), "k", "")
		if err != nil || o.Thaw != c.want || o.Thaw.Readable(until.AddDate(0, 0, -14)) != c.readable {
			t.Errorf("%s: %+v, %v", name, o.Thaw, err)
		}
	}
}

// TestThaw is each answer that a store may give, and what is asked of it.
func TestThaw(t *testing.T) {
	gl, deep := heads(classHeader, "GLACIER"), heads(classHeader, "DEEP_ARCHIVE")
	tiered := heads(classHeader, "INTELLIGENT_TIERING", archiveHeader, "ARCHIVE_ACCESS")
	says := func(status int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status) }
	}
	for name, c := range map[string]struct {
		head, reply func(http.ResponseWriter)
		tier        storage.ThawTier
		kind        error
		asked       string // what the request has to hold, "" where none is sent
		not         string
	}{
		"taken":              {gl, says(202), storage.ThawBulk, nil, "<Tier>Bulk</Tier>", ""},
		"prolonged":          {gl, says(200), storage.ThawStandard, nil, "<Days>5</Days>", ""},
		"expedited":          {gl, says(202), storage.ThawExpedited, nil, "<Tier>Expedited</Tier>", ""},
		"joined":             {gl, answer(409, "RestoreAlreadyInProgress"), storage.ThawStandard, nil, "<Days>5</Days>", ""},
		"no capacity":        {gl, answer(503, "GlacierExpeditedRetrievalNotAvailable"), storage.ThawExpedited, storage.ErrThawTier, "Expedited", ""},
		"deep":               {deep, says(202), storage.ThawBulk, nil, "Bulk", ""},
		"deep and expedited": {deep, nil, storage.ThawExpedited, storage.ErrThawTier, "", ""},
		"tiered":             {tiered, says(202), storage.ThawExpedited, nil, "Expedited", "Days"},
		"tiered deep":        {heads(classHeader, "INTELLIGENT_TIERING", archiveHeader, "DEEP_ARCHIVE_ACCESS"), nil, storage.ThawExpedited, storage.ErrThawTier, "", ""},
		"warm":               {heads(), nil, storage.ThawStandard, errors.ErrUnsupported, "", ""},
		"instant":            {heads(classHeader, "GLACIER_IR"), nil, storage.ThawStandard, errors.ErrUnsupported, "", ""},
		"moved meanwhile":    {gl, answer(403, "InvalidObjectState"), storage.ThawStandard, errors.ErrUnsupported, "Standard", ""},
		"a tier it has not": {gl, func(w http.ResponseWriter) {
			fail(w, 400, "InvalidArgument", "Retrieval option is not supported by this storage class")
		}, storage.ThawExpedited, storage.ErrThawTier, "Expedited", ""},
		"no right":             {gl, answer(403, "AccessDenied"), storage.ThawStandard, storage.ErrPermission, "Standard", ""},
		"no right to look":     {answer(403, "AccessDenied"), says(202), storage.ThawStandard, nil, "<Days>5</Days>", ""},
		"not there":            {answer(404, "NoSuchKey"), nil, storage.ThawStandard, storage.ErrNotExist, "", ""},
		"a tier nobody has":    {gl, nil, "tomorrow", storage.ErrThawTier, "", ""},
		"a store without any":  {gl, answer(501, "NotImplemented"), storage.ThawStandard, errors.ErrUnsupported, "Standard", ""},
		"a store that is down": {gl, answer(500, "InternalError"), storage.ThawStandard, storage.ErrUnavailable, "Standard", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := lockedStub(t, map[string]func(http.ResponseWriter){"HeadObject": c.head})
			var asked []string
			s.before(func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				if op != "RestoreObject" {
					return false
				}
				body, _ := io.ReadAll(r.Body)
				asked = append(asked, string(body))
				if r.URL.Query().Get("versionId") != "v" {
					t.Error("another version is asked for")
				}
				c.reply(w)
				return true
			})
			err := storage.StartThaw(t.Context(), mustOpen(t, s.config()), "k", "v", storage.ThawOptions{Tier: c.tier, Days: 5})
			if c.kind == nil && err != nil || c.kind != nil && !errors.Is(err, c.kind) || strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("Thaw: %v", err)
			}
			if (len(asked) > 0) != (c.asked != "") {
				t.Fatalf("asked: %q", asked)
			}
			if c.asked != "" && (!strings.Contains(asked[0], c.asked) || c.not != "" && strings.Contains(asked[0], c.not)) {
				t.Errorf("asked: %q", asked)
			}
			if errors.Is(err, storage.ErrThawTier) && len(asked) > 1 {
				t.Errorf("a tier that is not to be had was asked for %d times", len(asked))
			}
		})
	}
	if err := mustOpen(t, lockedStub(t, nil).config()).Thaw(t.Context(), "k", "", storage.ThawOptions{Tier: storage.ThawBulk}); err == nil {
		t.Error("a thaw for no day is taken")
	}
}

// TestColdRead: a read of what is not thawed says where it lies and what to do,
// at once, from Open; a copy that ends in mid-read ends the read.
func TestColdRead(t *testing.T) {
	state := func(w http.ResponseWriter) {
		w.WriteHeader(403)
		io.WriteString(w, "<Error><Code>InvalidObjectState</Code><Message>The operation is not valid for the object's storage class</Message>"+
			"<StorageClass>INTELLIGENT_TIERING</StorageClass><AccessTier>ARCHIVE_ACCESS</AccessTier><RequestId>R1</RequestId></Error>")
	}
	s := lockedStub(t, map[string]func(http.ResponseWriter){"GetObject": state})
	_, err := mustOpen(t, s.config()).Open(t.Context(), "k", storage.OpenOptions{})
	if text := fmt.Sprint(err); !errors.Is(err, storage.ErrCold) || errors.Is(err, storage.ErrUnavailable) ||
		!strings.Contains(text, "INTELLIGENT_TIERING (ARCHIVE_ACCESS)") || !strings.Contains(text, "pgstow thaw") || strings.Contains(text, "\n") ||
		!strings.Contains(text, "`aws s3api restore-object --bucket "+s.config().Bucket+" --key k --restore-request 'GlacierJobParameters={Tier=Standard}' --endpoint-url http") {
		t.Errorf("Open: %v", err)
	}
	if n := s.seen("GetObject"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	for word, want := range map[string]string{"pg/x-1.dump": "pg/x-1.dump", "it's here": `'it'\''s here'`, "$(x)": "'$(x)'", "": "''"} {
		if got := shellQuoted(word); got != want {
			t.Errorf("%q is quoted as %s", word, got)
		}
	}

	s = newStub(t)
	s.keep = true
	if _, err := put(t, s, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	s.script = func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
		switch {
		case op != "GetObject":
			return false
		case n > 0:
			state(w)
			return true
		}
		w.Header().Set("Content-Length", "2500")
		w.Header().Set("ETag", s.objects["k"].etag)
		w.Write(s.objects["k"].data[:1000])
		w.(http.Flusher).Flush()
		hangUp(w)
		return true
	}
	body, err := mustOpen(t, s.config()).Open(t.Context(), "k", storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); !errors.Is(err, storage.ErrCold) || !bytes.HasPrefix(noise(2500), got) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// TestThawOnMinIO: a rule moves an object to a tier named GLACIER, which is a
// bucket of versitygw; a thaw brings a copy back, and asking again is no error.
// MinIO reads from its tiers without a thaw.
func TestThawOnMinIO(t *testing.T) {
	far, srv := testenv.VersityGW(t), testenv.NewMinIO(t, testenv.S3Options{})
	tier, bucket := far.NewBucket(t, testenv.BucketOptions{}), srv.NewBucket(t, testenv.BucketOptions{})
	mc := exec.CommandContext(t.Context(), testenv.Tool(t, "mc"), "--config-dir", t.TempDir(), "ilm", "tier", "add", "minio", "m", "GLACIER",
		"--endpoint", far.Endpoint, "--access-key", far.AccessKey, "--secret-key", far.SecretKey, "--bucket", tier, "--prefix", "g/")
	mc.Env = append(mc.Environ(), "MC_HOST_m="+strings.Replace(srv.Endpoint, "http://", "http://"+srv.AccessKey+":"+srv.SecretKey+"@", 1))
	if out, err := mc.CombinedOutput(); err != nil {
		t.Fatalf("mc ilm tier add: %v: %s", err, out)
	}
	_, err := srv.Client().PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{Bucket: &bucket,
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
			ID: aws.String("away"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("")},
			Transitions: []types.Transition{{Days: aws.Int32(0), StorageClass: types.TransitionStorageClassGlacier}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, testConfig(srv, bucket))
	data := noise(2 * testPart)
	if _, err := b.Put(t.Context(), "k", bytes.NewReader(data), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	o := awaitThaw(t, b, func(o storage.Object) bool { return o.Thaw.Cold })
	if o.StorageClass != "GLACIER" || o.Thaw.Ongoing || !o.Thaw.Until.IsZero() {
		t.Errorf("moved: %+v", o)
	}
	sameContent(t, b, "k", data)
	for range 2 {
		if err := storage.StartThaw(t.Context(), b, "k", "", storage.ThawOptions{Tier: storage.ThawStandard, Days: 2}); err != nil {
			t.Fatal(err)
		}
	}
	o = awaitThaw(t, b, func(o storage.Object) bool { return !o.Thaw.Ongoing && !o.Thaw.Until.IsZero() })
	if !o.Thaw.Readable(time.Now()) || o.Thaw.Until.Before(time.Now().Add(24*time.Hour)) {
		t.Errorf("thawed: %+v", o.Thaw)
	}
	sameContent(t, b, "k", data)
}

// awaitThaw looks at k until it is as wanted.
func awaitThaw(t *testing.T, b *Bucket, is func(storage.Object) bool) storage.Object {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		o, err := b.Stat(t.Context(), "k", "")
		if err != nil {
			t.Fatal(err)
		}
		if is(o) {
			return o
		}
		if time.Now().After(deadline) {
			t.Fatalf("still: %+v", o)
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}
