package archiver

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// outcomes are the checks by name; several of one name must agree.
func outcomes(t *testing.T, checks []Check) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, c := range checks {
		if c.Detail == "" || c.Status == CheckFail && c.Err == nil || c.Status == CheckOK && c.Err != nil {
			t.Errorf("check %+v", c)
		}
		got[c.Name] = c.Status
	}
	return got
}

func wantOutcomes(t *testing.T, checks []Check, want map[string]string) {
	t.Helper()
	got := outcomes(t, checks)
	for name, status := range want {
		if got[name] != status {
			t.Errorf("%s is %q, want %q; all: %+v", name, got[name], status, checks)
		}
	}
	if len(got) != len(want) {
		t.Errorf("checks are %v, want %v", got, want)
	}
}

func opening(b storage.Bucket, err error) func(context.Context) (storage.Bucket, error) {
	return func(context.Context) (storage.Bucket, error) { return b, err }
}

func TestDoctor(t *testing.T) {
	pg := testenv.Postgres(t)
	conn := connTo(t, pg, smallSource(t, pg))
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	wantOutcomes(t, Doctor(t.Context(), DoctorOptions{Conn: &conn, OpenBucket: opening(b, nil)}), map[string]string{
		"client programs": CheckOK, "connection": CheckOK, "pooler": CheckOK, "versions": CheckOK, "rights": CheckOK,
		"bucket": CheckOK, "list": CheckOK, "create": CheckOK, "abort upload": CheckOK, "list uploads": CheckOK,
		"write": CheckOK, "read": CheckOK, "read back": CheckOK, "delete": CheckOK,
	})
	if left := objects(t, b); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	nowhere := conn.WithDatabase("not_there")
	down := &storage.Error{Op: "open", Kind: storage.ErrBucketNotExist}
	checks := Doctor(t.Context(), DoctorOptions{Conn: &nowhere, OpenBucket: opening(nil, down), PGBin: t.TempDir()})
	wantOutcomes(t, checks, map[string]string{"client programs": CheckFail, "connection": CheckFail, "bucket": CheckFail})
	for _, c := range checks {
		if c.Advice == "" {
			t.Errorf("no advice: %+v", c)
		}
		if c.Name == "bucket" && !errors.Is(c.Err, storage.ErrBucketNotExist) {
			t.Errorf("error is %v", c.Err)
		}
		if c.Name == "connection" && !errors.Is(c.Err, dumper.ErrConnect) {
			t.Errorf("error is %v", c.Err)
		}
	}
}

// deniedBucket denies some of the operations.
type deniedBucket struct {
	*storagetest.Memory
	denies map[string]bool // put, tags, lock, hold, open, stat, list, versions, delete, extend, uploads, abort
}

func (b deniedBucket) deny(op string) error {
	if b.denies[op] {
		return &storage.Error{Op: op, Kind: storage.ErrPermission}
	}
	return nil
}

func (b deniedBucket) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	for op, asked := range map[string]bool{
		"put": true, "tags": len(opts.Tags) > 0, "lock": !opts.Retention.IsZero(), "hold": opts.LegalHold,
		"class": opts.StorageClass != "",
	} {
		if err := b.deny(op); err != nil && asked {
			return storage.Object{}, err
		}
	}
	o, err := b.Memory.Put(ctx, key, r, opts)
	if err != nil && b.denies["abort"] {
		err = errors.Join(err, &storage.UploadRemainsError{Key: key, Err: b.deny("abort")})
	}
	return o, err
}

func (b deniedBucket) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if err := b.deny("open"); err != nil {
		return nil, err
	}
	return b.Memory.Open(ctx, key, opts)
}

func (b deniedBucket) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	if err := b.deny("stat"); err != nil {
		return storage.Object{}, err
	}
	return b.Memory.Stat(ctx, key, version)
}

func (b deniedBucket) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	err := b.deny("list")
	if opts.Versions {
		err = b.deny("versions")
	}
	if err != nil {
		return func(yield func(storage.Object, error) bool) { yield(storage.Object{}, err) }
	}
	return b.Memory.List(ctx, opts)
}

func (b deniedBucket) Delete(ctx context.Context, key, version string) error {
	if err := b.deny("delete"); err != nil {
		return err
	}
	return b.Memory.Delete(ctx, key, version)
}

func (b deniedBucket) SetRetention(ctx context.Context, key, version string, r storage.Retention) error {
	if err := b.deny("extend"); err != nil {
		return err
	}
	return b.Memory.SetRetention(ctx, key, version, r)
}

