package archiver

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// audits does what an auditor's credentials are for.
func audits(ctx context.Context, b storage.Bucket) error {
	if len(b.Capabilities().Unprobed) > 0 {
		return storage.ErrPermission
	}
	all, err := scanStrictly(ctx, b, "", nil)
	if err != nil {
		return err
	}
	if err := LoadProtection(ctx, b, all); err != nil {
		return err
	}
	for _, e := range all {
		if len(e.Protection.Denied) > 0 {
			return storage.ErrPermission
		}
		if _, err := Show(ctx, ShowOptions{Bucket: b, Ref: e.ID}); err != nil {
			return err
		}
		if _, err := Restore(ctx, RestoreOptions{Bucket: b, Ref: e.ID, Output: io.Discard}); err != nil {
			return err
		}
		if _, err := b.Stat(ctx, e.Key+ManifestName, ""); err != nil {
			return err
		}
	}
	verified, err := Verify(ctx, VerifyOptions{Bucket: b, All: true, NoRecord: true, By: "test"})
	if err != nil {
		return err
	}
	audited, err := Audit(ctx, AuditOptions{Bucket: b})
	if err != nil {
		return err
	}
	if len(verified.Archives) != len(all) || audited.Archives != len(all) {
		return errors.New("not all archives were looked at")
	}
	_, rules := storage.ReadLifecycle(ctx, b)
	_, uploads := ownUploads(ctx, b)
	if errors.Is(uploads, errors.ErrUnsupported) {
		uploads = nil
	}
	return errors.Join(rules, uploads, user{bucket: b}.list(false)(ctx))
}

