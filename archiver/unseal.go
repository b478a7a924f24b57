package archiver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"

	"github.com/pgstow/pgstow/storage"
)

// ErrIdentity is of an encrypted object that no identity opens. Where some were
// given it is an ErrIntegrity, too: a stored header that somebody changed looks
// the same. Where none was, it is an ErrUsage.
var ErrIdentity = errors.New("not decrypted")

// identityError says whom something is encrypted to, and what to do.
type identityError struct {
	text  string
	class error
}

func notDecrypted(format string, args ...any) error {
	return &identityError{text: fmt.Sprintf(format, args...), class: ErrIntegrity}
}

func (e *identityError) Error() string { return e.text }

// Is makes it an ErrIdentity beside its class.
func (e *identityError) Is(target error) bool { return target == ErrIdentity || target == e.class }

// The parts of an age file: header, nonce, then chunks of one size; the last one
// may be shorter.
const (
	ageNonce  = 16
	ageChunk  = 64 << 10
	ageTag    = 16 // that encryption adds to each chunk
	ageSealed = ageChunk + ageTag
	// maxAgeHeader is more than age takes for one; usual ones fit into smallHeader.
	maxAgeHeader = 2<<20 + ageNonce
	smallHeader  = 64 << 10
)

// unsealer opens the encrypted objects of one archive.
type unsealer struct {
	bucket storage.Bucket
	entry  Entry
	ids    Identities
}

// header reads the header of an object's age file.
func (u unsealer) header(ctx context.Context, o *StoredObject, version string) ([]byte, error) {
	for _, length := range []int64{smallHeader, maxAgeHeader} {
		length = min(length, o.Size)
		body, err := u.bucket.Open(ctx, o.Key, storage.OpenOptions{Version: version, Length: length})
		if err != nil {
			return nil, missing(o.Key, err)
		}
		begin, err := io.ReadAll(io.LimitReader(body, length))
		_ = body.Close() // only read
		if err != nil {
			return nil, err
		}
		header, err := age.ExtractHeader(bytes.NewReader(begin))
		switch {
		case err == nil && bytes.HasPrefix(begin, header):
			return header, nil
		case length == o.Size || length == maxAgeHeader:
			return nil, integrity("%s: it has no header of an age file: %w", o.Key, err)
		}
	}
	return nil, integrity("%s: it has no header of an age file", o.Key)
}

// fileKey is what an object's age file is encrypted with, by its own header or by
// one that rekey has put beside it.
func (u unsealer) fileKey(ctx context.Context, o *StoredObject, header []byte) ([]byte, error) {
	if u.ids.IsZero() {
		return nil, &identityError{class: ErrUsage, text: fmt.Sprintf("%s is encrypted to %s; give --identity FILE with the private key of one of them",
			o.Key, briefly(o.recipients))}
	}
	key, own := u.ids.open(header)
	if own == nil || !errors.Is(own, ErrIdentity) && !errors.Is(own, ErrUsage) {
		return key, named(o.Key, own)
	}
	// Also after one that wanted a passphrase and got none: another may be there.
	key, others, err := u.rekeyed(ctx, o, header)
	switch {
	case key != nil:
		return key, nil
	case errors.Is(own, ErrUsage):
		return nil, named(o.Key, own)
	case err != nil:
		return nil, err
	}
	return nil, notDecrypted("%s is encrypted to %s, and none of the identities given is the private key of one; give that with --identity",
		o.Key, briefly(append(others, o.recipients...)))
}

func named(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", key, err)
}

// open tries the identities one after another: one that cannot be asked for its
// passphrase does not stand in the way of the others. ErrIdentity alone: the
// header is for none of them.
func (i Identities) open(header []byte) ([]byte, error) {
	if i.ask != nil { // some remember a passphrase, and guard that by nothing
		i.ask.opening.Lock()
		defer i.ask.opening.Unlock()
	}
	var failure error
	for _, id := range i.list {
		t := &triedIdentity{Identity: id}
		key, err := age.DecryptHeader(header, t)
		var other *age.NoIdentityMatchError
		switch {
		case err == nil:
			return key, nil
		case errors.As(err, &other):
		case t.err != nil && asks(id):
			failure = fmt.Errorf("%w: identity: %w", ErrUsage, t.err)
		default:
			return nil, integrity("its age header was changed: %w", err)
		}
	}
	if failure != nil {
		return nil, failure
	}
	return nil, ErrIdentity
}

