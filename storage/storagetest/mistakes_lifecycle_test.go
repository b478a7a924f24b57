package storagetest

import (
	"context"
	"encoding/json"

	"github.com/pgstow/pgstow/storage"
)

func lifecycleMistakes() []mistake {
	writing := func(name string, change func(l *storage.Lifecycle, m *Memory), caughts ...string) mistake {
		return mistake{name: name, rules: true, caughts: caughts, make: func(m *Memory, b *broken) {
			b.setRules = func(ctx context.Context, l storage.Lifecycle) error {
				change(&l, m)
				return m.SetLifecycle(ctx, l)
			}
		}}
	}
	return []mistake{
		{name: "takes rules and has none", noLock: true, caughts: []string{"lifecycle/round trip", "lifecycle/as they came", "lifecycle/changed between"},
			make: func(_ *Memory, b *broken) {
				b.setRules = func(context.Context, storage.Lifecycle) error { return nil }
			}},
		writing("drops the second rule", func(l *storage.Lifecycle, _ *Memory) { l.Rules = l.Rules[:min(len(l.Rules), 1)] },
			"lifecycle/round trip"),
		writing("writes its own reading of a rule", func(l *storage.Lifecycle, _ *Memory) {
			for i := range l.Rules {
				l.Rules[i].Raw, _ = json.Marshal(l.Rules[i])
			}
		}, "lifecycle/as they came"),
		writing("looks at no revision", func(l *storage.Lifecycle, m *Memory) {
			now, _ := m.Lifecycle(context.Background())
			l.Revision = now.Revision
		}, "lifecycle/changed between"),
		{name: "cannot read what is empty", rules: true, caughts: []string{"lifecycle/round trip"}, make: func(m *Memory, b *broken) {
			b.rules = func(ctx context.Context) (storage.Lifecycle, error) {
				l, err := m.Lifecycle(ctx)
				if len(l.Rules) == 0 {
					err = storage.ErrNotExist
				}
				return l, err
			}
		}},
	}
}
