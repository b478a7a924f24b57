package s3

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/pgstow/pgstow/storage"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// Checksum profiles.
const (
	ChecksumCRC64NVME = "crc64nvme" // header checksum per part, whole-object checksum on completion
	ChecksumMD5       = "md5"       // Content-MD5 per part, ETag on completion
)

// Config describes one bucket. Only Bucket is required; the zero value of every
// other field is its default.
type Config struct {
	Bucket    string
	Region    string // default: the SDK's own sources, then us-east-1; redirects are followed
	Endpoint  string // "http://host:port" or "https://host"; default: the SDK's own sources
	PathStyle bool   // bucket in the path instead of the host name

	// UniformParts is for stores that want all parts of an upload to have one
	// size (Cloudflare R2). The size is then fixed by the estimate.
	UniformParts bool
	// Checksum is the profile: ChecksumCRC64NVME (default) or ChecksumMD5.
	Checksum string
	// MaxParts is how many parts the store takes for one object; default 10,000.
	MaxParts int

	// MemoryBudget bounds the part buffers of one Put in bytes; default 96 MiB.
	// Two parts and the deferred head are always held, whatever it says.
	MemoryBudget int64
	// MaxConcurrency bounds the parts in flight; default 16.
	MaxConcurrency int

	Profile             string // shared configuration profile
	RoleARN             string // role to assume
	ExternalID          string // goes with RoleARN
	ExpectedBucketOwner string // account id every request names
	CAFile              string // PEM bundle trusted besides the system's
	// Credentials replaces the SDK's own chain.
	Credentials aws.CredentialsProvider

	Log *slog.Logger // nil discards

	PartSize    int64 // of the first part; default 16 MiB
	MinPart     int64 // smallest part but the last that the store takes; default 5 MiB
	MaxPartSize int64 // parts grow up to it; default 1 GiB
	SinglePut   int64 // known sizes up to it go in one request; default 64 MiB

	// IdleTimeout ends an attempt whose body the store does not take or send on
	// for so long; default 1 minute. ResponseTimeout ends one that is not
	// answered that long after its body; default 5 minutes. The completing
	// request, which may take minutes, has CompleteTimeout; default 30 minutes.
	IdleTimeout     time.Duration
	ResponseTimeout time.Duration
	CompleteTimeout time.Duration
	// RetryBudget is how long one part, or the completion, is tried again after
	// its first failure; default 30 minutes. The context caps it.
	RetryBudget time.Duration
	// OpenTimeout bounds Open; default 30 seconds. It answers to a person.
	OpenTimeout time.Duration
	// MaxBackoff bounds the pause between two attempts; default 1 minute.
	MaxBackoff time.Duration

	// For tests.
	readAttempts int
	readBackoff  func(int) time.Duration
	uploadsPage  *int32
	transport    func(*http.Transport)
}

// withDefaults fills in the defaults and refuses what cannot work.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.Checksum, ChecksumCRC64NVME)
	setDefault(&c.MaxParts, 10_000)
	setDefault(&c.MemoryBudget, 96*mib)
	setDefault(&c.MaxConcurrency, 16)
	setDefault(&c.PartSize, 16*mib)
	setDefault(&c.MinPart, 5*mib)
	setDefault(&c.MaxPartSize, gib)
	setDefault(&c.SinglePut, 64*mib)
	setDefault(&c.IdleTimeout, time.Minute)
	setDefault(&c.ResponseTimeout, 5*time.Minute)
	setDefault(&c.CompleteTimeout, 30*time.Minute)
	setDefault(&c.RetryBudget, 30*time.Minute)
	setDefault(&c.OpenTimeout, 30*time.Second)
	setDefault(&c.MaxBackoff, time.Minute)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Bucket == "":
		return c, errors.New("no bucket named")
	case c.Checksum != ChecksumCRC64NVME && c.Checksum != ChecksumMD5:
		return c, fmt.Errorf("checksum %q is neither %q nor %q", c.Checksum, ChecksumCRC64NVME, ChecksumMD5)
	case c.MaxParts < 2 || c.MaxParts > 10_000:
		return c, fmt.Errorf("max_parts %d is not between 2 and 10000", c.MaxParts)
	case c.MaxConcurrency < 1 || c.MemoryBudget < 1:
		return c, errors.New("memory budget and concurrency have to be positive")
	case c.PartSize < 1 || c.MaxPartSize < c.PartSize || c.MinPart < 1 || c.SinglePut < 1:
		return c, errors.New("part sizes do not fit together")
	case c.ExternalID != "" && c.RoleARN == "":
		return c, errors.New("an external id needs a role to assume")
	}
	return c, checkEndpoint(c.Endpoint)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	return storage.CheckEndpoint(endpoint, credentialChain)
}

// credentialChain is where credentials come from, for messages.
const credentialChain = "the AWS credential chain (environment, profile, role)"

// urlParameters are the parameters that ParseURL knows, in the order of its
// messages.
var urlParameters = []string{"region", "endpoint", "path_style", "uniform_parts", "checksum", "max_parts"}

// ParseURL takes apart s3://bucket/prefix?region=&endpoint=&path_style=true&
// uniform_parts=true&checksum=md5&max_parts=N, as storage.ParseBucketURL does.
func ParseURL(raw string) (cfg Config, prefix string, err error) {
	u, err := storage.ParseBucketURL(raw, "s3", credentialChain, urlParameters...)
	if err != nil {
		return Config{}, "", err
	}
	cfg.Bucket = u.Bucket
	for name, value := range u.Params {
		if err := cfg.setParameter(name, value); err != nil {
			return Config{}, "", fmt.Errorf("s3 URL: %w", err)
		}
	}
	if _, err := cfg.withDefaults(); err != nil {
		return Config{}, "", fmt.Errorf("s3 URL: %w", err)
	}
	return cfg, u.Prefix, nil
}

func (c *Config) setParameter(name, value string) error {
	var err error
	switch name {
	case "region":
		c.Region = value
	case "endpoint":
		c.Endpoint = value
	case "path_style":
		c.PathStyle, err = parseBool(name, value)
	case "uniform_parts":
		c.UniformParts, err = parseBool(name, value)
	case "checksum":
		c.Checksum = value
	case "max_parts":
		c.MaxParts, err = strconv.Atoi(value)
		if err != nil || c.MaxParts < 2 {
			return fmt.Errorf("max_parts is %q, not a number between 2 and 10000", value)
		}
	}
	return err
}

func parseBool(name, value string) (bool, error) {
	switch value {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is %q, not true or false", name, value)
}

// trustCA adds the certificates of file to the system's.
func trustCA(file string) (func(*http.Transport), error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s holds no PEM certificate", file)
	}
	return func(t *http.Transport) {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.TLSClientConfig.RootCAs = pool
	}, nil
}
