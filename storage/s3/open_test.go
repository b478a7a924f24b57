package s3

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// TestRegionRedirect: the bucket lies in another region than configured.
func TestRegionRedirect(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		code   string
	}{"301": {301, "PermanentRedirect"}, "307": {307, "TemporaryRedirect"}, "400": {400, "AuthorizationHeaderMalformed"}} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				if strings.Contains(r.Header.Get("Authorization"), "/eu-north-1/") {
					return false
				}
				w.Header().Set("X-Amz-Bucket-Region", "eu-north-1")
				fail(w, c.status, c.code, "not here")
				return true
			}
			if _, err := put(t, s, storage.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestOpenFails(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		code   string
		want   error
	}{
		"no bucket":  {404, "NoSuchBucket", storage.ErrBucketNotExist},
		"key":        {403, "InvalidAccessKeyId", storage.ErrCredentials},
		"secret":     {403, "SignatureDoesNotMatch", storage.ErrCredentials},
		"busy":       {503, "SlowDown", storage.ErrUnavailable},
		"clock":      {403, "RequestTimeTooSkewed", storage.ErrCredentials},
		"other 5xx":  {500, "InternalError", storage.ErrUnavailable},
		"expired":    {400, "ExpiredToken", storage.ErrCredentials},
		"no service": {502, "BadGateway", storage.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				fail(w, c.status, c.code, "scripted")
				return true
			}
			_, err := Open(t.Context(), s.config())
			text := ""
			if err != nil {
				text = err.Error()
			}
			if !errors.Is(err, c.want) || strings.Contains(text, "\n") || !strings.Contains(text, "bucket stub") || strings.Count(text, "R1") > 1 {
				t.Fatalf("%v, want %v in one line that names the bucket", err, c.want)
			}
		})
	}
}

// TestDeniedProbes: without the right to ask, opening succeeds and the creating
// request decides.
func TestDeniedProbes(t *testing.T) {
	s := newStub(t)
	s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		if op == "GetBucketVersioning" || op == "GetObjectLockConfiguration" {
			fail(w, 403, "AccessDenied", "no")
			return true
		}
		if op == "CreateMultipartUpload" && r.Header.Get("X-Amz-Object-Lock-Mode") != "" {
			fail(w, 400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
			return true
		}
		return false
	}
	if _, err := put(t, s, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, s.config())
	_, err := b.Put(t.Context(), "locked", readerFunc(func([]byte) (int, error) { t.Error("the source was read"); return 0, errors.New("read") }),
		storage.PutOptions{Retention: storage.Retention{Mode: storage.Compliance, Until: time.Now().Add(time.Hour)}})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
}

// noCredentials hides every source of credentials there may be.
func noCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
}

func TestNoCredentials(t *testing.T) {
	noCredentials(t)
	s := newStub(t)
	cfg := s.config()
	cfg.Credentials = nil
	_, err := Open(t.Context(), cfg)
	if !errors.Is(err, storage.ErrCredentials) || !strings.Contains(err.Error(), "AWS_PROFILE") {
		t.Fatal(err)
	}
	cfg.Profile = "nobody"
	if _, err = Open(t.Context(), cfg); !errors.Is(err, storage.ErrCredentials) {
		t.Fatal(err)
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := newStub(t)
	for name, endpoint := range map[string]string{"refused": "http://" + addr, "unknown host": "http://nowhere.invalid"} {
		t.Run(name, func(t *testing.T) {
			cfg := s.config()
			cfg.Endpoint = endpoint
			_, err := Open(t.Context(), cfg)
			if !errors.Is(err, storage.ErrUnavailable) {
				t.Fatal(err)
			}
			t.Log(err)
		})
	}
	t.Run("silent", func(t *testing.T) {
		s.script = func(_ http.ResponseWriter, r *http.Request, _ string, _ int) bool { <-r.Context().Done(); return true }
		cfg := s.config()
		cfg.OpenTimeout = 200 * time.Millisecond
		_, err := Open(t.Context(), cfg)
		if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "within 200ms") {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("stopped")
		cancel(why)
		if _, err := Open(ctx, cfg); !errors.Is(err, why) || errors.Is(err, storage.ErrUnavailable) {
			t.Fatal(err)
		}
	})
}

// TestExpectedBucketOwner: every request names the owner.
func TestExpectedBucketOwner(t *testing.T) {
	s := newStub(t)
	s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		if r.Header.Get("X-Amz-Expected-Bucket-Owner") != "111122223333" {
			t.Errorf("%s does not name the owner", op)
		}
		if !strings.Contains(r.Header.Get("Authorization"), "x-amz-expected-bucket-owner") {
			t.Errorf("%s does not sign the owner", op)
		}
		return false
	}
	cfg := s.config()
	cfg.ExpectedBucketOwner = "111122223333"
	if _, err := putStub(t, s, cfg, 2500); err != nil {
		t.Fatal(err)
	}
}

// TestClockSkew: the store's clock is read from its answers, denied ones too.
func TestClockSkew(t *testing.T) {
	for name, status := range map[string]int{"answered": 0, "denied": 403} {
		s := newStub(t)
		s.script = func(w http.ResponseWriter, _ *http.Request, op string, _ int) bool {
			if op != "GetBucketVersioning" {
				return false
			}
			w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			if status != 0 {
				fail(w, status, "AccessDenied", "no")
			}
			return status != 0
		}
		b, err := Open(t.Context(), s.config())
		if err != nil {
			t.Fatal(err)
		}
		if skew := b.Capabilities().ClockSkew; skew != time.Hour {
			t.Errorf("%s: the clock is ahead by %s, expected an hour", name, skew)
		}
		b.Close()
	}
}
