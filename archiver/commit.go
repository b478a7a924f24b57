package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// storedKey is an object that the run has put.
type storedKey struct {
	key, version string
	state        storedState
}

type storedState int

const (
	isStored   storedState = iota
	mayBeThere             // the store's answer was lost, and the object may even come later
	mayBeWrong             // the store made something else of it, and removed it if it could
)

// commitUnknownError: the manifest may be stored.
type commitUnknownError struct {
	id  string
	err error
}

func (e *commitUnknownError) Error() string {
	return fmt.Sprintf("the archive may exist: the answer to its manifest was lost (%s); check with `pgstow show %s`", oneLine(e.err), e.id)
}

func (e *commitUnknownError) Unwrap() error { return e.err }

// noteStored remembers what a Put has left: the object when it succeeded, and
// perhaps one when its outcome is unknown. An existing key is somebody else's.
func (r *archiveRun) noteStored(key string, o storage.Object, err error) {
	switch {
	case err == nil:
		r.stored = append(r.stored, storedKey{key: key, version: o.Version})
	case errors.Is(err, storage.ErrUnknownOutcome):
		r.stored = append(r.stored, storedKey{key: key, state: mayBeThere})
	case errors.Is(err, storage.ErrIntegrity):
		r.stored = append(r.stored, storedKey{key: key, state: mayBeWrong})
	}
}

// storeSmall stores an object from memory, encrypted if there are recipients, and
// compares what the store made of it.
func (r *archiveRun) storeSmall(ctx context.Context, name string, data []byte, contentType string) (*StoredObject, error) {
	var plain *Plain
	if !r.opts.Recipients.IsZero() {
		plain = &Plain{Size: int64(len(data)), SHA256: hexSum(data)}
		var err error
		if data, err = seal(data, r.opts.Recipients); err != nil {
			return nil, err
		}
		name, contentType = r.opts.Recipients.name(name), "application/octet-stream"
	}
	key := r.dir.Key(name)
	o, err := r.putSmall(ctx, name, data, contentType)
	r.noteStored(key, o, err)
	if err != nil {
		return nil, err
	}
	so := &StoredObject{
		Key: key, Version: o.Version, Size: int64(len(data)), SHA256: hexSum(data), Plain: plain, Checksum: checksumOf(o),
	}
	return so, r.readBack(ctx, so, o)
}

func (r *archiveRun) putSmall(ctx context.Context, name string, data []byte, contentType string) (storage.Object, error) {
	return r.putSmallAt(ctx, r.opts.Now(), name, data, contentType)
}

// putSmallAt counts the lock from now. A request that is repeated asks for what
// the first one did: either may be the one that was heard.
func (r *archiveRun) putSmallAt(ctx context.Context, now time.Time, name string, data []byte, contentType string) (storage.Object, error) {
	guarded, progress, stop := storage.GuardStall(ctx, r.stall, nil)
	defer stop()
	put, err := r.keeper.options(name, storage.PutOptions{ContentType: contentType, Progress: progress}, now)
	if err != nil {
		return storage.Object{}, err
	}
	key := r.dir.Key(name)
	o, err := storage.PutBytes(guarded, r.opts.Bucket, key, data, put)
	r.keeper.note(key, name, o.Version, put)
	return o, causeOf(guarded, err)
}

// readBack is compareStored, and notes in the manifest what is denied.
func (r *archiveRun) readBack(ctx context.Context, so *StoredObject, put storage.Object) error {
	denied, err := r.compareStored(ctx, so, put)
	if denied {
		r.manifest.ReadBack = ReadBackDenied
	}
	return err
}

// compareStored compares an object with what the store says about it now. Only
// a store that denies the reading is believed without.
func (r *archiveRun) compareStored(ctx context.Context, so *StoredObject, put storage.Object) (denied bool, err error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	got, err := r.opts.Bucket.Stat(ctx, so.Key, put.Version)
	switch {
	case errors.Is(err, storage.ErrPermission):
		if err := r.keeper.refusal(so.Key, err); err != nil {
			return true, err
		}
		denied, got = true, put
	case errors.Is(err, storage.ErrNotExist):
		return denied, integrity("%s is not there after it was stored: %w", so.Key, err)
	case err != nil:
		return denied, fmt.Errorf("read back: %w", causeOf(ctx, err))
	}
	switch {
	case got.Size != so.Size:
		return denied, integrity("%s has %d bytes in the store, %d were sent", so.Key, got.Size, so.Size)
	case got.Version != put.Version:
		return denied, integrity("%s has version %q in the store, %q was written", so.Key, got.Version, put.Version)
	case so.Checksum != nil && got.Checksum != (storage.Checksum{}) && got.Checksum != *so.Checksum:
		return denied, integrity("%s has checksum %s %s in the store, %s %s was written", so.Key,
			got.Checksum.Algorithm, got.Checksum.Value, so.Checksum.Algorithm, so.Checksum.Value)
	case err != nil:
		return denied, nil // nothing more was shown
	}
	return denied, r.keeper.compare(so.Key, got)
}

