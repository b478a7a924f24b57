package s3

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/storage"
)

// headed is what HEAD says about an object.
type headed struct {
	storage.Object
	token      string
	crc64      string // of the whole object
	opaqueETag bool   // the ETag is no MD5, because the object is encrypted with a key of KMS or the client's
	tags       int32
	holdShown  bool   // on or off
	coldClass  string // the class or archive tier that has to be thawed
	deepest    bool   // it has no expedited thaw
	tiering    bool   // INTELLIGENT_TIERING
}

// Stat describes one version of key. Latest is set only where version is "",
// because the store does not say. Tags, retention and hold are rights of their
// own (s3:GetObjectTagging, s3:GetObjectRetention, s3:GetObjectLegalHold); what
// is missing of them is in Denied. A delete marker, named by its version, comes
// back as one.
func (b *Bucket) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, &storage.Error{Op: "stat", Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	head, err := b.head(ctx, key, version)
	if err != nil {
		if version != "" && statusCode(err) == http.StatusMethodNotAllowed && responseHeader(err, "X-Amz-Delete-Marker") == "true" {
			return storage.Object{Key: key, Version: version, DeleteMarker: true}, nil
		}
		return storage.Object{}, wrap(ctx, "stat", key, err)
	}
	if err = b.seeProtection(ctx, &head); err == nil {
		err = b.seeTags(ctx, &head)
	}
	if err != nil {
		return storage.Object{}, wrap(ctx, "stat", key, err)
	}
	return head.Object, nil
}

func (b *Bucket) head(ctx context.Context, key, version string) (headed, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &b.cfg.Bucket, Key: &key, VersionId: optional(version), ChecksumMode: types.ChecksumModeEnabled,
	})
	if err != nil {
		return headed{}, err
	}
	h := headed{
		Object: storage.Object{
			Key:          key,
			Version:      b.version(out.VersionId),
			Size:         aws.ToInt64(out.ContentLength),
			Created:      aws.ToTime(out.LastModified).UTC(),
			Latest:       version == "",
			ETag:         trimETag(out.ETag),
			ContentType:  aws.ToString(out.ContentType),
			Metadata:     decodeMetadata(out.Metadata),
			StorageClass: storageClass(string(out.StorageClass)),
			Retention:    retention(out.ObjectLockMode, out.ObjectLockRetainUntilDate),
			LegalHold:    out.ObjectLockLegalHoldStatus == types.ObjectLockLegalHoldStatusOn,
			Encryption:   encryption(out.ServerSideEncryption, out.SSEKMSKeyId),
		},
		holdShown:  out.ObjectLockLegalHoldStatus != "",
		token:      out.Metadata[tokenKey],
		opaqueETag: out.SSECustomerAlgorithm != nil || out.ServerSideEncryption != "" && out.ServerSideEncryption != types.ServerSideEncryptionAes256,
		tags:       aws.ToInt32(out.TagCount),
	}
	h.Thaw = thawState(out.StorageClass, out.ArchiveStatus, aws.ToString(out.Restore))
	h.tiering = out.StorageClass == types.StorageClassIntelligentTiering
	h.deepest = out.StorageClass == types.StorageClassDeepArchive || out.ArchiveStatus == types.ArchiveStatusDeepArchiveAccess
	h.coldClass = cmp.Or(string(out.ArchiveStatus), string(out.StorageClass))
	if out.ChecksumType != types.ChecksumTypeComposite {
		h.crc64 = aws.ToString(out.ChecksumCRC64NVME)
	}
	h.Checksum = b.checksum(out, h)
	return h, nil
}

// storageClass names the class that S3 leaves out.
func storageClass(class string) string {
	if class == "" {
		return "STANDARD"
	}
	return class
}

// checksum picks the store's checksum over the whole object. Composite ones,
// checksums of checksums, say nothing without the part sizes.
func (b *Bucket) checksum(out *s3.HeadObjectOutput, h headed) storage.Checksum {
	for _, c := range []struct {
		algorithm string
		value     *string
	}{
		{"CRC64NVME", out.ChecksumCRC64NVME},
		{"CRC32C", out.ChecksumCRC32C},
		{"SHA256", out.ChecksumSHA256},
	} {
		if value := aws.ToString(c.value); value != "" && out.ChecksumType != types.ChecksumTypeComposite && !strings.Contains(value, "-") {
			return storage.Checksum{Algorithm: c.algorithm, Value: value}
		}
	}
	// The ETag of a single request is the MD5, unless a key of KMS or the
	// client's is involved. Only the md5 profile relies on that.
	if b.cfg.Checksum == ChecksumMD5 && !h.opaqueETag {
		if sum, err := hex.DecodeString(h.ETag); err == nil && len(sum) == 16 {
			return storage.Checksum{Algorithm: "MD5", Value: base64.StdEncoding.EncodeToString(sum)}
		}
	}
	return storage.Checksum{}
}