// triedIdentity remembers what an identity said itself.
type triedIdentity struct {
	age.Identity
	err error
}

func (t *triedIdentity) Unwrap(stanzas []*age.Stanza) (key []byte, err error) {
	key, t.err = t.Identity.Unwrap(stanzas)
	return key, t.err
}

// asks tells identities that can fail for themselves from those that only
// calculate.
func asks(id age.Identity) bool {
	switch id.(type) {
	case *plugin.Identity, *agessh.EncryptedSSHIdentity, *lockedIdentities:
		return true
	}
	return false
}

// readPlain reads a small object that a manifest names whole, compares it, and
// decrypts it if it is encrypted.
func readPlain(ctx context.Context, b storage.Bucket, e Entry, o *StoredObject, ids Identities) ([]byte, error) {
	raw, err := readStored(ctx, b, o)
	if err != nil || !o.Encrypted() {
		return raw, err
	}
	header, err := age.ExtractHeader(bytes.NewReader(raw))
	if err != nil {
		return nil, integrity("%s: it has no header of an age file: %w", o.Key, err)
	}
	key, err := unsealer{bucket: b, entry: e, ids: ids}.fileKey(ctx, o, header)
	if err != nil {
		return nil, err
	}
	sealed, err := age.Decrypt(bytes.NewReader(raw), age.NewInjectedFileKeyIdentity(key))
	var plain []byte
	if err == nil {
		plain, err = io.ReadAll(io.LimitReader(sealed, o.Plain.Size+1))
	}
	switch {
	case err != nil:
		return nil, integrity("%s: decrypt: %w", o.Key, err)
	case int64(len(plain)) != o.Plain.Size || hexSum(plain) != o.Plain.SHA256:
		return nil, integrity("%s: what is in it differs from its size or SHA-256 in the manifest", o.Key)
	}
	return plain, nil
}

