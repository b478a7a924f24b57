package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
)

// content is the seeded stream that belongs to a key, so that two objects
// never hold the same bytes and any object can be checked without keeping it.
func (c *suite) content(key string, size int64) io.Reader {
	h := fnv.New64a()
	h.Write([]byte(key))
	return newContent(c.seed^h.Sum64(), size)
}

func newContent(seed uint64, size int64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return io.LimitReader(rand.NewChaCha8(key), size)
}

// bytesOf is the content of a small object.
func (c *suite) bytesOf(key string, size int64) []byte {
	data, _ := io.ReadAll(c.content(key, size))
	return data
}

// failAfter delivers what r holds and then err once. After that it answers
// io.EOF, like a pipe that was closed behind an error: whoever reads on after
// an error and takes that for the end commits half an object.
type failAfter struct {
	r        io.Reader
	err      error
	withData bool // err comes together with the last bytes
	failed   bool
}

func (f *failAfter) Read(p []byte) (int, error) {
	if f.failed {
		return 0, io.EOF
	}
	n, err := f.r.Read(p)
	if f.withData && err == nil {
		if f.ended() {
			err = io.EOF
		}
	}
	if err == io.EOF {
		f.failed, err = true, f.err
	}
	return n, err
}

// ended looks one byte ahead, which stays available.
func (f *failAfter) ended() bool {
	var one [1]byte
	n, _ := io.ReadFull(f.r, one[:])
	if n == 0 {
		return true
	}
	f.r = io.MultiReader(bytes.NewReader(one[:]), f.r)
	return false
}

// spy is the source given to every Put. It notices what the contract forbids:
// closing, seeking, shortcuts behind the reader's back, reads from two
// goroutines at once, reads after Put has returned.
type spy struct {
	r        io.Reader
	onRead   func(before int64) // called before each Read, may be nil
	n        atomic.Int64       // bytes read
	reads    atomic.Int64
	busy     atomic.Bool
	returned atomic.Bool

	mu       sync.Mutex
	offences []string
}

func (s *spy) offend(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offences = append(s.offences, what)
}

func (s *spy) Read(p []byte) (int, error) {
	if !s.busy.CompareAndSwap(false, true) {
		s.offend("read by two goroutines at once")
	}
	defer s.busy.Store(false)
	if s.returned.Load() {
		s.offend("read after Put had returned")
	}
	if len(p) == 0 {
		return 0, nil
	}
	if s.onRead != nil {
		s.onRead(s.n.Load())
	}
	s.reads.Add(1)
	n, err := s.r.Read(p)
	s.n.Add(int64(n))
	return n, err
}

var errForbidden = errors.New("storagetest: Put may only Read")

func (s *spy) Close() error { s.offend("closed"); return nil }

func (s *spy) Seek(int64, int) (int64, error) { s.offend("seeked"); return 0, errForbidden }

func (s *spy) ReadAt([]byte, int64) (int, error) {
	s.offend("read through ReaderAt")
	return 0, errForbidden
}

func (s *spy) WriteTo(io.Writer) (int64, error) {
	s.offend("read through WriterTo")
	return 0, errForbidden
}

func (s *spy) Len() int { s.offend("asked for Len"); return 0 }

// sameBytes compares two streams and says where they part.
func sameBytes(got, want io.Reader) error {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	var at int64
	for {
		n, err := io.ReadFull(got, a)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("reading at byte %d: %w", at+int64(n), err)
		}
		m, _ := io.ReadFull(want, b)
		if !bytes.Equal(a[:n], b[:m]) {
			i := 0
			for i < min(n, m) && a[i] == b[i] {
				i++
			}
			if i == n || i == m {
				return fmt.Errorf("the lengths differ: one ends at byte %d, the other goes on", at+int64(i))
			}
			return fmt.Errorf("the content differs at byte %d", at+int64(i))
		}
		if n < len(a) {
			return nil
		}
		at += int64(n)
	}
}

// quoted lists names for a message.
func quoted(names []string) string {
	return "[" + strings.Join(names, ", ") + "]"
}
