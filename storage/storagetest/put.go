package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing/iotest"
	"time"

	"github.com/pgstow/pgstow/storage"
)

func putChecks() []check {
	return []check{
		{"capabilities", capabilities},
		{"put/sizes", putSizes},
		{"put/known size", putKnownSize},
		{"put/size differs", putSizeDiffers},
		{"put/estimates", putEstimates},
		{"put/odd readers", putOddReaders},
		{"put/bytes", putBytes},
		{"put/create-only", putCreateOnly},
		{"put/racing creators", putRacing},
		{"put/invalid keys", putInvalidKeys},
		{"put/metadata", putMetadata},
		{"put/tags", putTags},
		{"put/storage class", putStorageClass},
		{"put/tags refused", putTagsRefused},
		{"put/encryption", putEncryption},
		{"put/encryption refused", putEncryptionRefused},
		{"put/custom time", putCustomTime},
		{"put/locks refused", putLocksRefused},
	}
}

func capabilities(c *suite) {
	if got := c.bucket.Capabilities(); !reflect.DeepEqual(got, c.h.Want) {
		c.Errorf("the bucket reports %+v, expected %+v", got, c.h.Want)
	}
}

// sizes are the lengths at which part loops go wrong.
func (c *suite) sizes() []int64 {
	p := c.h.PartSize
	return []int64{0, 1, p - 1, p, p + 1, 3*p + 1}
}

func putSizes(c *suite) {
	for _, size := range c.sizes() {
		key := fmt.Sprintf("sizes/%d", size)
		c.put(key, size, storage.PutOptions{})
		c.whole(key, size)
	}
	c.noLeftovers()
}

func putKnownSize(c *suite) {
	for _, size := range []int64{1, 1000, c.h.PartSize} {
		key := fmt.Sprintf("known/%d", size)
		c.put(key, size, storage.PutOptions{Size: size})
		c.whole(key, size)
	}
	c.noLeftovers()
}

func putSizeDiffers(c *suite) {
	for _, delivered := range []int64{0, 999, 1001, 5000} {
		key := fmt.Sprintf("differs/%d", delivered)
		_, _, err := c.tryPut(c.ctx, key, c.content(key, delivered), storage.PutOptions{Size: 1000})
		c.failed(err, "put", key)
		c.absent(key)
	}
	c.nothing()
}

func putEstimates(c *suite) {
	size := 2*c.h.PartSize + 1
	for _, estimate := range []int64{1, size, 10 << 30} {
		key := fmt.Sprintf("estimated/%d", estimate)
		c.put(key, size, storage.PutOptions{SizeEstimate: estimate})
		c.whole(key, size)
	}
}

func putOddReaders(c *suite) {
	for name, odd := range map[string]func(io.Reader) io.Reader{
		"one byte":        iotest.OneByteReader,
		"half":            iotest.HalfReader,
		"data with EOF":   iotest.DataErrReader,
		"reads of 0, nil": func(r io.Reader) io.Reader { return &hesitant{r: r} },
	} {
		for _, size := range []int64{1, c.h.PartSize, c.h.PartSize + 1} {
			key := fmt.Sprintf("%s/%d", name, size)
			o, _, err := c.tryPut(c.ctx, key, odd(c.content(key, size)), storage.PutOptions{})
			if err != nil {
				c.Fatalf("Put %q: %v", key, err)
			}
			c.confirmed(o, key, size, c.content(key, size))
			c.whole(key, size)
		}
	}
}

// hesitant answers every other Read with 0, nil, as io.Reader allows.
type hesitant struct {
	r   io.Reader
	odd bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.odd = !h.odd; h.odd {
		return 0, nil
	}
	return h.r.Read(p)
}

func putBytes(c *suite) {
	for _, size := range []int64{0, 1, 4096} {
		key := fmt.Sprintf("small/%d.json", size)
		o, err := storage.PutBytes(c.ctx, c.bucket, key, c.bytesOf(key, size), storage.PutOptions{})
		if err != nil {
			c.Fatalf("PutBytes %q: %v", key, err)
		}
		c.confirmed(o, key, size, c.content(key, size))
		c.whole(key, size)
		_, err = storage.PutBytes(c.ctx, c.bucket, key, []byte("other"), storage.PutOptions{})
		c.failed(err, "put", key, storage.ErrExist)
		c.whole(key, size)
	}
	c.noLeftovers()
}

