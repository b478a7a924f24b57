package storage

import (
	"context"
	"errors"
	"sync"
)

// VersionKey names one version of an object, as Delete does: with Version "" the
// newest as the store understands that.
type VersionKey struct {
	Key, Version string
}

// BatchDeleter is implemented by drivers whose stores delete many objects by one
// request.
type BatchDeleter interface {
	// DeleteVersions deletes each of keys as Delete does, in no order. The errors
	// are those of keys, one each, nil where the version is gone. What protects
	// a version is never lifted, whatever the credentials could.
	DeleteVersions(ctx context.Context, keys []VersionKey) []error
}

// deletesAtOnce is how many single deletions are under way where the store has no
// batches.
const deletesAtOnce = 8

// DeleteVersions deletes many versions, by batches where the store has them. The
// errors are those of keys, one each. There is no order within one call.
func DeleteVersions(ctx context.Context, b Bucket, keys []VersionKey) []error {
	if d, ok := b.(BatchDeleter); ok {
		errs := d.DeleteVersions(ctx, keys)
		for i := len(errs); i < len(keys); i++ { // silence is no success
			errs = append(errs, &Error{Op: "delete", Key: keys[i].Key, Err: errors.New("the store did not say whether it is deleted")})
		}
		return errs[:len(keys)]
	}
	errs := make([]error, len(keys))
	var all sync.WaitGroup
	next := make(chan int)
	for range min(deletesAtOnce, len(keys)) {
		all.Go(func() {
			for i := range next {
				errs[i] = b.Delete(ctx, keys[i].Key, keys[i].Version)
			}
		})
	}
	for i := range keys {
		if ctx.Err() != nil {
			errs[i] = &Error{Op: "delete", Key: keys[i].Key, Err: context.Cause(ctx)}
			continue
		}
		next <- i
	}
	close(next)
	all.Wait()
	return errs
}

func (p *prefixed) DeleteVersions(ctx context.Context, keys []VersionKey) []error {
	errs := make([]error, len(keys))
	full := make([]VersionKey, 0, len(keys))
	at := make([]int, 0, len(keys))
	for i, k := range keys {
		name, err := p.full("delete", k.Key)
		if err != nil {
			errs[i] = err
			continue
		}
		full, at = append(full, VersionKey{name, k.Version}), append(at, i)
	}
	for j, err := range DeleteVersions(ctx, p.inner, full) {
		errs[at[j]] = p.relative(err)
	}
	return errs
}
