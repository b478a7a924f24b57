package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// opening replaces the options of every Open.
func opening(name string, change func(*storage.OpenOptions), caughts ...string) mistake {
	return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
		b.open = func(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
			change(&opts)
			return m.Open(ctx, key, opts)
		}
	}}
}

// lazy reports errors of Open from the first Read.
type lazy struct{ err error }

func (l lazy) Read([]byte) (int, error) { return 0, l.err }
func (l lazy) Close() error             { return nil }

// drainer reads the rest before it closes.
type drainer struct{ io.ReadCloser }

func (d drainer) Close() error {
	io.Copy(io.Discard, d.ReadCloser)
	return d.ReadCloser.Close()
}

func openMistakes() []mistake {
	// resumes opens without the reference's care.
	resumes := func(name string, at func(offset int64) int64, version func(now memoryObject) bool, caughts ...string) mistake {
		return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
			b.open = func(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
				return storage.Resume(ctx, storage.ResumeOptions{Key: key, Offset: opts.Offset, Attempts: 3,
					Backoff: func(int) time.Duration { return 0 },
					Open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
						o, err := m.get("open", key, "")
						if err != nil {
							return nil, 0, err
						}
						return &memoryBody{m: m, r: bytes.NewReader(o.data[at(offset):])}, o.Size - offset, nil
					}})
			}
		}}
	}
	return []mistake{
		opening("ignores the offset", func(o *storage.OpenOptions) { o.Offset = 0 }, "open/ranges", "open/beyond the end", "open/concurrent"),
		opening("ignores the length", func(o *storage.OpenOptions) { o.Length = 0 }, "open/ranges"),
		opening("ignores the version", func(o *storage.OpenOptions) { o.Version = "" }, "versions/history", "versions/delete one"),
		{name: "reports a missing object from Read", make: func(m *Memory, b *broken) {
			b.open = func(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
				body, err := m.Open(ctx, key, opts)
				if errors.Is(err, storage.ErrNotExist) {
					return lazy{err}, nil
				}
				return body, err
			}
		}, caughts: []string{"open/missing"}},
		{name: "drains the body on Close", caughts: []string{"open/early close"}, make: func(m *Memory, b *broken) {
			b.open = func(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
				body, err := m.Open(ctx, key, opts)
				if err != nil {
					return nil, err
				}
				return drainer{body}, nil
			}
		}},
		{name: "reads on under a cancelled context", caughts: []string{"open/cancelled"}, make: func(m *Memory, b *broken) {
			b.open = func(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
				return m.Open(context.WithoutCancel(ctx), key, opts)
			}
		}},
		{name: "gives up when a body breaks", caughts: []string{"open/cut"}, make: func(m *Memory, b *broken) {
			b.open = func(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
				o, err := m.get("open", key, opts.Version)
				if err != nil {
					return nil, err
				}
				return &memoryBody{m: m, r: bytes.NewReader(o.data[opts.Offset:])}, nil
			}
		}},
		resumes("continues at the first byte", func(int64) int64 { return 0 }, nil, "open/cut"),
		resumes("continues with another version", func(at int64) int64 { return at }, nil, "open/replaced"),
		{name: "answers fs.ErrNotExist alone", make: func(m *Memory, b *broken) {
			b.stat = func(ctx context.Context, key, version string) (storage.Object, error) {
				o, err := m.Stat(ctx, key, version)
				if errors.Is(err, storage.ErrNotExist) {
					err = &storage.Error{Op: "stat", Key: key, Err: fs.ErrNotExist}
				}
				return o, err
			}
		}, caughts: []string{"stat/missing", "versions/history", "lock/legal hold"}},
		{name: "shows another size", caughts: []string{"put/sizes"}, make: func(m *Memory, b *broken) {
			b.stat = func(ctx context.Context, key, version string) (storage.Object, error) {
				o, err := m.Stat(ctx, key, version)
				o.Size++
				return o, err
			}
		}},
		{name: "finds a deletion of nothing wrong", caughts: []string{"delete/missing"}, make: func(m *Memory, b *broken) {
			b.del = func(ctx context.Context, key, version string) error {
				if _, err := m.Stat(ctx, key, version); err != nil {
					return err
				}
				return m.Delete(ctx, key, version)
			}
		}},
		{name: "deletes nothing", caughts: []string{"delete/object", "versions/history"}, make: func(m *Memory, b *broken) {
			b.del = func(context.Context, string, string) error { return nil }
		}},
		{name: "deletes all versions", caughts: []string{"versions/history", "versions/delete one"}, make: func(m *Memory, b *broken) {
			b.del = func(_ context.Context, key, _ string) error { m.remove(key); return nil }
		}},
	}
}

// listing changes a collected listing.
func listing(name string, change func(opts storage.ListOptions, all []storage.Object) []storage.Object, caughts ...string) mistake {
	return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
		b.list = func(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
			return func(yield func(storage.Object, error) bool) {
				var all []storage.Object
				for o, err := range m.List(ctx, opts) {
					if err != nil {
						yield(o, err)
						return
					}
					all = append(all, o)
				}
				for _, o := range change(opts, all) {
					if !yield(o, nil) {
						return
					}
				}
			}
		}
	}}
}

