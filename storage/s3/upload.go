package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"

	"github.com/pgstow/pgstow/storage"
)

const (
	// abortTimeout bounds the removal of an upload that failed.
	abortTimeout = 30 * time.Second
	// endTimeout bounds it when the caller's context has ended: somebody waits
	// for the end. With the graces of requests under way a Put is over about
	// five seconds after its context.
	endTimeout = 3 * time.Second
)

// cleanup gives what follows a failure a context of its own.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	later, release := outlive(ctx, endTimeout)
	bounded, cancel := context.WithTimeout(later, abortTimeout)
	return bounded, func() {
		cancel()
		release()
	}
}

// partGrace is how long part requests may go on after the upload has failed.
const partGrace = 2 * time.Second

// upload is one multipart upload.
type upload struct {
	b        *Bucket
	key      string
	id       string
	token    string
	plan     partPlan
	progress *progress
	gate     *gate
	buffers  *buffers

	cut     atomic.Bool // a part request was given up while it was under way
	revoked bool        // the abort was sent already

	mu    sync.Mutex
	parts []part // in the order in which they arrived
}

// part is one that the store has confirmed.
type part struct {
	number int
	size   int64
	crc    uint64
	md5    [md5.Size]byte
	etag   string
}

// putStream uploads r in parts. The creating request goes first, so that what
// the store will not take is refused before the source feels a thing.
func (b *Bucket) putStream(ctx context.Context, key string, r io.Reader, opts storage.PutOptions,
	token string, progress *progress) (storage.Object, error) {
	plan, err := planParts(b.cfg, max(opts.SizeEstimate, opts.Size))
	if err != nil {
		return storage.Object{}, err
	}
	inflight := min(int64(b.cfg.MaxConcurrency), max(b.cfg.MemoryBudget/plan.first-1, 1))
	u := &upload{
		b: b, key: key, token: token, plan: plan, progress: progress,
		gate:    newGate(int(inflight)),
		buffers: newBuffers(b.cfg.MemoryBudget, int(inflight)+1),
	}
	if err := u.create(ctx, opts); err != nil {
		return storage.Object{}, err
	}
	err = u.send(ctx, &source{r: r}, opts)
	var o storage.Object
	switch {
	case err == nil && len(u.parts) == 0:
		// Stores differ about uploads that hold nothing: an empty object goes
		// in one request.
		if err = u.abort(ctx); err == nil {
			progress.completing(true)
			defer progress.completing(false)
			return b.putBytes(ctx, key, nil, opts, token, progress)
		}
		return o, err
	case err == nil:
		o, err = u.complete(ctx)
	}
	switch {
	case err == nil:
		return o, nil
	case errors.Is(err, storage.ErrUnknownOutcome), errors.Is(err, errCommitted):
		return storage.Object{}, err // an abort would destroy the evidence, or nothing
	}
	return storage.Object{}, also(readable(blame(ctx, err)), u.abort(ctx))
}

func (u *upload) create(ctx context.Context, opts storage.PutOptions) error {
	c := newCreation(opts, u.token)
	in := &s3.CreateMultipartUploadInput{
		Bucket: &u.b.cfg.Bucket, Key: &u.key,
		ContentType: c.contentType, Metadata: c.metadata, Tagging: c.tagging, StorageClass: c.class,
		ObjectLockMode: c.mode, ObjectLockRetainUntilDate: c.until, ObjectLockLegalHoldStatus: c.hold,
		ServerSideEncryption: c.sse, SSEKMSKeyId: c.kmsKey,
	}
	if u.b.cfg.Checksum == ChecksumCRC64NVME {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc64nvme
		in.ChecksumType = types.ChecksumTypeFullObject
	}
	u.progress.opening(true)
	defer u.progress.opening(false)
	out, err := u.b.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return err
	}
	if u.id = aws.ToString(out.UploadId); u.id == "" {
		return errors.New("the store began an upload without an id")
	}
	u.b.cfg.Log.Debug("upload begun", "key", u.key, "upload", u.id, "part", u.plan.first)
	return nil
}

