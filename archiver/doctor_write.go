package archiver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// errGivenUp ends the uploads that are opened only to see whether they may be.
var errGivenUp = errors.New("given up on purpose")

// givenUp is the source of such an upload. Its Read comes when the store has
// taken the creating request.
type givenUp struct{ meanwhile func() }

func (g givenUp) Read([]byte) (int, error) {
	if g.meanwhile != nil {
		g.meanwhile()
	}
	return 0, errGivenUp
}

func (d *bucketDoctor) scratchKey() string {
	return scratchDir + d.opts.Now().UTC().Format(keyTime) + "-" + newID()
}

// open begins an upload and gives it up: whether the store takes what its
// creating request asks for shows without an object that stays. remains is why
// the upload could not be aborted.
func (d *bucketDoctor) open(ctx context.Context, opts storage.PutOptions, meanwhile func()) (refused, remains error) {
	_, err := d.b.Put(ctx, d.scratchKey(), givenUp{meanwhile}, opts)
	if !errors.Is(err, errGivenUp) {
		return err, nil
	}
	var left *storage.UploadRemainsError
	if errors.As(err, &left) {
		return nil, left.Err
	}
	return nil, nil
}

// asked is one thing that the creating request of a dump asks for.
type asked struct {
	name string
	op   operation
	text string
	with func(to *storage.PutOptions, from storage.PutOptions)
}

// askedFor are those of an upload's options that the policy sets.
func askedFor(o storage.PutOptions) []asked {
	var all []asked
	if !o.Retention.IsZero() {
		all = append(all, asked{"lock", opLock, "taken: " + retentionText(o.Retention),
			func(to *storage.PutOptions, from storage.PutOptions) { to.Retention = from.Retention }})
	}
	if o.LegalHold {
		all = append(all, asked{"legal hold", opHold, "taken when an object is created",
			func(to *storage.PutOptions, _ storage.PutOptions) { to.LegalHold = true }})
	}
	if len(o.Tags) > 0 {
		all = append(all, asked{"tags", opTag, fmt.Sprintf("%d are taken", len(o.Tags)),
			func(to *storage.PutOptions, from storage.PutOptions) { to.Tags = from.Tags }})
	}
	if !o.Encryption.IsZero() {
		all = append(all, asked{"encryption", opEncrypt, "taken: " + encryptionText(Encryption(o.Encryption)),
			func(to *storage.PutOptions, from storage.PutOptions) { to.Encryption = from.Encryption }})
	}
	if o.StorageClass != "" {
		all = append(all, asked{"storage class", "", "taken: " + o.StorageClass,
			func(to *storage.PutOptions, from storage.PutOptions) { to.StorageClass = from.StorageClass }})
	}
	return all
}

// uploads opens the upload of a dump under the policy; where that is refused,
// one for each thing it asks for. It reports whether all was taken.
func (d *bucketDoctor) uploads(ctx context.Context) bool {
	opts, err := d.keeper.options(DumpName, storage.PutOptions{ContentType: "application/octet-stream"}, d.opts.Now())
	if err != nil {
		d.fail("policy", err, "")
		return false
	}
	var seen listing
	look := func() { seen = d.listUploads(ctx) }
	all := askedFor(opts)
	refused, remains := d.open(ctx, opts, look)
	first := refused
	if refused != nil && len(all) > 0 {
		first, remains = d.open(ctx, storage.PutOptions{ContentType: opts.ContentType}, look)
	}
	if !d.outcome("create", opCreate, first, true, "an upload can be begun") {
		return false
	}
	if refused == nil {
		for _, a := range all {
			d.ok(a.name, "%s", a.text)
		}
	} else {
		remains = errors.Join(remains, d.narrow(ctx, opts, all, refused))
	}
	if d.outcome("abort upload", opAbort, remains, false, "and aborted, nothing of it stays"); remains != nil {
		d.checks[len(d.checks)-1].Detail += "; an upload without content stays"
	}
	d.reportUploads(ctx, seen)
	if refused == nil && len(opts.Tags) == 0 && d.caps.Tags && d.opts.Place.rightFor(opTag) != "" {
		d.tags(ctx)
	}
	return refused == nil
}

// tags tries what an archive without a policy does not ask for, and a record of
// one with a policy does.
func (d *bucketDoctor) tags(ctx context.Context) {
	refused, _ := d.open(ctx, storage.PutOptions{Tags: map[string]string{TagPolicy: d.opts.Policy.segment(), TagRole: roleOf("")}}, nil)
	d.outcome("tags", opTag, refused, false, "taken when an object is created")
}

// narrow finds out what of a refused request is refused, by asking for one
// thing at a time.
func (d *bucketDoctor) narrow(ctx context.Context, opts storage.PutOptions, all []asked, refused error) (remains error) {
	found := false
	for _, a := range all {
		alone := storage.PutOptions{ContentType: opts.ContentType}
		a.with(&alone, opts)
		err, left := d.open(ctx, alone, nil)
		remains = errors.Join(remains, left)
		if !d.outcome(a.name, a.op, err, true, "%s", a.text) {
			found = true
			if what, ok := strings.CutPrefix(a.text, "taken: "); ok { // the store does not repeat it
				c := &d.checks[len(d.checks)-1]
				c.Detail = what + ": " + c.Detail
			}
		}
	}
	if !found {
		d.fail("upload", refused, "each alone is taken: "+joinedNames(all))
	}
	return remains
}

func joinedNames(all []asked) string {
	var names []string
	for _, a := range all {
		names = append(names, a.name)
	}
	return strings.Join(names, ", ")
}

