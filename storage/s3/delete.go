package s3

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/pgstow/pgstow/storage"
)

// deleteBatch is how many keys one request takes.
const deleteBatch = 1000

// DeleteVersions deletes by batches. The right to bypass governance is never
// used.
func (b *Bucket) DeleteVersions(ctx context.Context, keys []storage.VersionKey) []error {
	errs := make([]error, len(keys))
	batch := make([]int, 0, min(deleteBatch, len(keys)))
	for i, k := range keys {
		if err := storage.CheckKey(k.Key); err != nil {
			errs[i] = &storage.Error{Op: "delete", Key: k.Key, Kind: storage.ErrInvalidKey, Err: err}
			continue
		}
		if batch = append(batch, i); len(batch) == deleteBatch {
			b.deleteBatch(ctx, keys, batch, errs)
			batch = batch[:0]
		}
	}
	if len(batch) > 0 {
		b.deleteBatch(ctx, keys, batch, errs)
	}
	return errs
}

// deleteBatch deletes the keys with these indexes and fills in their errors. A
// key that the store does not answer for is not taken for deleted.
func (b *Bucket) deleteBatch(ctx context.Context, keys []storage.VersionKey, batch []int, errs []error) {
	in := &s3.DeleteObjectsInput{Bucket: &b.cfg.Bucket, Delete: &types.Delete{Quiet: aws.Bool(false)}}
	for _, i := range batch {
		in.Delete.Objects = append(in.Delete.Objects, types.ObjectIdentifier{Key: &keys[i].Key, VersionId: optional(keys[i].Version)})
	}
	out, err := b.client.DeleteObjects(ctx, in, b.md5Only)
	if err != nil {
		for _, i := range batch {
			if errors.Is(kindOf(err), errors.ErrUnsupported) {
				errs[i] = b.Delete(ctx, keys[i].Key, keys[i].Version)
				continue
			}
			errs[i] = wrap(ctx, "delete", keys[i].Key, err)
		}
		return
	}
	answers := map[storage.VersionKey]error{}
	for _, d := range out.Deleted {
		answers[storage.VersionKey{Key: aws.ToString(d.Key), Version: b.version(d.VersionId)}] = nil
	}
	for _, e := range out.Errors {
		answers[storage.VersionKey{Key: aws.ToString(e.Key), Version: b.version(e.VersionId)}] = &smithy.GenericAPIError{
			Code: aws.ToString(e.Code), Message: aws.ToString(e.Message),
		}
	}
	for _, i := range batch {
		err, answered := answers[keys[i]]
		if !answered {
			err = errors.New("the store does not say whether it is deleted")
		}
		errs[i] = b.deleted(ctx, keys[i].Key, keys[i].Version, err)
	}
}
