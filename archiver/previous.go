package archiver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// Previous is what a manifest says of the archives before it: the heads of the
// label's chain, so that one that vanishes before its time is missed.
type Previous struct {
	// Unreadable: these credentials may not see what is there.
	Unreadable bool
	Archives   []Predecessor
}

// Predecessor is an archive as a later one saw it.
type Predecessor struct {
	ID     string `json:"id"`
	SHA256 string `json:"sha256"` // of its manifest
	// KeepUntil is until when it is promised to be there; zero without a promise.
	KeepUntil time.Time `json:"keep_until,omitzero"`
}

const previousUnreadable = "unreadable"

// MarshalJSON is a list, or "unreadable".
func (p Previous) MarshalJSON() ([]byte, error) {
	if p.Unreadable {
		return json.Marshal(previousUnreadable)
	}
	if p.Archives == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(p.Archives)
}

// UnmarshalJSON reads both.
func (p *Previous) UnmarshalJSON(raw []byte) error {
	*p = Previous{}
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte(`"`)) {
		return json.Unmarshal(raw, &p.Archives)
	}
	var word string
	if err := json.Unmarshal(raw, &word); err != nil {
		return err
	}
	if p.Unreadable = word == previousUnreadable; !p.Unreadable {
		return fmt.Errorf("previous is %q, neither a list nor %q", word, previousUnreadable)
	}
	return nil
}

const (
	// maxHeads bounds how many manifests are read for one new archive. One that
	// was made after another knows that one, so that it is mostly one.
	maxHeads = 16
	// maxLooked bounds it for a signed one, which lets only archives that the same
	// key has signed speak for others.
	maxLooked = 64
	// maxPrevious bounds the list: what is kept longest stays.
	maxPrevious = 256
	// chainMargin makes up for clocks, and for runs that overlap.
	chainMargin = time.Hour
)

// readPrevious finds the archives of a label that no other one of it names yet,
// whatever their policy, and passes on what those name and do not outlive: one
// listing, and the manifests of the newest. Its errors are those of reading.
//
// Whoever may write could put an archive there that claims to name all others, so
// that the next one would not, and nobody would miss them. So the one who signs
// with a key (its fingerprint; "" for none) takes only the word of archives that
// the same key has signed, and names all those that came since.
func readPrevious(ctx context.Context, b storage.Bucket, label, key string, now time.Time) (*Previous, error) {
	all, err := scan(ctx, b, label, nil)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(e Entry) bool { return !e.Complete })
	committed := func(e Entry) time.Time { return e.object(ManifestName).Created }
	slices.SortStableFunc(all, func(a, b Entry) int { return committed(b).Compare(committed(a)) })

	most := maxHeads
	if key != "" {
		most = maxLooked
	}
	found := map[string]Predecessor{}
	named := map[string]bool{}
	var heads []*Manifest
	var covered time.Time // what was there then is named by one that was read
	for i := range all {
		e := &all[i]
		if len(heads) == maxHeads || i == most || committed(*e).Before(covered) {
			break
		}
		raw, err := readManifestBytes(ctx, b, *e)
		if err != nil {
			return nil, err
		}
		p := Predecessor{ID: e.ID, SHA256: hexSum(raw)}
		// One that cannot be understood names nobody, and is named all the same.
		if m, err := decodeManifest(raw, e.dir()); err == nil {
			p.KeepUntil = m.keepUntil()
			speaks, err := signedWith(ctx, b, *e, raw, key)
			if err != nil {
				return nil, err
			}
			if !speaks {
				found[e.ID] = p
				continue
			}
			heads = append(heads, m)
			if m.Previous != nil && !m.Previous.Unreadable {
				covered = later(covered, e.began().Add(-chainMargin))
				for _, older := range m.Previous.Archives {
					named[older.ID] = true
				}
			}
		}
		found[e.ID] = p
	}
	maps.DeleteFunc(found, func(id string, _ Predecessor) bool { return named[id] })
	carry(found, heads, now)
	return &Previous{Archives: sortPrevious(found)}, nil
}

// signedWith reports whether the key with this fingerprint has signed the
// manifest; "" wants no signature.
func signedWith(ctx context.Context, b storage.Bucket, e Entry, raw []byte, key string) (bool, error) {
	if key == "" {
		return true, nil
	}
	s, err := readSignature(ctx, b, e, ManifestName, raw, Trust{})
	return err == nil && s.State == SignatureUnjudged && s.Fingerprint == key, err
}