// listing is what a list of unfinished uploads showed while one was open.
type listing struct {
	looked, found bool
	err           error
}

func (d *bucketDoctor) listUploads(ctx context.Context) listing {
	l := listing{looked: true}
	for _, err := range storage.Uploads(ctx, d.b, scratchDir) {
		if l.err = err; err != nil {
			break
		}
		l.found = true
	}
	return l
}

// reportUploads says whether what killed runs leave can be found, and what is
// there of it.
func (d *bucketDoctor) reportUploads(ctx context.Context, l listing) {
	const name = "list uploads"
	var failed *storage.Error
	switch {
	case !l.looked, errors.Is(l.err, errors.ErrUnsupported):
		return
	case errors.As(l.err, &failed) && failed.Key != scratchDir:
		d.outcome(name, opListParts, l.err, false, "")
		return
	case l.err != nil:
		d.outcome(name, opListUploads, l.err, false, "")
		return
	case !l.found:
		d.warn(name, "an upload that is open is not listed", "`pgstow cleanup` finds nothing in this store; let a rule or a setting of the store abort unfinished uploads")
		return
	}
	own, err := ownUploads(ctx, d.b)
	switch {
	case err != nil:
		d.outcome(name, opListUploads, err, false, "")
	case len(own) > 0:
		d.warn(name, fmt.Sprintf("%d unfinished under this prefix", len(own)), "`pgstow cleanup` removes those that nobody continues")
	default:
		d.ok(name, "unfinished uploads can be found; there are none")
	}
}

const (
	// scratchLock is how long Doctor's object is locked: long enough to try
	// everything, and no longer.
	scratchLock = 2 * time.Minute
	// scratchAge is when what an earlier run has left is removed.
	scratchAge = 10 * time.Minute
)

// scratchRetention is the shortest lock in the policy's mode, or in that of
// the bucket's own, which would be longer.
func (d *bucketDoctor) scratchRetention() storage.Retention {
	mode := d.opts.Policy.Lock
	if own := d.caps.DefaultRetention; own.From(d.opts.Now()).Covers(storage.Retention{Mode: mode}) && own.Period == 0 && own.Mode != storage.LockNone {
		mode = own.Mode
	}
	if mode == storage.LockNone {
		return storage.Retention{}
	}
	until := d.opts.Now().Add(-d.caps.ClockSkew).Add(scratchLock)
	return storage.Retention{Mode: mode, Until: until.UTC().Truncate(time.Second).Add(time.Second)}
}

const scratchText = "written by `pgstow doctor`, may be deleted\n"

// announce says what is about to be written, and for how long.
func (d *bucketDoctor) announce(key string, opts storage.PutOptions) {
	if d.opts.Announce == nil {
		return
	}
	r := opts.Retention
	text := fmt.Sprintf("writing %s (%d bytes)", key, len(scratchText))
	if opts.StorageClass != "" {
		text += " in " + opts.StorageClass
	}
	switch own := d.caps.DefaultRetention; {
	case own.Period > 0:
		text += fmt.Sprintf(", which the bucket keeps for %s", own.Period)
	case !r.IsZero():
		text += fmt.Sprintf(", locked (%s) until %s at least: it stays, and a later run may remove it", r.Mode, r.Until.Add(scratchLock).Format(time.RFC3339))
	default:
		text += ", which is removed again if these credentials may"
	}
	if len(d.caps.Unprobed) > 0 && r.IsZero() {
		text += "; a retention of the bucket's own, which they may not see, would keep it"
	}
	d.opts.Announce(text + "; --no-write leaves it out")
}

// object writes one tiny object and does with it what is done with archives.
func (d *bucketDoctor) object(ctx context.Context) {
	o := scratchObject{bucketDoctor: d, key: d.scratchKey()}
	policy := d.opts.Policy
	policy.LegalHold, policy.StorageClass, policy.Transitions = false, "", nil
	o.keeper = keeperOf(d.b, policy)
	opts, err := o.keeper.options("doctor", storage.PutOptions{ContentType: "text/plain"}, d.opts.Now())
	if err != nil {
		d.fail("policy", err, "")
		return
	}
	opts.Retention = d.scratchRetention()
	if d.caps.StorageClass { // as the dump, or it would show only when that is stored
		opts.StorageClass = d.opts.Policy.StorageClass
	}
	// How long is not the policy's: what is compared is what was asked for.
	o.keeper.policy.Keep = Period{}
	d.announce(o.key, opts)
	written, err := storage.PutBytes(ctx, d.b, o.key, []byte(scratchText), opts)
	if errors.Is(err, storage.ErrPermission) && !opts.Retention.IsZero() {
		d.add(Check{Name: "write", Status: CheckDenied, Right: d.opts.Place.rightFor(opLock),
			Detail: fmt.Sprintf("a lock of %s is denied, so nothing was written to try with: %s", scratchLock, oneLine(err)),
			Advice: "nothing is wrong where the rights demand a longest remaining retention of more; else grant it"})
		return
	}
	if !d.outcome("write", opCreate, err, true, "an object was created%s", staysText(opts.Retention)) {
		return
	}
	o.version, o.retention, o.class = written.Version, opts.Retention, opts.StorageClass
	o.keeper.note(o.key, "doctor", o.version, opts)
	// It goes even when the user has lost patience.
	removal, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	defer func() { o.remove(removal) }()
	o.read(ctx)
	o.keep(ctx)
	o.hold(ctx)
}

func staysText(r storage.Retention) string {
	if r.IsZero() {
		return ""
	}
	return ", locked until " + r.Until.Format(time.RFC3339)
}
