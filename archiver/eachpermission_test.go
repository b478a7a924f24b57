package archiver

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/gcs"
)

// The same as TestEachRightCounts for the printed roles of GCS, by the strict
// server's judgement.
func TestEachPermissionCounts(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE TABLE x (id int); INSERT INTO x VALUES (1)`)
	policy := Policy{Name: "sox", Keep: Period{Days: 1}, Lock: storage.Governance, Tags: map[string]string{"owner": "finance"}}
	place := Place{Scheme: "gs", Bucket: "archives", Prefix: "team/pg/"}
	tokens := map[string]gcsserver.Permissions{}
	for _, profile := range append(slices.Clone(Profiles), ProfileAuditor) {
		text, err := LeastRights(RightsOptions{Profile: profile, Place: place, Policy: policy, JSON: true})
		if err != nil {
			t.Fatal(err)
		}
		var role gcsRole
		if err := json.Unmarshal([]byte(text), &role); err != nil {
			t.Fatal(err)
		}
		all := role.IncludedPermissions
		tokens[string(profile)] = all
		for _, p := range all {
			tokens[string(profile)+" without "+p] = slices.DeleteFunc(slices.Clone(all), func(q string) bool { return q == p })
		}
	}
	srv := gcsserver.New(gcsserver.Options{Tokens: tokens})
	if err := srv.CreateBucket(place.Bucket, map[string]any{
		"versioning": map[string]any{"enabled": true}, "objectRetention": map[string]any{"mode": "Enabled"},
	}); err != nil {
		t.Fatal(err)
	}
	var token atomic.Value
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+token.Load().(string))
		srv.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	enter := func(as string) user {
		token.Store(as)
		b, err := gcs.Open(t.Context(), gcs.Config{Bucket: place.Bucket, Endpoint: front.URL})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return user{bucket: storage.Prefixed(b, place.Prefix), conn: connTo(t, pg, db), policy: policy}
	}
	for _, profile := range Profiles {
		t.Run(string(profile), func(t *testing.T) {
			u := enter(string(profile))
			if err := u.archive(profile != ProfileVault)(t.Context()); err != nil {
				t.Errorf("%s is not enough to archive: %v", profile, err)
			}
			if profile != ProfileVault {
				if err := u.restore(t.Context()); err != nil {
					t.Errorf("%s is not enough to restore: %v", profile, err)
				}
			}
			if profile == ProfileFull {
				if err := u.keep(t.Context()); err != nil {
					t.Errorf("%s is not enough to retain, hold and expire: %v", profile, err)
				}
			}
			larger, fits, failed := examined(t, enter(string(profile)).bucket, DoctorOptions{Place: place, Policy: policy})
			if fits != profile || failed != nil {
				t.Fatalf("doctor says %q, %v, missing %v", fits, failed, larger)
			}
			for _, p := range tokens[string(profile)] {
				missing, fits, failed := examined(t, enter(string(profile)+" without "+p).bucket, DoctorOptions{Place: place, Policy: policy})
				if p == "storage.buckets.update" {
					if fits != profile || len(missing) != len(larger) {
						t.Errorf("doctor tries %s after all: %v", p, missing)
					}
					continue
				}
				if !missing[p] || fits == profile || (failed != nil) != slices.Contains(tokens[string(ProfileVault)], p) {
					t.Errorf("without %s doctor names %v, says %q and fails with %v", p, missing, fits, failed)
				}
				for other := range missing {
					if other != p && !larger[other] {
						t.Errorf("without %s doctor names %s too", p, other)
					}
				}
				if failed != nil && !errors.Is(failed, storage.ErrPermission) {
					t.Errorf("without %s: %v", p, failed)
				}
			}
		})
	}
	t.Run(string(ProfileAuditor), func(t *testing.T) {
		examine := func(as string) (used error, missing map[string]bool, fits Profile, failed error) {
			b := enter(as).bucket
			missing, fits, failed = examined(t, b, DoctorOptions{Place: place, For: ProfileAuditor})
			return audits(t.Context(), b), missing, fits, failed
		}
		if used, missing, fits, failed := examine(string(ProfileAuditor)); used != nil || fits != ProfileAuditor || failed != nil || len(missing) > 0 {
			t.Fatalf("enough is not: %v; doctor says %q, %v, missing %v", used, fits, failed, missing)
		}
		for _, p := range tokens[string(ProfileAuditor)] {
			used, missing, fits, failed := examine(string(ProfileAuditor) + " without " + p)
			if !errors.Is(used, storage.ErrPermission) || !missing[p] || len(missing) > 1 || fits == ProfileAuditor || !errors.Is(failed, storage.ErrPermission) {
				t.Errorf("without %s: %v; doctor names %v, says %q, %v", p, used, missing, fits, failed)
			}
		}
	})
}
