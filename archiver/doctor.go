package archiver

import (
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
	CheckOK          = "ok"
	CheckWarn        = "warn"
	CheckDenied      = "denied"      // the credentials may not; Right says what they lack
	CheckUnsupported = "unsupported" // this store or bucket cannot
	CheckSkipped     = "skipped"
	CheckFail        = "failed"
)

// Check is one thing that Doctor looked at.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	// Right is what is missing, by the store's own name for it.
	Right  string `json:"right,omitempty"`
	Advice string `json:"advice,omitempty"` // what to do, when not ok
	// Profile is the largest that the credentials fit, in the check of that name.
	Profile Profile `json:"profile,omitempty"`
	// Err is set where an archive under the policy would fail, whatever the
	// status; it is for the exit code.
	Err error `json:"-"`
}

// DoctorOptions choose what Doctor looks at.
type DoctorOptions struct {
	// Conn is the source; nil leaves the database out.
	Conn *dumper.Conn
	// OpenBucket opens the bucket, Doctor closes it; nil leaves it out.
	OpenBucket func(ctx context.Context) (storage.Bucket, error)
	// Place is that bucket, for the names of its rights.
	Place Place
	// Policy is how archives are to be kept. MaxKeep is as in ArchiveOptions.
	Policy  Policy
	MaxKeep Period
	// For is the profile that the credentials are for: what it lacks is an error,
	// and what it does not need is not tried for the auditor. "" finds out for
	// which they are enough, and wants an archive to succeed.
	For Profile
	// Keys are what archives are to be encrypted and signed with.
	Keys DoctorKeys
	// NoWrite only looks.
	NoWrite bool
	// Announce is told, before anything is written, what that is and how long
	// it stays; nil tells nobody.
	Announce    func(text string)
	PGBin       string
	AllowPooler bool
	Log         *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Doctor checks tools, database, keys and bucket as an archive would use them, and
// goes on after a failure where that makes sense.
//
// In the bucket it does what pgstow does, under keys of its own: it opens
// uploads and gives them up, writes one tiny object with the policy's lock for
// a few minutes, reads it, tries to delete it and, where nothing locks it,
// removes it. What the credentials may not is named by the right that is
// missing; that is an error only where the policy cannot be kept without.
func Doctor(ctx context.Context, opts DoctorOptions) []Check {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	d := &doctor{opts: opts, log: logger(opts.Log)}
	found := d.tools(ctx)
	if opts.Conn != nil {
		d.database(ctx, found)
	}
	d.keys()
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

func (d *doctor) add(c Check) { d.checks = append(d.checks, c) }

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
