package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

const (
	lockNone = "none"
	// maxCount bounds keep-last and its like: more is a typo.
	maxCount = 10_000
)

func (r *configReader) policy(key, value *yaml.Node) {
	p := &policy{key: key, at: map[string]*yaml.Node{}}
	p.Name = key.Value
	what := "policy " + p.Name
	if p.Name == archiver.DefaultPolicy {
		r.add(key, "%s: the name is that of archives without a policy; choose another", what)
	}
	known := fields{
		"keep": func(_, v *yaml.Node) { p.Keep, _ = r.period(v, what+": keep") },
		"lock": func(_, v *yaml.Node) {
			w, _ := r.word(v, what+": lock", lockNone, string(storage.Governance), string(storage.Compliance))
			p.Lock = lockMode(w)
		},
		"legal-hold": func(_, v *yaml.Node) { p.LegalHold, _ = r.flag(v, what+": legal-hold") },
		"storage-class": func(_, v *yaml.Node) {
			p.StorageClass = r.class(v, what+": storage-class")
		},
		"sse":         func(_, v *yaml.Node) { p.Encryption = r.sse(v, what+": sse") },
		"transitions": func(_, v *yaml.Node) { r.transitions(p, v, what+": transitions") },
		"tags":        func(_, v *yaml.Node) { r.tags(p, v, what+": tags") },
		"expiry": func(_, v *yaml.Node) {
			p.Expiry, _ = r.word(v, what+": expiry", archiver.ExpiryPgstow, archiver.ExpiryStore)
		},
	}
	maps.Copy(known, r.evidenceFields(p, what))
	for name, field := range p.counts() {
		known[name] = func(_, v *yaml.Node) { *field, _ = r.count(v, what+": "+name, maxCount) }
	}
	for name, read := range known {
		known[name] = func(key, value *yaml.Node) {
			p.at[name] = key
			read(key, value)
		}
	}
	r.object(value, what, known, func(key string) string {
		return notYet(key, "notify")
	})
	r.config.policies = append(r.config.policies, p)
}

// counts are the fields that say how many archives stay.
func (p *policy) counts() map[string]*int {
	return map[string]*int{
		"keep-last": &p.KeepLast, "keep-daily": &p.KeepDaily, "keep-weekly": &p.KeepWeekly,
		"keep-monthly": &p.KeepMonthly, "keep-yearly": &p.KeepYearly,
	}
}

func lockMode(word string) storage.LockMode {
	if word == lockNone {
		return storage.LockNone
	}
	return storage.LockMode(word)
}

var className = regexp.MustCompile(`^[A-Z0-9_]{1,64}$`)

// class reads a storage class; stores have their own, so that only its form can
// be wrong here.
func (r *configReader) class(n *yaml.Node, what string) string {
	t, ok := r.text(n, what)
	if ok && !className.MatchString(t.value) {
		r.add(n, "%s: %s: want the name of a class, such as STANDARD_IA", what, t.shown())
		return ""
	}
	return t.value
}

func (r *configReader) sse(n *yaml.Node, what string) archiver.Encryption {
	t, ok := r.text(n, what)
	if !ok {
		return archiver.Encryption{}
	}
	e, err := parseEncryption(t.value)
	if err != nil {
		r.add(n, "%s: %s: %v", what, t.shown(), err)
	}
	return e
}

// parseEncryption reads s3, kms or kms:KEY.
func parseEncryption(text string) (archiver.Encryption, error) {
	mode, key, hasKey := strings.Cut(text, ":")
	switch mode := storage.EncryptionMode(mode); {
	case mode == storage.EncryptionKMS && (!hasKey || key != ""), mode == storage.EncryptionStore && !hasKey:
		return archiver.Encryption{Mode: mode, Key: key}, nil
	}
	return archiver.Encryption{}, errors.New("want s3, kms or kms:KEY")
}

// transitions and tags note where each of theirs stands.
func (r *configReader) transitions(p *policy, n *yaml.Node, what string) {
	for _, e := range r.elements(n, what) {
		if e.Kind != yaml.MappingNode {
			r.add(e, "%s: want {after: PERIOD, to: CLASS}", what)
			continue
		}
		var t archiver.Transition
		given := 0
		r.object(e, what, fields{
			"after": func(_, v *yaml.Node) { given++; t.After, _ = r.period(v, what+": after") },
			"to":    func(_, v *yaml.Node) { given++; t.To = r.class(v, what+": to") },
		}, func(string) string { return "" })
		if given < 2 {
			r.add(e, "%s: want {after: PERIOD, to: CLASS}", what)
		}
		if t.To != "" && !t.After.IsZero() { // else it was told
			p.at[fmt.Sprintf("transitions.%d", len(p.Transitions))] = e
			p.Transitions = append(p.Transitions, t)
		}
	}
}

func (r *configReader) tags(p *policy, n *yaml.Node, what string) {
	p.Tags = map[string]string{}
	r.each(n, what, func(key, value *yaml.Node) {
		if t, ok := r.text(value, what+": "+key.Value); ok {
			p.at["tags."+key.Value] = key
			p.Tags[key.Value] = t.value
		}
	})
}
