package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// holdingBucket keeps the requests that create one object on their way.
type holdingBucket struct {
	*storagetest.Memory
	name   string
	atHold func()
	late   []func() error
}

func (h *holdingBucket) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if !strings.HasSuffix(key, "/"+h.name) {
		return h.Memory.Put(ctx, key, r, opts)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return storage.Object{}, err
	}
	h.late = append(h.late, func() error {
		_, err := storage.PutBytes(context.Background(), h.Memory, key, data, storage.PutOptions{})
		return err
	})
	h.atHold()
	err = errInjected
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", errInjected, context.Cause(ctx))
	}
	return storage.Object{}, &storage.Error{Op: "put", Key: key, Kind: storage.ErrUnknownOutcome, Err: err}
}

// A request that was given up arrives when the run is over. Whatever it
// creates, an archive that is listed then is whole.
func TestHeldRequestArrivesLater(t *testing.T) {
	pg := testenv.Postgres(t)
	conn := connTo(t, pg, smallSource(t, pg))
	for _, name := range []string{GlobalsName, IndexName, ManifestName} {
		for _, interrupted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/interrupted %v", name, interrupted), func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				stop := errors.New("interrupted by the test")
				b := &holdingBucket{Memory: storagetest.NewMemory(storagetest.MemoryOptions{}), name: name, atHold: func() {
					if interrupted {
						cancel(stop)
					}
				}}
				_, err := Archive(ctx, ArchiveOptions{Bucket: b, Conn: conn})
				oneLiner(t, err)
				if !errors.Is(err, storage.ErrUnknownOutcome) && !errors.As(err, new(*LeftoverError)) || interrupted && !errors.Is(err, stop) {
					t.Errorf("error is %v", err)
				}
				if len(b.late) == 0 {
					t.Fatal("nothing was held")
				}
				for i, arrive := range b.late {
					if err := arrive(); err != nil && i == 0 {
						t.Fatal(err)
					}
				}
				all := listed(t, b)
				if (len(all) == 1) != (name == ManifestName) {
					t.Fatalf("%d archives are listed, %q are stored", len(all), objects(t, b))
				}
				for _, e := range all {
					shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: e.ID})
					if err != nil {
						t.Fatal(err)
					}
					checkByHand(t, shown.Manifest, content(t, b))
				}
			})
		}
	}
}

// remainingBucket cannot abort the upload of the dump.
type remainingBucket struct{ *storagetest.Memory }

func (r remainingBucket) Put(ctx context.Context, key string, src io.Reader, opts storage.PutOptions) (storage.Object, error) {
	o, err := r.Memory.Put(ctx, key, src, opts)
	if err == nil || !strings.HasSuffix(key, "/"+DumpName) {
		return o, err
	}
	remains := &storage.UploadRemainsError{Key: "prefix/" + key, Remedy: "`pgstow cleanup` removes it", Err: errInjected}
	return o, &storage.Error{Op: "put", Key: key, Err: fmt.Errorf("%w; %w", err, remains)}
}

// What a driver could not abort is left over, whoever made the upload fail.
func TestUploadRemains(t *testing.T) {
	pg := testenv.Postgres(t)
	db := longSource(t, pg)
	for _, when := range []Phase{PhaseGlobals, PhaseData} {
		t.Run(string(when), func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			stop := errors.New("interrupted by the test")
			b := remainingBucket{storagetest.NewMemory(storagetest.MemoryOptions{})}
			_, err := Archive(ctx, ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Progress: func(p Progress) {
				if p.Phase == when {
					cancel(stop)
				}
			}})
			oneLiner(t, err)
			var left *LeftoverError
			if !errors.Is(err, stop) || !errors.As(err, &left) || len(left.Keys) != 1 || !strings.HasSuffix(left.Keys[0], "/"+DumpName) {
				t.Fatalf("error is %v", err)
			}
			if !strings.Contains(err.Error(), "pgstow cleanup") || strings.Count(err.Error(), "unfinished upload") != 1 {
				t.Errorf("does not say what to do: %v", err)
			}
		})
	}
}

// damagingBucket stores another manifest than it was sent, says so and keeps it.
type damagingBucket struct{ *storagetest.Memory }

func (d damagingBucket) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	o, err := d.Memory.Put(ctx, key, r, opts)
	if err == nil && strings.HasSuffix(key, "/"+ManifestName) {
		err = &storage.Error{Op: "put", Key: key, Kind: storage.ErrIntegrity, Err: errInjected}
	}
	return o, err
}

func (d damagingBucket) Delete(ctx context.Context, key, version string) error {
	if strings.HasSuffix(key, "/"+ManifestName) {
		return &storage.Error{Op: "delete", Key: key, Kind: storage.ErrLocked, Err: errInjected}
	}
	return d.Memory.Delete(ctx, key, version)
}

// A manifest that the store calls damaged and keeps is not left alone.
func TestManifestNeverOutlivesItsDump(t *testing.T) {
	pg := testenv.Postgres(t)
	b := damagingBucket{storagetest.NewMemory(storagetest.MemoryOptions{})}
	_, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, smallSource(t, pg))})
	oneLiner(t, err)
	var left *LeftoverError
	if !errors.Is(err, storage.ErrIntegrity) || !errors.As(err, &left) {
		t.Fatalf("error is %v", err)
	}
	keys := objects(t, b)
	slices.Sort(left.Keys)
	if len(keys) != 4 || !slices.Equal(keys, left.Keys) {
		t.Errorf("stored are %q, told were %q", keys, left.Keys)
	}
}
