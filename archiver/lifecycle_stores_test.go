package archiver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/gcs"
)

// mc runs MinIO's own client against srv, which it knows as "m".
func mc(t testing.TB, srv *testenv.S3, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testenv.Tool(t, "mc"), append([]string{"--config-dir", t.TempDir()}, args...)...)
	cmd.Env = append(os.Environ(), "MC_HOST_m="+strings.Replace(srv.Endpoint, "http://", "http://"+srv.AccessKey+":"+srv.SecretKey+"@", 1))
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("mc %s: %v: %s", strings.Join(args[:2], " "), err, out)
	}
	return string(out)
}

// tiers makes GLACIER and DEEP_ARCHIVE classes of MinIO, which are buckets of a
// versitygw.
func tiers(t testing.TB, srv *testenv.S3) {
	t.Helper()
	remote := testenv.VersityGW(t)
	bucket := remote.NewBucket(t, testenv.BucketOptions{})
	for _, class := range []string{"GLACIER", "DEEP_ARCHIVE"} {
		mc(t, srv, "", "ilm", "tier", "add", "minio", "m", class, "--endpoint", remote.Endpoint, "--access-key", remote.AccessKey,
			"--secret-key", remote.SecretKey, "--bucket", bucket, "--prefix", strings.ToLower(class)+"/")
	}
}

// strangersRules are rules that MinIO's own client puts there: one with an
// element that no S3 SDK knows.
const strangersRules = `{"Rules":[
	{"ID":"logs","Status":"Enabled","Filter":{"Prefix":"logs/"},"Expiration":{"Days":3}},
	{"ID":"all versions","Status":"Enabled","Filter":{"And":{"Prefix":"tmp/","Tags":[{"Key":"a","Value":"b & c"}]}},"Expiration":{"Days":9,"ExpiredObjectAllVersions":true}},
	{"ID":"off","Status":"Disabled","NoncurrentVersionExpiration":{"NoncurrentDays":4,"NewerNoncurrentVersions":2}}]}`

func rawRules(t testing.TB, b storage.Bucket) map[string]string {
	t.Helper()
	l, err := storage.ReadLifecycle(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, r := range l.Rules {
		all[r.ID] = string(r.Raw)
	}
	return all
}

// TestLifecycleMinIO: rules of others, one of them with what only MinIO knows,
// and ours of another prefix come through; twice changes nothing; MinIO itself
// tells which rule ends which object and when; what it drops is a failure.
func TestLifecycleMinIO(t *testing.T) {
	srv := testenv.NewMinIO(t, testenv.S3Options{})
	tiers(t, srv)
	name := srv.NewBucket(t, testenv.BucketOptions{Versioning: true})
	whole := openS3On(t, srv, name)
	mc(t, srv, strangersRules, "ilm", "rule", "import", "m/"+name)
	strange := rawRules(t, whole)
	if len(strange) != 3 || !strings.Contains(strange["all versions"], "ExpiredObjectAllVersions") {
		t.Fatalf("the strangers' rules are %q", strange)
	}
	policy := Policy{Name: "sox", Keep: year(1), Expiry: ExpiryStore, Transitions: []Transition{{Period{Days: 30}, "GLACIER"}}}
	pg, team := storage.Prefixed(whole, "pg/"), storage.Prefixed(whole, "pg/team/")
	untouched := func(want map[string]string) {
		t.Helper()
		got := rawRules(t, whole)
		for id, raw := range want {
			if got[id] != raw {
				t.Errorf("rule %q became %q, was %q", id, got[id], raw)
			}
		}
	}
	opts := LifecycleOptions{Bucket: pg, Policies: []Policy{policy}}
	for i, want := range []int{4, 0} { // transition, expire, two for markers
		plan, err := ApplyLifecycle(t.Context(), opts)
		if err != nil || plan.Changes != want || plan.Applied != (i == 0) || len(plan.Foreign) != 3 {
			t.Fatalf("apply %d: %+v, %v", i+1, plan, err)
		}
		untouched(strange)
	}
	both := rawRules(t, whole)
	plan, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: team, Policies: []Policy{{Name: "sox"}}, Complete: true})
	if err != nil || plan.Changes != 2 || len(plan.Foreign) != 7 {
		t.Fatalf("another team: %+v, %v", plan, err)
	}
	untouched(both)
	if plan, err := ApplyLifecycle(t.Context(), opts); err != nil || plan.Changes != 0 || len(plan.Foreign) != 5 {
		t.Errorf("after the other team: %+v, %v", plan, err)
	}

	minioAgrees(t, srv, name, pg, policy)

	// Two transitions in one rule: MinIO keeps the last and says nothing.
	policy.Transitions = append(policy.Transitions, Transition{Period{Days: 90}, "DEEP_ARCHIVE"})
	opts.Policies = []Policy{policy}
	_, err = ApplyLifecycle(t.Context(), opts)
	if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), `lost "to GLACIER after 30 days"`) {
		t.Errorf("a dropped transition: %v", err)
	}
	untouched(strange)

	// A class that there is not.
	opts.Policies[0].Transitions = []Transition{{Period{Days: 30}, "GLACIER_IR"}}
	before := rawRules(t, whole)
	if _, err = ApplyLifecycle(t.Context(), opts); err == nil || strings.Contains(err.Error(), "\n") || len(rawRules(t, whole)) != len(before) {
		t.Errorf("an unknown class: %v", err)
	}
	untouched(before)
}

