package archiver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/s3"
)

// door lets credentials into a bucket that may do what a policy allows.
type door struct {
	endpoint, key, secret string
	allow                 func(t testing.TB, p iamPolicy)
}

func (d door) open(t testing.TB, bucket, prefix string) storage.Bucket {
	t.Helper()
	b, err := s3.Open(t.Context(), s3.Config{
		Bucket: bucket, Region: "us-east-1", Endpoint: d.endpoint, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(d.key, d.secret, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return storage.Prefixed(b, prefix)
}

// minioDoor is a user of MinIO's, under MinIO's own judgement.
func minioDoor(t testing.TB) door {
	srv := testenv.MinIO(t)
	text := func(p iamPolicy) string {
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	nothing := iamPolicy{Version: "2012-10-17", Statement: []iamStatement{{Effect: "Deny", Action: []string{"s3:*"}, Resource: []string{"arn:aws:s3:::*"}}}}
	user := srv.NewUser(t, text(nothing))
	return door{endpoint: srv.Endpoint, key: user.Name, secret: user.Secret,
		allow: func(t testing.TB, p iamPolicy) { user.Allow(t, text(p)) }}
}

// awsDoor judges requests as AWS documents it, before MinIO answers them: MinIO
// asks for fewer rights. Resources and prefixes are MinIO's to judge.
func awsDoor(t testing.TB) door {
	srv := testenv.MinIO(t)
	target, err := url.Parse(srv.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var policy iamPolicy
	current := func() iamPolicy {
		mu.Lock()
		defer mu.Unlock()
		return policy
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host },
		ModifyResponse: func(r *http.Response) error {
			hide(current().actions("Allow"), r)
			return nil
		},
	}
	root := rootClient(t, srv)
	judge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if current().lets(actionsOf(r), knownOf(r, root)) {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		if r.Method != http.MethodHead {
			w.Write([]byte(`<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>`))
		}
	}))
	t.Cleanup(judge.Close)
	return door{endpoint: judge.URL, key: srv.AccessKey, secret: srv.SecretKey,
		allow: func(_ testing.TB, p iamPolicy) {
			mu.Lock()
			defer mu.Unlock()
			policy = p
		}}
}

// actionsOf are the rights that AWS wants for a request.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
func actionsOf(r *http.Request) []string {
	q := r.URL.Query()
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	versioned := ""
	if q.Get("versionId") != "" {
		versioned = "Version"
	}
	creating := func() []string {
		all := []string{"s3:PutObject"}
		for header, action := range map[string]string{
			"X-Amz-Tagging": "s3:PutObjectTagging", "X-Amz-Object-Lock-Mode": "s3:PutObjectRetention",
			"X-Amz-Object-Lock-Legal-Hold": "s3:PutObjectLegalHold",
		} {
			if r.Header.Get(header) != "" {
				all = append(all, action)
			}
		}
		return all
	}
	for _, rule := range []struct {
		method, param string // GET is HEAD too; a param is there
		inBucket      bool
		actions       func() []string
	}{
		{"GET", "versioning", true, one("s3:GetBucketVersioning")},
		{"GET", "object-lock", true, one("s3:GetBucketObjectLockConfiguration")},
		{"GET", "versions", true, one("s3:ListBucketVersions")},
		{"GET", "uploads", true, one("s3:ListBucketMultipartUploads")},
		{"GET", "lifecycle", true, one("s3:GetLifecycleConfiguration")},
		{"PUT", "lifecycle", true, one("s3:PutLifecycleConfiguration")},
		{"GET", "", true, one("s3:ListBucket")},
		{"GET", "tagging", false, one("s3:GetObject" + versioned + "Tagging")},
		{"GET", "retention", false, one("s3:GetObjectRetention")},
		{"GET", "legal-hold", false, one("s3:GetObjectLegalHold")},
		{"GET", "uploadId", false, one("s3:ListMultipartUploadParts")},
		{"GET", "", false, one("s3:GetObject" + versioned)},
		{"PUT", "retention", false, one("s3:PutObjectRetention")},
		{"PUT", "legal-hold", false, one("s3:PutObjectLegalHold")},
		{"PUT", "tagging", false, one("s3:PutObject" + versioned + "Tagging")},
		{"PUT", "", false, creating},
		{"POST", "delete", true, one("s3:DeleteObjectVersion")}, // pgstow's batches are of versions
		{"POST", "uploads", false, creating},
		{"POST", "uploadId", false, one("s3:PutObject")},
		{"POST", "restore", false, one("s3:RestoreObject")},
		{"DELETE", "uploadId", false, one("s3:AbortMultipartUpload")},
		{"DELETE", "", false, one("s3:DeleteObject" + versioned)},
	} {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if rule.method == method && rule.inBucket == (key == "") && (rule.param == "" || q.Has(rule.param)) {
			return rule.actions()
		}
	}
	return []string{"unknown: " + r.Method + " " + r.URL.String()}
}

func one(action string) func() []string { return func() []string { return []string{action} } }

// hide takes from an answer what AWS shows only to those who may see it.
func hide(allowed []string, r *http.Response) {
	for action, headers := range map[string][]string{
		"s3:GetObjectRetention": {"X-Amz-Object-Lock-Mode", "X-Amz-Object-Lock-Retain-Until-Date"},
		"s3:GetObjectLegalHold": {"X-Amz-Object-Lock-Legal-Hold"},
		"s3:GetObjectTagging":   {"X-Amz-Tagging-Count"},
	} {
		if action == "s3:GetObjectTagging" && r.Request.URL.Query().Get("versionId") != "" {
			action = "s3:GetObjectVersionTagging"
		}
		if !slices.Contains(allowed, action) {
			for _, h := range headers {
				r.Header.Del(h)
			}
		}
	}
}

// without is the policy less one action.
func (p iamPolicy) without(action string) iamPolicy {
	var less iamPolicy
	less.Version = p.Version
	for _, s := range p.Statement {
		if s.Effect == "Allow" {
			s.Action = slices.DeleteFunc(slices.Clone(s.Action), func(a string) bool { return a == action })
		}
		if len(s.Action) > 0 {
			less.Statement = append(less.Statement, s)
		}
	}
	return less
}
