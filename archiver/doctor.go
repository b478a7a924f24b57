package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/storage"
)

// Outcomes of a Check.
const (
	CheckOK   = "ok"
	CheckWarn = "warn"
	CheckFail = "fail"
)

// Check is one thing that Doctor looked at.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"` // what to do, when not ok
	Err    error  `json:"-"`                // the failure, for the exit code
}

// DoctorOptions choose what Doctor looks at.
type DoctorOptions struct {
	// Conn is the source; nil leaves the database out.
	Conn *dumper.Conn
	// OpenBucket opens the bucket, Doctor closes it; nil leaves it out.
	OpenBucket  func(ctx context.Context) (storage.Bucket, error)
	PGBin       string
	AllowPooler bool
	Log         *slog.Logger
}

// Doctor checks tools, database and bucket as an archive would use them, and
// goes on after a failure where that makes sense. It writes one tiny object
// under a key of pgstow's own and removes it again.
func Doctor(ctx context.Context, opts DoctorOptions) []Check {
	d := &doctor{opts: opts, log: logger(opts.Log)}
	found := d.tools(ctx)
	if opts.Conn != nil {
		d.database(ctx, found)
	}
	if opts.OpenBucket != nil {
		d.bucket(ctx)
	}
	return d.checks
}

type doctor struct {
	opts   DoctorOptions
	log    *slog.Logger
	checks []Check
}

func (d *doctor) ok(name, format string, args ...any) {
	d.checks = append(d.checks, Check{Name: name, Status: CheckOK, Detail: fmt.Sprintf(format, args...)})
}

func (d *doctor) warn(name, detail, advice string) {
	d.checks = append(d.checks, Check{Name: name, Status: CheckWarn, Detail: detail, Advice: advice})
}

func (d *doctor) fail(name string, err error, advice string) {
	d.checks = append(d.checks, Check{Name: name, Status: CheckFail, Detail: oneLine(err), Advice: advice, Err: err})
}

const installTools = "install PostgreSQL's client programs (Debian: postgresql-client-NN), or name their directory with --pg-bin"

func (d *doctor) tools(ctx context.Context) []dumper.Tools {
	const name = "client programs"
	found, err := dumper.FindTools(ctx, d.opts.PGBin)
	if err != nil {
		d.fail(name, err, installTools)
		return nil
	}
	if len(found) == 0 {
		d.fail(name, fmt.Errorf("%w: no pg_dump and pg_restore found", dumper.ErrVersion), installTools)
		return nil
	}
	var list []string
	for _, t := range found {
		list = append(list, fmt.Sprintf("%s in %s", t.Version, t.Dir))
	}
	d.ok(name, "%s", strings.Join(list, ", "))
	return found
}

func (d *doctor) database(ctx context.Context, found []dumper.Tools) {
	src, err := dumper.InspectSource(ctx, *d.opts.Conn, dumper.SourceOptions{AllowPooler: d.opts.AllowPooler, Log: d.log})
	switch {
	case errors.Is(err, dumper.ErrPooler):
		d.fail("pooler", err, "use the direct host name; pg_dump through a transaction pooler writes wrong values without an error")
		return
	case errors.Is(err, dumper.ErrConnect):
		d.fail("connection", err, "check host, port, user, password and database; `psql` with the same connection string shows the same error")
		return
	case err != nil:
		d.fail("database", err, "")
		return
	}
	defer releaseSnapshot(ctx, src, d.log)
	d.ok("connection", "%s, server %s, encoding %s", d.opts.Conn, src.ServerVersion, src.Encoding)
	if d.opts.AllowPooler {
		d.warn("pooler", "not looked at (--allow-pooler)", "leave --allow-pooler out unless you are sure")
	} else {
		d.ok("pooler", "a direct connection, as far as can be seen")
	}
	if found != nil {
		if tools, err := dumper.ChooseTools(found, src.ServerMajor); err != nil {
			d.fail("versions", err, installTools)
		} else {
			d.ok("versions", "pg_dump %s for server %d", tools.Version, src.ServerMajor)
		}
	}
	for _, w := range src.Warnings {
		d.warn("rights", w, "")
	}
	if len(src.Warnings) == 0 {
		d.ok("rights", "everything in %q can be dumped", src.Database)
	}
}

