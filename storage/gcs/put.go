package gcs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	gcloud "cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"

	"github.com/pgstow/pgstow/storage"
)

const (
	// tokenKey is the metadata that tells our upload from another's when the
	// reply to its completion is lost.
	tokenKey = "pgstow-upload"
	// tagPrefix starts the metadata keys of tags.
	tagPrefix = "tag-"
	// cleanupTime bounds all that is asked and undone after a Put was
	// cancelled: somebody is waiting for it to end.
	cleanupTime = 3 * time.Second
	// lingerTime is how much longer than its Put the start of a session, or a
	// single request, may take.
	lingerTime = 2 * time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// upload is one Put.
type upload struct {
	b      *Bucket
	key    string
	opts   storage.PutOptions
	token  string
	flight *flight
	size   int64  // bytes taken from the source
	crc    uint32 // over them
}

// Put creates key from r's bytes. See the package comment for when which
// request is sent.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if err := b.checkPut(ctx, key, opts); err != nil {
		return storage.Object{}, err
	}
	u := &upload{b: b, key: key, opts: opts, token: rand.Text(), flight: newFlight(opts.Progress)}
	defer u.flight.finished()
	// A small object goes in one request, which is itself the first to refuse.
	if opts.Size == 0 || opts.Size >= int64(b.cfg.ChunkSize) {
		if err := u.rehearse(ctx); err != nil {
			return storage.Object{}, err
		}
	}
	return u.run(ctx, r)
}

// checkPut refuses what this bucket cannot do before anything is sent or read.
func (b *Bucket) checkPut(ctx context.Context, key string, opts storage.PutOptions) error {
	if err := checkKey("put", key); err != nil {
		return err
	}
	unsupported := func(format string, args ...any) error {
		return &storage.Error{Op: "put", Key: key, Kind: errors.ErrUnsupported, Err: fmt.Errorf(format, args...)}
	}
	if opts.Head != nil {
		return unsupported("the store takes objects from their first byte on only")
	}
	if !opts.Retention.IsZero() {
		if _, ok := retentionModes[opts.Retention.Mode]; !ok {
			return unsupported("retention mode %q", opts.Retention.Mode)
		}
		if b.retentionKnown && !b.caps.ObjectLock {
			return unsupported("%s", b.retentionRemedy())
		}
	}
	if err := storage.CheckTags(opts.Tags); err != nil {
		return unsupported("%w", err)
	}
	switch e := opts.Encryption; {
	case e.IsZero() || e.Mode == storage.EncryptionKMS && e.Key != "":
	case e.Mode == storage.EncryptionStore:
		return unsupported("Cloud Storage encrypts every object with keys of its own and cannot be asked to; leave --sse out, or name a key with --sse kms:KEY")
	case e.Mode == storage.EncryptionKMS:
		return unsupported("Cloud Storage has no default KMS key; name one with --sse kms:projects/P/locations/L/keyRings/R/cryptoKeys/K, or leave --sse out")
	default:
		return unsupported("unknown encryption mode %q", e.Mode)
	}
	for name := range opts.Metadata {
		if name == tokenKey || strings.HasPrefix(name, tagPrefix) {
			return unsupported("the metadata key %q is pgstow's own", name)
		}
	}
	if opts.Size < 0 || opts.Size > maxObject {
		return unsupported("an object of %d bytes; the store takes up to %d", opts.Size, int64(maxObject))
	}
	if ctx.Err() != nil {
		return &storage.Error{Op: "put", Key: key, Err: context.Cause(ctx)}
	}
	return nil
}

// checkKey adds to the common rules those of
// https://cloud.google.com/storage/docs/objects#naming.
func checkKey(op, key string) error {
	err := storage.CheckKey(key)
	switch {
	case err != nil:
	case strings.ContainsAny(key, "\r\n"):
		err = fmt.Errorf("%w: %q holds a line break", storage.ErrInvalidKey, key)
	case strings.HasPrefix(key, ".well-known/acme-challenge/"):
		err = fmt.Errorf("%w: %q is reserved by the store", storage.ErrInvalidKey, key)
	default:
		return nil
	}
	return &storage.Error{Op: op, Key: key, Kind: storage.ErrInvalidKey, Err: err}
}