func putCreateOnly(c *suite) {
	size := c.h.PartSize + 1
	first := c.put("taken", size, storage.PutOptions{})
	for _, n := range []int64{0, 1, size, 3*c.h.PartSize + 1} {
		_, _, err := c.tryPut(c.ctx, "taken", c.content("another", n), storage.PutOptions{})
		c.failed(err, "put", "taken", storage.ErrExist)
	}
	c.whole("taken", size)
	versions := c.list(storage.ListOptions{Prefix: "taken", Versions: true})
	if len(versions) != 1 || versions[0].Version != first.Version {
		c.Errorf("after refused Puts the versions are %+v, expected the first alone (%q)", versions, first.Version)
	}
	c.noLeftovers()
}

func putRacing(c *suite) {
	const racers = 5
	size := c.h.PartSize + 1
	errs := make([]error, racers)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() {
			<-start
			_, _, errs[i] = c.tryPut(c.ctx, "race", c.content(racer(i), size), storage.PutOptions{})
		})
	}
	close(start)
	all.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err != nil:
			c.failed(err, "put", "race", storage.ErrExist)
		case won >= 0:
			c.Errorf("both racer %d and racer %d were told that they created the object", won, i)
		default:
			won = i
		}
	}
	if won < 0 {
		c.Fatal("no racer won")
	}
	c.holds("race", size, func() io.Reader { return c.content(racer(won), size) })
	if versions := c.list(storage.ListOptions{Prefix: "race", Versions: true}); len(versions) != 1 {
		c.Errorf("the race left %d versions: %+v", len(versions), versions)
	}
	c.noLeftovers()
}

func racer(i int) string { return fmt.Sprintf("racer %d", i) }

// invalidKeys are keys that CheckKey refuses and that stores would take or bend.
var invalidKeys = []string{"", "/", "/lead", "trail/", "a//b", ".", "..", "a/./b", "../up", "a/../b", "a/..",
	"nul\x00", "bad\xff", strings.Repeat("k", storage.MaxKey+1)}

func putInvalidKeys(c *suite) {
	for _, key := range invalidKeys {
		c.refusedUnread("invalid key", key, storage.PutOptions{}, storage.ErrInvalidKey)
		_, err := c.bucket.Open(c.ctx, key, storage.OpenOptions{})
		c.failed(err, "open", key, storage.ErrInvalidKey)
		_, err = c.bucket.Stat(c.ctx, key, "")
		c.failed(err, "stat", key, storage.ErrInvalidKey)
		c.failed(c.bucket.Delete(c.ctx, key, ""), "delete", key, storage.ErrInvalidKey)
	}
	c.nothing()
}

// putMetadata takes both ways of creating, known size and stream: in some
// stores they are different requests.
func putMetadata(c *suite) {
	want := map[string]string{"pgstow-id": "abc123", "plain": "a b=c;d", "n": "1"}
	for key, opts := range c.bothWays(1000) {
		opts.Metadata, opts.ContentType = want, "application/x-pgstow"
		put := c.put(key, 1000, opts)
		stat, err := c.bucket.Stat(c.ctx, key, "")
		if err != nil {
			c.Fatalf("Stat %q: %v", key, err)
		}
		if !c.h.Metadata {
			continue
		}
		if !maps.Equal(stat.Metadata, want) || stat.ContentType != opts.ContentType {
			c.Errorf("Stat %q shows content type %q and metadata %v", key, stat.ContentType, stat.Metadata)
		}
		if put.Version != stat.Version || put.ETag != stat.ETag || put.Checksum != stat.Checksum {
			c.Errorf("Put and Stat differ: %+v, %+v", put, stat)
		}
	}
}

// bothWays gives a key and options for a stream and for a known size.
func (c *suite) bothWays(size int64) map[string]storage.PutOptions {
	return map[string]storage.PutOptions{"ways/stream": {}, "ways/known": {Size: size}}
}

func putTags(c *suite) {
	want := map[string]string{"policy": "sox-7y", "owner": "finance team"}
	for key, opts := range c.bothWays(1000) {
		opts.Tags = want
		if !c.h.Want.Tags {
			c.refusedUnread("tags", key, opts, errors.ErrUnsupported)
			continue
		}
		c.put(key, 1000, opts)
		if o, err := c.bucket.Stat(c.ctx, key, ""); err != nil || !maps.Equal(o.Tags, want) {
			c.Errorf("Stat %q shows the tags %v, error %v", key, o.Tags, err)
		}
	}
}

