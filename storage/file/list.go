package file

import (
	"cmp"
	"context"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/storage"
)

// List implements storage.Bucket. It holds the names of one folder per level.
// Names that are no valid keys, links and special files are no objects.
func (b *Bucket) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		l := &lister{b: b, opts: opts, yield: yield}
		// Only the folder in which the prefix lies can hold matching keys.
		dir := ""
		if i := strings.LastIndexByte(opts.Prefix, '/'); i >= 0 {
			dir = opts.Prefix[:i]
			if storage.CheckKey(dir) != nil || reserved(dir) {
				return
			}
		}
		l.walk(ctx, dir)
	}
}

type lister struct {
	b     *Bucket
	opts  storage.ListOptions
	yield func(storage.Object, error) bool
}

// entry is a name with what it sorts by: all keys below a folder start with
// its name and a slash, so that a-b comes before a/b.
type entry struct {
	fs.DirEntry
	sort string
}

// walk yields the keys below a folder ("" is the root) in their order and
// tells whether to go on.
func (l *lister) walk(ctx context.Context, dir string) bool {
	entries, err := l.read(ctx, dir)
	if err != nil {
		l.yield(storage.Object{}, err)
		return false
	}
	for _, e := range entries {
		key := path.Join(dir, e.Name())
		switch {
		case dir == "" && reserved(key):
		case e.IsDir():
			if l.below(key+"/") && !l.walk(ctx, key) {
				return false
			}
		case !e.Type().IsRegular() || storage.CheckKey(key) != nil:
		case !strings.HasPrefix(key, l.opts.Prefix) || l.opts.StartAfter != "" && key <= l.opts.StartAfter:
		default:
			info, err := e.Info()
			if missing(err) {
				continue // deleted meanwhile
			}
			if err != nil {
				l.yield(storage.Object{}, failure("list", "", err))
				return false
			}
			if ctx.Err() != nil {
				l.yield(storage.Object{}, ended(ctx, "list", ""))
				return false
			}
			if !l.yield(object(key, info), nil) {
				return false
			}
		}
	}
	return true
}

// below tells whether keys that start with dir, which ends in a slash, can be
// asked for.
func (l *lister) below(dir string) bool {
	if !strings.HasPrefix(dir, l.opts.Prefix) && !strings.HasPrefix(l.opts.Prefix, dir) {
		return false
	}
	return strings.HasPrefix(l.opts.StartAfter, dir) || dir > l.opts.StartAfter
}

// read gives a folder's entries in the order of their keys.
func (l *lister) read(ctx context.Context, dir string) ([]entry, error) {
	if err := ended(ctx, "list", ""); err != nil {
		return nil, err
	}
	d, err := l.b.root.Open(cmp.Or(dir, "."))
	if missing(err) && dir != "" {
		return nil, nil
	}
	if err != nil {
		return nil, failure("list", "", err)
	}
	defer d.Close()
	found, err := d.ReadDir(-1)
	if err != nil && !missing(err) { // it was removed meanwhile, or is a file
		return nil, failure("list", "", err)
	}
	entries := make([]entry, len(found))
	for i, e := range found {
		entries[i] = entry{e, e.Name()}
		if e.IsDir() {
			entries[i].sort += "/"
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.sort, b.sort) })
	return entries, nil
}
