package storagetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// keepChecks are about how protection is shown, and what else keeps objects.
func keepChecks() []check {
	return []check{
		{"keep/denied", keepDenied},
		{"keep/bucket default", func(c *suite) { keepDefault(c, false) }},
		{"keep/bucket default is shown", func(c *suite) { keepDefault(c, true) }},
		{"keep/bucket default is a floor", keepDefaultFloor},
		{"keep/custom time", keepCustomTime},
		{"keep/no thaw needed", noThawNeeded},
		{"delete/batch", deleteBatch},
		{"delete/batch with locked ones", deleteBatchLocked},
	}
}

// keepDenied: what credentials may not see is not shown as absent. Nor is it
// denied where it may be seen and is not there.
func keepDenied(c *suite) {
	full := storage.PutOptions{Tags: map[string]string{"policy": "sox-7y"}}
	if !c.h.Want.Tags {
		full.Tags = nil
	}
	if c.h.Want.ObjectLock {
		full.Retention = storage.Retention{Mode: storage.Governance, Until: c.until(1)}
	}
	full.LegalHold = c.h.Want.LegalHold
	c.put("bare", 1000, storage.PutOptions{})
	c.put("full", 1000, full)
	for range 2 { // what was learnt from one object must not mislead about another
		c.shown(c.bucket, "bare", storage.PutOptions{})
		c.shown(c.bucket, "full", full)
	}
	if !c.has(HookBlind, c.store.Blind != nil) {
		return
	}
	b, denied := c.store.Blind(c.TB)
	c.others = append(c.others, b)
	b = storage.Prefixed(b, c.prefix)
	for _, key := range []string{"full", "bare", "full"} {
		o, err := b.Stat(c.ctx, key, "")
		if err != nil {
			c.Fatalf("Stat %q by credentials that may not see all: %v", key, err)
		}
		slices.Sort(denied)
		if slices.Sort(o.Denied); !slices.Equal(o.Denied, denied) {
			c.Errorf("Stat %q says that %q is denied, expected %q", key, o.Denied, denied)
		}
		for _, what := range denied {
			seen := map[storage.Attribute]bool{
				storage.AttributeRetention: !o.Retention.IsZero(), storage.AttributeLegalHold: o.LegalHold,
				storage.AttributeTags: len(o.Tags) > 0,
			}
			if seen[what] {
				c.Errorf("Stat %q shows what is denied: %s", key, what)
			}
		}
	}
	if c.h.Want.LegalHold {
		if err := storage.SetLegalHold(c.ctx, c.bucket, "full", "", false); err != nil {
			c.Errorf("release the hold: %v", err)
		}
	}
}

// shown checks that credentials which may see all see it.
func (c *suite) shown(b storage.Bucket, key string, want storage.PutOptions) {
	c.Helper()
	o, err := b.Stat(c.ctx, key, "")
	if err != nil {
		c.Fatalf("Stat %q: %v", key, err)
	}
	if len(o.Denied) > 0 {
		c.Errorf("Stat %q says that %q is denied", key, o.Denied)
	}
	if o.Retention.Mode != want.Retention.Mode || !o.Retention.Until.Equal(want.Retention.Until) ||
		o.LegalHold != want.LegalHold || len(o.Tags)+len(want.Tags) > 0 && !maps.Equal(o.Tags, want.Tags) {
		c.Errorf("Stat %q shows %+v, hold %t, tags %v; put was %+v", key, o.Retention, o.LegalHold, o.Tags, want)
	}
}

// withDefault opens a bucket that keeps by itself, nil where there is none.
func (c *suite) withDefault() (storage.Bucket, storage.DefaultRetention) {
	c.Helper()
	if !c.has(HookDefaultRetention, c.h.DefaultRetention != nil) {
		return nil, storage.DefaultRetention{}
	}
	b, want := c.h.DefaultRetention(c.TB)
	c.others = append(c.others, b)
	if got := b.Capabilities().DefaultRetention; got != want || want.IsZero() {
		c.Errorf("the bucket reports the default retention %+v, expected %+v", got, want)
	}
	return storage.Prefixed(b, c.prefix), want
}

// keptUntil is how long the bucket keeps what is created at t.
func keptUntil(d storage.DefaultRetention, t time.Time) time.Time {
	return t.UTC().AddDate(d.Years, 0, d.Days).Add(d.Period)
}

