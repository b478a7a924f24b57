package archiver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/gcs"
	"github.com/pgstow/pgstow/storage/s3"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// ruled is a bucket in memory with the lifecycle rules of a real store.
type ruled struct {
	*storagetest.Memory
	caps    func(*storage.Capabilities)
	read    func(storage.Lifecycle) storage.Lifecycle // changes what is read
	stored  func(*storage.Lifecycle)                  // changes what is stored
	between func()                                    // runs before a write
	denied  bool                                      // listing is
}

func (r *ruled) Capabilities() storage.Capabilities {
	c := r.Memory.Capabilities()
	if r.caps != nil {
		r.caps(&c)
	}
	return c
}

func (r *ruled) Lifecycle(ctx context.Context) (storage.Lifecycle, error) {
	l, err := r.Memory.Lifecycle(ctx)
	if r.read != nil {
		l = r.read(l)
	}
	return l, err
}

func (r *ruled) SetLifecycle(ctx context.Context, l storage.Lifecycle) error {
	if r.between != nil {
		r.between()
	}
	if r.stored != nil {
		l.Rules = slices.Clone(l.Rules)
		r.stored(&l)
	}
	return r.Memory.SetLifecycle(ctx, l)
}

func (r *ruled) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	if r.denied {
		return func(yield func(storage.Object, error) bool) {
			yield(storage.Object{}, &storage.Error{Op: "list", Kind: storage.ErrPermission})
		}
	}
	return r.Memory.List(ctx, opts)
}

var (
	s3Rules, _  = (&s3.Bucket{}).LifecycleFeatures()
	gcsRules, _ = (&gcs.Bucket{}).LifecycleFeatures()
)

func newRuled(t testing.TB, features storage.LifecycleFeatures, rules ...storage.LifecycleRule) *ruled {
	t.Helper()
	m := storagetest.NewMemory(storagetest.MemoryOptions{Versions: true, Lock: true, CustomTime: features.CustomTime, Lifecycle: &features})
	if err := m.SetLifecycle(t.Context(), storage.Lifecycle{Rules: rules, Revision: "0"}); err != nil {
		t.Fatal(err)
	}
	return &ruled{Memory: m}
}

// said is every rule of the bucket in words, with its id.
func said(t testing.TB, b storage.LifecycleManager) []string {
	t.Helper()
	l, err := b.Lifecycle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, r := range l.Rules {
		all = append(all, strings.TrimSpace(r.ID+" "+describeRule(r)))
	}
	return all
}

func year(n int) Period { return Period{Years: n} }

var soxRules = Policy{
	Name: "sox-7y", Keep: year(7), Lock: storage.Compliance, Expiry: ExpiryStore,
	Transitions: []Transition{{Period{Days: 30}, "GLACIER"}, {Period{Months: 6}, "DEEP_ARCHIVE"}},
}

func onGCS(p Policy) Policy {
	p.Transitions = []Transition{{Period{Days: 30}, "NEARLINE"}, {Period{Months: 6}, "ARCHIVE"}}
	return p
}

