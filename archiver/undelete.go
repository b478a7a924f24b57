package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// UndeleteOptions choose what Undelete uncovers.
type UndeleteOptions struct {
	Bucket storage.Bucket
	// Ref is the archive; All takes every archive, of the label Name if given.
	Ref, Name string
	All       bool
	// LaterVersions deletes what was put over an archive's objects as well.
	LaterVersions bool
	// Yes does it; without it Undelete only says what it would do.
	Yes bool
	Log *slog.Logger
	Now func() time.Time
}

// What Undelete did with a marker or version.
const (
	UndeleteWould   = "would remove"
	UndeleteRemoved = "removed"
	UndeleteLeft    = "left"          // a later version that was not to be touched, or cannot
	UndeleteExpired = "left: expired" // a marker that a rule of the bucket has set, when the keep was over
	UndeleteFailed  = "failed"
)

// UndeletedVersion is a delete marker or a later version under the key of an
// archive's object.
type UndeletedVersion struct {
	ID      string    `json:"id"` // of the archive
	Label   string    `json:"label"`
	Key     string    `json:"key"`
	Version string    `json:"version"`
	Created time.Time `json:"created"`
	Size    int64     `json:"size"`
	Marker  bool      `json:"delete_marker"`
	Action  string    `json:"action"`
	Error   string    `json:"error,omitempty"`
}

// UndeleteResult is what Undelete found and did.
type UndeleteResult struct {
	Versions []UndeletedVersion `json:"versions"`
	// Unversioned: the bucket keeps no versions, so that nothing can be hidden.
	Unversioned bool `json:"unversioned,omitempty"`
	// Covered counts archives that plain readers still do not see as they are.
	Covered int `json:"covered"`
	// Expired counts archives that a rule of the bucket has expired: they are
	// hidden, as they should be, until the store removes them. Only those that are
	// named are undeleted.
	Expired int `json:"expired,omitempty"`
}

// Undelete removes the delete markers from over the objects of archives, so that
// plain readers see them again; for pgstow they were never gone. What else lies
// over them is not the archive's: it is reported, and deleted only on request
// and where no lock holds it. With All, markers that a rule of the bucket has set
// because the keep is over stay.
func Undelete(ctx context.Context, opts UndeleteOptions) (*UndeleteResult, error) {
	if opts.All == (opts.Ref != "") {
		return nil, fmt.Errorf("%w: which archives? Name one, or give --all", ErrUsage)
	}
	var entries []Entry
	var err error
	if opts.All {
		entries, err = scanStrictly(ctx, opts.Bucket, opts.Name, opts.Log)
	} else {
		entries = make([]Entry, 1)
		entries[0], err = resolveBy(ctx, opts.Bucket, opts.Ref, opts.Name, opts.Log, scanStrictly)
	}
	if err != nil {
		return nil, err
	}
	u := undeleting{opts: opts, res: &UndeleteResult{Versions: []UndeletedVersion{}}}
	caps := opts.Bucket.Capabilities()
	u.res.Unversioned = !caps.Versions && len(caps.Unprobed) == 0
	for _, e := range entries {
		if !e.Complete {
			continue
		}
		if err := u.archive(ctx, e); err != nil {
			return u.res, causeOf(ctx, fmt.Errorf("archive %s: %w", e.ID, err))
		}
	}
	if u.failures > 1 {
		return u.res, fmt.Errorf("%w (and %d more)", u.failure, u.failures-1)
	}
	return u.res, u.failure
}

// undeleting is one run of Undelete.
type undeleting struct {
	opts     UndeleteOptions
	res      *UndeleteResult
	failure  error // the first
	failures int
}

func (u *undeleting) archive(ctx context.Context, e Entry) error {
	removable := false
	if u.opts.LaterVersions && len(e.Later) > 0 {
		if err := u.original(ctx, e); err != nil {
			return err
		}
		removable = true
	}
	expired, err := u.expired(ctx, e)
	if err != nil {
		return err
	}
	if !expired.IsZero() {
		u.res.Expired++
	}
	covered := e.Hidden && len(e.Later) == 0 && expired.IsZero() // on GCS, where no marker lies over what is no longer live
	for _, v := range e.Later {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		done := UndeletedVersion{
			ID: e.ID, Label: e.Label, Key: e.Key + v.Name, Version: v.Version, Created: v.Created, Size: v.Size,
			Marker: v.DeleteMarker, Action: UndeleteWould,
		}
		switch {
		case v.DeleteMarker && !expired.IsZero() && !v.Created.Before(expired):
			done.Action = UndeleteExpired
		case !v.DeleteMarker && !removable:
			done.Action, covered = UndeleteLeft, true
		case u.opts.Yes:
			done.Action = UndeleteRemoved
			if err := u.remove(ctx, done.Key, v); err != nil {
				done.Action, done.Error, covered = UndeleteFailed, oneLine(err), true
				u.failures++
				if u.failure == nil {
					u.failure = err
				}
			}
		}
		u.res.Versions = append(u.res.Versions, done)
	}
	if covered {
		u.res.Covered++
	}
	return nil
}

// expired is since when a rule of the bucket may have expired the archive, zero
// when none has. The markers that it set are no accident: to remove those of
// every archive would bring back what is to go, and pay for it once more.
func (u *undeleting) expired(ctx context.Context, e Entry) (time.Time, error) {
	if !u.opts.All || !e.Hidden {
		return time.Time{}, nil
	}
	m, _, err := readManifest(ctx, u.opts.Bucket, e)
	switch {
	case errors.Is(err, ErrIntegrity), errors.Is(err, storage.ErrIntegrity), errors.Is(err, ErrFormat),
		errors.Is(err, storage.ErrPermission), errors.Is(err, storage.ErrNotExist):
		return time.Time{}, nil // it promises nothing that is known: it is uncovered
	case err != nil:
		return time.Time{}, err
	case m.Kept == nil || m.Kept.Expiry != ExpiryStore || u.now().Before(m.Kept.KeepUntil):
		return time.Time{}, nil
	}
	return m.Kept.KeepUntil, nil
}

func (u *undeleting) now() time.Time {
	if u.opts.Now == nil {
		return time.Now()
	}
	return u.opts.Now()
}

func (u *undeleting) remove(ctx context.Context, key string, v EntryVersion) error {
	if v.Version == "" {
		return fmt.Errorf("%s: the store named no version to delete", key)
	}
	return u.opts.Bucket.Delete(ctx, key, v.Version)
}

// original makes sure, before what lies over them is deleted, that the oldest
// versions are those that the manifest names: if they are not, a version that
// seems to lie over an object may be the object.
func (u *undeleting) original(ctx context.Context, e Entry) error {
	m, _, err := readManifest(ctx, u.opts.Bucket, e)
	if err != nil {
		return err
	}
	for _, o := range []*StoredObject{&m.Objects.Dump, m.Objects.Index, m.Objects.Globals} {
		if o == nil {
			continue
		}
		if name := o.Key[len(e.Key):]; o.Version == "" || e.version(name) != o.Version {
			return integrity("the oldest version of %s is not the one that the manifest names: later versions are left alone", o.Key)
		}
	}
	return nil
}
