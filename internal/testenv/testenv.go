// Package testenv gives tests real servers: PostgreSQL, S3, GCS, a fault proxy
// and a pooler.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// Postgres, VersityGW, MinIO, FakeGCS are started once per test process and
// shared; the New functions start a private instance that a test may configure
// or kill. What cannot be started fails the test: nothing skips. Without Main
// everything still ends with the process (see package server), a moment later.
//
// A running server costs a few goroutines, so leak checks take their baseline
// after the first call: goleak.IgnoreCurrent.
package testenv

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv/server"
)

// startTimeout bounds starting one server, and one request to it.
const startTimeout = 3 * time.Minute

// Main runs the tests, stops every server and exits.
func Main(m *testing.M) {
	code := m.Run()
	if err := closeHome(); err != nil {
		fmt.Fprintln(os.Stderr, "testenv: stop the servers:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

var (
	homeMu sync.Mutex
	home   *server.Home
)

func sharedHome() (*server.Home, error) {
	homeMu.Lock()
	defer homeMu.Unlock()
	if home == nil {
		h, err := server.Open()
		if err != nil {
			return nil, err
		}
		home = h
	}
	return home, nil
}

func closeHome() error {
	homeMu.Lock()
	defer homeMu.Unlock()
	if home == nil {
		return nil
	}
	return home.Close()
}

// privateHome is a Home that ends with the test.
func privateHome(t testing.TB) *server.Home {
	t.Helper()
	h, err := server.Open()
	must(t, err)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("testenv: stop the servers: %v", err)
		}
	})
	return h
}

// shared is a server started at most once per process.
type shared[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (s *shared[T]) get(t testing.TB, start func(context.Context, *server.Home) (T, error)) T {
	t.Helper()
	s.once.Do(func() {
		var h *server.Home
		if h, s.err = sharedHome(); s.err != nil {
			return
		}
		// Not the test's context: the server outlives the test.
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		s.value, s.err = start(ctx, h)
	})
	must(t, s.err)
	return s.value
}

// Tool returns the path of a program: from .tools/bin, PostgreSQL's bin
// directory, or PATH.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := server.Find(name)
	must(t, err)
	return path
}

// Root is the repository's root directory.
func Root(t testing.TB) string {
	t.Helper()
	root, err := server.Root()
	must(t, err)
	return root
}

// FreePort is a loopback port that nobody listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := server.FreePort()
	must(t, err)
	return port
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
}

// bounded is a context for one request, usable in a test's cleanup too.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), startTimeout)
}

// logged is a server with a log.
type logged interface {
	LogSince(offset int64) string
	LogSize() int64
}

// showLog prints what the server logged during a test that failed.
func showLog(t testing.TB, name string, s logged) {
	from := s.LogSize()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s during this test:\n%s", name, s.LogSince(from))
		}
	})
}

var counter atomic.Int64

// unique is a name, valid for a database and for a bucket, that no other call
// in this process returns.
func unique(t testing.TB) string {
	var b strings.Builder
	for _, r := range strings.ToLower(t.Name()) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		}
		if b.Len() == 30 {
			break
		}
	}
	return fmt.Sprintf("t%d-%s", counter.Add(1), b.String())
}