// minioAgrees asks MinIO when its own evaluation of the rules ends the objects
// of an archive: transitions take the dump alone, nothing ends before its keep.
func minioAgrees(t *testing.T, srv *testenv.S3, bucket string, pg storage.Bucket, policy Policy) {
	t.Helper()
	dir, err := NewDir(policy.Name, "orders", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	until := policy.Keep.After(time.Now())
	for _, object := range []string{DumpName, ManifestName, IndexName} {
		tags := map[string]string{TagPolicy: policy.Name, TagRole: roleOf(object)}
		if _, err := storage.PutBytes(t.Context(), pg, dir.Key(object), []byte(object), storage.PutOptions{Tags: tags}); err != nil {
			t.Fatal(err)
		}
		out, err := srv.Client().HeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: &bucket, Key: aws.String("pg/" + dir.Key(object))})
		if err != nil {
			t.Fatal(err)
		}
		// Transitions come first, so a dump shows its transition.
		if object == DumpName {
			continue
		}
		rest, ok := strings.CutPrefix(aws.ToString(out.Expiration), `expiry-date="`)
		date, rule, _ := strings.Cut(rest, `", rule-id="`)
		at, err := http.ParseTime(date)
		if !ok || err != nil || at.Before(until) || strings.TrimSuffix(rule, `"`) != LifecycleID("pg/", policy.Name, kindExpire) {
			t.Errorf("%s ends %q, and is kept until %s", object, aws.ToString(out.Expiration), until)
		}
	}
}

