package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/storage"
)

// scratchObject is the one object that Doctor writes.
type scratchObject struct {
	*bucketDoctor
	keeper       *keeper // compares it with what was asked for
	key, version string
	retention    storage.Retention
	class        string // asked for
}

// read looks at it as the read-back and a restore do.
func (o *scratchObject) read(ctx context.Context) {
	shown, ok := o.see(ctx, o.key, o.version)
	if !ok {
		return
	}
	err := o.keeper.compare(o.key, shown)
	if err == nil && o.class != "" && shown.StorageClass != o.class {
		err = integrity("%s: the storage class is %q in the store, %s was asked for; the store does not keep what it takes", o.key, shown.StorageClass, o.class)
	}
	switch {
	case err != nil:
		o.fail("read back", err, bucketAdvice(err))
	case !shown.Thaw.Readable(o.opts.Now()):
		o.ok("read back", "it is kept as asked%s in %s, which has to be thawed to be read", joinedTo(o.retention), o.class)
	default:
		o.readRange(ctx)
	}
}

// see asks the store for all that it shows of an object.
func (d *bucketDoctor) see(ctx context.Context, key, version string) (shown storage.Object, ok bool) {
	shown, err := d.b.Stat(ctx, key, "")
	if !d.outcome("read", opRead, err, false, "it can be seen") && !errors.Is(err, storage.ErrPermission) {
		return shown, false
	}
	if version != "" {
		if shown, err = d.b.Stat(ctx, key, version); err != nil {
			d.outcome("read version", opReadVersion, err, false, "")
			return shown, false
		}
	}
	if err != nil {
		return shown, false
	}
	for _, x := range []struct {
		what storage.Attribute
		op   operation
	}{{storage.AttributeRetention, opReadLock}, {storage.AttributeLegalHold, opReadHold}, {storage.AttributeTags, opReadTags}} {
		if x.op == opReadTags && version != "" {
			x.op = opReadTagsOf
		}
		if !slices.Contains(shown.Denied, x.what) || !d.wants(x.op) {
			continue
		}
		d.outcome("read "+string(x.what), x.op, fmt.Errorf("the store does not show it: %w", storage.ErrPermission), false, "")
	}
	return shown, true
}

// readRange reads from its middle, as a restore does.
func (o *scratchObject) readRange(ctx context.Context) {
	const from, to = 8, 23
	op := opRead
	if o.version != "" {
		op = opReadVersion
	}
	body, err := o.b.Open(ctx, o.key, storage.OpenOptions{Version: o.version, Offset: from, Length: to - from})
	var got []byte
	if err == nil {
		got, err = io.ReadAll(body)
		err = errors.Join(err, body.Close())
	}
	if err == nil && string(got) != scratchText[from:to] {
		err = integrity("%q came back for %q", got, scratchText[from:to])
	}
	o.outcome("read back", op, err, false, "it is what was written, and kept as asked%s; a range can be read", joinedTo(o.retention))
}

func joinedTo(r storage.Retention) string {
	if r.IsZero() {
		return ""
	}
	return " (" + retentionText(r) + ")"
}

// keep tries what a lock allows and what it does not.
func (o *scratchObject) keep(ctx context.Context) {
	if o.retention.IsZero() {
		return
	}
	longer := o.retention
	longer.Until = longer.Until.Add(scratchLock)
	if err := storage.SetRetention(ctx, o.b, o.key, o.version, longer); o.outcome("extend", opExtend, err, false, "the lock was extended to %s", retentionText(longer)) {
		o.retention = longer
	}
	o.refuseToDelete(ctx)
}

