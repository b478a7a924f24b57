package testenv

import (
	"context"
	"sync"
	"syscall"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv/server"
)

// S3 is an S3 server. Endpoint, AccessKey, SecretKey, Region, Addr(), Client(),
// Env() and BucketURL(bucket, prefix) come from server.S3.
type S3 struct {
	*server.S3
}

// S3Options configure a private S3 server.
type S3Options = server.S3Options

// BucketOptions describe a bucket to be created.
type BucketOptions = server.BucketOptions

var (
	versity shared[*server.S3]
	minio   shared[*server.S3]
	fakeGCS shared[*server.FakeGCS]
	toxi    shared[*server.Toxiproxy]
)

// VersityGW returns the shared versitygw: strict multipart, object lock,
// orphan listing; no lifecycle, classes or encryption.
func VersityGW(t testing.TB) *S3 {
	t.Helper()
	s := versity.get(t, func(ctx context.Context, h *server.Home) (*server.S3, error) {
		return h.StartVersityGW(ctx, S3Options{})
	})
	showLog(t, s.Name, s)
	return &S3{s}
}

// MinIO returns the shared MinIO: lifecycle, tiers, users, encryption; no
// listing of multipart uploads by prefix.
func MinIO(t testing.TB) *S3 {
	t.Helper()
	s := minio.get(t, func(ctx context.Context, h *server.Home) (*server.S3, error) {
		return h.StartMinIO(ctx, S3Options{})
	})
	showLog(t, s.Name, s)
	return &S3{s}
}

// NewVersityGW starts a versitygw of this test's own.
func NewVersityGW(t testing.TB, opts S3Options) *S3 {
	t.Helper()
	return newS3(t, func(ctx context.Context, h *server.Home) (*server.S3, error) { return h.StartVersityGW(ctx, opts) })
}

// NewMinIO starts a MinIO of this test's own.
func NewMinIO(t testing.TB, opts S3Options) *S3 {
	t.Helper()
	return newS3(t, func(ctx context.Context, h *server.Home) (*server.S3, error) { return h.StartMinIO(ctx, opts) })
}

func newS3(t testing.TB, start func(context.Context, *server.Home) (*server.S3, error)) *S3 {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	s, err := start(ctx, privateHome(t))
	must(t, err)
	showLog(t, s.Name, s)
	return &S3{s}
}

// NewBucket creates a bucket with a unique name.
func (s *S3) NewBucket(t testing.TB, opts BucketOptions) string {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	name := unique(t)
	must(t, s.CreateBucket(ctx, name, opts))
	return name
}

// Kill ends a private server at once (SIGKILL); its data stays.
func (s *S3) Kill(t testing.TB) {
	t.Helper()
	must(t, s.S3.Kill())
}

// Freeze stops a private server (SIGSTOP) until thaw or the test's end.
func (s *S3) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	must(t, s.Signal(syscall.SIGSTOP))
	thaw = sync.OnceFunc(func() { must(t, s.Signal(syscall.SIGCONT)) })
	t.Cleanup(thaw)
	return thaw
}

// Start starts a killed server on its old port and data.
func (s *S3) Start(t testing.TB) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(t, s.S3.Start(ctx))
}

// GCS is fake-gcs-server. Host, Endpoint, Env() and BucketURL(bucket, prefix)
// come from server.FakeGCS.
type GCS struct {
	*server.FakeGCS
}

// FakeGCS returns the shared fake-gcs-server: the happy path, objects below
// 50 MB.
func FakeGCS(t testing.TB) *GCS {
	t.Helper()
	return &GCS{fakeGCS.get(t, func(ctx context.Context, h *server.Home) (*server.FakeGCS, error) {
		return h.StartFakeGCS(ctx)
	})}
}

// NewBucket creates a bucket with a unique name.
func (g *GCS) NewBucket(t testing.TB, versioning bool) string {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	name := unique(t)
	must(t, g.CreateBucket(ctx, name, versioning))
	return name
}

// Toxic is one fault of a Proxy.
type Toxic = server.Toxic

// Proxy is a TCP proxy that breaks connections on request. Addr is where it
// listens.
type Proxy struct {
	*server.Proxy
}

// Toxiproxy opens a proxy in front of upstream (host:port), closed when the
// test ends.
func Toxiproxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	server := toxi.get(t, func(ctx context.Context, h *server.Home) (*server.Toxiproxy, error) {
		return h.StartToxiproxy(ctx)
	})
	ctx, cancel := bounded()
	defer cancel()
	p, err := server.Proxy(ctx, unique(t), upstream)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := bounded()
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Errorf("testenv: close the proxy: %v", err)
		}
	})
	return &Proxy{p}
}

// Add adds a fault, to open connections too.
func (p *Proxy) Add(t testing.TB, toxic Toxic) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(t, p.Proxy.Add(ctx, toxic))
}

// Remove takes a fault away.
func (p *Proxy) Remove(t testing.TB, name string) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(t, p.Proxy.Remove(ctx, name))
}

// Disable cuts every connection and refuses new ones.
func (p *Proxy) Disable(t testing.TB) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(t, p.Proxy.Disable(ctx))
}

// Enable listens again, on the same port.
func (p *Proxy) Enable(t testing.TB) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(t, p.Proxy.Enable(ctx))
}
