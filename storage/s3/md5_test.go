package s3

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// TestMD5Profile: the main cases without CRC64NVME, on real servers, with locks.
func TestMD5Profile(t *testing.T) {
	for server, start := range servers {
		t.Run(server, func(t *testing.T) {
			srv := start(t)
			bucket := srv.NewBucket(t, testenv.BucketOptions{ObjectLock: true})
			cfg := testConfig(srv, bucket)
			cfg.Checksum = ChecksumMD5
			b := mustOpen(t, cfg)
			until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
			for key, n := range map[string]int{"empty": 0, "small": 100, "parts": 2*testPart + 1, "known": 2000} {
				data := noise(n)
				opts := storage.PutOptions{Retention: storage.Retention{Mode: storage.Governance, Until: until}, Tags: map[string]string{"a": "b c"}}
				if key == "known" {
					opts.Size = int64(n)
				}
				o, err := b.Put(t.Context(), key, bytes.NewReader(data), opts)
				if err != nil || o.Size != int64(n) || o.Retention.Mode != storage.Governance || !o.Retention.Until.Equal(until) {
					t.Fatalf("%s: %+v, %v", key, o, err)
				}
				sameContent(t, b, key, data)
				if _, err := b.Put(t.Context(), key, bytes.NewReader(data), opts); !errors.Is(err, storage.ErrExist) {
					t.Errorf("%s again: %v", key, err)
				}
				later := storage.Retention{Mode: storage.Governance, Until: until.Add(time.Hour)}
				if err := b.SetRetention(t.Context(), key, o.Version, later); err != nil {
					t.Errorf("%s: extend: %v", key, err)
				}
				if err := b.SetLegalHold(t.Context(), key, o.Version, true); err != nil {
					t.Errorf("%s: hold: %v", key, err)
				}
				if s, err := b.Stat(t.Context(), key, ""); err != nil || !s.LegalHold || !s.Retention.Until.Equal(later.Until) || s.Tags["a"] != "b c" {
					t.Errorf("%s: %+v, %v", key, s, err)
				}
			}
			broken := errors.New("broken")
			if _, err := b.Put(t.Context(), "gone", readerFunc(func([]byte) (int, error) { return 0, broken }), storage.PutOptions{}); !errors.Is(err, broken) {
				t.Errorf("%v", err)
			}
			if left := leftovers(t, srv, bucket); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestPutOnly: credentials that may write and nothing else store a stream and a
// small object; everything else is refused by name.
func TestPutOnly(t *testing.T) {
	srv := testenv.MinIO(t)
	bucket := srv.NewBucket(t, testenv.BucketOptions{})
	cfg := testConfig(srv, bucket)
	cfg.Credentials = minioUser(t, srv, bucket, "s3:PutObject", "s3:AbortMultipartUpload")
	b := mustOpen(t, cfg)
	data := noise(testPart + 1)
	for key, opts := range map[string]storage.PutOptions{"stream": {}, "known": {Size: int64(len(data))}} {
		o, err := b.Put(t.Context(), key, bytes.NewReader(data), opts)
		if err != nil || o.Size != int64(len(data)) || o.Checksum.Algorithm != "CRC64NVME" || len(o.Denied) != 3 {
			t.Fatalf("%s: %+v, %v", key, o, err)
		}
		if _, err := b.Put(t.Context(), key, bytes.NewReader(data), opts); !errors.Is(err, storage.ErrExist) {
			t.Errorf("%s again: %v", key, err)
		}
		sameContent(t, mustOpen(t, testConfig(srv, bucket)), key, data)
	}
	var listErr error
	for _, err := range b.List(t.Context(), storage.ListOptions{}) {
		listErr = err
	}
	_, statErr := b.Stat(t.Context(), "stream", "")
	_, openErr := b.Open(t.Context(), "stream", storage.OpenOptions{})
	for op, err := range map[string]error{"list": listErr, "stat": statErr, "open": openErr,
		"delete": b.Delete(t.Context(), "stream", "")} {
		if !errors.Is(err, storage.ErrPermission) {
			t.Errorf("%s: %v, want a refusal", op, err)
		}
	}
}
