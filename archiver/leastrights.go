package archiver

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// RightsOptions choose what LeastRights prints.
type RightsOptions struct {
	Profile Profile
	Place   Place
	// Policy is how archives are to be kept: what it does not ask for is not
	// granted.
	Policy Policy
	// BucketLock is the bucket's own default, where it has one: archives get it
	// where it is stronger than the policy's lock.
	BucketLock storage.DefaultRetention
	// MaxKeep is the longest lock that `pgstow retain` may set; zero is
	// DefaultMaxKeep.
	MaxKeep Period
	// JSON prints a GCS role as JSON instead of YAML; an S3 policy always is.
	JSON bool
}

// LeastRights prints what credentials need for a profile and no more: an IAM
// policy for S3, a custom role for GCS. A store without rights of its own is
// ErrUsage.
func LeastRights(opts RightsOptions) (string, error) {
	if err := opts.Policy.Check(opts.MaxKeep); err != nil {
		return "", err
	}
	if err := opts.applyBucketLock(); err != nil {
		return "", err
	}
	switch opts.Place.Scheme {
	case "s3":
		return indented(opts.iamPolicy())
	case "gs":
		return opts.gcsRole()
	}
	return "", fmt.Errorf("%w: a %s bucket has no rights of its own to grant: those of the files count", ErrUsage, opts.Place.Scheme)
}

// applyBucketLock makes the policy lock as its archives will be. Without a lock of
// its own the bucket locks by itself, and what comes later has to ask for as much.
func (o *RightsOptions) applyBucketLock() error {
	d := o.BucketLock
	if d.From(time.Now()).IsZero() || o.Policy.Lock == storage.LockNone && o.Profile == ProfileVault {
		return nil
	}
	lock, err := o.Policy.lockUnder(d, time.Now())
	if err != nil {
		return err
	}
	if own := (Period{Years: d.Years, Days: d.Days}); lock.Mode != o.Policy.Lock || own.LongerThan(o.Policy.Keep) {
		o.Policy.Lock, o.Policy.Keep = lock.Mode, own
	}
	return nil
}

func indented(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.String(), err
}

// maxLockDays is the longest lock that the rights allow, in the days that are
// left of it.
func (o RightsOptions) maxLockDays() int {
	days := o.Policy.Keep.MostDays()
	if o.Profile == ProfileFull {
		longest := o.MaxKeep
		if longest.IsZero() {
			longest = DefaultMaxKeep
		}
		days = max(days, longest.MostDays())
	}
	return days + 2 // lockMargin
}

// iamPolicy is an S3 policy document.
type iamPolicy struct {
	Version   string
	Statement []iamStatement
}

type iamStatement struct {
	Sid       string
	Effect    string
	Action    []string
	Resource  []string
	Condition iamCondition `json:",omitempty"`
}

// iamCondition is by operator, then by key.
type iamCondition map[string]map[string][]string

func (o RightsOptions) iamPolicy() iamPolicy {
	bucket, objects := o.arn(""), o.arn("/"+iamLiteral(o.Place.Prefix)+"*")
	conditional := map[string][]string{} // by the right that a condition goes with
	granted := map[scope][]string{}
	for _, r := range o.Place.granted(o.Profile, o.Policy) {
		switch r.name {
		case o.Place.rightFor(opLock), o.Place.rightFor(opHold), o.Place.rightFor(opTag):
			conditional[r.name] = []string{r.name}
		default:
			granted[r.on] = append(granted[r.on], r.name)
		}
	}
	locks, holds, tags := conditional[o.Place.rightFor(opLock)], conditional[o.Place.rightFor(opHold)], conditional[o.Place.rightFor(opTag)]
	p := iamPolicy{Version: "2012-10-17"}
	add := func(sid, effect string, actions []string, condition iamCondition, resources ...string) {
		if len(actions) > 0 {
			p.Statement = append(p.Statement, iamStatement{Sid: sid, Effect: effect, Action: actions, Resource: resources, Condition: condition})
		}
	}
	add("Objects", "Allow", granted[onObjects], nil, objects)
	add("Locks", "Allow", locks, iamCondition{"StringEquals": {"s3:object-lock-mode": {strings.ToUpper(string(o.Policy.Lock))}}}, objects)
	// Denied and not left out of what is allowed: not every store tells how
	// long a lock is when an object is created, and a condition on what is not
	// told allows nothing.
	add("NoLongerLocks", "Deny", locks, iamCondition{"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": {strconv.Itoa(o.maxLockDays())}}}, objects)
	o.addHolds(add, holds, objects)
	o.addTags(add, tags, objects)
	var listing iamCondition
	if o.Place.Prefix != "" {
		listing = iamCondition{"StringLike": {"s3:prefix": {iamLiteral(o.Place.Prefix) + "*"}}}
	}
	add("Listing", "Allow", granted[onListing], listing, bucket)
	add("Bucket", "Allow", granted[onBucket], nil, bucket)
	key, through := o.kmsKey()
	add("Key", "Allow", granted[onKey], through, key)
	if !o.Place.PlainHTTP {
		add("OnlyTLS", "Deny", []string{"s3:*"}, iamCondition{"Bool": {"aws:SecureTransport": {"false"}}}, bucket, o.arn("/*"))
	}
	return p
}

