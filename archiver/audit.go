package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgstow/pgstow/storage"
)

// DefaultAuditPeriod is how far back a missed archive is a violation.
var DefaultAuditPeriod = Period{Days: 30}

// orphanAge is how long something unfinished may still be under way.
const orphanAge = 24 * time.Hour

// AuditOptions choose what Audit looks at, and what it is held against beside
// the policies that are stored with the archives.
type AuditOptions struct {
	Bucket storage.Bucket
	// Place names the bucket in the result: its URL without parameters.
	Place string
	Name  string // label, "" for all
	// Databases are what a configuration wants of the labels in this bucket.
	Databases []AuditDatabase
	// Policies are those that a configuration lets archives here have, for
	// the bucket's lifecycle rules.
	Policies []Policy
	// Period is how far back a missed archive is a violation; before, it is a
	// notice. Zero is DefaultAuditPeriod.
	Period Period
	// Trust says whose signatures count, of manifests and of records.
	Trust Trust
	// Heads are what the last audit left of this bucket; nil compares nothing.
	Heads []AuditHead
	// Progress, when set, is told how many archives are done, from one goroutine
	// at a time.
	Progress func(done, total int)
	Log      *slog.Logger
	Now      func() time.Time
}

// AuditDatabase is what a configuration wants of the archives of one label.
type AuditDatabase struct {
	Label string
	// Policy is what its archives are kept by; nil where none is named.
	Policy *Policy
	// Every is how often it is archived; 0 asks for nothing.
	Every time.Duration
	// DumpArgs are its options of pg_dump: an archive made with others is a part
	// of it, and stands for no night.
	DumpArgs []string
	// VerifyEvery and DrillEvery bound the age of the last passed verification
	// and drill; zero asks for nothing.
	VerifyEvery, DrillEvery Period
	// DrillPart lets a drill of a part count.
	DrillPart bool
	// Signed and Sealed ask for archives that are signed, and encrypted before they
	// leave the machine.
	Signed, Sealed bool
}

// AuditResult is what Audit found in one bucket.
type AuditResult struct {
	Bucket string    `json:"bucket"`
	Time   time.Time `json:"time"`  // by the store's clock
	Since  time.Time `json:"since"` // the start of the period
	// Compliant: no violation was found.
	Compliant  bool              `json:"compliant"`
	Violations int               `json:"violations"`
	Notices    int               `json:"notices"`
	Archives   int               `json:"archives"`
	Bytes      int64             `json:"bytes"` // of all dumps
	Databases  []AuditedDatabase `json:"databases"`
	// Findings are all violations, then all notices, each by label and time.
	Findings []AuditFinding `json:"findings"`
	// Orphans are directories without a manifest, Uploads what was never
	// finished.
	Orphans []AuditedOrphan `json:"orphans"`
	Uploads []AuditedUpload `json:"uploads"`
	// Rules says whether the bucket's lifecycle rules were judged: one of the
	// Rules constants.
	Rules string `json:"lifecycle"`
	// Heads are what a later audit can be told to look for.
	Heads []AuditHead `json:"heads"`
}

// Values of AuditResult.Rules.
const (
	RulesJudged = "judged"
	RulesNone   = "none"   // the store has no lifecycle rules
	RulesDenied = "denied" // these credentials may not read them
)

// Severities of findings.
const (
	// SeverityViolation: something promised is not so, or cannot be seen to be.
	SeverityViolation = "violation"
	// SeverityNotice is worth knowing and breaks no promise.
	SeverityNotice = "notice"
)

