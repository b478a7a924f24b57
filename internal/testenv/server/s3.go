package server

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// S3 is an S3 server on a loopback port.
type S3 struct {
	Name      string // "versitygw" or "minio"
	Endpoint  string // http://127.0.0.1:PORT
	AccessKey string
	SecretKey string
	Region    string
	Dir       string // holds the data
	LogFile   string

	home *Home
	port int
	run  func(port int) command
	proc *process
}

// S3Options configure an S3 server.
type S3Options struct {
	// Env is added to the server's environment.
	Env []string
}

// BucketOptions describe a bucket to be created.
type BucketOptions struct {
	ObjectLock bool // implies versioning
	Versioning bool
}

// StartVersityGW starts versitygw: a strict multipart implementation with
// object lock, without lifecycle rules, storage classes or encryption.
func (h *Home) StartVersityGW(ctx context.Context, opts S3Options) (*S3, error) {
	path, err := h.executable("versitygw")
	if err != nil {
		return nil, err
	}
	s, err := h.newS3("versitygw")
	if err != nil {
		return nil, err
	}
	// The four have to be siblings, and absolute: the gateway changes
	// directory. Without the sidecar, part metadata has to fit into one
	// extended attribute and 1,000 parts do not.
	for _, name := range []string{"data", "ver", "side", "iam"} {
		sub := filepath.Join(s.Dir, name)
		if err := errors.Join(os.Mkdir(sub, 0o700), h.chown(sub)); err != nil {
			return nil, err
		}
	}
	s.run = func(port int) command {
		return command{
			path: path,
			args: []string{
				"--quiet", "--keep-alive", "--iam-dir", filepath.Join(s.Dir, "iam"),
				"posix", "--sidecar", filepath.Join(s.Dir, "side"), "--versioning-dir", filepath.Join(s.Dir, "ver"),
				filepath.Join(s.Dir, "data"),
			},
			env: append([]string{
				"VGW_PORT=" + addr(port), "VGW_REGION=" + s.Region,
				"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey,
			}, opts.Env...),
			dir: s.Dir, log: s.LogFile, quit: syscall.SIGKILL,
		}
	}
	return s, s.launch(ctx)
}

// MinIOKey is the one key of MinIO's key service, and its default.
const MinIOKey = "test-key"

// StartMinIO starts MinIO: lifecycle rules, tiers, encryption, users; it cannot
// list multipart uploads by prefix.
func (h *Home) StartMinIO(ctx context.Context, opts S3Options) (*S3, error) {
	path, err := h.executable("minio")
	if err != nil {
		return nil, err
	}
	s, err := h.newS3("minio")
	if err != nil {
		return nil, err
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, err
	}
	kms := base64.StdEncoding.EncodeToString(key[:])
	s.run = func(port int) command {
		return command{
			path: path,
			// Without a console address MinIO takes a random port for it.
			args: []string{
				"server", "--quiet", "--address", addr(port), "--console-address", "127.0.0.1:0",
				filepath.Join(s.Dir, "data"),
			},
			env: append([]string{
				"MINIO_ROOT_USER=" + s.AccessKey, "MINIO_ROOT_PASSWORD=" + s.SecretKey, "MINIO_REGION=" + s.Region,
				"MINIO_CI_CD=1", "MINIO_UPDATE=off", "MINIO_BROWSER=off", "MINIO_KMS_SECRET_KEY=" + MinIOKey + ":" + kms,
			}, opts.Env...),
			dir: s.Dir, log: s.LogFile, quit: syscall.SIGKILL,
		}
	}
	return s, s.launch(ctx)
}

func (h *Home) newS3(name string) (*S3, error) {
	dir, err := h.mkdir(name)
	if err != nil {
		return nil, err
	}
	return &S3{
		Name: name, AccessKey: "AKIA" + rand.Text()[:16], SecretKey: rand.Text(), Region: "us-east-1",
		Dir: dir, LogFile: filepath.Join(dir, "log"), home: h,
	}, nil
}

func (s *S3) launch(ctx context.Context) error {
	p, err := s.home.startReady(ctx, func() (command, error) {
		port, err := FreePort()
		if err != nil {
			return command{}, err
		}
		s.port = port
		s.Endpoint = "http://" + addr(port)
		return s.run(port), nil
	}, s.ready)
	s.proc = p
	return err
}

// ready asks with our own random secret: an answer proves that it is our
// server, not another that has taken the port.
func (s *S3) ready(ctx context.Context) error {
	_, err := s.Client().ListBuckets(ctx, &s3.ListBucketsInput{})
	return err
}

// Client is an S3 client without retries and without idle connections.
func (s *S3) Client() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Endpoint),
		Region:       s.Region,
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
		Retryer:      aws.NopRetryer{},
		HTTPClient:   &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute},
	})
}

// Env holds the credentials and the region for a child process, and hides the
// developer's own. The endpoint is not among them: BucketURL names it.
func (s *S3) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey, "AWS_SESSION_TOKEN=",
		"AWS_REGION=" + s.Region, "AWS_DEFAULT_REGION=" + s.Region, "AWS_PROFILE=", "AWS_ENDPOINT_URL=", "AWS_ENDPOINT_URL_S3=",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
}

// BucketURL is the URL by which pgstow finds a bucket of this server.
func (s *S3) BucketURL(bucket, prefix string) string {
	return S3URL(bucket, prefix, s.Endpoint, s.Region)
}

// S3URL is a bucket's URL at an endpoint, a proxy's for example.
func S3URL(bucket, prefix, endpoint, region string) string {
	q := url.Values{"endpoint": {endpoint}, "region": {region}, "path_style": {"true"}}
	u := url.URL{Scheme: "s3", Host: bucket, Path: "/" + strings.TrimPrefix(prefix, "/"), RawQuery: q.Encode()}
	return u.String()
}

// CreateBucket creates a bucket.
func (s *S3) CreateBucket(ctx context.Context, name string, opts BucketOptions) error {
	c := s.Client()
	in := &s3.CreateBucketInput{Bucket: aws.String(name)}
	if opts.ObjectLock {
		in.ObjectLockEnabledForBucket = aws.Bool(true)
	}
	if _, err := c.CreateBucket(ctx, in); err != nil {
		return fmt.Errorf("create bucket %s: %w", name, err)
	}
	if opts.Versioning || opts.ObjectLock {
		_, err := c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
			Bucket:                  aws.String(name),
			VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
		})
		if err != nil {
			return fmt.Errorf("enable versioning of bucket %s: %w", name, err)
		}
	}
	return nil
}

// Addr is host:port.
func (s *S3) Addr() string { return addr(s.port) }

// Kill ends the server at once (SIGKILL). Its data stays.
func (s *S3) Kill() error {
	err := s.proc.end(syscall.SIGKILL)
	s.home.forget(s.proc)
	return err
}

// Signal sends the server a signal: SIGSTOP makes it take connections and
// answer nothing, until SIGCONT.
func (s *S3) Signal(sig syscall.Signal) error { return s.proc.cmd.Process.Signal(sig) }

// Start starts a killed server on its old port and data.
func (s *S3) Start(ctx context.Context) error {
	if s.proc.alive() {
		return nil
	}
	p, err := s.home.startReady(ctx, func() (command, error) { return s.run(s.port), nil }, s.ready)
	if err != nil {
		return err
	}
	s.proc = p
	return nil
}

// LogSince is the end of the server's log from an offset on.
func (s *S3) LogSince(offset int64) string { return logTail(s.LogFile, offset) }

// LogSize is where the server's log ends now.
func (s *S3) LogSize() int64 { return logSize(s.LogFile) }