// bounded caps a request without a body, retries included.
func (r *archiveRun) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.stall < 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, r.stall, fmt.Errorf("%w: no answer for %s", storage.ErrStalled, r.stall))
}

// commit stores the manifest: from then on the archive exists.
func (r *archiveRun) commit(ctx context.Context) (*ArchiveResult, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := r.lookBack(ctx); err != nil {
		return nil, err
	}
	if err := r.keep(ctx); err != nil {
		return nil, err
	}
	raw, err := r.manifest.encode()
	if err != nil {
		return nil, err
	}
	if err := r.sign(ctx, raw); err != nil {
		return nil, err
	}
	key, now := r.dir.Key(ManifestName), r.opts.Now()
	o, err := r.putSmallAt(ctx, now, ManifestName, raw, "application/json")
	switch {
	case errors.Is(err, storage.ErrUnknownOutcome):
		if o, err = r.settleManifest(ctx, now, key, raw, err); err != nil {
			return nil, err
		}
	case err != nil:
		// It may be there, damaged: then it goes first, or nothing does.
		r.noteStored(key, o, err)
		return nil, fmt.Errorf("store manifest: %w", err)
	}
	r.noteStored(key, o, nil)
	res := &ArchiveResult{Manifest: r.manifest, ManifestSHA256: hexSum(raw), Warnings: slices.Clone(r.warnings)}
	return res, r.readBackManifest(ctx, key, o.Version, raw, res)
}

// sign stores the signature of the manifest, if there is a key: before the
// manifest, so that no archive exists for a moment without it.
func (r *archiveRun) sign(ctx context.Context, raw []byte) error {
	if r.opts.Signer == nil {
		return nil
	}
	armored, err := r.opts.Signer.Sign(raw)
	if err != nil {
		return fmt.Errorf("sign the manifest: %w", err)
	}
	key := r.dir.Key(SignatureName)
	o, err := r.putSmall(ctx, SignatureName, armored, "text/plain")
	r.noteStored(key, o, err)
	if err != nil {
		return fmt.Errorf("store signature: %w", err)
	}
	// What is denied here the manifest cannot say any more; its own read-back is
	// denied then, too, which the result tells.
	_, err = r.compareStored(ctx, &StoredObject{Key: key, Version: o.Version, Size: int64(len(armored)), Checksum: checksumOf(o)}, o)
	return err
}

// keep ends what is said in the manifest about how the archive is kept: locks
// are counted from the end of the run.
func (r *archiveRun) keep(ctx context.Context) error {
	r.manifest.Finished = r.opts.Now().UTC().Truncate(time.Millisecond)
	bounded, cancel := r.bounded(ctx)
	defer cancel()
	warnings, err := r.keeper.extend(bounded, r.manifest.Finished)
	if err != nil {
		return causeOf(bounded, err)
	}
	for _, text := range warnings {
		r.warn(text)
	}
	kept := r.keeper.kept(r.manifest.Finished)
	r.manifest.Kept = kept
	if full := kept.Keep.After(r.manifest.Finished); !kept.Keep.IsZero() && kept.KeepUntil.Before(full) {
		r.warn(fmt.Sprintf("the store may delete the archive from %s on, %s before its keep of %s is over: that is until when it is promised",
			kept.KeepUntil.Format(time.RFC3339), full.Sub(kept.KeepUntil).Round(time.Second), kept.Keep))
	}
	if denied := r.manifest.Kept.Denied; len(denied) > 0 {
		r.manifest.ReadBack = ReadBackDenied
		r.warn(fmt.Sprintf("not read back for want of a right: %s", joined(denied)))
	}
	return nil
}

const (
	// settleTime bounds what is tried after the store gave up.
	settleTime = 8 * time.Second
	// endTime is how long a run may go on after its context has ended: what the
	// driver needs to abort its upload is part of it, as somebody waits.
	endTime = 8 * time.Second
	// leastTime is left for removals in any case.
	leastTime = 2 * time.Second
)

// settling gives what follows a failure a context of its own, which lasts for
// settleTime, but no longer than endTime after the end of ctx.
func (r *archiveRun) settling(ctx context.Context, failure error) (context.Context, context.CancelFunc) {
	limit := settleTime
	switch ended := r.ended.Load(); {
	case ctx.Err() != nil && ended != nil:
		limit = endTime - time.Since(*ended)
	case ctx.Err() != nil:
		limit = endTime
	case errors.Is(failure, storage.ErrStalled):
		limit = leastTime // the driver has waited for the store already
	}
	later, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(limit, leastTime))
	if ctx.Err() == nil {
		context.AfterFunc(ctx, func() {
			select {
			case <-time.After(leastTime):
				cancel()
			case <-later.Done():
			}
		})
	}
	return later, cancel
}

