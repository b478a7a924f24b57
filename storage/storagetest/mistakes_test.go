package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgstow/pgstow/storage"
)

func mistakes() []mistake {
	return slices.Concat(sourceMistakes(), contextMistakes(), creationMistakes(), optionMistakes(),
		headMistakes(), openMistakes(), listMistakes(), lockMistakes(), lifecycleMistakes(), keepMistakes(), flowMistakes())
}

// source replaces the reader of every Put.
func source(name string, change func(r io.Reader) io.Reader, caughts ...string) mistake {
	return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
		b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
			return m.Put(ctx, key, change(r), opts)
		}
	}}
}

// mapped changes what a reader answers.
func mapped(f func(n int, err error) (int, error)) func(io.Reader) io.Reader {
	return func(r io.Reader) io.Reader {
		return readerFunc(func(p []byte) (int, error) { return f(r.Read(p)) })
	}
}

func sourceMistakes() []mistake {
	return []mistake{
		source("takes ErrUnexpectedEOF for the end", mapped(func(n int, err error) (int, error) {
			if err == io.ErrUnexpectedEOF {
				err = io.EOF
			}
			return n, err
		}), "fault/unexpected EOF", "fault/unexpected EOF with data", "fault/key free again"),
		source("takes a wrapped EOF for the end", mapped(func(n int, err error) (int, error) {
			if errors.Is(err, io.EOF) {
				err = io.EOF
			}
			return n, err
		}), "fault/wrapped EOF", "fault/wrapped EOF with data", "fault/known size"),
		source("commits what it has when the source fails", mapped(func(n int, err error) (int, error) {
			if err != nil {
				err = io.EOF
			}
			return n, err
		}), "fault/source error", "fault/source error with data", "head/source error"),
		source("ignores an error that comes with data", mapped(func(n int, err error) (int, error) {
			if n > 0 && err != nil && err != io.EOF {
				err = nil
			}
			return n, err
		}), "fault/source error with data", "fault/unexpected EOF with data"),
		source("drops data that comes with EOF", mapped(func(n int, err error) (int, error) {
			if err == io.EOF {
				n = 0
			}
			return n, err
		}), "put/odd readers"),
		source("takes a read of nothing for the end", mapped(func(n int, err error) (int, error) {
			if n == 0 && err == nil {
				err = io.EOF
			}
			return n, err
		}), "put/odd readers"),
		source("stops at 100,000 bytes", func(r io.Reader) io.Reader { return io.LimitReader(r, 100_000) },
			"put/sizes", "put/estimates", "open/ranges", "open/concurrent"),
		source("closes the source", func(r io.Reader) io.Reader { r.(io.Closer).Close(); return r }, "put/sizes"),
		source("seeks in the source", func(r io.Reader) io.Reader { r.(io.Seeker).Seek(0, 0); return r }, "put/sizes"),
		source("uses WriterTo", func(r io.Reader) io.Reader {
			var all bytes.Buffer
			io.Copy(&all, r)
			return &all
		}, "put/sizes"),
		{name: "reads after it has returned", caughts: []string{"put/sizes"}, make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				b.stat = func(ctx context.Context, key, version string) (storage.Object, error) {
					r.Read(make([]byte, 1))
					return m.Stat(ctx, key, version)
				}
				return m.Put(ctx, key, r, opts)
			}
		}},
		source("reads with two goroutines at once", func(r io.Reader) io.Reader {
			return readerFunc(func(p []byte) (int, error) {
				r.(*spy).busy.Store(true) // as if another Read were under way
				return r.Read(p)
			})
		}, "put/known size"),
	}
}

// failing changes the error of every Put.
func failing(name string, change func(key string, err error) error, caughts ...string) mistake {
	return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
		b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
			o, err := m.Put(ctx, key, r, opts)
			if err != nil {
				err = change(key, err)
			}
			return o, err
		}
	}}
}

