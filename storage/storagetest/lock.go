package storagetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgstow/pgstow/storage"
)

func lockChecks() []check {
	return []check{
		{"lock/governance", func(c *suite) { retention(c, storage.Governance) }},
		{"lock/compliance", func(c *suite) { retention(c, storage.Compliance) }},
		{"lock/set later", retentionLater},
		{"lock/missing object", lockMissing},
		{"lock/legal hold", legalHold},
		{"lock/overwrite", lockOverwrite},
	}
}

// until is a retain-until time in whole seconds.
func (c *suite) until(factor int) time.Time {
	return time.Now().UTC().Truncate(time.Second).Add(time.Duration(factor) * c.h.RetainFor)
}

// retained checks what Stat shows.
func (c *suite) retained(key, version string, want storage.Retention) {
	c.Helper()
	o, err := c.bucket.Stat(c.ctx, key, version)
	if err != nil {
		c.Fatalf("Stat %q: %v", key, err)
	}
	if o.Retention.Mode != want.Mode || !o.Retention.Until.Equal(want.Until) {
		c.Errorf("Stat %q shows the retention %+v, expected %+v", key, o.Retention, want)
	}
}

// undeletable checks that the version stays and stays whole.
func (c *suite) undeletable(o storage.Object, size int64) {
	c.Helper()
	err := c.bucket.Delete(c.ctx, o.Key, o.Version)
	c.failed(err, "delete", o.Key, storage.ErrLocked)
	c.reads(o.Key, storage.OpenOptions{Version: o.Version}, c.content(o.Key, size))
}

func retention(c *suite, mode storage.LockMode) {
	if !c.h.Want.ObjectLock {
		return
	}
	for name, size := range map[string]int64{"stream": 2*c.h.PartSize + 1, "known": 1000} {
		key := "locked/" + name
		opts := storage.PutOptions{Retention: storage.Retention{Mode: mode, Until: c.until(2)}}
		if name == "known" {
			opts.Size = size
		}
		o := c.put(key, size, opts)
		c.retained(key, o.Version, opts.Retention)
		c.undeletable(o, size)

		shorter := storage.Retention{Mode: mode, Until: c.until(1)}
		err := storage.SetRetention(c.ctx, c.bucket, key, o.Version, shorter)
		c.failed(err, "retain", key, storage.ErrLocked)
		c.retained(key, o.Version, opts.Retention)

		longer := storage.Retention{Mode: mode, Until: c.until(3)}
		if err := storage.SetRetention(c.ctx, c.bucket, key, o.Version, longer); err != nil {
			c.Fatalf("SetRetention of %q to a later time: %v", key, err)
		}
		c.retained(key, o.Version, longer)
		c.undeletable(o, size)

		if mode == storage.Governance {
			firmer := storage.Retention{Mode: storage.Compliance, Until: longer.Until}
			if err := storage.SetRetention(c.ctx, c.bucket, key, o.Version, firmer); err != nil {
				c.Fatalf("SetRetention of %q to compliance: %v", key, err)
			}
			c.retained(key, o.Version, firmer)
		}
		if mode == storage.Compliance {
			err := storage.SetRetention(c.ctx, c.bucket, key, o.Version, storage.Retention{Mode: storage.Governance, Until: c.until(4)})
			c.failed(err, "retain", key, storage.ErrLocked)
			c.retained(key, o.Version, longer)
		}
	}
	c.noLeftovers()
}

// retentionLater locks an object that was created without a lock.
func retentionLater(c *suite) {
	if !c.h.Want.ObjectLock {
		return
	}
	o := c.put("later", 1000, storage.PutOptions{})
	c.retained("later", o.Version, storage.Retention{})
	want := storage.Retention{Mode: storage.Governance, Until: c.until(1)}
	if err := storage.SetRetention(c.ctx, c.bucket, "later", o.Version, want); err != nil {
		c.Fatalf("SetRetention: %v", err)
	}
	c.retained("later", o.Version, want)
	c.undeletable(o, 1000)
}

func lockMissing(c *suite) {
	if c.h.Want.ObjectLock {
		err := storage.SetRetention(c.ctx, c.bucket, "nowhere", "", storage.Retention{Mode: storage.Governance, Until: c.until(1)})
		c.failed(err, "retain", "nowhere", storage.ErrNotExist)
	}
	if c.h.Want.LegalHold {
		c.failed(storage.SetLegalHold(c.ctx, c.bucket, "nowhere", "", true), "hold", "nowhere", storage.ErrNotExist)
	}
}

func (c *suite) held(key, version string, want bool) {
	c.Helper()
	if o, err := c.bucket.Stat(c.ctx, key, version); err != nil || o.LegalHold != want {
		c.Errorf("Stat %q shows the legal hold %t, expected %t, error %v", key, o.LegalHold, want, err)
	}
}

func legalHold(c *suite) {
	if !c.h.Want.LegalHold {
		return
	}
	for name, size := range map[string]int64{"stream": 2*c.h.PartSize + 1, "known": 1000} {
		key := "held/" + name
		opts := storage.PutOptions{LegalHold: true}
		if name == "known" {
			opts.Size = size
		}
		o := c.put(key, size, opts)
		for range 2 { // set with the creation, then again later
			c.held(key, o.Version, true)
			c.undeletable(o, size)
			if err := storage.SetLegalHold(c.ctx, c.bucket, key, o.Version, false); err != nil {
				c.Fatalf("release the hold of %q: %v", key, err)
			}
			c.held(key, o.Version, false)
			if err := storage.SetLegalHold(c.ctx, c.bucket, key, o.Version, true); err != nil {
				c.Fatalf("set the hold of %q: %v", key, err)
			}
		}
		if err := storage.SetLegalHold(c.ctx, c.bucket, key, o.Version, false); err != nil {
			c.Fatalf("release the hold of %q: %v", key, err)
		}
		if err := c.bucket.Delete(c.ctx, key, o.Version); err != nil {
			c.Errorf("Delete %q after its hold was released: %v", key, err)
		}
		c.absent(key)
	}
}

// lockOverwrite: a locked key is neither replaced nor hidden by a Put.
func lockOverwrite(c *suite) {
	if !c.h.Want.ObjectLock {
		return
	}
	opts := storage.PutOptions{Retention: storage.Retention{Mode: storage.Governance, Until: c.until(1)}}
	o := c.put("firm", 1000, opts)
	for name, try := range c.bothWays(500) {
		try.Retention = opts.Retention
		_, _, err := c.tryPut(c.ctx, "firm", c.content(name, 500), try)
		c.failed(err, "put", "firm", storage.ErrExist)
	}
	c.whole("firm", 1000)
	if versions := c.list(storage.ListOptions{Prefix: "firm", Versions: true}); len(versions) != 1 || versions[0].Version != o.Version {
		c.Errorf("the versions are %+v", versions)
	}
	// Deleting the newest may add a marker, but the version itself stays.
	err := c.bucket.Delete(c.ctx, "firm", "")
	if err != nil && !errors.Is(err, storage.ErrLocked) {
		c.Errorf("Delete: %v", err)
	}
	c.reads("firm", storage.OpenOptions{Version: o.Version}, c.content("firm", 1000))
	c.retained("firm", o.Version, opts.Retention)
	for i, v := range c.list(storage.ListOptions{Prefix: "firm", Versions: true}) {
		if !v.DeleteMarker && v.Version != o.Version {
			c.Errorf("version %d is %s", i, fmt.Sprintf("%+v", v))
		}
	}
}
