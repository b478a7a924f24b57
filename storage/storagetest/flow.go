package storagetest

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/pgstow/pgstow/storage"
)

func flowChecks() []check {
	return []check{
		{"progress/stream", func(c *suite) { progress(c, false) }},
		{"progress/known size", func(c *suite) { progress(c, true) }},
		{"progress/slow source", slowSource},
		{"stall/frozen", stallFrozen},
		{"memory/stream", memoryStream},
	}
}

// watcher checks the numbers of one Put while they come.
type watcher struct {
	c         *suite
	busy      atomic.Bool
	over      atomic.Bool
	last      storage.Progress
	completed bool
	calls     int
}

func (w *watcher) see(p storage.Progress) {
	if !w.busy.CompareAndSwap(false, true) {
		w.c.Error("Progress was called by two goroutines at once")
		return
	}
	defer w.busy.Store(false)
	w.calls++
	w.completed = w.completed || p.Completing
	switch {
	case w.over.Load():
		w.c.Errorf("Progress was called after Put had returned: %+v", p)
	case p.Acknowledged > p.Sent:
		w.c.Errorf("more bytes are acknowledged than sent: %+v", p)
	case p.Sent < w.last.Sent || p.Acknowledged < w.last.Acknowledged:
		w.c.Errorf("Progress went back from %+v to %+v", w.last, p)
	}
	w.last = p
}

func progress(c *suite, known bool) {
	sizes := c.sizes()
	if known {
		sizes = []int64{1, 1000, c.h.PartSize}
	}
	for _, size := range sizes {
		w := &watcher{c: c}
		opts := storage.PutOptions{Progress: w.see}
		if known {
			opts.Size = size
		}
		key := "progress/" + string(rune('a'+w.c.keyNumber()))
		c.put(key, size, opts)
		w.over.Store(true)
		if w.calls == 0 || w.last.Sent != size || w.last.Acknowledged != size {
			c.Errorf("after %d bytes the last of %d Progress calls is %+v", size, w.calls, w.last)
		}
		if w.last.Opening || w.last.Completing {
			c.Errorf("Put has returned, Progress still says %+v", w.last)
		}
		if !known && !w.completed {
			c.Errorf("Put of %d bytes never reported Completing", size)
		}
	}
}

// keyNumber counts the Puts of a case.
func (c *suite) keyNumber() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sources)
}

// slowSource: while the source takes its time and all that was sent is
// confirmed, the store owes nothing, or GuardStall would end a healthy dump.
// The source waits until Progress says so.
func slowSource(c *suite) {
	var mu sync.Mutex
	var last storage.Progress
	changed := make(chan struct{}, 1)
	settled := func() {
		for {
			mu.Lock()
			p := last
			mu.Unlock()
			if !p.Opening && p.Sent == p.Acknowledged {
				return
			}
			select {
			case <-changed:
			case <-c.ctx.Done():
				c.Errorf("the source waits, the store took all it was sent, and Progress says %+v", p)
				return
			}
		}
	}
	size := 3*c.h.PartSize + 1
	waits := 0
	source := &spy{r: io.LimitReader(c.content("slow", size), size), onRead: func(before int64) {
		if before >= int64(waits)*c.h.PartSize/2 {
			waits++
			settled()
		}
	}}
	_, _, err := c.tryPut(c.ctx, "slow", source, storage.PutOptions{Progress: func(p storage.Progress) {
		mu.Lock()
		last = p
		mu.Unlock()
		select {
		case changed <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		c.Fatalf("Put: %v", err)
	}
	c.whole("slow", size)
}

// stallFrozen: a store that takes nothing any more ends the Put through
// GuardStall, and the aborted upload is not there when it has thawed.
func stallFrozen(c *suite) {
	if !c.has(HookFreeze, c.store.Freeze != nil) {
		return
	}
	for _, at := range []int64{0, 2*c.h.PartSize + 1} {
		ctx, progress, stop := storage.GuardStall(c.ctx, c.h.StallTimeout, nil)
		thaw := sync.OnceFunc(func() {})
		// The store comes back once the guard has spoken, for the abort.
		unhook := context.AfterFunc(ctx, func() { thaw() })
		freeze := sync.OnceFunc(func() { thaw = c.store.Freeze() })
		if at == 0 {
			freeze()
		}
		source := &spy{onRead: func(before int64) {
			if before >= at {
				freeze()
			}
		}, r: readerFunc(func(p []byte) (int, error) {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			return len(p), nil
		})}
		_, _, err := c.tryPut(ctx, "frozen", source, storage.PutOptions{Progress: progress})
		c.failed(err, "put", "frozen", storage.ErrStalled)
		if !unhook() && !errors.Is(context.Cause(ctx), storage.ErrStalled) {
			c.Errorf("the context ended by %v, not by the guard", context.Cause(ctx))
		}
		thaw()
		stop()
		c.absent("frozen")
		c.nothing()
	}
}

// memoryStream passes a long stream through and back, and looks at the live
// heap on the way. The collector is run by hand, so that garbage does not count.
func memoryStream(c *suite) {
	if _, no := c.h.Without[HookMemory]; no {
		c.has(HookMemory, false)
		return
	}
	const looks = 16
	base := liveHeap()
	var peak uint64
	watch := func(r io.Reader) *spy {
		next := int64(0)
		return &spy{r: r, onRead: func(before int64) {
			if before >= next {
				next += c.h.StreamSize / looks
				peak = max(peak, liveHeap())
			}
		}}
	}
	size := c.h.StreamSize
	if _, _, err := c.tryPut(c.ctx, "stream", watch(c.content("stream", size)), storage.PutOptions{}); err != nil {
		c.Fatalf("Put of %d bytes: %v", size, err)
	}
	c.boundedHeap("Put", base, peak)
	peak = 0
	body, err := c.bucket.Open(c.ctx, "stream", storage.OpenOptions{})
	if err != nil {
		c.Fatalf("Open: %v", err)
	}
	defer body.Close()
	if err := sameBytes(watch(body), c.content("stream", size)); err != nil {
		c.Error(err)
	}
	c.boundedHeap("Open", base, peak)
}

func (c *suite) boundedHeap(op string, base, peak uint64) {
	c.Helper()
	if peak > base+uint64(c.h.HeapLimit) {
		c.Errorf("%s of %d bytes lets the live heap grow from %d to %d bytes, the limit is %d more",
			op, c.h.StreamSize, base, peak, c.h.HeapLimit)
	}
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
