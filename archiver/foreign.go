package archiver

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// A foreign object is read twice: once through, which proves that it is complete and decodes,
// and makes the index; and then as an archive with an index is, by ranges, each block held
// against the hash of the first time. One reading would do where one pg_restore takes
// it all, and would be quicker; but a dump that was cut, which is what a pipe into a store
// leaves when pg_dump dies, would then be noticed in the middle of the target. Only
// where nothing of the data is wanted, or the archive is to be passed on, is it read once.

// foreign restores an object without a manifest.
func (r *restoreRun) foreign(ctx context.Context, found []dumper.Tools) (err error) {
	if err := r.checkForeign(); err != nil {
		return err
	}
	// Beside an object there is no signature.
	r.res.Signature = Signature{State: SignatureUnsigned}
	if err := r.opts.Trust.check(r.res.Signature, r.opts.Object); err != nil {
		return err
	}
	r.pass, err = openForeign(ctx, r.opts.Bucket, r.opts.Object, false, r.progress)
	if err != nil {
		return err
	}
	defer r.pass.close()
	if note := ownDump(r.opts.Object); note != "" {
		r.warn(note)
	}
	r.dump, r.etag = r.pass.object(), r.pass.stored.ETag
	r.source = storedDump{bucket: r.opts.Bucket, key: r.dump.Key, version: r.dump.Version}
	switch {
	case r.opts.Output != nil:
		return r.passOn()
	case !r.pass.known:
		return unknownObject(r.pass)
	}
	r.warn("no evidence for " + r.opts.Object + ": " + NoManifest)
	err = r.intoDatabase(ctx, found)
	if errors.Is(err, pgarchive.ErrMismatch) {
		return fmt.Errorf("the object was changed after it had been read through: %w", err)
	}
	return err
}

func (r *restoreRun) checkForeign() error {
	switch {
	case r.opts.Ref != "" || r.opts.Name != "":
		return fmt.Errorf("%w: an archive's id and an object's key exclude each other", ErrUsage)
	case r.opts.Globals:
		return fmt.Errorf("%w: an object without a manifest has no globals beside it; restore without --globals", ErrUsage)
	}
	return nil
}

// headOnly tells that no block is wanted of a foreign object, so that none is looked at.
func (r *restoreRun) headOnly() bool { return r.pass != nil && r.opts.Restore.SchemaOnly }

// readThrough reads the rest of a foreign object, of which nothing has gone to pg_restore, and
// makes its index.
func (r *restoreRun) readThrough(ctx context.Context) error {
	defer r.pass.close()
	if r.headOnly() {
		r.res.Object = r.pass.info(nil)
		r.log.Info("definitions alone are wanted: the data of the object are not looked at")
		return nil
	}
	r.progress.phase(PhaseIndex)
	if err := r.pass.finish(nil); err != nil {
		return err
	}
	r.index = r.pass.index()
	r.res.Object = r.pass.info(r.index)
	r.dump.SHA256 = r.index.Dump.SHA256
	r.log.Info("read through and found complete", "key", r.dump.Key, "version", r.dump.Version,
		"bytes", r.dump.Size, "blocks", len(r.index.Blocks), "sha256", r.dump.SHA256)
	r.progress.restart(r.dump.Size)
	return r.unchanged(ctx)
}

// unchanged is for stores without versions; the hash of each block says it again.
func (r *restoreRun) unchanged(ctx context.Context) error {
	o, err := r.opts.Bucket.Stat(ctx, r.dump.Key, r.dump.Version)
	if err != nil {
		return fmt.Errorf("read object: %w", missing(r.dump.Key, err))
	}
	if o.Size != r.dump.Size || o.ETag != r.etag {
		return integrity("%s was replaced while it was read; start over", r.dump.Key)
	}
	return nil
}

// passOn writes a foreign object to Output, proving its structure on the way.
func (r *restoreRun) passOn() error {
	if r.pass.known {
		r.warn("no evidence for " + r.opts.Object + ": " + NoManifest)
	} else {
		r.warn(fmt.Sprintf("no evidence for %s: %v %v; its structure is not checked either", r.opts.Object, pgarchive.ErrUnknownVersion, r.pass.head.Version))
	}
	r.progress.phase(PhaseData)
	err := r.pass.finish(r.opts.Output)
	r.res.Bytes = r.pass.n
	if errors.Is(err, ErrIntegrity) {
		return fmt.Errorf("%w; what was written is not a whole archive", err)
	}
	if err != nil {
		return err
	}
	var index *Index
	if r.pass.known {
		index = r.pass.index()
	}
	r.res.Object = r.pass.info(index)
	return nil
}
