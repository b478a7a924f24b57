package archiver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// judgeReached holds the rules of others against the archives that are there: one
// that spares what is new, or waits as long as the policy keeps today, may
// delete those that were made earlier.
func (l *lifecycle) judgeReached(ctx context.Context) error {
	for _, p := range l.policies() {
		var archives []Entry
		listed := false
		for _, f := range l.plan.Foreign {
			actions := l.toCompare(f.Rule, p)
			if len(actions) == 0 {
				continue
			}
			if !listed {
				var err error
				archives, _, err = l.covered(ctx, expiryRule{policy: p.Name})
				if errors.Is(err, storage.ErrPermission) {
					l.warn("rule %s, which is not pgstow's, reaches the archives of policy %s: whether it deletes some before their time cannot be seen for want of a right",
						nameRule(f.Rule), p.Name)
					break
				}
				if err != nil {
					return fmt.Errorf("look at the archives of policy %s, which rule %s reaches: %w", p.Name, nameRule(f.Rule), err)
				}
				listed = true
			}
			for _, a := range actions {
				l.judgeAction(f.Rule, a, p.Name, archives)
			}
		}
	}
	return nil
}

// toCompare are the actions that delete and that the policy, as it is today, does
// not stand against.
func (l *lifecycle) toCompare(r storage.LifecycleRule, p Policy) []storage.LifecycleAction {
	if r.Disabled || !l.reaches(r.Filter, p, l.doc.Prefix+p.Name+"/", false) {
		return nil
	}
	var all []storage.LifecycleAction
	for _, a := range r.Actions {
		if _, sooner := l.needs(a, p); a.Kind == storage.LifecycleExpire && (p.Keep.IsZero() || !sooner || sparesNew(a)) {
			all = append(all, a)
		}
	}
	return all
}

// sparesNew: what is made from now on is none of its business.
func sparesNew(a storage.LifecycleAction) bool {
	return !a.Before.IsZero() && a.Before.Before(time.Now())
}

// judgeAction compares one action of a stranger's rule with what the archives of
// a policy were promised.
func (l *lifecycle) judgeAction(r storage.LifecycleRule, a storage.LifecycleAction, policy string, archives []Entry) {
	var early, last, unread []string
	for _, e := range archives {
		if e.Manifest == nil {
			unread = append(unread, e.ID)
			continue
		}
		at, ends := clocksOf(e.Manifest).deletes(a)
		kept := e.Manifest.Kept
		if kept == nil {
			kept = &Kept{}
		}
		made := kept.Policy
		made.Name = policy
		if !ends || !l.reaches(r.Filter, made, l.doc.Prefix+e.Key, true) {
			continue
		}
		if at.Before(kept.RetainUntil) { // the store refuses
			at = kept.RetainUntil
		}
		switch {
		case at.Before(kept.KeepUntil):
			early = append(early, fmt.Sprintf("%s (kept until %s)", e.ID, kept.KeepUntil.Format(time.DateOnly)))
		case kept.Expiry != ExpiryStore && sparesNew(a): // else the policy was warned of
			last = append(last, e.ID)
		}
	}
	say := func(tell func(string, ...any), what string, ids []string, cure string) {
		if n := len(ids); n > 0 {
			tell("rule %s, which is not pgstow's, would %s: %s of policy %s, %s: %s; %s",
				nameRule(r), describeAction(a), many(n, "archive"), policy, what, someOf(ids[:min(n, 3)], n), cure)
		}
	}
	say(l.conflict, "sooner than they were promised to end", early, "change that rule, or lock them with `pgstow retain`")
	say(l.warn, "which were left to `pgstow expire`, also those that it spares", last, "change that rule, or lock them with `pgstow retain`")
	say(l.warn, "whose manifest cannot be read", unread, "see `pgstow list`")
}