// TestLifecycleRules: which rules a policy gets on which store. 7 years are at
// most 2,557 days.
func TestLifecycleRules(t *testing.T) {
	const id = "pgstow-aac57a29-" // the first four bytes of the SHA-256 of "pg/"
	if got := LifecycleID("pg/", "x", "y"); got != id+"x-y" {
		t.Fatalf("the id is %s", got)
	}
	byDefault := []string{
		id + "default-markers pg/default/: remove delete markers that hide nothing",
		id + "default-uploads pg/default/: abort unfinished uploads after 7 days",
	}
	for name, c := range map[string]struct {
		features storage.LifecycleFeatures
		policy   Policy
		want     []string
	}{
		"s3, locked": {s3Rules, soxRules, slices.Concat([]string{
			id + "sox-7y-transition pg/sox-7y/ tagged pgstow-role=dump: to GLACIER after 30 days, to DEEP_ARCHIVE after 186 days",
			id + "sox-7y-expire pg/sox-7y/: expire after 2559 days, remove hidden versions after 1 day",
			id + "sox-7y-markers pg/sox-7y/: remove delete markers that hide nothing",
			id + "sox-7y-uploads pg/sox-7y/: abort unfinished uploads after 7 days",
		}, byDefault)},
		// Nothing but the rule keeps it: for the longest dump more, and as long
		// again for what is hidden.
		"s3, unlocked": {s3Rules, Policy{Name: "dev", Keep: Period{Days: 30}, Expiry: ExpiryStore}, slices.Concat([]string{
			id + "dev-expire pg/dev/: expire after 39 days, remove hidden versions after 30 days",
			id + "dev-markers pg/dev/: remove delete markers that hide nothing",
			id + "dev-uploads pg/dev/: abort unfinished uploads after 7 days",
		}, byDefault)},
		"s3, pgstow expires": {s3Rules, Policy{Name: "dev", Keep: Period{Days: 30}}, slices.Concat([]string{
			id + "dev-markers pg/dev/: remove delete markers that hide nothing",
			id + "dev-uploads pg/dev/: abort unfinished uploads after 7 days",
		}, byDefault)},
		"s3, the default one": {s3Rules, Policy{}, byDefault},
		"gcs": {gcsRules, onGCS(soxRules), []string{
			"pg/sox-7y/ ending in /archive.dump or /archive.dump.age in STANDARD: to NEARLINE after 30 days",
			"pg/sox-7y/ ending in /archive.dump or /archive.dump.age in STANDARD or NEARLINE or COLDLINE: to ARCHIVE after 186 days",
			"pg/sox-7y/: expire 2557 days after their custom time",
		}},
		"gcs, pgstow expires": {gcsRules, Policy{Name: "dev", Keep: Period{Days: 30}}, []string{}},
	} {
		b := newRuled(t, c.features)
		opts := LifecycleOptions{Bucket: storage.Prefixed(b, "pg/"), Policies: []Policy{c.policy}}
		plan, err := ApplyLifecycle(t.Context(), opts)
		if err != nil || plan.Applied != (len(c.want) > 0) || plan.Changes != len(c.want) {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
		if got := said(t, b); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
		again, err := ApplyLifecycle(t.Context(), opts)
		if err != nil || again.Changes != 0 || again.Applied {
			t.Errorf("%s, again: %+v, %v", name, again, err)
		}
	}
}

// strangers are rules of others: unknown parts, another prefix of ours, and ids
// that only look like ours.
func strangers() []storage.LifecycleRule {
	expire := []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Days: 3, Clock: storage.LifecycleSinceCreation}}
	abort := []storage.LifecycleAction{{Kind: storage.LifecycleAbortUploads, Days: 30, Clock: storage.LifecycleSinceCreation}}
	at := func(prefix string) storage.LifecycleFilter {
		return storage.LifecycleFilter{Prefixes: []string{prefix}}
	}
	return []storage.LifecycleRule{
		{ID: "logs", Filter: at("logs/"), Actions: expire, Unknown: []string{"Freeze"}, Raw: []byte(`{"id":"logs","filter":{"prefixes":["logs/"]},"actions":[{"kind":"expire","days":3,"clock":"creation"}],"unknown":["Freeze"], "freeze" : [1,2.50]}`)},
		{ID: LifecycleID("team/", "sox-7y", kindUploads), Filter: at("team/sox-7y/"), Actions: abort},
		{ID: LifecycleID("pg/", "sox-7y", "colder"), Filter: at("cold/"), Actions: expire},
		{ID: LifecycleID("pg/", "no policy", kindUploads), Filter: at("odd/"), Actions: expire},
		{ID: "", Filter: at("x/"), Actions: abort},
	}
}

func plannedActions(p *LifecyclePlan) map[string]string {
	all := map[string]string{}
	for _, c := range p.Rules {
		all[c.Policy+" "+c.Kind] = c.Action
	}
	return all
}

