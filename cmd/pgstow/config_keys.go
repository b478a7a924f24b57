package main

import (
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/pgstow/pgstow/archiver"
)

// keys is the entry "keys": what archives are encrypted to and signed with, and
// whose signatures count. It names files and recipients; secrets it holds none.
type keys struct {
	encryptTo        []string // recipients, or files of them
	sign             string   // a private key file, a public one, or archiver.AgentKey
	allowedSigners   string
	identities       []string // files
	requireSignature bool
}

// What a policy says about keys and proofs.
const (
	wordRequired = "required"
	wordNone     = "none"
)

// evidence is what a policy asks for beside how archives are kept.
type evidence struct {
	encrypt     string // wordRequired, wordNone, or "": where there are recipients
	encryptTo   []string
	sign        bool // required
	drillEvery  archiver.Period
	verifyEvery archiver.Period
	drillPart   bool // a drill of some tables counts
}

func (r *configReader) keys(n *yaml.Node) {
	k := &r.config.keys
	at := map[string]*yaml.Node{}
	known := fields{
		"encrypt-to": func(_, v *yaml.Node) { k.encryptTo = r.recipients(v, "keys: encrypt-to") },
		"sign": func(_, v *yaml.Node) {
			if t, ok := r.text(v, "keys: sign"); ok {
				k.sign = t.value
				if k.sign != archiver.AgentKey {
					k.sign = r.beside(t.value)
				}
			}
		},
		"allowed-signers": func(_, v *yaml.Node) {
			if t, ok := r.text(v, "keys: allowed-signers"); ok {
				k.allowedSigners = r.beside(t.value)
			}
		},
		"identities": func(_, v *yaml.Node) {
			for _, t := range r.texts(v, "keys: identities") {
				if strings.HasPrefix(strings.ToUpper(t.value), "AGE-") {
					r.add(t.node, "keys: identities: an identity is a secret: put it into a file of its own and name that")
					continue
				}
				k.identities = append(k.identities, r.beside(t.value))
			}
		},
		"require-signature": func(_, v *yaml.Node) { k.requireSignature, _ = r.flag(v, "keys: require-signature") },
	}
	for name, read := range known {
		known[name] = func(key, value *yaml.Node) {
			at[name] = key
			read(key, value)
		}
	}
	r.object(n, "keys", known, func(key string) string {
		if strings.Contains(strings.ToLower(key), "pass") {
			return "no secrets in this file: a key with a passphrase is for the SSH agent, whose public key file goes to sign"
		}
		return ""
	})
	if k.requireSignature && at["allowed-signers"] == nil {
		r.add(at["require-signature"], "keys: require-signature needs allowed-signers, which says whose signatures count")
	}
}

// evidenceFields read what a policy asks for beside how archives are kept.
func (r *configReader) evidenceFields(p *policy, what string) fields {
	return fields{
		"encrypt": func(_, v *yaml.Node) {
			p.evidence.encrypt, _ = r.word(v, what+": encrypt", wordRequired, wordNone)
		},
		"encrypt-to": func(_, v *yaml.Node) { p.evidence.encryptTo = r.recipients(v, what+": encrypt-to") },
		"sign": func(_, v *yaml.Node) {
			_, p.evidence.sign = r.word(v, what+": sign", wordRequired)
		},
		"drill-every":  func(_, v *yaml.Node) { p.evidence.drillEvery, _ = r.period(v, what+": drill-every") },
		"verify-every": func(_, v *yaml.Node) { p.evidence.verifyEvery, _ = r.period(v, what+": verify-every") },
		"drill-part":   func(_, v *yaml.Node) { p.evidence.drillPart, _ = r.flag(v, what+": drill-part") },
	}
}

// evidenceFaults finds what contradicts itself.
func (r *configReader) evidenceFaults(p *policy) {
	if p.evidence.encrypt == wordNone && p.at["encrypt-to"] != nil {
		r.add(p.at["encrypt-to"], "policy %s: encrypt-to: there is nothing to encrypt with encrypt: none", p.Name)
	}
	if p.at["drill-part"] != nil && p.at["drill-every"] == nil {
		r.add(p.at["drill-part"], "policy %s: drill-part says which drills count for drill-every, which is not there", p.Name)
	}
}

// recipients are a list of recipients and of files that hold some, which are
// relative to the configuration.
func (r *configReader) recipients(n *yaml.Node, what string) (list []string) {
	for _, t := range r.texts(n, what) {
		switch {
		case strings.HasPrefix(strings.ToUpper(t.value), "AGE-SECRET-KEY-"), strings.HasPrefix(strings.ToUpper(t.value), "AGE-PLUGIN-"):
			r.add(t.node, "%s: this is an identity, which is secret; want its recipient", what)
		case strings.HasPrefix(t.value, "age1"), strings.HasPrefix(t.value, "ssh-"):
			list = append(list, t.value)
		default:
			list = append(list, r.beside(t.value))
		}
	}
	return list
}

// texts are those of a list that is not empty.
func (r *yamlReader) texts(n *yaml.Node, what string) (list []text) {
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.add(n, "%s: the list is empty", what)
	}
	for _, e := range r.elements(n, what) {
		if t, ok := r.text(e, what); ok {
			list = append(list, t)
		}
	}
	return list
}
