package gcsserver

import (
	"encoding/json"
	"slices"
)

// checkLifecycle refuses lifecycle rules that Cloud Storage refuses. They are
// stored and returned, and not obeyed.
// https://cloud.google.com/storage/docs/lifecycle
func checkLifecycle(section any) *apiError {
	raw, err := json.Marshal(section)
	if err != nil {
		return badRequest("Parse Error: %v", err)
	}
	var l struct {
		Rule []struct {
			Action    map[string]string `json:"action"`
			Condition map[string]any    `json:"condition"`
		} `json:"rule"`
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return badRequest("Invalid value for lifecycle: %v", err)
	}
	if len(l.Rule) > 100 { // https://cloud.google.com/storage/quotas#buckets
		return badRequest("A bucket can have at most 100 lifecycle rules.")
	}
	for _, r := range l.Rule {
		if len(r.Condition) == 0 {
			return badRequest("At least one condition is required in a lifecycle rule.")
		}
		for name, value := range r.Condition {
			if n, ok := value.(float64); ok && n < 0 {
				return badRequest("Invalid value for %s: %v", name, n)
			}
		}
		switch r.Action["type"] {
		case "Delete":
		case "SetStorageClass":
			if !slices.Contains([]string{"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL", "DURABLE_REDUCED_AVAILABILITY"}, r.Action["storageClass"]) {
				return badRequest("Invalid storage class: %q", r.Action["storageClass"])
			}
		case "AbortIncompleteMultipartUpload":
			for name := range r.Condition {
				if !slices.Contains([]string{"age", "matchesPrefix", "matchesSuffix"}, name) {
					return badRequest("%s is no condition for AbortIncompleteMultipartUpload.", name)
				}
			}
		default:
			return badRequest("Invalid lifecycle action: %q", r.Action["type"])
		}
	}
	return nil
}
