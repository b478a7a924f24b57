package s3

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/storage"
)

// HEAD leaves out what there is none of, and what the caller may not see, alike.
// A request for that alone tells the two apart. To spare most objects it, a right
// that was seen once is taken to be there for all keys of this Bucket.
//
// That does not go for retention: where HEAD shows none, the store is always
// asked, because a store may leave it out of HEAD by mistake (versitygw does, for
// versions behind a delete marker).
type rights struct {
	hold, tags atomic.Bool
	// noLock: the store said that the bucket has no object lock, which could
	// not be found out when it was opened.
	noLock atomic.Bool
}

// seeProtection fills in retention and hold where HEAD did not show them, or
// notes that they may not be seen.
func (b *Bucket) seeProtection(ctx context.Context, h *headed) error {
	if h.holdShown {
		b.sees.hold.Store(true)
	}
	retained := !h.Retention.IsZero()
	if !retained {
		if err := b.see(ctx, h, storage.AttributeRetention, b.getRetention); err != nil {
			return err
		}
	}
	if !h.holdShown && !(retained && b.sees.hold.Load()) {
		if err := b.see(ctx, h, storage.AttributeLegalHold, b.getHold); err != nil {
			return err
		}
	}
	return nil
}

// see asks for one attribute of an object that may be locked.
func (b *Bucket) see(ctx context.Context, h *headed, what storage.Attribute, get func(context.Context, *headed) error) error {
	if b.lock == lockOff || b.sees.noLock.Load() {
		return nil
	}
	err := get(ctx, h)
	switch {
	case err == nil, errorCode(err) == "NoSuchObjectLockConfiguration":
	case isDenied(err):
		h.Denied = append(h.Denied, what)
	case errors.Is(kindOf(err), errors.ErrUnsupported), errorCode(err) == "InvalidRequest":
		b.sees.noLock.Store(b.lock == lockUnknown)
	default:
		return err
	}
	return nil
}

func (b *Bucket) getRetention(ctx context.Context, h *headed) error {
	out, err := b.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &b.cfg.Bucket, Key: &h.Key, VersionId: optional(h.Version)})
	if err == nil && out.Retention != nil {
		h.Retention = retention(types.ObjectLockMode(out.Retention.Mode), out.Retention.RetainUntilDate)
	}
	return err
}

func (b *Bucket) getHold(ctx context.Context, h *headed) error {
	out, err := b.client.GetObjectLegalHold(ctx, &s3.GetObjectLegalHoldInput{Bucket: &b.cfg.Bucket, Key: &h.Key, VersionId: optional(h.Version)})
	if err == nil && out.LegalHold != nil {
		h.LegalHold = out.LegalHold.Status == types.ObjectLockLegalHoldStatusOn
	}
	if err == nil || errorCode(err) == "NoSuchObjectLockConfiguration" {
		b.sees.hold.Store(true)
	}
	return err
}

// seeTags reads the object's tags. HEAD counts them for those only who may read
// them.
func (b *Bucket) seeTags(ctx context.Context, h *headed) error {
	if h.tags == 0 && b.sees.tags.Load() {
		return nil
	}
	out, err := b.client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: &b.cfg.Bucket, Key: &h.Key, VersionId: optional(h.Version)})
	switch {
	case err == nil:
	case isDenied(err):
		h.Denied = append(h.Denied, storage.AttributeTags)
		return nil
	case h.tags == 0 && (errors.Is(kindOf(err), errors.ErrUnsupported) || statusCode(err)/100 == 4):
		b.sees.tags.Store(true) // a store without tags
		return nil
	default:
		return err
	}
	b.sees.tags.Store(true)
	if len(out.TagSet) == 0 {
		return nil
	}
	h.Tags = make(map[string]string, len(out.TagSet))
	for _, t := range out.TagSet {
		h.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return nil
}

// defaultRetention is the rule of a bucket's object lock configuration.
func defaultRetention(rule *types.ObjectLockRule) storage.DefaultRetention {
	if rule == nil || rule.DefaultRetention == nil {
		return storage.DefaultRetention{}
	}
	d := rule.DefaultRetention
	mode := retention(types.ObjectLockMode(d.Mode), nil).Mode
	if mode == storage.LockNone {
		return storage.DefaultRetention{}
	}
	return storage.DefaultRetention{Mode: mode, Days: int(aws.ToInt32(d.Days)), Years: int(aws.ToInt32(d.Years))}
}