// TestLifecycleDiff: what is there, what changes, what goes and what stays.
func TestLifecycleDiff(t *testing.T) {
	b := newRuled(t, s3Rules, strangers()...)
	foreign := func() []string { return said(t, b)[:len(strangers())] }
	before := foreign()
	raw := func() []byte { l, _ := b.Lifecycle(t.Context()); return l.Rules[0].Raw }
	first := string(raw())
	bucket := storage.Prefixed(b, "pg/")
	dev := Policy{Name: "dev", Keep: Period{Days: 30}, Expiry: ExpiryStore}
	opts := LifecycleOptions{Bucket: bucket, Policies: []Policy{soxRules, dev}, Complete: true}
	step := func(name string, changes int, want map[string]string) *LifecyclePlan {
		t.Helper()
		planned, err := PlanLifecycle(t.Context(), opts)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if planned.Applied || planned.Changes != changes || len(planned.Foreign) != len(strangers()) {
			t.Errorf("%s: %+v", name, planned)
		}
		got := plannedActions(planned)
		for rule, action := range want {
			if got[rule] != action {
				t.Errorf("%s: %s is %q, want %q", name, rule, got[rule], action)
			}
		}
		applied, err := ApplyLifecycle(t.Context(), opts)
		if err != nil || applied.Applied != (changes > 0) || !reflect.DeepEqual(applied.Rules, planned.Rules) {
			t.Errorf("%s: planned %+v, did %+v, %v", name, planned.Rules, applied.Rules, err)
		}
		if again, err := PlanLifecycle(t.Context(), opts); err != nil || again.Changes != 0 {
			t.Errorf("%s, again: %+v, %v", name, again, err)
		}
		if now := foreign(); !slices.Equal(now, before) || string(raw()) != first {
			t.Errorf("%s: rules of others became %q", name, now)
		}
		return applied
	}
	step("first", 9, map[string]string{"sox-7y transition": LifecycleAdd, "dev expire": LifecycleAdd, "default uploads": LifecycleAdd})
	step("second", 0, map[string]string{"sox-7y transition": LifecycleUnchanged})

	opts.Policies[1].Keep = Period{Days: 60}
	opts.Policies[0].Transitions = nil
	step("policies change", 2, map[string]string{"dev expire": LifecycleChanged, "sox-7y transition": LifecycleRemove, "sox-7y expire": LifecycleUnchanged})

	left := Dir{Policy: "dev", Label: "orders", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), ID: "a0000001"}.Key(DumpName)
	put(t, bucket, left, "x")
	opts.Policies = opts.Policies[:1]
	step("a policy goes, something is left", 0, map[string]string{"dev expire": LifecycleKept, "dev uploads": LifecycleKept})
	if err := bucket.Delete(t.Context(), left, ""); err != nil {
		t.Fatal(err)
	}
	step("its newest version is hidden", 0, map[string]string{"dev expire": LifecycleKept})
	b.denied = true
	step("listing is denied", 0, map[string]string{"dev expire": LifecycleKept})
	b.denied = false
	for o, err := range b.List(t.Context(), storage.ListOptions{Prefix: "pg/dev/", Versions: true}) {
		if err != nil {
			t.Fatal(err)
		}
		defer b.Delete(t.Context(), o.Key, o.Version)
		if err := b.Delete(t.Context(), o.Key, o.Version); err != nil {
			t.Fatal(err)
		}
	}
	opts.Complete = false
	step("nothing is left, not asked about", 0, map[string]string{"dev expire": LifecycleKept})
	opts.Complete = true
	plan := step("nothing is left", 3, map[string]string{"dev expire": LifecycleRemove, "dev uploads": LifecycleRemove, "dev markers": LifecycleRemove})
	if i := slices.IndexFunc(plan.Rules, func(c LifecycleChange) bool { return c.Policy == "dev" }); plan.Rules[i].Reason == "" || plan.Rules[i].Was == "" {
		t.Errorf("removed without a word: %+v", plan.Rules[i])
	}

	// Somebody has been at one of ours.
	l, err := b.Lifecycle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.Rules {
		if l.Rules[i].ID == LifecycleID("pg/", "default", kindUploads) {
			l.Rules[i].Disabled, l.Rules[i].Raw = true, nil
		}
	}
	if err := b.Memory.SetLifecycle(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	step("one of ours is disabled", 1, map[string]string{"default uploads": LifecycleChanged})
}

