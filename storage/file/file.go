// Package file keeps objects as plain files in one folder: the key a/b/c is the
// file a/b/c below it.
//
// An object appears whole or not at all. It is written to a temporary file in
// the hidden folder .pgstow-tmp, flushed to the disk, then linked to its name,
// which fails when the name is taken; last the folders are flushed. A process
// that dies leaves temporary files only, which are never listed and which
// Uploads and AbortUpload find and remove.
//
// A folder records bytes and nothing else. Content type and metadata are
// accepted and not kept, a storage class is ignored, tags, custom time,
// retention and legal hold are refused with errors.ErrUnsupported. There is no
// checksum to compare: the size is checked after the flush, and what the disk
// says later is for the caller's own hashes to find. As in every file system an
// object x and an object x/y exclude each other.
//
// Nothing outside the folder is ever touched: keys cannot climb out of it, and
// symbolic links that lead out are not followed. Files are created with mode
// 0640, folders with 0750, less the umask.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pgstow/pgstow/storage"
)

const (
	tmpDir   = ".pgstow-tmp"
	dirMode  = 0o750
	fileMode = 0o640
	// lostFound is what mkfs puts into the root of a disk: no object of ours,
	// and readable by root alone.
	lostFound = "lost+found"
)

// Config names a folder.
type Config struct {
	// Dir is the folder. It must exist: a backup disk that is not mounted must
	// not be taken for an empty folder.
	Dir string
	// Create makes Dir and its parents when they are missing.
	Create bool
}

// Bucket is a folder.
type Bucket struct {
	root *os.Root
}

var (
	_ storage.Bucket        = (*Bucket)(nil)
	_ storage.UploadSweeper = (*Bucket)(nil)
)

// Open opens the folder.
func Open(ctx context.Context, cfg Config) (*Bucket, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil || cfg.Dir == "" {
		return nil, &storage.Error{Op: "open", Err: cmp.Or(err, errors.New("no folder is named"))}
	}
	if cfg.Create {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return nil, failure("open", "", err)
		}
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &storage.Error{Op: "open", Kind: storage.ErrBucketNotExist, Err: fmt.Errorf(
			"the folder %s does not exist: if it should be on a disk, mount it; otherwise create it with mkdir -p %s", dir, dir)}
	case errors.Is(err, syscall.ENOTDIR), err == nil && !info.IsDir():
		return nil, &storage.Error{Op: "open", Kind: storage.ErrBucketNotExist, Err: fmt.Errorf("%s is not a folder", dir)}
	case err != nil:
		return nil, failure("open", "", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, failure("open", "", err)
	}
	return &Bucket{root: root}, nil
}

// Capabilities implements storage.Bucket.
func (b *Bucket) Capabilities() storage.Capabilities {
	return storage.Capabilities{DeferredHead: true}
}

// Close implements storage.Bucket.
func (b *Bucket) Close() error { return b.root.Close() }

