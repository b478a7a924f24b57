package s3

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/server"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// testPart is the smallest part that the servers take.
const testPart = 5 * mib

// testConfig is a bucket of srv with small parts and short pauses.
func testConfig(srv *testenv.S3, bucket string) Config {
	return Config{
		Bucket: bucket, Region: srv.Region, Endpoint: srv.Endpoint, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, ""),
		PartSize:    testPart, MemoryBudget: 4 * testPart, MaxBackoff: 500 * time.Millisecond,
		readBackoff: func(int) time.Duration { return 10 * time.Millisecond },
	}
}

func mustOpen(t testing.TB, cfg Config) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// leftovers asks the server itself for unfinished uploads.
func leftovers(t testing.TB, srv *testenv.S3, bucket string) []string {
	t.Helper()
	out, err := srv.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, u := range out.Uploads {
		all = append(all, aws.ToString(u.Key)+" "+aws.ToString(u.UploadId))
	}
	return all
}

// wire is what a bucket's connections have in common.
type wire struct {
	received atomic.Int64
	mu       sync.Mutex
	limit    int64 // bytes each connection still delivers, 0 for no limit
	epoch    int   // counts the changes of limit
}

func (w *wire) cut(after int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit = after
	w.epoch++
}

func (w *wire) dial(tr *http.Transport) {
	var d net.Dialer
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &wiredConn{Conn: conn, wire: w}, nil
	}
}

// wiredConn counts what comes from the store and breaks on request.
type wiredConn struct {
	net.Conn
	wire  *wire
	epoch int
	got   int64 // in this epoch
}

func (c *wiredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.received.Add(int64(n))
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if c.epoch != c.wire.epoch {
		c.epoch, c.got = c.wire.epoch, 0
	}
	c.got += int64(n)
	if c.wire.limit > 0 && c.got > c.wire.limit {
		c.Conn.Close()
		return 0, syscall.ECONNRESET
	}
	return n, err
}

