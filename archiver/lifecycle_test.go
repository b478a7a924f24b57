package archiver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
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
	m := storagetest.NewMemory(storagetest.MemoryOptions{Versions: true, Lock: true, Lifecycle: &features})
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

	if _, err := storage.PutBytes(t.Context(), bucket, "dev/somebody/else", []byte("x"), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	opts.Policies = opts.Policies[:1]
	step("a policy goes, something is left", 0, map[string]string{"dev expire": LifecycleKept, "dev uploads": LifecycleKept})
	if err := b.Delete(t.Context(), "pg/dev/somebody/else", ""); err != nil {
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
	// The same rule twice is once too often.
	b := newRuled(t, gcsRules, rule("pg/dev/", custom), rule("pg/dev/", custom))
	plan, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: storage.Prefixed(b, "pg/"),
		Policies: []Policy{{Name: "dev", Keep: Period{Days: 400}, Expiry: ExpiryStore}}})
	if got := said(t, b); err != nil || plan.Changes != 1 || len(got) != 1 {
		t.Errorf("%+v, %v, left %q", plan, err, got)
	}
}

// TestLifecycleForeignInTheWay: which rules of others stand against a policy,
// and which are only worth a warning.
func TestLifecycleForeignInTheWay(t *testing.T) {
	now := time.Now().UTC()
	day := func(kind storage.LifecycleKind, days int) storage.LifecycleAction {
		return storage.LifecycleAction{Kind: kind, Days: days, Clock: storage.LifecycleSinceCreation}
	}
	expire := func(days int) storage.LifecycleAction { return day(storage.LifecycleExpire, days) }
	from := func(at time.Time) storage.LifecycleAction {
		return storage.LifecycleAction{Kind: storage.LifecycleExpire, Date: at}
	}
	before := func(at time.Time) storage.LifecycleAction {
		a := expire(0)
		a.Before = at
		return a
	}
	at := func(prefixes ...string) storage.LifecycleFilter { return storage.LifecycleFilter{Prefixes: prefixes} }
	tagged := func(k, v string) storage.LifecycleFilter {
		return storage.LifecycleFilter{Tags: map[string]string{k: v}}
	}
	const nothing, warning, conflict = 0, 1, 2
	keep := Policy{Name: "keep", Keep: year(1), Tags: map[string]string{"owner": "finance"}}
	locked := keep
	locked.Lock = storage.Governance
	none := Policy{Name: "keep"}
	for name, c := range map[string]struct {
		filter storage.LifecycleFilter
		action storage.LifecycleAction
		policy Policy
		want   int
	}{
		"the whole bucket, sooner":      {at(), expire(365), keep, conflict},
		"the whole bucket, not sooner":  {at(), expire(366), keep, nothing},
		"sooner, locked":                {at(), expire(30), locked, conflict},
		"our prefix":                    {at("pg/"), expire(30), keep, conflict},
		"a part of its name":            {at("logs/", "pg/ke"), expire(30), keep, conflict},
		"one database":                  {at("pg/keep/orders/"), expire(30), keep, conflict},
		"another prefix":                {at("pg2/", "pg/kept/"), expire(1), keep, nothing},
		"its tag":                       {tagged("owner", "finance"), expire(30), keep, conflict},
		"another value of its tag":      {tagged("owner", "sales"), expire(30), keep, nothing},
		"another tag":                   {tagged("temporary", "yes"), expire(30), keep, nothing},
		"another tag, ad hoc":           {tagged("temporary", "yes"), expire(30), Policy{}, warning},
		"its policy":                    {tagged(TagPolicy, "keep"), expire(30), keep, conflict},
		"another policy":                {tagged(TagPolicy, "dev"), expire(30), keep, nothing},
		"dumps":                         {tagged(TagRole, RoleDump), expire(30), keep, conflict},
		"manifests by their end":        {storage.LifecycleFilter{Suffixes: []string{".json"}}, expire(30), keep, conflict},
		"one key by its end":            {storage.LifecycleFilter{Suffixes: []string{"x/archive.dump"}}, expire(30), keep, conflict},
		"another end":                   {storage.LifecycleFilter{Suffixes: []string{".log"}}, expire(30), keep, nothing},
		"large objects":                 {storage.LifecycleFilter{LargerThan: 1 << 30}, expire(30), keep, conflict},
		"from a day on":                 {at(), from(now.AddDate(10, 0, 0)), keep, conflict},
		"what was made before today":    {at(), before(now.AddDate(0, 0, -1)), keep, nothing},
		"what is made before next year": {at(), before(now.AddDate(1, 0, 0)), keep, conflict},
		"no keep":                       {at(), expire(30), none, warning},
		"hidden versions, unlocked":     {at(), day(storage.LifecycleExpireNoncurrent, 30), keep, warning},
		"hidden versions, later":        {at(), day(storage.LifecycleExpireNoncurrent, 366), keep, nothing},
		"hidden versions, locked":       {at(), day(storage.LifecycleExpireNoncurrent, 30), locked, nothing},
		"a class":                       {at(), day(storage.LifecycleTransition, 30), keep, warning},
		"uploads of long dumps":         {at(), day(storage.LifecycleAbortUploads, 1), keep, warning},
		"uploads as we would":           {at(), day(storage.LifecycleAbortUploads, 7), keep, nothing},
		"delete markers":                {at(), storage.LifecycleAction{Kind: storage.LifecycleExpireMarkers}, keep, nothing},
	} {
		r := storage.LifecycleRule{ID: "a stranger's", Filter: c.filter, Actions: []storage.LifecycleAction{c.action}}
		for _, disabled := range []bool{false, true} {
			r.Disabled = disabled
			b := newRuled(t, s3Rules, r)
			// The default policy is not what is asked about here.
			l, err := newLifecycle(t.Context(), LifecycleOptions{Bucket: storage.Prefixed(b, "pg/"), Policies: []Policy{c.policy}})
			if err != nil {
				t.Fatal(err)
			}
			if p := l.policies()[0]; !disabled && l.reaches(r.Filter, p) {
				l.judge(r, p)
			}
			got := min(len(l.plan.Warnings), 1) + 2*len(l.plan.Conflicts)
			want := c.want
			if disabled {
				want = nothing
			}
			if got != want {
				t.Errorf("%s, disabled %t: %q, %q", name, disabled, l.plan.Conflicts, l.plan.Warnings)
			}
			plan, err := ApplyLifecycle(t.Context(), l.LifecycleOptions)
			if (want == conflict) != errors.Is(err, ErrRefused) || plan == nil || plan.Applied == (want == conflict) {
				t.Errorf("%s: %+v, %v", name, plan, err)
			}
			if err != nil && (!strings.Contains(err.Error(), "a stranger's") || len(said(t, b)) != 1) {
				t.Errorf("%s: %v, and there are %q", name, err, said(t, b))
			}
		}
	}
	unknown := storage.LifecycleRule{ID: "odd", Unknown: []string{"Freeze"}}
	plan, err := PlanLifecycle(t.Context(), LifecycleOptions{Bucket: newRuled(t, s3Rules, unknown)})
	if err != nil || len(plan.Warnings) != 1 || !strings.Contains(plan.Warnings[0], "Freeze") {
		t.Errorf("%+v, %v", plan, err)
	}
}

