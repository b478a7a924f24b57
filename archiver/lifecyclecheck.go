package archiver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// check refuses options that contradict themselves.
func (l *lifecycle) check() error {
	if l.UploadDays < 1 {
		return fmt.Errorf("%w: unfinished uploads aborted after %d days: at least 1", ErrUsage, l.UploadDays)
	}
	seen := map[string]bool{}
	for _, p := range l.policies() {
		if seen[p.Name] {
			return fmt.Errorf("%w: policy %q is given twice", ErrUsage, p.Name)
		}
		seen[p.Name] = true
		if err := p.Check(p.Keep); err != nil { // how long a lock may be is not asked here
			return err
		}
		if err := cmp.Or(l.checkExpiry(p), l.checkTransitions(p)); err != nil {
			return fmt.Errorf("%w: policy %q: %w", ErrUsage, p.Name, err)
		}
	}
	return nil
}

// checkExpiry: an archive must not expire while its bucket locks it.
func (l *lifecycle) checkExpiry(p Policy) error {
	now := time.Now()
	byDefault := l.Bucket.Capabilities().DefaultRetention.From(now)
	if p.Expiry != ExpiryStore || !byDefault.Until.After(lockMargin(p.Keep.After(now))) {
		return nil
	}
	return fmt.Errorf("it is kept for %s and the bucket locks every object for longer, until %s if it were made today: the store would expire what it still locks; keep it for longer, or shorten the bucket's default",
		p.Keep, byDefault.Until.Format(time.DateOnly))
}

// checkTransitions refuses those that this store cannot make one after the
// other. What is wrong on every store is Policy.Check's.
func (l *lifecycle) checkTransitions(p Policy) error {
	rank := func(class string) int { return slices.Index(l.features.Classes, class) }
	class, at := p.StorageClass, 0
	if class == "" && len(l.features.Classes) > 0 {
		class = l.features.Classes[0]
	}
	for _, t := range p.Transitions {
		days := t.After.MostDays()
		switch {
		case l.features.OnlyClasses && rank(t.To) < 0:
			return fmt.Errorf("transition to %s: this store has %s", t.To, strings.Join(l.features.Classes, ", "))
		case days <= at:
			return fmt.Errorf("transition to %s after %s: another one comes at the same age or later", t.To, t.After)
		case t.To == class || rank(t.To) >= 0 && rank(t.To) < rank(class):
			return fmt.Errorf("transition to %s after %s: the dump is in %s by then, and rules only make colder", t.To, t.After, class)
		case days < 30 && (t.To == "STANDARD_IA" || t.To == "ONEZONE_IA"):
			l.warn("policy %s: S3 may refuse a transition to %s before 30 days, and bills 30 days of it in any case", p.Name, t.To)
		}
		class, at = t.To, days
	}
	return nil
}

// judgeForeign looks for rules of others that reach our archives.
func (l *lifecycle) judgeForeign() {
	for _, f := range l.plan.Foreign {
		if f.Rule.Disabled {
			continue
		}
		for _, p := range l.policies() {
			if l.reaches(f.Rule.Filter, p) {
				l.judge(f.Rule, p)
			}
		}
	}
}

func (l *lifecycle) judge(r storage.LifecycleRule, p Policy) {
	keep := p.Keep.MostDays()
	for _, a := range r.Actions {
		sooner := !a.Date.IsZero() || a.Days < keep
		over := !a.Before.IsZero() && a.Before.Before(time.Now()) // spares every new archive
		switch {
		case a.Kind == storage.LifecycleExpire && keep > 0 && sooner && !over:
			l.conflict("rule %s, which is not pgstow's, reaches the archives of policy %s (%s) and would %s, sooner than their keep of %s; change that rule, or move the archives to a prefix that it does not match",
				nameRule(r), p.Name, l.doc.Prefix+p.Name+"/", describeAction(a), p.Keep)
		case a.Kind == storage.LifecycleExpire && keep == 0:
			l.warn("rule %s, which is not pgstow's, reaches the archives of policy %s: %s", nameRule(r), p.Name, describeAction(a))
		case a.Kind == storage.LifecycleExpireNoncurrent && p.Lock == storage.LockNone && (sooner || keep == 0):
			l.warn("rule %s, which is not pgstow's, would %s: an archive of policy %s that somebody hides behind a later version or a delete marker is lost then; a lock prevents it",
				nameRule(r), describeAction(a), p.Name)
		case a.Kind == storage.LifecycleTransition:
			l.warn("rule %s, which is not pgstow's, moves objects of policy %s %s: manifests and indexes may have to be thawed to be read",
				nameRule(r), p.Name, describeAction(a))
		case a.Kind == storage.LifecycleAbortUploads && a.Days < l.UploadDays:
			l.warn("rule %s, which is not pgstow's, would %s, also those of policy %s; that must exceed the longest dump",
				nameRule(r), describeAction(a), p.Name)
		}
	}
	if len(r.Unknown) > 0 {
		l.warn("rule %s, which is not pgstow's, reaches policy %s and holds what is not known here: %s; what it does cannot be judged",
			nameRule(r), p.Name, strings.Join(r.Unknown, ", "))
	}
}