// addStatement adds a statement unless it has no actions.
type addStatement func(sid, effect string, actions []string, condition iamCondition, resources ...string)

// addHolds: who only sets holds may not release them. Allowed under a condition
// and not only denied: MinIO tells policies what a hold is to be when an object
// is created alone, and a denial of what is not told denies nothing.
func (o RightsOptions) addHolds(add addStatement, holds []string, objects string) {
	if o.Profile == ProfileFull {
		add("Holds", "Allow", holds, nil, objects)
		return
	}
	const key = "s3:object-lock-legal-hold"
	add("Holds", "Allow", holds, iamCondition{"StringEquals": {key: {"ON"}}}, objects)
	add("NoReleases", "Deny", holds, iamCondition{"StringEquals": {key: {"OFF"}}}, objects)
}

// addTags: by their tags the bucket's rules choose what they move and delete, so
// that objects get those of the policy and keep them. The full profile writes
// records of archives of other policies too.
func (o RightsOptions) addTags(add addStatement, tags []string, objects string) {
	var pinned iamCondition
	if o.Profile != ProfileFull {
		all := (&keeper{policy: o.Policy}).tags(DumpName)
		equal := map[string][]string{"s3:RequestObjectTag/" + TagRole: roles}
		for key, value := range all {
			if key != TagRole {
				equal["s3:RequestObjectTag/"+key] = []string{value}
			}
		}
		pinned = iamCondition{"StringEquals": equal, "ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": slices.Sorted(maps.Keys(all))}}
	}
	add("Tags", "Allow", tags, pinned, objects)
	add("NoOtherTags", "Deny", tags, iamCondition{"Null": {"s3:ExistingObjectTag/" + TagPolicy: {"false"}}}, objects)
}

func (o RightsOptions) arn(below string) string {
	return "arn:" + o.Place.partition() + ":s3:::" + o.Place.Bucket + below
}

// partition is the part of AWS in which a region lies.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
func (p Place) partition() string {
	for _, of := range []struct{ region, partition string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"us-iso-", "aws-iso"}, {"us-isob-", "aws-iso-b"},
		{"us-isof-", "aws-iso-f"}, {"eu-isoe-", "aws-iso-e"}, {"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(p.Region, of.region) {
			return of.partition
		}
	}
	return "aws"
}

// kmsKey is the ARN of the policy's key, and that it is used through S3 alone.
func (o RightsOptions) kmsKey() (arn string, through iamCondition) {
	region := o.Place.Region
	if region == "" {
		region = "*"
	}
	through = iamCondition{"StringLike": {"kms:ViaService": {"s3." + region + ".amazonaws.com*"}}}
	key := o.Policy.Encryption.Key
	keys := "arn:" + o.Place.partition() + ":kms:" + region + ":*:key/"
	if at := strings.Index(key, "alias/"); at >= 0 {
		through["ForAnyValue:StringEquals"] = map[string][]string{"kms:ResourceAliases": {key[at:]}}
		return keys + "*", through
	}
	if strings.HasPrefix(key, "arn:") {
		return key, through
	}
	return keys + key, through
}

// iamLiteral keeps a policy from taking characters of a prefix for wildcards.
func iamLiteral(s string) string {
	return strings.NewReplacer("$", "${$}", "*", "${*}", "?", "${?}").Replace(s)
}

// gcsRole is a custom role, as `gcloud iam roles create --file` reads it.
type gcsRole struct {
	Title               string   `json:"title"`
	Description         string   `json:"description"`
	Stage               string   `json:"stage"`
	IncludedPermissions []string `json:"includedPermissions"`
}

func (o RightsOptions) gcsRole() (string, error) {
	role := gcsRole{Title: "pgstow " + string(o.Profile), Description: o.Profile.Does(), Stage: "GA"}
	onBucket := false
	for _, r := range o.Place.granted(o.Profile, o.Policy) {
		role.IncludedPermissions = append(role.IncludedPermissions, r.name)
		onBucket = onBucket || r.on != onObjects
	}
	if o.JSON {
		return indented(role)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# gcloud iam roles create pgstow_%s --project=PROJECT --file=THIS_FILE\n", o.Profile)
	fmt.Fprintf(&b, "# gcloud storage buckets add-iam-policy-binding gs://%s \\\n#   --member=serviceAccount:NAME@PROJECT.iam.gserviceaccount.com \\\n#   --role=projects/PROJECT/roles/pgstow_%s", o.Place.Bucket, o.Profile)
	if o.Place.Prefix != "" {
		// Listing and the bucket's settings are granted on the bucket itself.
		condition := fmt.Sprintf(`resource.name.startsWith("projects/_/buckets/%s/objects/%s")`, o.Place.Bucket, o.Place.Prefix)
		if onBucket {
			condition += fmt.Sprintf(` || resource.name == "projects/_/buckets/%s"`, o.Place.Bucket)
		}
		fmt.Fprintf(&b, " \\\n#   --condition='title=pgstow,expression=%s'", condition)
	}
	fmt.Fprintf(&b, "\ntitle: %s\ndescription: %s\nstage: %s\nincludedPermissions:\n", role.Title, role.Description, role.Stage)
	for _, p := range role.IncludedPermissions {
		fmt.Fprintf(&b, "- %s\n", p)
	}
	return b.String(), nil
}
