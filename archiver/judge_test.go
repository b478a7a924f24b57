package archiver

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/pgstow/pgstow/internal/testenv"
)

// lets judges as IAM does: each action is allowed by some statement and denied
// by none. known are the condition keys that a request fills.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
func (p iamPolicy) lets(actions []string, known map[string][]string) bool {
	says := func(effect, action string) bool {
		return slices.ContainsFunc(p.Statement, func(s iamStatement) bool {
			return s.Effect == effect && (slices.Contains(s.Action, action) || slices.Contains(s.Action, "s3:*")) && s.Condition.holds(known)
		})
	}
	return !slices.ContainsFunc(actions, func(action string) bool { return !says("Allow", action) || says("Deny", action) })
}

func (c iamCondition) holds(known map[string][]string) bool {
	for operator, keys := range c {
		for key, want := range keys {
			if !holds(operator, known[key], want) {
				return false
			}
		}
	}
	return true
}

// holds is one operator. A key that the request does not fill matches nothing
// but Null and ForAllValues.
func holds(operator string, got, want []string) bool {
	equal := func(v string) bool { return slices.Contains(want, v) }
	switch operator {
	case "StringEquals":
		return slices.ContainsFunc(got, equal)
	case "ForAllValues:StringEquals":
		return !slices.ContainsFunc(got, func(v string) bool { return !equal(v) })
	case "StringLike":
		return slices.ContainsFunc(got, func(v string) bool {
			return slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(v, strings.TrimSuffix(w, "*")) })
		})
	case "NumericGreaterThan":
		return slices.ContainsFunc(got, func(v string) bool {
			has, _ := strconv.ParseFloat(v, 64)
			limit, err := strconv.ParseFloat(want[0], 64)
			return err == nil && has > limit
		})
	case "Null":
		return slices.Contains(want, strconv.FormatBool(len(got) == 0))
	}
	panic("the judge does not know " + operator)
}

// rootClient asks MinIO what conditions want to know and requests do not say.
func rootClient(t testing.TB, srv *testenv.S3) *awss3.Client {
	t.Helper()
	return awss3.New(awss3.Options{Region: "us-east-1", BaseEndpoint: aws.String(srv.Endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, "")})
}

// knownOf are the condition keys that S3 fills for a request: of tags, holds and
// locks by its headers when it creates an object, by its body later.
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
func knownOf(r *http.Request, root *awss3.Client) map[string][]string {
	known := map[string][]string{"s3:prefix": {r.URL.Query().Get("prefix")}}
	set := func(key, value string) {
		if value != "" {
			known[key] = []string{value}
		}
	}
	tag := func(key, value string) {
		known["s3:RequestObjectTagKeys"] = append(known["s3:RequestObjectTagKeys"], key)
		set("s3:RequestObjectTag/"+key, value)
	}
	lock := func(mode, until string) {
		set("s3:object-lock-mode", mode)
		if at, err := time.Parse(time.RFC3339, until); err == nil {
			set("s3:object-lock-remaining-retention-days", strconv.FormatFloat(time.Until(at).Hours()/24, 'f', 6, 64))
		}
	}
	lock(r.Header.Get("X-Amz-Object-Lock-Mode"), r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	set("s3:object-lock-legal-hold", r.Header.Get("X-Amz-Object-Lock-Legal-Hold"))
	header, _ := url.ParseQuery(r.Header.Get("X-Amz-Tagging"))
	for key := range header {
		tag(key, header.Get(key))
	}
	q := r.URL.Query()
	if r.Method != http.MethodPut || !q.Has("legal-hold") && !q.Has("retention") && !q.Has("tagging") {
		return known
	}
	var body struct {
		Status          string // of a hold
		Mode            string // of a lock
		RetainUntilDate string
		TagSet          struct{ Tag []struct{ Key, Value string } }
	}
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = xml.Unmarshal(raw, &body)
	}
	if err != nil {
		panic(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	// What the body asks for counts; a header would be a lie.
	delete(known, "s3:object-lock-legal-hold")
	set("s3:object-lock-legal-hold", body.Status)
	lock(body.Mode, body.RetainUntilDate)
	for _, x := range body.TagSet.Tag {
		tag(x.Key, x.Value)
	}
	if q.Has("tagging") {
		bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		in := &awss3.GetObjectTaggingInput{Bucket: &bucket, Key: &key}
		if v := q.Get("versionId"); v != "" {
			in.VersionId = &v
		}
		out, err := root.GetObjectTagging(r.Context(), in)
		if err != nil {
			panic(err)
		}
		for _, x := range out.TagSet {
			set("s3:ExistingObjectTag/"+aws.ToString(x.Key), aws.ToString(x.Value))
		}
	}
	return known
}
