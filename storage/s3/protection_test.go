package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// lockedStub has object lock, and answers operations as replies says, by name.
func lockedStub(t *testing.T, replies map[string]func(http.ResponseWriter)) *stub {
	t.Helper()
	s := newStub(t)
	all := map[string]func(http.ResponseWriter){
		"GetBucketVersioning": says("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
		"GetObjectLockConfiguration": says("<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>" +
			"<Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Years>7</Years></DefaultRetention></Rule></ObjectLockConfiguration>"),
		"GetObjectTagging":   says("<Tagging><TagSet/></Tagging>"),
		"GetObjectRetention": answer(404, "NoSuchObjectLockConfiguration"),
		"GetObjectLegalHold": answer(404, "NoSuchObjectLockConfiguration"),
	}
	for op, reply := range replies {
		all[op] = reply
	}
	s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		reply := all[op]
		if reply == nil {
			return false
		}
		io.Copy(io.Discard, r.Body)
		reply(w)
		return true
	}
	return s
}

func says(body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { io.WriteString(w, body) }
}

// heads answers HEAD with headers.
func heads(pairs ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("ETag", `"e"`)
		for i := 0; i < len(pairs); i += 2 {
			w.Header().Set(pairs[i], pairs[i+1])
		}
	}
}

const (
	lockHeader  = "X-Amz-Object-Lock-Mode"
	untilHeader = "X-Amz-Object-Lock-Retain-Until-Date"
	holdHeader  = "X-Amz-Object-Lock-Legal-Hold"
)

// TestStatTellsDeniedFromAbsent: HEAD shows neither of the two.
func TestStatTellsDeniedFromAbsent(t *testing.T) {
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	stamp := until.Format("2006-01-02T15:04:05Z")
	retained := says("<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>" + stamp + "</RetainUntilDate></Retention>")
	held := says("<LegalHold><Status>ON</Status></LegalHold>")
	lock := storage.Retention{Mode: storage.Compliance, Until: until}
	type replies = map[string]func(http.ResponseWriter)
	for name, c := range map[string]struct {
		replies replies
		want    storage.Object
		asked   []int // retention, hold, tags, in two Stats
	}{
		"there is none": {replies{"HeadObject": heads()}, storage.Object{}, []int{2, 2, 1}},
		"all denied": {replies{"HeadObject": heads(), "GetObjectRetention": answer(403, "AccessDenied"),
			"GetObjectLegalHold": answer(403, "AccessDenied"), "GetObjectTagging": answer(403, "AccessDenied")},
			storage.Object{Denied: []storage.Attribute{storage.AttributeRetention, storage.AttributeLegalHold, storage.AttributeTags}}, []int{2, 2, 2}},
		"retention denied": {replies{"HeadObject": heads(holdHeader, "OFF"), "GetObjectRetention": answer(403, "AccessDenied")},
			storage.Object{Denied: []storage.Attribute{storage.AttributeRetention}}, []int{2, 0, 1}},
		"hold denied": {replies{"HeadObject": heads(lockHeader, "COMPLIANCE", untilHeader, stamp), "GetObjectLegalHold": answer(403, "AccessDenied")},
			storage.Object{Retention: lock, Denied: []storage.Attribute{storage.AttributeLegalHold}}, []int{0, 2, 1}},
		"all shown": {replies{"HeadObject": heads(lockHeader, "COMPLIANCE", untilHeader, stamp, holdHeader, "ON")},
			storage.Object{Retention: lock, LegalHold: true}, []int{0, 0, 1}},
		"retained, no hold": {replies{"HeadObject": heads(lockHeader, "COMPLIANCE", untilHeader, stamp)},
			storage.Object{Retention: lock}, []int{0, 1, 1}},
		"HEAD drops the headers": {replies{"HeadObject": heads(), "GetObjectRetention": retained, "GetObjectLegalHold": held},
			storage.Object{Retention: lock, LegalHold: true}, []int{2, 2, 1}},
		"no lock, not known before": {replies{"HeadObject": heads(), "GetObjectLockConfiguration": answer(403, "AccessDenied"),
			"GetObjectRetention": invalid, "GetObjectLegalHold": invalid}, storage.Object{}, []int{1, 0, 1}},
		"no lock": {replies{"HeadObject": heads(), "GetObjectLockConfiguration": answer(404, "ObjectLockConfigurationNotFoundError")},
			storage.Object{}, []int{0, 0, 1}},
		"no tags in this store": {replies{"HeadObject": heads(), "GetObjectTagging": answer(400, "Unsupported")}, storage.Object{}, []int{2, 2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s := lockedStub(t, c.replies)
			b := mustOpen(t, s.config())
			for range 2 {
				o, err := b.Stat(t.Context(), "k", "v")
				if err != nil {
					t.Fatal(err)
				}
				if o.Retention != c.want.Retention || o.LegalHold != c.want.LegalHold || !slices.Equal(o.Denied, c.want.Denied) {
					t.Errorf("Stat shows %+v, %t, denied %q", o.Retention, o.LegalHold, o.Denied)
				}
			}
			if asked := []int{s.seen("GetObjectRetention"), s.seen("GetObjectLegalHold"), s.seen("GetObjectTagging")}; !slices.Equal(asked, c.asked) {
				t.Errorf("the store was asked %v times, expected %v", asked, c.asked)
			}
		})
	}
	t.Run("failure", func(t *testing.T) {
		s := lockedStub(t, replies{"HeadObject": heads(), "GetObjectLegalHold": answer(500, "InternalError")})
		if o, err := mustOpen(t, s.config()).Stat(t.Context(), "k", ""); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("Stat: %+v, %v", o, err)
		}
	})
}

