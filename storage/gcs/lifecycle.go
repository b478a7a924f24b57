package gcs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"time"

	"google.golang.org/api/googleapi"

	"github.com/pgstow/pgstow/storage"
)

// The document goes over the wire as raw JSON, not through the client's types:
// they drop conditions that they do not model and all that are zero, and most
// rules in a bucket are somebody else's.

// LifecycleFeatures tells what lifecycle rules of Cloud Storage can say.
// https://cloud.google.com/storage/docs/lifecycle
func (b *Bucket) LifecycleFeatures() (storage.LifecycleFeatures, bool) {
	return storage.LifecycleFeatures{
		Suffixes: true, CustomTime: true, Uploads: storage.UploadsByStore, MaxRules: 100,
		Classes: []string{"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"}, OnlyClasses: true,
		Limits: []string{
			"Cloud Storage's rules have no ids: one that matches exactly a policy's prefix and is of a form that pgstow writes is taken for its own; at the bucket's root only where a policy wants it.",
			"Cloud Storage's rules match no tags: dumps are found by the end of their keys, and archives expire by their custom time.",
			"A changed rule takes up to 24 hours to be obeyed, and expired objects stay for the bucket's soft-delete time.",
		},
	}, true
}

// lifecycleDoc is a bucket's lifecycle section, its rules as they came.
type lifecycleDoc struct {
	Metageneration json.Number                `json:"metageneration"`
	Lifecycle      map[string]json.RawMessage `json:"lifecycle"`
	rules          [][]byte
}

// bucketURL is the bucket's resource, cut down to what is looked at here.
func (b *Bucket) bucketURL(query url.Values) string {
	query.Set("fields", "metageneration,lifecycle")
	return b.cfg.Endpoint + "/storage/v1/b/" + url.PathEscape(b.cfg.Bucket) + "?" + query.Encode()
}

func (b *Bucket) readLifecycle(ctx context.Context) (lifecycleDoc, error) {
	var doc lifecycleDoc
	res, err := b.call(ctx, http.MethodGet, b.bucketURL(url.Values{}), nil, nil)
	if err != nil {
		return doc, err
	}
	if err := json.NewDecoder(res.Body).Decode(&doc); err != nil {
		return doc, fmt.Errorf("the bucket's settings: %w", err)
	}
	if doc.Metageneration == "" {
		return doc, errors.New("the bucket's settings have no metageneration")
	}
	if raw := doc.Lifecycle["rule"]; raw != nil {
		var rules []json.RawMessage
		if err := json.Unmarshal(raw, &rules); err != nil {
			return doc, fmt.Errorf("the bucket's lifecycle rules: %w", err)
		}
		for _, rule := range rules {
			doc.rules = append(doc.rules, rule)
		}
	}
	return doc, nil
}

// Lifecycle reads the bucket's lifecycle rules.
func (b *Bucket) Lifecycle(ctx context.Context) (storage.Lifecycle, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	doc, err := b.readLifecycle(ctx)
	if err != nil {
		return storage.Lifecycle{}, b.lifecycleError(ctx, "read lifecycle rules", "storage.buckets.get", err)
	}
	l := storage.Lifecycle{Revision: doc.Metageneration.String()}
	for _, raw := range doc.rules {
		rule, err := parseRule(raw)
		if err != nil {
			return storage.Lifecycle{}, b.fail(ctx, "read lifecycle rules", "", err)
		}
		l.Rules = append(l.Rules, rule)
	}
	return l, nil
}