func listMistakes() []mistake {
	asked := func(change func(*storage.ListOptions), name string, caughts ...string) mistake {
		return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
			b.list = func(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
				change(&opts)
				return m.List(ctx, opts)
			}
		}}
	}
	return []mistake{
		listing("lists folder by folder", func(_ storage.ListOptions, all []storage.Object) []storage.Object {
			slices.SortStableFunc(all, func(a, b storage.Object) int {
				return slices.Compare(strings.Split(a.Key, "/"), strings.Split(b.Key, "/"))
			})
			return all
		}, "list/order", "list/start after"),
		listing("stops after 1,000", func(_ storage.ListOptions, all []storage.Object) []storage.Object {
			return all[:min(len(all), 1000)]
		}, "list/pages"),
		listing("repeats a key at the page's edge", func(_ storage.ListOptions, all []storage.Object) []storage.Object {
			if len(all) > 1000 {
				all = slices.Insert(all, 1000, all[999])
			}
			return all
		}, "list/pages"),
		listing("lists oldest versions first", func(opts storage.ListOptions, all []storage.Object) []storage.Object {
			if opts.Versions {
				slices.Reverse(all)
			}
			return all
		}, "versions/history", "list/order"),
		listing("shows the size as zero", func(_ storage.ListOptions, all []storage.Object) []storage.Object {
			for i := range all {
				all[i].Size = 0
			}
			return all
		}, "list/order", "put/sizes"),
		asked(func(o *storage.ListOptions) { o.StartAfter = "" }, "ignores StartAfter", "list/start after", "list/pages"),
		asked(func(o *storage.ListOptions) { o.Prefix = strings.TrimSuffix(o.Prefix, "/") }, "drops the prefix's slash", "list/prefix"),
		asked(func(o *storage.ListOptions) { o.Versions = false }, "hides versions", "versions/history"),
		{name: "ends quietly when the context ends", caughts: []string{"list/cancelled"}, make: func(m *Memory, b *broken) {
			b.list = func(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
				return func(yield func(storage.Object, error) bool) {
					for o, err := range m.List(ctx, opts) {
						if err != nil || !yield(o, nil) {
							return
						}
					}
				}
			}
		}},
		{name: "goes on when the loop has ended", caughts: []string{"list/early break"}, make: func(m *Memory, b *broken) {
			b.list = func(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
				return func(yield func(storage.Object, error) bool) {
					for o, err := range m.List(ctx, opts) {
						yield(o, err)
					}
				}
			}
		}},
	}
}

func lockMistakes() []mistake {
	return []mistake{
		{name: "deletes what is locked", make: func(m *Memory, b *broken) {
			b.del = func(_ context.Context, key, _ string) error { m.remove(key); return nil }
		}, caughts: []string{"lock/governance", "lock/compliance", "lock/legal hold", "lock/set later", "lock/overwrite"}},
		{name: "shortens retention when asked", make: func(m *Memory, b *broken) {
			b.retain = func(_ context.Context, key, version string, r storage.Retention) error {
				return m.change("retain", key, version, true, func(o *memoryObject) error { o.Retention = r; return nil })
			}
		}, caughts: []string{"lock/governance", "lock/compliance"}},
		{name: "extends nothing", make: func(m *Memory, b *broken) {
			b.retain = func(context.Context, string, string, storage.Retention) error { return nil }
		}, caughts: []string{"lock/governance", "lock/set later", "lock/missing object"}},
		{name: "releases no hold", caughts: []string{"lock/legal hold", "lock/missing object"}, make: func(m *Memory, b *broken) {
			b.hold = func(context.Context, string, string, bool) error { return nil }
		}},
		{name: "shows no retention", caughts: []string{"lock/governance", "lock/set later"}, make: func(m *Memory, b *broken) {
			b.stat = func(ctx context.Context, key, version string) (storage.Object, error) {
				o, err := m.Stat(ctx, key, version)
				o.Retention = storage.Retention{}
				return o, err
			}
		}},
		{name: "accepts locks later that it cannot keep", noLock: true, make: func(m *Memory, b *broken) {
			b.hold = func(context.Context, string, string, bool) error { return nil }
		}, caughts: []string{"put/locks refused"}},
	}
}

// reporting changes the numbers that Progress shows.
func reporting(name string, change func(p *storage.Progress), caughts ...string) mistake {
	return options(name, func(o *storage.PutOptions) {
		if report := o.Progress; report != nil {
			o.Progress = func(p storage.Progress) { change(&p); report(p) }
		}
	}, caughts...)
}

func flowMistakes() []mistake {
	never := reporting("never acknowledges", func(p *storage.Progress) { p.Acknowledged = 0 },
		"progress/stream", "progress/known size", "progress/slow source")
	never.tune = func(h *Harness) { h.Timeout = time.Second } // which the slow source waits for
	return []mistake{
		reporting("acknowledges too early", func(p *storage.Progress) { p.Acknowledged++ }, "progress/stream", "progress/known size"),
		never,
		reporting("hides the completion", func(p *storage.Progress) { p.Completing = false },
			"progress/stream", "fault/cancelled while completing"),
		reporting("counts what is sent again", func(p *storage.Progress) { p.Sent *= 2 }, "progress/stream"),
		options("reports nothing", func(o *storage.PutOptions) { o.Progress = nil }, "progress/stream", "progress/known size"),
		{name: "takes what a frozen store takes", caughts: []string{"stall/frozen"}, make: func(m *Memory, b *broken) {
			b.put = func(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
				report := opts.Progress
				opts.Progress = func(p storage.Progress) {
					p.Acknowledged = p.Sent // "accepted", says the socket's buffer
					p.Opening = false
					report(p)
				}
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return m.Put(ctx, key, r, opts)
			}
		}},
		{name: "shows metadata of another object", caughts: []string{"put/metadata"}, make: func(m *Memory, b *broken) {
			b.stat = func(ctx context.Context, key, version string) (storage.Object, error) {
				o, err := m.Stat(ctx, key, version)
				o.Metadata = maps.Clone(o.Metadata)
				delete(o.Metadata, "n")
				return o, err
			}
		}},
	}
}