// attrs is what the creating request says about the object.
func (u *upload) attrs() gcloud.ObjectAttrs {
	o := u.opts
	a := gcloud.ObjectAttrs{
		Bucket: u.b.cfg.Bucket, Name: u.key, ContentType: o.ContentType, StorageClass: o.StorageClass,
		TemporaryHold: o.LegalHold, CustomTime: o.CustomTime, Metadata: map[string]string{tokenKey: u.token},
		KMSKeyName: o.Encryption.Key,
	}
	if a.ContentType == "" {
		a.ContentType = "application/octet-stream" // else the client guesses
	}
	for k, v := range o.Metadata {
		a.Metadata[k] = v
	}
	for k, v := range o.Tags {
		a.Metadata[tagPrefix+k] = v
	}
	if !o.Retention.IsZero() {
		a.Retention = &gcloud.ObjectRetention{Mode: retentionModes[o.Retention.Mode], RetainUntil: o.Retention.Until.UTC()}
	}
	return a
}

// rehearse opens a session as the upload will, and cancels it: what the store
// would refuse it refuses now. It needs no more rights than the upload.
// https://cloud.google.com/storage/docs/performing-resumable-uploads
func (u *upload) rehearse(ctx context.Context) error {
	u.flight.opening(true)
	defer u.flight.opening(false)
	ctx, cancel := u.b.bounded(ctx)
	defer cancel()
	a := u.attrs()
	resource := map[string]any{"name": a.Name, "contentType": a.ContentType, "metadata": a.Metadata}
	if a.StorageClass != "" {
		resource["storageClass"] = a.StorageClass
	}
	if a.TemporaryHold {
		resource["temporaryHold"] = true
	}
	if !a.CustomTime.IsZero() {
		resource["customTime"] = a.CustomTime.UTC().Format(time.RFC3339Nano)
	}
	if a.Retention != nil {
		resource["retention"] = map[string]any{"mode": a.Retention.Mode, "retainUntilTime": a.Retention.RetainUntil.Format(time.RFC3339)}
	}
	body, err := json.Marshal(resource)
	if err != nil {
		return &storage.Error{Op: "put", Key: u.key, Err: err}
	}
	q := url.Values{"uploadType": {"resumable"}, "name": {u.key}, "ifGenerationMatch": {"0"}}
	if a.KMSKeyName != "" {
		q.Set("kmsKeyName", a.KMSKeyName)
	}
	start := u.b.cfg.Endpoint + "/upload/storage/v1/b/" + url.PathEscape(u.b.cfg.Bucket) + "/o?" + q.Encode()
	rehearsal := newFlight(nil)
	_, err = u.b.call(rehearsal.attach(ctx), http.MethodPost, start, body, http.Header{
		"Content-Type": {"application/json; charset=UTF-8"}, "X-Upload-Content-Type": {a.ContentType},
	})
	if session, _ := rehearsal.state(); session != "" {
		fresh, cancel := u.cleanup(ctx)
		defer cancel()
		if _, cerr := u.b.cancelSession(fresh, session); cerr != nil {
			u.b.cfg.Log.Debug("rehearsed session left to expire", "key", u.key, "error", describe(cerr))
		}
	}
	return u.b.failPut(ctx, u.key, u.opts, err)
}

// cleanup gives what follows a failure a context of its own.
func (u *upload) cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := u.b.cfg.MetadataTimeout
	if ctx.Err() != nil {
		limit = min(limit, cleanupTime)
	}
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil {
		limit = min(limit, time.Until(deadline)) // that of an earlier cleanup
	}
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// run streams the source into the client's Writer and commits at its EOF.
func (u *upload) run(ctx context.Context, r io.Reader) (storage.Object, error) {
	// Cancelling this context is the only way out: Close commits.
	uploading, cancel := context.WithCancel(u.flight.attach(ctx))
	defer cancel()
	w := u.writer(uploading)
	storeErr, err := u.copy(ctx, w, r)
	if err == nil && storeErr == nil {
		if storeErr = w.Close(); storeErr == nil {
			return u.confirmed(ctx, w.Attrs())
		}
	}
	cancel()
	u.flight.abort(lingerTime + time.Second)
	if err != nil {
		err = &storage.Error{Op: "put", Key: u.key, Err: err}
	} else {
		err = u.b.failPut(ctx, u.key, u.opts, storeErr)
	}
	return u.settle(ctx, err)
}

