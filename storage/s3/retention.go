package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/pgstow/pgstow/storage"
)

func retention(mode types.ObjectLockMode, until *time.Time) storage.Retention {
	r := storage.Retention{Until: aws.ToTime(until).UTC()}
	switch mode {
	case types.ObjectLockModeGovernance:
		r.Mode = storage.Governance
	case types.ObjectLockModeCompliance:
		r.Mode = storage.Compliance
	default:
		return storage.Retention{}
	}
	return r
}

// SetRetention sets or extends the retention of one version. Shortening, or
// going from compliance to governance, is ErrLocked: the store refuses it, and
// where a special right would let governance be shortened, that right is not
// used. It is used to make governance compliance where the store asks for it.
func (b *Bucket) SetRetention(ctx context.Context, key, version string, r storage.Retention) error {
	if err := storage.CheckKey(key); err != nil {
		return &storage.Error{Op: "retain", Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	refuse := func(kind error, format string, args ...any) error {
		return &storage.Error{Op: "retain", Key: key, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	if b.lock == lockOff {
		return refuse(errors.ErrUnsupported, "bucket %s has no object lock; %s", b.cfg.Bucket, b.lockRemedy())
	}
	if err := checkRetention(r); err != nil {
		return refuse(nil, "%w", err)
	}
	until := r.Until.UTC().Truncate(time.Second)
	head, headErr := b.head(ctx, key, version)
	if headErr == nil {
		if err := b.seeProtection(ctx, &head); err != nil {
			return wrap(ctx, "retain", key, err)
		}
		has := head.Retention
		switch {
		case !has.IsZero() && until.Before(has.Until):
			return refuse(storage.ErrLocked, "it is kept until %s, which cannot be shortened to %s",
				has.Until.Format(time.RFC3339), until.Format(time.RFC3339))
		case has.Mode == storage.Compliance && r.Mode != storage.Compliance:
			return refuse(storage.ErrLocked, "compliance retention cannot be weakened to %q", r.Mode)
		case r.IsZero():
			if has.IsZero() {
				return nil
			}
			return refuse(storage.ErrLocked, "retention cannot be removed")
		}
	} else if !isDenied(headErr) {
		return wrap(ctx, "retain", key, headErr)
	}
	put := &s3.PutObjectRetentionInput{
		Bucket: &b.cfg.Bucket, Key: &key, VersionId: optional(cmp.Or(version, head.Version)), // the one that was looked at
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionMode(lockMode(r.Mode)), RetainUntilDate: &until},
	}
	_, err := b.client.PutObjectRetention(ctx, put, b.md5Only)
	if err != nil && headErr == nil && head.Retention.Mode == storage.Governance && r.Mode == storage.Compliance && (isDenied(err) || kindOf(err) == storage.ErrLocked) {
		// Some stores take every change of a governance lock's mode for a
		// bypass, even to the firmer one. What is asked for is not shorter.
		// Somebody may have extended it meanwhile, which is what such a refusal
		// means as well: then nothing is bypassed. Between that look and the
		// request are milliseconds in which an extension would be lost: the
		// request takes no condition.
		again, headErr := b.head(ctx, key, cmp.Or(version, head.Version))
		if headErr == nil {
			headErr = b.seeProtection(ctx, &again)
		}
		if headErr != nil || again.Retention.Mode != storage.Governance || until.Before(again.Retention.Until) {
			return refuse(storage.ErrLocked, "its lock was changed meanwhile; look at it and try again")
		}
		put.BypassGovernanceRetention = aws.Bool(true)
		_, err = b.client.PutObjectRetention(ctx, put, b.md5Only)
	}
	return wrap(ctx, "retain", key, err)
}

// SetLegalHold sets or releases the legal hold of one version.
func (b *Bucket) SetLegalHold(ctx context.Context, key, version string, on bool) error {
	if err := storage.CheckKey(key); err != nil {
		return &storage.Error{Op: "hold", Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	if b.lock == lockOff {
		return &storage.Error{Op: "hold", Key: key, Kind: errors.ErrUnsupported,
			Err: fmt.Errorf("bucket %s has no object lock; %s", b.cfg.Bucket, b.lockRemedy())}
	}
	status := types.ObjectLockLegalHoldStatusOff
	if on {
		status = types.ObjectLockLegalHoldStatusOn
	}
	_, err := b.client.PutObjectLegalHold(ctx, &s3.PutObjectLegalHoldInput{
		Bucket: &b.cfg.Bucket, Key: &key, VersionId: optional(version),
		LegalHold: &types.ObjectLockLegalHold{Status: status},
	}, b.md5Only)
	return wrap(ctx, "hold", key, err)
}

// md5Only replaces the CRC32 header, which the SDK sends with requests that
// need a checksum, by Content-MD5: stores of the md5 profile know no other.
func (b *Bucket) md5Only(o *s3.Options) {
	if b.cfg.Checksum != ChecksumMD5 {
		return
	}
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		// Absent ones are no error: what matters is that none is left.
		_, _ = stack.Initialize.Remove("AWSChecksum:SetupInputContext")
		_, _ = stack.Finalize.Remove("AWSChecksum:ComputeInputPayloadChecksum")
		return smithyhttp.AddContentChecksumMiddleware(stack)
	})
}

// Delete removes one version for good; with version "" a versioned bucket gets
// a delete marker. A version under retention or hold is ErrLocked.
func (b *Bucket) Delete(ctx context.Context, key, version string) error {
	if err := storage.CheckKey(key); err != nil {
		return &storage.Error{Op: "delete", Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.cfg.Bucket, Key: &key, VersionId: optional(version)})
	return b.deleted(ctx, key, version, err)
}

// deleted is what a deletion's error means.
func (b *Bucket) deleted(ctx context.Context, key, version string, err error) error {
	if err == nil || kindOf(err) == storage.ErrNotExist {
		return nil
	}
	// versitygw fails on a version that is gone.
	if errorCode(err) == "InternalError" && version != "" {
		if _, headErr := b.head(ctx, key, version); errors.Is(kindOf(headErr), storage.ErrNotExist) {
			return nil
		}
	}
	// AWS says AccessDenied for a missing right and for a lock alike.
	if isDenied(err) && b.isProtected(ctx, key, version) {
		return &storage.Error{Op: "delete", Key: key, Kind: storage.ErrLocked, Err: readable(err)}
	}
	return wrap(ctx, "delete", key, err)
}

func (b *Bucket) isProtected(ctx context.Context, key, version string) bool {
	head, err := b.head(ctx, key, version)
	if err == nil {
		err = b.seeProtection(ctx, &head)
	}
	return err == nil && (head.LegalHold || head.Retention.Until.After(time.Now()))
}

// lockRemedy is what gives object lock: switching it on in this bucket, or, for
// MinIO, making another.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-configure.html
func (b *Bucket) lockRemedy() string {
	var commands []string
	s3api := func(command string) {
		command = "aws s3api " + command
		if b.cfg.Endpoint != "" {
			command += " --endpoint-url " + b.cfg.Endpoint
		}
		commands = append(commands, command)
	}
	if b.minio {
		s3api("create-bucket --bucket NEW --object-lock-enabled-for-bucket")
		return "MinIO gives it to new buckets alone: `" + commands[0] + "`"
	}
	if b.versioning != types.BucketVersioningStatusEnabled {
		s3api("put-bucket-versioning --bucket " + b.cfg.Bucket + " --versioning-configuration Status=Enabled")
	}
	s3api("put-object-lock-configuration --bucket " + b.cfg.Bucket + " --object-lock-configuration ObjectLockEnabled=Enabled")
	return "it can be switched on, once and for all: `" + strings.Join(commands, " && ") + "`"
}

// remedied adds what would cure a refusal of the creating request, where the
// bucket could not be asked before.
func (b *Bucket) remedied(err error) error {
	if kindOf(err) == errors.ErrUnsupported && mentions(err, "object lock configuration") {
		return &textError{text: readable(err).Error() + "; " + b.lockRemedy(), err: err}
	}
	return err
}