// carry adds what the heads name and do not outlive: when they have gone nobody
// else would know of it.
func carry(found map[string]Predecessor, heads []*Manifest, now time.Time) {
	for _, m := range heads {
		if _, is := found[m.ID]; !is || m.Previous == nil {
			continue
		}
		for _, p := range m.Previous.Archives {
			if _, has := found[p.ID]; !has && p.KeepUntil.After(later(m.keepUntil(), now)) {
				found[p.ID] = p
			}
		}
	}
}

// sortPrevious puts what is kept longest first.
func sortPrevious(found map[string]Predecessor) []Predecessor {
	list := slices.SortedFunc(maps.Values(found), func(a, b Predecessor) int {
		return cmp.Or(b.KeepUntil.Compare(a.KeepUntil), cmp.Compare(a.ID, b.ID))
	})
	return list[:min(len(list), maxPrevious)]
}

// keepUntil is what the archive was promised when it was made.
func (m *Manifest) keepUntil() time.Time {
	if m.Kept == nil {
		return time.Time{}
	}
	return m.Kept.KeepUntil
}

// began is the earliest that is known of the archive, by either clock.
func (e *Entry) began() time.Time {
	at := e.Time
	for _, o := range e.Objects {
		if !o.Created.IsZero() && o.Created.Before(at) {
			at = o.Created
		}
	}
	return at
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// lookBack notes the archives before this one. An archive does not fail for
// those that cannot be read: the next one that can read them names them.
func (r *archiveRun) lookBack(ctx context.Context) error {
	bounded, cancel := r.bounded(ctx)
	defer cancel()
	key := ""
	if r.opts.Signer != nil {
		key = r.opts.Signer.Fingerprint()
	}
	previous, err := readPrevious(bounded, r.opts.Bucket, r.dir.Label, key, r.opts.Now())
	if err == nil {
		r.manifest.Previous = previous
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.manifest.Previous = &Previous{Unreadable: true}
	if !errors.Is(err, storage.ErrPermission) {
		r.warn("the archives before this one could not be read, and are not named in it: " + oneLine(causeOf(bounded, err)))
	}
	return nil
}

// Kinds of ChainFault.
const (
	ChainVanished = "vanished" // it is not there, and its time has not come
	ChainReplaced = "replaced" // it is there with another manifest
)

// ChainFault is an archive that later ones name and that is not as they say.
type ChainFault struct {
	Kind string `json:"kind"`
	Predecessor
	Label   string   `json:"label"`
	NamedBy []string `json:"named_by"`        // ids, oldest first
	Found   string   `json:"found,omitempty"` // the SHA-256 of the manifest that is there
}

// ChainFaults compares what manifests say of the archives before them with what
// is there. all are the archives of a label or of several, complete ones, with
// their manifests loaded: what is not among them counts as gone. A manifest that
// is known to be badly signed accuses nobody. The last archives of a label are
// named by none, so that their end is not seen here.
func ChainFaults(all []Entry, now time.Time) []ChainFault {
	there := map[string]*Entry{}
	for i := range all {
		there[all[i].ID] = &all[i]
	}
	type fact struct{ id, sha256 string }
	faults := map[fact]*ChainFault{}
	for i := range all {
		e := &all[i]
		if e.Manifest == nil || e.Manifest.Previous == nil || e.badlySigned() {
			continue
		}
		for _, p := range e.Manifest.Previous.Archives {
			f := ChainFault{Predecessor: p, Label: e.Label}
			switch old := there[p.ID]; {
			case old == nil && p.KeepUntil.After(now):
				f.Kind = ChainVanished
			case old != nil && old.ManifestSHA256 != "" && old.ManifestSHA256 != p.SHA256:
				f.Kind, f.Found = ChainReplaced, old.ManifestSHA256
			default:
				continue
			}
			known := faults[fact{p.ID, p.SHA256}]
			if known == nil {
				known = &f
				faults[fact{p.ID, p.SHA256}] = known
			}
			known.NamedBy = append(known.NamedBy, e.ID)
		}
	}
	list := make([]ChainFault, 0, len(faults))
	for _, f := range faults {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b ChainFault) int {
		return cmp.Or(cmp.Compare(a.Label, b.Label), cmp.Compare(a.ID, b.ID), cmp.Compare(a.SHA256, b.SHA256))
	})
	return list
}

// badlySigned: the signature was judged, and does not count.
func (e *Entry) badlySigned() bool {
	return e.Signature != nil && (e.Signature.State == SignatureInvalid || e.Signature.State == SignatureUntrusted)
}