func (d *doctor) bucket(ctx context.Context) {
	b, err := d.opts.OpenBucket(ctx)
	if err != nil {
		d.fail("bucket", err, bucketAdvice(err))
		return
	}
	defer func() {
		if err := b.Close(); err != nil {
			d.log.Warn("bucket could not be closed", "error", err)
		}
	}()
	d.list(ctx, b)
	d.write(ctx, b)
	d.capabilities(b)
	d.uploads(ctx, b)
}

// list looks at one key only.
func (d *doctor) list(ctx context.Context, b storage.Bucket) {
	for _, err := range b.List(ctx, storage.ListOptions{Versions: b.Capabilities().Versions}) {
		if err != nil {
			d.fail("bucket", err, bucketAdvice(err))
			return
		}
		break
	}
	d.ok("bucket", "reachable, can be listed")
}

func bucketAdvice(err error) string {
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return "create the bucket, or check its name and region"
	case errors.Is(err, storage.ErrCredentials):
		return "check the credentials that the store's own tools use (AWS_PROFILE, AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS)"
	case errors.Is(err, storage.ErrPermission):
		return "allow these credentials to list the bucket and to create and read objects under the prefix"
	case errors.Is(err, storage.ErrUnavailable):
		return "check endpoint, network and proxy"
	}
	return ""
}

// scratchDir holds Doctor's object; no archive's key starts like this.
const scratchDir = "pgstow-doctor/"

func (d *doctor) write(ctx context.Context, b storage.Bucket) {
	key := scratchDir + time.Now().UTC().Format(keyTime) + "-" + newID()
	text := []byte("written by `pgstow doctor`, may be deleted\n")
	o, err := storage.PutBytes(ctx, b, key, text, storage.PutOptions{ContentType: "text/plain"})
	if err != nil {
		d.fail("write", err, bucketAdvice(err))
		return
	}
	d.ok("write", "an object was created")
	// The object goes even when the user has lost patience.
	removal, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	defer func() {
		if err := b.Delete(removal, key, o.Version); err != nil {
			d.warn("delete", fmt.Sprintf("%s stays: %s", key, oneLine(err)),
				"nothing to do where objects are to be kept; without the right to delete, remains of failed archives stay too")
		} else {
			d.ok("delete", "the object was deleted")
		}
	}()
	got, err := readSmall(ctx, b, key, o.Version, int64(len(text)))
	switch {
	case errors.Is(err, storage.ErrPermission):
		d.warn("read back", oneLine(err), "allow reading, or archives are stored without being compared afterwards")
	case err != nil:
		d.fail("read back", err, bucketAdvice(err))
	case !bytes.Equal(got, text):
		d.fail("read back", integrity("the object differs from what was written"), "do not use this store")
	default:
		d.ok("read back", "the object is what was written")
	}
}

func (d *doctor) capabilities(b storage.Bucket) {
	c := b.Capabilities()
	var has, lacks []string
	for _, x := range []struct {
		name string
		can  bool
	}{
		{"versions", c.Versions}, {"object lock", c.ObjectLock}, {"legal hold", c.LegalHold},
		{"tags", c.Tags}, {"storage classes", c.StorageClass}, {"offsets in the dump", c.DeferredHead},
	} {
		if x.can {
			has = append(has, x.name)
		} else {
			lacks = append(lacks, x.name)
		}
	}
	d.ok("capabilities", "has: %s; has not: %s", orNone(has), orNone(lacks))
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

func (d *doctor) uploads(ctx context.Context, b storage.Bucket) {
	own, err := ownUploads(ctx, b)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		d.warn("unfinished uploads", "cannot be listed: "+oneLine(err), "allow listing and aborting of multipart uploads, for `pgstow cleanup`")
	case len(own) > 0:
		d.warn("unfinished uploads", fmt.Sprintf("%d under this prefix", len(own)), "`pgstow cleanup` removes those that nobody continues")
	default:
		d.ok("unfinished uploads", "none")
	}
}
