package file

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// Uploads implements storage.UploadSweeper: it yields the temporary files of
// Puts that are under way or died. Newest is when the last byte was written.
func (b *Bucket) Uploads(ctx context.Context, prefix string) iter.Seq2[storage.Upload, error] {
	return func(yield func(storage.Upload, error) bool) {
		if err := ended(ctx, "uploads", ""); err != nil {
			yield(storage.Upload{}, err)
			return
		}
		l := &lister{b: b}
		entries, err := l.read(ctx, tmpDir)
		if err != nil {
			yield(storage.Upload{}, err)
			return
		}
		for _, e := range entries {
			u, err := b.upload(ctx, e.Name())
			if err != nil {
				yield(storage.Upload{}, err)
				return
			}
			if u.ID != "" && strings.HasPrefix(u.Key, prefix) && !yield(u, nil) {
				return
			}
		}
	}
}

// upload describes one folder in tmpDir, whose one file lies at the key's own
// path. A process that died before it made the file leaves empty folders: their
// path, perhaps none, is as much of the key as is known.
func (b *Bucket) upload(ctx context.Context, id string) (storage.Upload, error) {
	u := storage.Upload{ID: id}
	top := path.Join(tmpDir, id)
	for name := top; ; {
		info, err := b.root.Lstat(name)
		if missing(err) {
			return storage.Upload{}, nil // its Put ended meanwhile
		}
		if err != nil {
			return storage.Upload{}, failure("uploads", "", err)
		}
		if name != top {
			u.Key = strings.TrimPrefix(name, top+"/")
		} else if u.Initiated = initiated(id); u.Initiated.IsZero() {
			u.Initiated = info.ModTime().UTC()
		}
		u.Newest = info.ModTime().UTC()
		if !info.IsDir() {
			u.Size = info.Size()
			return u, nil
		}
		entries, err := (&lister{b: b}).read(ctx, name)
		if err != nil {
			return storage.Upload{}, err
		}
		if len(entries) == 0 {
			return u, nil
		}
		name = path.Join(name, entries[0].Name())
	}
}

// initiated reads the time at the start of a temporary folder's name.
func initiated(id string) time.Time {
	text, _, _ := strings.Cut(id, "-")
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// AbortUpload implements storage.UploadSweeper. The Put that still writes the
// file fails. Folders that were made for the key alone go too.
func (b *Bucket) AbortUpload(ctx context.Context, u storage.Upload) error {
	if err := ended(ctx, "abort", u.Key); err != nil {
		return err
	}
	if u.ID == "" || u.ID == "." || u.ID == ".." || strings.Contains(u.ID, "/") {
		return &storage.Error{Op: "abort", Key: u.Key, Err: fmt.Errorf("%q is no upload: %w", u.ID, fs.ErrInvalid)}
	}
	if err := b.root.RemoveAll(path.Join(tmpDir, u.ID)); err != nil && !missing(err) {
		return failure("abort", u.Key, err)
	}
	if storage.CheckKey(u.Key) == nil {
		b.prune(path.Dir(u.Key))
	}
	return nil
}
