package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/storage"
)

// scratchDir holds Doctor's objects; no archive's key starts like this.
const scratchDir = "pgstow-doctor/"

// bucketDoctor looks at one bucket.
type bucketDoctor struct {
	*doctor
	b      storage.Bucket
	caps   storage.Capabilities
	keeper *keeper
	// denied are the operations that were seen to lack their right.
	denied map[operation]bool
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
	x := &bucketDoctor{doctor: d, b: b, caps: b.Capabilities(), denied: map[operation]bool{}}
	x.settings()
	x.list(ctx)
	if !x.policy() {
		return
	}
	x.rules(ctx)
	if d.opts.For == ProfileAuditor {
		x.reads(ctx)
	}
	if d.opts.NoWrite {
		d.add(Check{Name: "write", Status: CheckSkipped, Detail: "nothing was written (--no-write), so no right to write was tried"})
	} else if d.opts.For == ProfileAuditor {
		x.addsNothing(ctx)
	} else if x.uploads(ctx) {
		x.object(ctx)
	}
	x.profile()
}

// outcome notes how an attempt ended; needed marks those without which an
// archive under the policy fails. It reports whether the attempt succeeded.
func (d *bucketDoctor) outcome(name string, op operation, err error, needed bool, format string, args ...any) bool {
	c := Check{Name: name, Status: CheckOK, Detail: fmt.Sprintf(format, args...)}
	switch {
	case err == nil:
	case errors.Is(err, storage.ErrPermission):
		op = d.opts.Place.deniedOp(oneLine(err), op)
		c.Status, c.Right = CheckDenied, d.opts.Place.rightFor(op)
		c.Detail, c.Advice = oneLine(err), d.grant(op)
		d.denied[op] = true
		if d.spares(op) && !needed {
			c.Detail, c.Advice = d.without(op), ""
		}
	case errors.Is(err, errors.ErrUnsupported):
		c.Status, c.Detail = CheckUnsupported, oneLine(err)
		if needed {
			c.Advice = "choose a bucket that can, or another policy"
		}
	default:
		c.Status, c.Detail, c.Advice, needed = CheckFail, oneLine(err), bucketAdvice(err), true
	}
	if err != nil && needed {
		c.Err = err
	}
	d.add(c)
	return err == nil
}

// largest is the profile beyond which nothing is asked.
func (d *bucketDoctor) largest() Profile {
	if d.opts.For == ProfileAuditor {
		return ProfileAuditor
	}
	return ProfileFull
}

// wants reports whether a profile in question needs an operation at all.
func (d *bucketDoctor) wants(op operation) bool {
	return slices.ContainsFunc(needs, func(n need) bool {
		return n.op == op && n.grants(n.of(d.opts.Place.Scheme), d.largest(), d.opts.Policy)
	})
}

// spares reports whether the profile that was asked for does without an
// operation.
func (d *bucketDoctor) spares(op operation) bool {
	return d.opts.For != "" && !slices.ContainsFunc(needs, func(n need) bool {
		return n.op == op && n.grants(n.of(d.opts.Place.Scheme), d.opts.For, d.opts.Policy)
	})
}

// without says what the profile that was asked for does without.
func (d *bucketDoctor) without(op operation) string {
	does := string(op)
	for _, n := range needs {
		if n.op == op && n.grants(n.of(d.opts.Place.Scheme), ProfileFull, d.opts.Policy) {
			does = n.does
		}
	}
	return fmt.Sprintf("the profile %s does without the right to %s (%s)", d.opts.For, does, d.opts.Place.rightFor(op))
}

// grant says what to grant for an operation, and who can do without.
func (d *bucketDoctor) grant(op operation) string {
	place := d.opts.Place
	for _, n := range needs {
		r := n.of(place.Scheme)
		if n.op != op || !n.grants(r, d.largest(), d.opts.Policy) {
			continue
		}
		text := fmt.Sprintf("to %s, grant %s on %s", n.does, r.name, place.resource(r.on))
		if i := indexOf(r.from); i > 0 && d.opts.For != ProfileAuditor {
			text += fmt.Sprintf("; the profile %s does without", Profiles[i-1])
		}
		own, policy, now := d.caps.DefaultRetention, d.opts.Policy, d.opts.Now()
		if op == opLock && policy.locks() && !(storage.Retention{Mode: policy.Lock, Until: policy.Keep.After(now)}).Covers(own.From(now)) {
			text += fmt.Sprintf("; archives get the bucket's own lock: `pgstow doctor --print-policy` wants --bucket-lock %s:%s to know it", own.Mode, Period{Years: own.Years, Days: own.Days})
		}
		return text
	}
	return bucketAdvice(storage.ErrPermission)
}

func bucketAdvice(err error) string {
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return "create the bucket, or check its name and region"
	case errors.Is(err, storage.ErrCredentials):
		return "check the credentials that the store's own tools use (AWS_PROFILE, AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS)"
	case errors.Is(err, storage.ErrPermission):
		return "allow these credentials to create and read objects under the prefix"
	case errors.Is(err, storage.ErrUnavailable):
		return "check endpoint, network and proxy"
	case errors.Is(err, ErrIntegrity):
		return "do not use this store under this policy"
	}
	return ""
}