// send reads the source to its end and returns when every part is confirmed, or
// with the first error, when no request is under way any more.
func (u *upload) send(ctx context.Context, src *source, opts storage.PutOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &workers{u: u, ctx: ctx, cancel: cancel}
	err := u.dispatch(ctx, src, opts, w)
	if err != nil {
		cancel(err)
	}
	w.wg.Wait()
	// A part that failed cancelled the rest: its error is the cause.
	if w.err != nil {
		return w.err
	}
	return err
}

func (u *upload) dispatch(ctx context.Context, src *source, opts storage.PutOptions, w *workers) error {
	first := 1
	var head *head
	if opts.Head != nil {
		var err error
		if head, err = u.holdBack(ctx, src, opts.Head); err != nil {
			return err
		}
		first += head.parts()
	}
	total, err := u.sendBody(ctx, src, first, head != nil, w)
	if err != nil {
		return err
	}
	if head != nil {
		total += int64(len(head.buf)) - head.size
	}
	if opts.Size > 0 && total != opts.Size {
		return sizeError(opts.Size, total)
	}
	if head != nil {
		return head.send(ctx, w)
	}
	return nil
}

// sendBody reads and sends the parts from number first on, and says how many
// bytes they hold.
func (u *upload) sendBody(ctx context.Context, src *source, first int, haveHead bool, w *workers) (total int64, err error) {
	for n := first; ; n++ {
		// Before the buffer is taken, so that the end of a source that fills
		// its parts exactly costs none.
		if n > first || haveHead {
			if eof, err := src.peek(ctx); eof || err != nil {
				return total, err
			}
		}
		if n > u.plan.maxParts {
			return total, u.plan.exhausted(total)
		}
		buf, err := u.buffers.get(ctx, u.plan.size(n))
		if err != nil {
			return total, err
		}
		k, eof, err := src.read(ctx, buf)
		if err != nil {
			return total, err
		}
		total += int64(k)
		if total == 0 {
			u.buffers.put(buf)
			return 0, nil
		}
		w.start(n, buf[:k], func() { u.buffers.put(buf) })
		if eof {
			return total, nil
		}
	}
}

// workers send parts beside the goroutine that reads.
type workers struct {
	u      *upload
	ctx    context.Context // of one upload; send ends it
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	err    error
}

func (w *workers) start(number int, data []byte, release func()) {
	w.wg.Go(func() {
		defer release()
		if err := w.u.sendPart(w.ctx, number, data); err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			// What the first failure cancelled is not worth reporting.
			if w.err == nil && w.ctx.Err() == nil {
				w.err = fmt.Errorf("part %d: %w", number, readable(err))
				w.cancel(w.err)
			}
		}
	})
}

// sendPart uploads one part until the store has confirmed it.
func (u *upload) sendPart(ctx context.Context, number int, data []byte) error {
	p := part{number: number, size: int64(len(data))}
	if u.b.cfg.Checksum == ChecksumMD5 {
		p.md5 = md5.Sum(data)
	} else {
		p.crc = crc64nvme.Checksum(data)
	}
	retry := patience{b: u.b}
	for first := true; ; first = false {
		entered, err := u.gate.enter(ctx)
		if err != nil {
			return err
		}
		if first {
			u.progress.sent(p.size)
		}
		err = u.tryPart(ctx, &p, data)
		u.gate.leave(entered, outcomeOf(err))
		if err == nil {
			break
		}
		if ctx.Err() == nil && u.b.insistsOnSignature(err) {
			continue
		}
		if err := retry.next(ctx, err); err != nil {
			return err
		}
	}
	u.mu.Lock()
	u.parts = append(u.parts, p)
	u.mu.Unlock()
	u.progress.acknowledged(p.size)
	return nil
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return success
	case judge(err) == slower:
		return throttled
	}
	return neutral
}