// refuseToDelete wants the store to refuse because of the lock: credentials that
// may delete nothing at all prove nothing of it.
func (o *scratchObject) refuseToDelete(ctx context.Context) {
	const name = "refuse to delete"
	may := o.b.Delete(ctx, o.scratchKey(), o.version)
	switch err := o.b.Delete(ctx, o.key, o.version); {
	case err == nil:
		err = integrity("%s was deleted although it is locked until %s", o.key, retentionText(o.retention))
		o.fail(name, err, bucketAdvice(err))
		o.retention = storage.Retention{}
	case errors.Is(err, storage.ErrPermission), errors.Is(may, storage.ErrPermission):
		o.add(Check{Name: name, Status: CheckSkipped,
			Detail: "whether the lock holds could not be told: these credentials may delete nothing, locked or not",
			Advice: fmt.Sprintf("run `pgstow doctor` once with credentials of the profile %s to see the store refuse it", ProfileFull)})
	case errors.Is(err, storage.ErrLocked):
		o.ok(name, "the locked object cannot be deleted")
	default:
		o.fail(name, err, bucketAdvice(err))
	}
}

// hold sets and releases a legal hold, if these credentials may release: what
// holds without end is not for trying. That one can be set when an object is
// created has been seen before.
func (o *scratchObject) hold(ctx context.Context) {
	if !o.caps.LegalHold && !o.opts.Policy.LegalHold {
		return
	}
	const name = "set hold"
	if err := storage.SetLegalHold(ctx, o.b, o.key, o.version, false); err != nil {
		if !o.outcome(name, opRelease, err, false, "") && errors.Is(err, storage.ErrPermission) && !o.spares(opRelease) {
			c := &o.checks[len(o.checks)-1]
			c.Detail = "none was set on an object that exists, because releasing it is denied: " + c.Detail
		}
		return
	}
	if err := storage.SetLegalHold(ctx, o.b, o.key, o.version, true); err != nil {
		o.outcome(name, opRelease, err, false, "")
		return
	}
	// It is released whatever happens.
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	shown, seeErr := o.b.Stat(release, o.key, o.version)
	switch err := storage.SetLegalHold(release, o.b, o.key, o.version, false); {
	case err != nil:
		o.fail(name, fmt.Errorf("%s stays on hold: %w", o.key, err), "release it with the store's own tools")
	case seeErr == nil && !slices.Contains(shown.Denied, storage.AttributeLegalHold) && !shown.LegalHold:
		err = integrity("%s is not on hold after one was set", o.key)
		o.fail(name, err, bucketAdvice(err))
	default:
		o.ok(name, "a legal hold was set and released")
	}
}

// remove deletes the object unless it is locked, and what earlier runs have
// left. Whether deleting is allowed shows by a version that is not there.
func (o *scratchObject) remove(ctx context.Context) {
	op := opDelete
	if o.version != "" {
		op = opDeleteVersion
	}
	err := o.b.Delete(ctx, o.scratchKey(), o.version)
	if err == nil && o.retention.IsZero() {
		err = o.b.Delete(ctx, o.key, o.version)
	}
	if errors.Is(err, storage.ErrLocked) { // by the bucket's own retention
		o.ok("delete", "allowed, but for %s, which the bucket keeps", o.key)
		return
	}
	detail := "the object was deleted"
	if !o.retention.IsZero() {
		detail = fmt.Sprintf("allowed; %s stays until %s", o.key, o.retention.Until.Format("15:04:05Z"))
	}
	if !o.outcome("delete", op, err, false, "%s", detail) {
		o.checks[len(o.checks)-1].Detail += "; " + o.key + " stays"
		return
	}
	o.sweep(ctx)
}

// sweep removes what earlier runs had to leave and nothing locks any more.
func (o *scratchObject) sweep(ctx context.Context) {
	var old []storage.Object
	for x, err := range o.b.List(ctx, storage.ListOptions{Prefix: scratchDir, Versions: o.caps.Versions}) {
		if err != nil {
			return // listing has its own check
		}
		if x.Key != o.key && strings.HasPrefix(x.Key, scratchDir) && o.opts.Now().Sub(x.Created) > scratchAge {
			old = append(old, x)
		}
	}
	removed := 0
	for _, x := range old {
		if o.b.Delete(ctx, x.Key, x.Version) == nil {
			removed++
		}
	}
	if removed > 0 {
		o.checks[len(o.checks)-1].Detail += fmt.Sprintf("; %d of earlier runs removed", removed)
	}
}
