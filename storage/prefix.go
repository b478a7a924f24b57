package storage

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// Prefixed is the part of b whose keys start with prefix, as a bucket of its
// own: keys in arguments, results and errors are relative to it. A prefix ends
// in "/", a missing one is added; the empty prefix gives b itself. Closing it
// closes b. The optional interfaces work as far as b has them and answer
// errors.ErrUnsupported otherwise.
func Prefixed(b Bucket, prefix string) Bucket {
	if prefix == "" {
		return b
	}
	if !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	return &prefixed{inner: b, prefix: prefix}
}

type prefixed struct {
	inner  Bucket
	prefix string
}

var (
	_ UploadSweeper    = (*prefixed)(nil)
	_ RetentionSetter  = (*prefixed)(nil)
	_ CustomTimeSetter = (*prefixed)(nil)
	_ Thawer           = (*prefixed)(nil)
	_ BatchDeleter     = (*prefixed)(nil)
	_ LifecycleManager = (*prefixed)(nil)
)

// full checks the relative key first, so that the message shows what the
// caller gave.
func (p *prefixed) full(op, key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", &Error{Op: op, Key: key, Kind: ErrInvalidKey, Err: err}
	}
	return p.prefix + key, nil
}

// relative makes an error name the key that the caller knows.
func (p *prefixed) relative(err error) error {
	e, ok := err.(*Error) //nolint:errorlint // only the outermost error names the caller's key
	if !ok {
		return err
	}
	key, ok := strings.CutPrefix(e.Key, p.prefix)
	if !ok {
		return err
	}
	changed := *e
	changed.Key = key
	return &changed
}

func (p *prefixed) Put(ctx context.Context, key string, r io.Reader, opts PutOptions) (Object, error) {
	full, err := p.full("put", key)
	if err != nil {
		return Object{}, err
	}
	return p.object(p.inner.Put(ctx, full, r, opts))
}

func (p *prefixed) Open(ctx context.Context, key string, opts OpenOptions) (io.ReadCloser, error) {
	full, err := p.full("open", key)
	if err != nil {
		return nil, err
	}
	body, err := p.inner.Open(ctx, full, opts)
	if err != nil {
		return nil, p.relative(err)
	}
	return &prefixedBody{ReadCloser: body, p: p}, nil
}

func (p *prefixed) Stat(ctx context.Context, key, version string) (Object, error) {
	full, err := p.full("stat", key)
	if err != nil {
		return Object{}, err
	}
	return p.object(p.inner.Stat(ctx, full, version))
}

func (p *prefixed) object(o Object, err error) (Object, error) {
	o.Key = strings.TrimPrefix(o.Key, p.prefix)
	return o, p.relative(err)
}

func (p *prefixed) List(ctx context.Context, opts ListOptions) iter.Seq2[Object, error] {
	opts.Prefix = p.prefix + opts.Prefix
	if opts.StartAfter != "" {
		opts.StartAfter = p.prefix + opts.StartAfter
	}
	return func(yield func(Object, error) bool) {
		for o, err := range p.inner.List(ctx, opts) {
			if err == nil && !strings.HasPrefix(o.Key, p.prefix) {
				err = fmt.Errorf("list: the store answered %q, asked for %q", o.Key, opts.Prefix)
			}
			if err != nil {
				yield(Object{}, p.relative(err))
				return
			}
			o.Key = strings.TrimPrefix(o.Key, p.prefix)
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (p *prefixed) Delete(ctx context.Context, key, version string) error {
	full, err := p.full("delete", key)
	if err != nil {
		return err
	}
	return p.relative(p.inner.Delete(ctx, full, version))
}

func (p *prefixed) Capabilities() Capabilities { return p.inner.Capabilities() }

func (p *prefixed) Close() error { return p.inner.Close() }

func (p *prefixed) Uploads(ctx context.Context, prefix string) iter.Seq2[Upload, error] {
	return func(yield func(Upload, error) bool) {
		for u, err := range Uploads(ctx, p.inner, p.prefix+prefix) {
			u.Key = strings.TrimPrefix(u.Key, p.prefix)
			if !yield(u, p.relative(err)) || err != nil {
				return
			}
		}
	}
}

func (p *prefixed) AbortUpload(ctx context.Context, u Upload) error {
	u.Key = p.prefix + u.Key
	return p.relative(AbortUpload(ctx, p.inner, u))
}

func (p *prefixed) SetRetention(ctx context.Context, key, version string, r Retention) error {
	full, err := p.full("retain", key)
	if err != nil {
		return err
	}
	return p.relative(SetRetention(ctx, p.inner, full, version, r))
}

func (p *prefixed) SetLegalHold(ctx context.Context, key, version string, on bool) error {
	full, err := p.full("hold", key)
	if err != nil {
		return err
	}
	return p.relative(SetLegalHold(ctx, p.inner, full, version, on))
}

func (p *prefixed) SetCustomTime(ctx context.Context, key, version string, at time.Time) error {
	full, err := p.full("set custom time", key)
	if err != nil {
		return err
	}
	return p.relative(SetCustomTime(ctx, p.inner, full, version, at))
}

func (p *prefixed) Thaw(ctx context.Context, key, version string, opts ThawOptions) error {
	full, err := p.full("thaw", key)
	if err != nil {
		return err
	}
	return p.relative(StartThaw(ctx, p.inner, full, version, opts))
}

func (p *prefixed) LifecycleFeatures() (LifecycleFeatures, bool) { return LifecycleFeaturesOf(p.inner) }

// Lifecycle is that of the whole bucket, with the prefix beside it: its rules
// are neither filtered nor rewritten.
func (p *prefixed) Lifecycle(ctx context.Context) (Lifecycle, error) {
	l, err := ReadLifecycle(ctx, p.inner)
	l.Prefix += p.prefix
	return l, err
}

func (p *prefixed) SetLifecycle(ctx context.Context, l Lifecycle) error {
	return WriteLifecycle(ctx, p.inner, l)
}

// prefixedBody makes errors in mid-body relative too.
type prefixedBody struct {
	io.ReadCloser
	p *prefixed
}

func (b *prefixedBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	return n, b.p.relative(err)
}
