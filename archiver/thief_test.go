package archiver

import (
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// What a thief of the vault's credentials tries.
func TestVaultLocksNoCentury(t *testing.T) {
	const prefix = "pg/"
	policy := Policy{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Governance}
	century := time.Now().AddDate(100, 0, 0).Truncate(time.Second)
	for name, c := range map[string]struct {
		door    door
		created error // what becomes of an object that is created with such a lock
	}{
		// MinIO tells policies how long a lock is only when one is set on an
		// object that exists.
		"MinIO": {minioDoor(t), nil},
		"AWS":   {awsDoor(t), storage.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			bucket := testenv.MinIO(t).NewBucket(t, testenv.BucketOptions{ObjectLock: true})
			place := Place{Scheme: "s3", Bucket: bucket, Prefix: prefix, PlainHTTP: true}
			c.door.allow(t, printed(t, RightsOptions{Profile: ProfileVault, Place: place, Policy: policy}))
			b := c.door.open(t, bucket, prefix)
			put := func(r storage.Retention) (storage.Object, error) {
				return storage.PutBytes(t.Context(), b, "sox/"+newID(), []byte("x"), storage.PutOptions{Retention: r})
			}
			if _, err := put(storage.Retention{Mode: storage.Governance, Until: century}); !errors.Is(err, c.created) {
				t.Errorf("created for a century: %v", err)
			}
			if _, err := put(storage.Retention{Mode: storage.Compliance, Until: time.Now().Add(time.Hour)}); !errors.Is(err, storage.ErrPermission) {
				t.Errorf("created in a mode that the policy has not: %v", err)
			}
			o, err := put(storage.Retention{Mode: storage.Governance, Until: time.Now().Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			if name == "MinIO" {
				err = storage.SetRetention(t.Context(), b, o.Key, o.Version, storage.Retention{Mode: storage.Governance, Until: century})
				if !errors.Is(err, storage.ErrPermission) {
					t.Errorf("extended to a century: %v", err)
				}
				err = storage.SetRetention(t.Context(), b, o.Key, o.Version, storage.Retention{Mode: storage.Governance, Until: time.Now().AddDate(0, 0, 2)})
				if err != nil {
					t.Errorf("extended as the policy allows: %v", err)
				}
			}
			for what, err := range map[string]error{
				"deleted": b.Delete(t.Context(), o.Key, o.Version), "hidden": b.Delete(t.Context(), o.Key, ""),
			} {
				if !errors.Is(err, storage.ErrPermission) && !errors.Is(err, storage.ErrLocked) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// client is the SDK's own, for what pgstow never asks.
func (d door) client() *awss3.Client {
	return awss3.New(awss3.Options{Region: "us-east-1", BaseEndpoint: aws.String(d.endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(d.key, d.secret, "")})
}

// Holds outlast the credentials that set them, and what is tagged stays so: by
// its tags the bucket's rules choose what they move and delete.
func TestThiefReleasesNothing(t *testing.T) {
	const prefix = "pg/"
	policy := Policy{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Governance, LegalHold: true, Tags: map[string]string{"owner": "finance"}}
	for name, d := range map[string]door{"MinIO": minioDoor(t), "AWS": awsDoor(t)} {
		for _, profile := range []Profile{ProfileVault, ProfileArchive} {
			t.Run(name+" "+string(profile), func(t *testing.T) {
				bucket := testenv.MinIO(t).NewBucket(t, testenv.BucketOptions{ObjectLock: true})
				place := Place{Scheme: "s3", Bucket: bucket, Prefix: prefix, PlainHTTP: true}
				d.allow(t, printed(t, RightsOptions{Profile: profile, Place: place, Policy: policy}))
				b := d.open(t, bucket, prefix)
				put := func(tags map[string]string) (storage.Object, error) {
					return storage.PutBytes(t.Context(), b, "sox/"+newID(), []byte("x"), storage.PutOptions{LegalHold: true, Tags: tags})
				}
				own := (&keeper{policy: policy}).tags(DumpName)
				o, err := put(own)
				if err != nil {
					t.Fatal(err)
				}
				if err := storage.SetLegalHold(t.Context(), b, o.Key, o.Version, false); !errors.Is(err, storage.ErrPermission) {
					t.Errorf("its hold is released: %v", err)
				}
				for what, version := range map[string]*string{"it": nil, "its version": &o.Version} {
					for _, tags := range []map[string]string{own, {TagPolicy: "dev"}, {}} {
						in := &awss3.PutObjectTaggingInput{Bucket: &bucket, Key: aws.String(prefix + o.Key), VersionId: version, Tagging: &types.Tagging{TagSet: []types.Tag{}}}
						for k, v := range tags {
							in.Tagging.TagSet = append(in.Tagging.TagSet, types.Tag{Key: &k, Value: &v})
						}
						if _, err := d.client().PutObjectTagging(t.Context(), in); errorStatus(err) != 403 {
							t.Errorf("%s is tagged %v again: %v", what, tags, err)
						}
					}
				}
				if name == "MinIO" {
					return // it asks for no right to tag what is created
				}
				for _, tags := range []map[string]string{
					{TagPolicy: "dev", TagRole: RoleDump, "owner": "finance"}, {TagPolicy: "sox", TagRole: RoleDump, "owner": "nobody"},
					{TagPolicy: "sox", TagRole: RoleDump, "owner": "finance", "more": "x"}, {TagPolicy: "sox", TagRole: RoleDump},
				} {
					if _, err := put(tags); !errors.Is(err, storage.ErrPermission) {
						t.Errorf("created with the tags %v: %v", tags, err)
					}
				}
			})
		}
	}
}

// To MinIO a hold is to be what a header says, whatever the body says: who knows
// that releases holds there all the same, which docs/operations.md tells. Where
// this fails, MinIO is cured and the sentence can go.
func TestThiefKnowsMinIO(t *testing.T) {
	d := minioDoor(t)
	bucket := testenv.MinIO(t).NewBucket(t, testenv.BucketOptions{ObjectLock: true})
	policy := Policy{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Governance, LegalHold: true}
	d.allow(t, printed(t, RightsOptions{Profile: ProfileVault, Place: Place{Scheme: "s3", Bucket: bucket, PlainHTTP: true}, Policy: policy}))
	b := d.open(t, bucket, "")
	o, err := storage.PutBytes(t.Context(), b, "sox/x", []byte("x"), storage.PutOptions{LegalHold: true,
		Retention: storage.Retention{Mode: storage.Governance, Until: time.Now().Add(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.client().PutObjectLegalHold(t.Context(), &awss3.PutObjectLegalHoldInput{Bucket: &bucket, Key: &o.Key, VersionId: &o.Version,
		LegalHold: &types.ObjectLockLegalHold{Status: types.ObjectLockLegalHoldStatusOff},
	}, awss3.WithAPIOptions(smithyhttp.SetHeaderValue("X-Amz-Object-Lock-Legal-Hold", "ON")))
	if err != nil {
		t.Errorf("MinIO looks at what is asked for: %v", err)
	}
	if err := b.Delete(t.Context(), o.Key, o.Version); !errors.Is(err, storage.ErrPermission) && !errors.Is(err, storage.ErrLocked) {
		t.Errorf("it is deleted then: %v", err)
	}
}

func errorStatus(err error) int {
	var e *smithyhttp.ResponseError
	if !errors.As(err, &e) {
		return 0
	}
	return e.HTTPStatusCode()
}
