package s3

import (
	"context"
	"sync"
	"time"
)

// gate bounds how many part requests are under way: additive increase,
// multiplicative decrease, as a store that says SlowDown wants it.
type gate struct {
	mu      sync.Mutex
	most    float64
	limit   float64 // grows by one per full round of successes
	running int
	lowered time.Time     // when limit was last halved
	free    chan struct{} // closed and replaced when a place comes free
}

func newGate(most int) *gate {
	return &gate{most: float64(most), limit: float64(most), free: make(chan struct{})}
}

// enter waits for a place and returns when it was given.
func (g *gate) enter(ctx context.Context) (time.Time, error) {
	for {
		g.mu.Lock()
		if float64(g.running) < max(1, float64(int(g.limit))) {
			g.running++
			g.mu.Unlock()
			return time.Now(), nil
		}
		free := g.free
		g.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return time.Time{}, ended(ctx)
		}
	}
}

type outcome int

const (
	neutral outcome = iota
	success
	throttled
)

// leave gives the place back. Of the requests that were under way together,
// only the first that was throttled lowers the limit.
func (g *gate) leave(entered time.Time, how outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	switch how {
	case success:
		g.limit = min(g.most, g.limit+1/g.limit)
	case throttled:
		if entered.After(g.lowered) {
			g.limit = max(1, g.limit/2)
			g.lowered = time.Now()
		}
	}
	close(g.free)
	g.free = make(chan struct{})
}

// buffers bounds the memory of one upload's parts. The one that is being filled
// and one that is being sent are always granted.
type buffers struct {
	mu     sync.Mutex
	budget int64
	most   int // buffers, whatever their size
	used   int64
	out    int
	spare  [][]byte // all of the size asked for last
	free   chan struct{}
}

func newBuffers(budget int64, most int) *buffers {
	return &buffers{budget: budget, most: most, free: make(chan struct{})}
}

// get waits until a buffer of n bytes fits.
func (m *buffers) get(ctx context.Context, n int64) ([]byte, error) {
	for {
		m.mu.Lock()
		if m.out < 2 || m.out < m.most && m.used+n <= m.budget {
			m.out++
			m.used += n
			buf := m.take(n)
			m.mu.Unlock()
			return buf, nil
		}
		free := m.free
		m.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
}

// take reuses a spare buffer; those of a former size are let go.
func (m *buffers) take(n int64) []byte {
	for last := len(m.spare) - 1; last >= 0; last-- {
		buf := m.spare[last]
		m.spare = m.spare[:last]
		if int64(cap(buf)) == n {
			return buf[:n]
		}
	}
	m.spare = nil
	return make([]byte, n)
}

func (m *buffers) put(buf []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.out--
	m.used -= int64(cap(buf))
	m.spare = append(m.spare, buf)
	close(m.free)
	m.free = make(chan struct{})
}

// reserve takes n bytes out of the budget for the time of the upload.
func (m *buffers) reserve(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.budget -= n
}
