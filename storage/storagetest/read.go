package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/pgstow/pgstow/storage"
)

func readChecks() []check {
	return []check{
		{"open/ranges", openRanges},
		{"open/beyond the end", openBeyond},
		{"open/missing", openMissing},
		{"open/concurrent", openConcurrent},
		{"open/early close", openEarlyClose},
		{"open/cancelled", openCancelled},
		{"open/cut", openCut},
		{"open/replaced", openReplaced},
		{"stat/missing", statMissing},
		{"delete/object", deleteObject},
		{"delete/missing", deleteMissing},
		{"versions/history", versionsHistory},
		{"versions/delete one", versionsDeleteOne},
	}
}

// slice is the range of an object's content.
func (c *suite) slice(key string, size, offset, length int64) io.Reader {
	c.Helper()
	r := c.content(key, size)
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		c.Fatalf("generate the content of %q: %v", key, err)
	}
	if length > 0 {
		return io.LimitReader(r, length)
	}
	return r
}

func openRanges(c *suite) {
	p := c.h.PartSize
	size := 3*p + 1
	c.put("ranged", size, storage.PutOptions{})
	for _, r := range [][2]int64{
		{0, 0}, {0, 1}, {0, size}, {0, size + 1000}, {1, 1}, {1, 0}, {p - 1, 2}, {p, p}, {p + 1, 2 * p},
		{size - 1, 0}, {size - 1, 1}, {size - 1, 1000}, {size - 100, 100}, {size / 2, 1},
	} {
		c.reads("ranged", storage.OpenOptions{Offset: r[0], Length: r[1]}, c.slice("ranged", size, r[0], r[1]))
	}
}

func openBeyond(c *suite) {
	for _, size := range []int64{0, 1, 1000} {
		key := fmt.Sprintf("short/%d", size)
		c.put(key, size, storage.PutOptions{})
		for _, beyond := range []int64{0, 1, 1 << 40} {
			for _, length := range []int64{0, 1, 1000} {
				opts := storage.OpenOptions{Offset: size + beyond, Length: length}
				if opts.Offset == 0 {
					c.reads(key, opts, c.content(key, 0))
					continue
				}
				body, err := c.bucket.Open(c.ctx, key, opts)
				c.failed(err, "open", key, storage.ErrRange)
				if err == nil {
					body.Close()
				}
			}
		}
	}
}

func openMissing(c *suite) {
	c.put("there/too", 10, storage.PutOptions{})
	for _, key := range []string{"nowhere", "there/to", "there/too/deep", "there/too2"} {
		for _, opts := range []storage.OpenOptions{{}, {Length: 1}, {Offset: 5, Length: 1}} {
			body, err := c.bucket.Open(c.ctx, key, opts)
			c.failed(err, "open", key, storage.ErrNotExist)
			if err == nil {
				body.Close()
			}
			if errors.Is(err, storage.ErrBucketNotExist) {
				c.Errorf("Open of a missing object accuses the bucket: %v", err)
			}
		}
	}
}

func openConcurrent(c *suite) {
	p := c.h.PartSize
	size := 3*p + 1
	c.put("shared", size, storage.PutOptions{})
	var all sync.WaitGroup
	for i := range int64(8) {
		all.Go(func() {
			opts := storage.OpenOptions{Offset: i * p / 3, Length: p}
			body, err := c.bucket.Open(c.ctx, "shared", opts)
			if err != nil {
				c.Errorf("Open %+v: %v", opts, err)
				return
			}
			defer body.Close()
			if err := sameBytes(body, c.slice("shared", size, opts.Offset, p)); err != nil {
				c.Errorf("Open %+v: %v", opts, err)
			}
		})
	}
	all.Wait()
}

// openEarlyClose: closing must not read the rest, nor leave a goroutine (which
// the end of every case looks for).
func openEarlyClose(c *suite) {
	size := max(16*c.h.PartSize, 16<<20)
	c.put("long", size, storage.PutOptions{})
	counted := c.has(HookReceived, c.store.Received != nil)
	var before int64
	if counted {
		before = c.store.Received()
	}
	body, err := c.bucket.Open(c.ctx, "long", storage.OpenOptions{})
	if err != nil {
		c.Fatalf("Open: %v", err)
	}
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		c.Fatalf("Read: %v", err)
	}
	if err := body.Close(); err != nil {
		c.Errorf("Close: %v", err)
	}
	if _, err := body.Read(make([]byte, 10)); err == nil || err == io.EOF {
		c.Errorf("Read after Close: %v, expected an error other than io.EOF", err)
	}
	if counted {
		// The rest of the window that the kernels hold may be on its way.
		if got := c.store.Received() - before; got > size*3/4 {
			c.Errorf("10 of %d bytes were read before Close, the store sent %d", size, got)
		}
	}
}

