package s3

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

var servers = map[string]func(testing.TB) *testenv.S3{"versitygw": testenv.VersityGW, "minio": testenv.MinIO}

// TestCutInMidPart: connections that break in the middle of parts cost time,
// not the upload.
func TestCutInMidPart(t *testing.T) {
	toxics := map[string]testenv.Toxic{
		"limit_data": {Name: "fault", Type: "limit_data", Stream: "upstream", Attributes: map[string]any{"bytes": 3_000_000}},
		"reset_peer": {Name: "fault", Type: "reset_peer", Stream: "upstream", Attributes: map[string]any{"timeout": 50}},
	}
	for server, start := range servers {
		for name, toxic := range toxics {
			t.Run(server+"/"+name, func(t *testing.T) {
				srv := start(t)
				bucket := srv.NewBucket(t, testenv.BucketOptions{})
				proxy := testenv.Toxiproxy(t, srv.Addr())
				cfg := testConfig(srv, bucket)
				cfg.Endpoint = "http://" + proxy.Addr
				b := mustOpen(t, cfg)
				data := noise(6*testPart + 1)
				add := sync.OnceFunc(func() { proxy.Add(t, toxic) })
				// The fault goes away when it has been seen to break something.
				watched := &watchedLog{broken: sync.OnceFunc(func() { proxy.Remove(t, "fault") })}
				b.cfg.Log = watched.logger()
				src := bytes.NewReader(data)
				o, err := b.Put(t.Context(), "k", readerFunc(func(p []byte) (int, error) {
					if src.Len() < len(data)-testPart {
						add()
					}
					return src.Read(p)
				}), storage.PutOptions{})
				if err != nil || o.Size != int64(len(data)) {
					t.Fatalf("%+v, %v", o, err)
				}
				if watched.failures.Load() == 0 {
					t.Error("no request failed: the fault hit nothing")
				}
				sameContent(t, mustOpen(t, testConfig(srv, bucket)), "k", data)
			})
		}
	}
}

// TestStoreComesBack: the store is cut off in mid-part and comes back after a
// while; the upload goes on.
func TestStoreComesBack(t *testing.T) {
	for server, start := range servers {
		t.Run(server, func(t *testing.T) {
			srv := start(t)
			bucket := srv.NewBucket(t, testenv.BucketOptions{})
			proxy := testenv.Toxiproxy(t, srv.Addr())
			cfg := testConfig(srv, bucket)
			cfg.Endpoint = "http://" + proxy.Addr
			b := mustOpen(t, cfg)
			data := noise(5 * testPart)
			var back *time.Timer
			down := sync.OnceFunc(func() {
				proxy.Disable(t)
				back = time.AfterFunc(5*time.Second, func() { proxy.Enable(t) })
			})
			src := bytes.NewReader(data)
			o, err := b.Put(t.Context(), "k", readerFunc(func(p []byte) (int, error) {
				if src.Len() < len(data)-2*testPart {
					down()
				}
				return src.Read(p)
			}), storage.PutOptions{})
			if back == nil || err != nil || o.Size != int64(len(data)) {
				t.Fatalf("%+v, %v", o, err)
			}
			sameContent(t, b, "k", data)
		})
	}
}

func sameContent(t *testing.T, b *Bucket, key string, want []byte) {
	t.Helper()
	r, err := b.Open(t.Context(), key, storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes read, %v; %d were put", len(got), err, len(want))
	}
}
