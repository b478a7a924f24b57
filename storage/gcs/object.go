package gcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	gcloud "cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"

	"github.com/pgstow/pgstow/storage"
)

func asAPI(err error, api **googleapi.Error) bool { return errors.As(err, api) }

// version gives the handle of one generation, or of the newest for "". A
// version that is no generation cannot exist.
func (b *Bucket) version(op, key, version string) (*gcloud.ObjectHandle, error) {
	if err := checkKey(op, key); err != nil {
		return nil, err
	}
	o := b.handle.Object(key)
	if version == "" {
		return o, nil
	}
	generation, err := strconv.ParseInt(version, 10, 64)
	if err != nil || generation <= 0 {
		return nil, &storage.Error{Op: op, Key: key, Kind: storage.ErrNotExist, Err: fmt.Errorf("%q is no generation", version)}
	}
	return o.Generation(generation), nil
}

// Stat describes one generation of key.
func (b *Bucket) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	o, err := b.version("stat", key, version)
	if err != nil {
		return storage.Object{}, err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	a, err := o.Attrs(ctx)
	if err != nil {
		return storage.Object{}, b.fail(ctx, "stat", key, err)
	}
	return b.object(a), nil
}

// object translates an object resource, with what its bucket does for it. All
// of it comes with storage.objects.get: nothing is denied by itself.
func (b *Bucket) object(a *gcloud.ObjectAttrs) storage.Object {
	o := toObject(a)
	o.Retention = effective(o.Retention, b.bucketRetention(a), time.Now())
	return o
}

// toObject translates an object resource. An event-based hold holds as a
// temporary one does, although SetLegalHold does not release it.
func toObject(a *gcloud.ObjectAttrs) storage.Object {
	o := storage.Object{
		Key: a.Name, Version: strconv.FormatInt(a.Generation, 10), Size: a.Size, Created: a.Created.UTC(),
		Latest: a.Deleted.IsZero(), ETag: a.Etag, Checksum: storage.Checksum{Algorithm: "CRC32C", Value: crcText(a.CRC32C)},
		ContentType: a.ContentType, StorageClass: a.StorageClass, LegalHold: a.TemporaryHold || a.EventBasedHold,
		Retention: ownRetention(a),
	}
	if a.KMSKeyName != "" {
		o.Encryption = storage.Encryption{Mode: storage.EncryptionKMS, Key: a.KMSKeyName}
	}
	if !a.CustomTime.IsZero() {
		o.CustomTime = a.CustomTime.UTC()
	}
	for k, v := range a.Metadata {
		tag, isTag := strings.CutPrefix(k, tagPrefix)
		switch {
		case k == tokenKey:
		case isTag:
			if o.Tags == nil {
				o.Tags = map[string]string{}
			}
			o.Tags[tag] = v
		default:
			if o.Metadata == nil {
				o.Metadata = map[string]string{}
			}
			o.Metadata[k] = v
		}
	}
	return o
}

// List yields objects in the order of their keys.
func (b *Bucket) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		query := &gcloud.Query{Prefix: opts.Prefix, StartOffset: opts.StartAfter, Versions: opts.Versions, Projection: gcloud.ProjectionNoACL}
		// Fields of this list only shorten the answer; their names are fixed.
		if err := query.SetAttrSelection([]string{"Name", "Generation", "Size", "Created", "Deleted", "Etag", "CRC32C", "ContentType", "StorageClass"}); err != nil {
			yield(storage.Object{}, &storage.Error{Op: "list", Err: err})
			return
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		it := b.handle.Objects(ctx, query)
		var group []storage.Object // versions of one key, oldest first
		flush := func() bool {
			for _, o := range slices.Backward(group) {
				if !yield(o, nil) {
					return false
				}
			}
			group = group[:0]
			return true
		}
		for {
			a, err := b.next(it, cancel)
			if err == iterator.Done {
				flush()
				return
			}
			if err != nil {
				if flush() {
					yield(storage.Object{}, b.fail(ctx, "list", "", err))
				}
				return
			}
			if a.Name <= opts.StartAfter && opts.StartAfter != "" {
				continue // startOffset includes its own key
			}
			o := toObject(a)
			o.Metadata, o.Tags, o.Retention, o.LegalHold, o.CustomTime = nil, nil, storage.Retention{}, false, time.Time{}
			if len(group) > 0 && group[0].Key != o.Key && !flush() {
				return
			}
			group = append(group, o)
		}
	}
}

