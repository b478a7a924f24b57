package archiver

import (
	"context"
	"errors"
	"log/slog"

	"github.com/pgstow/pgstow/dumper"
)

// CloneOptions choose what Clone copies, and where to.
type CloneOptions struct {
	From, To    dumper.Conn
	PGBin       string
	AllowPooler bool
	// DumpArgs are further options for pg_dump.
	DumpArgs []string
	// Restore are the options of pg_restore.
	Restore dumper.RestoreOptions
	// Globals copies roles and tablespaces first.
	Globals bool
	// IntoNonempty allows a target that already holds user tables.
	IntoNonempty bool

	Log      *slog.Logger
	Progress func(Progress)
}

// CloneResult is a clone that ended well.
type CloneResult struct {
	Source   Source                `json:"source"`
	Target   string                `json:"target"`
	Bytes    int64                 `json:"bytes"`
	Totals   Totals                `json:"totals"`
	Globals  *dumper.GlobalsResult `json:"globals,omitempty"`
	Errors   []string              `json:"errors,omitempty"` // that KeepGoing let pass
	Warnings []string              `json:"warnings,omitempty"`
}

// Clone pipes a dump of From into a restore of To, with no bucket between. A
// dump that fails or is incomplete fails the restore.
func Clone(ctx context.Context, opts CloneOptions) (*CloneResult, error) {
	return nil, errors.ErrUnsupported
}
