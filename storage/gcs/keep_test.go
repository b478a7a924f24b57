package gcs

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
)

// TestKeyVersionIsShown: what the store shows of a customer-managed key names its
// version; a bucket's default key is shown alike.
func TestKeyVersionIsShown(t *testing.T) {
	s := startStrict(t, gcsserver.Options{KMSKeys: testKeys})
	want := storage.Encryption{Mode: storage.EncryptionKMS, Key: testKMSKey}
	b := s.open(t, s.quick(s.bucket(t)))
	for key, size := range map[string]int{"small": 10, "large": faultSize} {
		known := int64(0)
		if key == "small" {
			known = int64(size)
		}
		o, err := b.Put(t.Context(), key, bytes.NewReader(content(1, size)), storage.PutOptions{Size: known, Encryption: want})
		if err != nil || o.Encryption.Key != testKMSKey+"/cryptoKeyVersions/3" || !o.Encryption.Covers(want) {
			t.Errorf("%s: %+v, %v", key, o.Encryption, err)
		}
	}
	byDefault := s.open(t, s.quick(s.bucketWith(t, map[string]any{"encryption": map[string]any{"defaultKmsKeyName": testKMSKey}})))
	if o, err := storage.PutBytes(t.Context(), byDefault, "k", []byte("x"), storage.PutOptions{}); err != nil || !o.Encryption.Covers(want) {
		t.Errorf("by the bucket's default: %+v, %v", o.Encryption, err)
	}
	foreign := s.open(t, s.quick(s.bucketWith(t, map[string]any{"encryption": map[string]any{"defaultKmsKeyName": testKMSKey + "2"}})))
	_, err := storage.PutBytes(t.Context(), foreign, "k", []byte("x"), storage.PutOptions{})
	if !errors.Is(err, storage.ErrPermission) || !strings.Contains(err.Error(), "--authorize-cmek=KEY") {
		t.Errorf("by a default that the store may not use: %v", err)
	}
}

// TestEffectiveRetention: the firmer of the object's own retention and the
// bucket's policy is shown, and never more than either.
func TestEffectiveRetention(t *testing.T) {
	s := startStrict(t, gcsserver.Options{})
	hour := func(n int) time.Time { return time.Now().UTC().Truncate(time.Second).Add(time.Duration(n) * time.Hour) }
	own := func(mode storage.LockMode, hours int) storage.Retention {
		return storage.Retention{Mode: mode, Until: hour(hours)}
	}
	for name, c := range map[string]struct {
		locked bool
		own    storage.Retention
		want   storage.Retention // of a policy of two hours
	}{
		"policy alone":                 {false, storage.Retention{}, own(storage.Governance, 2)},
		"locked policy alone":          {true, storage.Retention{}, own(storage.Compliance, 2)},
		"longer than the policy":       {false, own(storage.Governance, 5), own(storage.Governance, 5)},
		"firmer and shorter":           {false, own(storage.Compliance, 1), own(storage.Compliance, 1)},
		"firmer and longer":            {false, own(storage.Compliance, 5), own(storage.Compliance, 5)},
		"weaker and shorter":           {true, own(storage.Governance, 1), own(storage.Compliance, 2)},
		"weaker and longer than sworn": {true, own(storage.Governance, 5), own(storage.Governance, 5)},
	} {
		t.Run(name, func(t *testing.T) {
			policy := map[string]any{"retentionPeriod": "7200"}
			if c.locked {
				policy["isLocked"] = true
			}
			b := s.open(t, s.quick(s.bucketWith(t, map[string]any{
				"objectRetention": map[string]any{"mode": "Enabled"}, "retentionPolicy": policy})))
			if _, err := storage.PutBytes(t.Context(), b, "k", []byte("x"), storage.PutOptions{Retention: c.own}); err != nil {
				t.Fatal(err)
			}
			o, err := b.Stat(t.Context(), "k", "")
			if err != nil {
				t.Fatal(err)
			}
			if off := o.Retention.Until.Sub(c.want.Until); o.Retention.Mode != c.want.Mode || off < -time.Minute || off > time.Minute {
				t.Errorf("Stat shows %+v, expected %+v", o.Retention, c.want)
			}
		})
	}
	// A policy that is longer than the object's own, passed or not, still keeps.
	now := time.Now()
	passed := storage.Retention{Mode: storage.Compliance, Until: now.Add(-time.Hour)}
	policy := storage.Retention{Mode: storage.Governance, Until: now.Add(time.Hour)}
	if got := effective(passed, policy, now); got != policy {
		t.Errorf("a passed retention hides the policy: %+v", got)
	}
}

