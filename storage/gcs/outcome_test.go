package gcs

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/oauth2"

	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
	"github.com/pgstow/pgstow/storage"
)

// TestOutcome loses the reply to the completing request for good and looks at
// what Put makes of it.
func TestOutcome(t *testing.T) {
	short := func(c *Config) { c.RetryBudget, c.MetadataTimeout = 300*time.Millisecond, 500*time.Millisecond }
	down := func(l *lab, ops ...gcsserver.Op) {
		for _, op := range ops {
			l.Inject(gcsserver.Fault{Op: op, Times: -1, Status: 503})
		}
	}
	t.Run("the session tells", func(t *testing.T) {
		l := newLab(t, short)
		l.Inject(gcsserver.Fault{Op: gcsserver.OpFinal, DropReply: true})
		down(l, gcsserver.OpFinal, gcsserver.OpGet)
		data := content(10, faultSize)
		o, err := l.bucket.Put(t.Context(), "key", bytes.NewReader(data), storage.PutOptions{})
		if err != nil || o.Size != faultSize || o.Checksum.Value != crcText(crc32.Checksum(data, castagnoli)) {
			t.Fatalf("Put: %+v, %v", o, err)
		}
		l.ClearFaults()
		if stat, err := l.bucket.Stat(t.Context(), "key", ""); err != nil || stat.Version != o.Version || stat.ETag != o.ETag || !stat.Created.Equal(o.Created) {
			t.Errorf("Stat: %+v, %v; Put: %+v", stat, err, o)
		}
	})
	t.Run("a Stat tells", func(t *testing.T) {
		l := newLab(t, short)
		l.Inject(gcsserver.Fault{Op: gcsserver.OpFinal, DropReply: true})
		down(l, gcsserver.OpFinal, gcsserver.OpQuery)
		l.put("key", content(11, faultSize))
	})
	t.Run("nobody tells", func(t *testing.T) {
		l := newLab(t, short)
		l.Inject(gcsserver.Fault{Op: gcsserver.OpFinal, DropReply: true})
		down(l, gcsserver.OpFinal, gcsserver.OpQuery, gcsserver.OpGet)
		_, err := l.bucket.Put(t.Context(), "key", bytes.NewReader(content(12, faultSize)), storage.PutOptions{})
		if !errors.Is(err, storage.ErrUnknownOutcome) {
			t.Errorf("Put: %v", err)
		}
		noSecrets(t, err)
	})
	t.Run("it was not completed", func(t *testing.T) {
		l := newLab(t, short)
		down(l, gcsserver.OpFinal)
		_, err := l.bucket.Put(t.Context(), "key", bytes.NewReader(content(13, faultSize)), storage.PutOptions{})
		if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrUnknownOutcome) {
			t.Errorf("Put: %v", err)
		}
		noSecrets(t, err)
		l.nothing()
	})
	t.Run("single request, a Stat tells", func(t *testing.T) {
		l := newLab(t, short)
		l.Inject(gcsserver.Fault{Op: gcsserver.OpInsert, DropReply: true})
		down(l, gcsserver.OpInsert)
		o, err := storage.PutBytes(t.Context(), l.bucket, "key", content(14, 1000), storage.PutOptions{})
		if err != nil || o.Size != 1000 {
			t.Errorf("Put: %+v, %v", o, err)
		}
	})
	t.Run("single request, nobody tells", func(t *testing.T) {
		l := newLab(t, short)
		l.Inject(gcsserver.Fault{Op: gcsserver.OpInsert, DropReply: true})
		down(l, gcsserver.OpInsert, gcsserver.OpGet)
		_, err := storage.PutBytes(t.Context(), l.bucket, "key", content(15, 1000), storage.PutOptions{})
		if !errors.Is(err, storage.ErrUnknownOutcome) {
			t.Errorf("Put: %v", err)
		}
	})
}

