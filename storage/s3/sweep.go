package s3

import (
	"context"
	"iter"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/storage"
)

// Uploads yields the unfinished uploads under prefix. MinIO lists by exact key
// only, and forgets uploads when it restarts; there the whole bucket is listed
// and filtered here.
func (b *Bucket) Uploads(ctx context.Context, prefix string) iter.Seq2[storage.Upload, error] {
	return func(yield func(storage.Upload, error) bool) {
		for u, err := range b.uploadPages(ctx, prefix) {
			if err != nil {
				yield(storage.Upload{}, wrap(ctx, "list uploads", prefix, err))
				return
			}
			if !strings.HasPrefix(aws.ToString(u.Key), prefix) {
				continue
			}
			up, gone, err := b.describe(ctx, u)
			switch {
			case err != nil:
				yield(storage.Upload{}, wrap(ctx, "list uploads", aws.ToString(u.Key), err))
				return
			case gone:
				continue
			}
			if !yield(up, nil) {
				return
			}
		}
	}
}

func (b *Bucket) uploadPages(ctx context.Context, prefix string) iter.Seq2[types.MultipartUpload, error] {
	return func(yield func(types.MultipartUpload, error) bool) {
		in := &s3.ListMultipartUploadsInput{Bucket: &b.cfg.Bucket, Prefix: optional(prefix), MaxUploads: b.cfg.uploadsPage}
		if b.minio {
			in.Prefix = nil
		}
		var last []types.MultipartUpload // the page before, for stores that cannot go on within a key
		for {
			page, err := b.client.ListMultipartUploads(ctx, in)
			if isMarkerFault(err) && len(last) > 0 {
				page, err = b.pageByKey(ctx, in, last)
			}
			if err != nil {
				yield(types.MultipartUpload{}, err)
				return
			}
			for _, u := range page.Uploads {
				if !yield(u, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			key, id := aws.ToString(page.NextKeyMarker), aws.ToString(page.NextUploadIdMarker)
			if key == "" || key == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker) {
				yield(types.MultipartUpload{}, errMarker)
				return
			}
			in.KeyMarker, in.UploadIdMarker = &key, optional(id)
			last = page.Uploads
		}
	}
}

// isMarkerFault is versitygw's answer to the second page of a list.
func isMarkerFault(err error) bool {
	return err != nil && statusCode(err) == http.StatusBadRequest && mentions(err, "marker")
}

// pageByKey goes on by key alone: from the last key but one, so that no upload
// of the last key is lost. What was yielded before is dropped.
func (b *Bucket) pageByKey(ctx context.Context, in *s3.ListMultipartUploadsInput, last []types.MultipartUpload) (*s3.ListMultipartUploadsOutput, error) {
	final := aws.ToString(last[len(last)-1].Key)
	seen := map[string]bool{}
	before := ""
	for _, u := range last {
		if key := aws.ToString(u.Key); key == final {
			seen[aws.ToString(u.UploadId)] = true
		} else {
			before = key
		}
	}
	if before == "" {
		return nil, errMarker // a whole page of one key: nothing to go on from
	}
	again := *in
	again.KeyMarker, again.UploadIdMarker = &before, nil
	page, err := b.client.ListMultipartUploads(ctx, &again)
	if err != nil {
		return nil, err
	}
	kept := page.Uploads[:0]
	for _, u := range page.Uploads {
		if !seen[aws.ToString(u.UploadId)] {
			kept = append(kept, u)
		}
	}
	page.Uploads = kept
	return page, nil
}

// describe adds up an upload's parts. One that vanished meanwhile is gone.
func (b *Bucket) describe(ctx context.Context, u types.MultipartUpload) (up storage.Upload, gone bool, err error) {
	up = storage.Upload{Key: aws.ToString(u.Key), ID: aws.ToString(u.UploadId), Initiated: aws.ToTime(u.Initiated).UTC()}
	up.Newest = up.Initiated
	in := &s3.ListPartsInput{Bucket: &b.cfg.Bucket, Key: u.Key, UploadId: u.UploadId}
	for {
		page, err := b.client.ListParts(ctx, in)
		if errorCode(err) == "NoSuchUpload" || statusCode(err) == http.StatusNotFound {
			return up, true, nil
		}
		if err != nil {
			return up, false, err
		}
		for _, p := range page.Parts {
			up.Size += aws.ToInt64(p.Size)
			if at := aws.ToTime(p.LastModified).UTC(); at.After(up.Newest) {
				up.Newest = at
			}
		}
		if !aws.ToBool(page.IsTruncated) {
			return up, false, nil
		}
		next := aws.ToString(page.NextPartNumberMarker)
		if next == "" || next == aws.ToString(in.PartNumberMarker) {
			return up, false, errMarker
		}
		in.PartNumberMarker = &next
	}
}

// AbortUpload removes an unfinished upload; one that is gone is no error.
func (b *Bucket) AbortUpload(ctx context.Context, u storage.Upload) error {
	_, err := b.abortUpload(ctx, u.Key, u.ID)
	return wrap(ctx, "abort upload", u.Key, err)
}
