package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

// How much one timeline draws. More archives share a mark.
const (
	timelineMarks = 120
	timelineBars  = 48
	timelineTicks = 60  // verifications, and drills
	barsTotal     = 200 // pixels of all bars, when there are many
	barMost       = 10  // pixels from bar to bar, when there are few
	barLeast      = 4
	sizeHeight    = 56 // pixels of the largest size
	axisHeight    = 18 // pixels below the bars
	maxHorizon    = 100
)

// timeline is a database's archives drawn: horizontal places are percentages, so
// that text keeps its size whatever the width.
type timeline struct {
	ID, Name, Desc string
	Marks          []timelineMark
	Verified       []timelineTick
	Drilled        []timelineTick
	Gaps           []timelineGap
	Axis           []timelineAxis
	MarkWidth      int
	// StripHeight is that of the drawing of archives, AxisY where its labels stand.
	StripHeight, AxisY int
	Shared             bool // a mark stands for several archives

	Bars       []timelineBar
	Promised   bool // something is: otherwise there are no bars to draw
	BarsHeight int
	BarHeight  int
	BarsAxis   []timelineAxis
	Now        string // its place among the bars
	BarsShared bool
	BarsDesc   string

	LargestSize string
	SizesDesc   string
}

type timelineMark struct {
	X, Name  string
	Class    string // ok or bad
	SizeY    int
	SizeH    int
	SizeName string
}

type timelineTick struct {
	X, Name string
	Class   string // ok, part or bad
}

type timelineGap struct {
	X, W, Name, Label string
	Class             string // bad or note
}

type timelineAxis struct{ X, Anchor, Label string }

// timelineBar is what keeps one archive, or the weakest of several.
type timelineBar struct {
	Y     int
	Name  string
	Parts []timelinePart
}

type timelinePart struct{ X, W, Class string }

// scale maps times to percentages, with a margin on both sides.
type scale struct{ from, to time.Time }

const scaleMargin = 1.5

func (s scale) at(t time.Time) float64 {
	f := float64(t.Sub(s.from)) / float64(s.to.Sub(s.from))
	return scaleMargin + (100-2*scaleMargin)*min(max(f, 0), 1)
}

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 3, 64) + "%" }

func (s scale) x(t time.Time) string { return percent(s.at(t)) }

func (s scale) span(from, to time.Time) (x, w string) {
	return s.x(from), percent(max(s.at(to)-s.at(from), 0.05))
}

// newTimeline draws a database; nil when there is nothing to draw.
func newTimeline(id string, d archiver.AuditedDatabase, now time.Time) *timeline {
	if len(d.Archives) == 0 {
		return nil
	}
	made := scale{from: d.Oldest, to: now}
	if made.to.Sub(made.from) < 24*time.Hour {
		made.from = made.to.Add(-24 * time.Hour)
	}
	t := &timeline{ID: id, Name: d.Label}
	t.marks(d, made)
	t.Verified = ticks(d, made, "Verification", func(a archiver.AuditedArchive) []archiver.AuditedFact { return a.Verified })
	t.Drilled = ticks(d, made, "Restore drill", func(a archiver.AuditedArchive) []archiver.AuditedFact { return a.Drilled })
	for _, g := range d.Gaps {
		t.gap(g, made)
	}
	t.Axis = axis(made)
	t.AxisY = 66
	if len(t.Verified)+len(t.Drilled) > 0 {
		t.AxisY = 92
	}
	t.StripHeight = t.AxisY + 4
	t.bars(d, now)
	t.describe(d)
	return t
}

