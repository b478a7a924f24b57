package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// user does with one bucket what the holder of credentials does.
type user struct {
	bucket storage.Bucket
	conn   dumper.Conn
	policy Policy
}

func (u user) archive(require bool) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := Archive(ctx, ArchiveOptions{Bucket: u.bucket, Conn: u.conn, Name: "orders", Policy: u.policy, RequireReadBack: require, NoGlobals: true})
		return err
	}
}

// restore lists, shows and reads back the newest archive.
func (u user) restore(ctx context.Context) error {
	all, err := List(ctx, u.bucket, ListOptions{})
	if err != nil || len(all) == 0 {
		return errors.Join(err, errors.New("nothing is listed"))
	}
	ref := all[len(all)-1].ID
	if _, err := Show(ctx, ShowOptions{Bucket: u.bucket, Ref: ref}); err != nil {
		return err
	}
	_, err = Restore(ctx, RestoreOptions{Bucket: u.bucket, Ref: ref, Output: new(discard)})
	return err
}

// verify reads everything back, and records that beside the archive, kept as the
// archive is.
func (u user) verify(ctx context.Context) error {
	res, err := Verify(ctx, VerifyOptions{Bucket: u.bucket, Refs: []string{Latest}, By: "test"})
	if err != nil {
		return err
	}
	for _, v := range res.Archives {
		if v.Record == "" {
			return fmt.Errorf("nothing is recorded: %+v", v)
		}
	}
	return nil
}

type discard struct{}

func (*discard) Write(p []byte) (int, error) { return len(p), nil }

// giveUp leaves an upload that was begun, as a run does that fails.
func (u user) giveUp(ctx context.Context, meanwhile func()) error {
	_, err := u.bucket.Put(ctx, "default/x/20261122T141500Z-"+newID()+"/"+DumpName, givenUp{meanwhile}, storage.PutOptions{})
	if errors.Is(err, storage.ErrUploadRemains) {
		return storage.ErrUploadRemains
	}
	return nil
}

func (u user) cleanup(ctx context.Context) (err error) {
	return errors.Join(u.giveUp(ctx, func() { _, err = Cleanup(ctx, CleanupOptions{Bucket: u.bucket, DryRun: true}) }), err)
}

func (u user) list(versions bool) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, err := range u.bucket.List(ctx, storage.ListOptions{Versions: versions}) {
			return err
		}
		return nil
	}
}

// rules reads the bucket's rules, and writes one more.
func (u user) rules(write bool) func(context.Context) error {
	return func(ctx context.Context) error {
		l, err := storage.ReadLifecycle(ctx, u.bucket)
		if err != nil || !write {
			return err
		}
		l.Rules = append(l.Rules, storage.LifecycleRule{ID: newID(), Filter: storage.LifecycleFilter{Prefixes: []string{l.Prefix + "x/"}},
			Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpireNoncurrent, Days: 30, Clock: storage.LifecycleSinceNoncurrent}}})
		return storage.WriteLifecycle(ctx, u.bucket, l)
	}
}

func (u user) probed(context.Context) error {
	if len(u.bucket.Capabilities().Unprobed) > 0 {
		return storage.ErrPermission
	}
	return nil
}

// once writes an object that nothing keeps and does something with it.
func (u user) once(do func(ctx context.Context, o storage.Object) error) func(context.Context) error {
	return func(ctx context.Context) error {
		o, err := storage.PutBytes(ctx, u.bucket, "other/"+newID(), []byte("x"), storage.PutOptions{})
		if err != nil {
			return err
		}
		return do(ctx, o)
	}
}

// uses is what fails without a right.
func (u user) uses() map[string]func(context.Context) error {
	remove := u.once(func(ctx context.Context, o storage.Object) error { return u.bucket.Delete(ctx, o.Key, o.Version) })
	return map[string]func(context.Context) error{
		"s3:PutObject":            u.archive(false),
		"s3:PutObjectRetention":   u.archive(false),
		"s3:PutObjectLegalHold":   u.archive(false),
		"s3:PutObjectTagging":     u.archive(false),
		"s3:AbortMultipartUpload": func(ctx context.Context) error { return u.giveUp(ctx, nil) },

		"s3:GetObject": u.once(func(ctx context.Context, o storage.Object) error {
			_, err := u.bucket.Stat(ctx, o.Key, "")
			return err
		}),
		"s3:GetObjectVersion":                 u.archive(true),
		"s3:GetObjectRetention":               u.archive(true),
		"s3:GetObjectLegalHold":               u.archive(true),
		"s3:GetObjectTagging":                 u.archive(true),
		"s3:GetObjectVersionTagging":          u.archive(true),
		"s3:ListBucket":                       u.list(false),
		"s3:ListBucketVersions":               u.list(true),
		"s3:GetBucketVersioning":              u.probed,
		"s3:GetBucketObjectLockConfiguration": u.probed,
		"s3:DeleteObject":                     remove,
		"s3:DeleteObjectVersion":              remove,
		"s3:ListBucketMultipartUploads":       u.cleanup,
		"s3:ListMultipartUploadParts":         u.cleanup,
		"s3:GetLifecycleConfiguration":        u.rules(false),
		"s3:PutLifecycleConfiguration":        u.rules(true),
	}
}

