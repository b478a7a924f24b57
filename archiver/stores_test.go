package archiver

import (
	"context"
	"iter"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/file"
	"github.com/pgstow/pgstow/storage/gcs"
	"github.com/pgstow/pgstow/storage/s3"
)

// onEveryStore runs a test on a bucket of each kind of store, with versions and
// without, below a prefix.
func onEveryStore(t *testing.T, test func(t *testing.T, b storage.Bucket)) {
	t.Helper()
	for name, open := range map[string]func(t *testing.T) storage.Bucket{
		"file":      openFile,
		"versitygw": func(t *testing.T) storage.Bucket { return openS3(t, testenv.VersityGW(t), testenv.BucketOptions{}) },
		"versitygw lock": func(t *testing.T) storage.Bucket {
			return openS3(t, testenv.VersityGW(t), testenv.BucketOptions{ObjectLock: true})
		},
		"minio": func(t *testing.T) storage.Bucket { return openS3(t, testenv.MinIO(t), testenv.BucketOptions{}) },
		"minio versions": func(t *testing.T) storage.Bucket {
			return openS3(t, testenv.MinIO(t), testenv.BucketOptions{Versioning: true})
		},
		"minio lock": func(t *testing.T) storage.Bucket {
			return openS3(t, testenv.MinIO(t), testenv.BucketOptions{ObjectLock: true})
		},
		"gcs": openGCS,
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, storage.Prefixed(b, "some/prefix/"))
		})
	}
}

// Archive, listing and restore through every driver, to real servers where
// there are any. The dump has several parts where a store takes parts.
func TestStores(t *testing.T) {
	pg := testenv.Postgres(t)
	source := longSource(t, pg)
	onEveryStore(t, func(t *testing.T, b storage.Bucket) {
		res := archived(t, pg, source, b)
		m := res.Manifest
		if caps := b.Capabilities(); caps.Versions && m.Objects.Dump.Version == "" ||
			caps.DeferredHead != (m.Objects.Dump.Body != nil) ||
			m.ReadBack != ReadBackDone || res.ReadBack != ReadBackDone {
			t.Errorf("%+v on a store with %+v", m, caps)
		}
		all := content(t, b)
		validate(t, all[m.Key])
		checkByHand(t, m, all)
		if b.Capabilities().Versions { // what hides the archive from others hides nothing from us
			for _, o := range []StoredObject{m.Objects.Dump, *m.Objects.Index, {Key: m.Key}} {
				if err := b.Delete(t.Context(), o.Key, ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		if list := listed(t, b); !slices.Equal(ids(list), []string{m.ID}) || list[0].DumpSize != m.Objects.Dump.Size {
			t.Fatalf("listed are %+v", list)
		}
		target := pg.CreateDatabase(t)
		if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: Latest, Conn: connTo(t, pg, target)}); err != nil {
			t.Fatal(err)
		}
		if got := count(t, pg, target, "long"); got != 100000 {
			t.Errorf("table long has %d rows", got)
		}
		if res, err := Cleanup(t.Context(), CleanupOptions{Bucket: b}); err != nil || len(res.Uploads) > 0 {
			t.Errorf("cleanup: %+v, %v", res, err)
		}
		before := objects(t, b)
		for _, c := range Doctor(t.Context(), DoctorOptions{OpenBucket: opening(closeless{b}, nil), Place: Place{Scheme: "s3"}}) {
			if c.Status != CheckOK && c.Name != "abandoned uploads" || c.Profile != "" && c.Profile != ProfileFull {
				t.Errorf("doctor: %+v", c)
			}
		}
		if left := objects(t, b); !slices.Equal(left, before) {
			t.Errorf("doctor left %q of %q", left, before)
		}
	})
}

// closeless is a bucket that somebody else closes.
type closeless struct{ storage.Bucket }

func (closeless) Close() error { return nil }

func (c closeless) Uploads(ctx context.Context, prefix string) iter.Seq2[storage.Upload, error] {
	return storage.Uploads(ctx, c.Bucket, prefix)
}

func (c closeless) AbortUpload(ctx context.Context, u storage.Upload) error {
	return storage.AbortUpload(ctx, c.Bucket, u)
}

func (c closeless) LifecycleFeatures() (storage.LifecycleFeatures, bool) {
	return storage.LifecycleFeaturesOf(c.Bucket)
}

func (c closeless) Lifecycle(ctx context.Context) (storage.Lifecycle, error) {
	return storage.ReadLifecycle(ctx, c.Bucket)
}

func (c closeless) SetLifecycle(ctx context.Context, l storage.Lifecycle) error {
	return storage.WriteLifecycle(ctx, c.Bucket, l)
}

func (c closeless) SetRetention(ctx context.Context, key, version string, r storage.Retention) error {
	return storage.SetRetention(ctx, c.Bucket, key, version, r)
}

func (c closeless) SetLegalHold(ctx context.Context, key, version string, on bool) error {
	return storage.SetLegalHold(ctx, c.Bucket, key, version, on)
}

func openFile(t *testing.T) storage.Bucket {
	b, err := file.Open(t.Context(), file.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openS3(t *testing.T, srv *testenv.S3, opts testenv.BucketOptions) storage.Bucket {
	return openS3On(t, srv, srv.NewBucket(t, opts))
}

// openS3On opens a bucket that there is.
func openS3On(t *testing.T, srv *testenv.S3, bucket string) storage.Bucket {
	b, err := s3.Open(t.Context(), s3.Config{
		Bucket: bucket, Region: srv.Region, Endpoint: srv.Endpoint, PathStyle: true, PartSize: 5 << 20,
		Credentials: credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openGCS opens a bucket of the strict server, written from the protocol.
func openGCS(t *testing.T) storage.Bucket {
	srv := gcsserver.Start(t, gcsserver.Options{})
	if err := srv.CreateBucket("archives", nil); err != nil {
		t.Fatal(err)
	}
	b, err := gcs.Open(t.Context(), gcs.Config{Bucket: "archives", Endpoint: srv.URL, ChunkSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
