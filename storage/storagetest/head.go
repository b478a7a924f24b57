package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/pgstow/pgstow/storage"
)

func headChecks() []check {
	return []check{
		{"head/refused", headRefused},
		{"head/sizes", headSizes},
		{"head/wrong length", headWrongLength},
		{"head/error", headError},
		{"head/source error", headSourceError},
	}
}

// headAsked is a DeferredHead that knows when it may be asked.
type headAsked struct {
	c           *suite
	source      *spy
	announced   int64
	data        []byte
	err         error
	sizes, news int // calls
	ended       bool
}

func (h *headAsked) head() *storage.DeferredHead {
	return &storage.DeferredHead{
		Size: func() int64 {
			if h.sizes++; h.sizes > 1 {
				h.c.Error("Head.Size was asked twice")
			}
			if h.source.reads.Load() == 0 {
				h.c.Error("Head.Size was asked before the first Read")
			}
			return h.announced
		},
		Bytes: func() ([]byte, error) {
			if h.news++; h.news > 1 {
				h.c.Error("Head.Bytes was asked twice")
			}
			if !h.ended {
				h.c.Error("Head.Bytes was asked before the source's end")
			}
			return h.data, h.err
		},
	}
}

// putHead puts body behind head. The source's end is end.
func (c *suite) putHead(key string, h *headAsked, body int64, end error) error {
	c.Helper()
	h.c = c
	h.source = &spy{r: io.MultiReader(c.content(key, body), readerFunc(func([]byte) (int, error) {
		h.ended = end == io.EOF
		return 0, end
	}))}
	o, _, err := c.tryPut(c.ctx, key, h.source, storage.PutOptions{Head: h.head()})
	if err == nil {
		c.confirmed(o, key, int64(len(h.data))+body, io.MultiReader(bytes.NewReader(h.data), c.content(key, body)))
		if h.sizes != 1 || h.news != 1 {
			c.Errorf("Put %q asked for Head.Size %d times, for Head.Bytes %d times", key, h.sizes, h.news)
		}
	}
	return err
}

func headRefused(c *suite) {
	if c.h.Want.DeferredHead {
		return
	}
	h := &headAsked{c: c, source: &spy{}, announced: 10, data: make([]byte, 10)}
	c.refusedUnread("deferred head", "head", storage.PutOptions{Head: h.head()}, errors.ErrUnsupported)
	c.nothing()
}

func headSizes(c *suite) {
	if !c.h.Want.DeferredHead {
		return
	}
	p := c.h.PartSize
	for _, head := range []int64{0, 1, 1000, p - 1, p, p + 1, 2*p + 3} {
		for _, body := range []int64{0, 1, p, 2*p + 1} {
			key := fmt.Sprintf("head/%d+%d", head, body)
			data := c.bytesOf("head of "+key, head)
			if err := c.putHead(key, &headAsked{announced: head, data: data}, body, io.EOF); err != nil {
				c.Fatalf("Put %q: %v", key, err)
			}
			c.holds(key, head+body, func() io.Reader {
				return io.MultiReader(bytes.NewReader(data), c.content(key, body))
			})
		}
	}
	c.noLeftovers()
}

func headWrongLength(c *suite) {
	if !c.h.Want.DeferredHead {
		return
	}
	for _, actual := range []int64{0, 99, 101, 2*c.h.PartSize + 1} {
		for _, body := range []int64{0, 2*c.h.PartSize + 1} {
			key := fmt.Sprintf("wrong/%d+%d", actual, body)
			err := c.putHead(key, &headAsked{announced: 100, data: c.bytesOf(key, actual)}, body, io.EOF)
			c.failed(err, "put", key)
			c.absent(key)
		}
	}
	c.nothing()
}

func headError(c *suite) {
	if !c.h.Want.DeferredHead {
		return
	}
	for _, cause := range []error{errors.New("storagetest: no head"), io.EOF, io.ErrUnexpectedEOF} {
		for _, body := range []int64{0, 1, 2*c.h.PartSize + 1} {
			key := fmt.Sprintf("no-head/%d", body)
			// The bytes are right, so that only the error can make it fail.
			err := c.putHead(key, &headAsked{announced: 100, data: c.bytesOf(key, 100), err: cause}, body, io.EOF)
			c.failed(err, "put", key, cause)
			c.blamesSource(err, key)
			c.absent(key)
		}
	}
	c.nothing()
}

func headSourceError(c *suite) {
	if !c.h.Want.DeferredHead {
		return
	}
	for _, cause := range []error{errors.New("storagetest: the source failed"), io.ErrUnexpectedEOF} {
		for _, body := range c.positions() {
			key := fmt.Sprintf("head-fails/%d", body)
			h := &headAsked{announced: 100, data: c.bytesOf(key, 100)}
			err := c.putHead(key, h, body, cause)
			c.failed(err, "put", key, cause)
			c.absent(key)
		}
	}
	c.nothing()
}
