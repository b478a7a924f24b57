package archiver

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/pgstow/pgstow/storage"
)

// Profile is what credentials are meant for.
type Profile string

// The profiles.
const (
	// ProfileVault adds archives and can neither see nor change what is there.
	ProfileVault Profile = "vault"
	// ProfileArchive reads back what it adds, lists, shows, verifies, drills and
	// restores.
	ProfileArchive Profile = "archive"
	// ProfileFull also retains, holds, expires, cleans up and sets lifecycle rules.
	ProfileFull Profile = "full"
	// ProfileAuditor sees all of it, under whatever policy, and changes nothing.
	ProfileAuditor Profile = "auditor"
)

// Profiles that archive, in the order in which they grow: each can do what the
// one before it can, and more.
var Profiles = []Profile{ProfileVault, ProfileArchive, ProfileFull}

// ParseProfile reads a profile's name; another is ErrUsage.
func ParseProfile(name string) (Profile, error) {
	if p := Profile(name); p == ProfileAuditor || slices.Contains(Profiles, p) {
		return p, nil
	}
	return "", fmt.Errorf("%w: profile %q; want vault, archive, full or auditor", ErrUsage, name)
}

// Does is what a profile is for, in a few words.
func (p Profile) Does() string {
	switch p {
	case ProfileVault:
		return "adds archives, and nothing else"
	case ProfileArchive:
		return "archives, reads back, lists, shows, verifies, drills and restores"
	case ProfileFull:
		return "also retains, holds, expires, cleans up and sets lifecycle rules"
	case ProfileAuditor:
		return "lists, shows, verifies and audits, and changes nothing"
	}
	return ""
}

// includes reports whether q's rights are among p's, both of Profiles.
func (p Profile) includes(q Profile) bool {
	return q != "" && indexOf(p) >= indexOf(q)
}

// Place is where a bucket lies, as far as rights depend on it.
type Place struct {
	Scheme string // "s3", "gs", "file"
	Bucket string
	Prefix string // "" or ends in "/"
	Region string // S3: tells the partition
	// PlainHTTP: the endpoint has no TLS, so that a policy cannot insist on it.
	PlainHTTP bool
}

// operation is one thing that is asked of a bucket and that a store has a right
// for.
type operation string

const (
	opCreate        operation = "create"
	opLock          operation = "lock"
	opExtend        operation = "extend"
	opHold          operation = "hold"
	opRelease       operation = "release"
	opTag           operation = "tag"
	opEncrypt       operation = "encrypt"
	opDecrypt       operation = "decrypt"
	opAbort         operation = "abort upload"
	opVersioning    operation = "versioning"
	opLockSettings  operation = "lock settings"
	opList          operation = "list"
	opListVersions  operation = "list versions"
	opRead          operation = "read"
	opReadVersion   operation = "read version"
	opReadLock      operation = "read lock"
	opReadHold      operation = "read hold"
	opReadTags      operation = "read tags"
	opReadTagsOf    operation = "read tags of version"
	opThaw          operation = "thaw"
	opDelete        operation = "delete"
	opDeleteVersion operation = "delete version"
	opListUploads   operation = "list uploads"
	opListParts     operation = "list parts"
	opReadRules     operation = "read lifecycle"
	opWriteRules    operation = "write lifecycle"
)

// scope is what a right is granted on.
type scope int

const (
	onObjects scope = iota
	onBucket
	onListing // on the bucket, for keys under the prefix
	onKey     // on the key of the store's encryption
)

// right is what one store wants for an operation.
type right struct {
	name string  // "" where the store wants none of its own
	from Profile // "" where no profile that archives needs it
	on   scope
}

// need is one operation with its rights, and when it is needed at all.
type need struct {
	op   operation
	does string // completes "to ..."
	s3   right
	gcs  right
	// when is nil where every policy needs it.
	when func(Policy) bool
	// audits: the auditor needs it too.
	audits bool
	// untried is why doctor does not try it.
	untried string
}

