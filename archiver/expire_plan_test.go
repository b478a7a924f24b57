package archiver

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// planned is an archive of a plan, by hand.
type planned struct {
	at       string // start
	kept     Kept
	policy   string
	broken   bool // an object is missing
	verified bool
	notFree  string // why
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	when, err := time.Parse("2006-01-02T15:04", text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func (p planned) aged(t testing.TB) *aged {
	return p.agedAt(at(t, p.at))
}

func (p planned) agedAt(when time.Time) *aged {
	kept := p.kept
	return &aged{
		time: when, segment: p.policy, kept: &kept, finished: when.Add(time.Minute),
		complete: func() (bool, error) { return !p.broken, nil },
		verified: func() (bool, error) { return p.verified, nil },
		free:     func() (verdict, error) { return verdict{why: p.notFree}, nil },
	}
}

func keeps(days int, change func(*Kept)) Kept {
	k := Kept{Policy: Policy{Keep: Period{Days: days}, KeepLast: 1}}
	if change != nil {
		change(&k)
	}
	return k
}

func TestExpiryPlan(t *testing.T) {
	const now = "2026-12-31T12:00"
	day := keeps(1, nil)
	last := func(n int) Kept { return keeps(1, func(k *Kept) { k.KeepLast = n }) }
	for name, c := range map[string]struct {
		expiry   expiry
		archives []planned // newest first
		want     []string  // "" goes
	}{
		"the newest always stays": {expiry{}, []planned{{at: "2026-11-01T00:00", kept: day}}, []string{WhyKeepLast}},
		"keep counts from the end": {expiry{}, []planned{
			{at: "2026-12-31T11:00", kept: day}, {at: "2026-12-30T12:00", kept: day}, {at: "2026-12-30T11:58", kept: day},
		}, []string{WhyKeep, WhyKeep, ""}},
		"the default is three": {expiry{}, []planned{
			{at: "2026-11-04T00:00", kept: last(0)}, {at: "2026-11-03T00:00", kept: last(0)}, {at: "2026-11-02T00:00", kept: last(0)}, {at: "2026-11-01T00:00", kept: last(0)},
		}, []string{WhyKeepLast, WhyKeepLast, WhyKeepLast, ""}},
		"a flag raises it": {expiry{keepLast: 2}, []planned{
			{at: "2026-11-03T00:00", kept: day}, {at: "2026-11-02T00:00", kept: day}, {at: "2026-11-01T00:00", kept: day},
		}, []string{WhyKeepLast, WhyKeepLast, ""}},
		"a flag does not lower it": {expiry{keepLast: 1}, []planned{
			{at: "2026-11-02T00:00", kept: last(0)}, {at: "2026-11-01T00:00", kept: last(0)},
		}, []string{WhyKeepLast, WhyKeepLast}},
		"only complete ones count": {expiry{}, []planned{
			{at: "2026-11-03T00:00", kept: day, broken: true}, {at: "2026-11-02T00:00", kept: day}, {at: "2026-11-01T00:00", kept: day},
		}, []string{WhyKeepLast, WhyKeepLast, ""}},
		"what expires stands in for nothing": {expiry{}, []planned{
			{at: "2026-11-03T00:00", kept: day}, {at: "2026-11-02T00:00", kept: day}, {at: "2026-11-01T00:00", kept: last(2)},
		}, []string{WhyKeepLast, "", WhyKeepLast}},
		"a locked one stays and counts": {expiry{}, []planned{
			{at: "2026-11-03T00:00", kept: day}, {at: "2026-11-02T00:00", kept: day, notFree: WhyLocked}, {at: "2026-11-01T00:00", kept: last(2)},
		}, []string{WhyKeepLast, WhyLocked, ""}},
		"without keep it never goes": {expiry{}, []planned{
			{at: "2026-11-02T00:00"}, {at: "2026-11-01T00:00", kept: keeps(0, nil)},
		}, []string{WhyNoKeep, WhyNoKeep}},
		"the store's rule deletes it, and it may be gone tomorrow": {expiry{}, []planned{
			{at: "2026-11-02T00:00", kept: keeps(1, func(k *Kept) { k.Expiry = ExpiryStore })}, {at: "2026-11-01T00:00", kept: day},
		}, []string{WhyStore, WhyKeepLast}},
		"the store's rule does not delete it yet": {expiry{}, []planned{
			{at: "2026-11-02T00:00", kept: keeps(90, func(k *Kept) { k.Expiry = ExpiryStore })}, {at: "2026-11-01T00:00", kept: day},
		}, []string{WhyStore, ""}},
		"verified ones are asked for": {expiry{requireVerified: true}, []planned{
			{at: "2026-11-03T00:00", kept: day}, {at: "2026-11-02T00:00", kept: day, verified: true}, {at: "2026-11-01T00:00", kept: day},
		}, []string{WhyKeepLast, WhyUnverified, ""}},
		"the policy's time may be longer in the manifest": {expiry{}, []planned{
			{at: "2026-11-02T00:00", kept: day},
			{at: "2026-11-01T00:00", kept: keeps(1, func(k *Kept) { k.KeepUntil = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) })},
		}, []string{WhyKeepLast, WhyKeep}},
	} {
		t.Run(name, func(t *testing.T) {
			c.expiry.now = at(t, now)
			wantVerdicts(t, c.expiry, c.archives, c.want)
		})
	}
}

func wantVerdicts(t *testing.T, x expiry, archives []planned, want []string) {
	t.Helper()
	list := make([]*aged, len(archives))
	for i, p := range archives {
		list[i] = p.aged(t)
	}
	verdicts, err := x.plan(list)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range verdicts {
		if v.why != want[i] {
			t.Errorf("%s: %q (%s), want %q", archives[i].at, v.why, v.detail, want[i])
		}
	}
}

// The newest of each of so many days, ISO weeks, months and years that have one,
// in UTC.
func TestSparedByTheCalendar(t *testing.T) {
	spared := func(change func(*Kept)) func(string) planned {
		k := keeps(1, change)
		return func(at string) planned { return planned{at: at, kept: k} }
	}
	daily := spared(func(k *Kept) { k.KeepDaily = 3 })
	weekly := spared(func(k *Kept) { k.KeepWeekly = 2 })
	monthly := spared(func(k *Kept) { k.KeepMonthly = 2 })
	yearly := spared(func(k *Kept) { k.KeepYearly = 2 })
	both := spared(func(k *Kept) { k.KeepDaily, k.KeepMonthly = 1, 2 })
	broken := func(p planned) planned { p.broken = true; return p }
	other := func(p planned) planned { p.policy = "other"; return p }
	for name, c := range map[string]struct {
		archives []planned // newest first; keep-last keeps the first
		want     []string
	}{
		"days that have none do not count": {
			[]planned{daily("2026-11-20T22:00"), daily("2026-11-20T10:00"), daily("2026-11-17T10:00"), daily("2026-11-17T09:00"), daily("2026-11-02T10:00"), daily("2026-11-01T10:00")},
			[]string{WhyKeepLast, "", WhySpared, "", WhySpared, ""},
		},
		"midnight in UTC": {
			[]planned{daily("2026-11-20T00:00"), daily("2026-11-19T23:59"), daily("2026-11-19T23:58")},
			[]string{WhyKeepLast, WhySpared, ""},
		},
		"an ISO week begins on Monday and may reach into another year": {
			[]planned{weekly("2026-01-04T10:00"), weekly("2025-12-29T10:00"), weekly("2025-12-28T10:00"), weekly("2025-12-21T10:00")},
			[]string{WhyKeepLast, "", WhySpared, ""}, // 29 December 2025 is in week 2026-W01
		},
		"months": {
			[]planned{monthly("2026-11-30T10:00"), monthly("2026-11-01T10:00"), monthly("2026-09-30T10:00"), monthly("2026-09-29T10:00"), monthly("2026-08-31T10:00")},
			[]string{WhyKeepLast, "", WhySpared, "", ""},
		},
		"years": {
			[]planned{yearly("2026-01-01T10:00"), yearly("2025-12-31T10:00"), yearly("2025-12-30T10:00"), yearly("2024-12-31T10:00")},
			[]string{WhyKeepLast, WhySpared, "", ""},
		},
		"one may be both": {
			[]planned{both("2026-11-30T10:00"), both("2026-10-31T10:00"), both("2026-10-30T10:00")},
			[]string{WhyKeepLast, WhySpared, ""},
		},
		"a broken one stands for nothing": {
			[]planned{daily("2026-11-20T10:00"), broken(daily("2026-11-19T12:00")), daily("2026-11-19T10:00")},
			[]string{WhyKeepLast, "", WhySpared},
		},
		"another policy has its own": {
			[]planned{daily("2026-11-20T10:00"), daily("2026-11-19T12:00"), other(daily("2026-11-19T10:00")), other(daily("2026-11-19T09:00"))},
			[]string{WhyKeepLast, WhySpared, WhySpared, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantVerdicts(t, expiry{now: at(t, "2026-12-31T12:00")}, c.archives, c.want)
		})
	}
}

// sparedByDefinition is the definition, without looking at what stays: the
// newest archive of each of the newest n spans that have one.
func sparedByDefinition(times []time.Time, n int, of func(time.Time) string) map[int]bool {
	spared, spans := map[int]bool{}, []string{}
	for i, t := range times { // newest first
		if span := of(t); !slices.Contains(spans, span) {
			if len(spans) < n {
				spared[i] = true
			}
			spans = append(spans, span)
		}
	}
	return spared
}

// Whatever lies there: keep-last and unfinished keeps are never touched, the
// calendar's choice is that of its definition where all have one policy, and a
// second run finds nothing more.
func TestExpiryPlanProperties(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	count := func(most int) int { return max(0, random.IntN(2*most)-most) }
	for round := range 500 {
		one := keeps(1+random.IntN(60), func(k *Kept) {
			k.KeepLast, k.KeepDaily, k.KeepWeekly, k.KeepMonthly, k.KeepYearly = 1+random.IntN(4), count(9), count(6), count(6), count(3)
		})
		uniform := round%2 == 0
		x := expiry{now: start.AddDate(2, 0, 0)}
		var list []*aged
		var whole []bool
		when := start.AddDate(2, 0, 0)
		for range 40 + random.IntN(60) {
			when = when.Add(-time.Duration(random.IntN(40*60)) * time.Minute)
			p := planned{kept: one}
			if !uniform {
				p.kept.KeepLast, p.kept.KeepDaily = 1+random.IntN(4), count(9)
				p.broken = random.IntN(5) == 0
				if random.IntN(8) == 0 {
					p.notFree = WhyLocked
				}
			}
			list, whole = append(list, p.agedAt(when)), append(whole, !p.broken)
		}
		verdicts, err := x.plan(list)
		if err != nil {
			t.Fatal(err)
		}
		complete := 0
		var staying []*aged
		var times []time.Time
		for i, v := range verdicts {
			times = append(times, list[i].time)
			if v.expires() && (complete < list[i].kept.KeepLast || x.now.Before(list[i].finished.Add(24*time.Hour))) {
				t.Fatalf("round %d: archive %d of %d expires behind %d complete ones, keep-last %d", round, i, len(list), complete, list[i].kept.KeepLast)
			}
			if v.expires() {
				continue
			}
			staying = append(staying, list[i])
			if whole[i] {
				complete++
			}
		}
		if uniform {
			want := map[int]bool{}
			for _, s := range spans {
				for i := range sparedByDefinition(times, s.count(&one), s.of) {
					want[i] = true
				}
			}
			for i, v := range verdicts {
				kept := i < one.KeepLast || x.now.Before(list[i].keepUntil())
				if v.expires() == (kept || want[i]) {
					t.Fatalf("round %d: archive %d at %s: %+v; kept %t, spared by definition %t: %+v", round, i, times[i], v, kept, want[i], one.Policy)
				}
			}
		}
		again, err := x.plan(staying)
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(again, verdict.expires); i >= 0 {
			t.Fatalf("round %d: a second run expires archive %s as well", round, fmt.Sprint(staying[i].time))
		}
	}
}

// A part of a database stands for the same part, and for nothing else.
func TestPartsStandForThemselves(t *testing.T) {
	for _, c := range []struct {
		newer, older []string
		goes         bool
	}{
		{nil, nil, true},
		{nil, []string{"--schema-only"}, true},
		{[]string{"--schema-only"}, nil, false},
		{[]string{"-t", "a"}, []string{"-t", "b"}, false},
		{[]string{"-t", "a"}, []string{"-t", "a"}, true},
	} {
		newer := planned{at: "2026-12-30T01:00", kept: keeps(1, nil)}.aged(t)
		older := planned{at: "2026-12-01T01:00", kept: keeps(1, nil)}.aged(t)
		newer.args, older.args = c.newer, c.older
		verdicts, err := expiry{now: at(t, "2026-12-31T12:00")}.plan([]*aged{newer, older})
		if err != nil || verdicts[1].expires() != c.goes {
			t.Errorf("%q before %q: %+v, %v", c.older, c.newer, verdicts[1], err)
		}
	}
}