func (t *timeline) describe(d archiver.AuditedDatabase) {
	missed := 0
	for _, g := range d.Gaps {
		missed += g.Missed
	}
	t.Desc = fmt.Sprintf("%s from %s to %s; %d with violations; %d missed; %s, %s. The table below has the same in words.",
		counted(len(d.Archives), "archive"), minute(d.Oldest), minute(d.Newest), violating(d.Archives), missed,
		counted(facts(d.Archives, true), "verification"), counted(facts(d.Archives, false), "drill"))
	var last time.Time
	for _, a := range d.Archives {
		if a.KeepUntil.After(last) {
			last = a.KeepUntil
		}
		if a.Lock.Until.After(last) {
			last = a.Lock.Until
		}
	}
	t.BarsDesc = "Nothing is locked, and nothing was promised to be kept for any time."
	if t.Promised = !last.IsZero(); t.Promised {
		t.BarsDesc = "How long each archive is locked and kept; the last until " + last.Format(time.DateOnly) + "."
	}
}

func violating(all []archiver.AuditedArchive) (n int) {
	for _, a := range all {
		if a.Violations > 0 {
			n++
		}
	}
	return n
}

func facts(all []archiver.AuditedArchive, verified bool) (n int) {
	for _, a := range all {
		if verified {
			n += len(a.Verified)
		} else {
			n += len(a.Drilled)
		}
	}
	return n
}

// marks draws each archive, or what falls together when there are many.
func (t *timeline) marks(d archiver.AuditedDatabase, s scale) {
	groups := byTime(d.Archives, s, timelineMarks)
	t.Shared = len(groups) < len(d.Archives)
	t.MarkWidth = 6
	if len(groups) > 30 {
		t.MarkWidth = 3
	}
	if len(groups) > 60 {
		t.MarkWidth = 2
	}
	var largest, smallest int64
	for i, a := range d.Archives {
		largest = max(largest, a.Size)
		if smallest = min(smallest, a.Size); i == 0 {
			smallest = a.Size
		}
	}
	t.LargestSize = size(largest)
	t.SizesDesc = fmt.Sprintf("From %s to %s, the newest %s.", size(smallest), size(largest), size(d.Archives[len(d.Archives)-1].Size))
	for _, g := range groups {
		m := timelineMark{X: s.x(middle(g)), Class: "ok"}
		var most int64
		for _, a := range g {
			most = max(most, a.Size)
		}
		if violating(g) > 0 {
			m.Class = "bad"
		}
		m.SizeH = sizeHeight
		if largest > 0 {
			m.SizeH = max(1, int(int64(sizeHeight)*most/largest))
		}
		m.SizeY = sizeHeight - m.SizeH
		m.Name, m.SizeName = groupName(g), groupTime(g)+": "+size(most)
		t.Marks = append(t.Marks, m)
	}
}

func middle(g []archiver.AuditedArchive) time.Time {
	first, last := g[0].Time, g[len(g)-1].Time
	return first.Add(last.Sub(first) / 2)
}

func groupTime(g []archiver.AuditedArchive) string {
	if len(g) == 1 {
		return minute(g[0].Time)
	}
	return fmt.Sprintf("%d archives, %s to %s", len(g), g[0].Time.Format(time.DateOnly), g[len(g)-1].Time.Format(time.DateOnly))
}

func groupName(g []archiver.AuditedArchive) string {
	if len(g) > 1 {
		if n := violating(g); n > 0 {
			return fmt.Sprintf("%s, %d of them with violations", groupTime(g), n)
		}
		return groupTime(g) + ", none with a violation"
	}
	verdict := "compliant"
	if g[0].Violations > 0 {
		verdict = counted(g[0].Violations, "violation")
	}
	return fmt.Sprintf("Archive %s, %s, %s, %s", g[0].ID, minute(g[0].Time), size(g[0].Size), verdict)
}

// byTime groups archives that fall on the same place.
func byTime(all []archiver.AuditedArchive, s scale, most int) [][]archiver.AuditedArchive {
	var groups [][]archiver.AuditedArchive
	last := -1
	for i := range all {
		cell := i
		if len(all) > most {
			cell = min(most-1, int(float64(most)*(s.at(all[i].Time)-scaleMargin)/(100-2*scaleMargin)))
		}
		if cell == last {
			groups[len(groups)-1] = append(groups[len(groups)-1], all[i])
			continue
		}
		last = cell
		groups = append(groups, []archiver.AuditedArchive{all[i]})
	}
	return groups
}

