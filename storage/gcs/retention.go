package gcs

import (
	"context"
	"errors"
	"fmt"
	"time"

	gcloud "cloud.google.com/go/storage"

	"github.com/pgstow/pgstow/storage"
)

// retentionModes: https://cloud.google.com/storage/docs/object-lock names them
// after S3's in its XML API.
var retentionModes = map[storage.LockMode]string{
	storage.Governance: "Unlocked",
	storage.Compliance: "Locked",
}

// retentionRemedy: the feature is a flag of `buckets create`; `buckets update` has
// none. https://cloud.google.com/storage/docs/using-object-lock
func (b *Bucket) retentionRemedy() string {
	return "bucket " + b.cfg.Bucket + " has no per-object retention; it is enabled when a bucket is made (`gcloud storage buckets create gs://" +
		b.cfg.Bucket + " --enable-per-object-retention`), for a bucket that exists in the Google Cloud console alone (Protection, Object retention)"
}

// ownRetention is the object's own, without what the bucket does for it.
func ownRetention(a *gcloud.ObjectAttrs) storage.Retention {
	if a.Retention != nil {
		for mode, name := range retentionModes {
			if name == a.Retention.Mode {
				return storage.Retention{Mode: mode, Until: a.Retention.RetainUntil.UTC()}
			}
		}
	}
	return storage.Retention{}
}

// bucketRetention is what the bucket's policy does for an object. The store shows
// the later end of both, its own retention's and the policy's; where that is the
// object's own, the policy's follows from the time of creation.
// https://cloud.google.com/storage/docs/json_api/v1/objects#resource
func (b *Bucket) bucketRetention(a *gcloud.ObjectAttrs) storage.Retention {
	if !a.RetentionExpirationTime.After(ownRetention(a).Until) {
		if d := b.caps.DefaultRetention; !d.IsZero() {
			return storage.Retention{Mode: d.Mode, Until: a.Created.UTC().Add(d.Period).Truncate(time.Second)}
		}
		return storage.Retention{}
	}
	r := storage.Retention{Mode: b.caps.DefaultRetention.Mode, Until: a.RetentionExpirationTime.UTC().Truncate(time.Second)}
	if r.IsZero() { // the bucket could not be asked: it is not known to be locked
		r.Mode = storage.Governance
	}
	return r
}

// effective is what keeps an object at now: its own retention, or that of the
// bucket's policy where it is the firmer one or the only one in force.
func effective(own, policy storage.Retention, now time.Time) storage.Retention {
	switch {
	case !policy.IsZero() && policy.Covers(own):
		return policy
	case !own.Until.After(now) && policy.Until.After(now):
		return policy
	}
	return own
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
		return failed(errors.ErrUnsupported, "%s", b.retentionRemedy())
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	a, err := o.Attrs(ctx)
	if err != nil {
		return b.fail(ctx, "retain", key, err)
	}
	now := ownRetention(a)
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

// SetCustomTime moves the custom time of one generation forward; where it is at
// that time already, nothing is sent. The store itself refuses to move it back,
// with a status that says no more than "invalid".
func (b *Bucket) SetCustomTime(ctx context.Context, key, version string, at time.Time) error {
	const op = "set custom time"
	o, err := b.version(op, key, version)
	if err != nil {
		return err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	a, err := o.Attrs(ctx)
	if err != nil {
		return b.fail(ctx, op, key, err)
	}
	switch at = at.UTC(); {
	case at.IsZero() || at.Before(a.CustomTime):
		return &storage.Error{Op: op, Key: key, Kind: storage.ErrLocked,
			Err: fmt.Errorf("its custom time %s is not moved back to %s", a.CustomTime.UTC().Format(time.RFC3339), at.Format(time.RFC3339))}
	case at.Equal(a.CustomTime):
		return nil
	}
	// Pinned to what was read: nobody else's later time is overwritten.
	_, err = b.handle.Object(key).Generation(a.Generation).If(gcloud.Conditions{MetagenerationMatch: a.Metageneration}).
		Update(ctx, gcloud.ObjectAttrsToUpdate{CustomTime: at})
	return b.fail(ctx, op, key, err)
}
