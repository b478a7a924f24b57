package storagetest

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"github.com/minio/crc64nvme"

	"github.com/pgstow/pgstow/storage"
)

// tryPut puts r behind a spy.
func (c *suite) tryPut(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, *spy, error) {
	s, ok := r.(*spy)
	if !ok {
		s = &spy{r: r}
	}
	c.mu.Lock()
	c.sources = append(c.sources, s)
	c.mu.Unlock()
	o, err := c.bucket.Put(ctx, key, s, opts)
	s.returned.Store(true)
	return o, s, err
}

// checkSources reports what was done to the sources; at the end of a case, so
// that a read after Put's return is seen too.
func (c *suite) checkSources() {
	c.Helper()
	for _, s := range c.sources {
		s.mu.Lock()
		for _, offence := range s.offences {
			c.Errorf("Put may only Read its source, one Read at a time: it was %s", offence)
		}
		s.mu.Unlock()
	}
}

// put creates key with its content and checks what comes back.
func (c *suite) put(key string, size int64, opts storage.PutOptions) storage.Object {
	c.Helper()
	o, _, err := c.tryPut(c.ctx, key, c.content(key, size), opts)
	if err != nil {
		c.Fatalf("Put %q of %d bytes: %v", key, size, err)
	}
	c.confirmed(o, key, size, c.content(key, size))
	return o
}

// confirmed checks the object that Put returned.
func (c *suite) confirmed(o storage.Object, key string, size int64, content io.Reader) {
	c.Helper()
	if o.Key != key || o.Size != size {
		c.Errorf("Put %q of %d bytes returned key %q and size %d", key, size, o.Key, o.Size)
	}
	if o.Version == "" && c.h.Want.Versions {
		c.Errorf("Put %q returned no version, the bucket keeps versions", key)
	}
	c.checksum("Put", o, content)
}

// checksum compares the store's checksum with our own.
func (c *suite) checksum(op string, o storage.Object, content io.Reader) {
	c.Helper()
	if o.Checksum.Algorithm != c.h.Checksum {
		c.Errorf("%s %q shows the checksum algorithm %q, expected %q", op, o.Key, o.Checksum.Algorithm, c.h.Checksum)
		return
	}
	if c.h.Checksum == "" {
		return
	}
	var h hash.Hash
	switch c.h.Checksum {
	case "CRC64NVME":
		h = crc64nvme.New()
	case "CRC32C":
		h = crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "MD5":
		h = md5.New()
	case "SHA256":
		h = sha256.New()
	default:
		c.Fatalf("the harness names an unknown checksum algorithm %q", c.h.Checksum)
	}
	if _, err := io.Copy(h, content); err != nil {
		c.Fatalf("generate the content of %q: %v", o.Key, err)
	}
	if want := base64.StdEncoding.EncodeToString(h.Sum(nil)); o.Checksum.Value != want {
		c.Errorf("%s %q shows the checksum %q, the content has %q", op, o.Key, o.Checksum.Value, want)
	}
}

// whole checks by Stat, Open and List that key holds its content, all of it.
func (c *suite) whole(key string, size int64) {
	c.Helper()
	c.holds(key, size, func() io.Reader { return c.content(key, size) })
}

func (c *suite) holds(key string, size int64, content func() io.Reader) {
	c.Helper()
	o, err := c.bucket.Stat(c.ctx, key, "")
	if err != nil {
		c.Fatalf("Stat %q: %v", key, err)
	}
	if o.Key != key || o.Size != size || o.DeleteMarker {
		c.Errorf("Stat %q shows key %q and %d bytes, %d were put", key, o.Key, o.Size, size)
	}
	if !o.Latest {
		c.Errorf("Stat %q without a version does not show the latest one", key)
	}
	if age := time.Since(o.Created); age < -10*time.Minute || age > 24*time.Hour {
		c.Errorf("Stat %q shows the creation time %s", key, o.Created)
	}
	c.checksum("Stat", o, content())
	c.reads(key, storage.OpenOptions{}, content())
	if keys := c.list(storage.ListOptions{Prefix: key}); len(keys) == 0 || keys[0].Key != key || keys[0].Size != size {
		c.Errorf("List does not show %q with %d bytes: %v", key, size, keys)
	}
}

