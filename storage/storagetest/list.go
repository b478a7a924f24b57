package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/pgstow/pgstow/storage"
)

func listChecks() []check {
	checks := []check{
		{"list/empty", listEmpty},
		{"list/order", listOrder},
		{"list/prefix", listPrefix},
		{"list/start after", listStartAfter},
		{"list/pages", listPages},
		{"list/early break", listEarlyBreak},
		{"list/cancelled", listCancelled},
		{"list/neighbours", listNeighbours},
		{"keys/long", keysLong},
		{"keys/object and folder", keysObjectAndFolder},
	}
	// One case per odd key, so that a server's quirk hides no other key.
	for _, key := range oddKeys {
		checks = append(checks, check{"keys/" + key, func(c *suite) { keyOdd(c, key) }})
	}
	return checks
}

var oddKeys = []string{
	"spa ce/two  spaces", " lead and trail ", "ünïcode/文字/🙂", "e\u0301 decomposed", "per%cent/%2F%20%zz",
	"plus+plus", "amp&and=eq?query#fragment", "quote'\"`", "back\\slash", "semi;colon,comma", "~tilde*star",
	"(paren)[bracket]{brace}", "<lt>&gt;", "pipe|colon:at@dollar$!^", "...three dots", "..two/..x/x..", ".hidden/.file",
	"-dash", "Case", "trailing.", "a/b/c/d/e/f/g/h/i/j/k",
}

// put1 creates a small object whose bytes belong to its key.
func (c *suite) put1(key string) {
	c.Helper()
	if _, err := storage.PutBytes(c.ctx, c.bucket, key, c.bytesOf(key, 10), storage.PutOptions{}); err != nil {
		c.Fatalf("PutBytes %q: %v", key, err)
	}
}

func (c *suite) lists(opts storage.ListOptions, want []string) {
	c.Helper()
	if got := c.keys(opts); !slices.Equal(got, want) {
		c.Errorf("List %+v:\n got %q\nwant %q", opts, got, want)
	}
}

func listEmpty(c *suite) {
	c.lists(storage.ListOptions{}, []string{})
	c.lists(storage.ListOptions{Versions: true}, []string{})
	c.lists(storage.ListOptions{Prefix: "no/such/"}, []string{})
	if all := c.uploadsIfAny(); len(all) > 0 {
		c.Errorf("an empty store has uploads: %+v", all)
	}
}

func (c *suite) uploadsIfAny() []storage.Upload {
	if _, ok := c.store.Bucket.(storage.UploadSweeper); !ok {
		return nil
	}
	return c.uploads("")
}

// orderKeys sort differently as bytes, as paths walked folder by folder, and
// by any locale.
var orderKeys = []string{
	"a-b", "a.b", "a/b", "a/b-c", "a/b.c/d", "a/bb/c", "a/bb-c", "a/c", "a0", "aa", "A", "B/a", "b", "ab/x", "a b", "a!b/c",
	"z/1", "z/10", "z/2", "ä", "é/a", "\U0001F600", "\uFFFD",
}

func (c *suite) putOrder() []string {
	c.Helper()
	for _, key := range orderKeys {
		c.put1(key)
	}
	return slices.Sorted(slices.Values(orderKeys))
}

func listOrder(c *suite) {
	sorted := c.putOrder()
	c.lists(storage.ListOptions{}, sorted)
	c.lists(storage.ListOptions{Versions: true}, sorted)
	for _, o := range c.list(storage.ListOptions{}) {
		if o.Size != 10 || !o.Latest || o.DeleteMarker || o.Created.IsZero() {
			c.Errorf("List shows %+v", o)
		}
	}
}