// TestEventBasedHoldHolds: it protects as a temporary one does and is shown.
func TestEventBasedHoldHolds(t *testing.T) {
	s := startStrict(t, gcsserver.Options{})
	b := s.open(t, s.quick(s.bucketWith(t, map[string]any{"defaultEventBasedHold": true})))
	put, err := storage.PutBytes(t.Context(), b, "k", []byte("x"), storage.PutOptions{})
	if err != nil || !put.LegalHold {
		t.Errorf("Put: hold %t, %v", put.LegalHold, err)
	}
	if err := b.Delete(t.Context(), "k", put.Version); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("Delete: %v", err)
	}
	if o, err := b.Stat(t.Context(), "k", ""); err != nil || !o.LegalHold || o.Denied != nil {
		t.Errorf("Stat: %+v, %v", o, err)
	}
}

// TestChangedMeanwhile: what was read and decided on is not written over another's
// change.
func TestChangedMeanwhile(t *testing.T) {
	s := startStrict(t, gcsserver.Options{})
	b := s.open(t, s.quick(s.bucket(t)))
	if _, err := storage.PutBytes(t.Context(), b, "k", []byte("x"), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	changes := map[string]func() error{
		"custom time": func() error { return b.SetCustomTime(t.Context(), "k", "", later) },
		"retention": func() error {
			return b.SetRetention(t.Context(), "k", "", storage.Retention{Mode: storage.Governance, Until: later})
		},
	}
	for name, change := range changes {
		s.Inject(gcsserver.Fault{Op: gcsserver.OpPatch, Before: func() {
			if err := b.SetLegalHold(t.Context(), "k", "", true); err != nil {
				t.Error(err)
			}
		}})
		if err := change(); !errors.Is(err, storage.ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
		if err := change(); err != nil {
			t.Errorf("%s again: %v", name, err)
		}
	}
	if o, err := b.Stat(t.Context(), "k", ""); err != nil || !o.CustomTime.Equal(later) || !o.Retention.Until.Equal(later) {
		t.Errorf("Stat: %+v, %v", o, err)
	}
}

// TestBlindToTheBucket: without the right to read it the creating request settles
// what it can do, and a retention that may be removed is not called more.
func TestBlindToTheBucket(t *testing.T) {
	s := startStrict(t, gcsserver.Options{Tokens: map[string]gcsserver.Permissions{
		"archiver": {"storage.objects.create", "storage.objects.get", "storage.objects.setRetention"}}})
	name := s.bucketWith(t, map[string]any{"retentionPolicy": map[string]any{"retentionPeriod": "7200", "isLocked": true}})
	cfg := s.quick(name)
	cfg.tokens = staticToken("archiver")
	b := s.open(t, cfg)
	if caps := b.Capabilities(); len(caps.Unprobed) != 1 || caps.Unprobed[0] != "storage.buckets.get" || !caps.DefaultRetention.IsZero() {
		t.Errorf("capabilities: %+v", caps)
	}
	if _, err := storage.PutBytes(t.Context(), b, "k", []byte("x"), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if o, err := b.Stat(t.Context(), "k", ""); err != nil || o.Retention.Mode != storage.Governance || o.Denied != nil {
		t.Errorf("Stat: %+v, %v", o, err)
	}
	_, err := b.Put(t.Context(), "locked", unread{t}, storage.PutOptions{
		Retention: storage.Retention{Mode: storage.Compliance, Until: time.Now().Add(time.Hour)}})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "--enable-per-object-retention") {
		t.Errorf("Put: %v", err)
	}
}