// needs is the one table of rights: by it doctor names what is missing, and of
// it the printed policies are made.
//
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
// https://cloud.google.com/storage/docs/access-control/iam-json
var needs = []need{
	{op: opCreate, does: "create objects", s3: right{"s3:PutObject", ProfileVault, onObjects}, gcs: right{"storage.objects.create", ProfileVault, onObjects}},
	{op: opLock, does: "lock objects until a time", when: Policy.locks, s3: right{"s3:PutObjectRetention", ProfileVault, onObjects}, gcs: right{"storage.objects.setRetention", ProfileVault, onObjects}},
	{op: opExtend, does: "extend locks", when: Policy.locks, s3: right{"s3:PutObjectRetention", ProfileVault, onObjects}, gcs: right{"storage.objects.update", ProfileFull, onObjects}},
	{op: opTag, does: "tag objects", when: Policy.marks, s3: right{"s3:PutObjectTagging", ProfileVault, onObjects}},
	{op: opTag, does: "tag records of any policy's archives", s3: right{"s3:PutObjectTagging", ProfileFull, onObjects}},
	{op: opHold, does: "put objects on legal hold", when: Policy.holds, s3: right{"s3:PutObjectLegalHold", ProfileVault, onObjects}, gcs: right{"storage.objects.update", ProfileFull, onObjects}},
	{op: opRelease, does: "release legal holds, and set them on archives that exist", s3: right{"s3:PutObjectLegalHold", ProfileFull, onObjects}, gcs: right{"storage.objects.update", ProfileFull, onObjects}},
	{op: opEncrypt, does: "encrypt with the key", when: Policy.hasKey, s3: right{"kms:GenerateDataKey", ProfileVault, onKey}},
	{op: opDecrypt, does: "join the parts of an encrypted upload, and read", audits: true, when: Policy.hasKey, s3: right{"kms:Decrypt", ProfileVault, onKey}},
	{op: opAbort, does: "abort the upload of a run that failed", s3: right{"s3:AbortMultipartUpload", ProfileVault, onObjects}},

	{op: opVersioning, does: "see whether the bucket keeps versions", audits: true, s3: right{"s3:GetBucketVersioning", ProfileArchive, onBucket}, gcs: right{"storage.buckets.get", ProfileArchive, onBucket}},
	{op: opLockSettings, does: "see the bucket's object lock and default retention", audits: true, s3: right{"s3:GetBucketObjectLockConfiguration", ProfileArchive, onBucket}, gcs: right{"storage.buckets.get", ProfileArchive, onBucket}},
	{op: opList, does: "list archives", audits: true, s3: right{"s3:ListBucket", ProfileArchive, onListing}, gcs: right{"storage.objects.list", ProfileArchive, onBucket}},
	{op: opListVersions, does: "list archives that later versions or delete markers hide", audits: true, s3: right{"s3:ListBucketVersions", ProfileArchive, onListing}, gcs: right{"storage.objects.list", ProfileArchive, onBucket}},
	{op: opRead, does: "read archives", audits: true, s3: right{"s3:GetObject", ProfileArchive, onObjects}, gcs: right{"storage.objects.get", ProfileArchive, onObjects}},
	{op: opReadVersion, does: "read the version that was archived", audits: true, s3: right{"s3:GetObjectVersion", ProfileArchive, onObjects}, gcs: right{"storage.objects.get", ProfileArchive, onObjects}},
	{op: opReadLock, does: "read back locks", when: Policy.locks, s3: right{"s3:GetObjectRetention", ProfileArchive, onObjects}, gcs: right{"storage.objects.get", ProfileArchive, onObjects}},
	{op: opReadLock, does: "see locks, whatever locks", audits: true, s3: right{"s3:GetObjectRetention", ProfileFull, onObjects}, gcs: right{"storage.objects.get", ProfileArchive, onObjects}},
	{op: opReadHold, does: "read back legal holds", when: Policy.holds, s3: right{"s3:GetObjectLegalHold", ProfileArchive, onObjects}, gcs: right{"storage.objects.get", ProfileArchive, onObjects}},
	{op: opReadHold, does: "see legal holds", audits: true, s3: right{"s3:GetObjectLegalHold", ProfileFull, onObjects}, gcs: right{"storage.objects.get", ProfileArchive, onObjects}},
	{op: opReadTags, does: "read back tags", when: Policy.marks, s3: right{"s3:GetObjectTagging", ProfileArchive, onObjects}},
	{op: opReadTagsOf, does: "read back the tags of a version", when: Policy.marks, s3: right{"s3:GetObjectVersionTagging", ProfileArchive, onObjects}},
	{op: opReadTags, does: "see tags, whatever the policy", audits: true, s3: right{"s3:GetObjectTagging", "", onObjects}},
	{op: opReadTagsOf, does: "see the tags of a version, whatever the policy", audits: true, s3: right{"s3:GetObjectVersionTagging", "", onObjects}},
	{op: opThaw, does: "thaw dumps in cold classes", when: Policy.coldens, untried: "it takes a dump in a cold class", s3: right{"s3:RestoreObject", ProfileArchive, onObjects}},

	{op: opDelete, does: "delete, where the bucket keeps no versions", s3: right{"s3:DeleteObject", ProfileFull, onObjects}, gcs: right{"storage.objects.delete", ProfileFull, onObjects}},
	{op: opDeleteVersion, does: "delete versions and delete markers that nothing locks", s3: right{"s3:DeleteObjectVersion", ProfileFull, onObjects}, gcs: right{"storage.objects.delete", ProfileFull, onObjects}},
	{op: opListUploads, does: "find the uploads of runs that were killed", audits: true, s3: right{"s3:ListBucketMultipartUploads", ProfileFull, onBucket}},
	{op: opListParts, does: "see how old and large such uploads are", audits: true, s3: right{"s3:ListMultipartUploadParts", ProfileFull, onObjects}},
	{op: opReadRules, does: "read lifecycle rules", audits: true, s3: right{"s3:GetLifecycleConfiguration", ProfileFull, onBucket}, gcs: right{"storage.buckets.get", ProfileFull, onBucket}},
	{op: opWriteRules, does: "write lifecycle rules", untried: "it would change the bucket", s3: right{"s3:PutLifecycleConfiguration", ProfileFull, onBucket}, gcs: right{"storage.buckets.update", ProfileFull, onBucket}},
}