// TestLifecycleOwnWithoutIDs: on GCS a rule is ours by what it matches and by
// its form, and by nothing less.
func TestLifecycleOwnWithoutIDs(t *testing.T) {
	rule := func(prefix string, a storage.LifecycleAction) storage.LifecycleRule {
		return storage.LifecycleRule{Filter: storage.LifecycleFilter{Prefixes: []string{prefix}}, Actions: []storage.LifecycleAction{a}}
	}
	custom := storage.LifecycleAction{Kind: storage.LifecycleExpire, Days: 400, Clock: storage.LifecycleSinceCustomTime}
	created := storage.LifecycleAction{Kind: storage.LifecycleExpire, Days: 4000, Clock: storage.LifecycleSinceCreation}
	narrowed, zero := rule("pg/dev/", custom), custom
	narrowed.Unknown = []string{"condition isLive"}
	zero.Days = 0
	two := rule("pg/dev/", custom)
	two.Filter.Prefixes = append(two.Filter.Prefixes, "logs/")
	for name, c := range map[string]struct {
		rule storage.LifecycleRule
		own  bool
	}{
		"a policy's prefix":       {rule("pg/dev/", custom), true},
		"another policy's prefix": {rule("pg/gone/", custom), true},
		"by creation":             {rule("pg/dev/", created), false},
		"at once":                 {rule("pg/dev/", zero), false},
		"with a condition more":   {narrowed, false},
		"two prefixes":            {two, false},
		"the whole prefix":        {rule("pg/", custom), false},
		"a database":              {rule("pg/dev/orders/", custom), false},
		"no slash":                {rule("pg/dev", custom), false},
		"another prefix":          {rule("team/dev/", custom), false},
		"everything":              {storage.LifecycleRule{Actions: []storage.LifecycleAction{custom}}, false},
	} {
		plan, err := ShowLifecycle(t.Context(), storage.Prefixed(newRuled(t, gcsRules, c.rule), "pg/"))
		if err != nil || len(plan.Rules) != map[bool]int{true: 1}[c.own] || len(plan.Foreign) != 1-len(plan.Rules) {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
	}
	// At the bucket's root anybody's rule may have this form: it is ours only where
	// a policy wants one like it.
	root := []storage.LifecycleRule{rule("logs/", custom), rule("dev/", custom)}
	b := newRuled(t, gcsRules, root...)
	for name, policy := range map[string]Policy{
		"expires": {Name: "dev", Keep: Period{Days: 400}, Expiry: ExpiryStore},
		"not":     {Name: "logs", Keep: Period{Days: 300}},
	} {
		plan, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: b, Policies: []Policy{policy}, Complete: true})
		mine := map[string]int{"expires": 1}[name]
		warned := slices.ContainsFunc(plan.Warnings, func(w string) bool { return strings.Contains(w, "logs/") && strings.Contains(w, "left alone") })
		if err != nil || plan.Changes != 0 || len(plan.Rules) != mine || len(plan.Foreign) != 2-mine || !warned {
			t.Errorf("at the root, %s: %+v, %v", name, plan, err)
		}
	}
	// The same rule twice is once too often.
	b = newRuled(t, gcsRules, rule("pg/dev/", custom), rule("pg/dev/", custom))
	plan, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: storage.Prefixed(b, "pg/"),
		Policies: []Policy{{Name: "dev", Keep: Period{Days: 400}, Expiry: ExpiryStore}}})
	if got := said(t, b); err != nil || plan.Changes != 1 || len(got) != 1 {
		t.Errorf("%+v, %v, left %q", plan, err, got)
	}
}

