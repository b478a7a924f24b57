package storage

import "strings"

// EncryptionMode is who keeps the key of encryption at the store's side.
type EncryptionMode string

const (
	// EncryptionDefault asks for nothing: what the bucket does by itself.
	EncryptionDefault EncryptionMode = ""
	// EncryptionStore is a key of the store's own: S3's SSE-S3. GCS encrypts
	// so in any case and refuses to be asked.
	EncryptionStore EncryptionMode = "s3"
	// EncryptionKMS is a key in the provider's key service: S3's SSE-KMS, GCS's
	// customer-managed keys.
	EncryptionKMS EncryptionMode = "kms"
)

// Encryption at the store's side.
type Encryption struct {
	Mode EncryptionMode
	// Key names the KMS key: id, ARN or alias on S3, where "" is the account's
	// own; the resource name projects/P/locations/L/keyRings/R/cryptoKeys/K on
	// GCS, which has no default. Stores show it in their own spelling, see
	// Covers.
	Key string
}

// IsZero reports whether nothing is asked for or shown.
func (e Encryption) IsZero() bool { return e == Encryption{} }

// Covers reports whether e, as a store shows it, is what want asks for or more:
// a key of the key service covers one of the store's own. A key may be shown in
// another spelling than it was asked for, as an ARN instead of an id, or with
// its version; spellings that can belong to one key cover each other. An alias
// is a name that only the key service resolves: any key of its region and
// account covers it, as far as both spellings tell them.
func (e Encryption) Covers(want Encryption) bool {
	switch want.Mode {
	case EncryptionDefault:
		return true
	case EncryptionStore:
		return e.Mode == EncryptionStore || e.Mode == EncryptionKMS
	case EncryptionKMS:
		return e.Mode == EncryptionKMS && (want.Key == "" || parseKMSKey(e.Key).covers(parseKMSKey(want.Key)))
	}
	return false
}

// kmsKey is a key's name taken apart; what a spelling does not tell is "".
type kmsKey struct {
	partition, region, account string // of an ARN
	id                         string
	alias                      bool
}

// parseKMSKey reads arn:aws:kms:REGION:ACCOUNT:key/ID, key/ID, ID, the same
// with alias/NAME, MinIO's arn:aws:kms:ID, and GCS's resource names.
func parseKMSKey(name string) kmsKey {
	if base, _, ok := strings.Cut(name, "/cryptoKeyVersions/"); ok || strings.Contains(name, "/cryptoKeys/") {
		return kmsKey{id: base}
	}
	k := kmsKey{id: name}
	if parts := strings.SplitN(name, ":", 6); parts[0] == "arn" && len(parts) > 3 {
		k.partition, k.id = parts[1], strings.Join(parts[3:], ":")
		if len(parts) == 6 {
			k.region, k.account, k.id = parts[3], parts[4], parts[5]
		}
	}
	if alias, ok := strings.CutPrefix(k.id, "alias/"); ok {
		k.id, k.alias = alias, true
	}
	k.id = strings.TrimPrefix(k.id, "key/")
	return k
}

func (k kmsKey) covers(want kmsKey) bool {
	for _, told := range [][2]string{{k.partition, want.partition}, {k.region, want.region}, {k.account, want.account}} {
		if told[0] != "" && told[1] != "" && told[0] != told[1] {
			return false
		}
	}
	if k.id == "" || want.alias != k.alias {
		return k.id != "" && want.alias
	}
	return k.id == want.id
}