func contextMistakes() []mistake {
	return []mistake{
		{name: "ignores the context", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				return m.Put(context.WithoutCancel(ctx), key, r, opts)
			}
		}, caughts: []string{"fault/cancelled before", "fault/cancelled in mid-stream", "fault/cancelled at EOF"}},
		{name: "takes a killed source for its end", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				return m.Put(context.WithoutCancel(ctx), key, readerFunc(func(p []byte) (int, error) {
					n, err := r.Read(p)
					if err != nil {
						err = io.EOF
					}
					return n, err
				}), opts)
			}
		}, caughts: []string{"fault/cancelled while the source blocks"}},
		failing("forgets the cause", func(key string, err error) error {
			return &storage.Error{Op: "put", Key: key, Err: errors.New("failed")}
		}, "fault/source error", "fault/cancelled before", "fault/cancelled at EOF", "head/error", "stall/frozen"),
		failing("blames the store", func(key string, err error) error {
			return &storage.Error{Op: "put", Key: key, Kind: storage.ErrUnavailable, Err: err}
		}, "fault/source error", "fault/known size", "head/error"),
		failing("returns a bare error", func(key string, err error) error { return errors.Unwrap(err) },
			"put/create-only", "put/size differs", "head/wrong length"),
		failing("names another key", func(key string, err error) error {
			return &storage.Error{Op: "put", Key: key + "x", Err: err}
		}, "put/create-only"),
		{name: "leaves the upload of a failed Put", make: func(m *Memory, b *broken) {
			var failed atomic.Int64
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				o, err := m.Put(ctx, key, r, opts)
				if err != nil {
					failed.Add(1)
				}
				return o, err
			}
			b.leavings = func() []string { return make([]string, failed.Load()) }
		}, caughts: []string{"fault/source error", "fault/cancelled in mid-stream", "put/racing creators", "head/error",
			"put/create-only", "fault/key free again", "uploads/swept"}},
		{name: "leaks a goroutine", caughts: []string{"put/bytes"}, make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				go func() { <-ctx.Done(); time.Sleep(2 * time.Second) }()
				return m.Put(ctx, key, r, opts)
			}
		}},
		{name: "says that it failed, and committed", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				o, err := m.Put(ctx, key, r, opts)
				if err == nil && ctx.Err() != nil {
					err = &storage.Error{Op: "put", Key: key, Err: context.Cause(ctx)}
				}
				return o, err
			}
		}, caughts: []string{"fault/cancelled while completing"}},
		{name: "shows objects that are under way", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				m.mu.Lock()
				m.add(key, memoryObject{})
				m.mu.Unlock()
				defer m.remove(key)
				return m.Put(ctx, key+".part", r, opts)
			}
		}, caughts: []string{"uploads/listed"}},
		{name: "lists no uploads", caughts: []string{"uploads/listed", "uploads/swept"}, make: func(m *Memory, b *broken) {
			b.sweep = func(context.Context, string) iter.Seq2[storage.Upload, error] {
				return func(func(storage.Upload, error) bool) {}
			}
		}},
		{name: "aborts nothing", caughts: []string{"uploads/swept"}, make: func(m *Memory, b *broken) {
			b.abort = func(context.Context, storage.Upload) error { return nil }
		}},
		{name: "lists uploads that are not there", caughts: []string{"list/empty"}, make: func(m *Memory, b *broken) {
			b.sweep = func(_ context.Context, prefix string) iter.Seq2[storage.Upload, error] {
				return func(yield func(storage.Upload, error) bool) { yield(storage.Upload{Key: prefix + "ghost"}, nil) }
			}
		}},
	}
}

// remove deletes all versions of a key, whatever protects them.
func (m *Memory) remove(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
}

func creationMistakes() []mistake {
	mangled := func(key string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, key)
	}
	var odd []string
	for _, key := range oddKeys {
		odd = append(odd, "keys/"+key)
	}
	return []mistake{
		{name: "overwrites", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				m.remove(key)
				return m.Put(ctx, key, r, opts)
			}
		}, caughts: []string{"put/create-only", "put/bytes", "lock/overwrite"}},
		{name: "tells every racer that it won", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				o, err := m.Put(ctx, key, r, opts)
				if errors.Is(err, storage.ErrExist) {
					return m.Stat(ctx, key, "")
				}
				return o, err
			}
		}, caughts: []string{"put/racing creators"}},
		{name: "takes a source of another length", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				opts.Size = 0
				return m.Put(ctx, key, r, opts)
			}
		}, caughts: []string{"put/size differs"}},
		{name: "returns a wrong checksum", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				o, err := m.Put(ctx, key, r, opts)
				o.Checksum.Value = "AAAAAA=="
				return o, err
			}
		}, caughts: []string{"put/sizes", "put/bytes"}},
		{name: "flips a bit", caughts: []string{"put/sizes", "open/ranges", "head/sizes"}, make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				o, err := m.Put(ctx, key, r, opts)
				if data := m.objects[key]; err == nil && o.Size > 0 {
					data[len(data)-1].data[o.Size/2] ^= 1
				}
				return o, err
			}
		}},
		{name: "mangles keys", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				return m.Put(ctx, mangled(key), r, opts)
			}
		}, caughts: append(odd, "keys/long", "list/order", "list/prefix", "list/pages")},
		{name: "bends invalid keys", bare: true, caughts: []string{"put/invalid keys"}, make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				return m.Put(ctx, mangled(key), r, opts)
			}
		}},
		{name: "keeps no object beside a folder", make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				for k := range m.objects {
					if strings.HasPrefix(key, k+"/") || strings.HasPrefix(k, key+"/") {
						return storage.Object{}, memoryError("put", key, nil, "it is a folder")
					}
				}
				return m.Put(ctx, key, r, opts)
			}
		}, caughts: []string{"keys/object and folder"}},
		{name: "reports other capabilities", caughts: []string{"capabilities"}, make: func(m *Memory, b *broken) {
			b.caps = func() storage.Capabilities { return storage.Capabilities{} }
		}},
		{name: "fails to close", caughts: []string{"put/bytes"}, make: func(m *Memory, b *broken) {
			b.shut = func() error { return errors.New("cannot close") }
		}},
	}
}

