package archiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/storage"
)

// What ends unfinished uploads that nobody lists.
const (
	ProtectionRule    = "rule"    // lifecycle rules of the bucket, for every policy
	ProtectionPartial = "partial" // lifecycle rules, for some policies
	ProtectionStore   = "store"   // the store itself
	ProtectionServer  = "server"  // a setting of the server's, which cannot be read
	ProtectionNone    = "none"    // nothing
	ProtectionUnknown = "unknown" // the rules cannot be read
)

// UploadProtection is what ends unfinished uploads besides Cleanup. It matters
// most where listing them cannot be relied on.
type UploadProtection struct {
	By    string           `json:"by"`
	Rules []ProtectingRule `json:"rules,omitempty"`
	// Unprotected are the policies that no rule covers.
	Unprotected []string `json:"unprotected,omitempty"`
	Detail      string   `json:"detail"`           // what is in force, in a sentence
	Advice      string   `json:"advice,omitempty"` // what to do about it
}

// ProtectingRule is the lifecycle rule that aborts a policy's uploads first.
type ProtectingRule struct {
	Policy string `json:"policy"`
	ID     string `json:"id,omitempty"`
	Own    bool   `json:"own"` // pgstow's
	Days   int    `json:"days"`
}

const applyAddsRule = "`pgstow lifecycle apply` adds a rule that does"

// ProtectUploads finds out what ends unfinished uploads below b. The policies
// are those that have objects or rules there, those given, and the default one.
func ProtectUploads(ctx context.Context, b storage.Bucket, policies ...string) UploadProtection {
	features, ok := storage.LifecycleFeaturesOf(b)
	switch {
	case !ok:
		return UploadProtection{By: ProtectionNone, Detail: "nothing but `pgstow cleanup` removes unfinished uploads here"}
	case features.Uploads == storage.UploadsByStore:
		return UploadProtection{By: ProtectionStore, Detail: "the store drops unfinished uploads by itself within a week, there is no rule to it"}
	case features.Uploads == storage.UploadsByAdmin:
		return UploadProtection{By: ProtectionServer,
			Detail: "the server drops unfinished uploads by a setting of its own (api stale_uploads_expiry, 24h unless changed), which cannot be read from here",
			Advice: "ask its operator; it must exceed the longest dump"}
	}
	l, err := newLifecycle(ctx, LifecycleOptions{Bucket: b})
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return UploadProtection{By: ProtectionNone, Detail: "this store has no lifecycle rules: nothing but `pgstow cleanup` removes unfinished uploads"}
	case err != nil:
		return UploadProtection{By: ProtectionUnknown, Detail: "the bucket's lifecycle rules cannot be read: " + oneLine(err)}
	}
	return l.protection(l.policyNames(ctx, policies))
}

func (l *lifecycle) protection(policies []string) UploadProtection {
	var p UploadProtection
	for _, policy := range policies {
		if best := l.abortingRule(policy); best != nil {
			p.Rules = append(p.Rules, *best)
		} else {
			p.Unprotected = append(p.Unprotected, policy)
		}
	}
	var says []string
	for _, r := range p.Rules {
		whose := "not pgstow's"
		if r.Own {
			whose = "pgstow's"
		}
		says = append(says, fmt.Sprintf("%s after %s (rule %q, %s)", r.Policy, inDays(r.Days), r.ID, whose))
	}
	switch {
	case len(p.Unprotected) == 0:
		p.By = ProtectionRule
		p.Detail = "the bucket's lifecycle rules abort unfinished uploads: policy " + strings.Join(says, ", ")
	case len(p.Rules) == 0:
		p.By = ProtectionNone
		p.Detail = "no lifecycle rule of the bucket aborts unfinished uploads below " + l.doc.Prefix
		p.Advice = applyAddsRule
	default:
		p.By = ProtectionPartial
		p.Detail = "the bucket's lifecycle rules abort unfinished uploads: policy " + strings.Join(says, ", ") +
			"; none does for " + strings.Join(p.Unprotected, ", ")
		p.Advice = applyAddsRule
	}
	return p
}

// abortingRule is the one that aborts a policy's uploads soonest. A rule covers
// them when all their keys start with its prefix.
func (l *lifecycle) abortingRule(policy string) *ProtectingRule {
	var best *ProtectingRule
	for _, r := range l.doc.Rules {
		f := r.Filter
		narrower := len(f.Suffixes)+len(f.Tags)+len(f.Classes) > 0 || f.LargerThan > 0 || f.SmallerThan > 0
		covers := len(f.Prefixes) == 0 || slices.ContainsFunc(f.Prefixes, func(prefix string) bool {
			return strings.HasPrefix(l.doc.Prefix+policy+"/", prefix)
		})
		if r.Disabled || narrower || !covers {
			continue
		}
		for _, a := range r.Actions {
			if a.Kind == storage.LifecycleAbortUploads && (best == nil || a.Days < best.Days) {
				_, own := l.own(r)
				best = &ProtectingRule{Policy: policy, ID: r.ID, Own: own, Days: a.Days}
			}
		}
	}
	return best
}

// maxPolicies bounds the requests of policyNames.
const maxPolicies = 200

// policyNames are the policies that there are, one request for each: a listing
// that jumps from one to the next. What cannot be listed is left out.
func (l *lifecycle) policyNames(ctx context.Context, given []string) []string {
	names := map[string]bool{DefaultPolicy: true}
	for _, name := range given {
		names[name] = true
	}
	for _, r := range l.doc.Rules {
		if o, ok := l.own(r); ok {
			names[o.policy] = true
		}
	}
	after := ""
	for range maxPolicies {
		next := ""
		for o, err := range l.Bucket.List(ctx, storage.ListOptions{StartAfter: after}) {
			if err == nil {
				next = o.Key
			}
			break
		}
		name, _, below := strings.Cut(next, "/")
		if next == "" {
			break
		}
		if dir, _, ok := ParseKey(next); ok {
			names[dir.Policy] = true
		}
		after = next
		if below {
			after = name + "/\U0010FFFF"
		}
	}
	return slices.Sorted(maps.Keys(names))
}
