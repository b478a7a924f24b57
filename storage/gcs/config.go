package gcs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	gcloud "cloud.google.com/go/storage"
	"golang.org/x/oauth2"
	"google.golang.org/api/impersonate"
	"google.golang.org/api/option"
	"google.golang.org/api/transport"
	htransport "google.golang.org/api/transport/http"

	"github.com/pgstow/pgstow/storage"
)

const (
	defaultEndpoint = "https://storage.googleapis.com"
	chunkUnit       = 256 << 10 // chunks are multiples of it
	defaultChunk    = 16 << 20
	maxObject       = 5 << 40 // https://cloud.google.com/storage/quotas#objects
	// floorRate is the slowest connection, in bytes a second, whose chunks are
	// not taken for stalled.
	floorRate = 256 << 10
)

// Config describes one bucket. Only Bucket is required.
type Config struct {
	Bucket string
	// Endpoint is "http://host:port" or "https://host"; default: the environment
	// variable STORAGE_EMULATOR_HOST, then Google. Nothing is authenticated to
	// an http endpoint.
	Endpoint string
	// Impersonate is a service account to act as, or a chain of them separated
	// by commas, the last one being the target.
	Impersonate string
	// QuotaProject is billed and counted instead of the credentials' own.
	QuotaProject string
	// ChunkSize is how much one request carries; default 16 MiB, rounded up to
	// a multiple of 256 KiB. Each Put holds one chunk in memory.
	ChunkSize int
	Log       *slog.Logger // nil discards

	// ChunkTimeout ends an attempt to send one chunk; default the larger of one
	// minute and four times what a chunk takes at 256 KiB/s. RetryBudget is how
	// long a Put goes on without one newly confirmed byte; default 30 minutes.
	// Both are capped by the context.
	ChunkTimeout time.Duration
	RetryBudget  time.Duration
	// MetadataTimeout bounds every request without content, its repetitions
	// included; default 30 seconds. It answers to a person.
	MetadataTimeout time.Duration
	// MaxBackoff bounds the pause between two attempts; default 30 seconds.
	MaxBackoff time.Duration

	// tokens replaces the credentials, and authenticates to http too, in tests.
	tokens oauth2.TokenSource
}

func (c Config) withDefaults() (Config, error) {
	if c.Bucket == "" {
		return c, errors.New("no bucket named")
	}
	if c.ChunkSize < 0 {
		return c, errors.New("the chunk size is negative")
	}
	c.ChunkSize = roundUp(cmp.Or(c.ChunkSize, defaultChunk))
	perChunk := time.Duration(c.ChunkSize/floorRate) * time.Second
	c.ChunkTimeout = cmp.Or(c.ChunkTimeout, max(time.Minute, 4*perChunk))
	c.RetryBudget = cmp.Or(c.RetryBudget, 30*time.Minute)
	c.MetadataTimeout = cmp.Or(c.MetadataTimeout, 30*time.Second)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, 30*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Endpoint == "" {
		c.Endpoint = os.Getenv("STORAGE_EMULATOR_HOST")
		if c.Endpoint != "" && !strings.Contains(c.Endpoint, "://") {
			c.Endpoint = "http://" + c.Endpoint
		}
	}
	c.Endpoint = strings.TrimSuffix(cmp.Or(c.Endpoint, defaultEndpoint), "/")
	return c, checkEndpoint(c.Endpoint)
}

func roundUp(n int) int { return (n + chunkUnit - 1) / chunkUnit * chunkUnit }

// credentialChain is where credentials come from, for messages.
const credentialChain = "Application Default Credentials"

func checkEndpoint(endpoint string) error {
	if err := storage.CheckEndpoint(endpoint, credentialChain); err != nil {
		return err
	}
	if u, err := url.Parse(endpoint); err != nil || u.Path != "" {
		return errors.New("endpoint must not hold a path")
	}
	return nil
}

// ParseURL takes apart gs://bucket/prefix?endpoint=, as
// storage.ParseBucketURL does.
func ParseURL(raw string) (cfg Config, prefix string, err error) {
	u, err := storage.ParseBucketURL(raw, "gs", credentialChain, "endpoint")
	if err != nil {
		return Config{}, "", err
	}
	cfg = Config{Bucket: u.Bucket, Endpoint: strings.TrimSuffix(u.Params["endpoint"], "/")}
	if cfg.Endpoint != "" {
		if err := checkEndpoint(cfg.Endpoint); err != nil {
			return Config{}, "", fmt.Errorf("gs URL: %w", err)
		}
	}
	return cfg, u.Prefix, nil
}

// Bucket is one bucket of Google Cloud Storage.
type Bucket struct {
	cfg    Config
	client *gcloud.Client
	handle *gcloud.BucketHandle
	http   *http.Client
	base   *http.Transport
	caps   storage.Capabilities
	// retentionKnown says that caps.ObjectLock was read from the bucket, not
	// left false because reading was denied.
	retentionKnown bool
}

var (
	_ storage.Bucket           = (*Bucket)(nil)
	_ storage.RetentionSetter  = (*Bucket)(nil)
	_ storage.CustomTimeSetter = (*Bucket)(nil)
	_ storage.LifecycleManager = (*Bucket)(nil)
)

