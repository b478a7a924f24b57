package storagetest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// MemoryOptions choose what a Memory bucket can do.
type MemoryOptions struct {
	PartSize int64 // of the requests it plays, 0 is 64 KiB
	Versions bool  // keep old versions and delete markers
	Lock     bool  // retention and legal hold; needs Versions
	// CustomTime makes PutOptions.CustomTime work.
	CustomTime bool
	// DefaultRetention keeps objects that ask for no retention; needs Lock.
	DefaultRetention storage.DefaultRetention
	// Lifecycle is what lifecycle rules can say; nil is a store without.
	Lifecycle *storage.LifecycleFeatures
}

// Memory is the reference bucket: the contract in memory, with every optional
// part. It passes the suite and serves other packages' tests as a store whose
// faults can be chosen.
type Memory struct {
	opts MemoryOptions

	mu      sync.Mutex
	objects map[string][]memoryObject // newest last
	uploads map[string]storage.Upload // by ID
	next    int                       // version and upload numbers
	cut     int64                     // bodies break after so many bytes, 0 never
	sent    int64                     // bytes handed to readers
	frozen  chan struct{}             // closed when it thaws, nil when it is not frozen

	rules    []storage.LifecycleRule
	revision int // of rules
}

type memoryObject struct {
	storage.Object
	data     []byte
	thawDays int
}

var (
	_ storage.Bucket           = (*Memory)(nil)
	_ storage.UploadSweeper    = (*Memory)(nil)
	_ storage.RetentionSetter  = (*Memory)(nil)
	_ storage.CustomTimeSetter = (*Memory)(nil)
	_ storage.Thawer           = (*Memory)(nil)
)

// NewMemory gives an empty bucket.
func NewMemory(opts MemoryOptions) *Memory {
	opts.PartSize = cmp.Or(opts.PartSize, 64<<10)
	return &Memory{opts: opts, objects: map[string][]memoryObject{}, uploads: map[string]storage.Upload{}}
}

// Cut breaks bodies after so many bytes, 0 ends it.
func (m *Memory) Cut(after int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = after
}

// Received counts the bytes that readers got.
func (m *Memory) Received() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent
}

// Freeze makes Puts accept no part until thaw is called.
func (m *Memory) Freeze() (thaw func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	frozen := make(chan struct{})
	m.frozen = frozen
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.frozen = nil
		close(frozen)
	})
}

func memoryError(op, key string, kind error, format string, args ...any) error {
	return &storage.Error{Op: op, Key: key, Kind: kind, Err: fmt.Errorf(format, args...)}
}

func checkKey(op, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return &storage.Error{Op: op, Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	return nil
}

// Capabilities implements storage.Bucket.
func (m *Memory) Capabilities() storage.Capabilities {
	return storage.Capabilities{Versions: m.opts.Versions, DeferredHead: true, ObjectLock: m.opts.Lock,
		LegalHold: m.opts.Lock, Tags: true, StorageClass: true, Encryption: true, CustomTime: m.opts.CustomTime,
		DefaultRetention: m.opts.DefaultRetention}
}

// Close implements storage.Bucket.
func (m *Memory) Close() error { return nil }

// Put implements storage.Bucket.
func (m *Memory) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if err := checkKey("put", key); err != nil {
		return storage.Object{}, err
	}
	if err := m.checkOptions(opts); err != nil {
		return storage.Object{}, memoryError("put", key, errors.ErrUnsupported, "%w", err)
	}
	p := &memoryPut{m: m, key: key, opts: opts}
	o, err := p.run(ctx, r)
	if err != nil {
		var e *storage.Error
		if !errors.As(err, &e) {
			err = &storage.Error{Op: "put", Key: key, Err: err}
		}
		return storage.Object{}, err
	}
	return o, nil
}

// memoryPut is one Put under way.
type memoryPut struct {
	m        *Memory
	key      string
	opts     storage.PutOptions
	id       string
	progress storage.Progress
	data     []byte
}

func (p *memoryPut) report(change func(*storage.Progress)) {
	change(&p.progress)
	if p.opts.Progress != nil {
		p.opts.Progress(p.progress)
	}
}

func (p *memoryPut) run(ctx context.Context, r io.Reader) (storage.Object, error) {
	p.report(func(g *storage.Progress) { g.Opening = true })
	if err := p.m.accept(ctx); err != nil {
		return storage.Object{}, err
	}
	p.begin()
	defer p.end()
	p.report(func(g *storage.Progress) { g.Opening = false })
	if err := p.body(ctx, r); err != nil {
		return storage.Object{}, err
	}
	if p.opts.Size > 0 && int64(len(p.data)) != p.opts.Size {
		return storage.Object{}, fmt.Errorf("the source has %d bytes, %d were announced", len(p.data), p.opts.Size)
	}
	if ctx.Err() != nil {
		return storage.Object{}, context.Cause(ctx)
	}
	p.report(func(g *storage.Progress) { g.Completing = true })
	defer p.report(func(g *storage.Progress) { g.Completing = false })
	return p.m.commit(p)
}

