package storagetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// seeing changes what Stat shows.
func seeing(name string, change func(*storage.Object), caughts ...string) mistake {
	return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
		b.stat = func(ctx context.Context, key, version string) (storage.Object, error) {
			o, err := m.Stat(ctx, key, version)
			change(&o)
			return o, err
		}
	}}
}

// batching replaces the deletion of many.
func batching(name string, how func(*Memory, []storage.VersionKey) []error, caughts ...string) mistake {
	return mistake{name: name, caughts: caughts, make: func(m *Memory, b *broken) {
		b.batch = func(_ context.Context, keys []storage.VersionKey) []error { return how(m, slices.Clone(keys)) }
	}}
}

func keepMistakes() []mistake {
	return []mistake{
		{name: "shows what is denied as absent", caughts: []string{"keep/denied"}, make: func(m *Memory, b *broken) {
			b.blind = func(testing.TB) (storage.Bucket, []storage.Attribute) {
				return m.Blind(), []storage.Attribute{storage.AttributeTags}
			}
		}},
		{name: "shows what is denied", caughts: []string{"keep/denied"}, make: func(m *Memory, b *broken) {
			denied := []storage.Attribute{storage.AttributeRetention}
			b.blind = func(testing.TB) (storage.Bucket, []storage.Attribute) {
				return &broken{Memory: m, stat: func(ctx context.Context, key, version string) (storage.Object, error) {
					o, err := m.Stat(ctx, key, version)
					o.Denied = denied
					return o, err
				}}, denied
			}
		}},
		seeing("takes what is not there for denied", func(o *storage.Object) {
			if !o.LegalHold {
				o.Denied = append(o.Denied, storage.AttributeLegalHold)
			}
		}, "keep/denied"),
		seeing("hides the bucket's retention", func(o *storage.Object) { o.Retention = storage.Retention{} },
			"keep/bucket default is shown", "keep/bucket default is a floor"),
		{name: "knows of no default retention", make: func(m *Memory, b *broken) {
			b.caps = func() storage.Capabilities {
				c := m.Capabilities()
				c.DefaultRetention = storage.DefaultRetention{}
				return c
			}
		}, caughts: []string{"keep/bucket default"}},
		{name: "deletes what its bucket keeps", caughts: []string{"keep/bucket default"}, make: func(m *Memory, b *broken) {
			b.del = func(_ context.Context, key, _ string) error { m.remove(key); return nil }
		}},
		{name: "moves the custom time back", caughts: []string{"keep/custom time"}, make: func(m *Memory, b *broken) {
			b.time = func(_ context.Context, key, version string, at time.Time) error {
				return m.change("set custom time", key, version, true, func(o *memoryObject) error { o.CustomTime = at; return nil })
			}
		}},
		{name: "thaws what is warm", caughts: []string{"keep/no thaw needed"}, make: func(m *Memory, b *broken) {
			b.thaw = func(context.Context, string, string, storage.ThawOptions) error { return nil }
		}},
		seeing("calls everything cold", func(o *storage.Object) { o.Thaw.Cold = true }, "keep/no thaw needed"),
		batching("skips what is beyond a batch", func(m *Memory, keys []storage.VersionKey) []error {
			errs := make([]error, len(keys))
			copy(errs, storage.DeleteVersions(context.Background(), m, keys[:min(len(keys), 1000)]))
			return errs
		}, "delete/batch"),
		batching("answers for fewer keys", func(m *Memory, keys []storage.VersionKey) []error {
			return storage.DeleteVersions(context.Background(), m, keys)[:len(keys)/2]
		}, "delete/batch"),
		batching("ignores versions", func(m *Memory, keys []storage.VersionKey) []error {
			for i := range keys {
				keys[i].Version = ""
			}
			return storage.DeleteVersions(context.Background(), m, keys)
		}, "delete/batch", "delete/batch with locked ones"),
		batching("deletes what is locked", func(m *Memory, keys []storage.VersionKey) []error {
			for _, k := range keys {
				m.remove(k.Key)
			}
			return make([]error, len(keys))
		}, "delete/batch with locked ones"),
		batching("keeps silent about what is locked", func(m *Memory, keys []storage.VersionKey) []error {
			storage.DeleteVersions(context.Background(), m, keys)
			return make([]error, len(keys))
		}, "delete/batch with locked ones"),
		{name: "leaves the custom time", caughts: []string{"keep/custom time"}, make: func(m *Memory, b *broken) {
			b.time = func(context.Context, string, string, time.Time) error { return nil }
		}},
	}
}
