package archiver

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/storage"
)

// Kinds of our rules, the last part of their ids.
const (
	// kindTransition moves the dump, and nothing else: the small objects stay
	// where they can be read at once.
	kindTransition = "transition"
	// kindExpire deletes archives whose keep is over, for ExpiryStore alone.
	kindExpire = "expire"
	// kindMarkers removes S3 delete markers that hide nothing any more. It never
	// touches content.
	kindMarkers = "markers"
	// kindUploads aborts uploads that nobody continues.
	kindUploads = "uploads"
)

var ownKinds = []string{kindTransition, kindExpire, kindMarkers, kindUploads}

// ownKey tells our rules of one prefix apart.
type ownKey struct {
	policy, kind string
	class        string // where each transition is a rule of its own
}

type ownRule struct {
	ownKey
	rule storage.LifecycleRule
}

// LifecycleID is the id of a rule of ours. The hash is of the whole prefix, so
// that two users of one bucket never take each other's rules for theirs.
func LifecycleID(prefix, policy, kind string) string { return idStart(prefix) + policy + "-" + kind }

func idStart(prefix string) string {
	sum := sha256.Sum256([]byte(prefix))
	return "pgstow-" + hex.EncodeToString(sum[:4]) + "-"
}

// own tells whether a rule is ours, of this prefix. With ids, the id decides.
// Without, it is its form; at the bucket's root, where anybody's rule may have
// it, there must be a policy that wants it.
func (l *lifecycle) own(r storage.LifecycleRule) (ownKey, bool) {
	if l.features.IDs {
		rest, ok := strings.CutPrefix(r.ID, idStart(l.doc.Prefix))
		i := strings.LastIndexByte(rest, '-')
		if !ok || i < 0 || CheckLabel(rest[:i]) != nil || !slices.Contains(ownKinds, rest[i+1:]) {
			return ownKey{}, false
		}
		return ownKey{policy: rest[:i], kind: rest[i+1:]}, true
	}
	o, ok := l.form(r)
	if ok && l.doc.Prefix == "" {
		ok = slices.ContainsFunc(l.wanted(), func(w ownRule) bool { return w.ownKey == o })
	}
	return o, ok
}

// form tells whether a rule matches one policy's prefix exactly and has a form
// that wanted makes.
func (l *lifecycle) form(r storage.LifecycleRule) (ownKey, bool) {
	if len(r.Filter.Prefixes) != 1 || len(r.Actions) != 1 || r.Actions[0].Days < 1 || len(r.Unknown) > 0 {
		return ownKey{}, false
	}
	policy, ok := strings.CutPrefix(r.Filter.Prefixes[0], l.doc.Prefix)
	policy, slash := strings.CutSuffix(policy, "/")
	if !ok || !slash || CheckLabel(policy) != nil {
		return ownKey{}, false
	}
	a := r.Actions[0]
	form := Policy{Name: policy, Keep: Period{Days: a.Days}, Expiry: ExpiryStore, Transitions: []Transition{{Period{Days: a.Days}, a.Class}}}
	for _, w := range l.rulesOf(form) {
		if sameRule(r, w.rule) {
			return w.ownKey, true
		}
	}
	return ownKey{}, false
}

// policies are those that get rules: the options' and the default one.
func (l *lifecycle) policies() []Policy {
	all := slices.Clone(l.Policies)
	for i := range all {
		all[i].Name = cmp.Or(all[i].Name, DefaultPolicy)
	}
	if !slices.ContainsFunc(all, func(p Policy) bool { return p.Name == DefaultPolicy }) {
		all = append(all, Policy{Name: DefaultPolicy})
	}
	return all
}

func (l *lifecycle) wanted() []ownRule {
	var all []ownRule
	for _, p := range l.policies() {
		all = append(all, l.rulesOf(p)...)
	}
	return all
}

// rulesOf are the rules of one policy.
//
// Nothing here removes an original before its keep. What a reader takes for the
// archive is the oldest version of each object, and anybody who may write can
// hide it behind a later version or a delete marker on its first day: from then
// on it is noncurrent. So there is no rule for noncurrent versions where
// `pgstow expire` deletes, and expireRule says when they go where the store
// does.
func (l *lifecycle) rulesOf(p Policy) []ownRule {
	var all []ownRule
	add := func(kind, class string, f storage.LifecycleFilter, actions ...storage.LifecycleAction) {
		f.Prefixes = []string{l.doc.Prefix + p.Name + "/"}
		r := storage.LifecycleRule{Filter: f, Actions: actions}
		if l.features.IDs {
			r.ID = LifecycleID(l.doc.Prefix, p.Name, kind)
		}
		all = append(all, ownRule{ownKey{p.Name, kind, class}, r})
	}
	l.transitions(p, add)
	if p.Expiry == ExpiryStore {
		add(kindExpire, "", storage.LifecycleFilter{}, l.expiry(p)...)
	}
	if l.features.Noncurrent {
		// A rule of its own: S3 takes ExpiredObjectDeleteMarker together with
		// neither days nor tags.
		add(kindMarkers, "", storage.LifecycleFilter{}, storage.LifecycleAction{Kind: storage.LifecycleExpireMarkers})
	}
	if l.features.Uploads == storage.UploadsByRule {
		add(kindUploads, "", storage.LifecycleFilter{}, storage.LifecycleAction{
			Kind: storage.LifecycleAbortUploads, Days: l.UploadDays, Clock: storage.LifecycleSinceCreation,
		})
	}
	return all
}

