package gcsserver

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// kmsKeyName: https://cloud.google.com/kms/docs/getting-resource-ids
var kmsKeyName = regexp.MustCompile(`^projects/[^/]+/locations/([^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+$`)

// checkKMSKey settles which customer-managed key encrypts an object: the one it
// asks for, or else the bucket's default. The key lies where the bucket does, and
// the project's service agent must be allowed to use it. What is stored names
// the version that was the primary one then.
// https://cloud.google.com/storage/docs/encryption/customer-managed-keys
// It is called with s.mu held.
func (s *Server) checkKMSKey(b *bucket, m *metadata) *apiError {
	key := m.KMSKeyName
	if key == "" {
		key, _ = b.section("encryption")["defaultKmsKeyName"].(string)
	}
	if key == "" {
		return nil
	}
	parts := kmsKeyName.FindStringSubmatch(key)
	if parts == nil {
		return badRequest("Invalid Cloud KMS key name: %q", key)
	}
	location, _ := b.settings["location"].(string)
	if !strings.EqualFold(parts[1], location) {
		return badRequest("Cloud KMS key location %s must match the bucket's location %s.", parts[1], location)
	}
	version := s.opts.KMSKeys[key]
	if version == 0 {
		return &apiError{
			code: http.StatusForbidden, reason: "forbidden", xmlCode: "AccessDenied",
			message: "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has been authorized to use this key.",
		}
	}
	m.KMSKeyName = fmt.Sprintf("%s/cryptoKeyVersions/%d", key, version)
	return nil
}