// newStore opens a bucket behind a proxy that can break connections.
func newStore(t testing.TB, srv *testenv.S3, opts testenv.BucketOptions, change func(*Config)) *storagetest.Store {
	t.Helper()
	bucket := srv.NewBucket(t, opts)
	proxy := testenv.Toxiproxy(t, srv.Addr())
	cfg := testConfig(srv, bucket)
	cfg.Endpoint = "http://" + proxy.Addr
	w := &wire{}
	cfg.transport = w.dial
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	if change != nil {
		change(&cfg)
	}
	store := &storagetest.Store{
		Bucket:    mustOpen(t, cfg),
		Leftovers: func(t testing.TB) []string { return leftovers(t, srv, bucket) },
		Received:  w.received.Load,
		Cut:       w.cut,
		Freeze: func() func() {
			for _, stream := range []string{"upstream", "downstream"} {
				proxy.Add(t, testenv.Toxic{Name: stream, Type: "timeout", Stream: stream, Attributes: map[string]any{"timeout": 0}})
			}
			return sync.OnceFunc(func() {
				proxy.Remove(t, "upstream")
				proxy.Remove(t, "downstream")
			})
		},
	}
	if srv.Name == "minio" {
		store.Blind = func(t testing.TB) (storage.Bucket, []storage.Attribute) {
			cfg := testConfig(srv, bucket)
			cfg.Credentials = minioUser(t, srv, bucket, "s3:GetObject", "s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration")
			denied := []storage.Attribute{storage.AttributeTags}
			if opts.ObjectLock {
				denied = append(denied, storage.AttributeRetention, storage.AttributeLegalHold)
			}
			b, err := open2(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			return b, denied
		}
	}
	return store
}

// harness is what both servers have in common.
func harness(srv *testenv.S3, opts testenv.BucketOptions, change func(*Config)) storagetest.Harness {
	h := storagetest.Harness{
		Open:     func(t testing.TB) *storagetest.Store { return newStore(t, srv, opts, change) },
		PartSize: testPart,
		Want: storage.Capabilities{
			Versions: opts.Versioning || opts.ObjectLock, DeferredHead: true,
			ObjectLock: opts.ObjectLock, LegalHold: opts.ObjectLock, Tags: true, StorageClass: true, Encryption: true,
			MaxObject: 10_000 * gib,
		},
		Encryption: []storage.Encryption{
			{Mode: storage.EncryptionStore}, {Mode: storage.EncryptionKMS}, {Mode: storage.EncryptionKMS, Key: server.MinIOKey},
		},
		EncryptionRefused: []storage.Encryption{{Mode: storage.EncryptionStore, Key: "k"}, {Key: "k"}},
		Checksum:          "CRC64NVME", Metadata: true, StorageClass: "STANDARD",
		BadCredentials: func(t testing.TB) (storage.Bucket, error) {
			cfg := testConfig(srv, srv.NewBucket(t, opts))
			cfg.Credentials = credentials.NewStaticCredentialsProvider(srv.AccessKey, "wrong", "")
			return open2(t.Context(), cfg)
		},
		NoBucket: func(t testing.TB) (storage.Bucket, error) {
			return open2(t.Context(), testConfig(srv, "no-such-bucket"))
		},
		Unreachable: func(t testing.TB) (storage.Bucket, error) {
			proxy := testenv.Toxiproxy(t, srv.Addr())
			proxy.Disable(t)
			cfg := testConfig(srv, "unreachable")
			cfg.Endpoint = "http://" + proxy.Addr
			return open2(t.Context(), cfg)
		},
		Without: map[storagetest.Hook]string{
			storagetest.HookDenied: "users are made in TestPutOnly, where each right is looked at by itself",
		},
	}
	if srv.Name != "minio" {
		h.Without[storagetest.HookBlind] = "its users have no rights of retention, holds and tags by themselves"
	}
	if !opts.ObjectLock {
		h.Without[storagetest.HookDefaultRetention] = "a bucket without object lock keeps nothing"
		return h
	}
	h.DefaultRetention = func(t testing.TB) (storage.Bucket, storage.DefaultRetention) {
		bucket := srv.NewBucket(t, opts)
		_, err := srv.Client().PutObjectLockConfiguration(t.Context(), &s3.PutObjectLockConfigurationInput{
			Bucket: &bucket, ObjectLockConfiguration: &types.ObjectLockConfiguration{
				ObjectLockEnabled: types.ObjectLockEnabledEnabled, Rule: &types.ObjectLockRule{
					DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionModeCompliance, Days: aws.Int32(2)}}}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := open2(t.Context(), testConfig(srv, bucket))
		if err != nil {
			t.Fatal(err)
		}
		return b, storage.DefaultRetention{Mode: storage.Compliance, Days: 2}
	}
	return h
}

// open2 keeps a nil *Bucket out of the interface.
func open2(ctx context.Context, cfg Config) (storage.Bucket, error) {
	b, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func TestConformance(t *testing.T) {
	buckets := map[string]testenv.BucketOptions{"plain": {}, "lock": {ObjectLock: true}}
	for name, start := range map[string]func(testing.TB) *testenv.S3{"versitygw": testenv.VersityGW, "minio": testenv.MinIO} {
		t.Run(name, func(t *testing.T) {
			srv := start(t)
			for kind, opts := range buckets {
				t.Run(kind, func(t *testing.T) {
					h := harness(srv, opts, nil)
					h.Quirks = quirks[name+"/"+kind]
					h.Lifecycle = name == "minio"
					storagetest.Run(t, h)
				})
			}
		})
	}
}

// quirks are what the servers do against the protocol, by server, bucket and
// case.
var quirks = map[string]map[string]string{
	"versitygw/plain": {
		"keys/object and folder": asFiles,
		"put/encryption":         dropsEncryption,
	},
	"versitygw/lock": {
		"keys/object and folder": asFiles,
		"put/encryption":         dropsEncryption,

		"keep/bucket default is shown": "a bucket's default retention is enforced and not shown",
		"open/replaced":                hiddenExists,
		"versions/history":             hiddenExists,
		"versions/delete one":          hiddenExists,
		"delete/missing":               "deleting a key that is a folder is answered with 500",
	},
	"minio/plain": minioQuirks,
	"minio/lock":  minioQuirks,
}

var minioQuirks = map[string]string{
	"keys/object and folder": asFiles,
	"keys/...three dots":     dotPrefix,
	"keys/..two/..x/x..":     dotPrefix,
	"keys/.hidden/.file":     dotPrefix,
}

const (
	dropsEncryption = "encryption is accepted and silently dropped"

	asFiles      = "keys are files: one cannot be an object and a folder"
	hiddenExists = "If-None-Match fails on a key whose newest version is a delete marker"
	dotPrefix    = "a list with the prefix . or .. is refused"
)