// putTagsRefused: tags that S3 would not take are taken nowhere.
func putTagsRefused(c *suite) {
	if !c.h.Want.Tags {
		return
	}
	many := map[string]string{}
	for i := range storage.MaxTags + 1 {
		many[fmt.Sprintf("k%d", i)] = "v"
	}
	for what, tags := range map[string]map[string]string{
		"11 tags": many, "an empty key": {"": "v"}, "a key of the store's": {"aws:x": "v"},
		"a character": {"k": "a&b"}, "a long key": {strings.Repeat("k", 129): "v"}, "a long value": {"k": strings.Repeat("v", 257)},
	} {
		for key, opts := range c.bothWays(1000) {
			opts.Tags = tags
			c.refusedUnread(what, key, opts, errors.ErrUnsupported)
		}
	}
	c.nothing()
}

// putEncryption: what was asked for is shown, in the store's spelling, and the
// content comes back.
func putEncryption(c *suite) {
	size := c.h.PartSize + 1
	for i, want := range c.h.Encryption {
		for name, opts := range map[string]storage.PutOptions{"stream": {}, "known": {Size: size}} {
			key := fmt.Sprintf("encrypted/%d/%s", i, name)
			opts.Encryption = want
			c.put(key, size, opts)
			o, err := c.bucket.Stat(c.ctx, key, "")
			if err != nil || o.Encryption.IsZero() || !o.Encryption.Covers(want) {
				c.Errorf("Stat %q shows the encryption %+v, asked was %+v, error %v", key, o.Encryption, want, err)
			}
			c.whole(key, size)
		}
	}
	c.noLeftovers()
}

func putEncryptionRefused(c *suite) {
	refused := append([]storage.Encryption{{Mode: "rot13"}}, c.h.EncryptionRefused...)
	if !c.h.Want.Encryption {
		refused = append(refused, storage.Encryption{Mode: storage.EncryptionStore}, storage.Encryption{Mode: storage.EncryptionKMS})
	}
	for _, e := range refused {
		for key, opts := range c.bothWays(1000) {
			opts.Encryption = e
			c.refusedUnread(fmt.Sprintf("encryption %+v", e), key, opts, errors.ErrUnsupported)
		}
	}
	c.nothing()
}

func putStorageClass(c *suite) {
	if !c.h.Want.StorageClass {
		c.Log("the bucket has no storage classes; whether they are ignored or refused is the driver's to document")
		return
	}
	for key, opts := range c.bothWays(1000) {
		opts.StorageClass = c.h.StorageClass
		c.put(key, 1000, opts)
		if o, err := c.bucket.Stat(c.ctx, key, ""); err != nil || o.StorageClass != c.h.StorageClass {
			c.Errorf("Stat %q shows the storage class %q, error %v", key, o.StorageClass, err)
		}
	}
}

func putCustomTime(c *suite) {
	want := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	for key, opts := range c.bothWays(1000) {
		opts.CustomTime = want
		if !c.h.Want.CustomTime {
			c.refusedUnread("custom time", key, opts, errors.ErrUnsupported)
			continue
		}
		c.put(key, 1000, opts)
		if o, err := c.bucket.Stat(c.ctx, key, ""); err != nil || !o.CustomTime.Equal(want) {
			c.Errorf("Stat %q shows the custom time %s, error %v", key, o.CustomTime, err)
		}
	}
}

func putLocksRefused(c *suite) {
	until := time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	for key, opts := range c.bothWays(1000) {
		if !c.h.Want.ObjectLock {
			for _, mode := range []storage.LockMode{storage.Governance, storage.Compliance} {
				opts.Retention = storage.Retention{Mode: mode, Until: until}
				c.refusedUnread("retention", key, opts, errors.ErrUnsupported)
			}
		}
		if !c.h.Want.LegalHold {
			c.refusedUnread("legal hold", key, storage.PutOptions{Size: opts.Size, LegalHold: true}, errors.ErrUnsupported)
		}
	}
	c.nothing()
	if c.h.Want.ObjectLock || c.h.Want.LegalHold {
		return
	}
	_, err := storage.PutBytes(c.ctx, c.bucket, "plain", bytes.Repeat([]byte("x"), 10), storage.PutOptions{})
	if err != nil {
		c.Fatalf("PutBytes: %v", err)
	}
	for op, err := range map[string]error{
		"SetRetention": storage.SetRetention(c.ctx, c.bucket, "plain", "", storage.Retention{Mode: storage.Governance, Until: until}),
		"SetLegalHold": storage.SetLegalHold(c.ctx, c.bucket, "plain", "", true),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			c.Errorf("%s on a bucket that cannot lock: %v, expected errors.ErrUnsupported", op, err)
		}
	}
}
