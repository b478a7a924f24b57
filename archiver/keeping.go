package archiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// Tags of pgstow's own, by which rules of the bucket choose objects.
const (
	TagPolicy = ownTagPrefix + "policy"
	TagRole   = ownTagPrefix + "role"
)

// RoleDump is the TagRole of dumps: storage class and transitions are theirs
// alone, so that the small objects can always be read.
const RoleDump = "dump"

const roleRecord = "record"

// roles are the values of TagRole.
var roles = []string{RoleDump, "index", "globals", "manifest", "signature", roleRecord}

// roleOf is the TagRole of the object with this name below its archive.
func roleOf(name string) string {
	switch strings.TrimSuffix(name, EncryptedSuffix) {
	case DumpName:
		return RoleDump
	case IndexName:
		return "index"
	case GlobalsName:
		return "globals"
	case ManifestName:
		return "manifest"
	case SignatureName:
		return "signature"
	}
	return roleRecord
}

// maxSkew is how wrong the clock may be where a lock depends on it. Requests to
// S3 are refused at a quarter of an hour, but its SDK corrects itself.
const maxSkew = 10 * time.Minute

// lockMargin makes up for clocks, and for what runs long.
func lockMargin(t time.Time) time.Time {
	t = t.UTC().AddDate(0, 0, 1)
	if hour := t.Truncate(time.Hour); hour.Before(t) {
		return hour.Add(time.Hour) // one value for all objects of most runs
	}
	return t
}

// keeper applies a policy to the objects of one archive.
type keeper struct {
	bucket  storage.Bucket
	policy  Policy
	require bool // that the store shows what was asked for
	// standing are the bucket's rules that will delete what is written.
	standing []standingRule

	created map[string]creation            // by key
	shown   map[string]Protection          // by key, as the store shows it
	hidden  map[string][]storage.Attribute // by key: asked for and not shown
}

// creation is what an object was created or extended with.
type creation struct {
	name, version string
	retention     storage.Retention
	custom        time.Time
	final         bool // the run has ended, and what it was extended to is to be seen
}

// tellsTheClock: the lock was counted from when the store made the object. A
// dump's is counted from the start of its upload, and many stores date it from
// the end, until it has been extended.
func (c creation) tellsTheClock() bool { return c.final || roleOf(c.name) != RoleDump }

func keeperOf(b storage.Bucket, p Policy) *keeper {
	return &keeper{bucket: b, policy: p,
		created: map[string]creation{}, shown: map[string]Protection{}, hidden: map[string][]storage.Attribute{}}
}

// newKeeper refuses what can be known beforehand to be impossible.
func newKeeper(b storage.Bucket, p Policy, maxKeep Period, require bool, now time.Time) (*keeper, error) {
	if err := p.Check(maxKeep); err != nil {
		return nil, err
	}
	k := keeperOf(b, p)
	k.require = require
	if skew := b.Capabilities().ClockSkew; !p.Keep.IsZero() && skew.Abs() > maxSkew {
		return nil, clockError(skew, "the lock is counted by it")
	}
	_, err := k.retention(now)
	return k, err
}

// retention is what an object needs that was made by a run ending at t. The
// bucket's own default is never weakened by asking for less.
func (k *keeper) retention(t time.Time) (storage.Retention, error) {
	if k.policy.Lock == storage.LockNone {
		return storage.Retention{}, nil // the bucket's own default, if it has one
	}
	return k.policy.lockUnder(k.bucket.Capabilities().DefaultRetention, t)
}

// lockUnder is the stronger of the policy's lock and of a bucket's default, for
// what is made at t.
func (p Policy) lockUnder(d storage.DefaultRetention, t time.Time) (storage.Retention, error) {
	want := storage.Retention{Mode: p.Lock, Until: lockMargin(p.Keep.After(t))}
	byDefault := d.From(t)
	byDefault.Until = lockMargin(byDefault.Until)
	switch {
	case byDefault.IsZero(), want.Covers(byDefault):
		return want, nil
	case byDefault.Covers(want):
		return byDefault, nil
	}
	return storage.Retention{}, fmt.Errorf("%w: policy %q asks for a %s lock of %s, and the bucket's default is %s for %s: neither is the stronger; change one of them",
		ErrUsage, p.segment(), p.Lock, p.Keep, d.Mode, Period{Years: d.Years, Days: d.Days})
}

