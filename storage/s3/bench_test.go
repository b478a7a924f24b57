package s3

import (
	"io"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// BenchmarkPut streams 1 GiB to a local server over plain http, with and without
// the SHA-256 that a signed payload costs.
func BenchmarkPut(b *testing.B) {
	const total = 1 * gib
	chunk := noise(16 * mib)
	for server, start := range servers {
		for name, signed := range map[string]bool{"unsigned": false, "signed": true} {
			b.Run(server+"/"+name, func(b *testing.B) {
				srv := start(b)
				cfg := testConfig(srv, srv.NewBucket(b, testenv.BucketOptions{}))
				cfg.PartSize, cfg.MemoryBudget = 0, 0
				bucket := mustOpen(b, cfg)
				bucket.signPayload.Store(signed)
				b.SetBytes(total)
				for i := 0; b.Loop(); i++ {
					left, at := int64(total), 0
					src := readerFunc(func(p []byte) (int, error) {
						if left == 0 {
							return 0, io.EOF
						}
						n := copy(p, chunk[at:])
						at = (at + n) % len(chunk)
						n = int(min(int64(n), left))
						left -= int64(n)
						return n, nil
					})
					if _, err := bucket.Put(b.Context(), string(rune('a'+i)), src, storage.PutOptions{SizeEstimate: total}); err != nil {
						b.Fatal(err)
					}
					if bucket.signPayload.Load() != signed {
						b.Fatal("the server insists on a signed payload")
					}
				}
			})
		}
	}
}
