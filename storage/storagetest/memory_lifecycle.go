package storagetest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	"github.com/pgstow/pgstow/storage"
)

// LifecycleFeatures implements storage.LifecycleManager.
func (m *Memory) LifecycleFeatures() (storage.LifecycleFeatures, bool) {
	if m.opts.Lifecycle == nil {
		return storage.LifecycleFeatures{}, false
	}
	return *m.opts.Lifecycle, true
}

// Lifecycle implements storage.LifecycleManager.
func (m *Memory) Lifecycle(context.Context) (storage.Lifecycle, error) {
	if m.opts.Lifecycle == nil {
		return storage.Lifecycle{}, memoryError("read lifecycle rules", "", errors.ErrUnsupported, "this bucket has none")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return storage.Lifecycle{Rules: slices.Clone(m.rules), Revision: strconv.Itoa(m.revision)}, nil
}

// SetLifecycle implements storage.LifecycleManager. Raw is the rule as JSON.
func (m *Memory) SetLifecycle(_ context.Context, l storage.Lifecycle) error {
	const op = "write lifecycle rules"
	if m.opts.Lifecycle == nil {
		return memoryError(op, "", errors.ErrUnsupported, "this bucket has none")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.Revision != strconv.Itoa(m.revision) {
		return memoryError(op, "", storage.ErrChanged, "it is at revision %d", m.revision)
	}
	var rules []storage.LifecycleRule
	for _, r := range l.Rules {
		raw := r.Raw
		if raw == nil {
			var err error
			if raw, err = json.Marshal(r); err != nil {
				return memoryError(op, "", nil, "%v", err)
			}
		}
		kept := storage.LifecycleRule{Raw: raw}
		if err := json.Unmarshal(raw, &kept); err != nil {
			return memoryError(op, "", nil, "%v", err)
		}
		rules = append(rules, kept)
	}
	m.rules = rules
	m.revision++
	return nil
}
