package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// DefaultUploadDays is after how many days a rule aborts unfinished uploads. It
// must exceed the longest dump.
const DefaultUploadDays = 7

// defaultSettle is how long Apply waits for the store to show what it wrote.
const defaultSettle = 30 * time.Second

// LifecycleOptions choose the rules that a bucket should have.
type LifecycleOptions struct {
	Bucket storage.Bucket
	// Policies get their rules. DefaultPolicy always does: archives made with
	// flags lie under it.
	Policies []Policy
	// Complete: there are no other policies. Rules of others go when nothing of
	// theirs is left in the bucket; otherwise nothing is said about them.
	Complete bool
	// UploadDays is the age at which unfinished uploads are aborted; 0 is
	// DefaultUploadDays.
	UploadDays int
	Log        *slog.Logger

	settle time.Duration                              // for tests: 0 is defaultSettle
	pause  func(context.Context, time.Duration) error // for tests: nil waits
}

// What a plan does with a rule of ours.
const (
	LifecycleAdd       = "add"
	LifecycleChanged   = "change"
	LifecycleRemove    = "remove"
	LifecycleUnchanged = "unchanged"
	// LifecycleKept: the rule of a policy that is not among the options.
	LifecycleKept = "kept"
)

// LifecycleChange is what happens to one rule of ours.
type LifecycleChange struct {
	Action string `json:"action"`
	Policy string `json:"policy"`
	Kind   string `json:"kind"`
	ID     string `json:"id,omitempty"` // "" where rules have none
	// Was and Will are the rule in words, "" where there is none.
	Was  string `json:"was,omitempty"`
	Will string `json:"will,omitempty"`
	// Reason says why a rule goes, stays or counts its days as it does.
	Reason string `json:"reason,omitempty"`
}

// ForeignRule is a rule of somebody else, which is never touched.
type ForeignRule struct {
	ID   string                `json:"id,omitempty"`
	Says string                `json:"says"`
	Rule storage.LifecycleRule `json:"rule"`
}