// body reads the source part by part, and the head when it is over.
func (p *memoryPut) body(ctx context.Context, r io.Reader) error {
	head := int64(-1)
	for ended := false; !ended; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part, err := readPart(ctx, r, p.m.opts.PartSize)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read the source: %w", err)
		}
		ended = err == io.EOF
		if p.opts.Head != nil && head < 0 {
			head = p.opts.Head.Size()
		}
		if err := p.send(ctx, part); err != nil {
			return err
		}
		p.data = append(p.data, part...)
	}
	if p.opts.Head == nil {
		return nil
	}
	first, err := p.opts.Head.Bytes()
	if err != nil {
		return fmt.Errorf("make the head: %w", err)
	}
	if int64(len(first)) != head {
		return fmt.Errorf("the head has %d bytes, %d were announced", len(first), head)
	}
	if err := p.send(ctx, first); err != nil {
		return err
	}
	p.data = slices.Concat(first, p.data)
	return nil
}

// send plays the request that carries a part.
func (p *memoryPut) send(ctx context.Context, part []byte) error {
	p.report(func(g *storage.Progress) { g.Sent += int64(len(part)) })
	if err := p.m.accept(ctx); err != nil {
		return err
	}
	p.report(func(g *storage.Progress) { g.Acknowledged += int64(len(part)) })
	return nil
}

// readPart fills a part. A bare io.EOF ends the source; whatever else comes
// from it fails, with or without data.
func readPart(ctx context.Context, r io.Reader, size int64) ([]byte, error) {
	part := make([]byte, size)
	n := 0
	for n < len(part) && ctx.Err() == nil {
		k, err := r.Read(part[n:])
		n += k
		if err != nil {
			return part[:n], err
		}
	}
	return part[:n], nil
}

// accept waits until the bucket is not frozen.
func (m *Memory) accept(ctx context.Context) error {
	m.mu.Lock()
	frozen := m.frozen
	m.mu.Unlock()
	if frozen == nil {
		return nil
	}
	select {
	case <-frozen:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *memoryPut) begin() {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.next++
	p.id = strconv.Itoa(p.m.next)
	now := time.Now().UTC()
	p.m.uploads[p.id] = storage.Upload{Key: p.key, ID: p.id, Initiated: now, Newest: now}
}

func (p *memoryPut) end() {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	delete(p.m.uploads, p.id)
}

func (m *Memory) commit(p *memoryPut) (storage.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.uploads[p.id]; !there {
		return storage.Object{}, errors.New("the upload was removed meanwhile")
	}
	if versions := m.objects[p.key]; len(versions) > 0 && !versions[len(versions)-1].DeleteMarker {
		return storage.Object{}, memoryError("put", p.key, storage.ErrExist, "it was there first")
	}
	sum := crc32.Checksum(p.data, crc32.MakeTable(crc32.Castagnoli))
	m.add(p.key, memoryObject{data: p.data, Object: storage.Object{
		Size:        int64(len(p.data)),
		Checksum:    storage.Checksum{Algorithm: "CRC32C", Value: base64.StdEncoding.EncodeToString(be32(sum))},
		ContentType: p.opts.ContentType, Metadata: maps.Clone(p.opts.Metadata), Tags: maps.Clone(p.opts.Tags),
		StorageClass: p.opts.StorageClass, Retention: m.retained(p.opts.Retention), LegalHold: p.opts.LegalHold,
		Encryption: p.opts.Encryption, CustomTime: p.opts.CustomTime,
		Thaw: storage.Thaw{Cold: slices.Contains(coldClasses, p.opts.StorageClass)},
	}})
	return m.at(p.key, len(m.objects[p.key])-1).Object, nil
}

func be32(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }

// add appends a version.
func (m *Memory) add(key string, o memoryObject) {
	m.next++
	o.Key, o.Created = key, time.Now().UTC()
	if m.opts.Versions {
		o.Version = strconv.Itoa(m.next)
	}
	o.ETag = strconv.Itoa(m.next)
	m.objects[key] = append(m.objects[key], o)
}

// at gives the i-th version with Latest filled in.
func (m *Memory) at(key string, i int) memoryObject {
	o := m.objects[key][i]
	o.Latest = i == len(m.objects[key])-1
	return o
}

// find gives the index of a version, "" is the newest; -1 is none.
func (m *Memory) find(key, version string) int {
	versions := m.objects[key]
	if version == "" {
		if n := len(versions); n > 0 && !versions[n-1].DeleteMarker {
			return n - 1
		}
		return -1
	}
	return slices.IndexFunc(versions, func(o memoryObject) bool { return o.Version == version && !o.DeleteMarker })
}

func (m *Memory) get(op, key, version string) (memoryObject, error) {
	if err := checkKey(op, key); err != nil {
		return memoryObject{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(key, version)
	if i < 0 {
		return memoryObject{}, memoryError(op, key, storage.ErrNotExist, "nothing there")
	}
	return m.at(key, i), nil
}

// Stat implements storage.Bucket.
func (m *Memory) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	o, err := m.get("stat", key, version)
	return o.Object, err
}

// Open implements storage.Bucket.
func (m *Memory) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	o, err := m.get("open", key, opts.Version)
	if err == nil {
		err = m.cold(o)
	}
	if err != nil {
		return nil, err
	}
	if opts.Offset < 0 || opts.Length < 0 || opts.Offset > 0 && opts.Offset >= o.Size {
		return nil, memoryError("open", key, storage.ErrRange, "%d bytes are there", o.Size)
	}
	end := o.Size
	if opts.Length > 0 {
		end = min(end, opts.Offset+opts.Length)
	}
	return storage.Resume(ctx, storage.ResumeOptions{Key: key, Offset: opts.Offset,
		Backoff: func(int) time.Duration { return 0 },
		Open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			now, err := m.get("open", key, o.Version)
			if err == nil && now.ETag != o.ETag {
				err = memoryError("open", key, storage.ErrIntegrity, "it was replaced while it was read")
			}
			if err != nil {
				return nil, 0, err
			}
			return &memoryBody{m: m, r: bytes.NewReader(now.data[offset:end])}, end - offset, nil
		}})
}

