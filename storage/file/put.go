package file

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// chunk is how much is gathered for one write.
const chunk = 1 << 20

// Put implements storage.Bucket. A write into a file system that hangs, such
// as a network one, cannot be interrupted: Put then returns when the kernel does.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	if err := checkOptions(key, opts); err != nil {
		return storage.Object{}, err
	}
	if err := ended(ctx, "put", key); err != nil {
		return storage.Object{}, err
	}
	p := &put{b: b, key: key, opts: opts}
	info, err := p.run(ctx, r)
	if err != nil {
		return storage.Object{}, err
	}
	return object(key, info), nil
}

func checkOptions(key string, opts storage.PutOptions) error {
	if err := checkKey("put", key); err != nil {
		return err
	}
	var what string
	switch {
	case !opts.Retention.IsZero():
		what = "retention"
	case opts.LegalHold:
		what = "a legal hold"
	case len(opts.Tags) > 0:
		what = "tags"
	case !opts.CustomTime.IsZero():
		what = "a custom time"
	case !opts.Encryption.IsZero():
		what = "encryption at its own side"
	default:
		return nil
	}
	return &storage.Error{Op: "put", Key: key, Kind: errors.ErrUnsupported, Err: fmt.Errorf("a folder cannot keep %s", what)}
}

// put is one Put under way.
type put struct {
	b        *Bucket
	key      string
	opts     storage.PutOptions
	progress storage.Progress

	tmp  string // the folder of the temporary file in tmpDir
	file *os.File
	// made is the topmost folder created for the key, "" for none.
	made string
	head int64 // size of the deferred head, -1 until it is known
	size int64 // bytes written, the head's place included
}

func (p *put) report(change func(*storage.Progress)) {
	change(&p.progress)
	if p.opts.Progress != nil {
		p.opts.Progress(p.progress)
	}
}

func (p *put) fail(doing string, err error) error {
	var e *storage.Error
	if errors.As(err, &e) {
		return err
	}
	return failure("put", p.key, fmt.Errorf("%s: %w", doing, err))
}

// source is an error that is not the folder's: it gets no Kind.
func (p *put) source(format string, args ...any) error {
	return &storage.Error{Op: "put", Key: p.key, Err: fmt.Errorf(format, args...)}
}

func (p *put) run(ctx context.Context, r io.Reader) (info fs.FileInfo, err error) {
	defer func() { err = p.cleanUp(err) }()
	p.report(func(g *storage.Progress) { g.Opening = true })
	if err := p.begin(); err != nil {
		return nil, err
	}
	p.report(func(g *storage.Progress) { g.Opening = false })
	if err := p.copy(ctx, r); err != nil {
		return nil, err
	}
	if err := p.writeHead(); err != nil {
		return nil, err
	}
	if p.opts.Size > 0 && p.size != p.opts.Size {
		return nil, p.source("the source has %d bytes, %d were announced", p.size, p.opts.Size)
	}
	p.report(func(g *storage.Progress) { g.Completing = true })
	defer p.report(func(g *storage.Progress) { g.Completing = false })
	return p.commit(ctx)
}

// begin finds out what can be found out before the source is read: whether
// the name is free and its folder and the temporary file can be made.
func (p *put) begin() error {
	p.head = -1
	if info, err := p.b.root.Lstat(p.key); err == nil {
		return p.taken(info)
	} else if !missing(err) {
		return p.fail("look for the key", err)
	}
	// The key is the temporary file's path, so that a leftover tells whose it is.
	p.tmp = path.Join(tmpDir, strconv.FormatInt(time.Now().Unix(), 10)+"-"+rand.Text())
	name := path.Join(p.tmp, p.key)
	if err := p.b.root.MkdirAll(path.Dir(name), dirMode); err != nil {
		return p.fail("make the temporary folder", err)
	}
	f, err := p.b.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return p.fail("make the temporary file", err)
	}
	p.file = f
	// Only now: folders that a killed process leaves empty are then known by
	// its temporary file.
	if err := p.makeParents(); err != nil {
		return p.fail("make the folder", err)
	}
	return nil
}

func (p *put) taken(info fs.FileInfo) error {
	if info.IsDir() {
		return p.fail("create", syscall.EISDIR)
	}
	return &storage.Error{Op: "put", Key: p.key, Kind: storage.ErrExist, Err: fs.ErrExist}
}

// makeParents makes the folders above the key durable and remembers what it
// made.
func (p *put) makeParents() error {
	dir := "."
	for segment := range strings.SplitSeq(path.Dir(p.key), "/") {
		parent := dir
		dir = path.Join(dir, segment)
		if dir == "." {
			continue
		}
		err := p.b.root.Mkdir(dir, dirMode)
		if errors.Is(err, fs.ErrExist) {
			info, err := p.b.root.Stat(dir)
			if err != nil {
				return err
			}
			if !info.IsDir() {
				return syscall.ENOTDIR
			}
			continue
		}
		if err != nil {
			return err
		}
		if p.made == "" {
			p.made = dir
		}
		if err := p.b.syncDir(parent); err != nil {
			return err
		}
	}
	return nil
}