// does is what a profile is for.
func (u user) does(ctx context.Context, p Profile) error {
	all := []func(context.Context) error{u.archive(p != ProfileVault)}
	if p != ProfileVault {
		all = append(all, u.restore, u.verify)
	}
	if p == ProfileFull {
		all = append(all, u.cleanup, u.uses()["s3:DeleteObjectVersion"], u.keep, u.rules(true))
	}
	for _, do := range all {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// keep does what is done with an archive later.
func (u user) keep(ctx context.Context) error {
	all, err := List(ctx, u.bucket, ListOptions{})
	if err != nil {
		return err
	}
	last := all[len(all)-1]
	_, retain := Retain(ctx, RetainOptions{Bucket: u.bucket, Ref: last.ID, Keep: Period{Days: 3}})
	_, release := Hold(ctx, HoldOptions{Bucket: u.bucket, Ref: last.ID, Release: true, Reason: "over", By: "test"})
	_, hold := Hold(ctx, HoldOptions{Bucket: u.bucket, Ref: last.ID, Reason: "again", By: "test"})
	_, expire := Expire(ctx, ExpireOptions{Bucket: u.bucket, Yes: true, By: "test"})
	hide := u.bucket.Delete(ctx, last.Key+ManifestName, "")
	if errors.Is(hide, storage.ErrLocked) { // GCS refuses even that
		return errors.Join(retain, release, hold, expire)
	}
	res, undelete := Undelete(ctx, UndeleteOptions{Bucket: u.bucket, Ref: last.ID, Yes: true})
	if undelete == nil && (len(res.Versions) != 1 || res.Versions[0].Action != UndeleteRemoved) {
		undelete = fmt.Errorf("undeleted: %+v", res)
	}
	return errors.Join(retain, release, hold, expire, hide, undelete)
}

// exceptions to "without any one right it fails, and doctor names that right".
type exceptions struct {
	ignored map[string]string // taking it away changes nothing, and why
	named   map[string]string // doctor names another one
}

// untried is what fails without being named beforehand: doctor does not change
// the bucket's rules.
const untried = "s3:PutLifecycleConfiguration"

const oneRight = "MinIO has one right for an object and its versions"

var minioExceptions = exceptions{
	ignored: map[string]string{
		"s3:PutObjectTagging":        "MinIO asks for it when tags are changed, not in the creating request",
		"s3:GetObject":               oneRight,
		"s3:GetObjectVersion":        oneRight,
		"s3:GetObjectVersionTagging": oneRight,
		"s3:DeleteObjectVersion":     oneRight,
		"s3:ListBucketVersions":      "to MinIO it is the same as s3:ListBucket",
	},
	named: map[string]string{
		"s3:GetObjectTagging": "s3:GetObjectVersionTagging",
		"s3:DeleteObject":     "s3:DeleteObjectVersion",
	},
}

var awsExceptions = exceptions{ignored: map[string]string{
	"s3:DeleteObject":     "a bucket with versions has s3:DeleteObjectVersion",
	"s3:GetObjectTagging": "a bucket with versions has s3:GetObjectVersionTagging",
}}

// examine is what Doctor says of a door.
func (d door) examine(t testing.TB, place Place, policy Policy) (missing map[string]bool, fits Profile, failed error) {
	t.Helper()
	return examined(t, d.open(t, place.Bucket, place.Prefix), DoctorOptions{Place: place, Policy: policy})
}

// examined is what Doctor says of a bucket: the rights that are missing, the
// profile, and why an archive would fail.
func examined(t testing.TB, b storage.Bucket, opts DoctorOptions) (missing map[string]bool, fits Profile, failed error) {
	t.Helper()
	missing = map[string]bool{}
	opts.OpenBucket = opening(closeless{b}, nil)
	for _, check := range Doctor(t.Context(), opts) {
		if check.Right != "" {
			missing[check.Right] = true
		}
		fits = cmp.Or(fits, check.Profile)
		failed = errors.Join(failed, check.Err)
	}
	return missing, fits, failed
}

// The printed policy is enough for its profile, doctor says so, and without
// any one of its rights that fails which doctor says.
func TestEachRightCounts(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE TABLE x (id int); INSERT INTO x VALUES (1)`)
	policy := Policy{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Governance, LegalHold: true, Tags: map[string]string{"owner": "finance"}}
	const prefix = "team/pg/"
	for name, c := range map[string]struct {
		door door
		but  exceptions
	}{
		"MinIO": {minioDoor(t), minioExceptions},
		"AWS":   {awsDoor(t), awsExceptions},
	} {
		for _, profile := range Profiles {
			t.Run(name+" "+string(profile), func(t *testing.T) {
				bucket := testenv.MinIO(t).NewBucket(t, testenv.BucketOptions{ObjectLock: true})
				place := Place{Scheme: "s3", Bucket: bucket, Prefix: prefix, PlainHTTP: true}
				enough := printed(t, RightsOptions{Profile: profile, Place: place, Policy: policy})
				enter := func(p iamPolicy) user {
					c.door.allow(t, p)
					return user{bucket: c.door.open(t, bucket, prefix), conn: connTo(t, pg, db), policy: policy}
				}
				u := enter(enough)
				if err := u.does(t.Context(), profile); err != nil {
					t.Errorf("%s is not enough: %v", profile, err)
				}
				larger, fits, failed := c.door.examine(t, place, policy)
				if fits != profile || failed != nil {
					t.Fatalf("doctor says %q, %v, missing %v", fits, failed, slices.Collect(maps.Keys(larger)))
				}
				for _, action := range enough.actions("Allow") {
					u := enter(enough.without(action))
					use, known := u.uses()[action]
					if !known {
						t.Errorf("%s: nothing uses it", action)
						continue
					}
					missing, fits, _ := c.door.examine(t, place, policy)
					used := use(t.Context())
					if why, ignored := c.but.ignored[action]; ignored {
						if used != nil || fits != profile || !maps.Equal(missing, larger) {
							t.Errorf("%s counts after all (%s): %v, missing %v", action, why, used, missing)
						}
						continue
					}
					if !errors.Is(used, storage.ErrPermission) && !errors.Is(used, storage.ErrUploadRemains) {
						t.Errorf("%s: what uses it ends with %v", action, used)
					}
					if action == untried {
						if fits != profile || !maps.Equal(missing, larger) {
							t.Errorf("doctor tries %s after all: %v", action, missing)
						}
						continue
					}
					want := action
					if other := c.but.named[action]; other != "" {
						want = other
					}
					if !missing[want] || fits == profile {
						t.Errorf("%s: doctor names %v and says %q", action, missing, fits)
					}
					for other := range missing {
						if other != want && !larger[other] {
							t.Errorf("%s: doctor names %s too", action, other)
						}
					}
				}
			})
		}
	}
}

// In a bucket without versions other rights count.
func TestRightsWithoutVersions(t *testing.T) {
	d := awsDoor(t)
	place := Place{Scheme: "s3", Bucket: testenv.MinIO(t).NewBucket(t, testenv.BucketOptions{}), Prefix: "pg/", PlainHTTP: true}
	policy := Policy{Name: "dev", Keep: Period{Days: 30}}
	enough := printed(t, RightsOptions{Profile: ProfileFull, Place: place, Policy: policy})
	for _, action := range []string{"", "s3:DeleteObject", "s3:GetObjectTagging", "s3:GetObject"} {
		d.allow(t, enough.without(action))
		missing, fits, failed := d.examine(t, place, policy)
		if failed != nil || action == "" && (fits != ProfileFull || len(missing) > 0) ||
			action != "" && (fits == ProfileFull || len(missing) != 1 || !missing[action]) {
			t.Errorf("without %q doctor names %v and says %q, %v", action, missing, fits, failed)
		}
	}
}

// Where the policy locks nothing and the bucket could, expiring needs to see that
// nothing is locked, and whatever is recorded is tagged.
func TestRightsWithoutALock(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	d := awsDoor(t)
	place := Place{Scheme: "s3", Bucket: testenv.MinIO(t).NewBucket(t, testenv.BucketOptions{ObjectLock: true}), PlainHTTP: true}
	dev := Policy{Name: "dev", Keep: Period{Days: 1}, KeepLast: 1}
	enough := printed(t, RightsOptions{Profile: ProfileFull, Place: place, Policy: dev})
	expired := func(p iamPolicy) (n int) {
		d.allow(t, p)
		res, err := Expire(t.Context(), ExpireOptions{Bucket: d.open(t, place.Bucket, ""), Yes: true, By: "test",
			Now: func() time.Time { return time.Now().AddDate(0, 0, 3) }})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range res.Archives {
			if a.Action == ExpireDone {
				n++
			}
		}
		return n
	}
	d.allow(t, enough)
	u := user{bucket: d.open(t, place.Bucket, ""), conn: connTo(t, pg, db), policy: dev}
	for range 2 {
		if err := u.archive(true)(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := expired(enough.without("s3:GetObjectRetention")); n != 0 {
		t.Errorf("%d expired, and nobody could see whether they were locked", n)
	}
	if n := expired(enough); n != 1 {
		t.Errorf("%d expired, want the older of two", n)
	}
	for _, policy := range []Policy{{}, dev} {
		enough := printed(t, RightsOptions{Profile: ProfileFull, Place: place, Policy: policy})
		for _, action := range []string{"", "s3:GetObjectRetention", "s3:PutObjectTagging"} {
			d.allow(t, enough.without(action))
			missing, fits, failed := d.examine(t, place, policy)
			needed := action == "s3:PutObjectTagging" && !policy.IsZero()
			if (failed != nil) != needed || action == "" && (fits != ProfileFull || len(missing) > 0) ||
				action != "" && (fits == ProfileFull || len(missing) != 1 || !missing[action]) {
				t.Errorf("%q without %q doctor names %v and says %q, %v", policy.Name, action, missing, fits, failed)
			}
		}
	}
}

// The bucket's own lock counts where it is the stronger, and the rights have to
// know of it.
func TestRightsUnderTheBucketsLock(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	d := awsDoor(t)
	srv := testenv.MinIO(t)
	place := Place{Scheme: "s3", Bucket: srv.NewBucket(t, testenv.BucketOptions{ObjectLock: true}), PlainHTTP: true}
	if _, err := rootClient(t, srv).PutObjectLockConfiguration(t.Context(), &awss3.PutObjectLockConfigurationInput{
		Bucket: &place.Bucket, ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled,
			Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionModeGovernance, Days: aws.Int32(9)}}},
	}); err != nil {
		t.Fatal(err)
	}
	policy := Policy{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Governance}
	own := storage.DefaultRetention{Mode: storage.Governance, Days: 9}
	for _, known := range []storage.DefaultRetention{{}, own} {
		d.allow(t, printed(t, RightsOptions{Profile: ProfileArchive, Place: place, Policy: policy, BucketLock: known}))
		u := user{bucket: d.open(t, place.Bucket, ""), conn: connTo(t, pg, db), policy: policy}
		err := u.archive(true)(t.Context())
		if known.IsZero() != errors.Is(err, storage.ErrPermission) || !known.IsZero() && err != nil {
			t.Errorf("rights that know of %+v: %v", known, err)
		}
		said := false
		for _, c := range Doctor(t.Context(), DoctorOptions{OpenBucket: opening(closeless{u.bucket}, nil), Place: place, Policy: policy}) {
			said = said || c.Name == "lock" && strings.Contains(c.Advice, "--bucket-lock governance:9d")
		}
		if said != known.IsZero() {
			t.Errorf("rights that know of %+v: doctor says so: %t", known, said)
		}
	}
}

// A policy is good for its prefix, and where the endpoint has TLS for nothing
// without.
func TestPolicyStaysInItsPrefix(t *testing.T) {
	d := minioDoor(t)
	bucket := testenv.MinIO(t).NewBucket(t, testenv.BucketOptions{})
	opts := RightsOptions{Profile: ProfileFull, Place: Place{Scheme: "s3", Bucket: bucket, Prefix: "ours/", PlainHTTP: true}}
	try := func(prefix string) error {
		b := d.open(t, bucket, prefix)
		_, put := storage.PutBytes(t.Context(), b, newID(), []byte("x"), storage.PutOptions{})
		u := user{bucket: b}
		return errors.Join(put, u.list(false)(t.Context()))
	}
	d.allow(t, printed(t, opts))
	if err := try("ours/"); err != nil {
		t.Errorf("in the prefix: %v", err)
	}
	for _, prefix := range []string{"theirs/", "our/", "x/ours/", ""} {
		if err := try(prefix); !errors.Is(err, storage.ErrPermission) {
			t.Errorf("in %q: %v", prefix, err)
		}
	}
	opts.Place.PlainHTTP = false
	d.allow(t, printed(t, opts))
	if err := try("ours/"); !errors.Is(err, storage.ErrPermission) {
		t.Errorf("without TLS: %v", err)
	}
}