func (l *lifecycle) transitions(p Policy, add func(kind, class string, f storage.LifecycleFilter, actions ...storage.LifecycleAction)) {
	var moves []storage.LifecycleAction
	for _, t := range p.Transitions {
		moves = append(moves, storage.LifecycleAction{
			Kind: storage.LifecycleTransition, Days: t.After.MostDays(), Clock: storage.LifecycleSinceCreation, Class: t.To,
		})
	}
	switch {
	case len(moves) == 0:
	case l.features.Tags:
		add(kindTransition, "", storage.LifecycleFilter{Tags: map[string]string{TagRole: RoleDump}}, moves...)
	default:
		for _, m := range moves {
			add(kindTransition, m.Class, storage.LifecycleFilter{
				Suffixes: []string{"/" + DumpName, "/" + DumpName + EncryptedSuffix},
				// From warmer classes alone: the store would not warm it either.
				Classes: l.warmer(m.Class),
			}, m)
		}
	}
}

func (l *lifecycle) warmer(class string) []string {
	i := slices.Index(l.features.Classes, class)
	return l.features.Classes[:max(i, 0)]
}

// lockDays is lockMargin in whole days: the day, and the hour it is rounded up to.
const lockDays = 2

// expiry is when the store deletes the archives of a policy: never before
// Kept.KeepUntil, which is the archive's end and its keep, and never before its
// lock ends, a day later.
//
// By custom time it is exact: that is the earliest end less the keep, on every
// version, hidden or not.
//
// By creation, S3 counts from the start of an upload in parts, so the dump's
// days begin before the archive's end by as long as the dump took.
//   - With a lock the store refuses what comes too early and comes back, so the
//     keep and the lock's margin are enough. A hidden version is the lock's
//     too, and goes when that ends.
//   - Without a lock nothing but the rule protects. Its days exceed the keep by
//     the longest dump, which is what UploadDays stands for. A version hidden
//     on the first day must outlive its keep hidden: a keep's days. In a
//     versioned bucket the archive so stays once more as long after it has
//     expired, hidden.
func (l *lifecycle) expiry(p Policy) []storage.LifecycleAction {
	keep := p.Keep.MostDays()
	if l.features.CustomTime {
		return []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Days: keep, Clock: storage.LifecycleSinceCustomTime}}
	}
	hidden := keep
	if p.Lock != storage.LockNone {
		hidden = 1
	}
	actions := []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Days: l.daysFromCreation(p), Clock: storage.LifecycleSinceCreation}}
	if l.features.Noncurrent {
		actions = append(actions, storage.LifecycleAction{
			Kind: storage.LifecycleExpireNoncurrent, Days: hidden, Clock: storage.LifecycleSinceNoncurrent,
		})
	}
	return actions
}

// daysFromCreation is after how many days a rule that counts from the creation of
// objects may delete a policy's archives.
func (l *lifecycle) daysFromCreation(p Policy) int {
	if p.Lock != storage.LockNone {
		return p.Keep.MostDays() + lockDays
	}
	return p.Keep.MostDays() + lockDays + l.UploadDays
}

// expiryReason says how the days of an expiry come about.
func (l *lifecycle) expiryReason(p Policy) string {
	most := inDays(p.Keep.MostDays())
	switch {
	case l.features.CustomTime:
		return fmt.Sprintf("kept for %s, which is %s at most; the custom time is when that began", p.Keep, most)
	case p.Lock != storage.LockNone:
		return fmt.Sprintf("kept for %s, which is %s at most, and locked for %s more", p.Keep, most, inDays(lockDays))
	}
	return fmt.Sprintf("kept for %s, which is %s at most; %s more for clocks and %s for the longest dump, whose days count from its start; what is hidden stays as long again, as no lock keeps it",
		p.Keep, most, inDays(lockDays), inDays(l.UploadDays))
}

// sameRule compares what two rules say, in whatever order.
func sameRule(a, b storage.LifecycleRule) bool {
	return reflect.DeepEqual(normal(a), normal(b))
}

func normal(r storage.LifecycleRule) storage.LifecycleRule {
	r.Raw = nil
	r.Actions = slices.Clone(r.Actions)
	slices.SortFunc(r.Actions, func(a, b storage.LifecycleAction) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Days, b.Days), cmp.Compare(a.Class, b.Class))
	})
	sorted := func(s []string) []string { return append([]string{}, slices.Sorted(slices.Values(s))...) }
	r.Filter.Prefixes, r.Filter.Suffixes, r.Filter.Classes = sorted(r.Filter.Prefixes), sorted(r.Filter.Suffixes), sorted(r.Filter.Classes)
	r.Unknown = sorted(r.Unknown)
	tags := map[string]string{}
	maps.Copy(tags, r.Filter.Tags)
	r.Filter.Tags = tags
	return r
}