// keepDefault: an object that asks for nothing is kept as the bucket says.
func keepDefault(c *suite, shown bool) {
	b, want := c.withDefault()
	if b == nil {
		return
	}
	for name, opts := range c.bothWays(1000) {
		o, err := b.Put(c.ctx, name, c.content(name, 1000), opts)
		if err != nil {
			c.Fatalf("Put %q: %v", name, err)
		}
		c.failed(b.Delete(c.ctx, name, o.Version), "delete", name, storage.ErrLocked)
		if !shown {
			continue
		}
		stat, err := b.Stat(c.ctx, name, o.Version)
		if err != nil {
			c.Fatalf("Stat %q: %v", name, err)
		}
		// Stores reckon from when they began or ended to take the object.
		least := storage.Retention{Mode: want.Mode, Until: keptUntil(want, stat.Created).Add(-time.Minute)}
		if !stat.Retention.Covers(least) || stat.Retention.Until.After(least.Until.Add(2*time.Minute)) {
			c.Errorf("Stat %q, created %s, shows the retention %+v; the bucket keeps as %+v", name, stat.Created, stat.Retention, want)
		}
	}
}

// keepDefaultFloor: an object asks for more than the bucket's default.
func keepDefaultFloor(c *suite) {
	b, want := c.withDefault()
	if b == nil || !b.Capabilities().ObjectLock {
		return
	}
	until := keptUntil(want, time.Now()).Truncate(time.Second).Add(c.h.RetainFor)
	longer := storage.Retention{Mode: want.Mode, Until: until}
	for name, opts := range c.bothWays(1000) {
		opts.Retention = longer
		o, err := b.Put(c.ctx, name, c.content(name, 1000), opts)
		if err != nil {
			c.Fatalf("Put %q: %v", name, err)
		}
		if stat, err := b.Stat(c.ctx, name, o.Version); err != nil || !stat.Retention.Covers(longer) {
			c.Errorf("Stat %q shows the retention %+v, asked was %+v, error %v", name, stat.Retention, longer, err)
		}
		c.failed(b.Delete(c.ctx, name, o.Version), "delete", name, storage.ErrLocked)
	}
}

// keepCustomTime: it moves forward and never back, whether or not there was one.
func keepCustomTime(c *suite) {
	start := time.Now().UTC().Truncate(time.Second).Add(-24 * time.Hour)
	if !c.h.Want.CustomTime {
		c.put("plain", 10, storage.PutOptions{})
		if err := storage.SetCustomTime(c.ctx, c.bucket, "plain", "", start); !errors.Is(err, errors.ErrUnsupported) {
			c.Errorf("SetCustomTime in a bucket that has none: %v", err)
		}
		return
	}
	for key, first := range map[string]time.Time{"timed": start, "untimed": {}} {
		o := c.put(key, 10, storage.PutOptions{CustomTime: first})
		for _, hours := range []int{1, 1, 48} { // the same again is no error
			at := start.Add(time.Duration(hours) * time.Hour)
			if err := storage.SetCustomTime(c.ctx, c.bucket, key, o.Version, at); err != nil {
				c.Fatalf("SetCustomTime of %q to %s: %v", key, at, err)
			}
			c.timed(key, at)
		}
		for _, back := range []time.Duration{time.Second, 24 * time.Hour} {
			err := storage.SetCustomTime(c.ctx, c.bucket, key, o.Version, start.Add(48*time.Hour-back))
			c.failed(err, "set custom time", key, storage.ErrLocked)
			c.timed(key, start.Add(48*time.Hour))
		}
		c.whole(key, 10)
	}
	err := storage.SetCustomTime(c.ctx, c.bucket, "nowhere", "", start)
	c.failed(err, "set custom time", "nowhere", storage.ErrNotExist)
}

func (c *suite) timed(key string, want time.Time) {
	c.Helper()
	if o, err := c.bucket.Stat(c.ctx, key, ""); err != nil || !o.CustomTime.Equal(want) {
		c.Errorf("Stat %q shows the custom time %s, expected %s, error %v", key, o.CustomTime, want, err)
	}
}

