package archiver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

const maxLabel = 100

// DefaultPolicy is the policy segment of archives made without a named policy.
const DefaultPolicy = "default"

// CheckLabel refuses what cannot be a label: [A-Za-z0-9._-]{1,100}, and not
// "." or "..", which file systems and some clients resolve as paths.
func CheckLabel(s string) error {
	if s == "" || len(s) > maxLabel || s == "." || s == ".." || strings.IndexFunc(s, notLabel) >= 0 {
		return fmt.Errorf("%w: label %q: use 1 to %d of A-Z a-z 0-9 . _ -", ErrUsage, s, maxLabel)
	}
	return nil
}

func notLabel(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
		return false
	}
	return true
}

// DefaultLabel is the label of an unnamed archive: the host's first label
// (an address whole, "local" for a socket), a dot, and the database. Where
// characters had to be replaced or cut off, a hash of the original follows,
// so that two databases never share a label by accident.
func DefaultLabel(host, database string) string {
	switch _, err := netip.ParseAddr(host); {
	case host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@"):
		host = "local"
	case err != nil:
		host, _, _ = strings.Cut(host, ".")
	}
	whole := host + "." + database
	clean := strings.Map(func(r rune) rune {
		if notLabel(r) {
			return '-'
		}
		return r
	}, whole)
	if clean == whole && len(clean) <= maxLabel && CheckLabel(clean) == nil {
		return clean
	}
	sum := sha256.Sum256([]byte(whole))
	suffix := "-" + hex.EncodeToString(sum[:4])
	return clean[:min(len(clean), maxLabel-len(suffix))] + suffix
}