func (b deniedBucket) SetLegalHold(ctx context.Context, key, version string, on bool) error {
	if err := b.deny("hold"); err != nil {
		return err
	}
	return b.Memory.SetLegalHold(ctx, key, version, on)
}

func (b deniedBucket) Uploads(ctx context.Context, prefix string) iter.Seq2[storage.Upload, error] {
	if err := b.deny("uploads"); err != nil {
		var e *storage.Error
		errors.As(err, &e)
		e.Key = prefix
		return func(yield func(storage.Upload, error) bool) { yield(storage.Upload{}, err) }
	}
	return b.Memory.Uploads(ctx, prefix)
}

// What is denied is named by its right, and is an error only where the policy
// cannot be kept without; what is left over says for which profile it is enough.
func TestDoctorNamesRights(t *testing.T) {
	held := sox
	held.LegalHold = true
	reading := []string{"stat", "open", "list", "versions", "delete", "uploads"}
	for name, c := range map[string]struct {
		denies  []string
		rights  []string // that are named as missing
		fails   bool
		profile Profile
	}{
		"nothing":         {nil, nil, false, ProfileFull},
		"put only":        {reading, []string{"s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads", "s3:GetObject", "s3:GetObjectVersion", "s3:DeleteObjectVersion"}, false, ProfileVault},
		"delete":          {[]string{"delete"}, []string{"s3:DeleteObjectVersion"}, false, ProfileArchive},
		"list uploads":    {[]string{"uploads"}, []string{"s3:ListBucketMultipartUploads"}, false, ProfileArchive},
		"versions":        {[]string{"versions"}, []string{"s3:ListBucketVersions"}, false, ProfileVault},
		"read":            {[]string{"open"}, []string{"s3:GetObjectVersion"}, false, ProfileVault},
		"abort":           {[]string{"abort"}, []string{"s3:AbortMultipartUpload"}, false, ""},
		"create":          {[]string{"put"}, []string{"s3:PutObject"}, true, ""},
		"lock":            {[]string{"lock"}, []string{"s3:PutObjectRetention"}, true, ""},
		"hold":            {[]string{"hold"}, []string{"s3:PutObjectLegalHold"}, true, ""},
		"tags":            {[]string{"tags"}, []string{"s3:PutObjectTagging"}, true, ""},
		"tags and lock":   {[]string{"tags", "lock"}, []string{"s3:PutObjectTagging", "s3:PutObjectRetention"}, true, ""},
		"extend":          {[]string{"extend"}, []string{"s3:PutObjectRetention"}, false, ""},
		"whatever writes": {[]string{"put", "abort", "lock"}, []string{"s3:PutObject"}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := deniedBucket{lockable(), map[string]bool{}}
			for _, op := range c.denies {
				b.denies[op] = true
			}
			var announced []string
			checks := Doctor(t.Context(), DoctorOptions{
				OpenBucket: opening(b, nil), Place: Place{Scheme: "s3", Bucket: "b", Prefix: "p/"}, Policy: held,
				Announce: func(text string) { announced = append(announced, text) },
			})
			rights := map[string]bool{}
			var profile Profile
			fails := false
			for _, check := range checks {
				if (check.Status == CheckDenied) != (check.Right != "") || check.Status != CheckOK && check.Advice == "" {
					t.Errorf("check %+v", check)
				}
				if check.Right != "" {
					rights[check.Right] = true
				}
				fails = fails || check.Err != nil
				profile = cmp.Or(profile, check.Profile)
			}
			if got, want := slices.Sorted(maps.Keys(rights)), slices.Sorted(slices.Values(c.rights)); !slices.Equal(got, want) {
				t.Errorf("missing are %q, want %q", got, want)
			}
			if fails != c.fails || profile != c.profile {
				t.Errorf("fails %t, profile %q, want %t, %q; %+v", fails, profile, c.fails, c.profile, checks)
			}
			left := shownVersions(t, b.Memory)
			if len(left) > 1 || len(left) != len(announced) {
				t.Errorf("left are %+v, announced %q", left, announced)
			}
			for _, o := range left {
				if o.Retention.Mode != storage.Compliance || o.LegalHold || time.Until(o.Retention.Until) > 2*scratchLock+time.Second ||
					!strings.Contains(announced[0], "locked (compliance) until") {
					t.Errorf("left is %+v, announced %q", o, announced)
				}
			}
		})
	}
}

