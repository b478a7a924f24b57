package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/pgstow/pgstow/storage"
)

// Bucket is one S3 bucket.
type Bucket struct {
	cfg    Config
	client *s3.Client
	creds  *aws.CredentialsCache
	http   *http.Client

	versioning types.BucketVersioningStatus // "" never had versions
	lock       lockState
	// versionsKnown is false where asking for the versioning state was denied.
	versionsKnown bool
	defaults      storage.DefaultRetention
	unprobed      []string // rights that the probes lacked
	// sees are rights that were seen to be there, see protection.go.
	sees        rights
	plainHTTP   bool        // the endpoint has no TLS
	signPayload atomic.Bool // the store refused UNSIGNED-PAYLOAD
	minio       bool        // see sweep.go
	skew        time.Duration
}

type lockState int

const (
	lockUnknown lockState = iota // asking was denied: the creating request settles it
	lockOff
	lockOn
)

var (
	_ storage.Bucket           = (*Bucket)(nil)
	_ storage.UploadSweeper    = (*Bucket)(nil)
	_ storage.RetentionSetter  = (*Bucket)(nil)
	_ storage.Thawer           = (*Bucket)(nil)
	_ storage.BatchDeleter     = (*Bucket)(nil)
	_ storage.LifecycleManager = (*Bucket)(nil)
)

// Open connects to the bucket and probes what it can do, with the least rights:
// s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration help, a refusal
// of either is no error. It fails within cfg.OpenTimeout with ErrBucketNotExist,
// ErrCredentials or ErrUnavailable.
func Open(ctx context.Context, cfg Config) (*Bucket, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, openError(cfg, nil, err)
	}
	tooLong := fmt.Errorf("no usable answer within %s", cfg.OpenTimeout)
	limited, cancel := context.WithTimeoutCause(ctx, cfg.OpenTimeout, tooLong)
	defer cancel()
	b, err := open(limited, cfg)
	switch {
	case err == nil:
		return b, nil
	case ctx.Err() != nil:
		return nil, openError(cfg, nil, ended(ctx))
	case limited.Err() != nil:
		return nil, openError(cfg, storage.ErrUnavailable, tooLong)
	case errors.Is(err, storage.ErrCredentials):
		return nil, openError(cfg, nil, err)
	}
	return nil, openError(cfg, kindOf(err), readable(err))
}

// openError names the bucket: an error of opening has no key that would.
func openError(cfg Config, kind, err error) error {
	if errors.Is(err, kind) {
		kind = nil
	}
	return &storage.Error{Op: "open", Kind: kind, Err: &textError{text: "bucket " + cfg.Bucket + ": " + err.Error(), err: err}}
}

func open(ctx context.Context, cfg Config) (*Bucket, error) {
	b := &Bucket{cfg: cfg}
	awsCfg, err := b.load(ctx)
	if err != nil {
		return nil, err
	}
	b.connect(awsCfg)
	if err := b.checkCredentials(ctx); err != nil {
		return nil, err
	}
	err = b.probe(ctx)
	if region := otherRegion(err, awsCfg.Region); region != "" {
		cfg.Log.Info("bucket lies in another region", "bucket", cfg.Bucket, "region", region)
		awsCfg.Region = region
		b.connect(awsCfg)
		err = b.probe(ctx)
	}
	if err != nil {
		b.Close()
		return nil, b.hint(err)
	}
	return b, nil
}

