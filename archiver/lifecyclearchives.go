package archiver

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// judgeArchives compares the expiry rules that there will be with what they
// cover. A rule that stays as it is deletes just as well as one that is new.
func (l *lifecycle) judgeArchives(ctx context.Context) error {
	for _, r := range l.plan.after.Rules {
		o, ok := l.own(r)
		if ok && o.kind == kindUploads && !l.settled(o) {
			if err := l.judgeUploads(ctx, o.policy, r); err != nil {
				return err
			}
		}
		if !ok || o.kind != kindExpire || r.Disabled {
			continue
		}
		x := expiryRule{LifecycleRule: r, policy: o.policy, settled: l.settled(o)}
		l.judgeNeighbours(x)
		archives, stranger, err := l.covered(ctx, x)
		switch {
		case err == nil:
			l.judgePromises(x, archives)
			if stranger != "" {
				l.conflict("rule %s covers what is not pgstow's: %s%s is no object of an archive, and would be deleted; move it, give pgstow a prefix of its own, or leave expiry to pgstow",
					nameRule(r), l.doc.Prefix, stranger)
			}
		case errors.Is(err, storage.ErrPermission) && x.settled:
			l.warn("rule %s expires archives of policy %s: whether some were promised longer cannot be seen for want of a right", nameRule(r), x.policy)
		default:
			return fmt.Errorf("look at the archives of policy %s, which a rule would expire: %w", x.policy, err)
		}
	}
	return nil
}

// expiryRule is a rule of ours that deletes the archives of a policy.
type expiryRule struct {
	storage.LifecycleRule
	policy  string
	settled bool // it was there before, and stays as it is
}

// ofAnyPrefix matches ids of pgstow's rules, of whatever prefix.
var ofAnyPrefix = regexp.MustCompile(`^pgstow-[0-9a-f]{8}-`)

// settled: a rule was there before, and stays as it is.
func (l *lifecycle) settled(o ownKey) bool {
	return slices.ContainsFunc(l.plan.Rules, func(c LifecycleChange) bool {
		return c.Policy == o.policy && c.Kind == o.kind && (c.Action == LifecycleUnchanged || c.Action == LifecycleKept)
	})
}

// covered are the archives that a rule expires, with their manifests, hidden
// ones too. stranger is a key that it covers and that is no archive's.
func (l *lifecycle) covered(ctx context.Context, x expiryRule) (archives []Entry, stranger string, err error) {
	var c collector
	for o, err := range l.Bucket.List(ctx, storage.ListOptions{Prefix: x.policy + "/", Versions: l.Bucket.Capabilities().Versions}) {
		if err != nil {
			return nil, "", err
		}
		if dir, name, ok := ParseKey(o.Key); ok {
			c.add(dir, name, o)
		} else if stranger == "" && !o.DeleteMarker {
			stranger = o.Key
		}
	}
	c.flush()
	archives = slices.DeleteFunc(c.entries, func(e Entry) bool { return !e.Complete })
	slices.SortStableFunc(archives, byTime)
	return archives, stranger, LoadManifests(ctx, l.Bucket, archives)
}

// judgeUploads warns of a new rule that aborts the uploads of others as well.
func (l *lifecycle) judgeUploads(ctx context.Context, policy string, r storage.LifecycleRule) error {
	for o, err := range l.Bucket.List(ctx, storage.ListOptions{Prefix: policy + "/"}) {
		switch _, _, ours := ParseKey(o.Key); {
		case errors.Is(err, storage.ErrPermission):
			return nil
		case err != nil:
			return fmt.Errorf("look at what lies below policy %s: %w", policy, err)
		case !ours:
			l.warn("rule %s covers what is not pgstow's, such as %s%s: unfinished uploads of others are aborted there as well", nameRule(r), l.doc.Prefix, o.Key)
			return nil
		}
	}
	return nil
}

// judgeNeighbours: what another pgstow keeps below a rule looks like archives
// of ours, or will; its own rules tell of it. The prefix of one may end where
// the policy of another begins, above all at the bucket's root.
func (l *lifecycle) judgeNeighbours(x expiryRule) {
	ours := l.doc.Prefix + x.policy + "/"
	for _, f := range l.plan.Foreign {
		below := func(prefix string) bool { return len(prefix) > len(ours) && strings.HasPrefix(prefix, ours) }
		if ofAnyPrefix.MatchString(f.ID) && slices.ContainsFunc(f.Rule.Filter.Prefixes, below) {
			l.conflict("rule %s covers all below %s, and rule %q is of another pgstow there (%s): its archives would be deleted; give each a prefix of its own, neither within the other",
				nameRule(x.LifecycleRule), ours, f.ID, describeFilter(f.Rule.Filter))
		}
	}
}