// settleManifest finds out whether a manifest is stored whose Put had an
// unknown outcome. One that is not there is put again, because the lost
// request may still arrive: whichever comes first, the same bytes are there.
// After the caller's end there is no time for that.
func (r *archiveRun) settleManifest(ctx context.Context, now time.Time, key string, raw []byte, cause error) (storage.Object, error) {
	over := ctx.Err() != nil
	ctx, cancel := r.settling(ctx, cause)
	defer cancel()
	o, err := r.opts.Bucket.Stat(ctx, key, "")
	if errors.Is(err, storage.ErrNotExist) && !over {
		o, err = r.putSmallAt(ctx, now, ManifestName, raw, "application/json")
		if errors.Is(err, storage.ErrExist) {
			o, err = r.opts.Bucket.Stat(ctx, key, "")
		}
	}
	if err != nil {
		return storage.Object{}, &commitUnknownError{id: r.dir.ID, err: fmt.Errorf("%w; then: %s", cause, oneLine(err))}
	}
	return o, nil
}

// readBackManifest compares the stored manifest byte for byte, and how it is
// kept. A store that cannot be reached any more has confirmed the manifest all
// the same: the archive exists, and saying otherwise would be wrong.
func (r *archiveRun) readBackManifest(ctx context.Context, key, version string, raw []byte, res *ArchiveResult) error {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	got, err := readSmall(ctx, r.opts.Bucket, key, version, maxManifest)
	switch {
	case errors.Is(err, ErrIntegrity) || errors.Is(err, storage.ErrIntegrity):
		return fmt.Errorf("read back manifest: %w", err)
	case errors.Is(err, storage.ErrNotExist):
		return integrity("%s is not there after it was stored: %w", key, err)
	case err == nil && !bytes.Equal(got, raw):
		return integrity("manifest %s differs from what was written", key)
	}
	var o storage.Object
	if err == nil {
		o, err = r.opts.Bucket.Stat(ctx, key, version)
	}
	if err != nil {
		return r.notReadBack(key, res, causeOf(ctx, err))
	}
	return r.compareManifest(key, o, res)
}

// notReadBack says why the manifest was not read back, or refuses it.
func (r *archiveRun) notReadBack(key string, res *ArchiveResult, err error) error {
	if refused := r.keeper.refusal(key, err); refused != nil {
		return &CommittedError{ID: r.dir.ID, Err: refused}
	}
	if errors.Is(err, storage.ErrPermission) {
		res.ReadBack = ReadBackDenied
		return nil
	}
	text := "the manifest is stored but could not be read back: " + oneLine(err)
	r.log.Warn(text)
	res.ReadBack, res.Warnings = ReadBackUnavailable, append(res.Warnings, text)
	return nil
}

// compareManifest wants the manifest to be kept like what it describes.
func (r *archiveRun) compareManifest(key string, o storage.Object, res *ArchiveResult) error {
	if err := r.keeper.compare(key, o); err != nil {
		return &CommittedError{ID: r.dir.ID, Err: err}
	}
	res.ReadBack = ReadBackDone
	if len(r.keeper.hidden[key]) > 0 {
		res.ReadBack = ReadBackDenied
	}
	return nil
}

// watch notes when ctx ends.
func (r *archiveRun) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		now := time.Now()
		r.ended.Store(&now)
	})
}

// leftover removes what the failed run has put, and adds to its error what
// cannot be removed.
func (r *archiveRun) leftover(ctx context.Context, err error) error {
	keys, failure := r.removeStored(ctx, err)
	var upload *storage.UploadRemainsError
	if errors.As(err, &upload) {
		keys = append(keys, upload.Key)
	}
	if len(keys) == 0 {
		return err
	}
	return &LeftoverError{Err: err, Keys: keys, Removal: failure}
}

// removeStored removes what the failed run has put, the newest first, so that
// a manifest never outlives what it names. It returns the keys that may still
// be there, and why. ctx may have ended already.
func (r *archiveRun) removeStored(ctx context.Context, cause error) ([]string, error) {
	ctx, cancel := r.settling(ctx, cause)
	defer cancel()
	var left []string
	var failures []error
	for _, s := range slices.Backward(r.stored) {
		err := r.remove(ctx, s)
		if err == nil {
			continue
		}
		left = append(left, s.key)
		failures = append(failures, err)
		if s.key == r.dir.Key(ManifestName) {
			// Listed and whole is better than listed and broken.
			for _, older := range r.stored[:len(r.stored)-1] {
				left = append(left, older.key)
			}
			break
		}
	}
	return left, errors.Join(failures...)
}

func (r *archiveRun) remove(ctx context.Context, s storedKey) error {
	b := r.opts.Bucket
	if s.state == isStored {
		return b.Delete(ctx, s.key, s.version)
	}
	o, err := b.Stat(ctx, s.key, "")
	if errors.Is(err, storage.ErrNotExist) {
		if s.state == mayBeWrong {
			return nil
		}
		return fmt.Errorf("%s is not there now but may still appear", s.key)
	}
	if err != nil {
		return err
	}
	return b.Delete(ctx, s.key, o.Version)
}

func joined[S ~string](names []S) string {
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(n))
	}
	return b.String()
}