// load reads the SDK's own configuration sources.
func (b *Bucket) load(ctx context.Context) (aws.Config, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = b.cfg.MaxConcurrency + 4
		t.WriteBufferSize, t.ReadBufferSize = 64<<10, 64<<10
	})
	if b.cfg.transport != nil {
		client = client.WithTransportOptions(b.cfg.transport)
	}
	if b.cfg.CAFile != "" {
		trust, err := trustCA(b.cfg.CAFile)
		if err != nil {
			return aws.Config{}, err
		}
		client = client.WithTransportOptions(trust)
	}
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithLogger(logging.Nop{}), // it would write to standard error; what matters comes back as an error
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = 5 * time.Minute }),
	}
	if b.cfg.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(b.cfg.Profile))
	}
	if b.cfg.Region != "" {
		options = append(options, config.WithRegion(b.cfg.Region))
	}
	if b.cfg.Credentials != nil {
		options = append(options, config.WithCredentialsProvider(b.cfg.Credentials))
	}
	awsCfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return awsCfg, &textError{text: "read the AWS configuration: " + err.Error(), err: errors.Join(storage.ErrCredentials, err)}
	}
	setDefault(&awsCfg.Region, "us-east-1")
	if b.cfg.RoleARN != "" {
		role := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(awsCfg), b.cfg.RoleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = "pgstow"
			if b.cfg.ExternalID != "" {
				o.ExternalID = aws.String(b.cfg.ExternalID)
			}
		})
		awsCfg.Credentials = aws.NewCredentialsCache(role, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = 5 * time.Minute })
	}
	b.creds, _ = awsCfg.Credentials.(*aws.CredentialsCache)
	// The SDK's client cannot close its idle connections, so a plain one takes
	// the transport over, with the CA bundle that the configuration put there.
	// Redirects are errors: a body cannot follow one, and Open handles regions.
	if built, ok := awsCfg.HTTPClient.(*awshttp.BuildableClient); ok {
		b.http = &http.Client{
			Transport:     built.GetTransport(),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		awsCfg.HTTPClient = b.http
	}
	return awsCfg, nil
}

func (b *Bucket) connect(awsCfg aws.Config) {
	b.client = s3.NewFromConfig(awsCfg, func(o *s3.Options) {
		o.UsePathStyle = b.cfg.PathStyle
		if b.cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(b.cfg.Endpoint)
		}
		if o.BaseEndpoint != nil {
			b.plainHTTP = strings.HasPrefix(*o.BaseEndpoint, "http://")
			// Compatibles gain nothing from Expect: 100-continue, and some
			// mishandle it.
			o.ContinueHeaderThresholdBytes = -1
		}
		// Computed checksums would go into a trailer, which breaks compatibles;
		// ours are computed before and go into a header.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		o.RetryMaxAttempts = 0 // AWS_MAX_ATTEMPTS is for short-lived requests
		o.Retryer = b.retryer(10, b.cfg.MaxBackoff)
		if b.cfg.ExpectedBucketOwner != "" {
			o.APIOptions = append(o.APIOptions,
				smithyhttp.SetHeaderValue("X-Amz-Expected-Bucket-Owner", b.cfg.ExpectedBucketOwner))
		}
	})
}

// retryer is the SDK's, without the client-wide quota that would let a storm of
// 503s kill an upload in a second, and with credentials renewed when the store
// calls them expired before their time.
func (b *Bucket) retryer(attempts int, maxBackoff time.Duration) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		o.MaxBackoff = maxBackoff
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			if isExpired(err) && b.renewCredentials() {
				return aws.TrueTernary
			}
			if errorCode(err) == expeditedBusy {
				return aws.FalseTernary // there may be no capacity for days
			}
			return aws.UnknownTernary
		})}, o.Retryables...)
	})
}

func isExpired(err error) bool {
	switch errorCode(err) {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return true
	case "BadRequest":
		// HEAD has no body and so no code; this is what an expired token gets.
		return statusCode(err) == http.StatusBadRequest
	}
	return false
}

// renewCredentials makes the next request ask the provider again.
func (b *Bucket) renewCredentials() bool {
	if b.creds == nil {
		return false
	}
	b.creds.Invalidate()
	return true
}

// once lets a caller that has its own retry loop see every failure.
func once(o *s3.Options) { o.Retryer = aws.NopRetryer{} }

// unsigned spares the SHA-256 over the body that a plain-http request is signed
// with otherwise: the body is covered by a signed checksum header.
func (b *Bucket) unsigned(o *s3.Options) {
	if b.plainHTTP && !b.signPayload.Load() {
		o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
	}
}

// insistsOnSignature reports whether the store refused UNSIGNED-PAYLOAD, and
// remembers it.
func (b *Bucket) insistsOnSignature(err error) bool {
	if !b.plainHTTP || b.signPayload.Load() {
		return false
	}
	switch errorCode(err) {
	case "XAmzContentSHA256Mismatch", "SignatureDoesNotMatch", "MissingContentSHA256", "UnsignedPayloadNotAllowed":
		return b.signPayload.CompareAndSwap(false, true)
	}
	return false
}