// What a finding is about, or a check has looked at.
const (
	CheckManifest   = "manifest" // readable, and this archive's own
	CheckObjects    = "objects"  // every object of the manifest there, size, version, store's checksum
	CheckLock       = "lock"     // at least as firm and long as promised
	CheckHold       = "hold"     // as the policy or the last record of a hold says
	CheckClass      = "class"    // as planned for the age of the dump
	CheckSignature  = "signature"
	CheckSealed     = "sealed"     // encrypted to recipients
	CheckEncryption = "encryption" // at the store's side
	CheckTags       = "tags"
	CheckEvidence   = "evidence" // row counts and hashes in the index
	CheckVerify     = "verify"   // age and result of the last verification
	CheckDrill      = "drill"    // age and result of the last drill
	CheckPrevious   = "chain"    // those that it names are there, unchanged
	CheckEvery      = "every"    // missed archives
	CheckPolicy     = "policy"   // against the configuration
	CheckKeep       = "keep"     // past its keep
	CheckVersions   = "versions" // later versions and delete markers over the objects
	CheckOrigin     = "origin"   // archives of several databases under one label
	CheckClock      = "clock"
	CheckOrphan     = "orphan"
	CheckUpload     = "upload"
	CheckLifecycle  = "lifecycle"
	CheckCheckpoint = "checkpoint"
)

// AuditFinding is one violation or notice.
type AuditFinding struct {
	Severity string `json:"severity"`
	Check    string `json:"check"`
	Label    string `json:"label,omitempty"`
	Archive  string `json:"archive,omitempty"` // its id
	// Time is that of the archive, or when what is missing should have been.
	Time time.Time `json:"time,omitzero"`
	Text string    `json:"text"` // what is so
	Do   string    `json:"do"`   // what to do about it
}

// AuditedDatabase is what was found under one label.
type AuditedDatabase struct {
	Label      string    `json:"label"`
	Violations int       `json:"violations"`
	Notices    int       `json:"notices"`
	Bytes      int64     `json:"bytes"`
	Oldest     time.Time `json:"oldest,omitzero"`
	Newest     time.Time `json:"newest,omitzero"`
	// EverySeconds, VerifyEvery and DrillEvery are what it was held against.
	EverySeconds int64         `json:"every_seconds,omitempty"`
	VerifyEvery  Period        `json:"verify_every,omitzero"`
	DrillEvery   Period        `json:"drill_every,omitzero"`
	Verified     *AuditedProof `json:"verified,omitempty"` // the last passed verification of everything
	Drilled      *AuditedProof `json:"drilled,omitempty"`  // the last passed drill that counts
	Gaps         []AuditGap    `json:"gaps,omitempty"`
	// Archives are oldest first.
	Archives []AuditedArchive `json:"archives"`
}

// AuditedProof is the passed verification or drill of an archive.
type AuditedProof struct {
	Archive string    `json:"archive"`
	Time    time.Time `json:"time"`
}

// AuditGap is a time in which archives are missing.
type AuditGap struct {
	From   time.Time `json:"from"` // the archive before
	To     time.Time `json:"to"`   // the archive after, or the time of the audit
	Missed int       `json:"missed"`
	// Open: there is none after.
	Open bool `json:"open,omitempty"`
	// Violation: it lies in the period.
	Violation bool `json:"violation"`
}

// AuditedArchive is one archive, what it was promised and what was found.
type AuditedArchive struct {
	ID       string    `json:"id"`
	Policy   string    `json:"policy"`
	Key      string    `json:"key"`
	Time     time.Time `json:"time"`
	Finished time.Time `json:"finished,omitzero"`
	Size     int64     `json:"size"` // of the dump
	// ManifestSHA256 is "" where the manifest could not be read.
	ManifestSHA256 string    `json:"manifest_sha256,omitempty"`
	Database       string    `json:"database,omitempty"`
	ServerVersion  string    `json:"server_version,omitempty"`
	Rows           *int64    `json:"rows,omitempty"`
	Signature      Signature `json:"signature,omitzero"`
	Sealed         bool      `json:"sealed,omitempty"` // encrypted to recipients
	// KeepUntil is the end of what its own policy promised; zero promises none.
	KeepUntil time.Time `json:"keep_until,omitzero"`
	// Promised and Lock are the lock as it was promised and as it is now: the
	// weakest of all objects.
	Promised     AuditedLock   `json:"promised,omitzero"`
	Lock         AuditedLock   `json:"lock,omitzero"`
	LegalHold    bool          `json:"legal_hold,omitempty"` // on every object
	StorageClass string        `json:"storage_class,omitempty"`
	Verified     []AuditedFact `json:"verified,omitempty"` // oldest first
	Drilled      []AuditedFact `json:"drilled,omitempty"`
	// RecordsUnread are older records than those, which were not read.
	RecordsUnread int          `json:"records_unread,omitempty"`
	Violations    int          `json:"violations"`
	Notices       int          `json:"notices"`
	Checks        []AuditCheck `json:"checks"`
}

