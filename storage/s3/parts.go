package s3

import (
	"fmt"
)

// partPlan says how large each part of an upload is. Parts grow while the
// upload goes on, so that small dumps stay small and yet 4.8 TiB fit into
// 10,000 parts without an estimate; stores that want equal parts get the size
// that the estimate demands.
type partPlan struct {
	maxParts int
	first    int64 // size of part 1
	limit    int64 // sizes double up to it
	step     int   // parts before the size doubles
	uniform  bool
	estimate int64
}

// planParts fails when the estimate does not fit into the store's parts: that
// is known before the first of them is sent.
func planParts(cfg Config, estimate int64) (partPlan, error) {
	p := partPlan{
		maxParts: cfg.MaxParts,
		limit:    cfg.MaxPartSize,
		step:     max(cfg.MaxParts/10, 1),
		uniform:  cfg.UniformParts,
		estimate: estimate,
	}
	// A fifth of the parts stays in reserve for an estimate that was short.
	wanted := estimate / (int64(cfg.MaxParts) * 8 / 10)
	p.first = max(cfg.PartSize, roundUp(wanted, mib))
	p.first = min(p.first, p.limit)
	if estimate > p.capacity() {
		return p, fmt.Errorf("%s are estimated, but the store takes %d parts of at most %s, %s in all; split the dump",
			size(estimate), p.maxParts, size(p.limit), size(p.capacity()))
	}
	return p, nil
}

// size is the size of part n, counted from 1.
func (p partPlan) size(n int) int64 {
	if p.uniform {
		return p.first
	}
	s := p.first
	for range (n - 1) / p.step {
		if s >= p.limit {
			return p.limit
		}
		s *= 2
	}
	return min(s, p.limit)
}

// capacity is what all parts together hold.
func (p partPlan) capacity() int64 {
	if p.uniform {
		return p.first * int64(p.maxParts)
	}
	var sum int64
	for n := 1; n <= p.maxParts; n += p.step {
		sum += p.size(n) * int64(min(p.step, p.maxParts-n+1))
	}
	return sum
}

// exhausted is the error of a stream that is longer than its parts.
func (p partPlan) exhausted(sent int64) error {
	estimate := "no size was estimated"
	if p.estimate > 0 {
		estimate = size(p.estimate) + " were estimated"
	}
	kind := ""
	if p.uniform {
		kind = " equal"
	}
	return fmt.Errorf("all %d%s parts of the upload are used after %s and there is more data (%s): give a larger estimate",
		p.maxParts, kind, size(sent), estimate)
}

func roundUp(n, multiple int64) int64 { return (n + multiple - 1) / multiple * multiple }

// size prints bytes for a person.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), -1
	for v >= 1024 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.4g %ciB", v, units[unit])
}
