package archiver

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Sentinels that callers decide on, beside those of packages storage and
// dumper. Every failed use case wraps at most one exit class: where an error
// says that content is damaged, it is ErrIntegrity, whatever layer saw it.
var (
	// ErrNoArchive: no complete archive fits the reference (exit 12).
	ErrNoArchive = errors.New("no such archive")
	// ErrAmbiguous: several archives fit the reference (exit 2). The matches
	// are in an *AmbiguousError.
	ErrAmbiguous = errors.New("ambiguous archive reference")
	// ErrIntegrity: stored content is damaged, missing or not what its
	// manifest says (exit 14).
	ErrIntegrity = errors.New("integrity")
	// ErrFormat: a manifest or index of a newer major format (exit 2).
	ErrFormat = errors.New("written by a newer pgstow")
	// ErrRefused: what is asked for would weaken how an archive is kept, or rests
	// on archives that do not belong together, or somebody's lifecycle rule stands
	// against it; nothing was changed (exit 13).
	ErrRefused = errors.New("refused")
	// ErrUsage: an option's value is refused (exit 2).
	ErrUsage = errors.New("refused option")
)

// AmbiguousError lists the archives that a reference fits.
type AmbiguousError struct {
	Ref     string
	Reason  string
	Matches []Entry
}

// Error names the matches on one line, the first few of them.
func (e *AmbiguousError) Error() string {
	const most = 5
	var names []string
	for i, m := range e.Matches {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(e.Matches)-most))
			break
		}
		names = append(names, fmt.Sprintf("%s (%s, %s)", m.ID, m.Label, m.Time.Format("2006-01-02T15:04:05Z")))
	}
	return fmt.Sprintf("%s %q: %s: %s", ErrAmbiguous, e.Ref, e.Reason, strings.Join(names, ", "))
}

// Unwrap makes the error an ErrAmbiguous.
func (e *AmbiguousError) Unwrap() error { return ErrAmbiguous }

// LeftoverError is a failed archive whose objects could not all be removed.
// It unwraps to the cause alone, so that a failed removal never changes the
// class of the failure.
type LeftoverError struct {
	Err     error    // what made the archive fail
	Keys    []string // what may still be stored, whole or as an unfinished upload
	Removal error    // why objects are; nil when only an upload is, which Err tells
}

func (e *LeftoverError) Error() string {
	if e.Removal == nil {
		return e.Err.Error()
	}
	why := oneLine(e.Removal)
	for _, key := range e.Keys {
		if !strings.Contains(why, key) && !strings.Contains(e.Err.Error(), key) {
			why += ", " + key
		}
	}
	return fmt.Sprintf("%s; not removed, see `pgstow list --incomplete`: %s", e.Err, why)
}

// Unwrap gives the cause.
func (e *LeftoverError) Unwrap() error { return e.Err }

// CommittedError is what went wrong with an archive after it was committed: it
// exists, whole and listed, and nothing of it was removed.
type CommittedError struct {
	ID  string
	Err error
}

func (e *CommittedError) Error() string {
	return fmt.Sprintf("%s; archive %s was made all the same and stays, see `pgstow show %s`", e.Err, e.ID, e.ID)
}

// Unwrap gives the cause.
func (e *CommittedError) Unwrap() error { return e.Err }

// integrity marks err as a finding about stored content.
func integrity(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrIntegrity, fmt.Errorf(format, args...))
}

// causeOf prefers the reason a context was ended for over the errors that
// follow from its end, so that a stall is reported as a stall.
func causeOf(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// oneLine is the text of err, several joined errors with semicolons between.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "; ")
}
