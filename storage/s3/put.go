package s3

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/storage"
)

// tokenKey is the metadata that tells our upload from another's when the reply
// to the completing request was lost. It is not shown in Object.Metadata.
const tokenKey = "pgstow-upload"

// Put creates key from r. A known size up to Config.SinglePut goes in one
// request and is held in memory; everything else is a multipart upload whose
// buffers keep to Config.MemoryBudget.
//
// Where the credentials may write but not read (HEAD is denied), the Object is
// what the completing reply says: no metadata, tags, retention or hold.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if err := b.checkPut(key, opts); err != nil {
		return storage.Object{}, err
	}
	progress := &progress{report: opts.Progress}
	token := rand.Text()
	send := b.putStream
	if opts.Size > 0 && opts.Size <= b.cfg.SinglePut && opts.Head == nil {
		send = b.putSingle
	}
	o, err := send(ctx, key, r, opts, token, progress)
	return o, wrap(ctx, "put", key, b.remedied(err))
}

// checkPut refuses, before anything is read or sent, what cannot be honoured.
func (b *Bucket) checkPut(key string, opts storage.PutOptions) error {
	if err := storage.CheckKey(key); err != nil {
		return &storage.Error{Op: "put", Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	refuse := func(kind error, format string, args ...any) error {
		return &storage.Error{Op: "put", Key: key, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case opts.Size < 0 || opts.SizeEstimate < 0:
		return refuse(nil, "negative size")
	case opts.Head != nil && (opts.Head.Size == nil || opts.Head.Bytes == nil):
		return refuse(nil, "a deferred head needs both its functions")
	case !opts.CustomTime.IsZero():
		return refuse(errors.ErrUnsupported, "S3 has no custom time")
	case b.lock == lockOff && !opts.Retention.IsZero():
		return refuse(errors.ErrUnsupported, "bucket %s has no object lock, so nothing can be retained in it; %s", b.cfg.Bucket, b.lockRemedy())
	case b.lock == lockOff && opts.LegalHold:
		return refuse(errors.ErrUnsupported, "bucket %s has no object lock, so nothing can be held in it; %s", b.cfg.Bucket, b.lockRemedy())
	}
	if err := errors.Join(storage.CheckTags(opts.Tags), checkEncryption(opts.Encryption)); err != nil {
		return refuse(errors.ErrUnsupported, "%w", err)
	}
	if err := checkRetention(opts.Retention); err != nil {
		return refuse(nil, "%w", err)
	}
	for name, value := range opts.Metadata {
		if err := checkMetadata(name, value); err != nil {
			return refuse(nil, "%w", err)
		}
	}
	return nil
}

func checkRetention(r storage.Retention) error {
	switch {
	case r.Mode != storage.LockNone && r.Mode != storage.Governance && r.Mode != storage.Compliance:
		return fmt.Errorf("unknown lock mode %q", r.Mode)
	case r.Mode == storage.LockNone && !r.Until.IsZero():
		return errors.New("a retain-until time without a lock mode")
	case r.Mode != storage.LockNone && !r.Until.After(time.Now()):
		return fmt.Errorf("retain-until %s has passed", r.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

func checkMetadata(name, value string) error {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("metadata key %q: only lower-case letters, digits and - are allowed", name)
	}
	if name == tokenKey {
		return fmt.Errorf("metadata key %q is reserved", name)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("metadata %s: control characters are not allowed", name)
	}
	return nil
}

// creation is what the creating request carries besides the content; Create-
// MultipartUpload and PutObject take the same fields.
type creation struct {
	contentType *string
	metadata    map[string]string
	tagging     *string
	class       types.StorageClass
	mode        types.ObjectLockMode
	until       *time.Time
	hold        types.ObjectLockLegalHoldStatus
	sse         types.ServerSideEncryption
	kmsKey      *string
}

func newCreation(opts storage.PutOptions, token string) creation {
	c := creation{
		contentType: optional(opts.ContentType),
		metadata:    map[string]string{tokenKey: token},
		class:       types.StorageClass(opts.StorageClass),
		mode:        lockMode(opts.Retention.Mode),
		sse:         sseModes[opts.Encryption.Mode],
		kmsKey:      optional(opts.Encryption.Key),
	}
	for name, value := range opts.Metadata {
		c.metadata[name] = encodeMetadata(value)
	}
	if len(opts.Tags) > 0 {
		tags := url.Values{}
		for k, v := range opts.Tags {
			tags.Set(k, v)
		}
		c.tagging = aws.String(tags.Encode())
	}
	if c.mode != "" {
		c.until = aws.Time(opts.Retention.Until.UTC().Truncate(time.Second))
	}
	if opts.LegalHold {
		c.hold = types.ObjectLockLegalHoldStatusOn
	}
	return c
}

func lockMode(m storage.LockMode) types.ObjectLockMode {
	switch m {
	case storage.Governance:
		return types.ObjectLockModeGovernance
	case storage.Compliance:
		return types.ObjectLockModeCompliance
	}
	return ""
}

// encodeMetadata makes a value fit for a header, the way S3 itself shows values
// that do not.
func encodeMetadata(value string) string {
	plain := strings.TrimSpace(value) == value && !strings.HasPrefix(value, "=?") &&
		!strings.ContainsFunc(value, func(r rune) bool { return r >= 0x7f })
	if plain {
		return value
	}
	return "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(value)) + "?="
}

// decodeMetadata undoes encodeMetadata and hides our own entry.
func decodeMetadata(stored map[string]string) map[string]string {
	all := maps.Clone(stored)
	delete(all, tokenKey)
	if len(all) == 0 {
		return nil
	}
	var words mime.WordDecoder
	for name, value := range all {
		if !strings.HasPrefix(value, "=?") {
			continue
		}
		if decoded, err := words.DecodeHeader(value); err == nil {
			all[name] = decoded
		}
	}
	return all
}

// source reads r the way the contract demands: a bare io.EOF is the end, all
// else is an error.
type source struct {
	r       io.Reader
	pending []byte // read, not yet handed out
	end     error  // io.EOF or why reading failed, once r has said so
}

// maxEmptyReads is how often in a row a reader may deliver nothing and say
// nothing.
const maxEmptyReads = 100

// read fills buf as far as r goes. eof is set when nothing follows.
func (s *source) read(ctx context.Context, buf []byte) (n int, eof bool, err error) {
	n = copy(buf, s.pending)
	s.pending = s.pending[n:]
	for empty := 0; n < len(buf) && s.end == nil; {
		if ctx.Err() != nil {
			return n, false, ended(ctx)
		}
		var k int
		k, s.end = s.r.Read(buf[n:])
		n += k
		if k > 0 || s.end != nil {
			empty = 0
		} else if empty++; empty == maxEmptyReads {
			s.end = io.ErrNoProgress
		}
	}
	if s.end != nil && s.end != io.EOF {
		return n, false, &sourceError{"read the source", s.end}
	}
	return n, s.end == io.EOF && len(s.pending) == 0, nil
}

// peek makes sure that something is pending or the end is known.
func (s *source) peek(ctx context.Context) (eof bool, err error) {
	if len(s.pending) > 0 {
		return false, nil
	}
	buf := make([]byte, 32<<10)
	for empty := 0; len(s.pending) == 0 && s.end == nil; {
		if ctx.Err() != nil {
			return false, ended(ctx)
		}
		var n int
		n, s.end = s.r.Read(buf)
		s.pending = buf[:n]
		if empty++; n == 0 && s.end == nil && empty == maxEmptyReads {
			s.end = io.ErrNoProgress
		}
	}
	if s.end != nil && s.end != io.EOF {
		return false, &sourceError{"read the source", s.end}
	}
	return len(s.pending) == 0, nil
}

// sizeError is a source that is not as long as PutOptions.Size says.
func sizeError(want, got int64) error {
	if got > want {
		return fmt.Errorf("the source is longer than the %d bytes announced", want)
	}
	return fmt.Errorf("the source ended after %d of the %d bytes announced", got, want)
}

func hexString(b []byte) string { return hex.EncodeToString(b) }