// LifecyclePlan is what the bucket's rules are, and what becomes of them.
type LifecyclePlan struct {
	Prefix  string            `json:"prefix"`
	Rules   []LifecycleChange `json:"rules"`
	Foreign []ForeignRule     `json:"foreign"`
	// Changes is how many rules are added, changed or removed.
	Changes int `json:"changes"`
	// Applied: the changes were written and read back.
	Applied bool `json:"applied"`
	// Conflicts keep the plan from being applied, Warnings do not.
	Conflicts []string `json:"conflicts,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	// Limits are what the rules of this store cannot do.
	Limits []string `json:"limits"`

	before, after storage.Lifecycle
}

// lifecycle is one use of LifecycleOptions.
type lifecycle struct {
	LifecycleOptions
	features storage.LifecycleFeatures
	doc      storage.Lifecycle
	plan     *LifecyclePlan
}

// PlanLifecycle compares the rules that the bucket has with those it should
// have, and changes nothing. Options that contradict themselves are ErrUsage; a
// rule of somebody else, or an archive, that stands against them is
// ErrRefused, and the plan comes with the error.
func PlanLifecycle(ctx context.Context, opts LifecycleOptions) (*LifecyclePlan, error) {
	l, err := newLifecycle(ctx, opts)
	if err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if err := l.compute(ctx); err != nil {
		return nil, err
	}
	if len(l.plan.Conflicts) > 0 {
		return l.plan, fmt.Errorf("%w: %s", ErrRefused, strings.Join(l.plan.Conflicts, "; "))
	}
	return l.plan, nil
}

// ShowLifecycle describes the rules that there are. Nothing in the plan is a
// change.
func ShowLifecycle(ctx context.Context, b storage.Bucket) (*LifecyclePlan, error) {
	l, err := newLifecycle(ctx, LifecycleOptions{Bucket: b})
	if err != nil {
		return nil, err
	}
	for _, r := range l.doc.Rules {
		if o, ok := l.own(r); ok {
			l.plan.Rules = append(l.plan.Rules, LifecycleChange{
				Action: LifecycleUnchanged, Policy: o.policy, Kind: o.kind, ID: r.ID, Was: describeRule(r), Will: describeRule(r),
			})
		}
	}
	l.plan.sort()
	return l.plan, nil
}

// ApplyLifecycle writes what PlanLifecycle finds to be changed, from a fresh
// reading, then reads it again. Somebody else's change between reading and
// writing is storage.ErrChanged, and nothing was written; a store that holds
// something else than what it took is ErrIntegrity, unless somebody is seen to be
// at the rules, which is storage.ErrChanged again.
func ApplyLifecycle(ctx context.Context, opts LifecycleOptions) (*LifecyclePlan, error) {
	plan, err := PlanLifecycle(ctx, opts)
	if err != nil || plan.Changes == 0 {
		return plan, err
	}
	if err := storage.WriteLifecycle(ctx, opts.Bucket, plan.after); err != nil {
		if errors.Is(err, storage.ErrChanged) {
			err = fmt.Errorf("%w; nothing was written, run it again", err)
		}
		return plan, err
	}
	err = verifyLifecycle(ctx, opts, plan)
	plan.Applied = err == nil
	return plan, err
}

func newLifecycle(ctx context.Context, opts LifecycleOptions) (*lifecycle, error) {
	features, ok := storage.LifecycleFeaturesOf(opts.Bucket)
	if !ok {
		return nil, fmt.Errorf("%w: this store has no lifecycle rules; `pgstow expire` deletes", errors.ErrUnsupported)
	}
	opts.UploadDays = cmp.Or(opts.UploadDays, DefaultUploadDays)
	doc, err := storage.ReadLifecycle(ctx, opts.Bucket)
	if err != nil {
		return nil, err
	}
	l := &lifecycle{LifecycleOptions: opts, features: features, doc: doc}
	l.plan = &LifecyclePlan{
		Prefix: doc.Prefix, Rules: []LifecycleChange{}, Foreign: []ForeignRule{}, Limits: features.Limits,
		before: doc, after: doc,
	}
	for _, r := range doc.Rules {
		if _, ok := l.own(r); !ok {
			l.plan.Foreign = append(l.plan.Foreign, ForeignRule{ID: r.ID, Says: describeRule(r), Rule: r})
		}
	}
	return l, nil
}

// compute finds out what becomes of each rule, and the document that results.
func (l *lifecycle) compute(ctx context.Context) error {
	wanted := l.wanted()
	rules := make([]storage.LifecycleRule, 0, len(l.doc.Rules)+len(wanted))
	done := map[ownKey]bool{}
	for _, r := range l.doc.Rules {
		o, ok := l.own(r)
		if !ok {
			rules = append(rules, r)
			continue
		}
		c := LifecycleChange{Policy: o.policy, Kind: o.kind, ID: r.ID, Was: describeRule(r)}
		at := slices.IndexFunc(wanted, func(w ownRule) bool { return w.ownKey == o })
		switch {
		case at >= 0 && done[o]:
			c.Action, c.Reason = LifecycleRemove, "it is there twice"
		case at >= 0 && sameRule(r, wanted[at].rule):
			c.Action, c.Will = LifecycleUnchanged, c.Was
			rules = append(rules, r)
		case at >= 0:
			c.Action, c.Will = LifecycleChanged, describeRule(wanted[at].rule)
			rules = append(rules, wanted[at].rule)
		case find(l.policies(), o.policy) != nil:
			c.Action, c.Reason = LifecycleRemove, "the policy has no such rule any more"
		default:
			stays, why, err := l.leftOver(ctx, o.policy)
			if err != nil {
				return err
			}
			c.Action, c.Reason = LifecycleRemove, why
			if stays {
				c.Action, c.Will = LifecycleKept, c.Was
				rules = append(rules, r)
			}
		}
		done[o] = true
		l.plan.Rules = append(l.plan.Rules, c)
	}
	for _, w := range wanted {
		if !done[w.ownKey] {
			rules = append(rules, w.rule)
			l.plan.Rules = append(l.plan.Rules, LifecycleChange{
				Action: LifecycleAdd, Policy: w.policy, Kind: w.kind, ID: w.rule.ID, Will: describeRule(w.rule),
			})
		}
	}
	l.plan.sort()
	for i, c := range l.plan.Rules {
		if p := find(l.policies(), c.Policy); c.Kind == kindExpire && c.Reason == "" && p != nil {
			l.plan.Rules[i].Reason = l.expiryReason(*p)
		}
		if c.Action == LifecycleAdd || c.Action == LifecycleChanged || c.Action == LifecycleRemove {
			l.plan.Changes++
		}
	}
	l.plan.after.Rules = rules
	if l.features.MaxRules > 0 && len(rules) > l.features.MaxRules {
		l.conflict("the bucket would have %d rules, of which %d are not of this prefix; the store takes %d",
			len(rules), len(l.plan.Foreign), l.features.MaxRules)
	}
	l.judgeForeign()
	if err := l.judgeReached(ctx); err != nil {
		return err
	}
	return l.judgeArchives(ctx)
}

func (l *lifecycle) conflict(format string, args ...any) {
	l.plan.Conflicts = append(l.plan.Conflicts, fmt.Sprintf(format, args...))
}

func (l *lifecycle) warn(format string, args ...any) {
	l.plan.Warnings = append(l.plan.Warnings, fmt.Sprintf(format, args...))
}

func (p *LifecyclePlan) sort() {
	slices.SortStableFunc(p.Rules, func(a, b LifecycleChange) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Kind, b.Kind))
	})
}

func find(policies []Policy, name string) *Policy {
	if i := slices.IndexFunc(policies, func(p Policy) bool { return p.Name == name }); i >= 0 {
		return &policies[i]
	}
	return nil
}

// leftOver decides about a rule of ours whose policy is not among the options.
// Archives may rely on it, for their classes and for their end: it goes only
// when the policies are known to be all there are, and nothing whatever lies
// below its prefix.
func (l *lifecycle) leftOver(ctx context.Context, policy string) (stays bool, why string, err error) {
	if !l.Complete {
		return true, "its policy was not asked about", nil
	}
	opts := storage.ListOptions{Prefix: policy + "/", Versions: l.Bucket.Capabilities().Versions}
	for _, err := range l.Bucket.List(ctx, opts) {
		switch {
		case errors.Is(err, storage.ErrPermission):
			return true, "its policy is gone, and whether archives are left cannot be seen for want of a right", nil
		case err != nil:
			return false, "", fmt.Errorf("look for archives of policy %s: %w", policy, err)
		}
		return true, "its policy is gone, but archives of it are still there", nil
	}
	return false, "its policy is gone, and nothing of it is left in the bucket", nil
}

// verifyLifecycle reads back what was written. A store may show the old rules
// for a while.
func verifyLifecycle(ctx context.Context, opts LifecycleOptions, plan *LifecyclePlan) error {
	pause := opts.pause
	if pause == nil {
		pause = sleep
	}
	left := cmp.Or(opts.settle, defaultSettle)
	for step := 250 * time.Millisecond; ; step = min(2*step, 5*time.Second) {
		now, err := storage.ReadLifecycle(ctx, opts.Bucket)
		if err != nil {
			return fmt.Errorf("the rules were written, but not read back: %w", err)
		}
		if now.Revision != plan.before.Revision {
			return compareTwice(ctx, opts, plan.after, now, pause)
		}
		if left <= 0 {
			return fmt.Errorf("%w: the store took the rules and still shows the old ones; `pgstow lifecycle plan` shows when they are there", storage.ErrUnknownOutcome)
		}
		if err := pause(ctx, step); err != nil {
			return causeOf(ctx, err)
		}
		left -= step
	}
}

// compareTwice looks again when the rules are others than those that were
// written: a store may show them in parts for a moment, and somebody else may be
// at them.
func compareTwice(ctx context.Context, opts LifecycleOptions, wrote, has storage.Lifecycle, pause func(context.Context, time.Duration) error) error {
	if compareWritten(wrote, has) == nil {
		return nil
	}
	if err := pause(ctx, time.Second); err != nil {
		return causeOf(ctx, err)
	}
	again, err := storage.ReadLifecycle(ctx, opts.Bucket)
	if err != nil {
		return fmt.Errorf("the rules were written, but not read back: %w", err)
	}
	err = compareWritten(wrote, again)
	if err != nil && again.Revision != has.Revision {
		return fmt.Errorf("%w: right after the rules were written (%s); `pgstow lifecycle plan` shows what is there", storage.ErrChanged, oneLine(err))
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compareWritten names what the store does not hold of what it took.
func compareWritten(wrote, has storage.Lifecycle) error {
	var lost []string
	rest := slices.Clone(has.Rules)
	take := func(match func(storage.LifecycleRule) bool) (storage.LifecycleRule, bool) {
		i := slices.IndexFunc(rest, match)
		if i < 0 {
			return storage.LifecycleRule{}, false
		}
		r := rest[i]
		rest = slices.Delete(rest, i, i+1)
		return r, true
	}
	for _, w := range wrote.Rules {
		if _, ok := take(func(r storage.LifecycleRule) bool {
			return w.Raw != nil && string(r.Raw) == string(w.Raw) || w.Raw == nil && sameRule(r, w)
		}); ok {
			continue
		}
		name := nameRule(w)
		changed, ok := take(func(r storage.LifecycleRule) bool { return w.ID != "" && r.ID == w.ID })
		switch {
		case !ok:
			lost = append(lost, fmt.Sprintf("rule %s is not there", name))
		case w.Raw != nil:
			lost = append(lost, fmt.Sprintf("rule %s came back changed", name))
		default:
			lost = append(lost, fmt.Sprintf("rule %s %s", name, difference(w, changed)))
		}
	}
	for _, r := range rest {
		lost = append(lost, fmt.Sprintf("rule %s is still there", nameRule(r)))
	}
	if !reflect.DeepEqual(wrote.Settings, has.Settings) {
		lost = append(lost, fmt.Sprintf("the settings beside the rules are %v, not %v", has.Settings, wrote.Settings))
	}
	if len(lost) == 0 {
		return nil
	}
	return integrity("the store took the lifecycle rules and holds others: %s; it drops what it does not know, or somebody changed them meanwhile: run it again, and if nothing changes, use a store that keeps them, or do without", strings.Join(lost, ", "))
}
