package archiver

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

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
	byStore := keep
	byStore.Expiry = ExpiryStore
	none := Policy{Name: "keep"}
	for name, c := range map[string]struct {
		filter storage.LifecycleFilter
		action storage.LifecycleAction
		policy Policy
		want   int
	}{
		"the whole bucket, sooner":        {at(), expire(365), keep, conflict},
		"as long as the keep":             {at(), expire(366), keep, conflict},
		"less than ours would wait":       {at(), expire(374), keep, conflict},
		"the whole bucket, not sooner":    {at(), expire(375), keep, warning},
		"locked, before the lock ends":    {at(), expire(367), locked, conflict},
		"locked, not sooner":              {at(), expire(368), locked, warning},
		"sooner, locked":                  {at(), expire(30), locked, conflict},
		"our prefix":                      {at("pg/"), expire(30), keep, conflict},
		"a part of its name":              {at("logs/", "pg/ke"), expire(30), keep, conflict},
		"one database":                    {at("pg/keep/orders/"), expire(30), keep, conflict},
		"not sooner, and its one deleter": {at(), expire(375), byStore, nothing},
		"another prefix":                  {at("pg2/", "pg/kept/"), expire(1), keep, nothing},
		"its tag":                         {tagged("owner", "finance"), expire(30), keep, conflict},
		"another value of its tag":        {tagged("owner", "sales"), expire(30), keep, nothing},
		"another tag":                     {tagged("temporary", "yes"), expire(30), keep, nothing},
		"another tag, ad hoc":             {tagged("temporary", "yes"), expire(30), Policy{}, warning},
		"its policy":                      {tagged(TagPolicy, "keep"), expire(30), keep, conflict},
		"another policy":                  {tagged(TagPolicy, "dev"), expire(30), keep, nothing},
		"dumps":                           {tagged(TagRole, RoleDump), expire(30), keep, conflict},
		"manifests by their end":          {storage.LifecycleFilter{Suffixes: []string{".json"}}, expire(30), keep, conflict},
		"one key by its end":              {storage.LifecycleFilter{Suffixes: []string{"x/archive.dump"}}, expire(30), keep, conflict},
		"another end":                     {storage.LifecycleFilter{Suffixes: []string{".log"}}, expire(30), keep, nothing},
		"large objects":                   {storage.LifecycleFilter{LargerThan: 1 << 30}, expire(30), keep, conflict},
		"from a day on":                   {at(), from(now.AddDate(10, 0, 0)), keep, conflict},
		"before today, and nothing is":    {at(), before(now.AddDate(0, 0, -1)), keep, nothing},
		"what is made before next year":   {at(), before(now.AddDate(1, 0, 0)), keep, conflict},
		"no keep":                         {at(), expire(30), none, warning},
		"hidden versions, unlocked":       {at(), day(storage.LifecycleExpireNoncurrent, 30), keep, warning},
		"hidden versions, later":          {at(), day(storage.LifecycleExpireNoncurrent, 366), keep, nothing},
		"hidden versions, locked":         {at(), day(storage.LifecycleExpireNoncurrent, 30), locked, nothing},
		"a class":                         {at(), day(storage.LifecycleTransition, 30), keep, warning},
		"uploads of long dumps":           {at(), day(storage.LifecycleAbortUploads, 1), keep, warning},
		"uploads as we would":             {at(), day(storage.LifecycleAbortUploads, 7), keep, nothing},
		"delete markers":                  {at(), storage.LifecycleAction{Kind: storage.LifecycleExpireMarkers}, keep, nothing},
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
			if p := l.policies()[0]; !disabled && l.reaches(r.Filter, p, "pg/"+p.Name+"/", p.Name != DefaultPolicy) {
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

// TestLifecycleForeignAndOldArchives: a stranger's rule that spares what is new,
// or waits as long as the policy keeps today, is held against the archives that
// are there.
func TestLifecycleForeignAndOldArchives(t *testing.T) {
	made := time.Now().UTC().AddDate(0, 0, -100).Truncate(time.Second)
	dir := Dir{Policy: "keep", Label: "orders", Time: made, ID: "a0000001"}
	expire := func(days int, before time.Time) storage.LifecycleAction {
		return storage.LifecycleAction{Kind: storage.LifecycleExpire, Days: days, Before: before, Clock: storage.LifecycleSinceCreation}
	}
	later, earlier := made.AddDate(0, 0, 50), made.AddDate(0, 0, -50)
	kept := func(keep Period, change func(*Kept)) *Kept {
		k := &Kept{Policy: Policy{Keep: keep, Expiry: ExpiryStore}, KeepUntil: keep.After(made.Add(time.Hour))}
		if change != nil {
			change(k)
		}
		return k
	}
	pgstow := func(k *Kept) { k.Expiry = ExpiryPgstow }
	locked := func(k *Kept) { k.Lock, k.RetainUntil = storage.Compliance, lockMargin(k.KeepUntil) }
	tagged := func(k *Kept) { k.Tags = map[string]string{"temporary": "yes"} }
	short := Period{Days: 30}
	const conflict, warning, nothing = "conflict", "warning", ""
	for name, c := range map[string]struct {
		action storage.LifecycleAction
		kept   *Kept
		filter storage.LifecycleFilter
		denied bool
		want   string
	}{
		"made before":                   {action: expire(0, later), kept: kept(year(7), nil), want: conflict},
		"made before, and an age":       {action: expire(365, later), kept: kept(year(7), nil), want: conflict},
		"made before, an age like ours": {action: expire(7*366+9, later), kept: kept(year(7), nil), want: nothing},
		"made after":                    {action: expire(0, earlier), kept: kept(year(7), nil), want: nothing},
		"its end has come":              {action: expire(60, later), kept: kept(short, nil), want: nothing},
		"its end has come for pgstow":   {action: expire(60, later), kept: kept(short, pgstow), want: warning},
		"promised nothing":              {action: expire(0, later), want: warning},
		"locked":                        {action: expire(0, later), kept: kept(year(7), locked), want: nothing},
		"another database":              {action: expire(0, later), kept: kept(year(7), nil), filter: storage.LifecycleFilter{Prefixes: []string{"pg/keep/sales/"}}, want: nothing},
		"its database":                  {action: expire(0, later), kept: kept(year(7), nil), filter: storage.LifecycleFilter{Prefixes: []string{"pg/keep/orders/"}}, want: conflict},
		"a tag that it has":             {action: expire(0, later), kept: kept(year(7), tagged), filter: storage.LifecycleFilter{Tags: tagOf("temporary", "yes")}, want: conflict},
		"a tag that it has not":         {action: expire(0, later), kept: kept(year(7), nil), filter: storage.LifecycleFilter{Tags: tagOf("temporary", "yes")}, want: nothing},
		"the policy kept longer then":   {action: expire(400, time.Time{}), kept: kept(year(7), nil), want: conflict},
		"and it did not":                {action: expire(400, time.Time{}), kept: kept(short, nil), want: nothing},
		"cannot be seen":                {action: expire(0, later), kept: kept(year(7), nil), denied: true, want: "cannot be seen"},
	} {
		b := newRuled(t, gcsRules, storage.LifecycleRule{ID: "a stranger's", Filter: c.filter, Actions: []storage.LifecycleAction{c.action}})
		bucket := storage.Prefixed(b, "pg/")
		m := fakeManifest(dir, "1")
		m.Started, m.Finished, m.Kept = made, made.Add(time.Hour), c.kept
		text, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		put(t, bucket, dir.Key(DumpName), "dump")
		put(t, bucket, dir.Key(ManifestName), string(text))
		b.denied = c.denied
		l, err := newLifecycle(t.Context(), LifecycleOptions{Bucket: bucket, Policies: []Policy{{Name: "keep", Keep: year(1), Expiry: ExpiryStore}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.judgeReached(t.Context()); err != nil {
			t.Fatal(err)
		}
		says := slices.DeleteFunc(l.plan.Warnings, func(w string) bool { return strings.Contains(w, "policy "+DefaultPolicy) })
		got := nothing
		switch {
		case len(l.plan.Conflicts) > 0:
			got, says = conflict, append(says, l.plan.Conflicts...)
		case len(says) > 0 && c.denied:
			got = "cannot be seen"
		case len(says) > 0:
			got = warning
		}
		named := func(s string) bool { return strings.Contains(s, "a stranger's") && strings.Contains(s, "a0000001") }
		if got != c.want || (got == conflict || got == warning) && (len(says) != 1 || !named(says[0])) ||
			c.denied && !strings.Contains(says[0], "cannot be seen") {
			t.Errorf("%s: %q, %q; wanted %q", name, got, says, c.want)
		}
		if got != conflict || c.action.Before.IsZero() {
			continue
		}
		if plan, err := ApplyLifecycle(t.Context(), l.LifecycleOptions); !errors.Is(err, ErrRefused) || plan.Applied || !named(err.Error()) {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
	}
}

func tagOf(k, v string) map[string]string { return map[string]string{k: v} }

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
// archives were promised, whatever their policy says now, and one of archives
// that were left to `pgstow expire`, however late it comes.
func TestLifecycleArchives(t *testing.T) {
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	kept := func(keep Period, lock storage.LockMode) *Kept {
		return &Kept{Policy: Policy{Keep: keep, Lock: lock, Expiry: ExpiryStore}, KeepUntil: keep.After(made.Add(time.Hour))}
	}
	left := func(p Policy) *Kept {
		k := &Kept{Policy: p}
		if !p.Keep.IsZero() {
			k.KeepUntil = p.Keep.After(made.Add(time.Hour))
		}
		return k
	}
	month := Period{Days: 30}
	short := Policy{Name: "p", Keep: month, Expiry: ExpiryStore}
	locked := short
	locked.Lock = storage.Governance
	const tooSoon, deleter = "promised to end", "left to `pgstow expire`"
	for name, c := range map[string]struct {
		features storage.LifecycleFeatures
		policy   Policy
		kept     *Kept
		refused  string
	}{
		"as promised":              {s3Rules, short, kept(month, ""), ""},
		"promised longer":          {s3Rules, short, kept(Period{Days: 60}, ""), tooSoon},
		"promised longer, locked":  {s3Rules, short, kept(Period{Days: 60}, storage.Compliance), tooSoon},
		"was unlocked, now locked": {s3Rules, locked, kept(month, ""), tooSoon},
		"was pgstow's":             {s3Rules, short, left(Policy{Keep: month, Expiry: ExpiryPgstow}), deleter},
		"was nobody's in words":    {s3Rules, short, left(Policy{Keep: month}), deleter},
		"was spared":               {s3Rules, short, left(Policy{Keep: Period{Days: 1}, KeepMonthly: 12}), deleter},
		"was locked and pgstow's":  {s3Rules, locked, left(Policy{Keep: month, Lock: storage.Governance}), deleter},
		"promised no end":          {s3Rules, short, left(Policy{}), deleter},
		"promised nothing":         {s3Rules, short, nil, deleter},
		"gcs, as promised":         {gcsRules, short, kept(month, ""), ""},
		"gcs, promised longer":     {gcsRules, short, kept(Period{Days: 60}, ""), tooSoon},
		"gcs, was unlocked":        {gcsRules, locked, kept(month, ""), ""},
		"gcs, was pgstow's":        {gcsRules, short, left(Policy{Keep: month, KeepLast: 3}), deleter},
		"gcs, without custom time": {gcsRules, short, left(Policy{}), ""},
		"gcs, promised nothing":    {gcsRules, short, nil, ""},
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
		if plan == nil || len(plan.Warnings) > 0 || (c.refused == "") != (err == nil) {
			t.Errorf("%s: %+v, %v", name, plan, err)
			continue
		}
		if c.refused != "" {
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "a0000001") || !strings.Contains(err.Error(), c.refused) || len(said(t, b)) > 0 {
				t.Errorf("%s: %v, and there are %q", name, err, said(t, b))
			}
			// The way out: archives that exist keep their deleter.
			renamed := c.policy
			renamed.Name = "p2"
			kept := Policy{Name: "p", Keep: month}
			if plan, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: bucket, Policies: []Policy{renamed, kept}}); err != nil || !plan.Applied {
				t.Errorf("%s, under a new name: %+v, %v", name, plan, err)
			}
			continue
		}
		b.denied = true
		if plan, err := ApplyLifecycle(t.Context(), opts); err != nil || plan.Changes != 0 || !slices.ContainsFunc(plan.Warnings, func(w string) bool {
			return strings.Contains(w, "cannot be seen")
		}) {
			t.Errorf("%s, again, and archives cannot be seen: %+v, %v", name, plan, err)
		}
	}
	b := newRuled(t, s3Rules)
	b.denied = true
	if _, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: b, Policies: []Policy{short}}); !errors.Is(err, storage.ErrPermission) || len(said(t, b)) > 0 {
		t.Errorf("archives that cannot be seen: %v", err)
	}
}

// TestLifecycleArchivesOfARuleThatStays: a rule that nobody changes deletes just
// as well as a new one. Archives that were promised longer meanwhile stand
// against it, whether its policy is asked about or not.
func TestLifecycleArchivesOfARuleThatStays(t *testing.T) {
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	short := Policy{Name: "p", Keep: Period{Days: 30}, Expiry: ExpiryStore}
	for name, features := range map[string]storage.LifecycleFeatures{"s3": s3Rules, "gcs": gcsRules} {
		b := newRuled(t, features)
		bucket := storage.Prefixed(b, "pg/")
		asked := LifecycleOptions{Bucket: bucket, Policies: []Policy{short}}
		others := LifecycleOptions{Bucket: bucket, Policies: []Policy{{Name: "q", Keep: Period{Days: 3}, Expiry: ExpiryStore}}}
		if _, err := ApplyLifecycle(t.Context(), asked); err != nil {
			t.Fatal(err)
		}
		before := said(t, b)
		longer := func(m *Manifest) {
			m.Kept.Expiry, m.Kept.KeepLast = ExpiryStore, 0
			m.Kept.Keep = Period{Days: 60}
			m.Kept.KeepUntil = m.Kept.Keep.After(m.Finished)
		}
		m := putKept(t, bucket, Dir{Policy: "p", Label: "orders", Time: made, ID: "a0000001"}, longer, storage.PutOptions{})
		for action, opts := range map[string]LifecycleOptions{LifecycleUnchanged: asked, LifecycleKept: others} {
			plan, err := ApplyLifecycle(t.Context(), opts)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "a0000001 (kept until "+m.Kept.KeepUntil.Format(time.DateOnly)) {
				t.Errorf("%s, %s: %v", name, action, err)
			}
			if got := plannedActions(plan)["p expire"]; got != action || !slices.Equal(said(t, b), before) {
				t.Errorf("%s: the rule is %q, wanted %q; there are %q", name, got, action, said(t, b))
			}
		}
		// What was left to pgstow meanwhile is no rule's, however late it comes.
		left := putKept(t, bucket, Dir{Policy: "p", Label: "orders", Time: made, ID: "b0000001"}, nil, storage.PutOptions{})
		for action, opts := range map[string]LifecycleOptions{LifecycleUnchanged: asked, LifecycleKept: others, LifecycleChanged: {
			Bucket: bucket, Policies: []Policy{{Name: "p", Keep: Period{Days: 90}, Expiry: ExpiryStore}},
		}} {
			plan, err := ApplyLifecycle(t.Context(), opts)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "left to `pgstow expire`, also those that it spares") || !strings.Contains(err.Error(), left.ID) {
				t.Errorf("%s, %s: %v", name, action, err)
			}
			if got := plannedActions(plan)["p expire"]; got != action || !slices.Equal(said(t, b), before) {
				t.Errorf("%s: the rule is %q, wanted %q; there are %q", name, got, action, said(t, b))
			}
		}
		for _, o := range shownIn(t, bucket) {
			if strings.Contains(o.Key, left.ID) {
				if err := bucket.Delete(t.Context(), o.Key, o.Version); err != nil {
					t.Fatal(err)
				}
			}
		}
		// The way out: the policy keeps for as long, or the rule goes.
		for keep, policy := range map[string]Policy{
			"longer":  {Name: "p", Keep: Period{Days: 60}, Expiry: ExpiryStore},
			"no rule": {Name: "p", Keep: Period{Days: 30}},
		} {
			if _, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: bucket, Policies: []Policy{policy}}); err != nil {
				t.Errorf("%s, %s: %v", name, keep, err)
			}
		}
	}
}

