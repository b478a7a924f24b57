package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/pgstow/pgstow/storage"
)

// Open reads from key. The first body pins version and ETag for those that
// continue it.
func (b *Bucket) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if err := storage.CheckKey(key); err != nil {
		return nil, &storage.Error{Op: "open", Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return nil, &storage.Error{Op: "open", Key: key, Err: errors.New("negative offset or length")}
	}
	o := &opener{b: b, key: key, version: opts.Version, end: -1}
	if opts.Length > 0 {
		o.end = opts.Offset + opts.Length
	}
	return storage.Resume(ctx, storage.ResumeOptions{
		Open: o.open, Offset: opts.Offset, Key: key,
		Attempts: b.cfg.readAttempts, Backoff: b.cfg.readBackoff, Idle: b.cfg.IdleTimeout,
	})
}

// opener starts the bodies of one reader.
type opener struct {
	b       *Bucket
	key     string
	version string
	etag    string // set by the first body
	end     int64  // first byte not read, -1 for the object's end
}

func (o *opener) raw(ctx context.Context, offset int64) (out *s3.GetObjectOutput, asked string, err error) {
	in := &s3.GetObjectInput{Bucket: &o.b.cfg.Bucket, Key: &o.key, VersionId: optional(o.version), IfMatch: optional(o.etag)}
	if offset > 0 || o.end >= 0 {
		last := ""
		if o.end >= 0 {
			last = strconv.FormatInt(o.end-1, 10)
		}
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%s", offset, last))
	}
	out, err = o.b.client.GetObject(ctx, in)
	return out, aws.ToString(in.Range), err
}

func (o *opener) open(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
	out, asked, err := o.raw(ctx, offset)
	if err != nil {
		return o.failed(ctx, offset, err)
	}
	if o.etag == "" {
		o.etag = aws.ToString(out.ETag)
		if v := o.b.version(out.VersionId); v != "" {
			o.version = v
		}
	}
	// A store that ignores Range would deliver the wrong bytes.
	if asked != "" && !strings.HasPrefix(aws.ToString(out.ContentRange), fmt.Sprintf("bytes %d-", offset)) {
		out.Body.Close()
		return nil, 0, &storage.Error{Op: "open", Key: o.key, Kind: storage.ErrIntegrity,
			Err: fmt.Errorf("asked for %s the store sends %q", asked, aws.ToString(out.ContentRange))}
	}
	return out.Body, aws.ToInt64(out.ContentLength), nil
}

func (o *opener) failed(ctx context.Context, offset int64, err error) (io.ReadCloser, int64, error) {
	switch {
	case errorCode(err) == "InvalidObjectState":
		return nil, 0, o.b.cold(o.key, o.version, err)
	case errorCode(err) == "PreconditionFailed", o.etag != "" && kindOf(err) == storage.ErrNotExist:
		return nil, 0, &storage.Error{Op: "open", Key: o.key, Kind: storage.ErrIntegrity, Err: &textError{
			text: fmt.Sprintf("the object was replaced or removed while it was read (at offset %d)", offset), err: err}}
	case kindOf(err) == storage.ErrRange && offset == 0 && o.isEmpty(ctx):
		// S3 refuses every range of an empty object.
		return io.NopCloser(strings.NewReader("")), 0, nil
	}
	return nil, 0, wrap(ctx, "open", o.key, err)
}

func (o *opener) isEmpty(ctx context.Context) bool {
	head, err := o.b.head(ctx, o.key, o.version)
	return err == nil && head.Size == 0
}