// noThawNeeded: what is read as it is shows no cold class and is not thawed.
func noThawNeeded(c *suite) {
	c.put("warm", 1000, storage.PutOptions{})
	o, err := c.bucket.Stat(c.ctx, "warm", "")
	if err != nil || o.Thaw != (storage.Thaw{}) || !o.Thaw.Readable(time.Now()) {
		c.Errorf("Stat shows the thaw %+v, error %v", o.Thaw, err)
	}
	for _, tier := range []storage.ThawTier{storage.ThawExpedited, storage.ThawStandard, storage.ThawBulk} {
		err := storage.StartThaw(c.ctx, c.bucket, "warm", o.Version, storage.ThawOptions{Tier: tier, Days: 1})
		if !errors.Is(err, errors.ErrUnsupported) {
			c.Errorf("a thaw of a class that needs none: %v", err)
		}
	}
	c.whole("warm", 1000)
}

// deleteBatch: more than a store's batch, odd keys, versions that are not there;
// one error each, and nothing else is touched.
func deleteBatch(c *suite) {
	keys := make([]storage.VersionKey, c.h.Many+1)
	var all sync.WaitGroup
	next := make(chan int)
	for range 16 {
		all.Go(func() {
			for i := range next {
				o, err := storage.PutBytes(c.ctx, c.bucket, keys[i].Key, []byte("x"), storage.PutOptions{})
				if err != nil {
					c.Errorf("PutBytes %q: %v", keys[i].Key, err)
				}
				keys[i].Version = o.Version
			}
		})
	}
	for i := range keys {
		keys[i].Key = fmt.Sprintf("batch/%04d", i)
		if i == c.h.Many {
			keys[i].Key = "batch/a b+c&d<e>\"ü%20"
		}
		next <- i
	}
	close(next)
	all.Wait()
	c.put("batched", 10, storage.PutOptions{})
	asked := append(slices.Clone(keys), storage.VersionKey{Key: "batch/nowhere"}, storage.VersionKey{Key: "batch//bad"}, keys[0])
	errs := storage.DeleteVersions(c.ctx, c.bucket, asked)
	if len(errs) != len(asked) {
		c.Fatalf("%d errors for %d keys", len(errs), len(asked))
	}
	for i, err := range errs {
		if asked[i].Key == "batch//bad" {
			c.failed(err, "delete", asked[i].Key, storage.ErrInvalidKey)
		} else if err != nil {
			c.Errorf("%+v: %v", asked[i], err)
		}
	}
	for _, o := range c.list(storage.ListOptions{Prefix: "batch/", Versions: true}) {
		if !o.DeleteMarker || o.Key != "batch/nowhere" { // what deleting a missing newest leaves in some stores
			c.Errorf("%q %q is left", o.Key, o.Version)
		}
	}
	c.whole("batched", 10)
	if errs := storage.DeleteVersions(c.ctx, c.bucket, nil); len(errs) != 0 {
		c.Errorf("errors for no keys: %v", errs)
	}
}

// deleteBatchLocked: what is protected stays and says so, beside others that go.
func deleteBatchLocked(c *suite) {
	if !c.h.Want.ObjectLock || !c.h.Want.LegalHold {
		return
	}
	options := map[string]storage.PutOptions{
		"free": {}, "gone": {}, "held": {LegalHold: true},
		"governed": {Retention: storage.Retention{Mode: storage.Governance, Until: c.until(1)}},
		"complied": {Retention: storage.Retention{Mode: storage.Compliance, Until: c.until(1)}},
	}
	var keys []storage.VersionKey
	for _, key := range slices.Sorted(maps.Keys(options)) {
		o := c.put(key, 100, options[key])
		keys = append(keys, storage.VersionKey{Key: key, Version: o.Version})
		if key == "gone" {
			if err := c.bucket.Delete(c.ctx, key, o.Version); err != nil {
				c.Fatalf("Delete %q: %v", key, err)
			}
		}
	}
	errs := storage.DeleteVersions(c.ctx, c.bucket, keys)
	for i, k := range keys {
		if k.Key == "free" || k.Key == "gone" {
			if errs[i] != nil {
				c.Errorf("%q: %v", k.Key, errs[i])
			}
			c.absent(k.Key)
			continue
		}
		c.failed(errs[i], "delete", k.Key, storage.ErrLocked)
		c.reads(k.Key, storage.OpenOptions{Version: k.Version}, c.content(k.Key, 100))
	}
	if err := storage.SetLegalHold(c.ctx, c.bucket, "held", "", false); err != nil {
		c.Errorf("release the hold: %v", err)
	}
}
