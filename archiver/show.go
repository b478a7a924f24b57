package archiver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

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
	e, err := Resolve(ctx, b, ref, name)
	if err != nil {
		return nil, err
	}
	m, raw, err := readManifest(ctx, b, e)
	if err != nil {
		return nil, err
	}
	ix, err := readIndex(ctx, b, m)
	if err != nil {
		return nil, err
	}
	return &ShowResult{Entry: e, Manifest: m, ManifestSHA256: hexSum(raw), Index: ix}, nil
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