// AuditedLock is a lock and its end.
type AuditedLock struct {
	Mode  storage.LockMode `json:"mode,omitempty"`
	Until time.Time        `json:"until,omitzero"`
}

// AuditedFact is a verification or drill of an archive.
type AuditedFact struct {
	Time   time.Time `json:"time"`
	Passed bool      `json:"passed"`
	// Part: not all of the archive was looked at.
	Part bool `json:"part,omitempty"`
	// RestoreSeconds is how long a drill took from an empty database to a restored
	// one; NotCompared is what it could not compare.
	RestoreSeconds float64  `json:"restore_seconds,omitempty"`
	NotCompared    []string `json:"not_compared,omitempty"`
}

// Results of checks.
const (
	CheckPassed  = "ok"
	CheckFailed  = "violation"
	CheckNoticed = "notice"
	CheckIdle    = "none" // nothing was promised
)

// AuditCheck is what was compared for one archive: the evidence.
type AuditCheck struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

// AuditedOrphan is a directory without a manifest.
type AuditedOrphan struct {
	ID     string    `json:"id"`
	Label  string    `json:"label"`
	Key    string    `json:"key"`
	Time   time.Time `json:"time"`
	Newest time.Time `json:"newest"` // when its newest object arrived
	Bytes  int64     `json:"bytes"`
	// LockedUntil is the end of its last lock.
	LockedUntil time.Time `json:"locked_until,omitzero"`
	Objects     []string  `json:"objects"`
	// Expiring: an interrupted expiry has left it.
	Expiring bool `json:"expiring,omitempty"`
	// Young: it may be under way.
	Young bool `json:"young,omitempty"`
}

// AuditedUpload is an upload that was never finished.
type AuditedUpload struct {
	Key    string    `json:"key"`
	Label  string    `json:"label"`
	Begun  time.Time `json:"begun"`
	Newest time.Time `json:"newest"` // when its newest part arrived
	Bytes  int64     `json:"bytes"`
	Young  bool      `json:"young,omitempty"`
}

// Audit holds every archive of a bucket against its policy. It reads each
// manifest, asks the store about each object, and reads the records of
// verifications, drills and holds; it reads no dump and changes nothing. What it finds is
// in the result and no error: an error means that the store could not be asked,
// and that nothing is known.
func Audit(ctx context.Context, opts AuditOptions) (*AuditResult, error) {
	if opts.Name != "" {
		if err := CheckLabel(opts.Name); err != nil {
			return nil, err
		}
	}
	if opts.Period.IsZero() {
		opts.Period = DefaultAuditPeriod
	}
	now, err := storeNow(opts.Bucket, opts.Now, "locks and ages are judged by it")
	if err != nil {
		return nil, err
	}
	now = now.Truncate(time.Second)
	x := &auditing{opts: opts, now: now, since: opts.Period.Before(now), log: logger(opts.Log), res: &AuditResult{
		Bucket: opts.Place, Time: now, Databases: []AuditedDatabase{}, Findings: []AuditFinding{},
		Orphans: []AuditedOrphan{}, Uploads: []AuditedUpload{}, Heads: []AuditHead{},
	}}
	x.res.Since = x.since
	if err := x.run(ctx); err != nil {
		return nil, causeOf(ctx, err)
	}
	return x.res, nil
}