// invalid is what AWS says of a bucket without lock.
func invalid(w http.ResponseWriter) {
	fail(w, 400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
}

// TestDeleteNeedsProof: AccessDenied is a lock only where one is seen.
func TestDeleteNeedsProof(t *testing.T) {
	until := time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z")
	for name, c := range map[string]struct {
		retention func(http.ResponseWriter)
		kind      error
	}{
		"locked":   {says("<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>" + until + "</RetainUntilDate></Retention>"), storage.ErrLocked},
		"no right": {answer(404, "NoSuchObjectLockConfiguration"), storage.ErrPermission},
		"unknown":  {answer(403, "AccessDenied"), storage.ErrPermission},
	} {
		s := lockedStub(t, map[string]func(http.ResponseWriter){
			"HeadObject": heads(), "DeleteObject": answer(403, "AccessDenied"), "GetObjectRetention": c.retention})
		if err := mustOpen(t, s.config()).Delete(t.Context(), "k", "v"); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProbes: what a bucket says of itself, and what it may not be asked.
func TestProbes(t *testing.T) {
	s := lockedStub(t, nil)
	caps := mustOpen(t, s.config()).Capabilities()
	if want := (storage.DefaultRetention{Mode: storage.Governance, Years: 7}); caps.DefaultRetention != want || !caps.ObjectLock || caps.Unprobed != nil {
		t.Errorf("capabilities: %+v", caps)
	}
	denied := lockedStub(t, map[string]func(http.ResponseWriter){
		"GetBucketVersioning": answer(403, "AccessDenied"), "GetObjectLockConfiguration": answer(403, "AccessDenied")})
	denied.before(func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
		w.Header().Set("Date", time.Now().Add(-2*time.Hour).UTC().Format(http.TimeFormat))
		return false
	})
	caps = mustOpen(t, denied.config()).Capabilities()
	if off := caps.ClockSkew - 2*time.Hour; off.Abs() > time.Minute {
		t.Errorf("our clock is %s ahead of the store's", caps.ClockSkew)
	}
	if !slices.Equal(caps.Unprobed, []string{"s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration"}) || caps.ObjectLock || caps.Versions {
		t.Errorf("capabilities without rights: %+v", caps)
	}
}

// TestLocksRefusedWithRemedy: a bucket that cannot lock is refused before the
// first Read, with the commands that change it, whether or not it could be asked
// before.
func TestLocksRefusedWithRemedy(t *testing.T) {
	lock := storage.Retention{Mode: storage.Compliance, Until: time.Now().Add(time.Hour)}
	const (
		versions = "aws s3api put-bucket-versioning --bucket stub --versioning-configuration Status=Enabled"
		enable   = "aws s3api put-object-lock-configuration --bucket stub --object-lock-configuration ObjectLockEnabled=Enabled"
	)
	type replies = map[string]func(http.ResponseWriter)
	noLock := answer(404, "ObjectLockConfigurationNotFoundError")
	for name, c := range map[string]struct {
		replies replies
		want    string
		not     string
	}{
		"versions off": {replies{"GetBucketVersioning": says("<VersioningConfiguration/>"), "GetObjectLockConfiguration": noLock}, versions, ""},
		"versions suspended": {replies{"GetBucketVersioning": says("<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"),
			"GetObjectLockConfiguration": noLock}, versions, ""},
		"versions on": {replies{"GetObjectLockConfiguration": noLock}, enable, versions},
		"not asked before": {replies{"GetObjectLockConfiguration": answer(403, "AccessDenied"),
			"CreateMultipartUpload": invalid}, enable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := mustOpen(t, lockedStub(t, c.replies).config())
			for what, opts := range map[string]storage.PutOptions{"retention": {Retention: lock}, "hold": {LegalHold: true}} {
				unread := readerFunc(func([]byte) (int, error) { t.Error("the source was read"); return 0, io.EOF })
				_, err := b.Put(t.Context(), "k", unread, opts)
				text := fmt.Sprint(err)
				if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(text, enable) || !strings.Contains(text, c.want) ||
					c.not != "" && strings.Contains(text, c.not) || strings.Contains(text, "\n") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// TestRemedyWorks runs the commands of a refusal against real servers. MinIO
// alone does not switch object lock on in a bucket that exists.
func TestRemedyWorks(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			srv := start(t)
			bucket := srv.NewBucket(t, testenv.BucketOptions{})
			lock := storage.PutOptions{Size: 3, Retention: storage.Retention{Mode: storage.Governance, Until: time.Now().Add(time.Hour)}}
			_, err := mustOpen(t, testConfig(srv, bucket)).Put(t.Context(), "k", strings.NewReader("abc"), lock)
			_, rest, _ := strings.Cut(fmt.Sprint(err), "`")
			commands, _, ok := strings.Cut(rest, "`")
			if !errors.Is(err, errors.ErrUnsupported) || !ok {
				t.Fatalf("Put: %v", err)
			}
			if strings.Contains(commands, " NEW ") {
				bucket += "-new"
				commands = strings.ReplaceAll(commands, " NEW ", " "+bucket+" ")
			}
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", strings.ReplaceAll(commands, "aws s3api", testenv.Tool(t, "aws")+" s3api"))
			for _, v := range append(cmd.Environ(), srv.Env()...) {
				if !strings.HasPrefix(v, "AWS_PROFILE=") { // aws does not take an empty one for none
					cmd.Env = append(cmd.Env, v)
				}
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", commands, err, out)
			}
			o, err := mustOpen(t, testConfig(srv, bucket)).Put(t.Context(), "k", strings.NewReader("abc"), lock)
			if err != nil || o.Retention.IsZero() {
				t.Errorf("Put after the remedy: %+v, %v", o, err)
			}
		})
	}
}

// TestEncryptionHeaders: both creating requests ask for it, and put-only
// credentials see it in the reply.
func TestEncryptionHeaders(t *testing.T) {
	const key = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd"
	for mode, want := range map[storage.Encryption]string{
		{Mode: storage.EncryptionStore}: "AES256", {Mode: storage.EncryptionKMS}: "aws:kms", {Mode: storage.EncryptionKMS, Key: key}: "aws:kms", {}: "",
	} {
		for way, opts := range map[string]storage.PutOptions{"stream": {}, "known": {Size: 2500}, "empty": {}} {
			s := newStub(t)
			data := noise(2500)
			if way == "empty" {
				data = nil
			}
			var seen []string
			s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				switch op {
				case "CreateMultipartUpload", "PutObject":
					seen = append(seen, r.Header.Get("X-Amz-Server-Side-Encryption")+" "+r.Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"))
				case "HeadObject":
					fail(w, 403, "AccessDenied", "no")
					return true
				}
				if want != "" && (op == "CompleteMultipartUpload" || op == "PutObject") {
					w.Header().Set("X-Amz-Server-Side-Encryption", want)
					w.Header().Set("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", mode.Key)
				}
				return false
			}
			opts.Encryption = mode
			o, err := mustOpen(t, s.config()).Put(t.Context(), "k", bytes.NewReader(data), opts)
			if err != nil || o.Encryption != mode || len(o.Denied) != 3 {
				t.Errorf("%s %+v: %+v, %v", way, mode, o, err)
			}
			for _, got := range seen {
				if got != want+" "+mode.Key {
					t.Errorf("%s %+v: the request asks for %q", way, mode, got)
				}
			}
			if len(seen) == 0 {
				t.Error("no creating request was seen")
			}
		}
	}
}

// TestKMSErrors: what the key service refuses, and what to do.
func TestKMSErrors(t *testing.T) {
	for _, c := range []struct {
		status        int
		code, message string
		kind          error
		text          string
	}{
		{403, "AccessDenied", "User: arn:aws:iam::1:user/u is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:x:1:key/k", storage.ErrPermission, "kms:Decrypt"},
		{403, "AccessDenied", "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.", storage.ErrPermission, "kms:Decrypt"},
		{400, "KMS.NotFoundException", "Invalid keyId", errors.ErrUnsupported, "no such key"},
		{400, "KMS.DisabledException", "arn:aws:kms:x:1:key/k is disabled.", storage.ErrPermission, "enable the KMS key"},
	} {
		s := lockedStub(t, map[string]func(http.ResponseWriter){
			"CreateMultipartUpload": func(w http.ResponseWriter) { fail(w, c.status, c.code, c.message) }})
		unread := readerFunc(func([]byte) (int, error) { t.Error("the source was read"); return 0, io.EOF })
		_, err := mustOpen(t, s.config()).Put(t.Context(), "k", unread, storage.PutOptions{Encryption: storage.Encryption{Mode: storage.EncryptionKMS, Key: "k"}})
		if !errors.Is(err, c.kind) || errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.code, err)
		}
	}
}

// TestEncryptionOnMinIO: a key that is not there is refused unread, MD5 sums are
// not compared with the ETags of encrypted objects, and a bucket that encrypts by
// itself is shown to.
func TestEncryptionOnMinIO(t *testing.T) {
	srv := testenv.MinIO(t)
	bucket := srv.NewBucket(t, testenv.BucketOptions{})
	cfg := testConfig(srv, bucket)
	unread := readerFunc(func([]byte) (int, error) { t.Error("the source was read"); return 0, io.EOF })
	_, err := mustOpen(t, cfg).Put(t.Context(), "k", unread, storage.PutOptions{Encryption: storage.Encryption{Mode: storage.EncryptionKMS, Key: "no-such-key"}})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Put with an unknown key: %v", err)
	}
	cfg.Checksum = ChecksumMD5
	b := mustOpen(t, cfg)
	data := noise(testPart + 1)
	for _, mode := range []storage.Encryption{{Mode: storage.EncryptionStore}, {Mode: storage.EncryptionKMS}} {
		for way, opts := range map[string]storage.PutOptions{"stream": {}, "known": {Size: int64(len(data))}} {
			key := string(mode.Mode) + way
			opts.Encryption = mode
			if _, err := b.Put(t.Context(), key, bytes.NewReader(data), opts); err != nil {
				t.Errorf("%s: %v", key, err)
				continue
			}
			sameContent(t, b, key, data)
		}
	}
	_, err = srv.Client().PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{Bucket: &bucket,
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if o, err := b.Put(t.Context(), "default", bytes.NewReader(data), storage.PutOptions{}); err != nil || o.Encryption.Mode != storage.EncryptionStore {
		t.Errorf("in a bucket that encrypts: %+v, %v", o, err)
	}
}
