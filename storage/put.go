package storage

import (
	"bytes"
	"context"
)

// PutBytes creates a small object from memory. It sets opts.Size, so that the
// store can take it in one request.
func PutBytes(ctx context.Context, b Bucket, key string, data []byte, opts PutOptions) (Object, error) {
	opts.Size = int64(len(data))
	return b.Put(ctx, key, bytes.NewReader(data), opts)
}
