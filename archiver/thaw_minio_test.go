package archiver

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/s3"
)

// A rule of the bucket moves dumps, and dumps alone, to a tier that is called
// GLACIER and is a bucket of another server; the archive is cold then, is
// thawed, and restores.
func TestTransitionedArchive(t *testing.T) {
	pg := testenv.Postgres(t)
	srv, bucket := tieredMinIO(t)
	open, err := s3.Open(t.Context(), s3.Config{
		Bucket: bucket, Region: srv.Region, Endpoint: srv.Endpoint, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { open.Close() })
	b := storage.Prefixed(open, "pg/")
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, smallSource(t, pg)), Name: "orders",
		Policy: Policy{Name: "cold", Keep: Period{Days: 90}, Transitions: []Transition{{After: Period{Days: 1}, To: "GLACIER"}}}})
	if err != nil {
		t.Fatal(err)
	}
	dump := res.Manifest.Objects.Dump
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		o, err := b.Stat(t.Context(), dump.Key, dump.Version)
		if err != nil {
			t.Fatal(err)
		}
		if o.Thaw.Cold {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it was not moved: %+v", o)
		}
	}
	restore := func(opts ThawOptions) (string, error) {
		target := pg.CreateDatabase(t)
		_, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: Latest, Conn: connTo(t, pg, target), Thaw: opts})
		return target, err
	}
	var cold *ColdError
	if _, err := restore(ThawOptions{}); !errors.As(err, &cold) || cold.Class != "GLACIER" {
		t.Errorf("restore of what was moved: %v", err)
	}
	target, err := restore(ThawOptions{Tier: storage.ThawStandard, Days: 2, Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, pg, target, "second"); n != 20000 {
		t.Errorf("table second has %d rows", n)
	}
	thawed, err := Thaw(t.Context(), ThawOptions{Bucket: b, Ref: Latest, Days: 2})
	if err != nil || thawed.State != ThawReadable || !thawed.Until.After(time.Now()) {
		t.Errorf("thaw of what is thawed: %+v, %v", thawed, err)
	}
	for _, o := range thawed.Objects {
		if (roleOf(o.Name) == RoleDump) != (o.State == ThawReadable) {
			t.Errorf("%+v", o)
		}
	}
}

// tieredMinIO has a bucket whose rule moves dumps to another server at once.
func tieredMinIO(t testing.TB) (*testenv.S3, string) {
	t.Helper()
	far, srv := testenv.VersityGW(t), testenv.NewMinIO(t, testenv.S3Options{})
	tier, bucket := far.NewBucket(t, testenv.BucketOptions{}), srv.NewBucket(t, testenv.BucketOptions{Versioning: true})
	mc := exec.CommandContext(t.Context(), testenv.Tool(t, "mc"), "--config-dir", t.TempDir(), "ilm", "tier", "add", "minio", "m", "GLACIER",
		"--endpoint", far.Endpoint, "--access-key", far.AccessKey, "--secret-key", far.SecretKey, "--bucket", tier, "--prefix", "g/")
	mc.Env = append(mc.Environ(), "MC_HOST_m="+strings.Replace(srv.Endpoint, "http://", "http://"+srv.AccessKey+":"+srv.SecretKey+"@", 1))
	if out, err := mc.CombinedOutput(); err != nil {
		t.Fatalf("mc ilm tier add: %v: %s", err, out)
	}
	_, err := srv.Client().PutBucketLifecycleConfiguration(t.Context(), &awss3.PutBucketLifecycleConfigurationInput{Bucket: &bucket,
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
			ID: aws.String("away"), Status: types.ExpirationStatusEnabled,
			Filter:      &types.LifecycleRuleFilter{Tag: &types.Tag{Key: aws.String(TagRole), Value: aws.String(RoleDump)}},
			Transitions: []types.Transition{{Days: aws.Int32(0), StorageClass: types.TransitionStorageClassGlacier}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return srv, bucket
}