// customTime is by what GCS's rules expire an object: the earliest time it may
// go, less the policy's keep.
func (k *keeper) customTime(t time.Time) time.Time {
	if k.policy.Keep.IsZero() || !k.bucket.Capabilities().CustomTime {
		return time.Time{}
	}
	r, err := k.retention(t)
	if err != nil || r.IsZero() {
		return t.UTC().Truncate(time.Second)
	}
	return k.policy.Keep.Before(r.Until)
}

// options adds to those of a Put what the policy asks for.
func (k *keeper) options(name string, opts storage.PutOptions, now time.Time) (storage.PutOptions, error) {
	r, err := k.retention(now)
	if err != nil {
		return opts, err
	}
	caps := k.bucket.Capabilities()
	opts.Retention, opts.CustomTime = r, k.customTime(now)
	opts.LegalHold = k.policy.LegalHold
	opts.Encryption = storage.Encryption(k.policy.Encryption)
	if roleOf(name) == RoleDump && caps.StorageClass {
		opts.StorageClass = k.policy.StorageClass
	}
	if caps.Tags {
		opts.Tags = k.tags(name)
	}
	return opts, nil
}

// tags are the user's and pgstow's own. An archive without a policy has none:
// they need a right of their own.
func (k *keeper) tags(name string) map[string]string {
	if k.policy.IsZero() {
		return nil
	}
	tags := map[string]string{TagPolicy: k.policy.segment(), TagRole: roleOf(name)}
	maps.Copy(tags, k.policy.Tags)
	return tags
}

// note remembers what an object was created with.
func (k *keeper) note(key, name, version string, opts storage.PutOptions) {
	k.created[key] = creation{name: name, version: version, retention: opts.Retention, custom: opts.CustomTime}
}

// compare wants the object to be shown at least as firmly kept as was asked.
// What these credentials may not see is noted as denied, or refused.
func (k *keeper) compare(key string, o storage.Object) error {
	c := k.created[key]
	p := protectionOf(o)
	weaker := func(what string, asked, shown any) error {
		return integrity("%s: %s is %v in the store, %v was asked for; the store does not keep what it takes, or somebody changed it", key, what, shown, asked)
	}
	var hidden []storage.Attribute
	deny := func(a storage.Attribute, asked bool) bool {
		denied := slices.Contains(o.Denied, a)
		if denied && asked {
			hidden = append(hidden, a)
		}
		return denied
	}
	switch {
	case !deny(storage.AttributeRetention, !c.retention.IsZero()) && !o.Retention.Covers(c.retention):
		return weaker("the lock", retentionText(c.retention), retentionText(o.Retention))
	case c.tellsTheClock() && !c.retention.IsZero() && !o.Created.IsZero() && c.retention.Until.Before(k.policy.Keep.After(o.Created)):
		return integrity("%s: it is locked until %s, which by the store's clock is less than %s; set this machine's clock", key, c.retention.Until.Format(time.RFC3339), k.policy.Keep)
	case !deny(storage.AttributeLegalHold, k.policy.LegalHold) && k.policy.LegalHold && !o.LegalHold:
		return weaker("the legal hold", "on", "off")
	case !storage.Encryption(p.Encryption).Covers(storage.Encryption(k.policy.Encryption)):
		return weaker("the encryption", encryptionText(k.policy.Encryption), encryptionText(p.Encryption))
	}
	caps := k.bucket.Capabilities()
	if want := k.policy.StorageClass; caps.StorageClass && want != "" && roleOf(c.name) == RoleDump && !k.isClass(p.StorageClass) {
		return weaker("the storage class", want, p.StorageClass)
	}
	if want := k.tags(c.name); caps.Tags && !deny(storage.AttributeTags, len(want) > 0) {
		for tag, value := range want {
			if got, ok := o.Tags[tag]; !ok || got != value {
				return weaker("tag "+tag, fmt.Sprintf("%q", value), fmt.Sprintf("%q", got))
			}
		}
	}
	k.shown[key], k.hidden[key] = p, hidden
	if len(hidden) > 0 {
		return k.refusal(fmt.Sprintf("the %s of %s", joined(hidden), key), nil)
	}
	return nil
}

