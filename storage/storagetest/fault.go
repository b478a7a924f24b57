package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/pgstow/pgstow/storage"
)

func faultChecks() []check {
	plain := errors.New("storagetest: the source failed")
	return []check{
		{"fault/source error", sourceFails(plain, false)},
		{"fault/source error with data", sourceFails(plain, true)},
		{"fault/unexpected EOF", sourceFails(io.ErrUnexpectedEOF, false)},
		{"fault/unexpected EOF with data", sourceFails(io.ErrUnexpectedEOF, true)},
		{"fault/wrapped EOF", sourceFails(fmt.Errorf("the source: %w", io.EOF), false)},
		{"fault/wrapped EOF with data", sourceFails(fmt.Errorf("the source: %w", io.EOF), true)},
		{"fault/known size", knownSizeFails},
		{"fault/key free again", keyFreeAgain},
		{"fault/cancelled before", cancelledBefore},
		{"fault/cancelled in mid-stream", cancelledMidStream},
		{"fault/cancelled while the source blocks", cancelledBlocked},
		{"fault/cancelled at EOF", cancelledAtEOF},
		{"fault/cancelled while completing", cancelledCompleting},
		{"uploads/listed", uploadsListed},
		{"uploads/swept", uploadsSwept},
	}
}

// positions are where sources fail: at the first byte, in mid-part, on a part
// boundary, after several parts.
func (c *suite) positions() []int64 {
	p := c.h.PartSize
	return []int64{0, 1, p / 2, p, 2 * p, 3*p + 17}
}

// sourceFails gives a case whose sources end in err at every position. What
// was sent must not become an object, be removed, and err must be found in the
// result, which must not accuse the store.
func sourceFails(err error, withData bool) func(*suite) {
	return func(c *suite) {
		for _, at := range c.positions() {
			key := fmt.Sprintf("fails/%d", at)
			source := &failAfter{r: c.content(key, at), err: err, withData: withData}
			o, _, got := c.tryPut(c.ctx, key, source, storage.PutOptions{})
			c.failed(got, "put", key, err)
			if o.Key != "" || o.Size != 0 {
				c.Errorf("Put %q failed and returned an object: %+v", key, o)
			}
			c.blamesSource(got, key)
			c.absent(key)
		}
		c.nothing()
	}
}

// blamesSource checks that no sentinel of the store stands in the error: the
// exit code would be the store's.
func (c *suite) blamesSource(err error, key string) {
	c.Helper()
	for _, kind := range []error{
		storage.ErrUnavailable, storage.ErrIntegrity, storage.ErrUnknownOutcome, storage.ErrStalled,
		storage.ErrExist, storage.ErrNotExist, storage.ErrPermission, errors.ErrUnsupported,
	} {
		if errors.Is(err, kind) {
			c.Errorf("Put %q: the source failed, the error accuses the store (%v): %v", key, kind, err)
		}
	}
}

func knownSizeFails(c *suite) {
	const size = 1000
	for _, at := range []int64{0, 1, size - 1, size} {
		for _, err := range []error{errors.New("storagetest: the source failed"), io.ErrUnexpectedEOF,
			fmt.Errorf("the source: %w", io.EOF)} {
			key := fmt.Sprintf("known-fails/%d", at)
			source := &failAfter{r: c.content(key, at), err: err, withData: at == size}
			_, _, got := c.tryPut(c.ctx, key, source, storage.PutOptions{Size: size})
			c.failed(got, "put", key, err)
			c.blamesSource(got, key)
			c.absent(key)
		}
	}
	c.nothing()
}

// keyFreeAgain: a failed Put does not block the key.
func keyFreeAgain(c *suite) {
	size := c.h.PartSize + 1
	_, _, err := c.tryPut(c.ctx, "again", &failAfter{r: c.content("again", size), err: io.ErrUnexpectedEOF}, storage.PutOptions{})
	c.failed(err, "put", "again", io.ErrUnexpectedEOF)
	c.put("again", size, storage.PutOptions{})
	c.whole("again", size)
	c.noLeftovers()
}

// errCancelled is the cause of the cases' cancellations: the cause, not only
// context.Canceled, must come back, as a stalled store is told by it.
var errCancelled = errors.New("storagetest: cancelled by the case")

func cancelledBefore(c *suite) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	cancel(errCancelled)
	for key, opts := range c.bothWays(1000) {
		_, _, err := c.tryPut(ctx, key, c.content(key, 1000), opts)
		c.failed(err, "put", key, errCancelled)
		c.absent(key)
	}
	c.nothing()
}

func cancelledMidStream(c *suite) {
	for _, at := range c.positions() {
		key := fmt.Sprintf("cancelled/%d", at)
		ctx, cancel := context.WithCancelCause(c.ctx)
		source := &spy{r: c.content(key, at+c.h.PartSize+1), onRead: func(before int64) {
			if before >= at {
				cancel(errCancelled)
			}
		}}
		_, _, err := c.tryPut(ctx, key, source, storage.PutOptions{})
		c.failed(err, "put", key, errCancelled)
		c.absent(key)
	}
	c.nothing()
}

