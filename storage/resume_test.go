package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

const text = "whole or absent, and the whole of it in its order"

// server plays an object behind bodies that break as a script says.
type server struct {
	t       *testing.T
	end     int // the object's length
	bodies  []func(ctx context.Context, rest string) (io.Reader, error)
	offsets []int64
	ended   int // bodies whose context was over when they were closed
	read    int64
	closed  int
}

type serverBody struct {
	s   *server
	ctx context.Context
	r   io.Reader
}

func (b *serverBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.s.read += int64(n)
	return n, err
}

func (b *serverBody) Close() error {
	b.s.closed++
	if b.ctx.Err() != nil {
		b.s.ended++
	}
	return nil
}

// open takes the next body of the script; the last one stays.
func (s *server) open(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
	s.offsets = append(s.offsets, offset)
	next := s.bodies[0]
	if len(s.bodies) > 1 {
		s.bodies = s.bodies[1:]
	}
	r, err := next(ctx, text[offset:s.end])
	if err != nil {
		return nil, 0, err
	}
	return &serverBody{s, ctx, r}, int64(s.end) - offset, nil
}

func (s *server) resume(ctx context.Context) (io.ReadCloser, error) {
	return Resume(ctx, ResumeOptions{Open: s.open, Key: "k", Attempts: 4})
}

func after(n int, err error) func(context.Context, string) (io.Reader, error) {
	return func(_ context.Context, rest string) (io.Reader, error) {
		return io.MultiReader(strings.NewReader(rest[:min(n, len(rest))]), iotest.ErrReader(err)), nil
	}
}

func refuse(err error) func(context.Context, string) (io.Reader, error) {
	return func(context.Context, string) (io.Reader, error) { return nil, err }
}

func rest(_ context.Context, rest string) (io.Reader, error) { return strings.NewReader(rest), nil }

func silent(ctx context.Context, rest string) (io.Reader, error) {
	return io.MultiReader(strings.NewReader(rest[:3]), readerFunc(func([]byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})), nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

var errReset = errors.New("connection reset")

func TestResume(t *testing.T) {
	type bodies = []func(context.Context, string) (io.Reader, error)
	integrity := &Error{Op: "open", Key: "k", Kind: ErrIntegrity, Err: errors.New("replaced")}
	for name, c := range map[string]struct {
		bodies bodies
		err    []error // nil when all of it is read
		opens  int
	}{
		"unbroken":                   {bodies{rest}, nil, 1},
		"an error":                   {bodies{after(5, errReset), rest}, nil, 2},
		"an early end":               {bodies{after(5, io.EOF), rest}, nil, 2},
		"a byte at a time":           {bodies{after(1, errReset)}, nil, len(text)},
		"an error behind the end":    {bodies{after(1000, errReset)}, nil, 1},
		"refused, then there":        {bodies{after(5, errReset), refuse(errReset), refuse(errReset), rest}, nil, 4},
		"silence":                    {bodies{silent, rest}, nil, 2},
		"no new byte any more":       {bodies{after(5, errReset), after(0, errReset)}, []error{ErrUnavailable, errReset}, 4},
		"never opened again":         {bodies{after(5, errReset), refuse(errReset)}, []error{ErrUnavailable, errReset}, 4},
		"gone":                       {bodies{after(5, errReset), refuse(&Error{Kind: ErrNotExist})}, []error{ErrNotExist}, 2},
		"denied":                     {bodies{after(5, errReset), refuse(ErrPermission)}, []error{ErrPermission}, 2},
		"replaced":                   {bodies{after(5, errReset), refuse(integrity)}, []error{ErrIntegrity}, 2},
		"wrong checksum":             {bodies{after(1000, integrity)}, []error{ErrIntegrity}, 1},
		"integrity in mid-body":      {bodies{after(5, integrity), rest}, []error{ErrIntegrity}, 1},
		"silence to the bitter end":  {bodies{after(5, errReset), refuse(context.DeadlineExceeded)}, []error{ErrUnavailable}, 4},
		"more than it had announced": {bodies{func(_ context.Context, rest string) (io.Reader, error) { return strings.NewReader(rest + "!"), nil }}, []error{ErrIntegrity}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{t: t, end: len(text), bodies: c.bodies}
				r, err := s.resume(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if c.err == nil && (err != nil || string(got) != text) {
					t.Errorf("read %q, %v", got, err)
				}
				if !strings.HasPrefix(text, string(got)) {
					t.Errorf("read something else: %q", got)
				}
				for _, kind := range c.err {
					if !errors.Is(err, kind) {
						t.Errorf("error %v, expected %v", err, kind)
					}
				}
				if errors.Is(err, context.Canceled) {
					t.Errorf("nobody cancelled: %v", err)
				}
				if len(s.offsets) != c.opens {
					t.Errorf("opened at %v, expected %d times", s.offsets, c.opens)
				}
				if _, again := r.Read(make([]byte, 1)); again == nil {
					t.Error("a Read after the end gives no error")
				}
				r.Close()
				if s.ended != s.closed {
					t.Errorf("%d of %d bodies were closed before their context ended: they may be drained", s.closed-s.ended, s.closed)
				}
			})
		})
	}
}