// memoryBody is a body that can be cut.
type memoryBody struct {
	m *Memory
	r *bytes.Reader
	n int64
}

func (b *memoryBody) Read(p []byte) (int, error) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	p = p[:min(len(p), 16<<10)]
	if b.m.cut > 0 {
		if b.n >= b.m.cut {
			return 0, errors.New("connection reset")
		}
		p = p[:min(int64(len(p)), b.m.cut-b.n)]
	}
	n, err := b.r.Read(p)
	b.n += int64(n)
	b.m.sent += int64(n)
	return n, err
}

func (b *memoryBody) Close() error { return nil }

// List implements storage.Bucket.
func (m *Memory) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		m.mu.Lock()
		keys := slices.Sorted(maps.Keys(m.objects))
		m.mu.Unlock()
		for _, key := range keys {
			if ctx.Err() != nil {
				yield(storage.Object{}, &storage.Error{Op: "list", Err: context.Cause(ctx)})
				return
			}
			if !strings.HasPrefix(key, opts.Prefix) || opts.StartAfter != "" && key <= opts.StartAfter {
				continue
			}
			for _, o := range m.versions(key, opts.Versions) {
				if !yield(o, nil) {
					return
				}
			}
		}
	}
}

// versions gives what a list shows of a key, newest first.
func (m *Memory) versions(key string, all bool) []storage.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	var shown []storage.Object
	for i := len(m.objects[key]) - 1; i >= 0; i-- {
		o := m.at(key, i).Object
		if !all && (o.DeleteMarker || !o.Latest) {
			continue
		}
		o.Metadata, o.Tags, o.Retention, o.LegalHold = nil, nil, storage.Retention{}, false
		shown = append(shown, o)
	}
	return shown
}

// Delete implements storage.Bucket.
func (m *Memory) Delete(ctx context.Context, key, version string) error {
	if err := checkKey("delete", key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if version == "" && m.opts.Versions {
		if len(m.objects[key]) > 0 {
			m.add(key, memoryObject{Object: storage.Object{DeleteMarker: true}})
		}
		return nil
	}
	i := slices.IndexFunc(m.objects[key], func(o memoryObject) bool { return version == "" || o.Version == version })
	if i < 0 {
		return nil
	}
	if o := m.objects[key][i]; o.LegalHold || time.Now().Before(o.Retention.Until) {
		return memoryError("delete", key, storage.ErrLocked, "retained until %s, hold %t", o.Retention.Until, o.LegalHold)
	}
	if m.objects[key] = slices.Delete(m.objects[key], i, i+1); len(m.objects[key]) == 0 {
		delete(m.objects, key)
	}
	return nil
}

// Uploads implements storage.UploadSweeper.
func (m *Memory) Uploads(ctx context.Context, prefix string) iter.Seq2[storage.Upload, error] {
	return func(yield func(storage.Upload, error) bool) {
		m.mu.Lock()
		uploads := slices.Collect(maps.Values(m.uploads))
		m.mu.Unlock()
		for _, u := range uploads {
			if strings.HasPrefix(u.Key, prefix) && !yield(u, nil) {
				return
			}
		}
	}
}

// AbortUpload implements storage.UploadSweeper.
func (m *Memory) AbortUpload(ctx context.Context, u storage.Upload) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.uploads, u.ID)
	return nil
}
