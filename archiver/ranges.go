package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// rangeOpener reads stretches of the plain dump, in whatever way it is stored.
type rangeOpener interface {
	// openRange delivers length bytes from offset on, with length 0 all of them;
	// fewer are no error here.
	openRange(ctx context.Context, offset, length int64) (io.ReadCloser, error)
}

// storedDump is a dump that is stored as it is.
type storedDump struct {
	bucket       storage.Bucket
	key, version string
}

func (d storedDump) openRange(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	body, err := d.bucket.Open(ctx, d.key, storage.OpenOptions{Version: d.version, Offset: offset, Length: length})
	if err != nil {
		return nil, fmt.Errorf("read dump: %w", missing(d.key, err))
	}
	return body, nil
}

// checkSize compares the object's size with the manifest's.
func (d storedDump) checkSize(ctx context.Context, want int64) error {
	o, err := d.bucket.Stat(ctx, d.key, d.version)
	if err != nil {
		return fmt.Errorf("read dump: %w", missing(d.key, err))
	}
	if o.Size != want {
		return integrity("%s has %d bytes, the manifest says %d", d.key, o.Size, want)
	}
	return nil
}

// provedRange delivers neighbouring blocks of a dump, behind a verifier. The store is
// asked when the first byte is wanted, so that no connection waits for its turn.
type provedRange struct {
	open  func(offset, length int64) (io.ReadCloser, error)
	parts []pgarchive.ExpectedPart
	read  func(n int)

	body   io.ReadCloser
	proved *pgarchive.Verifier
	err    error // what ended it, other than io.EOF
}

func (r *provedRange) Read(p []byte) (int, error) {
	if r.err == nil && r.proved == nil {
		r.err = r.begin()
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.proved.Read(p)
	r.read(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *provedRange) begin() (err error) {
	first, last := r.parts[0], r.parts[len(r.parts)-1]
	r.body, err = r.open(first.Offset, last.Offset+last.Length-first.Offset)
	if err != nil {
		return err
	}
	r.proved, err = pgarchive.NewVerifier(r.body, pgarchive.Expected{Blocks: r.parts})
	return err
}

func (r *provedRange) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

// storedFault gives an error that came with the bytes of a stored object its class.
func storedFault(key string, err error) error {
	switch {
	case errors.Is(err, ErrIntegrity):
		return err
	case errors.Is(err, pgarchive.ErrMismatch), errors.Is(err, storage.ErrIntegrity),
		errors.Is(err, storage.ErrNotExist), errors.Is(err, storage.ErrRange):
		return integrity("%s: %w", key, err)
	}
	return err
}
