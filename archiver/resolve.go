package archiver

import (
	"context"
	"errors"

	"github.com/pgstow/pgstow/storage"
)

// Latest is the reference to the newest archive of a label.
const Latest = "latest"

// Resolve finds the one complete archive that ref names: an id, a unique
// prefix of one, "latest", or a time ("2026-11-22" means its end,
// "2026-11-22T14:00Z"; the newest archive started at or before it counts).
// name restricts the search to one label; "latest" and times need it when the
// bucket holds several labels. "latest" refuses a label under which archives
// of different database systems lie.
func Resolve(ctx context.Context, b storage.Bucket, ref, name string) (Entry, error) {
	return Entry{}, errors.ErrUnsupported
}
