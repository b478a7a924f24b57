package archiver

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// Why Expire keeps an archive, or may not judge it.
const (
	WhyKeep       = "keep"       // its keep is not over
	WhyNoKeep     = "no-keep"    // its policy promises no time: it never expires
	WhyStore      = "store"      // a lifecycle rule of the bucket deletes it
	WhyKeepLast   = "keep-last"  // too few newer complete archives would stay
	WhyUnverified = "unverified" // of those, too few have passed a verification
	WhySpared     = "spared"     // the newest of its day, week, month or year
	WhyLocked     = "locked"     // the store's lock stands
	WhyHeld       = "held"       // a legal hold stands
	WhyDenied     = "denied"     // lock or hold of an object cannot be seen
	WhyUnreadable = "unreadable" // its manifest is damaged, or of a later version
	WhyChanged    = "changed"    // it changed while it was looked at
	WhyMixed      = "mixed"      // its label has archives of other databases, and which one it is of is not known
	WhyUnproved   = "unproved"   // a leftover that expire cannot prove to be one
)

// verdict is what is to become of one archive; why is "" for one that goes.
type verdict struct{ why, detail string }

func (v verdict) expires() bool { return v.why == "" }

// aged is one archive of a label as expiry judges it. What has to be asked from
// the store is asked when it matters.
type aged struct {
	time     time.Time // when it was started
	segment  string    // name of its policy, as in its key
	kept     *Kept     // nil when nothing was promised
	finished time.Time
	args     []string                // pg_dump's options: with some it is a part of the database
	complete func() (bool, error)    // each object is there as the manifest names it
	counts   func() (bool, error)    // its signature lets it stand in for others; nil lets each
	verified func() (bool, error)    // its newest verification has passed
	free     func() (verdict, error) // no version of an object is locked or held
}

// standsFor reports whether a may hold all that b holds: a part of a database
// stands for the same part alone.
func (a *aged) standsFor(b *aged) bool { return len(a.args) == 0 || slices.Equal(a.args, b.args) }

// there reports whether a is complete and may stand in for others.
func (a *aged) there() (bool, error) {
	ok, err := a.complete()
	if !ok || err != nil || a.counts == nil {
		return ok, err
	}
	return a.counts()
}

// keepUntil is the earliest end of what its own policy promised.
func (a *aged) keepUntil() time.Time {
	end := a.kept.KeepUntil
	if t := a.kept.Keep.After(a.finished); t.After(end) {
		end = t
	}
	return end
}

// expiry decides for the archives of one label.
type expiry struct {
	now             time.Time
	keepLast        int // at least so many, whatever policies say
	requireVerified bool
}

// plan goes from the newest archive to the oldest and decides by what stays of
// those before: an archive that expires counts for no other. So a second run
// finds the same, and nothing more to delete.
func (x expiry) plan(newestFirst []*aged) ([]verdict, error) {
	verdicts := make([]verdict, len(newestFirst))
	var staying []*aged
	for i, a := range newestFirst {
		v, err := x.judge(a, staying)
		if err != nil {
			return nil, err
		}
		verdicts[i] = v
		// What a rule of the store may delete at any time is nothing to rely on.
		if !v.expires() && (v.why != WhyStore || x.now.Before(a.keepUntil())) {
			staying = append(staying, a)
		}
	}
	return verdicts, nil
}

func (x expiry) judge(a *aged, newer []*aged) (verdict, error) {
	switch {
	case a.kept == nil || a.kept.Keep.IsZero():
		return verdict{why: WhyNoKeep, detail: "no keep in its policy"}, nil
	case a.kept.Expiry == ExpiryStore:
		return verdict{why: WhyStore, detail: "left to the bucket's rule"}, nil
	case x.now.Before(a.keepUntil()):
		return verdict{why: WhyKeep, detail: "until " + a.keepUntil().Format(time.DateOnly)}, nil
	}
	for _, rule := range []func(*aged, []*aged) (verdict, error){x.last, spare, func(a *aged, _ []*aged) (verdict, error) { return a.free() }} {
		if v, err := rule(a, newer); err != nil || !v.expires() {
			return v, err
		}
	}
	return verdict{}, nil
}

