package archiver

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// counting counts operations, and how many are under way at once.
type counting struct {
	*storagetest.Memory
	opened, stats, now, most atomic.Int64
}

func (c *counting) enter() func() {
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	return func() { c.now.Add(-1) }
}

func (c *counting) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	defer c.enter()()
	c.opened.Add(1)
	return c.Memory.Open(ctx, key, opts)
}

func (c *counting) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	defer c.enter()()
	c.stats.Add(1)
	return c.Memory.Stat(ctx, key, version)
}

// An audit of ten thousand archives asks once about each object, a bounded number
// at once, and keeps of each archive what the report needs and no more.
func TestAuditOfTenThousand(t *testing.T) {
	const labels, each, objects = 28, 365, 4
	const n = labels * each
	b := &counting{Memory: storagetest.NewMemory(storagetest.MemoryOptions{PartSize: 4 << 10, Versions: true, Lock: true})}
	terms := auditTerms()
	terms.Keep = Period{Years: 7}
	for l := range labels {
		for i := range each {
			auditArchive(t, b.Memory, fmt.Sprintf("database-%02d", l), fmt.Sprintf("a%03d%04d", l, i), 24*(each-i)-20, terms, nil)
		}
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	told, last := 0, 0
	opts := AuditOptions{Bucket: b, Progress: func(done, total int) {
		if told++; total != n || done < last {
			t.Errorf("%d of %d archives, after %d", done, total, last)
		}
		last = done
	}}
	for l := range labels {
		opts.Databases = append(opts.Databases, AuditDatabase{Label: fmt.Sprintf("database-%02d", l), Every: 24 * time.Hour})
	}
	res, err := Audit(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	kept := (heap() - before) / n
	t.Logf("%d bytes kept of each archive, %d operations at once", kept, b.most.Load())
	if res.Archives != n || res.Violations != 0 || len(res.Databases) != labels {
		t.Errorf("%d archives, %d violations, %d databases", res.Archives, res.Violations, len(res.Databases))
	}
	if told != n || last != n {
		t.Errorf("told %d times of %d archives", told, last)
	}
	if kept > 6<<10 {
		t.Errorf("%d bytes are kept of each archive", kept)
	}
	if b.opened.Load() != n || b.stats.Load() != n*objects || b.most.Load() > statReaders {
		t.Errorf("%d manifests read, %d objects asked about, %d at once", b.opened.Load(), b.stats.Load(), b.most.Load())
	}
	runtime.KeepAlive(res)
}
