package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/internal/testenv"
)

// fortress is an archive under a compliance lock, and the server's own root
// credentials in the hands of somebody who wants it gone.
type fortress struct {
	t      *testing.T
	s3     *testenv.S3
	client *s3.Client
	bucket string
	url    string
	id     string
	env    environment // pgstow's
	// originals are the archive's objects: key, version.
	originals []types.ObjectIdentifier
}

func newFortress(t *testing.T, pg *testenv.Cluster, db string, store *testenv.S3) *fortress {
	t.Helper()
	f := &fortress{t: t, s3: store, client: store.Client(), bucket: store.NewBucket(t, testenv.BucketOptions{ObjectLock: true})}
	f.url = store.BucketURL(f.bucket, prefix)
	f.env = newEnvironment(t).with(store.Env()...).hiding(pg.Password, store.SecretKey)
	f.id = archive(t, f.env.with("PGSTOW_DB="+pg.URL(db)), f.url, "--name", "fortress", "--keep", "1d", "--lock", "compliance")
	versions, markers := f.versions()
	if len(versions) < 3 || len(markers) > 0 {
		t.Fatalf("the archive has %d objects, %d markers", len(versions), len(markers))
	}
	f.originals = versions
	return f
}

// versions are all versions in the bucket, and all delete markers.
func (f *fortress) versions() (versions, markers []types.ObjectIdentifier) {
	f.t.Helper()
	pages := s3.NewListObjectVersionsPaginator(f.client, &s3.ListObjectVersionsInput{Bucket: &f.bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			f.t.Fatal(err)
		}
		for _, v := range page.Versions {
			versions = append(versions, types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
		}
		for _, m := range page.DeleteMarkers {
			markers = append(markers, types.ObjectIdentifier{Key: m.Key, VersionId: m.VersionId})
		}
	}
	return versions, markers
}

// tool runs a program of others with root credentials and returns its output and
// whether it exited 0.
func (f *fortress) tool(args ...string) (string, bool) {
	f.t.Helper()
	if args[0] == "aws" {
		args = slices.Insert(args, 1, "--endpoint-url", f.s3.Endpoint)
	}
	cmd := exec.Command(testenv.Tool(f.t, args[0]), args[1:]...)
	// To aws an empty profile is one that it does not find.
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + f.t.TempDir(), "MC_HOST_root=" + strings.Replace(f.s3.Endpoint, "://", "://"+f.s3.AccessKey+":"+f.s3.SecretKey+"@", 1)},
		slices.DeleteFunc(f.s3.Env(), func(v string) bool { return v == "AWS_PROFILE=" })...)
	out, err := cmd.CombinedOutput()
	return strings.ReplaceAll(string(out), f.s3.SecretKey, "SECRET"), err == nil
}

// fails wants a command of root to fail.
func (f *fortress) fails(args ...string) {
	f.t.Helper()
	if out, ok := f.tool(args...); ok {
		f.t.Errorf("%s succeeded: %s", strings.Join(args, " "), out)
	}
}

// works wants a command of root to succeed: it does no harm.
func (f *fortress) works(args ...string) {
	f.t.Helper()
	if out, ok := f.tool(args...); !ok {
		f.t.Fatalf("%s: %s", strings.Join(args, " "), out)
	}
}

// stands wants every original version to be there, locked, and of its size.
func (f *fortress) stands(after string) {
	f.t.Helper()
	there, _ := f.versions()
	for _, o := range f.originals {
		if !slices.ContainsFunc(there, func(v types.ObjectIdentifier) bool { return *v.Key == *o.Key && *v.VersionId == *o.VersionId }) {
			f.t.Fatalf("after %s: %s is gone", after, *o.Key)
		}
		r, err := f.client.GetObjectRetention(context.Background(), &s3.GetObjectRetentionInput{Bucket: &f.bucket, Key: o.Key, VersionId: o.VersionId})
		if err != nil || r.Retention.Mode != types.ObjectLockRetentionModeCompliance || r.Retention.RetainUntilDate.Before(time.Now().Add(24*time.Hour)) {
			f.t.Fatalf("after %s: %s has the lock %+v, %v", after, *o.Key, r, err)
		}
	}
}

// An archive that was made with a day's compliance lock cannot be removed by the
// server's root by any route; plain deletes and puts cover it. pgstow reads
// below them, says what lies there, and takes it away.
func TestAttack(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	load(t, pg, db, 1)
	for name, store := range map[string]func(*testing.T) *testenv.S3{
		"versitygw": func(t *testing.T) *testenv.S3 { return testenv.VersityGW(t) },
		"minio":     func(t *testing.T) *testenv.S3 { return testenv.MinIO(t) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFortress(t, pg, db, store(t))
			f.readsAsLocked()
			f.deleteVersions()
			f.stands("deleting versions")
			f.shorten()
			f.stands("shortening locks")
			f.mc()
			f.stands("mc")
			if name == "minio" {
				f.lifecycle()
				f.stands("the bucket's lifecycle")
			}
			f.cover()
			f.stands("deleting and overwriting")
			f.survives(pg, db)
			f.uncover(pg, db)
			f.keepsLonger()
		})
	}
}