// options changes what every Put is asked for.
func options(name string, change func(*storage.PutOptions), caughts ...string) mistake {
	return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
		b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
			change(&opts)
			return m.Put(ctx, key, r, opts)
		}
	}}
}

func optionMistakes() []mistake {
	readFirst := func(m *Memory, b *broken) {
		b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
			data, err := io.ReadAll(readerFunc(r.Read))
			if err != nil {
				return storage.Object{}, err
			}
			return m.Put(ctx, key, bytes.NewReader(data), opts)
		}
	}
	locks := options("drops locks that it cannot keep", func(o *storage.PutOptions) {
		o.Retention, o.LegalHold = storage.Retention{}, false
	}, "put/locks refused")
	locks.noLock = true
	return []mistake{
		options("drops metadata", func(o *storage.PutOptions) { o.Metadata = nil }, "put/metadata"),
		options("drops metadata of small objects", func(o *storage.PutOptions) {
			if o.Size > 0 {
				o.Metadata = nil
			}
		}, "put/metadata"),
		options("drops the content type", func(o *storage.PutOptions) { o.ContentType = "" }, "put/metadata"),
		options("drops tags", func(o *storage.PutOptions) { o.Tags = nil }, "put/tags"),
		options("drops the storage class", func(o *storage.PutOptions) { o.StorageClass = "" }, "put/storage class"),
		options("drops encryption", func(o *storage.PutOptions) { o.Encryption = storage.Encryption{} }, "put/encryption", "put/encryption refused"),
		options("takes another key", func(o *storage.PutOptions) {
			if o.Encryption.Key != "" {
				o.Encryption.Key = "another"
			}
		}, "put/encryption"),
		options("cuts tags down to what it can", func(o *storage.PutOptions) {
			if storage.CheckTags(o.Tags) != nil {
				o.Tags = nil
			}
		}, "put/tags refused"),
		options("drops the custom time", func(o *storage.PutOptions) { o.CustomTime = time.Time{} }, "put/custom time"),
		options("drops retention", func(o *storage.PutOptions) { o.Retention = storage.Retention{} },
			"lock/governance", "lock/compliance", "lock/overwrite"),
		options("shortens retention", func(o *storage.PutOptions) { o.Retention.Until = o.Retention.Until.Add(-time.Second) },
			"lock/governance", "lock/compliance"),
		options("weakens compliance", func(o *storage.PutOptions) {
			if !o.Retention.IsZero() {
				o.Retention.Mode = storage.Governance
			}
		}, "lock/compliance"),
		options("drops the hold", func(o *storage.PutOptions) { o.LegalHold = false }, "lock/legal hold"),
		locks,
		{name: "refuses after reading", noLock: true, make: readFirst,
			caughts: []string{"put/locks refused", "put/custom time"}},
		{name: "checks keys after reading", bare: true, caughts: []string{"put/invalid keys"}, make: readFirst},
		{name: "takes a deferred head that it does not announce", caughts: []string{"head/refused"},
			tune: func(h *Harness) { h.Want.DeferredHead = false }, make: func(*Memory, *broken) {}},
	}
}

func headMistakes() []mistake {
	head := func(name string, change func(h *storage.DeferredHead), caughts ...string) mistake {
		return options(name, func(o *storage.PutOptions) {
			if o.Head != nil {
				changed := *o.Head
				change(&changed)
				o.Head = &changed
			}
		}, caughts...)
	}
	return []mistake{
		options("drops the head", func(o *storage.PutOptions) { o.Head = nil }, "head/sizes"),
		head("asks for the head's size before it reads", func(h *storage.DeferredHead) {
			size := h.Size()
			h.Size = func() int64 { return size }
		}, "head/sizes"),
		head("asks for the head before the end", func(h *storage.DeferredHead) {
			size := h.Size
			h.Size = func() int64 { h.Bytes(); return size() }
		}, "head/sizes"),
		head("takes a head of any length", func(h *storage.DeferredHead) {
			take := h.Bytes
			h.Size()
			data, _ := take()
			h.Size = func() int64 { return int64(len(data)) }
			h.Bytes = func() ([]byte, error) { return data, nil }
		}, "head/wrong length"),
		head("ignores the head's error", func(h *storage.DeferredHead) {
			take := h.Bytes
			h.Bytes = func() ([]byte, error) { data, _ := take(); return data, nil }
		}, "head/error"),
	}
}
