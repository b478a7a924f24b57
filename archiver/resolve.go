package archiver

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// Latest is the reference to the newest archive of a label.
const Latest = "latest"

// Resolve finds the one complete archive that ref names: an id, a unique
// prefix of one, "latest", or a time ("2026-11-22" means its end,
// "2026-11-22T14:00Z"; the newest archive started at or before it counts).
// name restricts the search to one label; "latest" and times need it when the
// bucket holds several labels. "latest" refuses a label under which archives
// of different databases lie.
func Resolve(ctx context.Context, b storage.Bucket, ref, name string) (Entry, error) {
	return resolve(ctx, b, ref, name, nil)
}

func resolve(ctx context.Context, b storage.Bucket, ref, name string, log *slog.Logger) (Entry, error) {
	return resolveBy(ctx, b, ref, name, log, scan)
}

type scanner func(ctx context.Context, b storage.Bucket, name string, log *slog.Logger) ([]Entry, error)

func resolveBy(ctx context.Context, b storage.Bucket, ref, name string, log *slog.Logger, scan scanner) (Entry, error) {
	if name != "" {
		if err := CheckLabel(name); err != nil {
			return Entry{}, err
		}
	}
	at, isTime := parseTimeRef(ref)
	isID := validIDPrefix(ref)
	if ref != Latest && !isTime && !isID {
		return Entry{}, fmt.Errorf("%w: archive %q: use an id or its beginning, %q or a time such as 2026-11-22 or 2026-11-22T14:00Z",
			ErrUsage, ref, Latest)
	}
	all, err := scan(ctx, b, name, log)
	if err != nil {
		return Entry{}, err
	}
	switch {
	case isID:
		return byID(all, ref, name)
	case isTime:
		return newest(ref, name, slices.DeleteFunc(all, func(e Entry) bool { return e.Time.After(at) }))
	}
	found, err := newest(ref, name, all)
	if err != nil {
		return Entry{}, err
	}
	return found, oneSystem(ctx, b, all, ref, found.Label, logger(log))
}

// byID finds the archive whose id starts with ref.
func byID(all []Entry, ref, name string) (Entry, error) {
	var matches []Entry
	incomplete := false
	for _, e := range all {
		switch {
		case !strings.HasPrefix(e.ID, ref):
		case e.Complete:
			matches = append(matches, e)
		default:
			incomplete = true
		}
	}
	switch {
	case len(matches) == 1:
		return matches[0], nil
	case len(matches) > 1:
		return Entry{}, &AmbiguousError{Ref: ref, Reason: "several ids start with it, give more of one", Matches: matches}
	case incomplete:
		return Entry{}, fmt.Errorf("%w: %q was never completed, it has no manifest; see `pgstow list --incomplete`", ErrNoArchive, ref)
	}
	return Entry{}, fmt.Errorf("%w: no id starts with %q%s; `pgstow list` shows them all", ErrNoArchive, ref, under(name))
}

// newest finds the last complete archive, all of them being of one label.
func newest(ref, name string, all []Entry) (Entry, error) {
	perLabel := map[string]Entry{}
	var found Entry
	for _, e := range all {
		if e.Complete {
			perLabel[e.Label] = e
			found = e
		}
	}
	switch len(perLabel) {
	case 0:
		return Entry{}, fmt.Errorf("%w: nothing fits %q%s; `pgstow list` shows them all", ErrNoArchive, ref, under(name))
	case 1:
		return found, nil
	}
	matches := make([]Entry, 0, len(perLabel))
	for _, e := range perLabel {
		matches = append(matches, e)
	}
	slices.SortFunc(matches, func(a, b Entry) int { return strings.Compare(a.Label, b.Label) })
	return Entry{}, &AmbiguousError{Ref: ref, Reason: "the bucket holds several labels, choose one with --name", Matches: matches}
}

// oneSystem refuses a label under which archives of different database
// systems lie: "latest" would take whichever ran last. Archives whose system
// is not known, or whose manifest cannot be read, do not count.
func oneSystem(ctx context.Context, b storage.Bucket, all []Entry, ref, label string, log *slog.Logger) error {
	all = slices.DeleteFunc(all, func(e Entry) bool { return !e.Complete || e.Label != label })
	if err := LoadManifests(ctx, b, all); err != nil {
		return fmt.Errorf("compare archives under %q: %w", label, err)
	}
	perSystem := map[string]Entry{}
	for _, e := range all {
		if e.Manifest == nil {
			log.Warn("manifest cannot be read", "key", e.Key, "error", e.ManifestError)
			continue
		}
		if id := e.Manifest.Source.SystemIdentifier; id != "" {
			origin := e.Manifest.Source.origin()
			e.Manifest = nil
			perSystem[origin] = e
		}
	}
	if len(perSystem) < 2 {
		return nil
	}
	matches := make([]Entry, 0, len(perSystem))
	for _, e := range perSystem {
		matches = append(matches, e)
	}
	slices.SortFunc(matches, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	return &AmbiguousError{
		Ref: ref, Matches: matches,
		Reason: fmt.Sprintf("archives of %d different databases lie under %q, give an id; the newest of each", len(matches), label),
	}
}

func under(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" under %q", name)
}

// parseTimeRef reads a point in time; without a zone it is UTC. A day alone
// means its end, so that its own archives count.
func parseTimeRef(ref string) (time.Time, bool) {
	if day, err := time.Parse(time.DateOnly, ref); err == nil {
		return day.AddDate(0, 0, 1).Add(-time.Nanosecond), true
	}
	for _, layout := range []string{
		"2006-01-02T15:04Z07:00", time.RFC3339, "2006-01-02T15:04", "2006-01-02T15:04:05", keyTime,
	} {
		if t, err := time.Parse(layout, ref); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