// TestLifecycleRefusals: what contradicts itself changes nothing.
func TestLifecycleRefusals(t *testing.T) {
	store := Policy{Name: "p", Keep: year(1), Expiry: ExpiryStore}
	moves := func(all ...Transition) Policy {
		p := store
		p.Transitions = all
		return p
	}
	to := func(days int, class string) Transition { return Transition{Period{Days: days}, class} }
	cold := moves(to(90, "STANDARD_IA"))
	cold.StorageClass = "GLACIER"
	for name, c := range map[string]struct {
		features storage.LifecycleFeatures
		policies []Policy
		uploads  int
		caps     func(*storage.Capabilities)
		says     string
	}{
		"twice":                 {s3Rules, []Policy{store, store}, 0, nil, "twice"},
		"twice the default one": {s3Rules, []Policy{{}, {Name: "default"}}, 0, nil, "twice"},
		"default expires":       {s3Rules, []Policy{{Keep: year(1), Expiry: ExpiryStore}}, 0, nil, "never expired"},
		"no keep":               {s3Rules, []Policy{{Name: "p", Expiry: ExpiryStore}}, 0, nil, "set keep"},
		"wrong order":           {s3Rules, []Policy{moves(to(90, "GLACIER"), to(30, "DEEP_ARCHIVE"))}, 0, nil, "before"},
		"same age":              {s3Rules, []Policy{moves(to(90, "GLACIER"), to(90, "DEEP_ARCHIVE"))}, 0, nil, "before"},
		"same age in effect": {s3Rules, []Policy{moves(Transition{Period{Days: 31}, "GLACIER"}, Transition{Period{Months: 1}, "DEEP_ARCHIVE"})},
			0, nil, ""},
		"warmer":             {s3Rules, []Policy{moves(to(30, "GLACIER"), to(90, "STANDARD_IA"))}, 0, nil, "colder"},
		"warmer than it was": {s3Rules, []Policy{cold}, 0, nil, "colder"},
		"where it is":        {s3Rules, []Policy{moves(to(30, "STANDARD"))}, 0, nil, "STANDARD"},
		"after its end":      {s3Rules, []Policy{moves(to(366, "GLACIER"))}, 0, nil, "kept"},
		"no class of GCS":    {gcsRules, []Policy{moves(to(30, "GLACIER"))}, 0, nil, "NEARLINE"},
		"uploads at once":    {s3Rules, []Policy{store}, -1, nil, "at least 1"},
		"the bucket's own lock": {s3Rules, []Policy{store}, 0, func(c *storage.Capabilities) {
			c.DefaultRetention = storage.DefaultRetention{Mode: storage.Compliance, Years: 2}
		}, "still locks"},
	} {
		b := newRuled(t, c.features)
		b.caps = c.caps
		plan, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: b, Policies: c.policies, UploadDays: c.uploads})
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") || len(said(t, b)) > 0 {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
	}
	early := moves(to(10, "STANDARD_IA"))
	plan, err := PlanLifecycle(t.Context(), LifecycleOptions{Bucket: newRuled(t, s3Rules), Policies: []Policy{early}})
	if err != nil || len(plan.Warnings) != 1 || !strings.Contains(plan.Warnings[0], "30 days") {
		t.Errorf("IA after 10 days: %+v, %v", plan, err)
	}
	full := newRuled(t, s3Rules, slices.Repeat([]storage.LifecycleRule{{ID: "x", Filter: storage.LifecycleFilter{Prefixes: []string{"x/"}}}}, 999)...)
	if _, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: full}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "1001") {
		t.Errorf("a full bucket: %v", err)
	}
	for _, b := range []storage.Bucket{storagetest.NewMemory(storagetest.MemoryOptions{}), plainBucket{full}} {
		if _, err := PlanLifecycle(t.Context(), LifecycleOptions{Bucket: b}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("no rules here: %v", err)
		}
	}
}