// reads checks that Open delivers exactly want.
func (c *suite) reads(key string, opts storage.OpenOptions, want io.Reader) {
	c.Helper()
	body, err := c.bucket.Open(c.ctx, key, opts)
	if err != nil {
		c.Fatalf("Open %q %+v: %v", key, opts, err)
	}
	if err := sameBytes(body, want); err != nil {
		c.Errorf("Open %q %+v: %v", key, opts, err)
	}
	if err := body.Close(); err != nil {
		c.Errorf("Close the body of %q: %v", key, err)
	}
}

// list collects a listing.
func (c *suite) list(opts storage.ListOptions) []storage.Object {
	c.Helper()
	var all []storage.Object
	for o, err := range c.bucket.List(c.ctx, opts) {
		if err != nil {
			c.Fatalf("List %+v: %v", opts, err)
		}
		all = append(all, o)
	}
	return all
}

// keys collects the keys of a listing.
func (c *suite) keys(opts storage.ListOptions) []string {
	c.Helper()
	keys := []string{}
	for _, o := range c.list(opts) {
		keys = append(keys, o.Key)
	}
	return keys
}

// absent checks that nothing is visible under key, in no way of looking.
func (c *suite) absent(key string) {
	c.Helper()
	_, err := c.bucket.Stat(c.ctx, key, "")
	c.failed(err, "stat", key, storage.ErrNotExist)
	body, err := c.bucket.Open(c.ctx, key, storage.OpenOptions{})
	c.failed(err, "open", key, storage.ErrNotExist)
	if err == nil {
		body.Close()
	}
	for _, o := range c.list(storage.ListOptions{Prefix: key, Versions: true}) {
		if o.Key == key && !o.DeleteMarker {
			c.Errorf("List shows %q, %d bytes, version %q: it should not exist", key, o.Size, o.Version)
		}
	}
}

// nothing checks that the store is as empty as at the start.
func (c *suite) nothing() {
	c.Helper()
	if keys := c.keys(storage.ListOptions{Versions: true}); len(keys) > 0 {
		c.Errorf("objects are visible: %s", quoted(keys))
	}
	c.noLeftovers()
}

func (c *suite) noLeftovers() {
	c.Helper()
	if left := c.store.Leftovers(c.TB); len(left) > 0 {
		c.Errorf("unfinished uploads or temporary files are left: %s", quoted(left))
	}
}

// failed checks a failure: a *storage.Error that names operation and key and
// is each of kinds.
func (c *suite) failed(err error, op, key string, kinds ...error) {
	c.Helper()
	if err == nil {
		c.Errorf("%s %q succeeded, expected %v", op, key, kinds)
		return
	}
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			c.Errorf("%s %q: the error is not %q: %v", op, key, kind, err)
		}
	}
	var e *storage.Error
	if !errors.As(err, &e) {
		c.Errorf("%s %q: the error is a %T, not a *storage.Error: %v", op, key, err, err)
		return
	}
	if e.Op != op || e.Key != key {
		c.Errorf("%s %q: the error names %s %q: %v", op, key, e.Op, e.Key, err)
	}
	if c.prefix != "" && strings.Contains(err.Error(), op+" "+c.prefix) {
		c.Errorf("%s %q: the error's key is not relative: %v", op, key, err)
	}
}

// refusedUnread checks that Put refused an option before it read anything.
func (c *suite) refusedUnread(what, key string, opts storage.PutOptions, kind error) {
	c.Helper()
	_, source, err := c.tryPut(c.ctx, key, c.content(key, 100), opts)
	c.failed(err, "put", key, kind)
	if n := source.reads.Load(); n > 0 {
		c.Errorf("%s: the source was read %d times before it was refused", what, n)
	}
}
