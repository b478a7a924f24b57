package archiver

import (
	"context"
	"errors"
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
}

// Cleanup aborts unfinished uploads under keys that pgstow makes, and no
// others. An upload that cannot be aborted is reported, the rest goes on, and
// the error joins all failures.
func Cleanup(ctx context.Context, opts CleanupOptions) (*CleanupResult, error) {
	return nil, errors.ErrUnsupported
}
