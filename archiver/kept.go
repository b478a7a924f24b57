package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// keptArchive is an archive whose protection is to be changed: the oldest
// version of each of its objects, records included.
type keptArchive struct {
	bucket storage.Bucket
	entry  Entry
	raw    []byte    // the manifest's
	m      *Manifest // nil when it cannot be understood: holding such an archive is possible all the same
	all    []seen
	now    time.Time // by the store's clock
}

// findKept finds the archive that ref names, with all of its versions.
func findKept(ctx context.Context, b storage.Bucket, ref, name string, log *slog.Logger) (*keptArchive, error) {
	e, err := resolveBy(ctx, b, ref, name, log, scanStrictly)
	if err != nil {
		return nil, err
	}
	a := &keptArchive{bucket: b, entry: e}
	if a.raw, err = readSmall(ctx, b, e.dir().Key(ManifestName), e.version(ManifestName), maxManifest); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if a.m, err = decodeManifest(a.raw, e.dir()); err != nil {
		logger(log).Warn("the manifest cannot be understood", "key", e.dir().Key(ManifestName), "error", oneLine(err))
	}
	if a.all, err = look(ctx, b, e.dir(), e.Objects); err != nil {
		return nil, err
	}
	for _, s := range a.all {
		if s.gone {
			return nil, integrity("%s was listed and is not there any more", s.key)
		}
	}
	return a, nil
}

func (a *keptArchive) kept() *Kept {
	if a.m == nil {
		return nil
	}
	return a.m.Kept
}

// names are those of some objects, for a message.
func names(all []seen) string {
	list := make([]string, len(all))
	for i, s := range all {
		list[i] = s.Name
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// manifestFirst orders objects for what protects them: Expire deletes the manifest
// before anything else, so that once that is protected the rest is.
func manifestFirst(all []seen) []seen {
	is := func(s seen) bool { return s.Name == ManifestName }
	isNot := func(s seen) bool { return !is(s) }
	return slices.Concat(slices.DeleteFunc(slices.Clone(all), isNot), slices.DeleteFunc(slices.Clone(all), is))
}

// changes are what was done to the objects of an archive, one after another.
type changes struct {
	done, unchanged []seen
	failed          []seen
	errs            []error
}

// each changes what needs it. A refused object does not keep the others from
// being changed; anything else ends it.
func (c *changes) each(ctx context.Context, all []seen, needs func(seen) bool, change func(context.Context, seen) error) {
	for i, s := range all {
		if !needs(s) {
			c.unchanged = append(c.unchanged, s)
			continue
		}
		err := change(ctx, s)
		if err == nil {
			c.done = append(c.done, s)
			continue
		}
		c.errs = append(c.errs, err)
		if errors.Is(err, storage.ErrPermission) || errors.Is(err, storage.ErrLocked) {
			c.failed = append(c.failed, s)
			continue
		}
		c.failed = append(c.failed, all[i:]...)
		return
	}
}

// err says what was changed and what was not; the first failure gives the class.
func (c *changes) err(verb string) error {
	if len(c.errs) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s; not %s: %s: %w; run it again when the cause is gone", verb, names(c.done), verb, names(c.failed), c.errs[0])
}

// readBack looks at the archive again and compares each object. denied: some
// could not be seen.
func (a *keptArchive) readBack(ctx context.Context, attribute storage.Attribute, compare func(seen) error) (denied bool, err error) {
	objects := make([]EntryObject, len(a.all))
	for i, s := range a.all {
		objects[i] = s.EntryObject
	}
	all, err := look(ctx, a.bucket, a.entry.dir(), objects)
	if err != nil {
		return false, fmt.Errorf("read back: %w", err)
	}
	for _, s := range all {
		switch {
		case s.gone:
			return denied, integrity("%s is not there any more", s.key)
		case s.hides(attribute):
			denied = true
		default:
			if err := compare(s); err != nil {
				return denied, err
			}
		}
	}
	a.all = all
	return denied, nil
}

// readBackText is a ReadBack value.
func readBackText(denied bool) string {
	if denied {
		return ReadBackDenied
	}
	return ReadBackDone
}