// denied is what was asked for and is not shown of some object.
func (k *keeper) denied() []storage.Attribute {
	var all []storage.Attribute
	for _, hidden := range k.hidden {
		all = append(all, hidden...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// isClass: a rule of the bucket may have moved it already.
func (k *keeper) isClass(class string) bool {
	return class == k.policy.StorageClass || slices.ContainsFunc(k.policy.Transitions, func(t Transition) bool { return t.To == class })
}

// refusal is why reading back must not be denied, nil when it may.
func (k *keeper) refusal(what string, cause error) error {
	if !k.require {
		return nil
	}
	if cause == nil {
		cause = storage.ErrPermission
	}
	return fmt.Errorf("%s cannot be read back, which --require-read-back asks for: %w", what, cause)
}

// extend makes all objects last as long as a run that ends at now needs. What
// the credentials may not extend keeps its shorter time, and that is returned
// as warnings.
func (k *keeper) extend(ctx context.Context, now time.Time) (warnings []string, err error) {
	want, err := k.retention(now)
	if err != nil {
		return nil, err
	}
	custom := k.customTime(now)
	var lock, customTime string
	for _, key := range slices.Sorted(maps.Keys(k.created)) {
		c := k.created[key]
		denied := false
		if c.retention.Until.Before(want.Until) && !want.IsZero() {
			switch err := storage.SetRetention(ctx, k.bucket, key, c.version, want); {
			case errors.Is(err, storage.ErrPermission):
				denied, lock = true, fmt.Sprintf("the lock ends at %s, counted from the start of the run: extending it to %s is denied",
					c.retention.Until.Format(time.RFC3339), want.Until.Format(time.RFC3339))
			case err != nil:
				return warnings, fmt.Errorf("extend the lock of %s: %w", key, err)
			default:
				c.retention = want
			}
		}
		if c.custom.Before(custom) {
			switch err := storage.SetCustomTime(ctx, k.bucket, key, c.version, custom); {
			case errors.Is(err, storage.ErrPermission):
				denied, customTime = true, fmt.Sprintf("the custom time stays at %s, counted from the start of the run: moving it to %s is denied",
					c.custom.Format(time.RFC3339), custom.Format(time.RFC3339))
			case err != nil:
				return warnings, fmt.Errorf("move the custom time of %s: %w", key, err)
			default:
				c.custom = custom
			}
		}
		c.final = !denied
		k.created[key] = c
		if _, seen := k.shown[key]; !seen || denied {
			continue
		}
		o, err := k.bucket.Stat(ctx, key, c.version)
		if err != nil {
			return warnings, fmt.Errorf("read back: %w", err)
		}
		if err := k.compare(key, o); err != nil {
			return warnings, err
		}
	}
	for _, text := range []string{lock, customTime} {
		if text != "" {
			warnings = append(warnings, text)
		}
	}
	return warnings, nil
}

// keepUntil is until when an archive is kept whose run ended at now: for its
// policy's keep, unless the store may delete it sooner, by a rule or once its
// lock has ended. Then that is all that can be promised.
func (k *keeper) keepUntil(now time.Time) time.Time {
	end := k.policy.Keep.After(now)
	sooner := end
	for _, c := range k.created {
		if at := k.heldUntil(c, now); at.Before(sooner) {
			sooner = at
		}
	}
	for _, s := range k.standing {
		if s.at.Before(sooner) {
			sooner = s.at
		}
	}
	return sooner
}

// heldUntil is until when the store surely does not delete an object.
func (k *keeper) heldUntil(c creation, now time.Time) time.Time {
	end, custom := k.policy.Keep.After(now), k.customTime(now)
	if custom.IsZero() && k.policy.Lock == storage.LockNone || !custom.IsZero() && !c.custom.Before(custom) {
		return end // nothing counts from an earlier time
	}
	at := c.retention.Until
	if byRule := k.policy.Keep.After(c.custom); !custom.IsZero() && byRule.After(at) {
		at = byRule
	}
	return at
}

// kept is what the manifest says about a run that ended at now.
func (k *keeper) kept(now time.Time) *Kept {
	kept := &Kept{Policy: k.policy, Denied: k.denied()}
	if kept.Expiry == "" {
		kept.Expiry = ExpiryPgstow
	}
	if !k.policy.Keep.IsZero() {
		kept.KeepUntil = k.keepUntil(now)
	}
	for key, c := range k.created {
		if u := c.retention.Until; !u.IsZero() && (kept.RetainUntil.IsZero() || u.Before(kept.RetainUntil)) {
			kept.RetainUntil = u
		}
		p, seen := k.shown[key]
		if !seen {
			continue
		}
		if kept.Stored == nil {
			kept.Stored = &p
		} else {
			kept.Stored.weaken(p)
		}
		if roleOf(c.name) == RoleDump {
			kept.Stored.StorageClass, kept.Stored.Tags = p.StorageClass, p.Tags
		}
	}
	return kept
}

// weaken makes p the weaker of both in every respect; class and tags stay.
func (p *Protection) weaken(q Protection) {
	a, b := storage.Retention{Mode: p.Lock, Until: p.RetainUntil}, storage.Retention{Mode: q.Lock, Until: q.RetainUntil}
	if a.Covers(storage.Retention{Mode: b.Mode}) && a.Mode != b.Mode {
		p.Lock = b.Mode
	}
	if b.Until.Before(a.Until) || b.IsZero() {
		p.RetainUntil = b.Until
	}
	p.LegalHold = p.LegalHold && q.LegalHold
	if p.Encryption != q.Encryption {
		p.Encryption = Encryption{}
	}
}

// protectionOf is how the store shows an object to be protected.
func protectionOf(o storage.Object) Protection {
	return Protection{
		Lock: o.Retention.Mode, RetainUntil: o.Retention.Until, LegalHold: o.LegalHold,
		StorageClass: o.StorageClass, Encryption: Encryption(o.Encryption), Tags: o.Tags,
	}
}

func retentionText(r storage.Retention) string {
	if r.IsZero() {
		return "none"
	}
	return string(r.Mode) + " until " + r.Until.UTC().Format(time.RFC3339)
}

func encryptionText(e Encryption) string {
	switch {
	case e.Mode == storage.EncryptionDefault:
		return "none"
	case e.Key != "":
		return string(e.Mode) + " with " + e.Key
	}
	return string(e.Mode)
}

// lockWantsEvidence: what nobody can take away again has to be proved.
func (r *archiveRun) lockWantsEvidence() bool {
	return r.opts.Policy.Lock != storage.LockNone && !r.opts.AllowNoEvidence
}

func noEvidence(reason string) error {
	return fmt.Errorf("%w: there would be no evidence of what is locked (%s); dump with COPY, or give --allow-no-evidence", ErrUsage, reason)
}

// wantEvidence refuses a dump, before its data are sent, whose content nothing
// would prove. head is nil for a dump of an unknown version.
func (r *archiveRun) wantEvidence(head *pgarchive.Head) error {
	if !r.lockWantsEvidence() {
		return nil
	}
	if head == nil {
		return noEvidence(r.manifest.EvidenceReason)
	}
	for _, e := range head.Promised() {
		if !e.HoldsLargeObjects() && e.CopyStmt.S == "" {
			return noEvidence(e.Label() + " comes as INSERT statements")
		}
	}
	return nil
}
