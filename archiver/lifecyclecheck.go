package archiver

import (
	"cmp"
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
		if o, ok := l.form(f.Rule); ok && !l.features.IDs {
			l.warn("rule %s may be pgstow's, of policy %s, or somebody else's: at the bucket's root nothing tells them apart, and it is left alone; remove it yourself if nobody wants it",
				nameRule(f.Rule), o.policy)
		}
		for _, p := range l.policies() {
			if l.reaches(f.Rule.Filter, p, l.doc.Prefix+p.Name+"/", p.Name != DefaultPolicy) {
				l.judge(f.Rule, p)
			}
		}
	}
}

// needs is how many days an action must wait under a policy, and whether it waits
// for less.
func (l *lifecycle) needs(a storage.LifecycleAction, p Policy) (days int, sooner bool) {
	days = p.Keep.MostDays()
	if a.Kind == storage.LifecycleExpire && a.Clock == storage.LifecycleSinceCreation {
		days = l.daysFromCreation(p)
	}
	return days, !a.Date.IsZero() || a.Days < days
}

func (l *lifecycle) judge(r storage.LifecycleRule, p Policy) {
	keep := p.Keep.MostDays()
	for _, a := range r.Actions {
		need, sooner := l.needs(a, p)
		over := sparesNew(a) // judgeReached asks what it does to those that are there
		switch {
		case a.Kind == storage.LifecycleExpire && keep > 0 && sooner && !over:
			l.conflict("rule %s, which is not pgstow's, reaches the archives of policy %s (%s) and would %s, sooner than their keep of %s%s; change that rule, or move the archives to a prefix that it does not match",
				nameRule(r), p.Name, l.doc.Prefix+p.Name+"/", describeAction(a), p.Keep, l.sum(a, p, need))
		case a.Kind == storage.LifecycleExpire && keep > 0 && !over && p.Expiry != ExpiryStore:
			l.warn("rule %s, which is not pgstow's, would %s, also the last archives of policy %s: expiry is pgstow's there, and its keep-last does not hold against a rule",
				nameRule(r), describeAction(a), p.Name)
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

// sum says how the days come about that a rule must wait for, where they are more
// than the keep.
func (l *lifecycle) sum(a storage.LifecycleAction, p Policy, need int) string {
	switch {
	case !a.Date.IsZero() || need == p.Keep.MostDays():
		return ""
	case p.Lock != storage.LockNone:
		return fmt.Sprintf(" and %s for the lock, %s in all", inDays(lockDays), inDays(need))
	}
	return fmt.Sprintf(", %s for clocks and %s for the longest dump, %s in all", inDays(lockDays), inDays(l.UploadDays), inDays(need))
}

// objectNames are the ends of all keys that an archive can have.
var objectNames = []string{
	"/" + DumpName, "/" + DumpName + EncryptedSuffix, "/" + IndexName, "/" + IndexName + EncryptedSuffix,
	"/" + GlobalsName, "/" + GlobalsName + EncryptedSuffix, "/" + ManifestName, "/" + SignatureName, ".json", ".json.sig",
}

// reaches tells whether a filter may match an object of the policy whose whole
// key begins with ours. In doubt it does. With allTags the policy's are all that
// the object has: flags add others.
func (l *lifecycle) reaches(f storage.LifecycleFilter, p Policy, ours string, allTags bool) bool {
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
		case allTags && p.Tags[key] != value:
			return false
		}
	}
	return true
}
