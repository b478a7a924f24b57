package archiver

import (
	"context"
	"log/slog"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/storage"
)

// Outcomes of a Check.
const (
	CheckOK   = "ok"
	CheckWarn = "warn"
	CheckFail = "fail"
)

// Check is one thing that Doctor looked at.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"` // what to do, when not ok
	Err    error  `json:"-"`                // the failure, for the exit code
}

// DoctorOptions choose what Doctor looks at.
type DoctorOptions struct {
	// Conn is the source; nil leaves the database out.
	Conn *dumper.Conn
	// OpenBucket opens the bucket, Doctor closes it; nil leaves it out.
	OpenBucket  func(ctx context.Context) (storage.Bucket, error)
	PGBin       string
	AllowPooler bool
	Log         *slog.Logger
}

// Doctor checks tools, database and bucket as an archive would use them, and
// goes on after a failure where that makes sense. It writes one tiny object
// under a key of pgstow's own and removes it again.
func Doctor(ctx context.Context, opts DoctorOptions) []Check {
	return nil
}