// judgePromises compares a rule with what the archives were promised: their
// policy's keep may have been longer when they were made, or have had another
// deleter, or somebody has been at the rule.
//
// What was left to `pgstow expire` a rule must not delete, however late: it
// knows nothing of newer archives, nor of days, weeks and months to spare. A
// policy that changes its deleter does so for new archives alone, and so needs a
// new name.
func (l *lifecycle) judgePromises(x expiryRule, archives []Entry) {
	var ofPgstow, tooSoon []string
	var unread []Entry
	for _, e := range archives {
		if e.Manifest == nil {
			unread = append(unread, e)
			continue
		}
		end, ends := clocksOf(e.Manifest).end(x.Actions)
		kept := e.Manifest.Kept
		switch {
		case !ends:
		case kept == nil || kept.Expiry != ExpiryStore: // "" is ExpiryPgstow
			ofPgstow = append(ofPgstow, e.ID)
		case end.Before(kept.KeepUntil):
			tooSoon = append(tooSoon, fmt.Sprintf("%s (kept until %s)", e.ID, kept.KeepUntil.Format(time.DateOnly)))
		}
	}
	if len(unread) > 0 {
		say := l.conflict
		if x.settled { // one that is damaged must not keep the other rules from being written
			say = l.warn
		}
		say("rule %s expires the archives of policy %s, and how long %d of them are to be kept cannot be read, such as %s: %s",
			nameRule(x.LifecycleRule), x.policy, len(unread), unread[0].ID, unread[0].ManifestError)
	}
	if len(ofPgstow) > 0 {
		l.conflict("rule %s would delete archives of policy %s that were left to `pgstow expire`, also those that it spares (%s): %s; archives keep their deleter: leave the expiry of policy %s to pgstow, which takes the rule away, and let the store expire a policy of a new name",
			nameRule(x.LifecycleRule), x.policy, describeActions(x.LifecycleRule), someOf(ofPgstow[:min(len(ofPgstow), 3)], len(ofPgstow)), x.policy)
	}
	if len(tooSoon) > 0 {
		l.conflict("rule %s would delete archives of policy %s before they were promised to end (%s): %s; leave expiry to pgstow, keep for longer, or give the policy a new name",
			nameRule(x.LifecycleRule), x.policy, describeActions(x.LifecycleRule), someOf(tooSoon[:min(len(tooSoon), 3)], len(tooSoon)))
	}
}

// clocks are what the days of rules count from, for one archive; a zero clock
// does not run.
type clocks struct{ created, hidden, custom time.Time }

// clocksOf are those of an archive that is there. It may have been hidden on
// its first day, unless a lock keeps what is hidden; and what comes too early
// for its creation the lock refuses.
func clocksOf(m *Manifest) clocks {
	c := clocks{created: m.Started, hidden: m.Finished}
	if m.Kept == nil {
		return c
	}
	if !m.Kept.KeepUntil.IsZero() {
		c.custom = m.Kept.Keep.Before(m.Kept.KeepUntil)
	}
	if m.Kept.Lock != storage.LockNone {
		c.created, c.hidden = m.Finished, time.Time{}
	}
	return c
}

// end is the earliest time at which one of these actions can delete.
func (c clocks) end(actions []storage.LifecycleAction) (end time.Time, ends bool) {
	for _, a := range actions {
		if at, ok := c.deletes(a); ok && (!ends || at.Before(end)) {
			end, ends = at, true
		}
	}
	return end, ends
}

func (c clocks) deletes(a storage.LifecycleAction) (time.Time, bool) {
	from := c.created
	switch {
	case a.Kind == storage.LifecycleExpireNoncurrent && !c.hidden.IsZero():
		from = c.hidden
	case a.Kind != storage.LifecycleExpire:
		return time.Time{}, false
	case a.Clock == storage.LifecycleSinceCustomTime:
		from = c.custom
	}
	switch {
	case !a.Before.IsZero() && !c.created.Before(a.Before): // it spares what is created then
		return time.Time{}, false
	case !a.Date.IsZero():
		return a.Date, true
	}
	return from.AddDate(0, 0, a.Days), !from.IsZero()
}
