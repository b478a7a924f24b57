package archiver

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/pgstow/pgstow/storage"
)

// reads tries what an auditor does, on the newest archive: there is nothing of
// the auditor's own to try it with.
func (d *bucketDoctor) reads(ctx context.Context) {
	d.uploadsListed(ctx)
	all, err := List(ctx, d.b, ListOptions{Log: d.log})
	if err != nil {
		return // listing has its own check
	}
	// A plain reader does not see what is hidden.
	all = slices.DeleteFunc(all, func(e Entry) bool { return e.Hidden })
	if len(all) == 0 {
		d.add(Check{Name: "read", Status: CheckSkipped, Detail: "there is no archive to try it with", Advice: "run this again when there is one"})
		return
	}
	e := all[len(all)-1]
	key, version := e.Key+ManifestName, e.version(ManifestName)
	if _, ok := d.see(ctx, key, version); !ok {
		return
	}
	body, err := d.b.Open(ctx, key, storage.OpenOptions{Version: version, Length: 1})
	if err == nil {
		_, err = io.Copy(io.Discard, body)
		err = errors.Join(err, body.Close())
	}
	op := opRead
	if version != "" {
		op = opReadVersion
	}
	d.outcome("read back", op, err, false, "archive %s can be read", e.ID)
}

// uploadsListed looks at unfinished uploads, where there are any at their parts
// as well.
func (d *bucketDoctor) uploadsListed(ctx context.Context) {
	own, err := ownUploads(ctx, d.b)
	var failed *storage.Error
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case errors.As(err, &failed) && failed.Key != "":
		d.outcome("list uploads", opListParts, err, false, "")
	default:
		d.outcome("list uploads", opListUploads, err, false, "%d unfinished under this prefix", len(own))
	}
}

// addsNothing wants an upload to be refused: who audits does not write what is
// audited.
func (d *bucketDoctor) addsNothing(ctx context.Context) {
	refused, _ := d.open(ctx, storage.PutOptions{}, nil)
	switch {
	case errors.Is(refused, storage.ErrPermission):
		d.ok("add nothing", "an upload is refused, as it should be")
	case refused != nil:
		d.outcome("add nothing", opCreate, refused, false, "")
	default:
		d.warn("add nothing", "these credentials may also write", "`pgstow doctor --print-policy auditor` prints rights that only read")
	}
}
