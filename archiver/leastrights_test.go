package archiver

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/storage"
)

func printed(t testing.TB, opts RightsOptions) iamPolicy {
	t.Helper()
	text, err := LeastRights(opts)
	if err != nil {
		t.Fatal(err)
	}
	var p iamPolicy
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p iamPolicy) actions(effect string) []string {
	var all []string
	for _, s := range p.Statement {
		if s.Effect == effect {
			all = append(all, s.Action...)
		}
	}
	slices.Sort(all)
	return all
}

func (p iamPolicy) statement(sid string) iamStatement {
	for _, s := range p.Statement {
		if s.Sid == sid {
			return s
		}
	}
	return iamStatement{}
}

// What no profile may ever get, whatever the policy.
func TestLeastRightsNeverGrants(t *testing.T) {
	policies := map[string]Policy{"none": {}, "locked": sox, "everything": {
		Name: "x", Keep: Period{Years: 7}, Lock: storage.Governance, LegalHold: true, StorageClass: "GLACIER",
		Encryption: Encryption{Mode: storage.EncryptionKMS, Key: "arn:aws:kms:eu-west-1:1:key/k"}, Tags: map[string]string{"a": "b"},
	}}
	for name, policy := range policies {
		for _, profile := range Profiles {
			p := printed(t, RightsOptions{Profile: profile, Place: Place{Scheme: "s3", Bucket: "b", Prefix: "p/"}, Policy: policy})
			for _, s := range p.Statement {
				if s.Effect != "Allow" {
					continue
				}
				for _, a := range s.Action {
					switch {
					case strings.Contains(a, "*"), strings.Contains(a, "Bypass"), strings.HasPrefix(a, "s3:PutBucket"):
						t.Errorf("%s, %s: %s is granted", name, profile, a)
					case strings.Contains(a, "Delete") && profile != ProfileFull:
						t.Errorf("%s, %s: %s is granted", name, profile, a)
					case profile == ProfileVault && (strings.HasPrefix(a, "s3:Get") || strings.HasPrefix(a, "s3:List")):
						t.Errorf("%s, %s: %s is granted", name, profile, a)
					}
				}
				for _, r := range s.Resource {
					if r == "*" || strings.HasPrefix(r, "arn:aws:s3:::*") || s.Sid == "Objects" && r != "arn:aws:s3:::b/p/*" {
						t.Errorf("%s, %s: %s is granted on %s", name, profile, s.Action, r)
					}
				}
			}
			if !slices.Equal(p.statement("OnlyTLS").Action, []string{"s3:*"}) {
				t.Errorf("%s, %s: nothing insists on TLS", name, profile)
			}
		}
	}
}

// A policy is as wide as what is asked for, and profiles grow.
func TestLeastRights(t *testing.T) {
	place := Place{Scheme: "s3", Bucket: "acme", Prefix: "pg/", Region: "eu-west-1"}
	rights := func(profile Profile, policy Policy) []string {
		return printed(t, RightsOptions{Profile: profile, Place: place, Policy: policy}).actions("Allow")
	}
	if got := rights(ProfileVault, Policy{}); !slices.Equal(got, []string{"s3:AbortMultipartUpload", "s3:PutObject"}) {
		t.Errorf("a vault without a policy: %q", got)
	}
	if got := rights(ProfileVault, sox); !slices.Equal(got, []string{"s3:AbortMultipartUpload", "s3:PutObject", "s3:PutObjectRetention", "s3:PutObjectTagging"}) {
		t.Errorf("a locked vault: %q", got)
	}
	for _, policy := range []Policy{{}, sox} {
		for i, smaller := range Profiles[:2] {
			larger := rights(Profiles[i+1], policy)
			for _, a := range rights(smaller, policy) {
				if !slices.Contains(larger, a) {
					t.Errorf("%s has no %s", Profiles[i+1], a)
				}
			}
			if len(larger) == len(rights(smaller, policy)) {
				t.Errorf("%s is no more than %s", Profiles[i+1], smaller)
			}
		}
	}
	cold := Policy{Name: "c", StorageClass: "DEEP_ARCHIVE"}
	if !slices.Contains(rights(ProfileArchive, cold), "s3:RestoreObject") || slices.Contains(rights(ProfileArchive, sox), "s3:RestoreObject") {
		t.Error("thawing is not granted where, and only where, dumps become cold")
	}
}

