package storagetest

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
)

// recorder is a testing.TB that keeps failures instead of reporting them, for
// cases that must fail: declared quirks, and the suite's own tests. The
// embedded TB serves what has nothing to do with failing (TempDir, Setenv).
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failed   bool
	messages []string
	cleanups []func()
}

// record runs fn in a goroutine of its own, which FailNow may end, and returns
// when it and its cleanups are done.
func record(t testing.TB, fn func(testing.TB)) *recorder {
	r := &recorder{TB: t}
	r.guarded(func() { fn(r) })
	for len(r.cleanups) > 0 {
		last := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		r.guarded(last)
	}
	return r
}

// guarded runs fn to its end, its FailNow or its panic.
func (r *recorder) guarded(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				r.fail(fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		fn()
	}()
	<-done
}

func (r *recorder) fail(message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
	if message != "" {
		r.messages = append(r.messages, message)
	}
}

// first is the first failure's message.
func (r *recorder) first() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.messages) == 0 {
		return ""
	}
	return r.messages[0]
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Helper()                           {}
func (r *recorder) Cleanup(fn func())                 { r.cleanups = append(r.cleanups, fn) }
func (r *recorder) Log(args ...any)                   {}
func (r *recorder) Logf(format string, args ...any)   {}
func (r *recorder) Fail()                             { r.fail("") }
func (r *recorder) Error(args ...any)                 { r.fail(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.fail(fmt.Sprintf(format, args...)) }

func (r *recorder) FailNow() {
	r.fail("")
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.fail(fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// A skip would be a silent pass, so it is a failure that is not a failure of
// the case: neither recorded quirk nor broken bucket may count on it.
func (r *recorder) Skip(args ...any)                 { r.TB.Fatalf("skipped: %s", fmt.Sprint(args...)) }
func (r *recorder) Skipf(format string, args ...any) { r.TB.Fatalf("skipped: "+format, args...) }
func (r *recorder) SkipNow()                         { r.TB.Fatal("skipped") }