// SetLifecycle writes the rules under the precondition that the bucket's
// settings are the ones that were read.
// https://cloud.google.com/storage/docs/json_api/v1/buckets/patch
func (b *Bucket) SetLifecycle(ctx context.Context, l storage.Lifecycle) error {
	const op, right = "write lifecycle rules", "storage.buckets.update"
	rules := make([][]byte, 0, len(l.Rules))
	for _, r := range l.Rules {
		raw := r.Raw
		if raw == nil {
			var err error
			if raw, err = encodeRule(r); err != nil {
				return &storage.Error{Op: op, Kind: errors.ErrUnsupported, Err: err}
			}
		}
		rules = append(rules, raw)
	}
	// A patch merges: what else stands in the section stays. An empty list
	// removes the rules.
	body := slices.Concat([]byte(`{"lifecycle":{"rule":[`), bytes.Join(rules, []byte(",")), []byte(`]}}`))
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	_, err := b.call(ctx, http.MethodPatch, b.bucketURL(url.Values{"ifMetagenerationMatch": {l.Revision}}), body,
		http.Header{"Content-Type": {"application/json"}})
	var api *googleapi.Error
	if asAPI(err, &api) && api.Code == http.StatusPreconditionFailed {
		// A repeated request meets what the first one did, whose reply was lost.
		if doc, readErr := b.readLifecycle(ctx); readErr == nil && slices.EqualFunc(doc.rules, rules, sameJSON) {
			return nil
		}
		return &storage.Error{Op: op, Kind: storage.ErrChanged, Err: storage.ErrChanged}
	}
	return b.lifecycleError(ctx, op, right, err)
}

