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
	h := Harness{
		Open: func(t testing.TB) *Store {
			m := NewMemory(opts)
			return &Store{Bucket: m, Cut: m.Cut, Freeze: m.Freeze, Received: m.Received, Blind: blind(m),
				Leftovers: func(testing.TB) []string { return m.leftovers() }}
		},
		PartSize: part,
		Want: storage.Capabilities{Versions: opts.Versions, DeferredHead: true, ObjectLock: opts.Lock,
			LegalHold: opts.Lock, Tags: true, StorageClass: true, Encryption: true, CustomTime: opts.CustomTime},
		Encryption: []storage.Encryption{{Mode: storage.EncryptionStore}, {Mode: storage.EncryptionKMS}, {Mode: storage.EncryptionKMS, Key: "k"}},
		Lifecycle:  opts.Lifecycle != nil,
		Checksum:   "CRC32C", Metadata: true, StorageClass: "COLD", StallTimeout: 20 * time.Millisecond,
		Without: map[Hook]string{
			HookBadCredentials: "memory asks for none",
			HookNoBucket:       "memory is always there",
			HookUnreachable:    "memory has no connection",
			HookDenied:         "memory knows no rights",
			HookMemory:         "the store itself is in the heap",
		},
	}
	if !opts.Lock {
		h.Without[HookDefaultRetention] = "a bucket that cannot lock keeps nothing"
		return h
	}
	h.DefaultRetention = func(t testing.TB) (storage.Bucket, storage.DefaultRetention) {
		withDefault := opts
		withDefault.DefaultRetention = storage.DefaultRetention{Mode: storage.Compliance, Days: 2}
		return NewMemory(withDefault), withDefault.DefaultRetention
	}
	return h
}

func blind(m *Memory) func(testing.TB) (storage.Bucket, []storage.Attribute) {
	return func(testing.TB) (storage.Bucket, []storage.Attribute) {
		denied := []storage.Attribute{storage.AttributeTags, storage.AttributeRetention, storage.AttributeLegalHold}
		return m.Blind(denied...), denied
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
		"plain": {}, "versions": {Versions: true}, "lock": {Versions: true, Lock: true}, "custom time": {CustomTime: true},
		"lifecycle": {Lifecycle: &storage.LifecycleFeatures{IDs: true}},
	} {
		t.Run(name, func(t *testing.T) { Run(t, memoryHarness(opts)) })
	}
}