// The printed policy is enough to see everything, whatever policy it was archived
// under, and to change nothing; doctor says so, and names each right that is
// taken away.
func TestEachRightOfTheAuditor(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	srv := testenv.MinIO(t)
	bucket := srv.NewBucket(t, testenv.BucketOptions{ObjectLock: true})
	place := Place{Scheme: "s3", Bucket: bucket, Prefix: "pg/", PlainHTTP: true}
	root := door{endpoint: srv.Endpoint, key: srv.AccessKey, secret: srv.SecretKey}.open(t, bucket, place.Prefix)
	for _, policy := range []Policy{
		{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Governance, LegalHold: true, Tags: map[string]string{"owner": "finance"}}, {Name: "dev", Keep: Period{Days: 1}},
	} {
		u := user{bucket: root, conn: connTo(t, pg, db), policy: policy}
		if err := u.archive(true)(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	enough := printed(t, RightsOptions{Profile: ProfileAuditor, Place: place})
	for name, c := range map[string]struct {
		door door
		but  exceptions
	}{
		"MinIO": {minioDoor(t), minioExceptions},
		"AWS":   {awsDoor(t), awsExceptions},
	} {
		t.Run(name, func(t *testing.T) {
			// An upload that is open while it is looked at: its parts are seen too.
			during := func(do func()) {
				if err := (user{bucket: root}).giveUp(t.Context(), do); err != nil {
					t.Error(err)
				}
			}
			examine := func(p iamPolicy) (used error, missing map[string]bool, fits Profile, failed error) {
				c.door.allow(t, p)
				b := c.door.open(t, bucket, place.Prefix)
				during(func() {
					used = audits(t.Context(), b)
					missing, fits, failed = examined(t, b, DoctorOptions{Place: place, For: ProfileAuditor})
				})
				return used, missing, fits, failed
			}
			before := len(shownVersions(t, root))
			used, missing, fits, failed := examine(enough)
			if used != nil || fits != ProfileAuditor || failed != nil || len(missing) > 0 {
				t.Fatalf("enough is not: %v; doctor says %q, %v, missing %v", used, fits, failed, slices.Collect(maps.Keys(missing)))
			}
			for _, action := range enough.actions("Allow") {
				used, missing, fits, failed := examine(enough.without(action))
				if why, ignored := c.but.ignored[action]; ignored {
					if used != nil || fits != ProfileAuditor || len(missing) > 0 {
						t.Errorf("%s counts after all (%s): %v, missing %v", action, why, used, missing)
					}
					continue
				}
				want := action
				if other := c.but.named[action]; other != "" {
					want = other
				}
				if !errors.Is(used, storage.ErrPermission) || !missing[want] || len(missing) > 1 || fits == ProfileAuditor || !errors.Is(failed, storage.ErrPermission) {
					t.Errorf("without %s: %v; doctor names %v, says %q, %v", action, used, missing, fits, failed)
				}
			}
			c.door.allow(t, enough)
			b := c.door.open(t, bucket, place.Prefix)
			for _, o := range shownVersions(t, root)[:1] {
				_, put := storage.PutBytes(t.Context(), b, "sox/x", []byte("x"), storage.PutOptions{})
				for what, err := range map[string]error{
					"adds": put, "deletes": b.Delete(t.Context(), o.Key, o.Version), "hides": b.Delete(t.Context(), o.Key, ""),
					"holds":    storage.SetLegalHold(t.Context(), b, o.Key, o.Version, true),
					"releases": storage.SetLegalHold(t.Context(), b, o.Key, o.Version, false),
				} {
					if !errors.Is(err, storage.ErrPermission) && !errors.Is(err, storage.ErrLocked) {
						t.Errorf("the auditor %s: %v", what, err)
					}
				}
			}
			if after := len(shownVersions(t, root)); after != before {
				t.Errorf("%d versions became %d", before, after)
			}
		})
	}
	// Credentials that may do more are told so; nothing stays of the attempt.
	checks := Doctor(t.Context(), DoctorOptions{OpenBucket: opening(closeless{root}, nil), Place: place, For: ProfileAuditor})
	if i := slices.IndexFunc(checks, func(c Check) bool { return c.Name == "add nothing" }); i < 0 || checks[i].Status != CheckWarn {
		t.Errorf("root audits: %+v", checks)
	}
}

// What a profile lacks that was asked for is a failure.
func TestDoctorForAProfile(t *testing.T) {
	for denies, c := range map[string]struct{ enough, lacking []Profile }{
		"delete": {[]Profile{"", ProfileVault, ProfileArchive}, []Profile{ProfileFull}},
		"stat":   {[]Profile{"", ProfileVault}, []Profile{ProfileArchive, ProfileFull}},
		"":       {Profiles, nil},
	} {
		for _, profile := range slices.Concat(c.enough, c.lacking) {
			b := deniedBucket{lockable(), map[string]bool{denies: true}}
			_, _, failed := examined(t, b, DoctorOptions{Place: Place{Scheme: "s3"}, Policy: sox, For: profile})
			if lacks := slices.Contains(c.lacking, profile); lacks != errors.Is(failed, storage.ErrPermission) || !lacks && failed != nil {
				t.Errorf("without %q, for %q: %v", denies, profile, failed)
			}
		}
	}
}

// With a profile in mind, what it does without is told in a few words.
func TestDoctorSparesAProfile(t *testing.T) {
	b := deniedBucket{lockable(), map[string]bool{"stat": true, "open": true, "list": true, "versions": true, "delete": true, "uploads": true}}
	checks := Doctor(t.Context(), DoctorOptions{OpenBucket: opening(b, nil), Place: Place{Scheme: "s3"}, Policy: sox, For: ProfileVault})
	spared := 0
	for _, c := range checks {
		if c.Status == CheckDenied {
			spared++
			if !strings.HasPrefix(c.Detail, "the profile vault does without the right to ") || !strings.Contains(c.Detail, c.Right) || c.Advice != "" || c.Right == "" {
				t.Errorf("%+v", c)
			}
		}
	}
	if spared < 5 || checks[len(checks)-1].Profile != ProfileVault {
		t.Errorf("%+v", checks)
	}
}