// copy writes the source behind the head's place. A bare io.EOF is its end,
// every other error fails.
func (p *put) copy(ctx context.Context, r io.Reader) error {
	buf := make([]byte, chunk)
	for {
		n, end := p.fill(ctx, r, buf)
		if err := ended(ctx, "put", p.key); err != nil {
			return err
		}
		if end != nil && end != io.EOF {
			return p.source("read the source: %w", end)
		}
		if p.head < 0 {
			p.head = 0
			if p.opts.Head != nil {
				if p.head = p.opts.Head.Size(); p.head < 0 {
					return p.source("the head has a size of %d", p.head)
				}
			}
			p.size = p.head
		}
		if n > 0 {
			if err := p.write(buf[:n], p.size); err != nil {
				return err
			}
			p.size += int64(n)
		}
		if p.opts.Size > 0 && p.size > p.opts.Size {
			return p.source("the source has more than the %d bytes that were announced", p.opts.Size)
		}
		if end == io.EOF {
			return nil
		}
	}
}

// fill gathers a chunk, so that a source of small reads costs no small writes.
func (p *put) fill(ctx context.Context, r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil && ctx.Err() == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

func (p *put) write(data []byte, at int64) error {
	p.report(func(g *storage.Progress) { g.Sent += int64(len(data)) })
	if _, err := p.file.WriteAt(data, at); err != nil {
		return p.fail("write", err)
	}
	p.report(func(g *storage.Progress) { g.Acknowledged += int64(len(data)) })
	return nil
}

func (p *put) writeHead() error {
	if p.opts.Head == nil {
		return nil
	}
	data, err := p.opts.Head.Bytes()
	if err != nil {
		return p.source("make the head: %w", err)
	}
	if int64(len(data)) != p.head {
		return p.source("the head has %d bytes, %d were announced", len(data), p.head)
	}
	return p.write(data, 0)
}

// commit flushes the file, checks its size, and gives it its name.
func (p *put) commit(ctx context.Context) (fs.FileInfo, error) {
	if err := p.file.Sync(); err != nil {
		return nil, p.fail("flush", err)
	}
	info, err := p.file.Stat()
	if err != nil {
		return nil, p.fail("look at the file", err)
	}
	if info.Size() != p.size {
		return nil, &storage.Error{Op: "put", Key: p.key, Kind: storage.ErrIntegrity,
			Err: fmt.Errorf("%d bytes were written, the file has %d", p.size, info.Size())}
	}
	err = p.file.Close()
	p.file = nil
	if err != nil {
		return nil, p.fail("close", err)
	}
	if err := ended(ctx, "put", p.key); err != nil {
		return nil, err
	}
	if err := p.publish(info); err != nil {
		return nil, err
	}
	if err := p.b.syncDir(path.Dir(p.key)); err != nil {
		// Without it a power cut may take the name away again.
		return nil, p.fail("flush the folder", errors.Join(err, p.b.root.Remove(p.key)))
	}
	return info, nil
}

// publish gives the file its name, if that is free. A parent that another
// deletion pruned meanwhile is made again.
func (p *put) publish(info fs.FileInfo) error {
	tmp := path.Join(p.tmp, p.key)
	var err error
	for range 5 {
		if _, gone := p.b.root.Lstat(tmp); missing(gone) {
			return p.fail("publish", errors.New("the temporary file was removed meanwhile, by a cleanup?"))
		}
		if err = p.b.root.Link(tmp, p.key); cannotLink(err) {
			err = p.b.renameNoReplace(tmp, p.key)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrExist):
			// A network file system may repeat a link whose reply was lost.
			now, statErr := p.b.root.Lstat(p.key)
			if statErr == nil && os.SameFile(now, info) {
				return nil
			}
			if statErr == nil {
				return p.taken(now)
			}
			return &storage.Error{Op: "put", Key: p.key, Kind: storage.ErrExist, Err: err}
		case !errors.Is(err, fs.ErrNotExist):
			return p.fail("publish", err)
		}
		if err := p.makeParents(); err != nil {
			return p.fail("make the folder", err)
		}
	}
	return p.fail("publish", err)
}

// cannotLink tells file systems without hard links.
func cannotLink(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) ||
		errors.Is(err, syscall.EMLINK)
}

// cleanUp removes what Put made besides the object. After a success a failure
// to do so is none: what stays is a leftover for the sweeper.
func (p *put) cleanUp(err error) error {
	if p.file != nil {
		p.file.Close()
	}
	var removal error
	if p.tmp != "" {
		removal = p.b.root.RemoveAll(p.tmp)
	}
	if err == nil {
		return nil
	}
	if p.made != "" {
		p.pruneMade()
	}
	if removal != nil {
		return &storage.Error{Op: "put", Key: p.key, Kind: kindOf(err),
			Err: errors.Join(err, fmt.Errorf("remove the temporary file: %w", removal))}
	}
	return err
}

// pruneMade removes the folders that were made for the key, unless somebody
// else uses them by now.
func (p *put) pruneMade() {
	for dir := path.Dir(p.key); dir != "."; dir = path.Dir(dir) {
		if err := p.b.root.Remove(dir); err != nil && !missing(err) || dir == p.made {
			return
		}
	}
}

func kindOf(err error) error {
	var e *storage.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return nil
}
