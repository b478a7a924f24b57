package s3

import (
	"context"
	"fmt"

	"github.com/pgstow/pgstow/storage"
)

// head is the start of an upload whose first bytes are known last. It is held
// back as part 1 (or, in equal parts, as the first few) and sent at the end. It
// takes in what follows the head, so that no part but the last is smaller than
// the store allows.
type head struct {
	u    *upload
	size int64
	from func() ([]byte, error)
	buf  []byte // the head's place, then the bytes behind it
	each int64  // size of the parts that buf is cut into
}

// holdBack fills the first part's buffer as far as the source goes.
func (u *upload) holdBack(ctx context.Context, src *source, deferred *storage.DeferredHead) (*head, error) {
	if _, err := src.peek(ctx); err != nil {
		return nil, err
	}
	h := &head{u: u, size: deferred.Size(), from: deferred.Bytes}
	if h.size < 0 {
		return nil, fmt.Errorf("the deferred head has the size %d", h.size)
	}
	// Where parts may differ, no more is held than the store's minimum.
	whole := max(h.size, u.b.cfg.MinPart)
	h.each = max(whole, 1)
	if u.plan.uniform {
		h.each = u.plan.first
		whole = max(roundUp(h.size, h.each), h.each)
	}
	u.buffers.reserve(whole)
	h.buf = make([]byte, whole)
	n, _, err := src.read(ctx, h.buf[h.size:])
	if err != nil {
		return nil, err
	}
	h.buf = h.buf[:h.size+int64(n)]
	return h, nil
}

// parts is how many part numbers the head takes.
func (h *head) parts() int {
	return int(max((int64(len(h.buf))+h.each-1)/h.each, 1))
}

// send fills in the head, which is final now, and sends it.
func (h *head) send(ctx context.Context, w *workers) error {
	content, err := h.from()
	if err != nil {
		return &sourceError{"the deferred head", err}
	}
	if int64(len(content)) != h.size {
		return fmt.Errorf("the deferred head has %d bytes, announced were %d", len(content), h.size)
	}
	if len(h.buf) == 0 {
		return nil
	}
	copy(h.buf, content)
	rest := h.buf
	for n := 1; n <= h.parts(); n++ {
		k := min(int64(len(rest)), h.each)
		w.start(n, rest[:k], func() {})
		rest = rest[k:]
	}
	return nil
}