// A thief of the credentials locks nothing for a century, and in no other mode.
func TestLeastRightsLimitsLocks(t *testing.T) {
	seven := Policy{Name: "sox-7y", Keep: Period{Years: 7}, Lock: storage.Compliance}
	for profile, want := range map[Profile]string{ProfileVault: "2559", ProfileArchive: "2559", ProfileFull: "3655"} {
		p := printed(t, RightsOptions{Profile: profile, Place: Place{Scheme: "s3", Bucket: "b"}, Policy: seven})
		if got := p.statement("NoLongerLocks").Condition["NumericGreaterThan"]["s3:object-lock-remaining-retention-days"]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s: locks up to %q days, want %s", profile, got, want)
		}
		if got := p.statement("Locks").Condition["StringEquals"]["s3:object-lock-mode"]; !slices.Equal(got, []string{"COMPLIANCE"}) {
			t.Errorf("%s: modes %q", profile, got)
		}
	}
}

// The bucket's own lock is the limit where it is the stronger one.
func TestLeastRightsUnderABucketLock(t *testing.T) {
	for name, c := range map[string]struct {
		profile    Profile
		policy     Policy
		own        storage.DefaultRetention
		mode, days string // "" where nothing may be locked
		refused    bool
	}{
		"longer":             {ProfileArchive, Policy{Lock: storage.Governance, Keep: Period{Years: 1}}, storage.DefaultRetention{Mode: storage.Governance, Years: 2}, "GOVERNANCE", "733", false},
		"firmer and longer":  {ProfileVault, Policy{Lock: storage.Governance, Keep: Period{Years: 1}}, storage.DefaultRetention{Mode: storage.Compliance, Days: 800}, "COMPLIANCE", "802", false},
		"weaker":             {ProfileArchive, Policy{Lock: storage.Compliance, Keep: Period{Years: 1}}, storage.DefaultRetention{Mode: storage.Governance, Days: 9}, "COMPLIANCE", "368", false},
		"neither":            {ProfileArchive, Policy{Lock: storage.Compliance, Keep: Period{Years: 1}}, storage.DefaultRetention{Mode: storage.Governance, Years: 2}, "", "", true},
		"no lock of its own": {ProfileArchive, Policy{Name: "dev", Keep: Period{Days: 30}}, storage.DefaultRetention{Mode: storage.Governance, Days: 9}, "GOVERNANCE", "11", false},
		"and a vault":        {ProfileVault, Policy{Name: "dev", Keep: Period{Days: 30}}, storage.DefaultRetention{Mode: storage.Governance, Days: 9}, "", "", false},
	} {
		opts := RightsOptions{Profile: c.profile, Place: Place{Scheme: "s3", Bucket: "b"}, Policy: c.policy, BucketLock: c.own}
		if c.refused {
			if _, err := LeastRights(opts); !errors.Is(err, ErrUsage) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		p := printed(t, opts)
		mode := strings.Join(p.statement("Locks").Condition["StringEquals"]["s3:object-lock-mode"], "")
		days := strings.Join(p.statement("NoLongerLocks").Condition["NumericGreaterThan"]["s3:object-lock-remaining-retention-days"], "")
		if mode != c.mode || days != c.days {
			t.Errorf("%s: %s for %s days, want %s for %s", name, mode, days, c.mode, c.days)
		}
	}
}

func TestLeastRightsPlaces(t *testing.T) {
	kms := func(key string) Policy {
		return Policy{Name: "k", Encryption: Encryption{Mode: storage.EncryptionKMS, Key: key}}
	}
	for name, c := range map[string]struct {
		place  Place
		policy Policy
		sid    string
		want   string // in its resources
		where  string // in its condition
	}{
		"plain":       {Place{Scheme: "s3", Bucket: "b"}, Policy{}, "Objects", "arn:aws:s3:::b/*", ""},
		"prefix":      {Place{Scheme: "s3", Bucket: "b", Prefix: "a/b/"}, Policy{}, "Objects", "arn:aws:s3:::b/a/b/*", ""},
		"listing":     {Place{Scheme: "s3", Bucket: "b", Prefix: "a/b/"}, Policy{}, "Listing", "arn:aws:s3:::b", `{"StringLike":{"s3:prefix":["a/b/*"]}}`},
		"wildcards":   {Place{Scheme: "s3", Bucket: "b", Prefix: "a*?/$x/"}, Policy{}, "Objects", "arn:aws:s3:::b/a${*}${?}/${$}x/*", ""},
		"China":       {Place{Scheme: "s3", Bucket: "b", Region: "cn-north-1"}, Policy{}, "Objects", "arn:aws-cn:s3:::b/*", ""},
		"GovCloud":    {Place{Scheme: "s3", Bucket: "b", Region: "us-gov-west-1"}, Policy{}, "Bucket", "arn:aws-us-gov:s3:::b", ""},
		"key by id":   {Place{Scheme: "s3", Bucket: "b", Region: "us-gov-west-1"}, kms("k-1"), "Key", "arn:aws-us-gov:kms:us-gov-west-1:*:key/k-1", `"kms:ViaService":["s3.us-gov-west-1.amazonaws.com*"]`},
		"key by ARN":  {Place{Scheme: "s3", Bucket: "b"}, kms("arn:aws:kms:eu-west-1:12:key/k"), "Key", "arn:aws:kms:eu-west-1:12:key/k", ""},
		"key alias":   {Place{Scheme: "s3", Bucket: "b", Region: "eu-west-1"}, kms("alias/pg"), "Key", "arn:aws:kms:eu-west-1:*:key/*", `"kms:ResourceAliases":["alias/pg"]`},
		"account key": {Place{Scheme: "s3", Bucket: "b"}, kms(""), "Key", "", ""},
	} {
		p := printed(t, RightsOptions{Profile: ProfileArchive, Place: c.place, Policy: c.policy})
		s := p.statement(c.sid)
		condition, err := json.Marshal(s.Condition)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(s.Resource, " ") != c.want || !strings.Contains(string(condition), c.where) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if s := printed(t, RightsOptions{Profile: ProfileVault, Place: Place{Scheme: "s3", PlainHTTP: true}}).statement("OnlyTLS"); s.Sid != "" {
		t.Error("TLS is asked of an endpoint that has none")
	}
	if _, err := LeastRights(RightsOptions{Profile: ProfileVault, Place: Place{Scheme: "file"}}); !errors.Is(err, ErrUsage) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := LeastRights(RightsOptions{Profile: ProfileVault, Place: Place{Scheme: "s3"}, Policy: Policy{Lock: storage.Governance}}); !errors.Is(err, ErrUsage) {
		t.Errorf("a policy that cannot be: %v", err)
	}
}

func TestGCSRole(t *testing.T) {
	place := Place{Scheme: "gs", Bucket: "acme", Prefix: "pg/"}
	for profile, want := range map[Profile][]string{
		ProfileVault:   {"storage.objects.create", "storage.objects.setRetention"},
		ProfileArchive: {"storage.buckets.get", "storage.objects.create", "storage.objects.get", "storage.objects.list", "storage.objects.setRetention"},
		ProfileFull: {"storage.buckets.get", "storage.buckets.update", "storage.objects.create", "storage.objects.delete", "storage.objects.get",
			"storage.objects.list", "storage.objects.setRetention", "storage.objects.update"},
	} {
		text, err := LeastRights(RightsOptions{Profile: profile, Place: place, Policy: sox, JSON: true})
		if err != nil {
			t.Fatal(err)
		}
		var role gcsRole
		if err := json.Unmarshal([]byte(text), &role); err != nil {
			t.Fatal(err)
		}
		slices.Sort(role.IncludedPermissions)
		if !slices.Equal(role.IncludedPermissions, want) || role.Stage != "GA" || role.Title != "pgstow "+string(profile) {
			t.Errorf("%s: %+v", profile, role)
		}
		yaml, err := LeastRights(RightsOptions{Profile: profile, Place: place, Policy: sox})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range want {
			if !strings.Contains(yaml, "\n- "+p+"\n") {
				t.Errorf("%s: no %s in\n%s", profile, p, yaml)
			}
		}
		if bound := strings.Contains(yaml, `|| resource.name == "projects/_/buckets/acme"`); bound == (profile == ProfileVault) ||
			!strings.Contains(yaml, `startsWith("projects/_/buckets/acme/objects/pg/")`) {
			t.Errorf("%s: the binding is\n%s", profile, yaml)
		}
	}
}