// checkCredentials asks the chain before the store, so that "none found" has
// its own message.
func (b *Bucket) checkCredentials(ctx context.Context) error {
	_, err := b.client.Options().Credentials.Retrieve(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	what := "no AWS credentials found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run under a role"
	if b.cfg.RoleARN != "" {
		what = "cannot assume role " + b.cfg.RoleARN
	} else if b.cfg.Profile != "" {
		what = "no usable credentials in AWS profile " + b.cfg.Profile
	}
	return &textError{text: what + " (" + lastLine(readable(err).Error()) + ")", err: errors.Join(storage.ErrCredentials, err)}
}

// lastLine is the innermost of the SDK's nested messages.
func lastLine(s string) string {
	if i := strings.LastIndex(s, ", "); i >= 0 {
		return s[i+2:]
	}
	return s
}

// probe finds out about versions and locks. What is denied stays unknown.
func (b *Bucket) probe(ctx context.Context) error {
	short := func(o *s3.Options) { o.Retryer = b.retryer(4, 5*time.Second) }
	b.unprobed = nil
	versioning, err := b.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &b.cfg.Bucket}, short)
	switch {
	case err == nil:
		b.versioning, b.versionsKnown = versioning.Status, true
		if raw, ok := awsmiddleware.GetRawResponse(versioning.ResultMetadata).(*smithyhttp.Response); ok {
			b.minio = raw.Header.Get("Server") == "MinIO"
			b.skew = storage.ClockSkew(raw.Header, time.Now())
		}
	case errors.Is(kindOf(err), errors.ErrUnsupported):
		b.versionsKnown = true
	case isDenied(err):
		b.unprobed = append(b.unprobed, "s3:GetBucketVersioning")
		b.skew = storage.ClockSkew(http.Header{"Date": {responseHeader(err, "Date")}}, time.Now())
	default:
		return err
	}
	lock, err := b.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &b.cfg.Bucket}, short)
	switch {
	case err == nil:
		b.lock = lockOff
		if c := lock.ObjectLockConfiguration; c != nil && c.ObjectLockEnabled == types.ObjectLockEnabledEnabled {
			b.lock = lockOn
			b.defaults = defaultRetention(c.Rule)
		}
	case isDenied(err):
		b.unprobed = append(b.unprobed, "s3:GetBucketObjectLockConfiguration")
	case errors.Is(kindOf(err), errors.ErrUnsupported), errorCode(err) == "InvalidRequest", errorCode(err) == "MethodNotAllowed":
		b.lock = lockOff
	default:
		return err
	}
	b.cfg.Log.Debug("bucket probed", "bucket", b.cfg.Bucket, "versioning", string(b.versioning), "lock", b.lock == lockOn)
	return nil
}

// isDenied reports a missing right, as opposed to bad credentials.
func isDenied(err error) bool { return errors.Is(kindOf(err), storage.ErrPermission) }

// otherRegion is the region that a redirect names, "" where it is none.
func otherRegion(err error, current string) string {
	switch statusCode(err) {
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusBadRequest, http.StatusForbidden:
		if region := responseHeader(err, "X-Amz-Bucket-Region"); region != current {
			return region
		}
	}
	return ""
}

// hint adds what people most often got wrong.
func (b *Bucket) hint(err error) error {
	if b.cfg.Endpoint != "" && !b.cfg.PathStyle && strings.Contains(transportTextOf(err), "cannot resolve host "+b.cfg.Bucket+".") {
		return &textError{text: readable(err).Error() + "; does the endpoint need path_style=true?", err: err}
	}
	return err
}

func transportTextOf(err error) string {
	if statusCode(err) != 0 {
		return ""
	}
	return readable(err).Error()
}

// Capabilities tells what the bucket can do.
func (b *Bucket) Capabilities() storage.Capabilities {
	return storage.Capabilities{
		Versions:     b.versioning == types.BucketVersioningStatusEnabled,
		DeferredHead: true,
		ObjectLock:   b.lock == lockOn,
		LegalHold:    b.lock == lockOn,
		Tags:         true,
		StorageClass: true,
		Encryption:   true,
		MaxObject:    int64(b.cfg.MaxParts) * b.cfg.MaxPartSize,

		DefaultRetention: b.defaults,
		ClockSkew:        b.skew,
		Unprobed:         slices.Clone(b.unprobed),
	}
}

// Close releases connections.
func (b *Bucket) Close() error {
	if b.http != nil {
		b.http.CloseIdleConnections()
	}
	return nil
}

// version makes a version id of the store ours: a bucket that never had
// versioning has none, some stores say "null" there.
func (b *Bucket) version(id *string) string {
	v := aws.ToString(id)
	if v == "null" && b.versionsKnown && b.versioning == "" {
		return ""
	}
	return v
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
