package storagetest

import (
	"context"
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
		{name: "leaves the custom time", caughts: []string{"keep/custom time"}, make: func(m *Memory, b *broken) {
			b.time = func(context.Context, string, string, time.Time) error { return nil }
		}},
	}
}
