package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"

	"github.com/pgstow/pgstow/storage"
)

// complete makes the object out of the parts. It returns when its outcome is
// known, or known to be unknowable.
func (u *upload) complete(ctx context.Context) (storage.Object, error) {
	u.progress.completing(true)
	defer u.progress.completing(false)
	parts := u.sorted()
	want, list := u.summary(parts)
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &u.b.cfg.Bucket, Key: &u.key, UploadId: &u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: list},
		MpuObjectSize:   &want.size,
		IfNoneMatch:     aws.String("*"),
	}
	if want.crc64 != "" {
		in.ChecksumCRC64NVME, in.ChecksumType = &want.crc64, types.ChecksumTypeFullObject
	}
	c := commit{b: u.b, key: u.key, token: u.token, want: want, revoke: u.revoke, send: func(ctx context.Context) (receipt, error) {
		out, err := u.b.client.CompleteMultipartUpload(ctx, in, once)
		if err != nil {
			return receipt{}, err
		}
		got := receipt{
			version: u.b.version(out.VersionId), etag: trimETag(out.ETag),
			encryption: encryption(out.ServerSideEncryption, out.SSEKMSKeyId),
		}
		if out.ChecksumType != types.ChecksumTypeComposite {
			got.crc64 = aws.ToString(out.ChecksumCRC64NVME)
		}
		return got, nil
	}}
	return c.run(ctx)
}

// summary adds the parts up to what the object must be.
func (u *upload) summary(parts []part) (content, []types.CompletedPart) {
	var want content
	var crc crcSum
	sums := md5.New()
	list := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		want.size += p.size
		list[i] = types.CompletedPart{PartNumber: aws.Int32(int32(p.number)), ETag: aws.String(p.etag)}
		if u.b.cfg.Checksum == ChecksumMD5 {
			sums.Write(p.md5[:])
			continue
		}
		crc.add(p.crc, p.size)
		list[i].ChecksumCRC64NVME = aws.String(crcBase64(p.crc))
	}
	if u.b.cfg.Checksum == ChecksumMD5 {
		want.etag = fmt.Sprintf("%x-%d", sums.Sum(nil), len(parts))
	} else {
		want.crc64 = crcBase64(crc.value)
	}
	return want, list
}

// putSingle sends a source of known size in one request.
func (b *Bucket) putSingle(ctx context.Context, key string, r io.Reader, opts storage.PutOptions,
	token string, progress *progress) (storage.Object, error) {
	data := make([]byte, opts.Size)
	src := &source{r: r}
	n, _, err := src.read(ctx, data)
	if err != nil {
		return storage.Object{}, err
	}
	eof, err := src.peek(ctx)
	switch {
	case err != nil:
		return storage.Object{}, err
	case int64(n) < opts.Size:
		return storage.Object{}, sizeError(opts.Size, int64(n))
	case !eof:
		return storage.Object{}, sizeError(opts.Size, opts.Size+1)
	}
	return b.putBytes(ctx, key, data, opts, token, progress)
}

// putBytes creates an object in one request.
func (b *Bucket) putBytes(ctx context.Context, key string, data []byte, opts storage.PutOptions,
	token string, progress *progress) (storage.Object, error) {
	length := int64(len(data))
	c := commit{b: b, key: key, token: token, want: content{size: length}}
	meta := newCreation(opts, token)
	in := s3.PutObjectInput{
		Bucket: &b.cfg.Bucket, Key: &key, ContentLength: &length, IfNoneMatch: aws.String("*"),
		ContentType: meta.contentType, Metadata: meta.metadata, Tagging: meta.tagging, StorageClass: meta.class,
		ObjectLockMode: meta.mode, ObjectLockRetainUntilDate: meta.until, ObjectLockLegalHoldStatus: meta.hold,
		ServerSideEncryption: meta.sse, SSEKMSKeyId: meta.kmsKey,
	}
	if b.cfg.Checksum == ChecksumMD5 {
		sum := md5.Sum(data)
		in.ContentMD5 = aws.String(base64.StdEncoding.EncodeToString(sum[:]))
		c.want.etag = hex.EncodeToString(sum[:])
	} else {
		c.want.crc64 = crcBase64(crc64nvme.Checksum(data))
		in.ChecksumCRC64NVME = &c.want.crc64
	}
	c.send = func(ctx context.Context) (receipt, error) { return b.tryPut(ctx, in, data) }
	progress.sent(length)
	o, err := c.run(ctx)
	if err == nil {
		progress.acknowledged(length)
	}
	return o, err
}

// tryPut sends a small object once.
func (b *Bucket) tryPut(ctx context.Context, in s3.PutObjectInput, data []byte) (receipt, error) {
	content := newBody(data)
	attempt, stop := watch(ctx, content, b.cfg.IdleTimeout, b.cfg.ResponseTimeout)
	defer stop()
	in.Body = content
	out, err := b.client.PutObject(attempt, &in, once, b.unsigned)
	if err != nil && ctx.Err() == nil && b.insistsOnSignature(err) {
		in.Body = newBody(data)
		out, err = b.client.PutObject(attempt, &in, once)
	}
	if err != nil {
		return receipt{}, attemptError(ctx, attempt, err)
	}
	return receipt{
		version: b.version(out.VersionId), etag: trimETag(out.ETag), crc64: aws.ToString(out.ChecksumCRC64NVME),
		encryption: encryption(out.ServerSideEncryption, out.SSEKMSKeyId),
	}, nil
}

func trimETag(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }
