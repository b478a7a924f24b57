package archiver

import (
	"errors"
	"testing"
	"time"
)

func TestParsePeriod(t *testing.T) {
	for text, want := range map[string]Period{
		"30d": {Days: 30}, "2w": {Days: 14}, "18mo": {Months: 18}, "7y": {Years: 7},
		"1y6mo": {Years: 1, Months: 6}, "1y2w3d": {Years: 1, Days: 17},
	} {
		got, err := ParsePeriod(text)
		if err != nil || got != want {
			t.Errorf("%q is %+v, error %v; expected %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0d", "d", "7", "-7y", "7 y", "7Y", "6mo1y", "1y1y", "24h", "1.5y", "1001y", "7m", "99999999999999999999d"} {
		if got, err := ParsePeriod(text); !errors.Is(err, ErrUsage) {
			t.Errorf("%q is %+v, error %v; expected a refusal", text, got, err)
		}
	}
}

func TestPeriodText(t *testing.T) {
	for _, text := range []string{"30d", "18mo", "7y", "1y6mo3d"} {
		p, err := ParsePeriod(text)
		if err != nil || p.String() != text {
			t.Errorf("%q prints as %q, error %v", text, p, err)
		}
		var back Period
		if err := back.UnmarshalText([]byte(p.String())); err != nil || back != p {
			t.Errorf("%q comes back as %+v, error %v", text, back, err)
		}
	}
}

// A period never ends early, whatever day it starts on, and Before undoes
// After to the safe side.
func TestPeriodCalendar(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct{ start, period, end string }{
		{"2026-11-26T10:00:00Z", "7y", "2033-11-26T10:00:00Z"},
		{"2024-02-29T10:00:00Z", "1y", "2025-03-01T10:00:00Z"},
		{"2024-02-29T10:00:00Z", "4y", "2028-02-29T10:00:00Z"},
		{"2026-01-31T10:00:00Z", "1mo", "2026-03-03T10:00:00Z"},
		{"2026-03-29T01:30:00+01:00", "1d", "2026-03-30T00:30:00Z"},
	} {
		p, _ := ParsePeriod(c.period)
		if got := p.After(at(c.start)); !got.Equal(at(c.end)) {
			t.Errorf("%s and %s is %s, expected %s", c.start, c.period, got, c.end)
		}
	}
	for day := at("2023-01-01T00:00:00Z"); day.Year() < 2029; day = day.AddDate(0, 0, 1) {
		for _, text := range []string{"1d", "1mo", "18mo", "1y", "7y", "1y6mo3d"} {
			p, _ := ParsePeriod(text)
			end := p.After(day)
			if days := int(end.Sub(day) / (24 * time.Hour)); days > p.MostDays() || days < p.LeastDays() {
				t.Fatalf("%s from %s has %d days, not %d to %d", text, day, days, p.LeastDays(), p.MostDays())
			}
			if start := p.Before(end); p.After(start).Before(end) || start.Before(day.AddDate(0, 0, -3)) || start.After(day.AddDate(0, 0, 3)) {
				t.Fatalf("%s before %s is %s, expected about %s", text, end, start, day)
			}
		}
	}
}
