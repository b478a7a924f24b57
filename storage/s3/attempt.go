package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// Why a watchdog ended an attempt.
var (
	errNoProgress = errors.New("the store takes no data")
	errNoAnswer   = errors.New("the store does not answer")
)

// body is a request body that notes when the transport last took bytes. A read
// timeout on the connection cannot do that: writing does not extend it.
type body struct {
	mu    sync.Mutex
	data  bytes.Reader
	moved time.Time
}

func newBody(data []byte) *body {
	b := &body{moved: time.Now()}
	b.data.Reset(data)
	return b
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moved = time.Now()
	return b.data.Read(p)
}

func (b *body) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moved = time.Now()
	return b.data.Seek(offset, whence)
}

func (b *body) state() (moved time.Time, atEnd bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.moved, b.data.Len() == 0
}

// watch ends an attempt that is stuck: no byte of the body taken for idle, or
// no response for answer after the last one. The caller calls stop.
func watch(ctx context.Context, b *body, idle, answer time.Duration) (attempt context.Context, stop func()) {
	attempt, cancel := context.WithCancelCause(ctx)
	var mu sync.Mutex
	var timer *time.Timer
	stopped := false
	var check func()
	check = func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		moved, atEnd := b.state()
		limit, cause := idle, errNoProgress
		if atEnd {
			limit, cause = answer, errNoAnswer
		}
		left := limit - time.Since(moved)
		if left <= 0 {
			cancel(fmt.Errorf("%w for %s", cause, limit))
			return
		}
		// The body may end meanwhile, and then another limit counts.
		timer = time.AfterFunc(min(left, idle), check)
	}
	mu.Lock()
	timer = time.AfterFunc(idle, check)
	mu.Unlock()
	return attempt, func() {
		mu.Lock()
		stopped = true
		timer.Stop()
		mu.Unlock()
		cancel(nil)
	}
}

// attemptError prefers the watchdog's reason over the cancellation that it
// caused.
func attemptError(ctx, attempt context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if cause := context.Cause(attempt); errors.Is(cause, errNoProgress) || errors.Is(cause, errNoAnswer) {
		return cause
	}
	return err
}

// verdict is what to do about a failed request that carried a body.
type verdict int

const (
	final    verdict = iota
	again            // until the budget is used up
	fewTimes         // damage on the way, skewed clocks: three more attempts
	slower           // again, with fewer requests
)

// judge decides about a request that failed. Whether it may have taken effect
// is not considered: a part that is sent twice does no harm.
func judge(err error) verdict {
	switch errorCode(err) {
	case "SlowDown", "SlowDownWrite", "Throttling", "ThrottlingException", "ServiceUnavailable", "RequestLimitExceeded",
		"TooManyRequests", "TooManyRequestsException", "BandwidthLimitExceeded", "XMinioServerNotInitialized",
		"KMS.ThrottlingException":
		return slower
	case "RequestTimeout", "RequestTimeoutException", "IncompleteBody", "OperationAborted", "InternalError", "PriorRequestNotComplete":
		return again
	case "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest", "RequestTimeTooSkewed":
		return fewTimes
	case "AccessDenied", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "EntityTooLarge", "InvalidRequest", "MalformedXML", "NoSuchUpload":
		return final // also inside a 200, for which the SDK puts a 500
	}
	if isExpired(err) {
		return fewTimes
	}
	switch s := statusCode(err); {
	case s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable:
		return slower
	case s == http.StatusNotImplemented || s == http.StatusInsufficientStorage:
		return final
	case s >= 500 || s == http.StatusRequestTimeout:
		return again
	case s == http.StatusBadRequest && mentions(err, "body too small"):
		return again // seen at B2 under load
	case s >= 300:
		return final
	case isCertificate(err):
		return final
	case isTransport(err) || s > 0:
		return again // s > 0: an answer that broke off
	}
	return final
}

// patience is the retry state of one part or one completion.
type patience struct {
	b        *Bucket
	failures int
	few      int // failures of the kind that is tried only a few times
	since    time.Time
}

// next waits before the next attempt. It returns the error to give up with.
func (p *patience) next(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	v := judge(err)
	if v == final {
		return err
	}
	if isExpired(err) && !p.b.renewCredentials() {
		return err
	}
	return p.wait(ctx, err, v == fewTimes)
}

// wait counts a failure and sleeps.
func (p *patience) wait(ctx context.Context, err error, few bool) error {
	if p.failures == 0 {
		p.since = time.Now()
	}
	p.failures++
	if few {
		p.few++
	}
	pause := p.pause(err)
	if p.few > 3 {
		return err
	}
	if spent := time.Since(p.since); spent+pause > p.b.cfg.RetryBudget {
		return &textError{
			text: fmt.Sprintf("given up after %d attempts in %s: %s", p.failures, spent.Round(time.Second), readable(err)),
			err:  errors.Join(err, storage.ErrUnavailable),
		}
	}
	p.b.cfg.Log.Debug("request failed, trying again", "failures", p.failures, "pause", pause, "error", readable(err).Error())
	if !sleep(ctx, pause) {
		return ended(ctx)
	}
	return nil
}

// sleep reports whether the pause went by before ctx ended.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outlive gives a context that ends grace after ctx.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		if sleep(later, grace) {
			cancel(context.Cause(ctx))
		}
	})
	return later, func() {
		unhook()
		cancel(nil)
	}
}

// pause is exponential with full jitter, at least what the store asked for.
func (p *patience) pause(err error) time.Duration {
	limit := min(p.b.cfg.MaxBackoff, 200*time.Millisecond<<min(p.failures, 20))
	pause := limit/4 + rand.N(limit*3/4+1)
	if seconds, perr := strconv.Atoi(responseHeader(err, "Retry-After")); perr == nil && seconds > 0 {
		pause = max(pause, min(time.Duration(seconds)*time.Second, 2*time.Minute))
	}
	return pause
}
