package storage

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Upload is an upload that was begun and neither completed nor aborted.
type Upload struct {
	Key       string
	ID        string
	Initiated time.Time
	// Newest is when its newest part arrived, Initiated when it has none.
	Newest time.Time
	Size   int64 // bytes of the parts that arrived
}

// UploadSweeper is implemented by drivers whose stores keep the parts of
// unfinished uploads.
type UploadSweeper interface {
	// Uploads yields the unfinished uploads whose keys start with prefix.
	Uploads(ctx context.Context, prefix string) iter.Seq2[Upload, error]
	// AbortUpload removes an unfinished upload; one that is gone is no error.
	AbortUpload(ctx context.Context, u Upload) error
}

// RetentionSetter is implemented by drivers that can change the protection of
// an object that exists. Shortening is refused with ErrLocked.
type RetentionSetter interface {
	SetRetention(ctx context.Context, key, version string, r Retention) error
	SetLegalHold(ctx context.Context, key, version string, on bool) error
}

// CustomTimeSetter is implemented by drivers whose stores expire objects by a
// time of the writer's. It moves forward only: an earlier one is ErrLocked.
type CustomTimeSetter interface {
	SetCustomTime(ctx context.Context, key, version string, at time.Time) error
}

// Uploads lists unfinished uploads, or yields errors.ErrUnsupported.
func Uploads(ctx context.Context, b Bucket, prefix string) iter.Seq2[Upload, error] {
	if s, ok := b.(UploadSweeper); ok {
		return s.Uploads(ctx, prefix)
	}
	return func(yield func(Upload, error) bool) { yield(Upload{}, errors.ErrUnsupported) }
}

// AbortUpload removes an unfinished upload.
func AbortUpload(ctx context.Context, b Bucket, u Upload) error {
	if s, ok := b.(UploadSweeper); ok {
		return s.AbortUpload(ctx, u)
	}
	return errors.ErrUnsupported
}

// SetRetention sets or extends the retention of one object version.
func SetRetention(ctx context.Context, b Bucket, key, version string, r Retention) error {
	if s, ok := b.(RetentionSetter); ok {
		return s.SetRetention(ctx, key, version, r)
	}
	return errors.ErrUnsupported
}

// SetLegalHold sets or releases the legal hold of one object version.
func SetLegalHold(ctx context.Context, b Bucket, key, version string, on bool) error {
	if s, ok := b.(RetentionSetter); ok {
		return s.SetLegalHold(ctx, key, version, on)
	}
	return errors.ErrUnsupported
}

// SetCustomTime moves the custom time of one object version forward.
func SetCustomTime(ctx context.Context, b Bucket, key, version string, at time.Time) error {
	if s, ok := b.(CustomTimeSetter); ok {
		return s.SetCustomTime(ctx, key, version, at)
	}
	return errors.ErrUnsupported
}