// TestResumeChangedLength: another length from the same offset is another object.
func TestResumeChangedLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{t: t, end: len(text), bodies: []func(context.Context, string) (io.Reader, error){after(5, errReset), rest}}
		r, err := s.resume(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		s.end -= 3
		got, err := io.ReadAll(r)
		if !errors.Is(err, ErrIntegrity) || string(got) != text[:5] {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

func TestResumeFirstOpenFails(t *testing.T) {
	want := &Error{Op: "open", Key: "k", Kind: ErrNotExist}
	s := &server{t: t, bodies: []func(context.Context, string) (io.Reader, error){refuse(want)}}
	if _, err := s.resume(t.Context()); err != error(want) || len(s.offsets) != 1 {
		t.Errorf("error %v after %d opens", err, len(s.offsets))
	}
}

// TestResumeCancelled: the context ends the pause between two attempts, and
// its cause comes back.
func TestResumeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		s := &server{t: t, end: len(text), bodies: []func(context.Context, string) (io.Reader, error){after(5, errReset)}}
		r, err := Resume(ctx, ResumeOptions{Open: s.open, Key: "k", Backoff: func(int) time.Duration { return time.Hour }})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		time.AfterFunc(time.Minute, func() { cancel(cause) })
		got, err := io.ReadAll(r)
		if !errors.Is(err, cause) || string(got) != text[:5] || time.Since(start) != time.Minute {
			t.Errorf("read %q, %v after %s", got, err, time.Since(start))
		}
		if _, err := Resume(ctx, ResumeOptions{Open: s.open, Key: "k"}); !errors.Is(err, cause) {
			t.Errorf("Resume under a cancelled context: %v", err)
		}
		r.Close()
	})
}

// TestResumeEarlyClose: the rest of the body is not read.
func TestResumeEarlyClose(t *testing.T) {
	s := &server{t: t, end: len(text), bodies: []func(context.Context, string) (io.Reader, error){rest}}
	r, err := s.resume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	r.Close()
	if s.read != 7 || s.closed != 1 || s.ended != 1 {
		t.Errorf("%d bytes were read, %d bodies closed, %d after their context", s.read, s.closed, s.ended)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("Read after Close: %v", err)
	}
}

// TestResumeSlowConsumer: time between two reads is no silence of the store.
func TestResumeSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{t: t, end: len(text), bodies: []func(context.Context, string) (io.Reader, error){rest}}
		r, err := s.resume(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var got bytes.Buffer
		for {
			p := make([]byte, 10)
			n, err := r.Read(p)
			got.Write(p[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(24 * time.Hour)
		}
		if got.String() != text || len(s.offsets) != 1 {
			t.Errorf("read %q in %d bodies", got.String(), len(s.offsets))
		}
	})
}

// TestResumeIteratively runs the reader through the standard library's checks.
func TestResumeReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{t: t, end: len(text), bodies: []func(context.Context, string) (io.Reader, error){after(11, errReset)}}
		r, err := s.resume(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := iotest.TestReader(r, []byte(text)); err != nil {
			t.Error(err)
		}
	})
}

func TestResumeBackoff(t *testing.T) {
	for n := 1; n <= 40; n++ {
		full := min(250*time.Millisecond<<min(n-1, 10), 15*time.Second)
		for range 50 {
			if got := resumeBackoff(n); got < full/2 || got > full {
				t.Fatalf("pause %d is %s, expected half of %s to all of it", n, got, full)
			}
		}
	}
}