// readsAsLocked: show says what the store does, before anybody attacks.
func (f *fortress) readsAsLocked() {
	f.t.Helper()
	out := run(f.t, f.env, 0, "show", f.id, "--from", f.url)
	for _, want := range []string{"kept       1d, until 2", "promised   lock compliance", "lock now   compliance until 2", "hold now   off"} {
		if !strings.Contains(out, want) {
			f.t.Errorf("show does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "covered") {
		f.t.Errorf("show says that something lies over the archive:\n%s", out)
	}
}

func (f *fortress) deleteVersions() {
	f.t.Helper()
	for _, o := range f.originals {
		one := []string{"aws", "s3api", "delete-object", "--bucket", f.bucket, "--key", *o.Key, "--version-id", *o.VersionId}
		f.fails(append(one, "--bypass-governance-retention")...)
		if *o.Key == *f.originals[0].Key {
			f.fails(one...)
		}
	}
	for _, bypass := range []bool{false, true} {
		out, err := f.client.DeleteObjects(context.Background(), &s3.DeleteObjectsInput{
			Bucket: &f.bucket, Delete: &types.Delete{Objects: f.originals}, BypassGovernanceRetention: aws.Bool(bypass),
		})
		if err == nil && len(out.Errors) != len(f.originals) {
			f.t.Errorf("a batch (bypass %t) deleted %d of %d", bypass, len(f.originals)-len(out.Errors), len(f.originals))
		}
	}
	f.fails("aws", "s3api", "delete-bucket", "--bucket", f.bucket)
}

func (f *fortress) shorten() {
	f.t.Helper()
	soon := time.Now().UTC().Add(time.Hour).Format(time.RFC3339)
	later := time.Now().UTC().Add(96 * time.Hour).Format(time.RFC3339)
	o := f.originals[0]
	for _, r := range []string{"Mode=COMPLIANCE,RetainUntilDate=" + soon, "Mode=GOVERNANCE,RetainUntilDate=" + later, "Mode=GOVERNANCE,RetainUntilDate=" + soon} {
		put := []string{"aws", "s3api", "put-object-retention", "--bucket", f.bucket, "--key", *o.Key, "--version-id", *o.VersionId, "--retention", r}
		f.fails(put...)
		f.fails(append(put, "--bypass-governance-retention")...)
	}
	// S3 refuses to suspend versioning of such a bucket; whatever a store does, the
	// originals stay.
	for _, status := range []types.BucketVersioningStatus{types.BucketVersioningStatusSuspended, types.BucketVersioningStatusEnabled} {
		_, err := f.client.PutBucketVersioning(context.Background(), &s3.PutBucketVersioningInput{
			Bucket: &f.bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: status},
		})
		f.t.Logf("versioning %s: %v", status, err)
		f.stands("changing the bucket's versioning")
	}
}

func (f *fortress) mc() {
	f.t.Helper()
	for _, args := range [][]string{
		{"rm", "--recursive", "--versions", "--force", "root/" + f.bucket + "/"},
		{"rm", "--recursive", "--versions", "--force", "--bypass", "root/" + f.bucket + "/"},
		{"retention", "clear", "--recursive", "--versions", "root/" + f.bucket + "/"},
		{"rb", "--force", "root/" + f.bucket},
	} {
		out, _ := f.tool(append([]string{"mc", "--quiet", "--no-color"}, args...)...)
		f.t.Logf("mc %s: %.300s", args[0], out)
	}
}

// lifecycle lets a rule of the bucket expire everything since yesterday. An
// object without a lock shows when the rule has run.
func (f *fortress) lifecycle() {
	f.t.Helper()
	ctx := context.Background()
	canary := prefix + "canary"
	if _, err := f.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &f.bucket, Key: &canary, Body: strings.NewReader("x")}); err != nil {
		f.t.Fatal(err)
	}
	yesterday := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)
	_, err := f.client.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &f.bucket,
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
			ID: aws.String("gone"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String(prefix)},
			Expiration:                  &types.LifecycleExpiration{Date: &yesterday},
			NoncurrentVersionExpiration: &types.NoncurrentVersionExpiration{NoncurrentDays: aws.Int32(1)},
		}}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, "the bucket's rule has run", func() bool {
		_, err := f.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &f.bucket, Key: &canary})
		return err != nil
	})
	if _, err := f.client.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: &f.bucket}); err != nil {
		f.t.Fatal(err)
	}
}

// cover deletes and overwrites everything, which S3 allows: markers and later
// versions.
func (f *fortress) cover() {
	f.t.Helper()
	dir := f.t.TempDir()
	for _, o := range f.originals {
		file := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(*o.Key, prefix)))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			f.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(`{"format": "pgstow/1"}`), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	place := "s3://" + f.bucket + "/" + prefix
	for range 2 { // versitygw takes a put over a marker for another marker
		f.works("aws", "s3", "cp", "--only-show-errors", "--recursive", dir, place)
		f.works("aws", "s3", "rm", "--only-show-errors", "--recursive", place)
	}
}

