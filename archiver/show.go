package archiver

import (
	"context"
	"errors"

	"github.com/pgstow/pgstow/storage"
)

// ShowResult is one archive with its manifest and index, both checked.
type ShowResult struct {
	Entry          Entry     `json:"entry"`
	Manifest       *Manifest `json:"manifest"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	Index          *Index    `json:"index,omitempty"` // nil for an archive of an unknown version
}

// Show reads manifest and index of the archive that ref names.
func Show(ctx context.Context, b storage.Bucket, ref, name string) (*ShowResult, error) {
	return nil, errors.ErrUnsupported
}