// auditing is one run of Audit.
type auditing struct {
	opts       AuditOptions
	now, since time.Time
	log        *slog.Logger
	res        *AuditResult
	// kept are the policies that the archives have, for the lifecycle rules.
	kept map[string]Policy
}

func (x *auditing) run(ctx context.Context) error {
	entries, err := x.list(ctx)
	if err != nil {
		return err
	}
	var incomplete []Entry
	entries = slices.DeleteFunc(entries, func(e Entry) bool {
		if !e.Complete {
			incomplete = append(incomplete, e)
		}
		return !e.Complete
	})
	if err := x.orphans(ctx, incomplete); err != nil {
		return err
	}
	if err := x.uploads(ctx); err != nil {
		return err
	}
	all, err := x.archives(ctx, entries)
	if err != nil {
		return err
	}
	x.labels(all)
	x.chain(all)
	x.checkpoint()
	if err := x.lifecycle(ctx); err != nil {
		return err
	}
	x.finish()
	return nil
}

// list finds what there is, with every version where these credentials may see
// them.
func (x *auditing) list(ctx context.Context) ([]Entry, error) {
	entries, err := scanVersions(ctx, x.opts.Bucket, x.opts.Name, true)
	if errors.Is(err, storage.ErrPermission) && ctx.Err() == nil {
		if entries, err = scanVersions(ctx, x.opts.Bucket, x.opts.Name, false); err == nil {
			x.find(AuditFinding{Severity: SeverityNotice, Check: CheckVersions,
				Text: "versions cannot be listed: what somebody put over an archive, or hid behind a delete marker, is not seen",
				Do:   "grant the right to list versions (s3:ListBucketVersions); `pgstow doctor` prints the whole policy"})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list archives: %w", err)
	}
	return entries, nil
}

// archives looks at each archive, several at once, and drops what it has seen
// of it but for the result.
func (x *auditing) archives(ctx context.Context, entries []Entry) ([]*audited, error) {
	all := make([]*audited, len(entries))
	var done atomic.Int64
	reports := make(chan struct{}, 1) // one at a time
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(statReaders)
	for i := range entries {
		g.Go(func() (err error) {
			if all[i], err = x.archive(ctx, entries[i]); err != nil {
				return fmt.Errorf("archive %s: %w", entries[i].ID, err)
			}
			entries[i] = Entry{}
			done.Add(1)
			if x.opts.Progress != nil {
				reports <- struct{}{}
				x.opts.Progress(int(done.Load()), len(entries))
				<-reports
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(a *audited) bool { return a.gone }), nil
}

func (x *auditing) find(f AuditFinding) { x.res.Findings = append(x.res.Findings, f) }

// finish counts and sorts.
func (x *auditing) finish() {
	r := x.res
	slices.SortStableFunc(r.Findings, func(a, b AuditFinding) int {
		return cmp.Or(-cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Label, b.Label), a.Time.Compare(b.Time), cmp.Compare(a.Archive, b.Archive))
	})
	at := map[string]*AuditedDatabase{}
	for i := range r.Databases {
		at[r.Databases[i].Label] = &r.Databases[i]
	}
	for _, f := range r.Findings {
		d := at[f.Label]
		switch {
		case f.Severity == SeverityViolation:
			r.Violations++
			if d != nil {
				d.Violations++
			}
		default:
			r.Notices++
			if d != nil {
				d.Notices++
			}
		}
	}
	r.Compliant = r.Violations == 0
}

// database is what the configuration wants of a label; its zero value asks for
// nothing.
func (x *auditing) database(label string) AuditDatabase {
	for _, d := range x.opts.Databases {
		if d.Label == label {
			return d
		}
	}
	return AuditDatabase{Label: label}
}
