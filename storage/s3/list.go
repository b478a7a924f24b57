package s3

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/storage"
)

// errMarker ends a list whose pages do not advance. The SDK's paginators would
// either loop or pass such a list off as complete, and the one for versions
// takes a page that ends within one key's versions for a repeated marker.
var errMarker = errors.New("the store repeats a page of its list")

// List yields the objects, with all their versions if asked for. A bucket that
// has no versions yields each object once.
func (b *Bucket) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	pages := b.pages
	if opts.Versions && (b.versioning != "" || !b.versionsKnown) {
		pages = b.versionPages
	}
	asked := opts
	for !utf8.ValidString(asked.Prefix) { // a prefix may end in mid-character; not every store takes that
		asked.Prefix = asked.Prefix[:len(asked.Prefix)-1]
	}
	return func(yield func(storage.Object, error) bool) {
		for o, err := range pages(ctx, asked) {
			if err != nil {
				yield(storage.Object{}, wrap(ctx, "list", "", err))
				return
			}
			if o.Key > opts.StartAfter && strings.HasPrefix(o.Key, opts.Prefix) && !yield(o, nil) {
				return
			}
		}
	}
}

func (b *Bucket) pages(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &b.cfg.Bucket, Prefix: optional(opts.Prefix), StartAfter: optional(opts.StartAfter)}
		for {
			page, err := b.client.ListObjectsV2(ctx, in)
			if err != nil {
				yield(storage.Object{}, err)
				return
			}
			for _, c := range page.Contents {
				o := storage.Object{
					Key: aws.ToString(c.Key), Size: aws.ToInt64(c.Size), Created: aws.ToTime(c.LastModified).UTC(),
					Latest: true, ETag: trimETag(c.ETag), StorageClass: storageClass(string(c.StorageClass)),
				}
				if !yield(o, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			next := aws.ToString(page.NextContinuationToken)
			if next == "" || next == aws.ToString(in.ContinuationToken) {
				yield(storage.Object{}, errMarker)
				return
			}
			in.ContinuationToken = &next
		}
	}
}

func (b *Bucket) versionPages(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		var last storage.Object
		in := &s3.ListObjectVersionsInput{Bucket: &b.cfg.Bucket, Prefix: optional(opts.Prefix), KeyMarker: optional(opts.StartAfter)}
		for {
			page, err := b.client.ListObjectVersions(ctx, in)
			if err != nil {
				yield(storage.Object{}, err)
				return
			}
			for _, o := range b.merge(page.Versions, page.DeleteMarkers) {
				// versitygw begins a page with the last entry of the one before.
				if o.Key == last.Key && o.Version == last.Version && o.DeleteMarker == last.DeleteMarker {
					continue
				}
				last = o
				if !yield(o, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			key, version := aws.ToString(page.NextKeyMarker), aws.ToString(page.NextVersionIdMarker)
			if key == "" || key == aws.ToString(in.KeyMarker) && version == aws.ToString(in.VersionIdMarker) {
				yield(storage.Object{}, errMarker)
				return
			}
			in.KeyMarker, in.VersionIdMarker = &key, optional(version)
		}
	}
}

// merge brings one page's versions and delete markers, which the SDK delivers
// apart, back into one order: by key, then newest first. Within each of the two
// the store's order is kept.
func (b *Bucket) merge(versions []types.ObjectVersion, markers []types.DeleteMarkerEntry) []storage.Object {
	merged := make([]storage.Object, 0, len(versions)+len(markers))
	for len(versions) > 0 || len(markers) > 0 {
		if len(markers) > 0 && (len(versions) == 0 || markerFirst(markers[0], versions[0])) {
			m := markers[0]
			markers = markers[1:]
			merged = append(merged, storage.Object{
				Key: aws.ToString(m.Key), Version: b.version(m.VersionId), Created: aws.ToTime(m.LastModified).UTC(),
				Latest: aws.ToBool(m.IsLatest), DeleteMarker: true,
			})
			continue
		}
		v := versions[0]
		versions = versions[1:]
		merged = append(merged, storage.Object{
			Key: aws.ToString(v.Key), Version: b.version(v.VersionId), Size: aws.ToInt64(v.Size),
			Created: aws.ToTime(v.LastModified).UTC(), Latest: aws.ToBool(v.IsLatest),
			ETag: trimETag(v.ETag), StorageClass: storageClass(string(v.StorageClass)),
		})
	}
	return merged
}

// markerFirst orders a delete marker and a version. In the same second, the
// newest of the key goes first and then the marker.
func markerFirst(m types.DeleteMarkerEntry, v types.ObjectVersion) bool {
	if mk, vk := aws.ToString(m.Key), aws.ToString(v.Key); mk != vk {
		return mk < vk
	}
	switch {
	case aws.ToBool(m.IsLatest):
		return true
	case aws.ToBool(v.IsLatest):
		return false
	}
	return !newer(v.LastModified, m.LastModified)
}

func newer(a, b *time.Time) bool { return aws.ToTime(a).After(aws.ToTime(b)) }
