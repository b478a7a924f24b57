package storagetest

import (
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// memoryHarness is the reference bucket's.
func memoryHarness(opts MemoryOptions) Harness {
	const part = 64 << 10
	opts.PartSize = part
	return Harness{
		Open: func(t testing.TB) *Store {
			m := NewMemory(opts)
			return &Store{Bucket: m, Cut: m.Cut, Freeze: m.Freeze, Received: m.Received,
				Leftovers: func(testing.TB) []string { return m.leftovers() }}
		},
		PartSize: part,
		Want: storage.Capabilities{Versions: opts.Versions, DeferredHead: true, ObjectLock: opts.Lock,
			LegalHold: opts.Lock, Tags: true, StorageClass: true},
		Checksum: "CRC32C", Metadata: true, StorageClass: "COLD", StallTimeout: 20 * time.Millisecond,
		Without: map[Hook]string{
			HookBadCredentials: "memory asks for none",
			HookNoBucket:       "memory is always there",
			HookUnreachable:    "memory has no connection",
			HookDenied:         "memory knows no rights",
			HookMemory:         "the store itself is in the heap",
		},
	}
}

func (m *Memory) leftovers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for id, u := range m.uploads {
		all = append(all, u.Key+" "+id)
	}
	return all
}

func TestMemory(t *testing.T) {
	for name, opts := range map[string]MemoryOptions{
		"plain": {}, "versions": {Versions: true}, "lock": {Versions: true, Lock: true},
	} {
		t.Run(name, func(t *testing.T) { Run(t, memoryHarness(opts)) })
	}
}
