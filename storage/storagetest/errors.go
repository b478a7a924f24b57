package storagetest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

func errorChecks() []check {
	return []check{
		{"errors/bad credentials", func(c *suite) {
			cannotWork(c, HookBadCredentials, c.h.BadCredentials, storage.ErrCredentials)
		}},
		{"errors/no bucket", func(c *suite) { cannotWork(c, HookNoBucket, c.h.NoBucket, storage.ErrBucketNotExist) }},
		{"errors/unreachable", func(c *suite) { cannotWork(c, HookUnreachable, c.h.Unreachable, storage.ErrUnavailable) }},
		{"errors/denied", func(c *suite) { cannotWork(c, HookDenied, c.h.Denied, storage.ErrPermission) }},
	}
}

// cannotWork runs every method of a bucket that cannot work and expects one
// sentinel from each, in time: an operator waits for it.
func cannotWork(c *suite, hook Hook, open func(testing.TB) (storage.Bucket, error), kind error) {
	if !c.has(hook, open != nil) {
		return
	}
	b, err := open(c.TB)
	if err != nil {
		c.failed(err, "open", "", kind)
		return
	}
	defer b.Close()
	ctx, cancel := context.WithTimeoutCause(c.ctx, 90*time.Second, errors.New("the driver kept trying for 90 s"))
	defer cancel()
	b = storage.Prefixed(b, c.prefix)
	for name, size := range map[string]int64{"stream": 0, "known": 1000} {
		_, err = b.Put(ctx, name, bytes.NewReader(c.bytesOf(name, 1000)), storage.PutOptions{Size: size})
		c.failed(err, "put", name, kind)
	}
	_, err = b.Stat(ctx, "key", "")
	c.failed(err, "stat", "key", kind)
	body, err := b.Open(ctx, "key", storage.OpenOptions{})
	c.failed(err, "open", "key", kind)
	if err == nil {
		body.Close()
	}
	for _, err = range b.List(ctx, storage.ListOptions{}) {
		if err != nil {
			break
		}
	}
	c.failed(err, "list", "", kind)
	if kind == storage.ErrBucketNotExist {
		return // some stores answer a Delete in a missing bucket like any missing object
	}
	c.failed(b.Delete(ctx, "key", ""), "delete", "key", kind)
}