func (b *Bucket) lifecycleError(ctx context.Context, op, right string, err error) error {
	err = b.fail(ctx, op, "", err)
	var api *googleapi.Error
	var failed *storage.Error
	switch {
	case err == nil || !errors.As(err, &failed):
		return err
	case errors.Is(err, storage.ErrPermission):
		failed.Err = &sdkError{text: failed.Err.Error() + "; it needs " + right, err: failed.Err}
	case asAPI(err, &api) && api.Code == http.StatusBadRequest:
		failed.Err = &sdkError{text: failed.Err.Error() + "; this store does not take one of the rules, nothing was changed", err: errors.Join(errors.ErrUnsupported, failed.Err)}
	}
	return failed
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// ruleJSON is a rule as far as it is understood.
// https://cloud.google.com/storage/docs/json_api/v1/buckets#lifecycle
type ruleJSON struct {
	Action struct {
		Type         string `json:"type"`
		StorageClass string `json:"storageClass,omitempty"`
	} `json:"action"`
	Condition struct {
		Age                     *int     `json:"age,omitempty"`
		CreatedBefore           string   `json:"createdBefore,omitempty"`
		DaysSinceCustomTime     *int     `json:"daysSinceCustomTime,omitempty"`
		DaysSinceNoncurrentTime *int     `json:"daysSinceNoncurrentTime,omitempty"`
		IsLive                  *bool    `json:"isLive,omitempty"`
		MatchesPrefix           []string `json:"matchesPrefix,omitempty"`
		MatchesSuffix           []string `json:"matchesSuffix,omitempty"`
		MatchesStorageClass     []string `json:"matchesStorageClass,omitempty"`
		NumNewerVersions        *int     `json:"numNewerVersions,omitempty"`
	} `json:"condition"`
}

// parseRule reads what a rule says. Several conditions must all hold: the days
// are the largest of them, the clock is that one's.
func parseRule(raw []byte) (storage.LifecycleRule, error) {
	r := storage.LifecycleRule{Raw: raw}
	var x ruleJSON
	if err := json.Unmarshal(raw, &x); err != nil {
		return storage.LifecycleRule{}, fmt.Errorf("a lifecycle rule cannot be read: %w", err)
	}
	c := x.Condition
	r.Filter = storage.LifecycleFilter{Prefixes: c.MatchesPrefix, Suffixes: c.MatchesSuffix, Classes: c.MatchesStorageClass}
	a := storage.LifecycleAction{Clock: storage.LifecycleSinceCreation, Class: x.Action.StorageClass}
	for _, days := range []struct {
		n     *int
		clock storage.LifecycleClock
	}{
		{c.Age, storage.LifecycleSinceCreation}, {c.DaysSinceCustomTime, storage.LifecycleSinceCustomTime},
		{c.DaysSinceNoncurrentTime, storage.LifecycleSinceNoncurrent},
	} {
		if days.n != nil && (*days.n > a.Days || a.Days == 0) {
			a.Days, a.Clock = *days.n, days.clock
		}
	}
	if c.CreatedBefore != "" {
		a.Before, _ = time.Parse(time.DateOnly, c.CreatedBefore)
	}
	if c.NumNewerVersions != nil {
		a.NewerVersions = *c.NumNewerVersions
	}
	noncurrent := c.IsLive != nil && !*c.IsLive || c.DaysSinceNoncurrentTime != nil && *c.DaysSinceNoncurrentTime > 0 || a.NewerVersions > 0
	switch {
	case x.Action.Type == "Delete" && noncurrent:
		a.Kind = storage.LifecycleExpireNoncurrent
	case x.Action.Type == "Delete":
		a.Kind = storage.LifecycleExpire
	case x.Action.Type == "SetStorageClass" && noncurrent:
		a.Kind = storage.LifecycleTransitionNoncurrent
	case x.Action.Type == "SetStorageClass":
		a.Kind = storage.LifecycleTransition
	case x.Action.Type == "AbortIncompleteMultipartUpload":
		a.Kind = storage.LifecycleAbortUploads
	default:
		r.Unknown = append(r.Unknown, "action "+x.Action.Type)
	}
	if a.Kind != "" {
		r.Actions = []storage.LifecycleAction{a}
	}
	r.Unknown = append(r.Unknown, unknownParts(raw, x, a)...)
	return r, nil
}

// unknownParts names the parts of a rule that a, what was understood of it, does
// not show.
func unknownParts(raw []byte, x ruleJSON, a storage.LifecycleAction) []string {
	c := x.Condition
	noncurrent := a.Kind == storage.LifecycleExpireNoncurrent || a.Kind == storage.LifecycleTransitionNoncurrent
	shown := map[string]bool{
		"matchesPrefix": true, "matchesSuffix": true, "matchesStorageClass": true, "numNewerVersions": true,
		"createdBefore": !a.Before.IsZero(), "isLive": noncurrent && c.IsLive != nil && !*c.IsLive,
		"age":                     a.Clock == storage.LifecycleSinceCreation,
		"daysSinceCustomTime":     a.Clock == storage.LifecycleSinceCustomTime,
		"daysSinceNoncurrentTime": a.Clock == storage.LifecycleSinceNoncurrent,
	}
	var parts struct {
		Action, Condition map[string]json.RawMessage
	}
	var top map[string]json.RawMessage
	if json.Unmarshal(raw, &parts) != nil || json.Unmarshal(raw, &top) != nil {
		return []string{"all of it"}
	}
	var unknown []string
	for name := range parts.Condition {
		if !shown[name] {
			unknown = append(unknown, "condition "+name)
		}
	}
	for name := range parts.Action {
		if name != "type" && name != "storageClass" {
			unknown = append(unknown, "action "+name)
		}
	}
	for name := range top {
		if name != "action" && name != "condition" {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// encodeRule writes a rule of our own.
func encodeRule(r storage.LifecycleRule) ([]byte, error) {
	f := r.Filter
	if len(r.Actions) != 1 || r.Disabled || len(f.Tags) > 0 || f.LargerThan != 0 || f.SmallerThan != 0 || len(f.Prefixes) == 0 {
		return nil, errors.New("rules of Cloud Storage written here have prefixes and one action, and no tags and sizes")
	}
	a := r.Actions[0]
	if plain := (storage.LifecycleAction{Kind: a.Kind, Days: a.Days, Clock: a.Clock, Class: a.Class}); a != plain || a.Days < 1 {
		return nil, fmt.Errorf("no rule of Cloud Storage says %s after %d days", a.Kind, a.Days)
	}
	var x ruleJSON
	c := &x.Condition
	c.MatchesPrefix, c.MatchesSuffix, c.MatchesStorageClass = f.Prefixes, f.Suffixes, f.Classes
	switch a.Clock {
	case storage.LifecycleSinceCreation:
		c.Age = &a.Days
	case storage.LifecycleSinceCustomTime:
		c.DaysSinceCustomTime = &a.Days
	case storage.LifecycleSinceNoncurrent:
		c.DaysSinceNoncurrentTime = &a.Days
	}
	switch a.Kind {
	case storage.LifecycleTransition:
		x.Action.Type, x.Action.StorageClass = "SetStorageClass", a.Class
	case storage.LifecycleExpire, storage.LifecycleExpireNoncurrent:
		x.Action.Type = "Delete"
	default:
		return nil, errors.New("Cloud Storage has no action like " + string(a.Kind))
	}
	return json.Marshal(x)
}