func (p Policy) locks() bool { return p.Lock != storage.LockNone }
func (p Policy) holds() bool { return p.LegalHold }
func (p Policy) marks() bool { return !p.IsZero() }
func (p Policy) hasKey() bool {
	return p.Encryption.Mode == storage.EncryptionKMS && p.Encryption.Key != ""
}

// coldens reports whether dumps come to lie in a class that is thawed first.
func (p Policy) coldens() bool {
	cold := func(class string) bool { return coldClasses[class] != nil }
	return cold(p.StorageClass) || slices.ContainsFunc(p.Transitions, func(t Transition) bool { return cold(t.To) })
}

// under reports whether a policy asks for it.
func (n need) under(p Policy) bool { return n.when == nil || n.when(p) }

// grants reports whether credentials of a profile, for a policy, have it.
func (n need) grants(r right, profile Profile, policy Policy) bool {
	has := profile.includes(r.from)
	if profile == ProfileAuditor {
		has = n.audits
	}
	return r.name != "" && has && n.under(policy)
}

// of is the right that a place's store wants.
func (n need) of(scheme string) right {
	switch scheme {
	case "s3":
		return n.s3
	case "gs":
		return n.gcs
	}
	return right{}
}

// rightFor names what an operation needs, "" where the store has no right for it.
func (p Place) rightFor(op operation) string {
	for _, n := range needs {
		if n.op == op {
			return n.of(p.Scheme).name
		}
	}
	return ""
}

// deniedOp is the operation whose right a refusal names, as AWS and GCS mostly
// do: what was tried may need more than one. It is op where none is named.
func (p Place) deniedOp(refusal string, op operation) operation {
	named, longest := op, ""
	for _, n := range needs {
		r := n.of(p.Scheme)
		if len(r.name) > len(longest) && containsWord(refusal, r.name) {
			named, longest = n.op, r.name
		}
	}
	if longest == p.rightFor(op) {
		return op
	}
	return named
}

// containsWord: s3:GetObject is not in s3:GetObjectVersion.
func containsWord(text, word string) bool {
	for _, after := range strings.Split(text, word)[1:] {
		if after == "" || !unicode.IsLetter(rune(after[0])) {
			return true
		}
	}
	return false
}

// granted are the rights of a profile under a policy, each once, in the order
// of the table.
func (p Place) granted(profile Profile, policy Policy) []right {
	var all []right
	for _, n := range needs {
		r := n.of(p.Scheme)
		if !n.grants(r, profile, policy) ||
			slices.ContainsFunc(all, func(has right) bool { return has.name == r.name }) {
			continue
		}
		all = append(all, r)
	}
	return all
}

// lacking are the rights of a profile whose operations were denied, each once.
func (p Place) lacking(profile Profile, policy Policy, denied map[operation]bool) []string {
	var lacks []string
	for _, n := range needs {
		r := n.of(p.Scheme)
		if denied[n.op] && n.grants(r, profile, policy) && !slices.Contains(lacks, r.name) {
			lacks = append(lacks, r.name)
		}
	}
	return lacks
}

// resource is what a right is granted on, for people.
func (p Place) resource(on scope) string {
	switch on {
	case onObjects:
		return p.Scheme + "://" + p.Bucket + "/" + p.Prefix + "*"
	case onKey:
		return "the encryption key"
	}
	return p.Scheme + "://" + strings.TrimSuffix(p.Bucket, "/")
}

func indexOf(p Profile) int { return slices.Index(Profiles, p) }