func (u *upload) writer(ctx context.Context) *gcloud.Writer {
	b := u.b
	object := b.handle.Object(u.key).If(gcloud.Conditions{DoesNotExist: true}).Retryer(
		gcloud.WithPolicy(gcloud.RetryAlways), gcloud.WithErrorFunc(u.retryable), b.backoff())
	w := object.NewWriter(ctx)
	w.ObjectAttrs = u.attrs()
	w.ChunkSize = b.cfg.ChunkSize
	if u.opts.Size > 0 && u.opts.Size < int64(b.cfg.ChunkSize) {
		w.ChunkSize = min(w.ChunkSize, roundUp(int(u.opts.Size)+1)) // a small buffer for a small object
	}
	w.ChunkTransferTimeout = b.cfg.ChunkTimeout
	w.ChunkRetryDeadline = b.cfg.RetryBudget
	return w
}

func (b *Bucket) backoff() gcloud.RetryOption {
	return gcloud.WithBackoff(gax.Backoff{Initial: min(250*time.Millisecond, b.cfg.MaxBackoff), Max: b.cfg.MaxBackoff, Multiplier: 2})
}

// retryable decides whether the client repeats a request of the upload. Once a
// byte was confirmed, an outage of any kind is waited out.
func (u *upload) retryable(err error) bool {
	if err == nil || errors.Is(err, errGivenUp) || u.flight.stuckFor() > u.b.cfg.RetryBudget {
		return false
	}
	if gcloud.ShouldRetry(err) {
		return true
	}
	session, _ := u.flight.state()
	return session != "" && isOutage(err)
}

// isOutage is a failure of the network that may pass, such as a name server
// that cannot be reached.
func isOutage(err error) bool {
	var u *url.Error
	return errors.As(err, &u) && !isCredentials(err) && !strings.Contains(err.Error(), "x509:") &&
		!errors.Is(err, context.Canceled)
}

// copy feeds the Writer until the source's bare io.EOF. The first error is the
// store's, the second is of our side: the source's, the context's, a wrong
// size.
func (u *upload) copy(ctx context.Context, w io.Writer, r io.Reader) (store, ours error) {
	buf := make([]byte, min(int64(256<<10), max(u.opts.Size+1, 4<<10)))
	if u.opts.Size == 0 {
		buf = make([]byte, 256<<10)
	}
	for {
		n, err := r.Read(buf)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil && err != io.EOF { //nolint:errorlint // a bare EOF alone commits
			return nil, err
		}
		u.size += int64(n)
		if u.opts.Size > 0 && u.size > u.opts.Size {
			return nil, fmt.Errorf("the source has more than the %d bytes that were announced", u.opts.Size)
		}
		if n > 0 {
			u.crc = crc32.Update(u.crc, castagnoli, buf[:n])
			u.flight.took(int64(n))
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr, nil
			}
		}
		if err == nil {
			continue
		}
		if u.opts.Size > 0 && u.size < u.opts.Size {
			return nil, fmt.Errorf("the source ended after %d of the %d bytes that were announced", u.size, u.opts.Size)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, nil
	}
}

// confirmed compares what the store says it has with what was sent. An object
// that differs is removed.
func (u *upload) confirmed(ctx context.Context, a *gcloud.ObjectAttrs) (storage.Object, error) {
	var differs error
	switch {
	case a.Size != u.size:
		differs = fmt.Errorf("%d bytes were sent, the store has %d", u.size, a.Size)
	case a.CRC32C != u.crc:
		differs = fmt.Errorf("CRC32C of what was sent is %s, of what the store has %s", crcText(u.crc), crcText(a.CRC32C))
	default:
		return u.b.object(a), nil
	}
	err := &storage.Error{Op: "put", Key: u.key, Kind: storage.ErrIntegrity, Err: differs}
	ctx, cancel := u.cleanup(ctx)
	defer cancel()
	if derr := u.b.handle.Object(u.key).Generation(a.Generation).Delete(ctx); derr != nil {
		err.Err = fmt.Errorf("%w; removing generation %d failed: %s", differs, a.Generation, describe(derr))
	}
	return storage.Object{}, err
}