// TestLifecycleRuleOfOursThatWasChanged: what somebody made of a rule is judged,
// not what we wrote; one that cannot be read keeps no other from being written.
func TestLifecycleRuleOfOursThatWasChanged(t *testing.T) {
	short := Policy{Name: "p", Keep: Period{Days: 30}, Expiry: ExpiryStore}
	b := newRuled(t, s3Rules)
	bucket := storage.Prefixed(b, "pg/")
	if _, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: bucket, Policies: []Policy{short}}); err != nil {
		t.Fatal(err)
	}
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	dir := Dir{Policy: "p", Label: "orders", Time: made, ID: "a0000001"}
	putKept(t, bucket, dir, func(m *Manifest) {
		m.Kept.Expiry, m.Kept.KeepLast = ExpiryStore, 0
		m.Kept.KeepUntil = Period{Days: 30}.After(m.Finished)
	}, storage.PutOptions{})
	others := LifecycleOptions{Bucket: bucket, Policies: []Policy{{Name: "q"}}}
	if _, err := ApplyLifecycle(t.Context(), others); err != nil {
		t.Fatal(err)
	}
	for name, action := range map[string]storage.LifecycleAction{
		"sooner":     {Kind: storage.LifecycleExpire, Days: 3, Clock: storage.LifecycleSinceCreation},
		"from a day": {Kind: storage.LifecycleExpire, Date: made.AddDate(0, 0, 7)},
		"hidden":     {Kind: storage.LifecycleExpireNoncurrent, Days: 1, Clock: storage.LifecycleSinceNoncurrent},
	} {
		l, err := b.Memory.Lifecycle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range l.Rules {
			if l.Rules[i].ID == LifecycleID("pg/", "p", kindExpire) {
				l.Rules[i].Actions, l.Rules[i].Raw = []storage.LifecycleAction{action}, nil
			}
		}
		if err := b.Memory.SetLifecycle(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if _, err := PlanLifecycle(t.Context(), others); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "a0000001") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ApplyLifecycle(t.Context(), LifecycleOptions{Bucket: bucket, Policies: []Policy{short}}); err != nil {
		t.Errorf("put back: %v", err)
	}
	broken := dir
	broken.ID = "b0000001"
	put(t, bucket, broken.Key(ManifestName), "{")
	plan, err := PlanLifecycle(t.Context(), others)
	if err != nil || !slices.ContainsFunc(plan.Warnings, func(w string) bool { return strings.Contains(w, "b0000001") }) {
		t.Errorf("a manifest that cannot be read: %+v, %v", plan, err)
	}
}