// TestLifecycleTransitionRuns: the rule as it was applied, only that its day has
// come, moves the dump and leaves the small objects where they are.
func TestLifecycleTransitionRuns(t *testing.T) {
	srv := testenv.NewMinIO(t, testenv.S3Options{})
	tiers(t, srv)
	bucket := srv.NewBucket(t, testenv.BucketOptions{Versioning: true})
	pg := storage.Prefixed(openS3On(t, srv, bucket), "pg/")
	policy := Policy{Name: "cold", Keep: year(1), Transitions: []Transition{{Period{Days: 30}, "GLACIER"}}}
	if _, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: pg, Policies: []Policy{policy}}); err != nil {
		t.Fatal(err)
	}
	rules, err := srv.Client().GetBucketLifecycleConfiguration(t.Context(), &awss3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	for i := range rules.Rules {
		for j := range rules.Rules[i].Transitions {
			rules.Rules[i].Transitions[j].Days = aws.Int32(0)
		}
	}
	if _, err := srv.Client().PutBucketLifecycleConfiguration(t.Context(), &awss3.PutBucketLifecycleConfigurationInput{
		Bucket: &bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: rules.Rules}}); err != nil {
		t.Fatal(err)
	}
	cluster := testenv.Postgres(t)
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: pg, Conn: connTo(t, cluster, smallSource(t, cluster)), Pgstow: "test", Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	class := func(key string) string {
		o, err := pg.Stat(t.Context(), key, "")
		if err != nil {
			t.Fatal(err)
		}
		return o.StorageClass
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for tick := time.Tick(50 * time.Millisecond); class(res.Manifest.Objects.Dump.Key) != "GLACIER"; {
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatal("the dump was not moved")
		}
	}
	for _, key := range []string{res.Manifest.Key, res.Manifest.Objects.Index.Key} {
		if got := class(key); got == "GLACIER" {
			t.Errorf("%s was moved as well", key)
		}
	}
	// Somebody changed the rule, which the plan sees.
	plan, err := PlanLifecycle(t.Context(), LifecycleOptions{Bucket: pg, Policies: []Policy{policy}})
	if err != nil || plan.Changes != 1 || !slices.ContainsFunc(plan.Rules, func(c LifecycleChange) bool {
		return c.Action == LifecycleChanged && strings.Contains(c.Was, "after 0 days") && strings.Contains(c.Will, "after 30 days")
	}) {
		t.Errorf("%+v, %v", plan, err)
	}
}