func crcText(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// settle ends a Put that failed with cause: the session is cancelled, and if
// the object may have been completed all the same, the store is asked.
func (u *upload) settle(ctx context.Context, cause error) (storage.Object, error) {
	session, unsure := u.flight.state()
	if session == "" && !unsure {
		return storage.Object{}, cause
	}
	if ctx.Err() != nil {
		// One budget for all that follows.
		var cancel context.CancelFunc
		ctx, cancel = u.cleanup(ctx)
		defer cancel()
	}
	if session == "" {
		// Nothing calls a single request back: it may still arrive.
		return u.askObject(ctx, cause, true)
	}
	if unsure {
		// The session tells without any right to read.
		if a, done, err := u.askSession(ctx, session); err == nil && done {
			return u.confirmed(ctx, a)
		}
	}
	gone, err := u.cancelSession(ctx, session)
	switch {
	case err == nil && gone:
		return storage.Object{}, cause
	case unsure:
		// A session that has ended takes nothing any more; one that could not
		// be cancelled may.
		return u.askObject(ctx, cause, err != nil)
	case err != nil:
		return storage.Object{}, u.remains(cause, err)
	}
	return storage.Object{}, cause
}

// remains tells of a session that could not be cancelled.
func (u *upload) remains(cause, err error) error {
	return joined(cause, &storage.UploadRemainsError{
		Key: u.key, Remedy: "the store drops it within a week", Err: errors.New(describe(err)),
	})
}

func (u *upload) cancelSession(ctx context.Context, session string) (gone bool, err error) {
	ctx, cancel := u.cleanup(ctx)
	defer cancel()
	return u.b.cancelSession(ctx, session)
}

func (u *upload) askSession(ctx context.Context, session string) (*gcloud.ObjectAttrs, bool, error) {
	ctx, cancel := u.cleanup(ctx)
	defer cancel()
	return u.b.askSession(ctx, session)
}

// joined adds a remark to the cause without hiding it.
func joined(cause, remark error) error {
	var e *storage.Error
	if !errors.As(cause, &e) {
		return fmt.Errorf("%w; %w", cause, remark)
	}
	with := *e
	if with.Err == nil {
		with.Err = with.Kind
	}
	with.Err = fmt.Errorf("%w; %w", with.Err, remark)
	return &with
}

// askObject finds out by a Stat whether the upload was completed; late says
// that it may still be, after the Stat.
func (u *upload) askObject(ctx context.Context, cause error, late bool) (storage.Object, error) {
	fresh, cancel := u.cleanup(ctx)
	defer cancel()
	a, err := u.b.handle.Object(u.key).Attrs(fresh)
	switch {
	case err == nil && a.Metadata[tokenKey] == u.token:
		return u.confirmed(ctx, a)
	case err == nil && errors.Is(cause, storage.ErrExist):
		return storage.Object{}, cause
	case err == nil:
		return storage.Object{}, joined(cause, errors.New("the key now holds another's object"))
	case errors.Is(err, gcloud.ErrObjectNotExist) && !late:
		return storage.Object{}, cause
	case errors.Is(err, gcloud.ErrObjectNotExist):
		return storage.Object{}, &storage.Error{Op: "put", Key: u.key, Kind: storage.ErrUnknownOutcome,
			Err: fmt.Errorf("%w; the object is not there now but may still appear", cause)}
	}
	return storage.Object{}, &storage.Error{Op: "put", Key: u.key, Kind: storage.ErrUnknownOutcome,
		Err: fmt.Errorf("%w; looking for the object failed: %s", cause, describe(err))}
}

// failPut is fail with what only a Put knows: what the creating request says of
// options that could not be checked before.
func (b *Bucket) failPut(ctx context.Context, key string, opts storage.PutOptions, err error) error {
	err = b.fail(ctx, "put", key, err)
	var e *storage.Error
	if !errors.As(err, &e) {
		return err
	}
	text := strings.ToLower(e.Error())
	refused := e.Kind == nil && strings.Contains(text, "http 400")
	switch {
	case refused && !opts.Retention.IsZero() && strings.Contains(text, "retention") && strings.Contains(text, "enabled"):
		e.Kind, e.Err = errors.ErrUnsupported, fmt.Errorf("%s (%w)", b.retentionRemedy(), e.Err)
	case refused && opts.StorageClass != "" && strings.Contains(text, "storage class"):
		e.Kind = errors.ErrUnsupported
		e.Err = fmt.Errorf("%w; its classes are STANDARD, NEARLINE, COLDLINE and ARCHIVE", e.Err)
	case refused && opts.Encryption.Key != "" && strings.Contains(text, "kms"):
		e.Kind = errors.ErrUnsupported
	case e.Kind == storage.ErrPermission && strings.Contains(text, "cloud kms key"):
		key := opts.Encryption.Key
		if key == "" {
			key = "KEY"
		}
		e.Err = fmt.Errorf("%w; authorize it with `gcloud storage service-agent --authorize-cmek=%s` in the bucket's project", e.Err, key)
	}
	return err
}
