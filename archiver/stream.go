package archiver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// dumpSource is an archive that passes: a pgarchive.Packer, or a Scanner where
// nothing is asked of the content. Its io.EOF says that the archive is complete.
type dumpSource interface {
	io.Reader
	Head() (*pgarchive.Head, error)
	HeadSize() int64
	HeadBytes() []byte
	PatchedHead() ([]byte, error)
	Blocks() []pgarchive.Block
	Passing() pgarchive.Passing
}

// dumpStream is the reader that an upload of a dump reads: hashed on the way,
// with the head first or, where the store takes it last, without it. It ends
// in io.EOF only when pg_dump exited 0 and its archive is complete.
type dumpStream struct {
	begin    func() (dumpSource, func() error, error)
	deferred bool
	progress *tracker
	// weigh makes the meter of a head; nil when nobody looks.
	weigh func(*pgarchive.Head) *tableMeter
	meter *tableMeter

	source  dumpSource
	end     func() error // ends pg_dump
	known   bool         // the archive's version: there are head and blocks
	parsed  *pgarchive.Head
	pending []byte // of a head that is not deferred, still to be delivered

	body    hash.Hash // over what Read delivers
	size    int64     // delivered by Read
	headLen int64
	headSum string
	err     error
}

// newDumpStream makes a stream whose first Read calls begin.
func newDumpStream(deferred bool, p *tracker, begin func() (dumpSource, func() error, error)) *dumpStream {
	return &dumpStream{begin: begin, deferred: deferred, progress: p, body: sha256.New()}
}

// open starts pg_dump and reads the head, unless that was done.
func (d *dumpStream) open() error {
	if d.source == nil && d.err == nil {
		d.err = d.start()
	}
	return d.err
}

func (d *dumpStream) start() error {
	source, end, err := d.begin()
	if err != nil {
		return err
	}
	d.source, d.end = source, end
	d.parsed, err = source.Head()
	if errors.Is(err, pgarchive.ErrUnknownVersion) {
		return nil
	}
	if err != nil {
		return err
	}
	d.known = true
	if d.weigh != nil {
		d.meter = d.weigh(d.parsed)
	}
	d.headLen = source.HeadSize()
	if !d.deferred {
		d.pending = source.HeadBytes()
		d.headSum = hexSum(d.pending)
	}
	return nil
}

func (d *dumpStream) Read(p []byte) (n int, err error) {
	if err := d.open(); err != nil {
		return 0, err
	}
	if len(d.pending) > 0 {
		n = copy(p, d.pending)
		d.pending = d.pending[n:]
	} else if n, err = d.source.Read(p); err != nil && err != io.EOF {
		err = sourceFault(err)
	}
	d.body.Write(p[:n])
	d.size += int64(n)
	d.progress.read(n)
	d.progress.table(d.meter, d.source.Passing())
	d.err = err
	return n, err
}

// headSize and headBytes are the deferred head.
func (d *dumpStream) headSize() int64 { return d.headLen }

func (d *dumpStream) headBytes() ([]byte, error) {
	if !d.known {
		return nil, nil
	}
	head, err := d.source.PatchedHead()
	if err != nil {
		d.err = sourceFault(err)
		return nil, d.err
	}
	d.headSum = hexSum(head)
	d.progress.read(len(head))
	return head, nil
}

func (d *dumpStream) close() error {
	if d.end == nil {
		return nil
	}
	return d.end()
}

// sourceError stands for an error of the source while a driver has it. It
// unwraps to nothing there, so that no driver takes a fault of the source, such
// as the unknown outcome of another Put, for one of its own upload.
type sourceError struct {
	text string
	err  error
}

func (e *sourceError) Error() string { return e.text }
func (e *sourceError) Unwrap() error { return e.err }

func hideCause(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &sourceError{text: err.Error()}
}

// uploadReader is a dumpStream as a driver sees it, encrypted or not.
type uploadReader struct {
	io.Reader // the stream, or what encrypts it
	stream    *dumpStream
}

func (u uploadReader) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	return n, hideCause(err)
}

func (u uploadReader) headSize() int64 { return u.stream.headSize() }

func (u uploadReader) headBytes() ([]byte, error) {
	head, err := u.stream.headBytes()
	return head, hideCause(err)
}

// blame makes the failure of an upload that the source caused the source's
// again, with what the store adds behind it; all else is the store's.
func (d *dumpStream) blame(err error) error {
	var hidden *sourceError
	if !errors.As(err, &hidden) {
		return fmt.Errorf("store dump: %w", err)
	}
	text := err.Error()
	if i := strings.Index(text, hidden.text); i >= 0 {
		text = text[i:]
	}
	cause := d.err
	if remains := (*storage.UploadRemainsError)(nil); errors.As(err, &remains) {
		cause = errors.Join(cause, remains)
	}
	return &sourceError{text: text, err: cause}
}

// toEnd reads what pg_restore left unread, so that pg_dump's exit and the
// completeness of its archive count in any case.
func (d *dumpStream) toEnd() error {
	if d.err == io.EOF {
		return nil
	}
	_, err := io.Copy(io.Discard, struct{ io.Reader }{d})
	return err
}

// storedObject describes the dump as it was sent, with the store's version and
// checksum.
func (d *dumpStream) storedObject(key string, o storage.Object) StoredObject {
	so := StoredObject{Key: key, Version: o.Version, Size: d.size, Checksum: checksumOf(o)}
	sum := hex.EncodeToString(d.body.Sum(nil))
	if d.known {
		so.Head = &Range{Length: d.headLen, SHA256: d.headSum}
	}
	if d.known && d.deferred {
		so.Size += d.headLen
		so.Body = &Range{Length: d.size, SHA256: sum}
	} else {
		so.SHA256 = sum
	}
	return so
}

func checksumOf(o storage.Object) *storage.Checksum {
	if o.Checksum == (storage.Checksum{}) {
		return nil
	}
	return &o.Checksum
}