// TestLifecycleGCS: the same on the strict server: documents of Cloud Storage,
// the strangers' conditions kept, twice changes nothing.
func TestLifecycleGCS(t *testing.T) {
	srv := gcsserver.Start(t, gcsserver.Options{})
	var stranger any
	if err := json.Unmarshal([]byte(`{"action":{"type":"Delete"},"condition":{"age":3,"matchesPrefix":["logs/"],"sizeAboveBytes":"7"}}`), &stranger); err != nil {
		t.Fatal(err)
	}
	if err := srv.CreateBucket("archives", map[string]any{"lifecycle": map[string]any{"rule": []any{stranger}}}); err != nil {
		t.Fatal(err)
	}
	b, err := gcs.Open(t.Context(), gcs.Config{Bucket: "archives", Endpoint: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	before, err := b.Lifecycle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opts := LifecycleOptions{Bucket: storage.Prefixed(b, "pg/"), Policies: []Policy{onGCS(soxRules)}}
	for i, want := range []int{3, 0} {
		plan, err := ApplyLifecycle(t.Context(), opts)
		if err != nil || plan.Changes != want || plan.Applied != (i == 0) || len(plan.Foreign) != 1 {
			t.Fatalf("apply %d: %+v, %v", i+1, plan, err)
		}
	}
	after, err := b.Lifecycle(t.Context())
	if err != nil || len(after.Rules) != 4 || string(after.Rules[0].Raw) != string(before.Rules[0].Raw) {
		t.Errorf("%+v, %v", after, err)
	}
	opts.Policies, opts.Complete = nil, true
	if plan, err := ApplyLifecycle(t.Context(), opts); err != nil || plan.Changes != 3 {
		t.Errorf("the policy is gone: %+v, %v", plan, err)
	}
	if after, err = b.Lifecycle(t.Context()); err != nil || len(after.Rules) != 1 || string(after.Rules[0].Raw) != string(before.Rules[0].Raw) {
		t.Errorf("%+v, %v", after, err)
	}
}

// TestProtectUploads: what ends uploads that nobody lists, store by store.
func TestProtectUploads(t *testing.T) {
	abort := func(id, prefix string, days int) storage.LifecycleRule {
		r := storage.LifecycleRule{ID: id, Actions: []storage.LifecycleAction{{Kind: storage.LifecycleAbortUploads, Days: days, Clock: storage.LifecycleSinceCreation}}}
		if prefix != "" {
			r.Filter.Prefixes = []string{prefix}
		}
		return r
	}
	disabled, tagged := abort("off", "", 1), abort("tagged", "", 1)
	disabled.Disabled, tagged.Filter.Tags = true, map[string]string{"a": "b"}
	own := func(policy string) storage.LifecycleRule {
		return abort(LifecycleID("pg/", policy, kindUploads), "pg/"+policy+"/", 7)
	}
	dev := Dir{Policy: "dev", Label: "orders", Time: time.Now(), ID: "a0000001"}
	lab := Dir{Policy: "lab", Label: "orders", Time: time.Now(), ID: "a0000002"}
	for name, c := range map[string]struct {
		rules       []storage.LifecycleRule
		by          string
		unprotected []string
		says        string
	}{
		"no rule":            {nil, ProtectionNone, []string{"default", "dev", "lab"}, ""},
		"rules that do not":  {[]storage.LifecycleRule{disabled, tagged, abort("logs", "logs/", 1), abort("one", "pg/dev/orders/", 1)}, ProtectionNone, []string{"default", "dev", "lab"}, ""},
		"somebody's, of all": {[]storage.LifecycleRule{abort("theirs", "", 3)}, ProtectionRule, nil, `after 3 days (rule "theirs", not pgstow's)`},
		"somebody's, of us":  {[]storage.LifecycleRule{abort("theirs", "pg/", 3)}, ProtectionRule, nil, `after 3 days`},
		"ours":               {[]storage.LifecycleRule{own("default"), own("dev"), own("lab")}, ProtectionRule, nil, "pgstow's)"},
		"the soonest":        {[]storage.LifecycleRule{own("default"), own("dev"), own("lab"), abort("theirs", "", 1)}, ProtectionRule, nil, `dev after 1 day (rule "theirs"`},
		"some of ours":       {[]storage.LifecycleRule{own("default"), own("lab"), own("gone")}, ProtectionPartial, []string{"dev"}, "none does for dev"},
	} {
		b := storage.Prefixed(newRuled(t, s3Rules, c.rules...), "pg/")
		put(t, b, dev.Key(DumpName), "x")
		put(t, b, dev.Key(ManifestName), "x")
		put(t, b, "dev0/not/an/archive", "x")
		got := ProtectUploads(t.Context(), b, "lab")
		if got.By != c.by || !slices.Equal(got.Unprotected, c.unprotected) || !strings.Contains(got.Detail, c.says) || (got.Advice == "") != (c.by == ProtectionRule) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	b := newRuled(t, s3Rules)
	put(t, b, lab.Key(DumpName), "x")
	if got := ProtectUploads(t.Context(), b); !slices.Equal(got.Unprotected, []string{"default", "lab"}) {
		t.Errorf("policies by their objects: %+v", got)
	}
	b.denied = true
	if got := ProtectUploads(t.Context(), b); got.By != ProtectionNone || !slices.Equal(got.Unprotected, []string{"default"}) {
		t.Errorf("without listing: %+v", got)
	}
	for name, c := range map[string]struct {
		b    storage.Bucket
		want string
	}{
		"gcs":       {openGCS(t), ProtectionStore},
		"minio":     {openS3(t, testenv.MinIO(t), testenv.BucketOptions{}), ProtectionServer},
		"versitygw": {openS3(t, testenv.VersityGW(t), testenv.BucketOptions{}), ProtectionNone},
		"file":      {openFile(t), ProtectionNone},
	} {
		res, err := Cleanup(t.Context(), CleanupOptions{Bucket: storage.Prefixed(c.b, "pg/")})
		if err != nil || res.Protection.By != c.want || res.Protection.Detail == "" {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		c.b.Close()
	}
}