// A refusal for want of rights is no proof of a lock.
func TestDoctorDoesNotTakeADenialForALock(t *testing.T) {
	for name, c := range map[string]struct {
		bucket storage.Bucket
		want   string
	}{
		"the lock refuses":           {lockable(), CheckOK},
		"nothing may be deleted":     {deniedBucket{lockable(), map[string]bool{"delete": true}}, CheckSkipped},
		"both, and the driver looks": {deniedDeletes{lockable()}, CheckSkipped},
	} {
		checks := Doctor(t.Context(), DoctorOptions{OpenBucket: opening(c.bucket, nil), Place: Place{Scheme: "s3"}, Policy: sox})
		i := slices.IndexFunc(checks, func(c Check) bool { return c.Name == "refuse to delete" })
		if i < 0 || checks[i].Status != c.want || c.want == CheckSkipped && !strings.Contains(checks[i].Detail, "could not be told") {
			t.Errorf("%s: %+v", name, checks)
		}
	}
}

// deniedDeletes denies, and calls it a lock where one stands, as the S3 driver
// does: AWS says the same of both.
type deniedDeletes struct{ *storagetest.Memory }

func (b deniedDeletes) Delete(ctx context.Context, key, version string) error {
	kind := storage.ErrPermission
	if o, err := b.Stat(ctx, key, version); err == nil && !o.Retention.IsZero() {
		kind = storage.ErrLocked
	}
	return &storage.Error{Op: "delete", Key: key, Kind: kind}
}

