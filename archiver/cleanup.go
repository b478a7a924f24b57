package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// DefaultCleanupAge is how old the newest part of an unfinished upload must be.
const DefaultCleanupAge = 24 * time.Hour

// CleanupOptions choose what Cleanup removes.
type CleanupOptions struct {
	Bucket storage.Bucket
	// OlderThan spares uploads whose newest part is younger: they may be
	// running. 0 spares none.
	OlderThan time.Duration
	DryRun    bool
	Log       *slog.Logger
	Now       func() time.Time
}

// What Cleanup did with an upload.
const (
	CleanupAborted = "aborted"
	CleanupWould   = "would abort"
	CleanupYoung   = "kept, too young"
	CleanupFailed  = "failed"
)

// CleanedUpload is one unfinished upload of ours.
type CleanedUpload struct {
	Key       string    `json:"key"`
	UploadID  string    `json:"upload_id"`
	Initiated time.Time `json:"initiated"`
	Newest    time.Time `json:"newest"` // when its newest part arrived
	Size      int64     `json:"size"`
	Action    string    `json:"action"`
	Error     string    `json:"error,omitempty"`
}

// CleanupResult is what Cleanup found.
type CleanupResult struct {
	Uploads []CleanedUpload `json:"uploads"`
	Aborted int             `json:"aborted"`
	Bytes   int64           `json:"bytes"` // of the parts that were removed, or would be
	// Unsupported: this store shows no unfinished uploads (GCS drops them
	// by itself after a week).
	Unsupported bool `json:"unsupported,omitempty"`
	// Protection is what ends unfinished uploads besides this.
	Protection UploadProtection `json:"protection"`
}

// Cleanup aborts unfinished uploads under keys that pgstow makes, and no
// others. An upload that cannot be aborted is reported, the rest goes on, and
// the error joins all failures.
func Cleanup(ctx context.Context, opts CleanupOptions) (*CleanupResult, error) {
	if opts.OlderThan < 0 {
		return nil, fmt.Errorf("%w: an age of %s", ErrUsage, opts.OlderThan)
	}
	now := time.Now
	if opts.Now != nil {
		now = opts.Now
	}
	limit := now().Add(-opts.OlderThan)
	res := &CleanupResult{Uploads: []CleanedUpload{}}
	found, err := ownUploads(ctx, opts.Bucket)
	if errors.Is(err, errors.ErrUnsupported) {
		res.Unsupported = true
		res.Protection = ProtectUploads(ctx, opts.Bucket)
		return res, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list unfinished uploads: %w", err)
	}
	res.Protection = ProtectUploads(ctx, opts.Bucket, policiesOf(found)...)
	var failures []error
	for _, u := range found {
		c := CleanedUpload{Key: u.Key, UploadID: u.ID, Initiated: u.Initiated, Newest: u.Newest, Size: u.Size}
		switch {
		case newestPart(u).After(limit):
			c.Action = CleanupYoung
		case opts.DryRun:
			c.Action = CleanupWould
			res.Bytes += u.Size
		default:
			c.Action = CleanupAborted
			if err := storage.AbortUpload(ctx, opts.Bucket, u); err != nil {
				c.Action, c.Error = CleanupFailed, oneLine(err)
				failures = append(failures, fmt.Errorf("abort upload of %s: %w", u.Key, err))
				break
			}
			res.Aborted++
			res.Bytes += u.Size
		}
		res.Uploads = append(res.Uploads, c)
	}
	return res, errors.Join(failures...)
}

// ownUploads are the unfinished uploads under keys that pgstow makes. They are
// collected first: aborting while the store pages through them may skip some.
func ownUploads(ctx context.Context, b storage.Bucket) ([]storage.Upload, error) {
	var own []storage.Upload
	for u, err := range storage.Uploads(ctx, b, "") {
		if err != nil {
			return nil, err
		}
		if _, _, ok := ParseKey(u.Key); ok {
			own = append(own, u)
		}
	}
	return own, nil
}

func policiesOf(uploads []storage.Upload) []string {
	var names []string
	for _, u := range uploads {
		dir, _, _ := ParseKey(u.Key)
		names = append(names, dir.Policy)
	}
	return names
}

// newestPart guards against a driver that leaves Newest out.
func newestPart(u storage.Upload) time.Time {
	if u.Newest.After(u.Initiated) {
		return u.Newest
	}
	return u.Initiated
}
