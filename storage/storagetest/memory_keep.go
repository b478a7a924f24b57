package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// checkOptions is what this bucket cannot do of a Put.
func (m *Memory) checkOptions(opts storage.PutOptions) error {
	e := opts.Encryption
	switch {
	case !m.opts.Lock && (!opts.Retention.IsZero() || opts.LegalHold):
		return errors.New("this bucket cannot lock")
	case !m.opts.CustomTime && !opts.CustomTime.IsZero():
		return errors.New("this bucket has no custom time")
	case e.Mode != storage.EncryptionDefault && e.Mode != storage.EncryptionStore && e.Mode != storage.EncryptionKMS:
		return fmt.Errorf("unknown encryption mode %q", e.Mode)
	}
	return storage.CheckTags(opts.Tags)
}

// retained is how an object is kept that asks for r.
func (m *Memory) retained(r storage.Retention) storage.Retention {
	if r.IsZero() {
		return m.opts.DefaultRetention.From(time.Now().Truncate(time.Second))
	}
	return r
}

// Blind is the same bucket for credentials that may not see some attributes.
func (m *Memory) Blind(denied ...storage.Attribute) storage.Bucket {
	return &blindMemory{Memory: m, denied: denied}
}

type blindMemory struct {
	*Memory
	denied []storage.Attribute
}

// Stat implements storage.Bucket.
func (b *blindMemory) Stat(ctx context.Context, key, version string) (storage.Object, error) {
	o, err := b.Memory.Stat(ctx, key, version)
	if err != nil {
		return o, err
	}
	o.Denied = slices.Clone(b.denied)
	for _, what := range o.Denied {
		switch what {
		case storage.AttributeRetention:
			o.Retention = storage.Retention{}
		case storage.AttributeLegalHold:
			o.LegalHold = false
		case storage.AttributeTags:
			o.Tags = nil
		}
	}
	return o, nil
}

// change edits one version in place, in a bucket that is able to.
func (m *Memory) change(op, key, version string, able bool, edit func(*memoryObject) error) error {
	if err := checkKey(op, key); err != nil {
		return err
	}
	if !able {
		return memoryError(op, key, errors.ErrUnsupported, "this bucket cannot do that")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(key, version)
	if i < 0 {
		return memoryError(op, key, storage.ErrNotExist, "nothing there")
	}
	return edit(&m.objects[key][i])
}

// SetRetention implements storage.RetentionSetter.
func (m *Memory) SetRetention(ctx context.Context, key, version string, r storage.Retention) error {
	return m.change("retain", key, version, m.opts.Lock, func(o *memoryObject) error {
		weaker := o.Retention.Mode == storage.Compliance && r.Mode != storage.Compliance
		if weaker || r.Until.Before(o.Retention.Until) {
			return memoryError("retain", key, storage.ErrLocked, "it would be shortened")
		}
		o.Retention = r
		return nil
	})
}

// Destroy removes a version whatever keeps it, as nobody but the store's own
// operator could.
func (m *Memory) Destroy(key, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = slices.DeleteFunc(m.objects[key], func(o memoryObject) bool { return o.Version == version })
	if len(m.objects[key]) == 0 {
		delete(m.objects, key)
	}
}

// SetLegalHold implements storage.RetentionSetter.
func (m *Memory) SetLegalHold(ctx context.Context, key, version string, on bool) error {
	return m.change("hold", key, version, m.opts.Lock, func(o *memoryObject) error {
		o.LegalHold = on
		return nil
	})
}

// SetCustomTime implements storage.CustomTimeSetter.
func (m *Memory) SetCustomTime(ctx context.Context, key, version string, at time.Time) error {
	return m.change("set custom time", key, version, m.opts.CustomTime, func(o *memoryObject) error {
		if at.Before(o.CustomTime) {
			return memoryError("set custom time", key, storage.ErrLocked, "it would move back")
		}
		o.CustomTime = at
		return nil
	})
}

// coldClasses have to be thawed before they are read.
var coldClasses = []string{"GLACIER", "DEEP_ARCHIVE"}

// cold refuses to read what is not thawed.
func (m *Memory) cold(o memoryObject) error {
	if o.Thaw.Readable(time.Now()) {
		return nil
	}
	return memoryError("open", o.Key, storage.ErrCold, "%s; `pgstow thaw` does that", o.StorageClass)
}

// Thaw implements storage.Thawer. A thaw ends when Thawed is called.
func (m *Memory) Thaw(ctx context.Context, key, version string, opts storage.ThawOptions) error {
	return m.change("thaw", key, version, true, func(o *memoryObject) error {
		switch {
		case !o.Thaw.Cold:
			return memoryError("thaw", key, errors.ErrUnsupported, "class %s is read as it is", o.StorageClass)
		case opts.Tier == storage.ThawExpedited && o.StorageClass == "DEEP_ARCHIVE":
			return memoryError("thaw", key, storage.ErrThawTier, "%s has no expedited thaw", o.StorageClass)
		case opts.Days < 1:
			return memoryError("thaw", key, nil, "%d days, at least one is needed", opts.Days)
		case o.Thaw.Until.After(time.Now()): // prolonged
			o.Thaw.Until = time.Now().UTC().Truncate(time.Second).AddDate(0, 0, opts.Days)
		case !o.Thaw.Ongoing:
			o.Thaw.Ongoing, o.thawDays = true, opts.Days
		}
		return nil
	})
}

// Thawed ends all thaws that are under way.
func (m *Memory) Thawed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, versions := range m.objects {
		for i := range versions {
			if o := &versions[i]; o.Thaw.Ongoing {
				o.Thaw.Ongoing = false
				o.Thaw.Until = time.Now().UTC().Truncate(time.Second).AddDate(0, 0, o.thawDays)
			}
		}
	}
}