// openDump opens the dump of an archive for reading stretches of it. Of an
// encrypted one header and last chunk are read, once for all readers.
func openDump(ctx context.Context, b storage.Bucket, e Entry, m *Manifest, ids Identities) (rangeOpener, error) {
	o := m.Objects.Dump
	stored := storedDump{bucket: b, key: o.Key, version: o.Version}
	if stored.version == "" {
		stored.version = e.version(o.Key[len(e.dir().String()):])
	}
	if !o.Encrypted() {
		return stored, nil
	}
	if err := stored.checkSize(ctx, o.Size); err != nil {
		return nil, err
	}
	u := unsealer{bucket: b, entry: e, ids: ids}
	header, err := u.header(ctx, &o, stored.version)
	if err != nil {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	key, err := u.fileKey(ctx, &o, header)
	if err != nil {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	d := &sealedDump{storedDump: stored, size: o.Size, id: age.NewInjectedFileKeyIdentity(key), payload: int64(len(header)) + ageNonce}
	return d, d.begin(ctx, header, o.Plain.Size)
}

// sealedDump is a dump in an age file.
type sealedDump struct {
	storedDump
	size    int64 // of the age file
	plain   int64 // of the dump in it
	payload int64 // where the chunks begin
	id      age.Identity

	front  []byte // header and nonce
	last   []byte // the last chunk
	lastAt int64  // its offset
}

// begin reads what every reader needs, and proves the size of the dump by it.
func (d *sealedDump) begin(ctx context.Context, header []byte, plain int64) error {
	body := d.size - d.payload
	if body < ageTag {
		return integrity("%s: the age file is truncated", d.key)
	}
	d.lastAt = d.payload + (body-1)/ageSealed*ageSealed
	nonce, err := d.read(ctx, int64(len(header)), ageNonce)
	if err != nil {
		return err
	}
	if d.last, err = d.read(ctx, d.lastAt, d.size-d.lastAt); err != nil {
		return err
	}
	d.front = append(bytes.Clone(header), nonce...)
	if _, d.plain, err = age.DecryptReaderAt(&ageChunks{dump: d}, d.size, d.id); err != nil {
		return integrity("%s: the age file is truncated or was changed: %w", d.key, err)
	}
	if d.plain != plain {
		return integrity("%s: %d bytes are in it, the manifest says %d", d.key, d.plain, plain)
	}
	return nil
}

// read reads a small piece of the age file.
func (d *sealedDump) read(ctx context.Context, offset, length int64) ([]byte, error) {
	body, err := d.storedDump.openRange(ctx, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	p := make([]byte, length)
	if _, err := io.ReadFull(body, p); err != nil {
		return nil, fmt.Errorf("read dump: %w", truncated(d.key, err))
	}
	return p, nil
}

// truncated gives the end of what was read its class.
func truncated(key string, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return integrity("%s: it ends before its size is reached", key)
	}
	return err
}

// openRange asks the store for the chunks that the stretch lies in, all of them
// at once: they are decrypted as they come.
func (d *sealedDump) openRange(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if length == 0 {
		length = d.plain - offset
	}
	if offset < 0 || length < 0 || offset > d.plain || length > d.plain-offset {
		return nil, integrity("%s: bytes %d to %d are not in it", d.key, offset, offset+length)
	}
	chunks := &ageChunks{dump: d}
	if length > 0 {
		chunks.at = d.payload + offset/ageChunk*ageSealed
		// The last chunk is there already.
		end := min(d.payload+((offset+length-1)/ageChunk+1)*ageSealed, d.lastAt)
		if end > chunks.at {
			var err error
			if chunks.body, err = d.storedDump.openRange(ctx, chunks.at, end-chunks.at); err != nil {
				return nil, err
			}
		}
	}
	plain, _, err := age.DecryptReaderAt(chunks, d.size, d.id)
	if err != nil {
		return nil, errors.Join(integrity("%s: %w", d.key, err), chunks.Close())
	}
	// Each ReadAt makes a buffer for a chunk: a few chunks at a time.
	const some = 8 * ageChunk
	return &sealedRange{Reader: bufio.NewReaderSize(io.NewSectionReader(plain, offset, length), some), chunks: chunks}, nil
}

// sealedRange is a stretch of a dump, decrypted.
type sealedRange struct {
	*bufio.Reader
	chunks *ageChunks
}

func (r *sealedRange) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case r.chunks.err != nil:
		return n, r.chunks.err
	}
	return n, integrity("%s: %w", r.chunks.dump.key, err)
}

func (r *sealedRange) Close() error { return r.chunks.Close() }

// ageChunks is an age file as DecryptReaderAt reads it for one stretch: what it
// always wants first is in memory, and the chunks of the stretch come one after
// another.
type ageChunks struct {
	dump *sealedDump
	body io.ReadCloser
	at   int64 // where body stands
	err  error // of the store
}

// ReadAt implements io.ReaderAt as far as that is needed.
func (c *ageChunks) ReadAt(p []byte, off int64) (int, error) {
	d := c.dump
	switch {
	case c.err != nil:
		return 0, c.err
	case off < d.payload:
		if n := copy(p, d.front[off:]); n < len(p) {
			return n, io.EOF // more than header and nonce is wanted by nobody's need
		}
		return len(p), nil
	case off >= d.lastAt:
		n := copy(p, d.last[min(off-d.lastAt, int64(len(d.last))):])
		if n < len(p) {
			return n, io.EOF
		}
		return n, nil
	case c.body == nil || off != c.at:
		c.err = fmt.Errorf("%s: offset %d is read out of turn", d.key, off)
		return 0, c.err
	}
	n, err := io.ReadFull(c.body, p)
	c.at += int64(n)
	if err != nil {
		c.err = truncated(d.key, err)
	}
	return n, c.err
}

// Close ends the request to the store.
func (c *ageChunks) Close() error {
	if c.body == nil {
		return nil
	}
	return c.body.Close()
}
