package s3

import (
	"sync"

	"github.com/pgstow/pgstow/storage"
)

// progress keeps the numbers of one Put and reports every change of them, one
// call at a time.
type progress struct {
	mu     sync.Mutex
	now    storage.Progress
	report func(storage.Progress) // may be nil
}

func (p *progress) change(f func(*storage.Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.now
	f(&p.now)
	if p.report != nil && p.now != before {
		p.report(p.now)
	}
}

func (p *progress) opening(on bool) {
	p.change(func(s *storage.Progress) { s.Opening = on })
}

func (p *progress) completing(on bool) {
	p.change(func(s *storage.Progress) { s.Completing = on })
}

// sent counts a part when its first request starts.
func (p *progress) sent(n int64) {
	p.change(func(s *storage.Progress) { s.Sent += n })
}

func (p *progress) acknowledged(n int64) {
	p.change(func(s *storage.Progress) { s.Acknowledged += n })
}