// settings is what was found out about the bucket when it was opened.
func (d *bucketDoctor) settings() {
	c := d.caps
	var has, lacks []string
	for _, x := range []struct {
		name string
		can  bool
	}{
		{"versions", c.Versions}, {"object lock", c.ObjectLock}, {"legal hold", c.LegalHold}, {"tags", c.Tags},
		{"storage classes", c.StorageClass}, {"encryption", c.Encryption}, {"offsets in the dump", c.DeferredHead},
	} {
		if x.can {
			has = append(has, x.name)
		} else {
			lacks = append(lacks, x.name)
		}
	}
	for _, name := range c.Unprobed {
		op := d.opts.Place.deniedOp(name, "")
		d.denied[op] = true
		c := Check{Name: "settings", Status: CheckDenied, Right: name,
			Detail: "a setting of the bucket cannot be seen, what it allows shows when an object is created",
			Advice: fmt.Sprintf("grant %s on %s; the profile vault does without", name, d.opts.Place.resource(onBucket))}
		if d.spares(op) {
			c.Detail, c.Advice = d.without(op), ""
		}
		d.add(c)
	}
	not := "has not"
	if len(c.Unprobed) > 0 {
		not = "has not, or it cannot be seen"
	}
	text := fmt.Sprintf("has: %s; %s: %s", orNone(has), not, orNone(lacks))
	if r := c.DefaultRetention; r.Mode != storage.LockNone {
		text += "; by default it locks: " + defaultText(r)
	}
	d.ok("bucket", "%s", text)
}

func defaultText(r storage.DefaultRetention) string {
	if r.Period > 0 {
		return fmt.Sprintf("%s for %s", r.Mode, r.Period)
	}
	return fmt.Sprintf("%s for %s", r.Mode, Period{Years: r.Years, Days: r.Days})
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

// list looks at one key only.
func (d *bucketDoctor) list(ctx context.Context) {
	first := func(versions bool) error {
		for _, err := range d.b.List(ctx, storage.ListOptions{Versions: versions}) {
			return err
		}
		return nil
	}
	d.outcome("list", opList, first(false), false, "archives can be listed")
	if d.caps.Versions || len(d.caps.Unprobed) > 0 {
		d.outcome("list versions", opListVersions, first(true), false, "and what later versions and delete markers hide")
	}
}

// policy finds what the bucket's settings rule out.
func (d *bucketDoctor) policy() bool {
	var err error
	d.keeper, err = newKeeper(d.b, d.opts.Policy, d.opts.MaxKeep, false, d.opts.Now())
	if err != nil {
		d.fail("policy", err, "")
	}
	return err == nil
}

// rules says whether lifecycle rules can be read, and what ends the uploads that
// nobody continues.
func (d *bucketDoctor) rules(ctx context.Context) {
	if _, ok := storage.LifecycleFeaturesOf(d.b); !ok {
		return
	}
	l, err := storage.ReadLifecycle(ctx, d.b)
	if !errors.Is(err, errors.ErrUnsupported) && !d.outcome("lifecycle", opReadRules, err, false, "%d rules of the bucket can be read", len(l.Rules)) {
		return
	}
	if _, err := standingRules(ctx, d.keeper, d.opts.Policy.segment()+"/", d.opts.Now()); err != nil {
		d.fail("expiry", err, "")
	}
	p := ProtectUploads(ctx, d.b, d.opts.Policy.segment())
	c := Check{Name: "abandoned uploads", Status: CheckOK, Detail: p.Detail, Advice: p.Advice}
	switch p.By {
	case ProtectionNone, ProtectionPartial, ProtectionUnknown:
		c.Status, c.Advice = CheckWarn, cmp.Or(p.Advice, "run `pgstow cleanup` regularly")
	}
	d.add(c)
}

// profile says for what the credentials are enough.
func (d *bucketDoctor) profile() {
	place, policy, wanted := d.opts.Place, d.opts.Policy, d.opts.For
	if place.rightFor(opCreate) == "" {
		return
	}
	order := Profiles
	if wanted == ProfileAuditor {
		order = []Profile{ProfileAuditor}
	}
	c := Check{Name: "profile", Status: CheckWarn, Detail: "no profile: even to add archives a right is missing"}
	if wanted == ProfileAuditor {
		c.Detail = "not enough for an auditor"
	}
	for _, p := range order {
		lacks := place.lacking(p, policy, d.denied)
		if len(lacks) > 0 {
			text := fmt.Sprintf("%s (%s) lacks %s", p, p.Does(), strings.Join(lacks, ", "))
			c.Advice = fmt.Sprintf("%s; `pgstow doctor --print-policy %s` prints all that it needs", text, p)
			if p == wanted || wanted.includes(p) {
				c.Err = fmt.Errorf("the profile %s: %w", text, storage.ErrPermission)
			}
			break
		}
		c.Status, c.Profile, c.Detail = CheckOK, p, fmt.Sprintf("%s: %s", p, p.Does())
	}
	switch {
	case c.Err != nil:
		c.Status = CheckFail
	case d.opts.NoWrite && wanted != ProfileAuditor:
		c.Detail, c.Status, c.Profile = "unknown without writing", CheckSkipped, ""
		if c.Advice == "" {
			c.Advice = "leave --no-write out"
		}
	case c.Profile == ProfileFull:
		c.Detail += d.untried()
	}
	d.add(c)
}

// untried names the rights of the full profile that were not tried, and why.
func (d *bucketDoctor) untried() string {
	var text string
	for _, n := range needs {
		if r := n.of(d.opts.Place.Scheme); n.untried != "" && r.name != "" && n.under(d.opts.Policy) {
			text += fmt.Sprintf("; not tried: %s, as %s", r.name, n.untried)
		}
	}
	return text
}