// cancelledBlocked is the dump whose process is killed by the same context:
// its Read returns only when that has happened.
func cancelledBlocked(c *suite) {
	for _, at := range []int64{0, c.h.PartSize, 2*c.h.PartSize + 5} {
		key := fmt.Sprintf("blocked/%d", at)
		ctx, cancel := context.WithCancelCause(c.ctx)
		blocked := make(chan struct{})
		var done sync.WaitGroup
		done.Go(func() {
			<-blocked
			cancel(errCancelled)
		})
		source := io.MultiReader(c.content(key, at), readerFunc(func([]byte) (int, error) {
			close(blocked)
			<-ctx.Done()
			return 0, errors.New("storagetest: killed")
		}))
		_, _, err := c.tryPut(ctx, key, source, storage.PutOptions{})
		c.failed(err, "put", key)
		c.absent(key)
		done.Wait()
	}
	c.nothing()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func cancelledAtEOF(c *suite) {
	for _, size := range []int64{0, 1, c.h.PartSize, 2*c.h.PartSize + 5} {
		key := fmt.Sprintf("at-eof/%d", size)
		ctx, cancel := context.WithCancelCause(c.ctx)
		source := io.MultiReader(c.content(key, size), readerFunc(func([]byte) (int, error) {
			cancel(errCancelled)
			return 0, io.EOF
		}))
		_, _, err := c.tryPut(ctx, key, source, storage.PutOptions{})
		c.failed(err, "put", key, errCancelled)
		c.absent(key)
	}
	c.nothing()
}

// cancelledCompleting may end either way, but never in between: what Put says
// is what the store shows, and what it shows is whole.
func cancelledCompleting(c *suite) {
	for _, size := range []int64{1, 2*c.h.PartSize + 5} {
		key := fmt.Sprintf("completing/%d", size)
		ctx, cancel := context.WithCancelCause(c.ctx)
		_, _, err := c.tryPut(ctx, key, c.content(key, size), storage.PutOptions{Progress: func(p storage.Progress) {
			if p.Completing {
				cancel(errCancelled)
			}
		}})
		if ctx.Err() == nil {
			c.Errorf("Put %q never reported Completing", key)
		}
		cancel(nil)
		_, stat := c.bucket.Stat(c.ctx, key, "")
		switch {
		case err == nil:
			c.whole(key, size)
		case errors.Is(err, storage.ErrUnknownOutcome) && stat == nil:
			c.whole(key, size)
		default:
			c.failed(err, "put", key, errCancelled)
			c.absent(key)
		}
	}
	c.noLeftovers()
}

// sweeps tells whether the bucket can list unfinished uploads; one that cannot
// must say so.
func (c *suite) sweeps() bool {
	c.Helper()
	if _, ok := c.store.Bucket.(storage.UploadSweeper); ok {
		return true
	}
	for _, err := range storage.Uploads(c.ctx, c.bucket, "") {
		if !errors.Is(err, errors.ErrUnsupported) {
			c.Errorf("Uploads: %v, expected errors.ErrUnsupported", err)
		}
	}
	if err := storage.AbortUpload(c.ctx, c.bucket, storage.Upload{Key: "k", ID: "1"}); !errors.Is(err, errors.ErrUnsupported) {
		c.Errorf("AbortUpload: %v, expected errors.ErrUnsupported", err)
	}
	return false
}

func (c *suite) uploads(prefix string) []storage.Upload {
	c.Helper()
	var all []storage.Upload
	for u, err := range storage.Uploads(c.ctx, c.bucket, prefix) {
		if err != nil {
			c.Errorf("Uploads %q: %v", prefix, err)
			return all
		}
		all = append(all, u)
	}
	return all
}

func uploadsListed(c *suite) {
	if !c.sweeps() {
		return
	}
	const key = "swept/in progress"
	size := 3*c.h.PartSize + 1
	looked := false
	source := &spy{r: c.content(key, size), onRead: func(before int64) {
		if looked || before < size-1 {
			return
		}
		looked = true
		for prefix, want := range map[string]int{"": 1, "swept/": 1, key: 1, "other/": 0, "swept/in progress/": 0} {
			all := c.uploads(prefix)
			if len(all) != want || want == 1 && (all[0].Key != key || all[0].Initiated.IsZero() || all[0].Newest.IsZero()) {
				c.Errorf("Uploads %q during the Put of %q: %+v, expected %d", prefix, key, all, want)
			}
		}
		if keys := c.keys(storage.ListOptions{Versions: true}); len(keys) > 0 {
			c.Errorf("List shows an object under way: %s", quoted(keys))
		}
	}}
	if _, _, err := c.tryPut(c.ctx, key, source, storage.PutOptions{}); err != nil {
		c.Fatalf("Put: %v", err)
	}
	if !looked {
		c.Error("the source was never asked for its last byte")
	}
	if all := c.uploads(""); len(all) > 0 {
		c.Errorf("Uploads after the Put: %+v", all)
	}
	c.whole(key, size)
}

// uploadsSwept removes an upload under the feet of its Put, which must then
// fail: a cleanup that came too early loses an archive, never half of it.
func uploadsSwept(c *suite) {
	if !c.sweeps() {
		return
	}
	const key = "swept/away"
	size := 3*c.h.PartSize + 1
	swept := false
	source := &spy{r: c.content(key, size), onRead: func(before int64) {
		if swept || before < size-1 {
			return
		}
		swept = true
		for _, u := range c.uploads("swept/") {
			for range 2 { // the second time it is gone, which is no error
				if err := storage.AbortUpload(c.ctx, c.bucket, u); err != nil {
					c.Errorf("AbortUpload %+v: %v", u, err)
				}
			}
		}
	}}
	_, _, err := c.tryPut(c.ctx, key, source, storage.PutOptions{})
	c.failed(err, "put", key)
	if !swept {
		c.Error("the source was never asked for its last byte")
	}
	c.nothing()
	if all := c.uploads(""); slices.ContainsFunc(all, func(u storage.Upload) bool { return u.Key == key }) {
		c.Errorf("Uploads still shows what was swept: %+v", all)
	}
}
