package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/storage"
)

// RestoreOptions choose what Restore reads, and where it goes.
type RestoreOptions struct {
	Bucket storage.Bucket
	// Ref is an id, a unique prefix of one, "latest" or a time; Name the label
	// it is looked up under. See Resolve.
	Ref, Name string

	// Output, when set, receives the plain archive; then there is no target
	// database and everything below but Log and Progress is ignored. What was
	// written is whole and proved only when Restore returns no error.
	Output io.Writer

	Conn  dumper.Conn
	PGBin string
	// Restore are the options of pg_restore.
	Restore dumper.RestoreOptions
	// Globals runs the archive's roles and tablespaces first.
	Globals bool
	// IntoNonempty allows a target that already holds user tables.
	IntoNonempty bool

	Log      *slog.Logger
	Progress func(Progress)
}

// RestoreResult is a restore that ended well.
type RestoreResult struct {
	Manifest *Manifest             `json:"manifest"`
	Bytes    int64                 `json:"bytes"` // of the dump read
	Target   string                `json:"target,omitempty"`
	PgTool   string                `json:"pg_restore,omitempty"` // version
	Globals  *dumper.GlobalsResult `json:"globals,omitempty"`
	// Errors are those that KeepGoing let pass, one line each. A caller that
	// finds some reports the restore as failed (exit 10).
	Errors   []string `json:"errors,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Restore streams an archive into a database, or as a plain archive to
// Output. The manifest's key, the index's and the head's hashes are checked
// before pg_restore gets a byte, and the last bytes of each data block are
// held back until the block's hash has matched.
//
// The target is inspected before any SQL runs: what it lacks is a
// *LacksError (dumper.ErrPreflight), and one that holds user tables is
// dumper.ErrTargetInUse unless Clean or IntoNonempty is set.
func Restore(ctx context.Context, opts RestoreOptions) (*RestoreResult, error) {
	return nil, errors.ErrUnsupported
}

// LacksError says what the target needs and has not. Its Error is one line;
// Lacks has the rest, one line each with its cure, for the caller to print.
type LacksError struct {
	Target string
	Lacks  []dumper.Lack
}

func (e *LacksError) Error() string {
	kinds := map[string]int{}
	var order []string
	for _, l := range e.Lacks {
		if kinds[l.Kind] == 0 {
			order = append(order, l.Kind)
		}
		kinds[l.Kind]++
	}
	for i, k := range order {
		order[i] = fmt.Sprintf("%s: %d", k, kinds[k])
	}
	return fmt.Sprintf("%s: %s lacks what the archive needs (%s); nothing was changed",
		dumper.ErrPreflight, e.Target, strings.Join(order, ", "))
}

// Unwrap makes the error a dumper.ErrPreflight.
func (e *LacksError) Unwrap() error { return dumper.ErrPreflight }

// Lines are the lacks, one line each with its cure.
func (e *LacksError) Lines() []string {
	lines := make([]string, len(e.Lacks))
	for i, l := range e.Lacks {
		lines[i] = fmt.Sprintf("%s %q is missing: %s", l.Kind, l.Name, l.Cure)
	}
	return lines
}