// TestLifecycleArchives: an expiry is refused that comes before the end that
// archives were promised, whatever their policy says now.
func TestLifecycleArchives(t *testing.T) {
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	kept := func(keep Period, lock storage.LockMode) *Kept {
		return &Kept{Policy: Policy{Keep: keep, Lock: lock}, KeepUntil: keep.After(made.Add(time.Hour))}
	}
	short := Policy{Name: "p", Keep: Period{Days: 30}, Expiry: ExpiryStore}
	locked := short
	locked.Lock = storage.Governance
	for name, c := range map[string]struct {
		features storage.LifecycleFeatures
		policy   Policy
		kept     *Kept
		refused  bool
		warned   bool
	}{
		"as promised":              {s3Rules, short, kept(Period{Days: 30}, ""), false, false},
		"promised longer":          {s3Rules, short, kept(Period{Days: 60}, ""), true, false},
		"promised longer, locked":  {s3Rules, short, kept(Period{Days: 60}, storage.Compliance), true, false},
		"was unlocked, now locked": {s3Rules, locked, kept(Period{Days: 30}, ""), true, false},
		"promised nothing":         {s3Rules, short, nil, false, true},
		"gcs, as promised":         {gcsRules, short, kept(Period{Days: 30}, ""), false, false},
		"gcs, promised longer":     {gcsRules, short, kept(Period{Days: 60}, ""), true, false},
		"gcs, was unlocked":        {gcsRules, locked, kept(Period{Days: 30}, ""), false, false},
		"gcs, promised nothing":    {gcsRules, short, nil, false, false},
	} {
		b := newRuled(t, c.features)
		dir := Dir{Policy: "p", Label: "orders", Time: made, ID: "a0000001"}
		m := fakeManifest(dir, "1")
		m.Finished, m.Kept = made.Add(time.Hour), c.kept
		text, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		bucket := storage.Prefixed(b, "pg/")
		put(t, bucket, dir.Key(DumpName), "dump")
		put(t, bucket, dir.Key(ManifestName), string(text))
		opts := LifecycleOptions{Bucket: bucket, Policies: []Policy{c.policy}}
		plan, err := ApplyLifecycle(t.Context(), opts)
		if c.refused != errors.Is(err, ErrRefused) || (err == nil) == c.refused || c.warned != (plan != nil && len(plan.Warnings) > 0) {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
		if c.refused {
			if !strings.Contains(err.Error(), "a0000001") || len(said(t, b)) > 0 {
				t.Errorf("%s: %v, and there are %q", name, err, said(t, b))
			}
			continue
		}
		// What nobody changes is not looked at again.
		b.denied = true
		if plan, err := ApplyLifecycle(t.Context(), opts); err != nil || plan.Changes != 0 {
			t.Errorf("%s, again: %+v, %v", name, plan, err)
		}
	}
	b := newRuled(t, s3Rules)
	b.denied = true
	if _, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: b, Policies: []Policy{short}}); !errors.Is(err, storage.ErrPermission) || len(said(t, b)) > 0 {
		t.Errorf("archives that cannot be seen: %v", err)
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

// TestLifecycleNeverBeforeKeep: whatever the keep, the lock, the day, the length
// of the dump and the moment at which somebody hides the archive, no rule lets
// the store delete an original before its keep is over or its lock has ended.
func TestLifecycleNeverBeforeKeep(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 2))
	for range 5000 {
		p := Policy{Name: "p", Expiry: ExpiryStore,
			Keep: Period{Years: rnd.IntN(3), Months: rnd.IntN(15), Days: 1 + rnd.IntN(40)},
			Lock: []storage.LockMode{storage.LockNone, storage.Governance, storage.Compliance}[rnd.IntN(3)]}
		started := time.Date(2023, 1, 1, 0, 0, rnd.IntN(5*365*86400), 0, time.UTC)
		uploads := 1 + rnd.IntN(10)
		finished := started.Add(time.Duration(rnd.Int64N(int64(uploads) * int64(24*time.Hour))))
		until := p.Keep.After(finished)
		locked := started
		if p.Lock != storage.LockNone {
			locked = lockMargin(until)
		}
		hidden := finished.Add(time.Duration(rnd.Int64N(int64(800 * 24 * time.Hour))))
		for name, features := range map[string]storage.LifecycleFeatures{"s3": s3Rules, "gcs": gcsRules} {
			l := &lifecycle{LifecycleOptions: LifecycleOptions{UploadDays: uploads}, features: features}
			for _, a := range l.expiry(p) {
				var gone time.Time
				switch a.Clock {
				case storage.LifecycleSinceCreation:
					gone = started.AddDate(0, 0, a.Days) // S3 rounds up, never down
				case storage.LifecycleSinceNoncurrent:
					gone = hidden.AddDate(0, 0, a.Days)
				case storage.LifecycleSinceCustomTime:
					gone = finished.Truncate(time.Second).AddDate(0, 0, a.Days)
					if p.Lock != storage.LockNone {
						gone = p.Keep.Before(locked).AddDate(0, 0, a.Days)
					}
				}
				if gone.Before(locked) {
					gone = locked // the store refuses, and comes back
				}
				if gone.Before(until.Truncate(time.Second)) {
					t.Fatalf("seed %d: on %s %+v of %+v deletes at %s what ended at %s and is kept until %s",
						seed, name, a, p, gone, finished, until)
				}
			}
		}
	}
}
