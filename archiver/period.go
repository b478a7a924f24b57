package archiver

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Period is a span of the calendar: "30d", "18mo", "7y", "1y6mo", "2w". A year
// is a year and not 365 days.
type Period struct {
	Years, Months, Days int
}

// periodUnits in the order in which they may follow one another.
var periodUnits = []struct {
	name string
	most int // what one unit may count: a typo ends before the year 10000
	add  func(*Period, int)
}{
	{"y", 1000, func(p *Period, n int) { p.Years += n }},
	{"mo", 12000, func(p *Period, n int) { p.Months += n }},
	{"w", 52000, func(p *Period, n int) { p.Days += 7 * n }},
	{"d", 366000, func(p *Period, n int) { p.Days += n }},
}

// ParsePeriod reads a period of at least a day. Errors are ErrUsage.
func ParsePeriod(text string) (Period, error) {
	refused := func(why string) (Period, error) {
		return Period{}, fmt.Errorf("%w: %q %s; want a period such as 30d, 2w, 18mo or 7y", ErrUsage, text, why)
	}
	var p Period
	rest, next := text, 0
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.Atoi(rest[:digits])
		if err != nil {
			return refused("does not start with a number")
		}
		unit := rest[digits:]
		if i := strings.IndexAny(unit, "0123456789"); i >= 0 {
			unit = unit[:i]
		}
		rest = rest[digits+len(unit):]
		for next < len(periodUnits) && periodUnits[next].name != unit {
			next++
		}
		if next == len(periodUnits) {
			return refused(fmt.Sprintf("has the unit %q where none or another is expected", unit))
		}
		if n > periodUnits[next].most {
			return refused("is too long")
		}
		periodUnits[next].add(&p, n)
		next++
	}
	if p.IsZero() {
		return refused("is no time at all")
	}
	return p, nil
}

// IsZero reports whether p is no time at all.
func (p Period) IsZero() bool { return p == Period{} }

// After is the time that p reaches from t, in UTC. A day that the month does
// not have becomes one of the next month: what is kept is kept longer, never
// shorter.
func (p Period) After(t time.Time) time.Time {
	return t.UTC().AddDate(p.Years, p.Months, p.Days)
}

// Before is the time from which p reaches t or a little beyond it.
func (p Period) Before(t time.Time) time.Time {
	start := t.UTC().AddDate(-p.Years, -p.Months, -p.Days)
	for p.After(start).Before(t) {
		start = start.AddDate(0, 0, 1)
	}
	return start
}

// LongerThan compares the longest that two periods can be.
func (p Period) LongerThan(q Period) bool { return p.MostDays() > q.MostDays() }

// MostDays is the largest number of days that p can have, leap days included.
func (p Period) MostDays() int {
	months := 12*p.Years + p.Months
	whole := months / 12
	days := whole*365 + (whole+3)/4 + p.Days
	return days + min(31*(months%12), 366)
}

// LeastDays is the smallest number of days that p can have.
func (p Period) LeastDays() int {
	months := 12*p.Years + p.Months
	whole := months / 12
	days := whole*365 + whole/4 + p.Days
	if whole >= 100 {
		days -= whole / 100 // centuries without a leap day
	}
	if rest := months % 12; rest > 0 {
		days += 30*rest - 2
	}
	return days
}

func (p Period) String() string {
	var b strings.Builder
	for _, part := range []struct {
		n    int
		unit string
	}{{p.Years, "y"}, {p.Months, "mo"}, {p.Days, "d"}} {
		if part.n != 0 {
			fmt.Fprintf(&b, "%d%s", part.n, part.unit)
		}
	}
	return b.String()
}

// MarshalText makes periods strings in JSON.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote; "" is no time at all.
func (p *Period) UnmarshalText(text []byte) (err error) {
	*p = Period{}
	if len(text) > 0 {
		*p, err = ParsePeriod(string(text))
	}
	return err
}
