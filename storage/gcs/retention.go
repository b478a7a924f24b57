package gcs

import (
	"context"
	"errors"
	"fmt"

	gcloud "cloud.google.com/go/storage"

	"github.com/pgstow/pgstow/storage"
)

// retentionModes: https://cloud.google.com/storage/docs/object-lock names them
// after S3's in its XML API.
var retentionModes = map[storage.LockMode]string{
	storage.Governance: "Unlocked",
	storage.Compliance: "Locked",
}

// SetRetention extends or strengthens the retention of one generation. What
// would weaken it is refused here, because locking an unlocked retention needs
// the same override that would let the store shorten it.
func (b *Bucket) SetRetention(ctx context.Context, key, version string, r storage.Retention) error {
	o, err := b.version("retain", key, version)
	if err != nil {
		return err
	}
	failed := func(kind error, format string, args ...any) error {
		return &storage.Error{Op: "retain", Key: key, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	mode, known := retentionModes[r.Mode]
	if !r.IsZero() && !known {
		return failed(errors.ErrUnsupported, "retention mode %q", r.Mode)
	}
	if b.retentionKnown && !b.caps.ObjectLock {
		return failed(errors.ErrUnsupported, "bucket %s has no object retention", b.cfg.Bucket)
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	a, err := o.Attrs(ctx)
	if err != nil {
		return b.fail(ctx, "retain", key, err)
	}
	now := toObject(a).Retention
	switch {
	case now.IsZero() && r.IsZero():
		return nil
	case !now.IsZero() && r.IsZero():
		return failed(storage.ErrLocked, "its retention until %s is not removed", now.Until)
	case r.Until.Before(now.Until):
		return failed(storage.ErrLocked, "its retention until %s is not shortened to %s", now.Until, r.Until)
	case now.Mode == storage.Compliance && r.Mode != storage.Compliance:
		return failed(storage.ErrLocked, "its compliance retention is not weakened")
	}
	// Pinned to what was read, so that nobody extends it in between and is
	// shortened by us.
	o = b.handle.Object(key).Generation(a.Generation).If(gcloud.Conditions{MetagenerationMatch: a.Metageneration})
	if now.Mode == storage.Governance && r.Mode == storage.Compliance {
		o = o.OverrideUnlockedRetention(true)
	}
	_, err = o.Update(ctx, gcloud.ObjectAttrsToUpdate{
		Retention: &gcloud.ObjectRetention{Mode: mode, RetainUntil: r.Until.UTC()},
	})
	return b.fail(ctx, "retain", key, err)
}

// SetLegalHold sets or releases the temporary hold of one generation.
func (b *Bucket) SetLegalHold(ctx context.Context, key, version string, on bool) error {
	o, err := b.version("hold", key, version)
	if err != nil {
		return err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	_, err = o.Update(ctx, gcloud.ObjectAttrsToUpdate{TemporaryHold: on})
	return b.fail(ctx, "hold", key, err)
}
