package archiver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgstow/pgstow/storage"
)

// Shown is how the store protects an archive now.
type Shown struct {
	// Weakest is the weakest protection of all objects, in each respect; class
	// and tags are those of the dump.
	Weakest Protection `json:"weakest"`
	// Denied names what these credentials may not see of some object. Of that,
	// Weakest says nothing.
	Denied  []storage.Attribute `json:"denied,omitempty"`
	Objects []ObjectProtection  `json:"objects"`
}

// ObjectProtection is how the store protects one object of an archive.
type ObjectProtection struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Protection
	Denied []storage.Attribute `json:"denied,omitempty"`
	// Missing: it was listed, and is not there any more.
	Missing bool `json:"missing,omitempty"`
}

// protections are what a store may have a right of its own for.
var protections = []storage.Attribute{storage.AttributeRetention, storage.AttributeLegalHold, storage.AttributeTags}

// seen is one version of an archive's object, as the store shows it.
type seen struct {
	EntryObject
	key    string
	o      storage.Object
	denied []storage.Attribute // what could not be seen; all of protections where Stat is denied
	gone   bool
}

func (s seen) retention() storage.Retention { return s.o.Retention }

// hides reports whether the credentials may not see this of the version.
func (s seen) hides(a storage.Attribute) bool { return slices.Contains(s.denied, a) }

// statReaders is how many objects are looked at at once.
const statReaders = 16

// look asks the store about versions of an archive's objects. What may not be
// seen, or is not there any more, is marked so.
func look(ctx context.Context, b storage.Bucket, dir Dir, objects []EntryObject) ([]seen, error) {
	all := make([]seen, len(objects))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(statReaders)
	for i, object := range objects {
		g.Go(func() (err error) {
			all[i], err = lookAt(ctx, b, dir.Key(object.Name), object)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("look at the archive: %w", err)
	}
	return all, nil
}

func lookAt(ctx context.Context, b storage.Bucket, key string, object EntryObject) (seen, error) {
	s := seen{EntryObject: object, key: key}
	o, err := b.Stat(ctx, key, object.Version)
	switch {
	case errors.Is(err, storage.ErrPermission):
		s.denied = protections
	case errors.Is(err, storage.ErrNotExist):
		s.gone = true
	case err != nil:
		return seen{}, err
	default:
		s.o, s.denied = o, o.Denied
	}
	return s, nil
}

// shown sums up what look saw.
func shown(all []seen) *Shown {
	s := &Shown{Objects: make([]ObjectProtection, 0, len(all))}
	denied := map[storage.Attribute]bool{}
	first := true
	for _, one := range all {
		p := protectionOf(one.o)
		s.Objects = append(s.Objects, ObjectProtection{
			Name: one.Name, Version: one.Version, Protection: p, Denied: one.denied, Missing: one.gone,
		})
		for _, a := range one.denied {
			denied[a] = true
		}
		if one.gone {
			continue
		}
		class, tags := s.Weakest.StorageClass, s.Weakest.Tags
		if first {
			s.Weakest, first = p, false
		} else {
			s.Weakest.weaken(p)
		}
		if roleOf(one.Name) == RoleDump {
			class, tags = p.StorageClass, p.Tags
		}
		s.Weakest.StorageClass, s.Weakest.Tags = class, tags
	}
	for _, a := range protections {
		if denied[a] {
			s.Denied = append(s.Denied, a)
		}
	}
	return s
}

// LoadProtection asks the store how it protects the objects of entries, several
// at once.
func LoadProtection(ctx context.Context, b storage.Bucket, entries []Entry) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(statReaders)
	for i := range entries {
		e := &entries[i]
		g.Go(func() error {
			all := make([]seen, len(e.Objects))
			for j, o := range e.Objects {
				var err error
				if all[j], err = lookAt(ctx, b, e.Key+o.Name, o); err != nil {
					return fmt.Errorf("look at %s: %w", e.Key, err)
				}
			}
			e.Protection = shown(all)
			return nil
		})
	}
	return g.Wait()
}

// storeNow is the time by the store's clock, by which it judges locks. Where this
// machine's differs by too much, nothing that depends on it is done.
func storeNow(b storage.Bucket, clock func() time.Time, why string) (time.Time, error) {
	if clock == nil {
		clock = time.Now
	}
	skew := b.Capabilities().ClockSkew
	if skew.Abs() > maxSkew {
		return time.Time{}, clockError(skew, why)
	}
	return clock().UTC().Add(-skew), nil
}

// clockError: why ends the sentence.
func clockError(skew time.Duration, why string) error {
	side := "ahead of"
	if skew < 0 {
		side = "behind"
	}
	return fmt.Errorf("%w: this machine's clock is %s %s the store's, and %s; set the clock",
		ErrUsage, skew.Abs().Round(time.Second), side, why)
}