// Open connects to a bucket and reads its settings. When that is denied, the
// bucket is usable all the same, and what it can do shows when objects are
// created.
func Open(ctx context.Context, cfg Config) (*Bucket, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, &storage.Error{Op: "open", Err: fmt.Errorf("configuration: %w", err)}
	}
	b := &Bucket{cfg: cfg, base: newBase()}
	opts, err := b.connect(ctx)
	if err != nil {
		return nil, b.fail(ctx, "open", "", err)
	}
	// The context is for credentials, which are renewed long after Open.
	b.client, err = gcloud.NewClient(context.WithoutCancel(ctx), opts...)
	if err != nil {
		return nil, b.fail(ctx, "open", "", err)
	}
	b.client.SetRetry(gcloud.WithPolicy(gcloud.RetryAlways), gcloud.WithErrorFunc(gcloud.ShouldRetry), b.backoff())
	b.handle = b.client.Bucket(cfg.Bucket)
	if err := b.probe(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// newBase is the client's own transport: connections for parallel reads, and
// dead HTTP/2 connections noticed by pings.
func newBase() *http.Transport {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = 100
	base.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
	return base
}

// connect builds b.http: the watching transport on top of authentication on
// top of the connections.
func (b *Bucket) connect(ctx context.Context) ([]option.ClientOption, error) {
	const scope = gcloud.ScopeFullControl // retention and holds need more than read and write
	auth := []option.ClientOption{option.WithScopes(scope)}
	switch {
	case b.cfg.tokens != nil:
		auth = append(auth, option.WithTokenSource(b.cfg.tokens))
	case strings.HasPrefix(b.cfg.Endpoint, "http://"):
		auth = append(auth, option.WithoutAuthentication())
	case b.cfg.Impersonate != "":
		chain := strings.Split(b.cfg.Impersonate, ",")
		last := len(chain) - 1
		tokens, err := impersonate.CredentialsTokenSource(context.WithoutCancel(ctx), impersonate.CredentialsConfig{
			TargetPrincipal: chain[last], Delegates: chain[:last], Scopes: []string{scope},
		})
		if err != nil {
			return nil, noCredentials(err)
		}
		auth = append(auth, option.WithTokenSource(tokens))
	default:
		creds, err := transport.Creds(context.WithoutCancel(ctx), option.WithScopes(scope))
		if err != nil {
			return nil, noCredentials(err)
		}
		auth = append(auth, option.WithCredentials(creds))
	}
	trip := slices.Concat(auth, []option.ClientOption{option.WithUserAgent("pgstow"), option.WithTelemetryDisabled()})
	if b.cfg.QuotaProject != "" {
		trip = append(trip, option.WithQuotaProject(b.cfg.QuotaProject))
	}
	inner, err := htransport.NewTransport(context.WithoutCancel(ctx), b.base, trip...)
	if err != nil {
		return nil, noCredentials(err)
	}
	b.http = &http.Client{Transport: &watcher{inner: inner, log: b.cfg.Log}}
	return append(auth, option.WithHTTPClient(b.http),
		option.WithEndpoint(b.cfg.Endpoint+"/storage/v1/"), gcloud.WithDisabledClientMetrics()), nil
}

// probe reads what the bucket can do.
func (b *Bucket) probe(ctx context.Context) error {
	b.caps = storage.Capabilities{
		LegalHold: true, Tags: true, StorageClass: true, Encryption: true, CustomTime: true, MaxObject: maxObject,
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	var skew time.Duration
	attrs, err := b.handle.Attrs(context.WithValue(ctx, clockKey{}, &skew))
	b.caps.ClockSkew = skew
	if err == nil {
		b.caps.Versions = attrs.VersioningEnabled
		b.caps.ObjectLock = attrs.ObjectRetentionMode == "Enabled"
		b.retentionKnown = true
		if policy := attrs.RetentionPolicy; policy != nil && policy.RetentionPeriod > 0 {
			b.caps.DefaultRetention = storage.DefaultRetention{Mode: storage.Governance, Period: policy.RetentionPeriod}
			if policy.IsLocked {
				b.caps.DefaultRetention.Mode = storage.Compliance
			}
		}
		return nil
	}
	err = b.fail(ctx, "open", "", err)
	if errors.Is(err, storage.ErrPermission) {
		b.caps.Unprobed = []string{"storage.buckets.get"}
		b.cfg.Log.Debug("bucket settings are not readable", "bucket", b.cfg.Bucket, "error", err)
		return nil
	}
	return err
}

// bounded gives a request without content its deadline.
func (b *Bucket) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.cfg.MetadataTimeout, errNoAnswer{b.cfg.MetadataTimeout})
}

// Capabilities tells what the bucket can do.
func (b *Bucket) Capabilities() storage.Capabilities {
	caps := b.caps
	caps.Unprobed = slices.Clone(caps.Unprobed)
	return caps
}

// Close releases connections.
func (b *Bucket) Close() error {
	err := b.client.Close()
	b.base.CloseIdleConnections()
	return err
}