// objectNames are the ends of all keys that an archive can have.
var objectNames = []string{
	"/" + DumpName, "/" + DumpName + EncryptedSuffix, "/" + IndexName, "/" + IndexName + EncryptedSuffix,
	"/" + GlobalsName, "/" + GlobalsName + EncryptedSuffix, "/" + ManifestName, "/" + SignatureName, ".json", ".json.sig",
}

// reaches tells whether a filter may match an object of the policy. In doubt it
// does.
func (l *lifecycle) reaches(f storage.LifecycleFilter, p Policy) bool {
	ours := l.doc.Prefix + p.Name + "/"
	if len(f.Prefixes) > 0 && !slices.ContainsFunc(f.Prefixes, func(prefix string) bool {
		return strings.HasPrefix(ours, prefix) || strings.HasPrefix(prefix, ours)
	}) {
		return false
	}
	if len(f.Suffixes) > 0 && !slices.ContainsFunc(f.Suffixes, func(suffix string) bool {
		return slices.ContainsFunc(objectNames, func(name string) bool {
			return strings.HasSuffix(name, suffix) || strings.HasSuffix(suffix, name)
		})
	}) {
		return false
	}
	for key, value := range f.Tags {
		switch {
		case key == TagPolicy && value != p.Name:
			return false
		case key == TagPolicy || key == TagRole:
		case p.Name != DefaultPolicy && p.Tags[key] != value: // flags add tags of their own
			return false
		}
	}
	return true
}

// judgeArchives compares an expiry rule that is new, or changed, with what the
// archives that are there were promised: a policy's keep may have been longer
// when they were made, or have had another deleter.
func (l *lifecycle) judgeArchives(ctx context.Context) error {
	for _, p := range l.policies() {
		if p.Expiry != ExpiryStore || !slices.ContainsFunc(l.plan.Rules, func(c LifecycleChange) bool {
			return c.Policy == p.Name && c.Kind == kindExpire && (c.Action == LifecycleAdd || c.Action == LifecycleChanged)
		}) {
			continue
		}
		if err := l.judgeArchivesOf(ctx, p); err != nil {
			return fmt.Errorf("look at the archives of policy %s, which a rule would expire: %w", p.Name, err)
		}
	}
	return nil
}

func (l *lifecycle) judgeArchivesOf(ctx context.Context, p Policy) error {
	all, err := List(ctx, l.Bucket, ListOptions{Log: l.Log})
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(e Entry) bool { return e.Policy != p.Name })
	if err := LoadManifests(ctx, l.Bucket, all); err != nil {
		return err
	}
	unpromised, tooSoon := 0, []string(nil)
	for _, e := range all {
		switch {
		case e.Manifest == nil:
			return fmt.Errorf("%w: how long archive %s is to be kept cannot be read: %s", ErrRefused, e.ID, e.ManifestError)
		case e.Manifest.Kept == nil || e.Manifest.Kept.KeepUntil.IsZero():
			unpromised++
		case l.endsAt(p, e).Before(e.Manifest.Kept.KeepUntil):
			tooSoon = append(tooSoon, fmt.Sprintf("%s (kept until %s)", e.ID, e.Manifest.Kept.KeepUntil.Format(time.DateOnly)))
		}
	}
	if unpromised > 0 && !l.features.CustomTime {
		l.warn("%d archives of policy %s were made without a keep; the rule expires them too", unpromised, p.Name)
	}
	if n := len(tooSoon); n > 0 {
		if n > 3 {
			tooSoon = append(tooSoon[:3], fmt.Sprintf("and %d more", n-3))
		}
		l.conflict("the rule that expires the archives of policy %s would delete some before they were promised to end: %s; leave expiry to pgstow, keep for longer, or give the policy a new name",
			p.Name, strings.Join(tooSoon, ", "))
	}
	return nil
}

// endsAt is the earliest time at which the rules of p can delete an archive
// that is there.
func (l *lifecycle) endsAt(p Policy, e Entry) time.Time {
	kept := e.Manifest.Kept
	var end time.Time
	for _, a := range l.expiry(p) {
		from := e.Manifest.Started
		if kept.Lock != storage.LockNone {
			from = e.Manifest.Finished // what comes too early is refused by the lock
		}
		switch a.Clock {
		case storage.LifecycleSinceCustomTime:
			from = kept.Keep.Before(kept.KeepUntil)
		case storage.LifecycleSinceNoncurrent:
			if kept.Lock != storage.LockNone {
				continue // the lock keeps what is hidden
			}
			from = e.Manifest.Finished
		}
		if at := from.AddDate(0, 0, a.Days); end.IsZero() || at.Before(end) {
			end = at
		}
	}
	return end
}