// TestLifecycleWritten: what the store holds afterwards is looked at.
func TestLifecycleWritten(t *testing.T) {
	opts := func(b *ruled) LifecycleOptions {
		return LifecycleOptions{Bucket: storage.Prefixed(b, "pg/"), Policies: []Policy{soxRules}, settle: 10 * time.Second,
			pause: func(context.Context, time.Duration) error { return nil }}
	}
	for name, c := range map[string]struct {
		stored func(l *storage.Lifecycle)
		says   string
	}{
		"one transition of two": {func(l *storage.Lifecycle) {
			for i := range l.Rules {
				if len(l.Rules[i].Actions) == 2 && l.Rules[i].Actions[0].Kind == storage.LifecycleTransition {
					l.Rules[i].Actions = l.Rules[i].Actions[1:]
				}
			}
		}, `sox-7y-transition" lost "to GLACIER after 30 days"`},
		"a rule":            {func(l *storage.Lifecycle) { l.Rules = l.Rules[:len(l.Rules)-1] }, `default-uploads" is not there`},
		"somebody's rule":   {func(l *storage.Lifecycle) { l.Rules = l.Rules[1:] }, `"logs" is not there`},
		"its parts":         {func(l *storage.Lifecycle) { l.Rules[0].Raw = []byte(`{"id":"logs"}`) }, `"logs" came back changed`},
		"nothing, but more": {func(l *storage.Lifecycle) { l.Rules = append(l.Rules, storage.LifecycleRule{ID: "new"}) }, `"new" is still there`},
		"the tag": {func(l *storage.Lifecycle) {
			for i := range l.Rules {
				l.Rules[i].Filter.Tags = nil
			}
		}, "became"},
	} {
		b := newRuled(t, s3Rules, strangers()...)
		b.stored = c.stored
		plan, err := ApplyLifecycle(t.Context(), opts(b))
		if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), c.says) || plan.Applied {
			t.Errorf("%s: %v", name, err)
		}
	}
	settings := newRuled(t, s3Rules)
	n := 0
	settings.read = func(l storage.Lifecycle) storage.Lifecycle {
		n++
		l.Settings = map[string]string{"size": fmt.Sprint(n)}
		return l
	}
	if _, err := ApplyLifecycle(t.Context(), opts(settings)); !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "size") {
		t.Errorf("other settings: %v", err)
	}

	// Somebody else's rule comes right after ours, and others after it.
	busy := newRuled(t, s3Rules)
	reads := 0
	busy.read = func(l storage.Lifecycle) storage.Lifecycle {
		if reads++; reads > 1 {
			l.Rules, l.Revision = append(slices.Clone(l.Rules), storage.LifecycleRule{ID: fmt.Sprint("somebody's ", reads)}), fmt.Sprint("after ", reads)
		}
		return l
	}
	if _, err := ApplyLifecycle(t.Context(), opts(busy)); !errors.Is(err, storage.ErrChanged) || errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "somebody's 3") {
		t.Errorf("somebody at it: %v", err)
	}
	// Ours are shown in parts for a moment.
	parts := newRuled(t, s3Rules)
	reads = 0
	parts.read = func(l storage.Lifecycle) storage.Lifecycle {
		if reads++; reads == 2 {
			l.Rules = l.Rules[:1]
		}
		return l
	}
	if plan, err := ApplyLifecycle(t.Context(), opts(parts)); err != nil || !plan.Applied {
		t.Errorf("shown in parts: %+v, %v", plan, err)
	}

	// The old rules are shown for a while, or for ever.
	slow := newRuled(t, s3Rules)
	old, _ := slow.Memory.Lifecycle(t.Context())
	stale := 6
	slow.read = func(l storage.Lifecycle) storage.Lifecycle {
		if stale--; stale > 0 {
			return old
		}
		return l
	}
	if plan, err := ApplyLifecycle(t.Context(), opts(slow)); err != nil || !plan.Applied {
		t.Errorf("a slow store: %+v, %v", plan, err)
	}
	never := newRuled(t, s3Rules)
	never.read = func(storage.Lifecycle) storage.Lifecycle { return old }
	if _, err := ApplyLifecycle(t.Context(), opts(never)); !errors.Is(err, storage.ErrUnknownOutcome) {
		t.Errorf("a store that never shows them: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := opts(never)
	waiting.pause = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	never = newRuled(t, s3Rules)
	never.read = func(storage.Lifecycle) storage.Lifecycle { return old }
	waiting.Bucket = never
	if _, err := ApplyLifecycle(ctx, waiting); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}

	raced := newRuled(t, s3Rules, strangers()...)
	before := said(t, raced)
	raced.between = func() {
		raced.between = nil
		l, _ := raced.Memory.Lifecycle(t.Context())
		if err := raced.Memory.SetLifecycle(t.Context(), l); err != nil {
			t.Error(err)
		}
	}
	if _, err := ApplyLifecycle(t.Context(), opts(raced)); !errors.Is(err, storage.ErrChanged) || !slices.Equal(said(t, raced), before) {
		t.Errorf("changed between: %v", err)
	}
	if _, err := ApplyLifecycle(t.Context(), opts(raced)); err != nil { // from a fresh reading
		t.Error(err)
	}
}
