package storage

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// GuardStall ends a Put whose store accepts no new byte for timeout: the
// context it returns is then cancelled with a cause that wraps ErrStalled.
// Give that context to Put and progress as PutOptions.Progress; next, which
// may be nil, gets every Progress after the guard has seen it. stop releases
// the guard and its context; defer it. Timeout 0 never ends anything.
//
// A byte is accepted when the store has confirmed it: Acknowledged growing is
// the only progress. Sent growing is none, because a dead store's buffers, and
// ours, still take bytes; nor is a byte that is sent again, which Progress does
// not show at all. The time runs only while the store owes an answer: the
// creating request is under way (Opening), or Sent is ahead of Acknowledged.
// A slow source has Sent equal to Acknowledged and may take as long as it
// likes. Completing is exempt: a store may assemble an object for minutes.
//
// As parts are confirmed whole, timeout must be longer than the slowest part
// takes; it is a bound on silence, not on speed.
func GuardStall(ctx context.Context, timeout time.Duration, next func(Progress)) (
	guarded context.Context, progress func(Progress), stop func()) {
	guarded, cancel := context.WithCancelCause(ctx)
	if next == nil {
		next = func(Progress) {}
	}
	if timeout <= 0 {
		return guarded, next, func() { cancel(nil) }
	}
	g := &stallGuard{timeout: timeout, cancel: cancel}
	return guarded, func(p Progress) { g.see(p); next(p) }, g.stop
}

type stallGuard struct {
	timeout time.Duration
	cancel  context.CancelCauseFunc

	mu      sync.Mutex
	last    Progress
	waiting bool      // the store owes an answer
	since   time.Time // when it began to, or last accepted something
	timer   *time.Timer
	stopped bool
}

func (g *stallGuard) see(p Progress) {
	g.mu.Lock()
	defer g.mu.Unlock()
	waiting := !p.Completing && (p.Opening || p.Sent > p.Acknowledged)
	moved := p.Acknowledged > g.last.Acknowledged || p.Opening != g.last.Opening
	if waiting && (moved || !g.waiting) {
		g.since = time.Now()
	}
	g.waiting, g.last = waiting, p
	// One timer that re-arms itself, rather than one reset per progress call.
	if waiting && g.timer == nil && !g.stopped {
		g.timer = time.AfterFunc(g.timeout, g.fire)
	}
}

func (g *stallGuard) fire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = nil
	if g.stopped || !g.waiting {
		return
	}
	if left := g.timeout - time.Since(g.since); left > 0 {
		g.timer = time.AfterFunc(left, g.fire)
		return
	}
	g.stopped = true
	g.cancel(fmt.Errorf("%w for %s", ErrStalled, g.timeout))
}

func (g *stallGuard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	if g.timer != nil {
		g.timer.Stop()
	}
	g.cancel(nil)
}