// shownVersions is every version in a bucket.
func shownVersions(t testing.TB, b storage.Bucket) []storage.Object {
	t.Helper()
	var all []storage.Object
	for o, err := range b.List(context.Background(), storage.ListOptions{Versions: true}) {
		if err == nil {
			o, err = b.Stat(context.Background(), o.Key, o.Version)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// With --no-write nothing is written, and no profile is guessed.
func TestDoctorWithoutWriting(t *testing.T) {
	b := lockable()
	checks := Doctor(t.Context(), DoctorOptions{OpenBucket: opening(b, nil), Place: Place{Scheme: "s3"}, Policy: sox, NoWrite: true,
		Announce: func(text string) { t.Errorf("announced: %s", text) }})
	wantOutcomes(t, checks, map[string]string{"client programs": CheckOK, "bucket": CheckOK, "list": CheckOK,
		"list versions": CheckOK, "write": CheckSkipped, "profile": CheckSkipped})
	if left := shownVersions(t, b); len(left) > 0 {
		t.Errorf("left are %+v", left)
	}
}

// What a store drops is found before it matters.
func TestDoctorNoticesWhatAStoreDrops(t *testing.T) {
	policy := sox
	policy.StorageClass = "STANDARD_IA"
	readBack := func(b storage.Bucket, p Policy) Check {
		checks := Doctor(t.Context(), DoctorOptions{OpenBucket: opening(closeless{b}, nil), Place: Place{Scheme: "s3"}, Policy: p})
		i := slices.IndexFunc(checks, func(c Check) bool { return c.Name == "read back" })
		if i < 0 {
			t.Fatalf("not read back: %+v", checks)
		}
		return checks[i]
	}
	for _, drops := range []string{"lock", "mode", "time", "tags", "class"} {
		if c := readBack(&forgetful{Memory: lockable(), drops: drops}, policy); c.Status != CheckFail || !errors.Is(c.Err, ErrIntegrity) {
			t.Errorf("%s: %+v", drops, c)
		}
	}
	for _, class := range []string{"STANDARD", "STANDARD_IA", "DEEP_ARCHIVE"} {
		policy.StorageClass = class
		if c := readBack(lockable(), policy); c.Status != CheckOK || strings.Contains(c.Detail, "a range can be read") == (class == "DEEP_ARCHIVE") {
			t.Errorf("%s is kept: %+v", class, c)
		}
	}
	// versitygw knows no classes, and says so to nobody.
	gw := openS3(t, testenv.VersityGW(t), testenv.BucketOptions{})
	t.Cleanup(func() { gw.Close() })
	if c := readBack(gw, Policy{Name: "cold", StorageClass: "STANDARD_IA"}); c.Status != CheckFail || !strings.Contains(c.Detail, "the storage class") {
		t.Errorf("versitygw: %+v", c)
	}
}

// What cannot be done at all is refused as it would be by an archive.
func TestDoctorRefusesAPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		bucket storage.Bucket
		policy Policy
		check  string
		kind   error
	}{
		"no lock":     {storagetest.NewMemory(storagetest.MemoryOptions{}), sox, "lock", errors.ErrUnsupported},
		"skew":        {capable{lockable(), func(c *storage.Capabilities) { c.ClockSkew = time.Hour }}, sox, "policy", ErrUsage},
		"no lock set": {lockable(), Policy{Lock: storage.Governance}, "policy", ErrUsage},
		"a rule": {newRuled(t, s3Rules, storage.LifecycleRule{ID: "all", Actions: []storage.LifecycleAction{
			{Kind: storage.LifecycleExpire, Days: 7, Clock: storage.LifecycleSinceCreation}}}), Policy{Keep: Period{Days: 30}}, "expiry", ErrRefused},
	} {
		checks := Doctor(t.Context(), DoctorOptions{OpenBucket: opening(c.bucket, nil), Place: Place{Scheme: "s3"}, Policy: c.policy})
		i := slices.IndexFunc(checks, func(x Check) bool { return x.Name == c.check })
		if i < 0 || !errors.Is(checks[i].Err, c.kind) {
			t.Errorf("%s: %+v", name, checks)
		}
		if left := shownVersions(t, c.bucket); len(left) > 0 {
			t.Errorf("%s: left are %+v", name, left)
		}
	}
}

// A bucket that locks by itself, for years, keeps Doctor's object for minutes;
// what earlier runs have left is removed.
func TestDoctorLeavesLittle(t *testing.T) {
	b := lockable()
	byDefault := capable{b, func(c *storage.Capabilities) {
		c.DefaultRetention = storage.DefaultRetention{Mode: storage.Governance, Years: 7}
	}}
	Doctor(t.Context(), DoctorOptions{OpenBucket: opening(byDefault, nil), Place: Place{Scheme: "s3"}})
	left := shownVersions(t, b)
	if len(left) != 1 || left[0].Retention.Mode != storage.Governance || time.Until(left[0].Retention.Until) > 2*scratchLock+time.Second {
		t.Fatalf("left are %+v", left)
	}
	b = lockable()
	for range 3 {
		Doctor(t.Context(), DoctorOptions{OpenBucket: opening(deniedBucket{b, map[string]bool{"delete": true}}, nil), Place: Place{Scheme: "s3"}})
	}
	if left := shownVersions(t, b); len(left) != 3 {
		t.Fatalf("left are %+v", left)
	}
	later := func() time.Time { return time.Now().Add(scratchAge + time.Minute) }
	Doctor(t.Context(), DoctorOptions{OpenBucket: opening(b, nil), Place: Place{Scheme: "s3"}, Now: later})
	if left := shownVersions(t, b); len(left) > 0 {
		t.Errorf("left are %+v", left)
	}
}

// On every store that locks, doctor does all it tries, and leaves one object
// that is locked for minutes.
func TestDoctorOnStores(t *testing.T) {
	policy := Policy{Name: "sox", Keep: Period{Years: 7}, Lock: storage.Governance, Tags: map[string]string{"owner": "finance"}}
	for name, open := range lockingStores() {
		t.Run(name, func(t *testing.T) {
			scheme := "s3"
			if name == "gcs" {
				scheme = "gs"
			}
			b := open(t)
			t.Cleanup(func() { b.Close() })
			b = storage.Prefixed(b, "team/")
			var announced []string
			checks := Doctor(t.Context(), DoctorOptions{
				OpenBucket: opening(closeless{b}, nil), Place: Place{Scheme: scheme, Bucket: "x", Prefix: "team/"}, Policy: policy,
				Announce: func(text string) { announced = append(announced, text) },
			})
			for _, check := range checks {
				if check.Status != CheckOK && check.Name != "abandoned uploads" || check.Profile != "" && check.Profile != ProfileFull {
					t.Errorf("%+v", check)
				}
			}
			tried := []string{"lock", "write", "read back", "extend", "refuse to delete", "set hold", "delete"}
			if name != "memory" {
				tried = append(tried, "abandoned uploads")
			}
			for _, name := range tried {
				if !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == name }) {
					t.Errorf("%s was not tried", name)
				}
			}
			left := shownVersions(t, b)
			if len(left) != 1 || len(announced) != 1 || left[0].Retention.Mode != storage.Governance || left[0].LegalHold ||
				time.Until(left[0].Retention.Until) > 2*scratchLock+time.Second || !left[0].Retention.Until.After(time.Now()) {
				t.Errorf("left are %+v, announced %q", left, announced)
			}
		})
	}
}