// ticks draws verifications or drills: failed ones first, when there are too many.
func ticks(d archiver.AuditedDatabase, s scale, noun string, of func(archiver.AuditedArchive) []archiver.AuditedFact) []timelineTick {
	type fact struct {
		archiver.AuditedFact
		archive string
	}
	var all []fact
	for _, a := range d.Archives {
		for _, f := range of(a) {
			all = append(all, fact{f, a.ID})
		}
	}
	failedFirst := func(a, b fact) int {
		switch {
		case a.Passed == b.Passed:
			return b.Time.Compare(a.Time)
		case b.Passed:
			return -1
		}
		return 1
	}
	slices.SortStableFunc(all, failedFirst)
	all = all[:min(len(all), timelineTicks)]
	slices.Reverse(all) // what failed is drawn last, over the others
	list := make([]timelineTick, len(all))
	for i, f := range all {
		tick := timelineTick{X: s.x(f.Time), Class: "ok", Name: fmt.Sprintf("%s of %s passed, %s", noun, f.archive, minute(f.Time))}
		switch {
		case !f.Passed:
			tick.Class, tick.Name = "bad", fmt.Sprintf("%s of %s failed, %s", noun, f.archive, minute(f.Time))
		case f.Part:
			tick.Class, tick.Name = "part", fmt.Sprintf("%s of a part of %s passed, %s", noun, f.archive, minute(f.Time))
		}
		list[i] = tick
	}
	return list
}

func (t *timeline) gap(g archiver.AuditGap, s scale) {
	v := timelineGap{Class: "note", Label: strconv.Itoa(g.Missed) + " missed"}
	if g.Violation {
		v.Class = "bad"
	}
	v.X, v.W = s.span(g.From, g.To)
	v.Name = fmt.Sprintf("%s missed between %s and %s", counted(g.Missed, "archive"), minute(g.From), minute(g.To))
	if g.Open {
		v.Name = "No archive since " + minute(g.From)
	}
	t.Gaps = append(t.Gaps, v)
}

