package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// ResumeOptions tell Resume how to reach an object's bytes. Only Open is
// required.
type ResumeOptions struct {
	// Open starts a body at offset and says how many bytes it will deliver.
	// Every call but the first must be pinned to the version that the first
	// one found, and answer ErrIntegrity when it is there no more under that
	// name. ctx belongs to this body alone and lives until it is closed.
	Open func(ctx context.Context, offset int64) (body io.ReadCloser, length int64, err error)
	// Offset is where the first body starts.
	Offset int64
	// Key names the object in errors.
	Key string
	// Attempts is how many times in a row a body may be opened or broken
	// without one new byte; 0 is 10, about a minute with the default pauses.
	Attempts int
	// Backoff is the pause before the n-th such attempt, n from 1; nil is 250 ms
	// doubled up to 15 s, with jitter.
	Backoff func(n int) time.Duration
	// Idle ends a body that delivers nothing for so long while Read waits for
	// it; 0 is one minute, less than 0 never.
	Idle time.Duration
}

const (
	resumeAttempts = 10
	resumeIdle     = time.Minute
)

// errIdle is why a silent body was ended.
var errIdle = errors.New("the store sends nothing")

// Resume opens an object for reading and continues it at the byte whenever
// its body breaks: by an error, by an end before the announced length, by
// silence. An error of the first Open is returned as it is. Errors that no
// repetition cures (ErrNotExist, ErrPermission, ErrCredentials, ErrIntegrity
// and the like, and the end of ctx) are final; others use up Attempts, which a
// new byte refills. Close ends the body's context first, so nothing is drained.
func Resume(ctx context.Context, opts ResumeOptions) (io.ReadCloser, error) {
	if opts.Attempts <= 0 {
		opts.Attempts = resumeAttempts
	}
	if opts.Backoff == nil {
		opts.Backoff = resumeBackoff
	}
	if opts.Idle == 0 {
		opts.Idle = resumeIdle
	}
	r := &resumer{ctx: ctx, opts: opts, at: opts.Offset}
	length, err := r.open()
	if err != nil {
		return nil, err
	}
	r.end = r.at + length
	return r, nil
}

func resumeBackoff(n int) time.Duration {
	pause := min(250*time.Millisecond<<min(n-1, 10), 15*time.Second)
	return pause/2 + rand.N(pause/2+1)
}

// resumer is the reader Resume returns. It is the one place where a context is
// kept in a struct: the contract of Open makes it the reader's own.
type resumer struct {
	ctx  context.Context
	opts ResumeOptions

	at, end  int64
	body     io.ReadCloser           // nil between two bodies
	bodyCtx  context.Context         // of body alone
	cancel   context.CancelCauseFunc // ends bodyCtx
	failures int                     // in a row without a new byte
	err      error                   // final
}

func (r *resumer) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.ctx.Err() != nil {
		r.drop()
		r.err = r.ended()
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for r.at < r.end {
		if r.body == nil {
			if r.err = r.reopen(); r.err != nil {
				return 0, r.err
			}
		}
		n, err := r.readBody(p[:min(int64(len(p)), r.end-r.at)])
		r.at += int64(n)
		if n > 0 {
			r.failures = 0
		}
		if err != nil && r.at < r.end {
			err = r.broken(err)
			r.drop()
			r.err = r.failed(err)
		}
		if n > 0 {
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	r.err = r.finish()
	return 0, r.err
}

// finish lets a body that checks a checksum at its end say so; any other
// trouble behind the last byte is none.
func (r *resumer) finish() error {
	if r.body == nil {
		return io.EOF
	}
	defer r.drop()
	n, err := r.readBody(make([]byte, 1))
	switch {
	case n > 0:
		return &Error{Op: "open", Key: r.opts.Key, Kind: ErrIntegrity,
			Err: fmt.Errorf("the store sends more than the %d bytes it announced", r.end-r.opts.Offset)}
	case errors.Is(err, ErrIntegrity):
		return err
	}
	return io.EOF
}

// broken gives the reason why a body ended too early.
func (r *resumer) broken(err error) error {
	switch {
	case context.Cause(r.bodyCtx) == errIdle:
		return fmt.Errorf("%w for %s", errIdle, r.opts.Idle)
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// readBody reads once from the body, which is ended when it stays silent. The
// time between two calls does not count: a slow consumer is no fault.
func (r *resumer) readBody(p []byte) (int, error) {
	if r.opts.Idle < 0 {
		return r.body.Read(p)
	}
	cancel := r.cancel
	timer := time.AfterFunc(r.opts.Idle, func() { cancel(errIdle) })
	defer timer.Stop()
	return r.body.Read(p)
}

func (r *resumer) open() (length int64, err error) {
	if r.ctx.Err() != nil {
		return 0, r.ended()
	}
	ctx, cancel := context.WithCancelCause(r.ctx)
	body, length, err := r.opts.Open(ctx, r.at)
	if err != nil {
		cancel(nil)
		return 0, err
	}
	r.body, r.bodyCtx, r.cancel = body, ctx, cancel
	return length, nil
}

// reopen continues at r.at; its error is final.
func (r *resumer) reopen() error {
	for {
		if err := r.pause(); err != nil {
			return err
		}
		length, err := r.open()
		switch {
		case err != nil:
			if err = r.failed(err); err != nil {
				return err
			}
		case length != r.end-r.at:
			r.drop()
			return &Error{Op: "open", Key: r.opts.Key, Kind: ErrIntegrity, Err: fmt.Errorf(
				"the object changed while it was read: %d bytes are left from offset %d, %d were announced",
				length, r.at, r.end-r.at)}
		default:
			return nil
		}
	}
}

// failed counts a failure without a new byte and returns the error to give up
// with, nil while there is hope.
func (r *resumer) failed(err error) error {
	if r.ctx.Err() != nil {
		return r.ended()
	}
	r.failures++
	final := isFinal(err)
	if !final && r.failures < r.opts.Attempts {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	if final {
		return &Error{Op: "open", Key: r.opts.Key, Err: fmt.Errorf("resume at offset %d: %w", r.at, err)}
	}
	return &Error{Op: "open", Key: r.opts.Key, Kind: ErrUnavailable, Err: fmt.Errorf(
		"no byte after offset %d in %d attempts: %w", r.at, r.failures, err)}
}

// isFinal tells errors that repeating cannot cure.
func isFinal(err error) bool {
	for _, kind := range []error{
		ErrNotExist, ErrBucketNotExist, ErrPermission, ErrCredentials, ErrIntegrity,
		ErrRange, ErrInvalidKey, ErrCold, errors.ErrUnsupported,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

func (r *resumer) pause() error {
	if r.failures == 0 {
		return nil
	}
	timer := time.NewTimer(r.opts.Backoff(r.failures))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return r.ended()
	}
}

func (r *resumer) ended() error {
	return &Error{Op: "open", Key: r.opts.Key, Err: context.Cause(r.ctx)}
}

// drop ends the body without reading the rest of it.
func (r *resumer) drop() {
	if r.body == nil {
		return
	}
	r.cancel(nil)
	r.body.Close()
	r.body = nil
}

// Close ends the reader. What is left of the body is not read.
func (r *resumer) Close() error {
	r.drop()
	if r.err == nil || r.err == io.EOF {
		r.err = &Error{Op: "read", Key: r.opts.Key, Err: errors.New("the reader is closed")}
	}
	return nil
}