// TestHeldRequest: a completing request is kept on its way, and delivered when
// its Put has long returned. What Put says must still be true then.
func TestHeldRequest(t *testing.T) {
	stop := errors.New("stopped by the test")
	for name, size := range map[string]int64{"session": faultSize, "single": 1000} {
		op, known := gcsserver.OpFinal, int64(0)
		if size < testChunk {
			op, known = gcsserver.OpInsert, size
		}
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			var mu sync.Mutex
			var late []*http.Request
			l.Inject(gcsserver.Fault{Op: op, Times: -1, Hang: true, Match: func(r *http.Request) bool {
				if r.Header.Get("Content-Range") == "bytes */*" {
					return false // a question about the session
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return true
				}
				mu.Lock()
				defer mu.Unlock()
				held, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), bytes.NewReader(body))
				if err != nil {
					t.Error(err)
				}
				held.Header = r.Header.Clone()
				late = append(late, held)
				cancel(stop)
				return true
			}})
			_, err := l.bucket.Put(ctx, "key", bytes.NewReader(content(18, int(size))), storage.PutOptions{Size: known})
			if !errors.Is(err, stop) {
				t.Errorf("Put: %v", err)
			}
			l.ClearFaults()
			mu.Lock()
			defer mu.Unlock()
			if len(late) == 0 {
				t.Fatal("no request was held")
			}
			for _, r := range late {
				res, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
			}
			http.DefaultClient.CloseIdleConnections()
			_, stat := l.bucket.Stat(t.Context(), "key", "")
			appeared := stat == nil
			if appeared != (name == "single") {
				t.Errorf("the object appeared: %v, %v", appeared, stat)
			}
			if appeared && !errors.Is(err, storage.ErrUnknownOutcome) {
				t.Errorf("the object appeared after %v", err)
			}
		})
	}
}

// TestSessionRemains: what could not be cancelled is told.
func TestSessionRemains(t *testing.T) {
	l := newLab(t, func(c *Config) { c.MetadataTimeout = 300 * time.Millisecond })
	l.Inject(gcsserver.Fault{Op: gcsserver.OpCancel, Skip: 1, Times: -1, Status: 503})
	broken := errors.New("the source broke")
	_, err := l.bucket.Put(t.Context(), "key", io.MultiReader(bytes.NewReader(content(19, 2*testChunk)), iotest.ErrReader(broken)), storage.PutOptions{})
	var remains *storage.UploadRemainsError
	if !errors.Is(err, broken) || !errors.As(err, &remains) || remains.Key != "key" {
		t.Errorf("Put: %v", err)
	}
}

// TestCancelledWhileCompleting cancels while the store keeps silent about the
// completing request: what was not done is undone, what was done is reported.
func TestCancelledWhileCompleting(t *testing.T) {
	stop := errors.New("stopped by the test")
	for name, size := range map[string]int64{"session": faultSize, "single": 1000} {
		op, known := gcsserver.OpFinal, int64(0)
		if size < testChunk {
			op, known = gcsserver.OpInsert, size
		}
		data := content(16, int(size))
		t.Run(name+" not done", func(t *testing.T) {
			l := newLab(t, nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			l.Inject(gcsserver.Fault{Op: op, Hang: true, Before: func() { cancel(stop) }})
			_, err := l.bucket.Put(ctx, "key", bytes.NewReader(data), storage.PutOptions{Size: known})
			// A session is cancelled, a single request may still arrive.
			if !errors.Is(err, stop) || errors.Is(err, storage.ErrUnknownOutcome) != (name == "single") {
				t.Errorf("Put: %v", err)
			}
			l.nothing()
		})
		t.Run(name+" done", func(t *testing.T) {
			l := newLab(t, nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			l.Inject(gcsserver.Fault{Op: op, HangAfter: true, After: func() { cancel(stop) }})
			o, err := l.bucket.Put(ctx, "key", bytes.NewReader(data), storage.PutOptions{Size: known})
			if err != nil || o.Size != size {
				t.Fatalf("Put: %+v, %v", o, err)
			}
			l.whole("key", data)
		})
	}
}

// TestPutOnly: credentials that may create and nothing else make archives; they
// neither read nor list, and a lost reply is settled all the same.
func TestPutOnly(t *testing.T) {
	s := startStrict(t, gcsserver.Options{Tokens: map[string]gcsserver.Permissions{
		"all": {"*"}, "writer": {"storage.objects.create", "storage.objects.setRetention"}, "reader": {"storage.objects.get", "storage.objects.list"},
	}})
	name := s.bucket(t)
	as := func(token string) *Bucket {
		cfg := s.quick(name)
		cfg.tokens = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token})
		return s.open(t, cfg)
	}
	writer, all := as("writer"), as("all")
	until := time.Now().UTC().Add(time.Hour).Truncate(time.Second)
	s.Inject(gcsserver.Fault{Op: gcsserver.OpFinal, DropReply: true})
	for key, size := range map[string]int{"large": faultSize, "small": 10} {
		o, err := writer.Put(t.Context(), key, bytes.NewReader(content(17, size)), storage.PutOptions{
			Retention: storage.Retention{Mode: storage.Compliance, Until: until}, LegalHold: true,
		})
		if err != nil || o.Size != int64(size) || o.Retention.Mode != storage.Compliance || !o.Retention.Until.Equal(until) || !o.LegalHold {
			t.Fatalf("Put %s: %+v, %v", key, o, err)
		}
		if stat, err := all.Stat(t.Context(), key, ""); err != nil || stat.Retention != o.Retention || stat.Version != o.Version {
			t.Errorf("Stat %s: %+v, %v", key, stat, err)
		}
		_, err = writer.Put(t.Context(), key, bytes.NewReader(content(18, size)), storage.PutOptions{})
		if !errors.Is(err, storage.ErrExist) {
			t.Errorf("second Put %s: %v", key, err)
		}
	}
	if _, err := writer.Stat(t.Context(), "small", ""); !errors.Is(err, storage.ErrPermission) {
		t.Errorf("Stat: %v", err)
	}
	if _, err := writer.Open(t.Context(), "small", storage.OpenOptions{}); !errors.Is(err, storage.ErrPermission) {
		t.Errorf("Open: %v", err)
	}
	if err := writer.Delete(t.Context(), "small", ""); !errors.Is(err, storage.ErrPermission) {
		t.Errorf("Delete: %v", err)
	}
	if _, err := as("reader").Put(t.Context(), "new", unread{t}, storage.PutOptions{}); !errors.Is(err, storage.ErrPermission) {
		t.Errorf("Put by a reader: %v", err)
	}
	if left := s.leftovers(t); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// unread fails the test when it is read: what the store will not take is
// refused before.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the source was read")
	return 0, io.EOF
}