func listPrefix(c *suite) {
	sorted := c.putOrder()
	for _, prefix := range []string{"a", "a/", "a/b", "a/b/", "a/b/c", "a!", "z/1", "zz", "ä", "é/", "A", "b/", "a/b.c/"} {
		want := []string{}
		for _, key := range sorted {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		c.lists(storage.ListOptions{Prefix: prefix}, want)
		c.lists(storage.ListOptions{Prefix: prefix, Versions: true}, want)
	}
}

func listStartAfter(c *suite) {
	sorted := c.putOrder()
	after := append([]string{"a", "a/", "a/b0", "a-", "0", "zzz", "\U0010FFFF"}, sorted...)
	for _, prefix := range []string{"", "a", "a/", "z/"} {
		for _, start := range after {
			want := []string{}
			for _, key := range sorted {
				if strings.HasPrefix(key, prefix) && key > start {
					want = append(want, key)
				}
			}
			c.lists(storage.ListOptions{Prefix: prefix, StartAfter: start}, want)
		}
	}
}

// fill creates n small objects side by side and returns their sorted keys.
func (c *suite) fill(n int) []string {
	c.Helper()
	keys := make([]string, n)
	next := make(chan int)
	var mu sync.Mutex
	var failure error
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range next {
				keys[i] = fmt.Sprintf("many/%04d/%d", i*7919%n, i%3)
				if _, err := storage.PutBytes(c.ctx, c.bucket, keys[i], []byte{byte(i)}, storage.PutOptions{}); err != nil {
					mu.Lock()
					failure = errors.Join(failure, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	if failure != nil {
		c.Fatalf("create %d objects: %v", n, failure)
	}
	slices.Sort(keys)
	return keys
}

func listPages(c *suite) {
	keys := c.fill(c.h.Many)
	c.lists(storage.ListOptions{}, keys)
	c.lists(storage.ListOptions{Prefix: "many/", Versions: true}, keys)
	last := len(keys) - 3
	c.lists(storage.ListOptions{StartAfter: keys[last]}, keys[last+1:])
	c.lists(storage.ListOptions{Prefix: "many/0", StartAfter: keys[1]}, slices.DeleteFunc(slices.Clone(keys[2:]),
		func(key string) bool { return !strings.HasPrefix(key, "many/0") }))
}

func listEarlyBreak(c *suite) {
	sorted := c.putOrder()
	for n := range 4 {
		var got []string
		for o, err := range c.bucket.List(c.ctx, storage.ListOptions{}) {
			if err != nil {
				c.Fatalf("List: %v", err)
			}
			if got = append(got, o.Key); len(got) > n {
				break
			}
		}
		if !slices.Equal(got, sorted[:n+1]) {
			c.Errorf("broken off after %d, List gave %q", n+1, got)
		}
	}
	// A sequence can be walked again.
	seq := c.bucket.List(c.ctx, storage.ListOptions{})
	for range 2 {
		n := 0
		for _, err := range seq {
			if err != nil {
				c.Fatalf("List: %v", err)
			}
			n++
		}
		if n != len(sorted) {
			c.Errorf("walked again, the sequence gave %d of %d objects", n, len(sorted))
		}
	}
}

func listCancelled(c *suite) {
	c.putOrder()
	ctx, cancel := context.WithCancelCause(c.ctx)
	cancel(errCancelled)
	var last error
	n := 0
	for _, err := range c.bucket.List(ctx, storage.ListOptions{}) {
		if last != nil {
			c.Fatal("List went on after an error")
		}
		last = err
		n++
	}
	if last == nil {
		c.Fatalf("List under a cancelled context gave %d objects and no error", n)
	}
	c.failed(last, "list", "", errCancelled)
}

// listNeighbours: what lies beside a prefix is not seen from inside.
func listNeighbours(c *suite) {
	if c.prefix == "" {
		return
	}
	bare := strings.TrimSuffix(c.prefix, "/")
	for _, key := range []string{bare + "-beside", bare + "0", "another"} {
		if _, err := storage.PutBytes(c.ctx, c.store.Bucket, key, []byte("neighbour"), storage.PutOptions{}); err != nil {
			c.Fatalf("PutBytes %q: %v", key, err)
		}
	}
	c.lists(storage.ListOptions{}, []string{})
	c.lists(storage.ListOptions{Versions: true}, []string{})
	c.put1("inside")
	c.lists(storage.ListOptions{}, []string{"inside"})
	c.lists(storage.ListOptions{StartAfter: "inside"}, []string{})
	c.absent("another")
}

func keyOdd(c *suite, key string) {
	size := c.h.PartSize + 1
	c.put(key, size, storage.PutOptions{})
	c.whole(key, size)
	c.lists(storage.ListOptions{}, []string{key})
	c.lists(storage.ListOptions{Prefix: key[:1], Versions: true}, []string{key})
	c.lists(storage.ListOptions{StartAfter: key}, []string{})
	small := "small/" + key
	c.put1(small)
	c.lists(storage.ListOptions{Prefix: "small/"}, []string{small})
	c.noLeftovers()
	for _, k := range []string{key, small} {
		if err := c.bucket.Delete(c.ctx, k, ""); err != nil {
			c.Errorf("Delete %q: %v", k, err)
		}
	}
	c.lists(storage.ListOptions{}, []string{})
}

// keysLong: the longest allowed key works, in segments a file system can hold.
func keysLong(c *suite) {
	room := storage.MaxKey - len(c.prefix)
	key := strings.Repeat(strings.Repeat("k", 99)+"/", 10)[:room-1] + "z"
	c.put(key, 1000, storage.PutOptions{})
	c.whole(key, 1000)
	c.lists(storage.ListOptions{}, []string{key})
	c.refusedUnread("a key one byte too long", key+"z", storage.PutOptions{}, storage.ErrInvalidKey)
}

// keysObjectAndFolder: "x" and "x/y" can both be objects. pgstow never needs
// it; file systems cannot and declare a quirk.
func keysObjectAndFolder(c *suite) {
	for _, key := range []string{"x", "x/y", "p/q/r", "p/q"} {
		c.put1(key)
	}
	c.lists(storage.ListOptions{}, []string{"p/q", "p/q/r", "x", "x/y"})
}
