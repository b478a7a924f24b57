package gcs

import (
	"fmt"
	"net"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

const testChunk = chunkUnit

var bucketNumber atomic.Int64

// strict is a strict server behind a wire that tests can break.
type strict struct {
	*gcsserver.Server
	wire *wire
}

func startStrict(t testing.TB, opts gcsserver.Options) *strict {
	t.Helper()
	s := &strict{Server: gcsserver.New(opts)}
	h := httptest.NewUnstartedServer(s.Server)
	s.wire = newWire(h.Listener)
	h.Listener = s.wire
	h.Start()
	s.URL = h.URL
	t.Cleanup(func() {
		s.Server.Close()
		s.wire.thaw()
		h.CloseClientConnections()
		h.Close()
	})
	return s
}

// bucket creates a bucket with every protection the driver uses.
func (s *strict) bucket(t testing.TB) string {
	t.Helper()
	return s.bucketWith(t, map[string]any{
		"versioning": map[string]any{"enabled": true}, "objectRetention": map[string]any{"mode": "Enabled"},
	})
}

func (s *strict) bucketWith(t testing.TB, settings map[string]any) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", bucketNumber.Add(1))
	if err := s.CreateBucket(name, settings); err != nil {
		t.Fatal(err)
	}
	return name
}

// quick is a configuration whose pauses fit a test.
func (s *strict) quick(bucket string) Config {
	return Config{
		Bucket: bucket, Endpoint: s.URL, ChunkSize: testChunk,
		MaxBackoff: 5 * time.Millisecond, MetadataTimeout: 5 * time.Second,
	}
}

func (s *strict) open(t testing.TB, cfg Config) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func (s *strict) leftovers(testing.TB) []string {
	var left []string
	for _, u := range s.OpenSessions() {
		left = append(left, fmt.Sprintf("session of %s/%s with %d bytes", u.Bucket, u.Name, u.Persisted))
	}
	return left
}

func (s *strict) harness() storagetest.Harness {
	token := staticToken
	return storagetest.Harness{
		PartSize: testChunk, Checksum: "CRC32C", Metadata: true, StorageClass: "NEARLINE", Lifecycle: true,
		Want: storage.Capabilities{
			Versions: true, ObjectLock: true, LegalHold: true, Tags: true, StorageClass: true,
			Encryption: true, CustomTime: true, MaxObject: maxObject,
		},
		Encryption:        []storage.Encryption{{Mode: storage.EncryptionKMS, Key: testKMSKey}},
		EncryptionRefused: []storage.Encryption{{Mode: storage.EncryptionStore}, {Mode: storage.EncryptionKMS}, {Key: testKMSKey}},
		DefaultRetention: func(t testing.TB) (storage.Bucket, storage.DefaultRetention) {
			cfg := s.quick(s.bucketWith(t, map[string]any{
				"versioning": map[string]any{"enabled": true}, "objectRetention": map[string]any{"mode": "Enabled"},
				"retentionPolicy": map[string]any{"retentionPeriod": "3600"},
			}))
			cfg.tokens = token("owner")
			b, err := opened(Open(t.Context(), cfg))
			if err != nil {
				t.Fatal(err)
			}
			return b, storage.DefaultRetention{Mode: storage.Governance, Period: time.Hour}
		},
		Open: func(t testing.TB) *storagetest.Store {
			cfg := s.quick(s.bucket(t))
			cfg.tokens = token("owner")
			b, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			return &storagetest.Store{
				Bucket: b, Leftovers: s.leftovers,
				Cut: s.wire.cut, Freeze: s.wire.freeze, Received: s.wire.sent.Load,
			}
		},
		BadCredentials: func(t testing.TB) (storage.Bucket, error) {
			cfg := s.quick(s.bucket(t))
			cfg.tokens = token("nobody")
			return opened(Open(t.Context(), cfg))
		},
		NoBucket: func(t testing.TB) (storage.Bucket, error) {
			cfg := s.quick("no-such-bucket")
			cfg.tokens = token("owner")
			return opened(Open(t.Context(), cfg))
		},
		Unreachable: func(t testing.TB) (storage.Bucket, error) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			cfg := s.quick("any")
			cfg.Endpoint, cfg.MetadataTimeout = "http://"+l.Addr().String(), 200*time.Millisecond
			return opened(Open(t.Context(), cfg))
		},
		Denied: func(t testing.TB) (storage.Bucket, error) {
			cfg := s.quick(s.bucket(t))
			cfg.tokens = token("guest")
			return opened(Open(t.Context(), cfg))
		},
		Without: map[storagetest.Hook]string{
			storagetest.HookMemory: "the server keeps its objects in the test's own heap",
			storagetest.HookBlind:  "all of an object's attributes come with storage.objects.get",
		},
	}
}

// opened keeps a nil *Bucket from becoming a non-nil interface.
func opened(b *Bucket, err error) (storage.Bucket, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

func staticToken(text string) oauth2.TokenSource {
	return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: text})
}

const testKMSKey = "projects/p/locations/us/keyRings/r/cryptoKeys/k"

var testKeys = map[string]int{testKMSKey: 3}

var testTokens = map[string]gcsserver.Permissions{"owner": {"*"}, "guest": {}}

func TestConformance(t *testing.T) {
	s := startStrict(t, gcsserver.Options{Tokens: testTokens, KMSKeys: testKeys})
	storagetest.Run(t, s.harness())
}

// TestConformancePlainBucket is a bucket without versions and object retention.
func TestConformancePlainBucket(t *testing.T) {
	s := startStrict(t, gcsserver.Options{Tokens: testTokens, KMSKeys: testKeys})
	h := s.harness()
	h.Want.Versions, h.Want.ObjectLock = false, false
	h.Open = func(t testing.TB) *storagetest.Store {
		cfg := s.quick(s.bucketWith(t, map[string]any{}))
		cfg.tokens = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "owner"})
		b, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return &storagetest.Store{
			Bucket: b, Leftovers: s.leftovers,
			Cut: s.wire.cut, Freeze: s.wire.freeze, Received: s.wire.sent.Load,
		}
	}
	storagetest.Run(t, h)
}
