package storage_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// plain hides the optional interfaces of a bucket.
type plain struct{ storage.Bucket }

func TestPrefixedOptionalInterfaces(t *testing.T) {
	ctx := t.Context()
	memory := storagetest.NewMemory(storagetest.MemoryOptions{Versions: true, Lock: true})
	retention := storage.Retention{Mode: storage.Governance, Until: time.Now().UTC().Add(time.Hour)}
	for name, c := range map[string]struct {
		inner storage.Bucket
		want  error
	}{"with": {memory, nil}, "without": {plain{memory}, errors.ErrUnsupported}} {
		b := storage.Prefixed(c.inner, "p/")
		if _, err := storage.PutBytes(ctx, b, name, []byte("x"), storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		for call, err := range map[string]error{
			"SetRetention": storage.SetRetention(ctx, b, name, "", retention),
			"SetLegalHold": storage.SetLegalHold(ctx, b, name, "", true),
			"AbortUpload":  storage.AbortUpload(ctx, b, storage.Upload{Key: "k", ID: "1"}),
		} {
			if !errors.Is(err, c.want) {
				t.Errorf("%s %s: %v, expected %v", name, call, err, c.want)
			}
		}
		var last error
		for _, err := range storage.Uploads(ctx, b, "") {
			last = err
		}
		if !errors.Is(last, c.want) {
			t.Errorf("%s Uploads: %v, expected %v", name, last, c.want)
		}
	}
	o, err := memory.Stat(ctx, "p/with", "")
	if err != nil || o.Retention != retention || !o.LegalHold {
		t.Errorf("the wrapped bucket shows %+v, %v", o, err)
	}
}

func TestPrefixedNested(t *testing.T) {
	ctx := t.Context()
	memory := storagetest.NewMemory(storagetest.MemoryOptions{})
	if storage.Prefixed(memory, "") != storage.Bucket(memory) {
		t.Error("the empty prefix wraps")
	}
	b := storage.Prefixed(storage.Prefixed(memory, "a"), "b/")
	o, err := storage.PutBytes(ctx, b, "k", []byte("x"), storage.PutOptions{})
	if err != nil || o.Key != "k" {
		t.Fatalf("%+v, %v", o, err)
	}
	if _, err := memory.Stat(ctx, "a/b/k", ""); err != nil {
		t.Error(err)
	}
	_, err = b.Stat(ctx, "missing", "")
	var e *storage.Error
	if !errors.As(err, &e) || e.Key != "missing" || strings.HasPrefix(err.Error(), "stat a/") {
		t.Errorf("the error's key is not relative: %v", err)
	}
}

// broken breaks every body for good.
type broken struct{ storage.Bucket }

type brokenBody struct{ io.ReadCloser }

func (brokenBody) Read([]byte) (int, error) {
	return 0, &storage.Error{Op: "open", Key: "p/k", Kind: storage.ErrUnavailable, Err: errors.New("gone")}
}

func (b broken) Open(t context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	body, err := b.Bucket.Open(t, key, opts)
	return brokenBody{body}, err
}

func TestPrefixedBodyErrors(t *testing.T) {
	b := storage.Prefixed(broken{storagetest.NewMemory(storagetest.MemoryOptions{})}, "p/")
	if _, err := storage.PutBytes(t.Context(), b, "k", []byte("x"), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	body, err := b.Open(t.Context(), "k", storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	_, err = io.ReadAll(body)
	var e *storage.Error
	if !errors.As(err, &e) || e.Key != "k" || !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("error in mid-body: %v", err)
	}
}

// A key is as long as its prefix lets it be.
func TestPrefixedLongKeys(t *testing.T) {
	prefix := strings.Repeat("p", 100) + "/"
	b := storage.Prefixed(storagetest.NewMemory(storagetest.MemoryOptions{}), prefix)
	longest := strings.Repeat("k", storage.MaxKey-len(prefix))
	if _, err := storage.PutBytes(t.Context(), b, longest, nil, storage.PutOptions{}); err != nil {
		t.Error(err)
	}
	_, err := storage.PutBytes(t.Context(), b, longest+"k", nil, storage.PutOptions{})
	var e *storage.Error
	if !errors.Is(err, storage.ErrInvalidKey) || !errors.As(err, &e) || e.Key != longest+"k" {
		t.Errorf("one byte too long: %v", err)
	}
}

// The rules are the whole bucket's, however deep the prefix: it only stands
// beside them.
func TestPrefixedLifecycle(t *testing.T) {
	features := storage.LifecycleFeatures{IDs: true, MaxRules: 3}
	memory := storagetest.NewMemory(storagetest.MemoryOptions{Lifecycle: &features})
	b := storage.Prefixed(storage.Prefixed(memory, "a/"), "b")
	if f, ok := storage.LifecycleFeaturesOf(b); !ok || f.MaxRules != 3 {
		t.Errorf("features %+v, %t", f, ok)
	}
	l, err := storage.ReadLifecycle(t.Context(), b)
	if err != nil || l.Prefix != "a/b/" {
		t.Fatalf("%+v, %v", l, err)
	}
	l.Rules = []storage.LifecycleRule{{ID: "x", Filter: storage.LifecycleFilter{Prefixes: []string{"elsewhere/"}}}}
	if err := storage.WriteLifecycle(t.Context(), b, l); err != nil {
		t.Fatal(err)
	}
	if l, err = memory.Lifecycle(t.Context()); err != nil || l.Prefix != "" || l.Rules[0].Filter.Prefixes[0] != "elsewhere/" {
		t.Errorf("%+v, %v", l, err)
	}
	b = storage.Prefixed(plain{memory}, "a/")
	if _, ok := storage.LifecycleFeaturesOf(b); ok {
		t.Error("a bucket without rules has features of them")
	}
	if _, err := storage.ReadLifecycle(t.Context(), b); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if err := storage.WriteLifecycle(t.Context(), b, l); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