// survives: the archive is listed, shown and restored as before, and show says
// what lies over it.
func (f *fortress) survives(pg *testenv.Cluster, db string) {
	f.t.Helper()
	if all := list(f.t, f.env, f.url); len(all) != 1 || all[0].ID != f.id || !all[0].Complete {
		f.t.Errorf("listed are %+v", all)
	}
	out := run(f.t, f.env, 0, "show", f.id, "--from", f.url)
	for _, want := range []string{
		"lock now   compliance until 2", "covered    archive.dump: ", "manifest.json: ", "delete marker", "later version", "`pgstow undelete " + f.id + "`",
	} {
		if !strings.Contains(out, want) {
			f.t.Errorf("show does not say %q:\n%s", want, out)
		}
	}
	f.restores(pg, db)
	p := start(f.t, f.env, "expire", "--bucket", f.url, "--yes")
	p.want(0).says("1 kept until their keep is over")
}

func (f *fortress) restores(pg *testenv.Cluster, db string) {
	f.t.Helper()
	target := pg.CreateDatabase(f.t)
	run(f.t, f.env.with("PGSTOW_DB="+pg.URL(target)), 0, "restore", f.id, "--from", f.url)
	sameContents(f.t, pg, db, target)
}

// uncover: undelete takes away what lies over the archive, markers first, and
// plain readers see it again.
func (f *fortress) uncover(pg *testenv.Cluster, db string) {
	f.t.Helper()
	undelete := func(more ...string) {
		f.t.Helper()
		run(f.t, f.env, 0, append([]string{"undelete", f.id, "--bucket", f.url}, more...)...)
	}
	count := func() (versions, markers int) {
		v, m := f.versions()
		of := func(o types.ObjectIdentifier) bool { return !strings.Contains(*o.Key, f.id) }
		return len(slices.DeleteFunc(v, of)), len(slices.DeleteFunc(m, of))
	}
	versions, markers := count()
	if markers < len(f.originals) || versions < 2*len(f.originals) {
		f.t.Errorf("%d markers and %d versions lie there", markers, versions)
	}
	undelete() // a preview
	if v, m := count(); v != versions || m != markers {
		f.t.Errorf("the preview left %d versions and %d markers", v, m)
	}
	undelete("--yes")
	if v, m := count(); v != versions || m != 0 {
		f.t.Errorf("undelete left %d of %d versions and %d markers", v, versions, m)
	}
	undelete("--yes", "--later-versions")
	if v, m := count(); v != len(f.originals) || m != 0 {
		f.t.Errorf("undelete left %d versions and %d markers, the archive has %d", v, m, len(f.originals))
	}
	f.stands("undelete")
	var plain struct{ Contents []struct{ Key string } }
	out, ok := f.tool("aws", "s3api", "list-objects-v2", "--bucket", f.bucket, "--prefix", prefix, "--output", "json")
	if err := json.Unmarshal([]byte(out), &plain); err != nil || !ok {
		f.t.Fatalf("aws s3api list-objects-v2: %v\n%s", err, out)
	}
	for _, o := range f.originals {
		if !strings.Contains(fmt.Sprint(plain.Contents), *o.Key) {
			f.t.Errorf("aws does not see %s: %v", *o.Key, plain.Contents)
		}
	}
	if out := run(f.t, f.env, 0, "show", f.id, "--from", f.url); strings.Contains(out, "covered") {
		f.t.Errorf("show still says that something lies over the archive:\n%s", out)
	}
	f.restores(pg, db)
}

// keepsLonger: the lock is extended and never shortened, a hold comes on top and
// goes, and show tells who did it.
func (f *fortress) keepsLonger() {
	f.t.Helper()
	soon := time.Now().UTC().Add(time.Hour).Format(time.RFC3339)
	p := start(f.t, f.env, "retain", f.id, "--bucket", f.url, "--until", soon)
	p.want(13).says("locks are never shortened, nothing was changed")
	f.stands("a retain that was refused")
	run(f.t, f.env, 0, "retain", f.id, "--bucket", f.url, "--keep", "2d")
	run(f.t, f.env, 0, "hold", "set", f.id, "--bucket", f.url, "--reason", "litigation 4711", "--by", "alice@acme")
	out := run(f.t, f.env, 0, "show", f.id, "--from", f.url)
	for _, want := range []string{"hold now   on\n", "hold set by alice@acme: litigation 4711", time.Now().UTC().AddDate(0, 0, 3).Format("lock now   compliance until 2006-01")} {
		if !strings.Contains(out, want) {
			f.t.Errorf("show does not say %q:\n%s", want, out)
		}
	}
	run(f.t, f.env, 0, "hold", "release", f.id, "--bucket", f.url, "--reason", "settled", "--by", "bob@acme")
	out = run(f.t, f.env, 0, "show", f.id, "--from", f.url)
	if !strings.Contains(out, "hold now   off\n") || !strings.Contains(out, "hold released by bob@acme: settled") {
		f.t.Errorf("after the release show says:\n%s", out)
	}
	f.stands("a hold that was released")
}