// checkKey also refuses the names that are not for objects.
func checkKey(op, key string) error {
	err := storage.CheckKey(key)
	if err == nil && reserved(key) {
		err = fmt.Errorf("%w: the folder %s is not for objects", storage.ErrInvalidKey, strings.SplitN(key, "/", 2)[0])
	}
	if err != nil {
		return &storage.Error{Op: op, Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	return nil
}

// reserved tells names in the root that are no objects.
func reserved(key string) bool {
	top, _, _ := strings.Cut(key, "/")
	return top == tmpDir || top == lostFound
}

// lookup finds the regular file of a key; anything else is no object.
func (b *Bucket) lookup(op, key, version string) (fs.FileInfo, error) {
	if err := checkKey(op, key); err != nil {
		return nil, err
	}
	info, err := b.root.Lstat(key)
	switch {
	case missing(err):
		return nil, &storage.Error{Op: op, Key: key, Kind: storage.ErrNotExist, Err: plain(err)}
	case err != nil:
		return nil, failure(op, key, err)
	case !info.Mode().IsRegular():
		return nil, &storage.Error{Op: op, Key: key, Kind: storage.ErrNotExist, Err: fmt.Errorf("it is no regular file: %s", info.Mode().Type())}
	case version != "":
		return nil, &storage.Error{Op: op, Key: key, Kind: storage.ErrNotExist, Err: fmt.Errorf("no version %q: a folder keeps none", version)}
	}
	return info, nil
}

// missing tells that a path leads nowhere: also when a part of it is a file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func object(key string, info fs.FileInfo) storage.Object {
	return storage.Object{Key: key, Size: info.Size(), Created: info.ModTime().UTC(), Latest: true}
}

// Stat implements storage.Bucket.
func (b *Bucket) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	if err := ended(ctx, "stat", key); err != nil {
		return storage.Object{}, err
	}
	info, err := b.lookup("stat", key, version)
	if err != nil {
		return storage.Object{}, err
	}
	return object(key, info), nil
}

// Delete implements storage.Bucket. Folders that it leaves empty go too.
func (b *Bucket) Delete(ctx context.Context, key, version string) error {
	if err := ended(ctx, "delete", key); err != nil {
		return err
	}
	_, err := b.lookup("delete", key, version)
	if errors.Is(err, storage.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := b.root.Remove(key); err != nil && !missing(err) {
		return failure("delete", key, err)
	}
	if err := b.syncDir(b.prune(path.Dir(key))); err != nil {
		return failure("delete", key, err)
	}
	return nil
}

// prune removes a folder and its parents as far as they are empty, and
// returns the first that stays.
func (b *Bucket) prune(dir string) string {
	for dir != "." && b.root.Remove(dir) == nil {
		dir = path.Dir(dir)
	}
	return dir
}

// syncDir makes the entries of a folder durable. A folder that was removed
// meanwhile has none.
func (b *Bucket) syncDir(dir string) error {
	d, err := b.root.Open(dir)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems cannot flush a folder and say so by EINVAL.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// ended is the error of an operation whose context is over.
func ended(ctx context.Context, op, key string) error {
	if ctx.Err() == nil {
		return nil
	}
	return &storage.Error{Op: op, Key: key, Err: context.Cause(ctx)}
}

// plain takes the system call's name and path off an error: "statat" tells
// nobody anything, and the key stands before it.
func plain(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// failure wraps an error of the system with what it means.
func failure(op, key string, err error) error {
	err = plain(err)
	e := &storage.Error{Op: op, Key: key, Err: err}
	is := func(list ...error) bool {
		for _, one := range list {
			if errors.Is(err, one) {
				return true
			}
		}
		return false
	}
	switch {
	case is(syscall.ENOSPC, syscall.EDQUOT):
		e.Kind, e.Err = storage.ErrUnavailable, fmt.Errorf("the disk or the quota is full (%w); free some space there, then run it again", err)
	case is(syscall.EFBIG):
		e.Kind, e.Err = storage.ErrUnavailable, fmt.Errorf("the file system or a limit (ulimit -f) takes no file of this size (%w); choose another folder or raise the limit", err)
	case is(syscall.EROFS):
		e.Kind, e.Err = storage.ErrPermission, fmt.Errorf("the file system is mounted read-only: %w", err)
	case is(fs.ErrPermission):
		e.Kind = storage.ErrPermission
	case is(syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT, syscall.EHOSTDOWN, syscall.ENODEV, syscall.ENXIO):
		e.Kind, e.Err = storage.ErrUnavailable, fmt.Errorf("%w; check the disk and its mount", err)
	case is(syscall.ENAMETOOLONG):
		e.Kind = storage.ErrInvalidKey
	case is(syscall.ENOTDIR, syscall.EISDIR):
		e.Err = fmt.Errorf("a folder and an object cannot have one name: %w", err)
	}
	return e
}