func openCancelled(c *suite) {
	size := max(4*c.h.PartSize, 16<<20)
	c.put("long", size, storage.PutOptions{})
	ctx, cancel := context.WithCancelCause(c.ctx)
	cancel(errCancelled)
	body, err := c.bucket.Open(ctx, "long", storage.OpenOptions{})
	c.failed(err, "open", "long", errCancelled)
	if err == nil {
		body.Close()
	}

	ctx, cancel = context.WithCancelCause(c.ctx)
	defer cancel(nil)
	body, err = c.bucket.Open(ctx, "long", storage.OpenOptions{})
	if err != nil {
		c.Fatalf("Open: %v", err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		c.Fatalf("Read: %v", err)
	}
	cancel(errCancelled)
	n, err := io.Copy(io.Discard, body)
	c.failed(err, "open", "long", errCancelled)
	if n >= size-10 {
		c.Errorf("all of the object was read after the context's end")
	}
}

// openCut reads through connections that break again and again.
func openCut(c *suite) {
	if !c.has(HookCut, c.store.Cut != nil) {
		return
	}
	p := c.h.PartSize
	size := max(3*p+1, 2<<20)
	c.put("cut", size, storage.PutOptions{})
	after := max(64<<10, size/7+123)
	for _, r := range [][2]int64{{0, 0}, {1, 0}, {p + 1, size - p - 100}} {
		c.store.Cut(after)
		c.reads("cut", storage.OpenOptions{Offset: r[0], Length: r[1]}, c.slice("cut", size, r[0], r[1]))
		c.store.Cut(0)
	}
	c.whole("cut", size)
}

// openReplaced: an object that is replaced while its body breaks is an error
// or still the old content, never a mixture.
func openReplaced(c *suite) {
	if !c.has(HookCut, c.store.Cut != nil) {
		return
	}
	size := max(6*c.h.PartSize, 16<<20)
	first := c.put("replaced", size, storage.PutOptions{})
	c.store.Cut(size / 4)
	body, err := c.bucket.Open(c.ctx, "replaced", storage.OpenOptions{})
	if err != nil {
		c.Fatalf("Open: %v", err)
	}
	defer body.Close()
	old := c.content("replaced", size)
	begun := int64(1000)
	if err := sameBytes(io.LimitReader(body, begun), io.LimitReader(old, begun)); err != nil {
		c.Fatalf("before it was replaced: %v", err)
	}
	c.store.Cut(0)
	if err := c.bucket.Delete(c.ctx, "replaced", ""); err != nil {
		c.Fatalf("Delete: %v", err)
	}
	if _, _, err := c.tryPut(c.ctx, "replaced", c.content("new", size), storage.PutOptions{}); err != nil {
		c.Fatalf("Put the new content: %v", err)
	}
	c.store.Cut(size / 4)
	err = sameBytes(body, old)
	c.store.Cut(0)
	var e *storage.Error
	if err != nil && !errors.As(err, &e) {
		c.Errorf("a mixture was read: %v", err)
	}
	if c.h.Want.Versions {
		if err != nil {
			c.Errorf("the version that was opened still exists, reading it failed: %v", err)
		}
		c.reads("replaced", storage.OpenOptions{Version: first.Version}, c.content("replaced", size))
	}
	c.reads("replaced", storage.OpenOptions{}, c.content("new", size))
}

func statMissing(c *suite) {
	c.put("there/too", 10, storage.PutOptions{})
	for _, key := range []string{"nowhere", "there", "there/to", "there/too/deep"} {
		_, err := c.bucket.Stat(c.ctx, key, "")
		c.failed(err, "stat", key, storage.ErrNotExist)
		if errors.Is(err, storage.ErrBucketNotExist) {
			c.Errorf("Stat of a missing object accuses the bucket: %v", err)
		}
	}
}

func deleteObject(c *suite) {
	c.put("gone", 10, storage.PutOptions{})
	c.put("going", 10, storage.PutOptions{})
	c.put("gone2", 10, storage.PutOptions{})
	if err := c.bucket.Delete(c.ctx, "gone2", ""); err != nil {
		c.Fatalf("Delete: %v", err)
	}
	if keys := c.keys(storage.ListOptions{}); len(keys) != 2 {
		c.Errorf("List after Delete: %s", quoted(keys))
	}
}

func deleteMissing(c *suite) {
	c.put("kept/here", 10, storage.PutOptions{})
	for _, key := range []string{"nowhere", "kept", "kept/here/deep", "kept/her"} {
		if err := c.bucket.Delete(c.ctx, key, ""); err != nil {
			c.Errorf("Delete of a missing %q: %v", key, err)
		}
	}
	c.whole("kept/here", 10)
}

// history makes two versions of a key, with a deletion between them.
func (c *suite) history(key string) (first, second storage.Object) {
	c.Helper()
	first = c.put(key, 1000, storage.PutOptions{})
	if err := c.bucket.Delete(c.ctx, key, ""); err != nil {
		c.Fatalf("Delete: %v", err)
	}
	_, err := c.bucket.Stat(c.ctx, key, "")
	c.failed(err, "stat", key, storage.ErrNotExist)
	if keys := c.keys(storage.ListOptions{Prefix: key}); len(keys) > 0 {
		c.Errorf("List shows %s after Delete", quoted(keys))
	}
	second, _, err = c.tryPut(c.ctx, key, c.content("second "+key, 2000), storage.PutOptions{})
	if err != nil {
		c.Fatalf("Put after Delete: %v", err)
	}
	return first, second
}

func versionsHistory(c *suite) {
	first, second := c.history("kept")
	if !c.h.Want.Versions {
		if versions := c.list(storage.ListOptions{Versions: true}); len(versions) != 1 || versions[0].Size != 2000 || !versions[0].Latest {
			c.Errorf("a store without versions lists %+v, expected the object once", versions)
		}
		return
	}
	if first.Version == second.Version {
		c.Fatalf("two versions have one name, %q", first.Version)
	}
	var versions []storage.Object
	for _, o := range c.list(storage.ListOptions{Versions: true}) {
		if !o.DeleteMarker {
			versions = append(versions, o)
		}
	}
	if len(versions) != 2 || versions[0].Version != second.Version || versions[1].Version != first.Version {
		c.Fatalf("List shows the versions %+v, expected %q before %q", versions, second.Version, first.Version)
	}
	if !versions[0].Latest || versions[1].Latest || versions[0].Size != 2000 || versions[1].Size != 1000 {
		c.Errorf("List shows %+v", versions)
	}
	c.reads("kept", storage.OpenOptions{}, c.content("second kept", 2000))
	c.reads("kept", storage.OpenOptions{Version: first.Version}, c.content("kept", 1000))
	c.reads("kept", storage.OpenOptions{Version: first.Version, Offset: 10, Length: 5}, c.slice("kept", 1000, 10, 5))
	if o, err := c.bucket.Stat(c.ctx, "kept", first.Version); err != nil || o.Size != 1000 || o.Version != first.Version {
		c.Errorf("Stat of the first version: %+v, %v", o, err)
	}
}

func versionsDeleteOne(c *suite) {
	if !c.h.Want.Versions {
		return
	}
	first, second := c.history("pruned")
	if err := c.bucket.Delete(c.ctx, "pruned", first.Version); err != nil {
		c.Fatalf("Delete the first version: %v", err)
	}
	_, err := c.bucket.Stat(c.ctx, "pruned", first.Version)
	c.failed(err, "stat", "pruned", storage.ErrNotExist)
	body, err := c.bucket.Open(c.ctx, "pruned", storage.OpenOptions{Version: first.Version})
	c.failed(err, "open", "pruned", storage.ErrNotExist)
	if err == nil {
		body.Close()
	}
	if err := c.bucket.Delete(c.ctx, "pruned", first.Version); err != nil {
		c.Errorf("Delete of a version that is gone: %v", err)
	}
	c.reads("pruned", storage.OpenOptions{Version: second.Version}, c.content("second pruned", 2000))
	if err := c.bucket.Delete(c.ctx, "pruned", second.Version); err != nil {
		c.Errorf("Delete the second version: %v", err)
	}
	_, err = c.bucket.Stat(c.ctx, "pruned", second.Version)
	c.failed(err, "stat", "pruned", storage.ErrNotExist)
}
