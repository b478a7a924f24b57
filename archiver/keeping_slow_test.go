package archiver

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// slowStore dates an object from when it is complete, as MinIO, versitygw and GCS
// do, and the dump takes long. Its clock may be ahead of this machine's.
type slowStore struct {
	*storagetest.Memory
	pinned bool // nothing may be extended
	took   time.Duration
	ahead  time.Duration
	passed time.Duration            // since the run began
	dated  map[string]time.Duration // by key
}

func (s *slowStore) now() time.Time { return time.Now().Add(s.passed) }

func (s *slowStore) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	o, err := s.Memory.Put(ctx, key, r, opts)
	if strings.HasSuffix(key, "/"+DumpName) {
		s.passed += s.took
	}
	s.dated[key] = s.passed + s.ahead
	return o, err
}

func (s *slowStore) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	o, err := s.Memory.Stat(ctx, key, version)
	o.Created = o.Created.Add(s.dated[key])
	return o, err
}

func (s *slowStore) SetRetention(ctx context.Context, key, version string, r storage.Retention) error {
	if s.pinned {
		return &storage.Error{Op: "retain", Key: key, Kind: storage.ErrPermission}
	}
	return s.Memory.SetRetention(ctx, key, version, r)
}

// A dump whose upload takes longer than the lock's margin is younger, to the
// store, than the lock that was counted from its start. That is no wrong clock:
// the lock is extended, or what is promised is less. A wrong clock is found by
// what is made at once.
func TestLockOfADumpThatTookLong(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	for name, c := range map[string]struct {
		store     slowStore
		noGlobals bool
		wrong     bool
	}{
		"extended":                            {store: slowStore{took: 26 * time.Hour}},
		"not to be extended":                  {store: slowStore{took: 26 * time.Hour, pinned: true}},
		"a wrong clock":                       {store: slowStore{ahead: 26 * time.Hour}, wrong: true},
		"a wrong clock, not to be extended":   {store: slowStore{ahead: 26 * time.Hour, pinned: true}, wrong: true},
		"a wrong clock, and no globals":       {store: slowStore{ahead: 26 * time.Hour}, noGlobals: true, wrong: true},
		"a wrong clock, no globals, took":     {store: slowStore{ahead: 26 * time.Hour, took: 26 * time.Hour, pinned: true}, noGlobals: true, wrong: true},
		"a day less, which the margin covers": {store: slowStore{took: 23 * time.Hour, pinned: true}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &c.store
			b.Memory, b.dated = lockable(), map[string]time.Duration{}
			res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Policy: sox, Now: b.now, NoGlobals: c.noGlobals})
			if c.wrong {
				if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "set this machine's clock") {
					t.Fatal(err)
				}
				for _, o := range shownIn(t, b) {
					if isManifest(o.Key) || !c.noGlobals && strings.HasSuffix(o.Key, "/"+DumpName) {
						t.Errorf("%s was stored before it was found", o.Key)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m := res.Manifest
			short := b.pinned && b.took > 24*time.Hour
			full, lock := sox.Keep.After(m.Finished), lockMargin(sox.Keep.After(m.Finished))
			if b.pinned {
				lock = lockMargin(sox.Keep.After(m.Started))
			}
			if m.Kept.KeepUntil.Before(full) != short || m.Kept.KeepUntil.After(m.Kept.RetainUntil) || !m.Kept.RetainUntil.Equal(lock) {
				t.Errorf("kept %+v; started %s, finished %s", m.Kept, m.Started, m.Finished)
			}
			for _, o := range shownIn(t, b) {
				if o.Retention.Until.Before(m.Kept.KeepUntil) {
					t.Errorf("%s is locked until %s, promised until %s", o.Key, o.Retention.Until, m.Kept.KeepUntil)
				}
			}
			denied := slices.ContainsFunc(m.Warnings, func(w string) bool { return strings.Contains(w, "denied") })
			promised := slices.ContainsFunc(m.Warnings, func(w string) bool { return strings.Contains(w, "it is promised") })
			if denied != b.pinned || promised != short {
				t.Errorf("warnings %q", m.Warnings)
			}
		})
	}
}