// last wants enough newer complete archives to stay.
func (x expiry) last(a *aged, newer []*aged) (verdict, error) {
	want := max(cmp.Or(a.kept.KeepLast, DefaultKeepLast), x.keepLast)
	complete, proved := 0, 0
	for _, n := range newer {
		if !n.standsFor(a) {
			continue
		}
		ok, err := n.there()
		if err != nil {
			return verdict{}, err
		}
		if !ok {
			continue
		}
		complete++
		if x.requireVerified {
			if ok, err = n.verified(); err != nil {
				return verdict{}, err
			}
		}
		if ok {
			proved++
		}
		if proved == want {
			return verdict{}, nil
		}
	}
	if complete >= want {
		return verdict{why: WhyUnverified, detail: fmt.Sprintf("%d of %d verified", proved, want)}, nil
	}
	return verdict{why: WhyKeepLast, detail: fmt.Sprintf("%d of %d newer ones", complete, want)}, nil
}

// spans are the parts of the calendar of which an archive may be the newest.
var spans = []struct {
	name  string
	count func(*Kept) int
	of    func(time.Time) string
}{
	{"day", func(k *Kept) int { return k.KeepDaily }, func(t time.Time) string { return t.Format(time.DateOnly) }},
	{"week", func(k *Kept) int { return k.KeepWeekly }, func(t time.Time) string {
		year, week := t.ISOWeek()
		return fmt.Sprintf("%d-W%02d", year, week)
	}},
	{"month", func(k *Kept) int { return k.KeepMonthly }, func(t time.Time) string { return t.Format("2006-01") }},
	{"year", func(k *Kept) int { return k.KeepYearly }, func(t time.Time) string { return t.Format("2006") }},
}

// spare keeps the newest complete archive of its policy in each of the last so
// many days, ISO weeks, months and years (in UTC, by the start of the archive)
// that have one. Locked policies have no such counts.
func spare(a *aged, newer []*aged) (verdict, error) {
	for _, s := range spans {
		n := s.count(a.kept)
		if n == 0 {
			continue
		}
		if ok, err := a.complete(); err != nil || !ok {
			return verdict{}, err // it stands for nothing
		}
		own := s.of(a.time.UTC())
		var taken []string
		for _, other := range newer {
			if other.segment != a.segment || !other.standsFor(a) {
				continue
			}
			if ok, err := other.there(); err != nil {
				return verdict{}, err
			} else if span := s.of(other.time.UTC()); ok && !slices.Contains(taken, span) {
				taken = append(taken, span)
			}
			if len(taken) == n || slices.Contains(taken, own) {
				break
			}
		}
		if len(taken) < n && !slices.Contains(taken, own) {
			return verdict{why: WhySpared, detail: "newest of " + s.name + " " + own}, nil
		}
	}
	return verdict{}, nil
}

// freeOf judges every version of every object of an archive.
func freeOf(all []seen, now time.Time) verdict {
	for _, s := range all {
		switch {
		case s.gone:
			return verdict{why: WhyChanged, detail: s.Name + " has gone meanwhile"}
		case s.hides(storage.AttributeRetention) || s.hides(storage.AttributeLegalHold):
			return verdict{why: WhyDenied, detail: "may not see " + s.Name}
		case s.o.LegalHold:
			return verdict{why: WhyHeld, detail: s.Name}
		}
	}
	until := time.Time{}
	for _, s := range all {
		if u := s.retention().Until; !s.retention().IsZero() && u.After(until) {
			until = u
		}
	}
	if until.After(now) {
		return verdict{why: WhyLocked, detail: "until " + until.UTC().Format("2006-01-02T15:04Z")}
	}
	return verdict{}
}