// bars draws what keeps the archives: locked, kept without a lock, and promised
// but not so.
func (t *timeline) bars(d archiver.AuditedDatabase, now time.Time) {
	s := scale{from: d.Oldest, to: now.Add(24 * time.Hour)}
	horizon := now.AddDate(maxHorizon, 0, 0)
	for _, a := range d.Archives {
		for _, end := range []time.Time{a.KeepUntil, a.Lock.Until, a.Promised.Until} {
			if end.After(s.to) {
				s.to = earlier(end, horizon)
			}
		}
	}
	each := (len(d.Archives) + timelineBars - 1) / timelineBars
	t.BarsShared = each > 1
	step := min(barMost, max(barLeast, barsTotal*each/len(d.Archives)))
	t.BarHeight = step - max(1, step/3)
	for g := range slices.Chunk(d.Archives, each) {
		bar := timelineBar{Y: len(t.Bars) * step}
		weak := weakest(g)
		from := g[0].Time
		part := func(class string, a, b time.Time) {
			if b.After(a) {
				p := timelinePart{Class: class}
				p.X, p.W = s.span(a, earlier(b, horizon))
				bar.Parts = append(bar.Parts, p)
			}
		}
		locked := from
		if weak.Lock.Mode != storage.LockNone && weak.Lock.Until.After(from) {
			locked = weak.Lock.Until
			part("lock", from, locked)
		}
		lacking := locked
		if weak.Promised.Until.After(now) && weak.Promised.Until.After(locked) {
			lacking = weak.Promised.Until
			part("lack", locked, lacking)
		}
		part("keep", lacking, weak.KeepUntil)
		if len(bar.Parts) == 0 {
			part("none", from, from.Add(s.to.Sub(s.from)/200))
		}
		bar.Name = groupTime(g) + ": " + barText(weak)
		if len(g) > 1 {
			bar.Name += " at least"
		}
		t.Bars = append(t.Bars, bar)
	}
	t.BarsHeight = len(t.Bars)*step + 2
	t.BarsAxis = axis(s)
	t.Now = s.x(now)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// weakest is the least that several archives are kept.
func weakest(g []archiver.AuditedArchive) archiver.AuditedArchive {
	w := g[0]
	for _, a := range g[1:] {
		if a.Lock.Mode == storage.LockNone || w.Lock.Mode != storage.LockNone && a.Lock.Until.Before(w.Lock.Until) {
			w.Lock = a.Lock
		}
		if a.Promised.Until.After(w.Promised.Until) && a.Lock.Until.Before(a.Promised.Until) {
			w.Promised = a.Promised // broken promises show
		}
		if a.KeepUntil.Before(w.KeepUntil) {
			w.KeepUntil = a.KeepUntil
		}
	}
	return w
}

func barText(a archiver.AuditedArchive) string {
	lock := "no lock"
	if a.Lock.Mode != storage.LockNone {
		lock = fmt.Sprintf("%s lock until %s", a.Lock.Mode, a.Lock.Until.Format(time.DateOnly))
	}
	switch {
	case !a.Promised.Until.IsZero() && a.Lock.Until.Before(a.Promised.Until):
		lock += fmt.Sprintf(", promised until %s", a.Promised.Until.Format(time.DateOnly))
	case a.KeepUntil.IsZero():
		return lock + ", no keep promised"
	}
	if a.KeepUntil.IsZero() {
		return lock
	}
	return lock + ", kept until " + a.KeepUntil.Format(time.DateOnly)
}

// axisSteps are the spans between labels, and how the labels are written.
var axisSteps = []struct {
	years, months, days, hours int
	layout                     string
}{
	{0, 0, 0, 6, "15:04"}, {0, 0, 1, 0, "2 Jan"}, {0, 0, 2, 0, "2 Jan"}, {0, 0, 7, 0, "2 Jan"}, {0, 0, 14, 0, "2 Jan"},
	{0, 1, 0, 0, "Jan 2006"}, {0, 3, 0, 0, "Jan 2006"}, {0, 6, 0, 0, "Jan 2006"},
	{1, 0, 0, 0, "2006"}, {2, 0, 0, 0, "2006"}, {5, 0, 0, 0, "2006"}, {10, 0, 0, 0, "2006"}, {20, 0, 0, 0, "2006"},
}

const axisLabels = 6

// axis labels whole days, months and years.
func axis(s scale) []timelineAxis {
	for _, step := range axisSteps {
		t := axisStart(s.from, step.years, step.months, step.days)
		var list []timelineAxis
		for ; !t.After(s.to) && len(list) <= axisLabels; t = t.AddDate(step.years, step.months, step.days).Add(time.Duration(step.hours) * time.Hour) {
			if t.Before(s.from) {
				continue
			}
			a := timelineAxis{X: s.x(t), Anchor: "middle", Label: t.Format(step.layout)}
			switch at := s.at(t); {
			case at < 6:
				a.Anchor = "start"
			case at > 94:
				a.Anchor = "end"
			}
			list = append(list, a)
		}
		if len(list) <= axisLabels {
			return list
		}
	}
	return nil
}

// axisStart is the first place where a label may stand, at or before t.
func axisStart(t time.Time, years, months, days int) time.Time {
	t = t.UTC()
	switch {
	case years > 0:
		return time.Date(t.Year()-t.Year()%years, 1, 1, 0, 0, 0, 0, time.UTC)
	case months > 0:
		m := (int(t.Month()) - 1) / months * months
		return time.Date(t.Year(), time.Month(m+1), 1, 0, 0, 0, 0, time.UTC)
	case days > 0:
		return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	}
	return t.Truncate(6 * time.Hour)
}
