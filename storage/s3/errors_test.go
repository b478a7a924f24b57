package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// TestErrorMapping sends each code as a store does and looks at what becomes of
// it: sentinel, one line, hint, one request id.
func TestErrorMapping(t *testing.T) {
	for _, c := range []struct {
		status        int
		code, message string
		want          error
		text          string // has to be in it
	}{
		{404, "NoSuchKey", "The specified key does not exist.", storage.ErrNotExist, ""},
		{404, "NoSuchVersion", "gone", storage.ErrNotExist, ""},
		{400, "InvalidArgument", "Invalid version id specified", storage.ErrNotExist, ""},
		{404, "NoSuchBucket", "The specified bucket does not exist", storage.ErrBucketNotExist, ""},
		{403, "AccessDenied", "Access Denied", storage.ErrPermission, ""},
		{403, "InvalidAccessKeyId", "unknown", storage.ErrCredentials, "access key"},
		{403, "SignatureDoesNotMatch", "differs", storage.ErrCredentials, "secret key"},
		{403, "RequestTimeTooSkewed", "clock", storage.ErrCredentials, "clock"},
		{401, "Unauthorized", "who", storage.ErrCredentials, ""},
		{416, "InvalidRange", "The requested range is not satisfiable", storage.ErrRange, ""},
		{403, "AccessDenied", "Access Denied because object protected by object lock.", storage.ErrLocked, ""},
		{400, "InvalidRequest", "Object is WORM protected and cannot be overwritten", storage.ErrLocked, ""},
		{400, "InvalidRequest", "Bucket is missing Object Lock Configuration", errors.ErrUnsupported, ""},
		{403, "InvalidObjectState", "The operation is not valid for the object's storage class", storage.ErrCold, "thawed"},
		{400, "InvalidStorageClass", "no such class", errors.ErrUnsupported, ""},
		{501, "NotImplemented", "not implemented", errors.ErrUnsupported, ""},
		{400, "BadDigest", "differs", storage.ErrIntegrity, ""},
		{400, "XAmzContentChecksumMismatch", "differs", storage.ErrIntegrity, "checksum=md5"},
		{400, "EntityTooLarge", "too large", storage.ErrUnavailable, ""},
		{507, "QuotaExceeded", "full", storage.ErrUnavailable, ""},
		{412, "PreconditionFailed", "it exists", storage.ErrExist, ""},
	} {
		t.Run(c.code+"/"+c.message, func(t *testing.T) {
			s := newStub(t)
			b := mustOpen(t, s.config())
			s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				fail(w, c.status, c.code, c.message)
				return true
			}
			err := wrap(t.Context(), "open", "k", getError(t, b))
			text := fmt.Sprint(err)
			var e *storage.Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Op != "open" || e.Key != "k" {
				t.Fatalf("%#v, want %v", err, c.want)
			}
			if strings.Contains(text, "\n") || !strings.Contains(text, c.code) || !strings.Contains(text, c.text) ||
				strings.Count(text, "R1") != 1 || strings.Contains(text, "operation error") {
				t.Errorf("the text is %q", text)
			}
			t.Log(text)
		})
	}
}

func getError(t *testing.T, b *Bucket) error {
	t.Helper()
	in := &opener{b: b, key: "k", end: -1}
	out, _, err := in.raw(t.Context(), 0)
	if err == nil {
		out.Body.Close()
		t.Fatal("no error")
	}
	return err
}

// TestBodyIsNotChecked: a store that hands out damaged bytes with the right
// checksum is not found out here; the hashes above are for that.
func TestBodyIsNotChecked(t *testing.T) {
	s := newStub(t)
	s.keep = true
	if _, err := put(t, s, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	s.objects["k"].data[1234] ^= 1
	r, err := mustOpen(t, s.config()).Open(t.Context(), "k", storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	want := noise(2500)
	want[1234] ^= 1
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestBlame(t *testing.T) {
	stalled := fmt.Errorf("%w for 5m0s", storage.ErrStalled)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(stalled)
	killed := errors.New("pg_dump was killed")
	for name, c := range map[string]struct {
		err  error
		want []error
	}{
		"request":   {errors.New("operation error S3: UploadPart, canceled"), []error{storage.ErrStalled, context.Canceled}},
		"source":    {&sourceError{"read the source", killed}, []error{storage.ErrStalled, context.Canceled, killed}},
		"unknown":   {unknown(errors.New("lost")), []error{storage.ErrUnknownOutcome}},
		"committed": {&textError{text: "x", err: errCommitted}, []error{errCommitted}},
	} {
		err := wrap(ctx, "put", "k", blame(ctx, c.err))
		for _, want := range c.want {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v is not %v", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q", name, err)
		}
	}
}

// TestSourceNetworkError: the dump's connection broke, not the store's.
func TestSourceNetworkError(t *testing.T) {
	broken := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	for _, size := range []int64{0, 2500} {
		s := newStub(t)
		b := mustOpen(t, s.config())
		src := io.MultiReader(bytes.NewReader(noise(1500)), readerFunc(func([]byte) (int, error) { return 0, broken }))
		_, err := b.Put(t.Context(), "k", src, storage.PutOptions{Size: size})
		if !errors.Is(err, syscall.ECONNRESET) || errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
}

func TestMetadataEncoding(t *testing.T) {
	for _, value := range []string{"plain", "", " lead", "trail ", "a=b; c", "größer 文字", "=?utf-8?q?x?="} {
		encoded := encodeMetadata(value)
		if strings.TrimSpace(encoded) != encoded || strings.ContainsFunc(encoded, func(r rune) bool { return r > 126 }) {
			t.Errorf("%q is no header value", encoded)
		}
		got := decodeMetadata(map[string]string{"k": encoded, tokenKey: "t"})
		if len(got) != 1 || got["k"] != value {
			t.Errorf("%q comes back as %q", value, got)
		}
	}
}

func TestRetentionIsChecked(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	for name, r := range map[string]storage.Retention{
		"past": {Mode: storage.Compliance, Until: time.Now().Add(-time.Minute)}, "no time": {Mode: storage.Governance},
		"no mode": {Until: soon}, "unknown mode": {Mode: "forever", Until: soon},
	} {
		if checkRetention(r) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if err := checkRetention(storage.Retention{Mode: storage.Governance, Until: soon}); err != nil {
		t.Error(err)
	}
}

// TestInvalidBucketName is a mistake of the caller's, not the store's failure.
func TestInvalidBucketName(t *testing.T) {
	s := newStub(t)
	s.script = func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
		fail(w, 400, "InvalidBucketName", "The specified bucket is not valid.")
		return true
	}
	b, err := Open(t.Context(), s.config())
	if err == nil {
		_, err = b.Stat(t.Context(), "k", "")
	}
	if !errors.Is(err, storage.ErrInvalidBucket) || !strings.Contains(err.Error(), "lower-case") {
		t.Errorf("error is %v", err)
	}
}
