package archiver

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// describeRule is a rule in words, in one line.
func describeRule(r storage.LifecycleRule) string {
	text := describeFilter(r.Filter) + ": " + describeActions(r)
	if r.Disabled {
		text = "(disabled) " + text
	}
	return text
}

// describeActions is what a rule does.
func describeActions(r storage.LifecycleRule) string {
	var does []string
	for _, a := range r.Actions {
		does = append(does, describeAction(a))
	}
	if len(r.Unknown) > 0 {
		does = append(does, "and what is not known here: "+strings.Join(r.Unknown, ", "))
	}
	return cmp.Or(strings.Join(does, ", "), "nothing")
}

// nameRule is what a rule is called in messages.
func nameRule(r storage.LifecycleRule) string {
	if r.ID != "" {
		return strconv.Quote(r.ID)
	}
	return "(" + describeRule(r) + ")"
}

func describeFilter(f storage.LifecycleFilter) string {
	parts := []string{"the whole bucket"}
	if len(f.Prefixes) > 0 {
		parts = []string{strings.Join(f.Prefixes, " or ")}
	}
	for _, key := range slices.Sorted(maps.Keys(f.Tags)) {
		parts = append(parts, "tagged "+key+"="+f.Tags[key])
	}
	if len(f.Suffixes) > 0 {
		parts = append(parts, "ending in "+strings.Join(f.Suffixes, " or "))
	}
	if len(f.Classes) > 0 {
		parts = append(parts, "in "+strings.Join(f.Classes, " or "))
	}
	if f.LargerThan > 0 {
		parts = append(parts, fmt.Sprintf("larger than %d bytes", f.LargerThan))
	}
	if f.SmallerThan > 0 {
		parts = append(parts, fmt.Sprintf("smaller than %d bytes", f.SmallerThan))
	}
	return strings.Join(parts, " ")
}

func describeAction(a storage.LifecycleAction) string {
	var text string
	switch a.Kind {
	case storage.LifecycleTransition:
		text = "to " + a.Class
	case storage.LifecycleTransitionNoncurrent:
		text = "hidden versions to " + a.Class
	case storage.LifecycleExpire:
		text = "expire"
	case storage.LifecycleExpireNoncurrent:
		text = "remove hidden versions"
	case storage.LifecycleExpireMarkers:
		return "remove delete markers that hide nothing"
	case storage.LifecycleAbortUploads:
		text = "abort unfinished uploads"
	default:
		text = string(a.Kind)
	}
	switch {
	case !a.Date.IsZero():
		text += " from " + a.Date.Format(time.DateOnly) + " on"
	case a.Clock == storage.LifecycleSinceCustomTime:
		text += " " + inDays(a.Days) + " after their custom time"
	default:
		text += " after " + inDays(a.Days)
	}
	if !a.Before.IsZero() {
		text += " if created before " + a.Before.Format(time.DateOnly)
	}
	if a.NewerVersions > 0 {
		text += fmt.Sprintf(" but for the newest %d", a.NewerVersions)
	}
	return text
}

func inDays(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}

// difference says what has become of a rule that was written.
func difference(wrote, has storage.LifecycleRule) string {
	var lost []string
	for _, a := range wrote.Actions {
		if !slices.Contains(has.Actions, a) {
			lost = append(lost, strconv.Quote(describeAction(a)))
		}
	}
	if len(lost) > 0 {
		return "lost " + strings.Join(lost, " and ")
	}
	return fmt.Sprintf("became %q", describeRule(has))
}