// next bounds the time one page may take, but not the whole listing.
func (b *Bucket) next(it *gcloud.ObjectIterator, cancel context.CancelCauseFunc) (*gcloud.ObjectAttrs, error) {
	if it.PageInfo().Remaining() == 0 {
		timer := time.AfterFunc(b.cfg.MetadataTimeout, func() { cancel(errNoAnswer{b.cfg.MetadataTimeout}) })
		defer timer.Stop()
	}
	return it.Next()
}

// Delete removes one generation for good, or the live one.
func (b *Bucket) Delete(ctx context.Context, key, version string) error {
	o, err := b.version("delete", key, version)
	if err != nil {
		if errors.Is(err, storage.ErrNotExist) {
			return nil
		}
		return err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	err = o.Delete(ctx)
	if errors.Is(err, gcloud.ErrObjectNotExist) && !errors.Is(b.fail(ctx, "delete", key, err), storage.ErrBucketNotExist) {
		return nil
	}
	return b.fail(ctx, "delete", key, err)
}

// Open reads from key, pinned to the generation that is found first.
func (b *Bucket) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	o, err := b.version("open", key, opts.Version)
	if err != nil {
		return nil, err
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return nil, &storage.Error{Op: "open", Key: key, Err: fmt.Errorf("offset %d and length %d: neither may be negative", opts.Offset, opts.Length)}
	}
	if ctx.Err() != nil {
		return nil, &storage.Error{Op: "open", Key: key, Err: context.Cause(ctx)}
	}
	// What is stored is wanted: Cloud Storage unpacks objects of other programs that carry
	// Content-Encoding: gzip on their way, and then knows neither lengths nor ranges.
	o = o.ReadCompressed(true)
	pinned := false
	end := opts.Offset + opts.Length
	return storage.Resume(ctx, storage.ResumeOptions{
		Key: key, Offset: opts.Offset,
		Open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			length := int64(-1)
			if opts.Length > 0 {
				length = end - offset
			}
			r, err := b.openRange(ctx, o, offset, length)
			if err != nil {
				return b.openFailed(ctx, key, offset, pinned, err)
			}
			if !pinned {
				pinned = true
				o = b.handle.Object(key).Generation(r.Attrs.Generation).ReadCompressed(true)
			}
			return &body{ctx: ctx, b: b, key: key, r: r}, r.Remain(), nil
		},
	})
}

// openRange starts one body. The time until it begins is bounded, unlike the
// body itself, whose silence storage.Resume watches.
func (b *Bucket) openRange(ctx context.Context, o *gcloud.ObjectHandle, offset, length int64) (*gcloud.Reader, error) {
	starting, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(b.cfg.MetadataTimeout, func() { cancel(errNoAnswer{b.cfg.MetadataTimeout}) })
	r, err := o.NewRangeReader(starting, offset, length)
	if !timer.Stop() && err == nil {
		r.Close()
		err = errNoAnswer{b.cfg.MetadataTimeout}
	}
	if err != nil {
		if cause, ok := context.Cause(starting).(errNoAnswer); ok { //nolint:errorlint // set by us
			err = fmt.Errorf("%w: %w", context.DeadlineExceeded, cause)
		}
		cancel(nil)
		return nil, err
	}
	// The body lives on under ctx, which Resume ends with it.
	context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	return r, nil
}

// openFailed is the error of a body that could not be opened.
func (b *Bucket) openFailed(ctx context.Context, key string, offset int64, pinned bool, err error) (io.ReadCloser, int64, error) {
	var api *googleapi.Error
	// No range fits an empty object; from its start there is nothing to read.
	if errors.As(err, &api) && api.Code == http.StatusRequestedRangeNotSatisfiable && offset == 0 {
		return http.NoBody, 0, nil
	}
	err = b.fail(ctx, "open", key, err)
	if pinned {
		err = vanished(key, err)
	}
	return nil, 0, err
}

// vanished makes an object that is gone in the middle of its reading what it
// is: content that differs from what was opened.
func vanished(key string, err error) error {
	if !errors.Is(err, storage.ErrNotExist) {
		return err
	}
	return &storage.Error{Op: "open", Key: key, Kind: storage.ErrIntegrity,
		Err: errors.New("the generation that was opened is gone")}
}

// body maps the errors of one response.
type body struct {
	ctx context.Context //nolint:containedctx // the reader's own, as storage.Bucket.Open has it
	b   *Bucket
	key string
	r   *gcloud.Reader
}

func (r *body) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err == nil || err == io.EOF { //nolint:errorlint // the client's own end
		return n, err
	}
	// The client has tried to continue by itself.
	return n, vanished(r.key, r.b.fail(r.ctx, "open", r.key, err))
}

func (r *body) Close() error { return r.r.Close() }
