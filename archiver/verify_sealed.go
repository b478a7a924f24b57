package archiver

import (
	"context"
	"fmt"
	"io"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"
)

// An age file is read once, too: in order, since its hash is, and what is in it goes to
// the lanes as it is decrypted. A part of it that does not decrypt is zeros to them, so
// that the tables in it are found to be damaged, and no others.

// chunkSource delivers chunks in order, io.EOF behind the last.
type chunkSource interface {
	next(ctx context.Context) (*chunk, error)
}

// plainChunks are those of what is in an age file.
type plainChunks chan *chunk

func (p plainChunks) next(ctx context.Context) (*chunk, error) {
	select {
	case c, open := <-p:
		switch {
		case open:
			return c, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		return nil, io.EOF
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// plainChunk is decrypted before it goes to the lanes: whole chunks of age's.
const plainChunk = 16 * ageChunk

// unseal decrypts the age file that ahead reads.
func (p *dumpPass) unseal(ctx context.Context, g *errgroup.Group, ahead *readAhead, chunks int) plainChunks {
	out, free := make(plainChunks, chunks), make(chan *chunk, chunks)
	for range chunks {
		free <- &chunk{free: free}
	}
	file := &sealedFile{pass: p, next: func() (*chunk, error) { return ahead.next(ctx) }}
	g.Go(func() error {
		defer close(out)
		plain, err := file.open(p.unsealed)
		if err != nil {
			return err
		}
		for at := int64(0); at < p.unsealed.plain; {
			var c *chunk
			select {
			case c = <-free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if c.data == nil {
				c.data = make([]byte, plainChunk)
			}
			c.offset, c.data = at, c.data[:min(plainChunk, p.unsealed.plain-at)]
			if err := file.decrypt(plain, c); err != nil {
				return err
			}
			c.refs.Store(1)
			at += int64(len(c.data))
			out <- c // there is room for all chunks
		}
		_, err = io.Copy(io.Discard, file) // the hash is that of the whole file
		return err
	})
	return out
}

// sealedFile delivers the bytes of an age file in order and takes their hash.
type sealedFile struct {
	pass   *dumpPass
	next   func() (*chunk, error)
	now    *chunk
	rest   []byte
	err    error
	chunks *ageChunks
}

// open goes to the first chunk of age's.
func (f *sealedFile) open(d *sealedDump) (io.ReaderAt, error) {
	if _, err := io.CopyN(io.Discard, f, d.payload); err != nil {
		return nil, err
	}
	f.chunks = &ageChunks{dump: d, at: d.payload, body: io.NopCloser(f)}
	plain, _, err := age.DecryptReaderAt(f.chunks, d.size, d.id)
	if err != nil {
		return nil, integrity("%s: %w", d.key, err)
	}
	return plain, nil
}

// decrypt fills a chunk.
func (f *sealedFile) decrypt(plain io.ReaderAt, c *chunk) error {
	for done := 0; done < len(c.data); {
		n, err := plain.ReadAt(c.data[done:], c.offset+int64(done))
		done += n
		switch {
		case err == nil || err == io.EOF:
		case f.chunks.err != nil:
			return f.chunks.err
		default:
			if f.pass.damaged == "" {
				f.pass.damaged = fmt.Sprintf("what is in it does not decrypt from byte %d on", c.offset+int64(done))
			}
			end := min(done+ageChunk, len(c.data))
			clear(c.data[done:end])
			done = end
		}
	}
	return nil
}

func (f *sealedFile) Read(b []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.now != nil {
			f.now.release()
			f.now = nil
		}
		if f.err != nil {
			return 0, f.err
		}
		if f.now, f.err = f.next(); f.err != nil {
			return 0, f.err
		}
		f.rest = f.now.data
		f.pass.stored.Write(f.rest)
		f.pass.n.Add(int64(len(f.rest)))
		f.pass.progress.read(len(f.rest))
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}