// TestLifecycleNeighbours: an expiry rule covers all that lies below its policy,
// so nothing else may lie there: not another team's objects, hidden or not, nor
// another pgstow's archives, which its rules tell of.
func TestLifecycleNeighbours(t *testing.T) {
	prod := Policy{Name: "prod", Keep: Period{Days: 30}, Expiry: ExpiryStore}
	abort := []storage.LifecycleAction{{Kind: storage.LifecycleAbortUploads, Days: 7, Clock: storage.LifecycleSinceCreation}}
	other := func(prefix string) storage.LifecycleRule {
		return storage.LifecycleRule{ID: LifecycleID("prod/", "sox", kindUploads), Actions: abort,
			Filter: storage.LifecycleFilter{Prefixes: []string{prefix}}}
	}
	stranger := other("prod/sox/")
	stranger.ID = "pgstow-of-sales"
	archive := Dir{Policy: "prod", Label: "orders", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), ID: "a0000001"}
	for name, c := range map[string]struct {
		key     string
		hidden  bool
		removed bool
		rules   []storage.LifecycleRule
		policy  Policy
		says    string
	}{
		"nothing":             {policy: prod},
		"an archive":          {key: archive.Key(DumpName), policy: prod},
		"somebody's":          {key: "prod/invoices/2026.pdf", policy: prod, says: "prod/invoices/2026.pdf"},
		"hidden":              {key: "prod/invoices/2026.pdf", hidden: true, policy: prod, says: "prod/invoices/2026.pdf"},
		"a marker alone":      {key: "prod/invoices/2026.pdf", removed: true, policy: prod},
		"almost an archive's": {key: archive.Key("archive.dump.bak"), policy: prod, says: "archive.dump.bak"},
		"of another prefix":   {key: "prod/sox/orders/20260301T120000Z-a0000001/archive.dump", policy: prod, says: "prod/sox/orders"},
		"beside it":           {key: "production/invoices/2026.pdf", policy: prod},
		"pgstow deletes":      {key: "prod/invoices/2026.pdf", policy: Policy{Name: "prod", Keep: Period{Days: 30}}},
		"another pgstow":      {rules: []storage.LifecycleRule{other("prod/sox/")}, policy: prod, says: LifecycleID("prod/", "sox", kindUploads)},
		"another beside it":   {rules: []storage.LifecycleRule{other("production/sox/")}, policy: prod},
		"another above it":    {rules: []storage.LifecycleRule{other("")}, policy: prod},
		"only named so":       {rules: []storage.LifecycleRule{stranger}, policy: prod},
	} {
		b := newRuled(t, s3Rules, c.rules...)
		if c.key != "" {
			o := put(t, b, c.key, "x")
			if c.hidden || c.removed {
				if err := b.Delete(t.Context(), c.key, ""); err != nil {
					t.Fatal(err)
				}
			}
			if c.removed {
				if err := b.Delete(t.Context(), c.key, o.Version); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := said(t, b)
		opts := LifecycleOptions{Bucket: b, Policies: []Policy{c.policy}}
		plan, err := ApplyLifecycle(t.Context(), opts)
		if c.says == "" {
			if err != nil || !plan.Applied {
				t.Errorf("%s: %+v, %v", name, plan, err)
			}
			if warned := len(plan.Warnings) > 0; warned != (name == "pgstow deletes") {
				t.Errorf("%s: warnings %q", name, plan.Warnings)
			}
			continue
		}
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") || !slices.Equal(said(t, b), before) {
			t.Errorf("%s: %v, and there are %q", name, err, said(t, b))
		}
	}
	// What came after the rule is seen with the next plan.
	for name, features := range map[string]storage.LifecycleFeatures{"s3": s3Rules, "gcs": gcsRules} {
		b := newRuled(t, features)
		opts := LifecycleOptions{Bucket: b, Policies: []Policy{prod}}
		if _, err := ApplyLifecycle(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		put(t, b, "prod/invoices/2026.pdf", "x")
		if _, err := PlanLifecycle(t.Context(), opts); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "invoices") {
			t.Errorf("%s, came later: %v", name, err)
		}
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
