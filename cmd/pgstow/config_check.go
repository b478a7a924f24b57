package main

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

// across finds what no entry shows by itself: contradictions in a policy, and
// names and kinds that do not fit together.
func (r *configReader) across() {
	for _, p := range r.config.policies {
		r.evidenceFaults(p)
		for _, f := range p.Faults(r.config.maxKeep) {
			if p.at["keep"] != nil && p.Keep.IsZero() && (f.Field == "lock" || f.Field == "expiry") {
				continue // they miss the keep that was refused
			}
			r.add(p.place(f.Field), "policy %s: %s", p.Name, f.Text)
		}
	}
	for _, d := range r.config.databases {
		r.resolve(d)
		if d.policy == nil || d.store == nil || d.store.bucket.scheme == "" {
			continue
		}
		if why := unfit(d.policy.Policy, d.store.bucket.scheme); why != "" {
			r.add(d.policyAt, "database %s: policy %s does not fit store %s: %s", d.name, d.policy.Name, d.store.name, why)
		}
	}
}

// resolve finds the store and the policy that a database names.
func (r *configReader) resolve(d *database) {
	c := &r.config
	switch n := d.storeName; {
	case n.node != nil:
		if d.store = c.store(n.value); d.store == nil {
			r.add(n.node, "database %s: no store %s; there are: %s", d.name, n.shown(), c.storeNames())
		}
	case len(c.stores) == 1:
		d.store = c.stores[0]
	default:
		r.add(d.key, "database %s: names no store; there are: %s", d.name, c.storeNames())
	}
	if n := d.policyName; n.node != nil {
		if d.policy = c.policy(n.value); d.policy == nil {
			r.add(n.node, "database %s: no policy %s; there are: %s", d.name, n.shown(), c.policyNames())
		}
	}
}

// place is where a field stands, or the next larger thing.
func (p *policy) place(field string) *yaml.Node {
	for {
		if n := p.at[field]; n != nil {
			return n
		}
		dot := strings.LastIndexByte(field, '.')
		if dot < 0 {
			return p.key
		}
		field = field[:dot]
	}
}

// googleClasses are all there are; stores that speak S3 have classes of their
// own making.
var googleClasses = []string{"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"}

// unfit says why archives of a policy cannot be kept in stores of a kind, "" if
// they can.
func unfit(p archiver.Policy, scheme string) string {
	switch scheme {
	case "file":
		switch {
		case p.Lock != storage.LockNone:
			return "a folder cannot lock"
		case p.LegalHold:
			return "a folder knows no legal hold"
		case p.Encryption != archiver.Encryption{}:
			return "a folder does not encrypt"
		case p.Expiry == archiver.ExpiryStore:
			return "a folder deletes nothing by itself; want expiry: pgstow"
		}
	case "gs":
		switch e := p.Encryption; {
		case e.Mode == storage.EncryptionStore:
			return "sse: s3 is S3's; Google encrypts in any case, and with your own key as sse: kms:KEY"
		case e.Mode == storage.EncryptionKMS && e.Key == "":
			return "Google's KMS has no default key; want sse: kms:projects/P/locations/L/keyRings/R/cryptoKeys/K"
		}
		classes := []string{p.StorageClass}
		for _, t := range p.Transitions {
			classes = append(classes, t.To)
		}
		for _, class := range classes {
			if class != "" && !slices.Contains(googleClasses, class) {
				return class + " is no storage class of Google; want " + either(googleClasses)
			}
		}
	}
	return ""
}