// TestRefusedUnread: everything that can be known is known before the first
// Read.
func TestRefusedUnread(t *testing.T) {
	s := startStrict(t, gcsserver.Options{Tokens: map[string]gcsserver.Permissions{
		"blind": {"storage.objects.create", "storage.objects.setRetention"},
	}})
	plain := s.bucketWith(t, nil)
	cfg := s.quick(plain)
	cfg.tokens = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "blind"})
	b := s.open(t, cfg) // may not read the bucket's settings
	for name, test := range map[string]struct {
		key  string
		opts storage.PutOptions
		kind error
	}{
		"retention":     {"k", storage.PutOptions{Retention: storage.Retention{Mode: storage.Governance, Until: time.Now().Add(time.Hour)}}, errors.ErrUnsupported},
		"head":          {"k", storage.PutOptions{Head: &storage.DeferredHead{}}, errors.ErrUnsupported},
		"storage class": {"k", storage.PutOptions{StorageClass: "GLACIER"}, errors.ErrUnsupported},
		"foreign key":   {"k", storage.PutOptions{Encryption: storage.Encryption{Mode: storage.EncryptionKMS, Key: testKMSKey}}, storage.ErrPermission},
		"key elsewhere": {"k", storage.PutOptions{Encryption: storage.Encryption{Mode: storage.EncryptionKMS, Key: "projects/p/locations/eu/keyRings/r/cryptoKeys/k"}}, errors.ErrUnsupported},
		"no key's name": {"k", storage.PutOptions{Encryption: storage.Encryption{Mode: storage.EncryptionKMS, Key: "alias/k"}}, errors.ErrUnsupported},
		"metadata":      {"k", storage.PutOptions{Metadata: map[string]string{"tag-x": "1"}}, errors.ErrUnsupported},
		"token":         {"k", storage.PutOptions{Metadata: map[string]string{tokenKey: "1"}}, errors.ErrUnsupported},
		"line break":    {"a\nb", storage.PutOptions{}, storage.ErrInvalidKey},
		"reserved":      {".well-known/acme-challenge/x", storage.PutOptions{}, storage.ErrInvalidKey},
		"too large":     {"k", storage.PutOptions{Size: maxObject + 1}, errors.ErrUnsupported},
	} {
		_, err := b.Put(t.Context(), test.key, unread{t}, test.opts)
		if err == nil || test.kind != nil && !errors.Is(err, test.kind) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		t.Log(err)
	}
	if left := s.leftovers(t); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}
