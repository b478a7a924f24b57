package archiver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// verifiedChain is what archives say of each other.
type verifiedChain struct {
	vanished []ChainFault
	of       map[string][]Problem // by id: others say that its manifest was another one
}

// chain compares what the manifests of the archives and of their neighbours say of those
// before them with what is there. A manifest that cannot be read accuses nobody, and is
// found by its own archive's verification.
func (o VerifyOptions) chain(ctx context.Context, entries, all []Entry) (verifiedChain, error) {
	complete := slices.DeleteFunc(slices.Clone(all), func(e Entry) bool { return !e.Complete })
	near, err := o.neighbours(ctx, entries, complete)
	if err != nil {
		return verifiedChain{}, err
	}
	for i := range complete {
		if e := near[complete[i].ID]; e != nil {
			complete[i] = *e
		}
	}
	c := verifiedChain{of: map[string][]Problem{}}
	for _, f := range ChainFaults(complete, o.storeTime()) {
		if f.Kind == ChainVanished {
			c.vanished = append(c.vanished, f)
			continue
		}
		c.of[f.ID] = append(c.of[f.ID], Problem{Object: ManifestName, What: fmt.Sprintf("its SHA-256 is %s, and was %s when %s named it", f.Found, f.SHA256, strings.Join(f.NamedBy, ", "))})
	}
	return c, nil
}

// neighbours reads the manifests of the archives, of those that they name, and of the next
// ones of their labels, which may name them.
func (o VerifyOptions) neighbours(ctx context.Context, entries, all []Entry) (map[string]*Entry, error) {
	wanted := map[string]bool{}
	for _, e := range entries {
		wanted[e.ID] = true
		next := 0
		for _, other := range all { // oldest first
			if other.Label == e.Label && other.Time.After(e.Time) && next < maxHeads {
				wanted[other.ID] = true
				next++
			}
		}
	}
	near := map[string]*Entry{}
	for round := 0; round < 2; round++ {
		var load []Entry
		for _, e := range all {
			if wanted[e.ID] && near[e.ID] == nil {
				load = append(load, e)
			}
		}
		if err := LoadSigned(ctx, o.Bucket, load, o.Trust); err != nil {
			return nil, err
		}
		for i := range load {
			near[load[i].ID] = &load[i]
		}
		for _, e := range entries {
			if n := near[e.ID]; n != nil && n.Manifest != nil && n.Manifest.Previous != nil {
				for _, p := range n.Manifest.Previous.Archives {
					wanted[p.ID] = true
				}
			}
		}
	}
	return near, nil
}

// storeTime is now by the store's clock.
func (o VerifyOptions) storeTime() time.Time {
	return o.Now().UTC().Add(-o.Bucket.Capabilities().ClockSkew)
}

// String is what is wrong, in one line.
func (f ChainFault) String() string {
	if f.Kind == ChainVanished {
		return fmt.Sprintf("archive %s of %s, kept until %s, is not there any more; it is named by %s",
			f.ID, f.Label, f.KeepUntil.UTC().Format(time.RFC3339), strings.Join(f.NamedBy, ", "))
	}
	return fmt.Sprintf("archive %s of %s has another manifest than when it was named by %s", f.ID, f.Label, strings.Join(f.NamedBy, ", "))
}
