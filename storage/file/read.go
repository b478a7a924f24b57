package file

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/pgstow/pgstow/storage"
)

// Open implements storage.Bucket. The open file stays what it is when the
// object is deleted or replaced meanwhile.
func (b *Bucket) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if err := ended(ctx, "open", key); err != nil {
		return nil, err
	}
	if _, err := b.lookup("open", key, opts.Version); err != nil {
		return nil, err
	}
	f, err := b.root.Open(key)
	if missing(err) {
		return nil, &storage.Error{Op: "open", Key: key, Kind: storage.ErrNotExist, Err: plain(err)}
	}
	if err != nil {
		return nil, failure("open", key, err)
	}
	body, err := newBody(ctx, key, f, opts)
	if err != nil {
		f.Close()
		return nil, err
	}
	return body, nil
}

func newBody(ctx context.Context, key string, f *os.File, opts storage.OpenOptions) (*body, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, failure("open", key, err)
	}
	size := info.Size()
	if opts.Offset < 0 || opts.Length < 0 || opts.Offset > 0 && opts.Offset >= size {
		return nil, &storage.Error{Op: "open", Key: key, Kind: storage.ErrRange,
			Err: fmt.Errorf("offset %d, length %d, and the object has %d bytes", opts.Offset, opts.Length, size)}
	}
	left := size - opts.Offset
	if opts.Length > 0 {
		left = min(left, opts.Length)
	}
	if _, err := f.Seek(opts.Offset, io.SeekStart); err != nil {
		return nil, failure("open", key, err)
	}
	return &body{ctx: ctx, key: key, f: f, left: left}, nil
}

// body reads a range of an open file. The contract of Open gives it the
// context for its whole life.
type body struct {
	ctx  context.Context
	key  string
	f    *os.File
	left int64
}

func (b *body) Read(p []byte) (int, error) {
	if err := ended(b.ctx, "open", b.key); err != nil {
		return 0, err
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	if b.left == 0 && b.f != nil {
		return 0, io.EOF
	}
	if b.f == nil {
		return 0, &storage.Error{Op: "open", Key: b.key, Err: os.ErrClosed}
	}
	n, err := b.f.Read(p)
	b.left -= int64(n)
	switch {
	case err == io.EOF:
		return n, &storage.Error{Op: "open", Key: b.key, Kind: storage.ErrIntegrity,
			Err: fmt.Errorf("the file became %d bytes shorter while it was read", b.left)}
	case err != nil:
		return n, failure("open", b.key, err)
	}
	return n, nil
}

func (b *body) Close() error {
	if b.f == nil {
		return nil
	}
	err := b.f.Close()
	b.f = nil
	if err != nil {
		return failure("open", b.key, err)
	}
	return nil
}