// tryPart sends one part once.
func (u *upload) tryPart(ctx context.Context, p *part, data []byte) error {
	content := newBody(data)
	// A request that is cut short may still put its part into an upload that is
	// aborted meanwhile, so it gets a moment to end by itself.
	request, cancel := outlive(ctx, partGrace)
	defer cancel()
	attempt, stop := watch(request, content, u.b.cfg.IdleTimeout, u.b.cfg.ResponseTimeout)
	defer stop()
	in := &s3.UploadPartInput{
		Bucket: &u.b.cfg.Bucket, Key: &u.key, UploadId: &u.id,
		PartNumber: aws.Int32(int32(p.number)), Body: content, ContentLength: &p.size,
	}
	if u.b.cfg.Checksum == ChecksumMD5 {
		in.ContentMD5 = aws.String(base64.StdEncoding.EncodeToString(p.md5[:]))
	} else {
		in.ChecksumCRC64NVME = aws.String(crcBase64(p.crc))
	}
	out, err := u.b.client.UploadPart(attempt, in, once, u.b.unsigned)
	if err != nil {
		if request.Err() != nil {
			u.cut.Store(true)
		}
		return attemptError(ctx, attempt, err)
	}
	p.etag = aws.ToString(out.ETag)
	return u.checkPart(p, out)
}

// checkPart compares what the store says it has. A store that ignores the
// checksum is found out at its first part, not after the last.
func (u *upload) checkPart(p *part, out *s3.UploadPartOutput) error {
	if u.b.cfg.Checksum == ChecksumMD5 {
		encrypted := out.ServerSideEncryption != "" && out.ServerSideEncryption != types.ServerSideEncryptionAes256
		if got := strings.Trim(p.etag, `"`); got != hexString(p.md5[:]) && !encrypted {
			return fmt.Errorf("%w: the store's ETag is %s, not the MD5 %s", storage.ErrIntegrity, got, hexString(p.md5[:]))
		}
		return nil
	}
	switch got, want := aws.ToString(out.ChecksumCRC64NVME), crcBase64(p.crc); got {
	case want:
		return nil
	case "":
		return &textError{
			text: "the store does not confirm CRC64NVME checksums; use checksum=md5 in the bucket URL",
			err:  errors.ErrUnsupported,
		}
	default:
		return fmt.Errorf("%w: the store has CRC64NVME %s, sent was %s", storage.ErrIntegrity, got, want)
	}
}

// abort removes the upload, unless that was tried already.
func (u *upload) abort(ctx context.Context) error {
	if u.revoked {
		return nil
	}
	_, err := u.revoke(ctx)
	return err
}

// revoke aborts the upload and says whether the store still had it. It has a
// context of its own: the caller's is usually the thing that ended.
func (u *upload) revoke(ctx context.Context) (found bool, err error) {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	found, err = u.b.abortUpload(ctx, u.key, u.id)
	// What the store still had of a request that was cut short may bring the
	// upload back to life.
	for try := 0; err == nil && u.cut.Load() && try < 5; try++ {
		sleep(ctx, 200*time.Millisecond)
		if _, gone, lookErr := u.b.describe(ctx, types.MultipartUpload{Key: &u.key, UploadId: &u.id}); gone || lookErr != nil {
			break
		}
		_, err = u.b.abortUpload(ctx, u.key, u.id)
	}
	u.revoked = true // or tried in vain, which is told once
	if err == nil {
		return found, nil
	}
	if ctx.Err() != nil {
		err = errNoAnswer // all that the end of our own context says
	}
	why := &textError{text: readable(err).Error(), err: errors.Join(kindOf(err), err)}
	return found, &storage.UploadRemainsError{Key: u.key, Remedy: "`pgstow cleanup` removes it", Err: why}
}

// abortUpload says whether the store still had the upload.
func (b *Bucket) abortUpload(ctx context.Context, key, id string) (found bool, err error) {
	_, err = b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.cfg.Bucket, Key: &key, UploadId: &id})
	if errorCode(err) == "NoSuchUpload" || err != nil && statusCode(err) == http.StatusNotFound && errorCode(err) != "NoSuchBucket" {
		return false, nil
	}
	return err == nil, err
}

// sorted gives the parts in ascending order of their numbers.
func (u *upload) sorted() []part {
	slices.SortFunc(u.parts, func(a, b part) int { return a.number - b.number })
	return u.parts
}
