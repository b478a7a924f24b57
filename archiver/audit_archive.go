package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// audited is one archive under audit: the result, and what later judgements
// need of it.
type audited struct {
	AuditedArchive
	label    string
	gone     bool // expired by somebody meanwhile
	kept     *Kept
	origin   string
	args     []string // pg_dump's options
	previous *Previous
	findings []AuditFinding
}

func (a *audited) readable() bool { return a.ManifestSHA256 != "" }

func (a *audited) check(check, result, detail string) {
	a.Checks = append(a.Checks, AuditCheck{check, result, detail})
}

func (a *audited) pass(check, format string, args ...any) {
	a.check(check, CheckPassed, fmt.Sprintf(format, args...))
}

// idle: nothing was promised.
func (a *audited) idle(check, detail string) { a.check(check, CheckIdle, detail) }

func (a *audited) violation(check, do, format string, args ...any) {
	a.Violations++
	a.find(SeverityViolation, check, do, fmt.Sprintf(format, args...))
}

func (a *audited) notice(check, do, format string, args ...any) {
	a.Notices++
	a.find(SeverityNotice, check, do, fmt.Sprintf(format, args...))
}

func (a *audited) find(severity, check, do, text string) {
	a.check(check, severity, text)
	a.findings = append(a.findings, AuditFinding{
		Severity: severity, Check: check, Label: a.label, Archive: a.ID, Time: a.Time, Text: text, Do: do,
	})
}

// archive asks for everything about one archive. The error is the store's alone.
func (x *auditing) archive(ctx context.Context, e Entry) (*audited, error) {
	a := &audited{label: e.Label, AuditedArchive: AuditedArchive{ID: e.ID, Policy: e.Policy, Key: e.Key, Time: e.Time, Size: e.DumpSize}}
	raw, err := readManifestBytes(ctx, x.opts.Bucket, e)
	var m *Manifest
	if err == nil {
		if err := x.judgeSignature(ctx, a, e, raw); err != nil {
			return nil, err
		}
		m, err = understand(raw, e)
	}
	switch {
	case err == nil:
	case errors.Is(err, storage.ErrNotExist):
		a.gone = true
		return a, nil
	case errors.Is(err, ErrIntegrity), errors.Is(err, storage.ErrIntegrity), errors.Is(err, storage.ErrCold):
		a.violation(CheckManifest, "keep it for an inquiry, and make a new archive: of this one nothing is known", "%s", oneLine(err))
		return a, nil
	case errors.Is(err, ErrFormat):
		a.violation(CheckManifest, "audit with that version of pgstow", "%s", oneLine(err))
		return a, nil
	case errors.Is(err, storage.ErrPermission):
		a.violation(CheckManifest, "grant the right to read it; `pgstow doctor` prints the whole policy", "%s", oneLine(err))
		return a, nil
	default:
		return nil, err
	}
	a.ManifestSHA256, a.Finished = hexSum(raw), m.Finished
	a.Database, a.Rows = m.Source.Database, m.Totals.Rows
	a.ServerVersion, _, _ = strings.Cut(m.Source.ServerVersion, " ")
	a.kept, a.origin, a.args = m.Kept, m.Source.origin(), m.Tools.PgDumpArgs
	a.previous = m.Previous
	a.Sealed = len(m.Recipients) > 0
	if a.kept != nil && !a.kept.Keep.IsZero() {
		a.KeepUntil = (&aged{kept: a.kept, finished: m.Finished}).keepUntil()
	}
	a.pass(CheckManifest, "its own key, id, label and policy; SHA-256 %s", a.ManifestSHA256)
	all, err := x.objects(ctx, a, e, m)
	if err != nil {
		return nil, err
	}
	records, err := x.records(ctx, a, e)
	if err != nil {
		return nil, err
	}
	x.judgeSealed(a, m)
	x.judgeTimes(a, e, all)
	x.judgeLock(a, all)
	x.judgeHold(a, all, records)
	x.judgeKeeping(a, all)
	x.judgeContent(a, m)
	x.judgeVersions(a, e)
	x.judgeRecords(a, records)
	return a, nil
}

// objects looks at each object of the archive, records included: the versions
// that the manifest names, and of what it does not name the oldest.
func (x *auditing) objects(ctx context.Context, a *audited, e Entry, m *Manifest) ([]seen, error) {
	listed := slices.Clone(e.Objects)
	var wrong []string
	named := map[string]*StoredObject{}
	for _, o := range []*StoredObject{&m.Objects.Dump, m.Objects.Index, m.Objects.Globals} {
		if o == nil {
			continue
		}
		name := o.Key[len(e.Key):] // checkObjects has compared it
		named[name] = o
		if why := nameVersion(listed, e.Later, name, o); why != "" {
			wrong = append(wrong, why)
		}
	}
	all := make([]seen, 0, len(listed))
	for _, o := range listed {
		s, err := lookAt(ctx, x.opts.Bucket, e.Key+o.Name, o)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", o.Name, err)
		}
		all = append(all, s)
		n := named[o.Name]
		switch {
		case s.gone:
			wrong = append(wrong, o.Name+" was listed and is not there any more")
		case n == nil || s.o.Key == "": // nobody names it, or it may not be seen
		case s.o.Size != n.Size:
			wrong = append(wrong, fmt.Sprintf("%s has %d bytes, the manifest says %d", o.Name, s.o.Size, n.Size))
		case n.Checksum != nil && s.o.Checksum.Algorithm == n.Checksum.Algorithm && s.o.Checksum.Value != n.Checksum.Value:
			wrong = append(wrong, fmt.Sprintf("%s has the %s checksum %s, the manifest says %s", o.Name, n.Checksum.Algorithm, s.o.Checksum.Value, n.Checksum.Value))
		}
	}
	if len(wrong) > 0 {
		a.violation(CheckObjects, "do not rely on it: archive the database again, and keep what is left for an inquiry", "%s", strings.Join(wrong, "; "))
	} else {
		a.pass(CheckObjects, "%d objects, %d of them named by the manifest: there, with its sizes%s", len(all), len(named), versionsAndSums(named))
	}
	for _, o := range listed {
		if role := roleOf(o.Name); named[o.Name] == nil && (role == RoleDump || role == "index" || role == "globals") {
			a.notice(CheckObjects, "find out who put it there", "%s lies beside the archive and its manifest does not name it", o.Name)
		}
	}
	return all, nil
}

// nameVersion makes the listed object the version that the manifest names, and
// says what is wrong with it.
func nameVersion(listed []EntryObject, later []EntryVersion, name string, o *StoredObject) string {
	i := slices.IndexFunc(listed, func(l EntryObject) bool { return l.Name == name })
	switch {
	case i < 0:
		return name + " is missing"
	case o.Version == "" || listed[i].Version == "" || listed[i].Version == o.Version:
		return ""
	}
	for _, v := range later {
		if v.Name == name && v.Version == o.Version {
			listed[i] = v.EntryObject
			return ""
		}
	}
	return fmt.Sprintf("%s has been replaced: version %s, which the manifest names, is not there", name, o.Version)
}

func versionsAndSums(named map[string]*StoredObject) string {
	versions, sums := 0, 0
	for _, o := range named {
		if o.Version != "" {
			versions++
		}
		if o.Checksum != nil {
			sums++
		}
	}
	switch {
	case versions > 0 && sums > 0:
		return ", versions and the store's checksums"
	case versions > 0:
		return " and versions"
	case sums > 0:
		return " and the store's checksums"
	}
	return ""
}

// judgeSignature reads and judges the manifest's signature. The error is the
// store's alone.
func (x *auditing) judgeSignature(ctx context.Context, a *audited, e Entry, raw []byte) error {
	s, err := readSignature(ctx, x.opts.Bucket, e, ManifestName, raw, x.opts.Trust)
	switch {
	case err != nil && !isFinding(err):
		return err
	case err != nil:
		s = Signature{State: SignatureInvalid, Reason: oneLine(err)}
	}
	a.Signature = s
	const foreign = "find out whose key it is; if it is a good one add it to the allowed signers"
	switch text := s.text(); {
	case s.State == SignatureInvalid:
		a.violation(CheckSignature, "do not rely on it: find out who changed the manifest or its signature", "%s", text)
	case s.State == SignatureUntrusted && x.opts.Trust.Require:
		a.violation(CheckSignature, foreign, "%s", text)
	case s.State == SignatureUntrusted:
		a.notice(CheckSignature, foreign, "%s", text)
	case s.State == SignatureUnsigned && x.opts.Trust.Require:
		a.violation(CheckSignature, "sign archives when they are made: --sign-key, or keys: {sign: FILE}; what is stored cannot be signed afterwards", "%s", text)
	case s.State == SignatureUnsigned:
		a.idle(CheckSignature, text)
	default:
		a.pass(CheckSignature, "%s", text)
	}
	return nil
}

// judgeSealed says whether the archive was encrypted before it left the machine.
func (x *auditing) judgeSealed(a *audited, m *Manifest) {
	if !a.Sealed {
		a.idle(CheckSealed, "it is not encrypted to recipients")
		return
	}
	a.pass(CheckSealed, "encrypted to %s: %s", many(len(m.Recipients), "recipient"), briefly(m.Recipients))
}

// judgeTimes compares what the manifest claims with the store's clock.
func (x *auditing) judgeTimes(a *audited, e Entry, all []seen) {
	const far = 24 * time.Hour
	if a.Time.After(x.now.Add(far)) {
		a.notice(CheckClock, "set the clock of the machine that made it", "it says it was made %s, which is to come", inUTC(a.Time))
		return
	}
	for _, s := range all {
		if s.Name != ManifestName || s.o.Created.IsZero() || a.Finished.IsZero() {
			continue
		}
		if d := s.o.Created.Sub(a.Finished); d.Abs() > far {
			a.notice(CheckClock, "find out whether the bucket was copied; if it was not, its times cannot be relied on",
				"it says it was finished %s, and the store took its manifest %s", inUTC(a.Finished), inUTC(s.o.Created))
		}
	}
}

// judgeLock wants every object at least as firmly locked as was promised, for
// as long as it was.
func (x *auditing) judgeLock(a *audited, all []seen) {
	now := shown(all)
	a.Lock = AuditedLock{now.Weakest.Lock, now.Weakest.RetainUntil}
	if a.Lock.Mode == storage.LockNone {
		a.Lock.Until = time.Time{}
	}
	if a.kept == nil || a.kept.Lock == storage.LockNone {
		a.idle(CheckLock, "no lock was promised; it has "+retentionText(storage.Retention(a.Lock)))
		return
	}
	want := storage.Retention{Mode: a.kept.Lock, Until: a.kept.RetainUntil}
	a.Promised = AuditedLock(want)
	if !want.Until.After(x.now) {
		a.pass(CheckLock, "its lock ended %s, as promised", want.Until.Format(time.RFC3339))
		return
	}
	var weaker, unseen []string
	for _, s := range all {
		switch {
		case s.gone:
		case s.hides(storage.AttributeRetention):
			unseen = append(unseen, s.Name)
		case !s.retention().Covers(want):
			weaker = append(weaker, s.Name+" "+retentionText(s.retention()))
		}
	}
	promised := retentionText(want)
	switch {
	case len(weaker) > 0:
		a.violation(CheckLock, "find out who could weaken it, then lock it again: `pgstow retain "+a.ID+" --until "+want.Until.Format(time.DateOnly)+"`",
			"locked less than promised (%s): %s", promised, strings.Join(weaker, ", "))
	case len(unseen) > 0:
		a.violation(CheckLock, "grant the right to see it (s3:GetObjectRetention), or audit with other credentials",
			"whether it is locked (%s) cannot be seen of %s", promised, strings.Join(unseen, ", "))
	default:
		a.pass(CheckLock, "%d objects %s or longer, as promised (%s)", len(all), retentionText(storage.Retention(a.Lock)), promised)
	}
	if until := a.KeepUntil; want.Until.Before(until) {
		a.notice(CheckLock, "`pgstow retain "+a.ID+" --until "+until.Format(time.DateOnly)+"` extends it",
			"the lock was promised until %s only, its keep until %s: extending it was denied when it was made", want.Until.Format(time.DateOnly), until.Format(time.DateOnly))
	}
}

// judgeHold compares the holds with the newest record of one, or the policy.
func (x *auditing) judgeHold(a *audited, all []seen, records []RecordEntry) {
	promised := a.kept != nil && a.kept.LegalHold
	why := "its policy"
	for _, r := range records {
		if r.Record != nil && r.Record.Kind == RecordHold {
			promised = r.Record.Result == HoldSet
			why = fmt.Sprintf("the record of %s by %s", r.Record.Time.Format(time.DateOnly), r.Record.By)
		}
	}
	var on, off, unseen []string
	for _, s := range all {
		switch {
		case s.gone:
		case s.hides(storage.AttributeLegalHold):
			unseen = append(unseen, s.Name)
		case s.o.LegalHold:
			on = append(on, s.Name)
		default:
			off = append(off, s.Name)
		}
	}
	a.LegalHold = len(on) > 0 && len(off)+len(unseen) == 0
	switch {
	case promised && len(off) > 0:
		a.violation(CheckHold, "`pgstow hold set "+a.ID+" --reason TEXT` holds all of it; find out who released it",
			"not held, as %s says it is: %s", why, strings.Join(off, ", "))
	case promised && len(unseen) > 0:
		a.violation(CheckHold, "grant the right to see it (s3:GetObjectLegalHold), or audit with other credentials",
			"whether it is held cannot be seen of %s", strings.Join(unseen, ", "))
	case promised:
		a.pass(CheckHold, "%d objects held, as %s says", len(on), why)
	case len(on) > 0:
		a.notice(CheckHold, "if nobody needs it, `pgstow hold release "+a.ID+" --reason TEXT` releases it",
			"held, and nothing says so: %s", strings.Join(on, ", "))
	default:
		a.idle(CheckHold, "no hold was promised, and none is there")
	}
}

// judgeKeeping compares encryption, tags and class with the stored policy.
func (x *auditing) judgeKeeping(a *audited, all []seen) {
	if a.kept == nil {
		a.idle(CheckClass, "it was made before there were policies")
		return
	}
	k := keeper{bucket: x.opts.Bucket, policy: a.kept.Policy}
	if a.Policy != DefaultPolicy {
		k.policy.Name = a.Policy
	}
	var encryption, tags, unseen []string
	want := storage.Encryption(a.kept.Encryption)
	caps := x.opts.Bucket.Capabilities()
	for _, s := range all {
		if s.gone || s.o.Key == "" {
			continue
		}
		if !s.o.Encryption.Covers(want) {
			encryption = append(encryption, s.Name+" "+encryptionText(Encryption(s.o.Encryption)))
		}
		if s.hides(storage.AttributeTags) {
			unseen = append(unseen, s.Name)
		} else if wrong := wrongTags(k.tags(s.Name), s.o.Tags); caps.Tags && wrong != "" {
			tags = append(tags, s.Name+" "+wrong)
		}
		if roleOf(s.Name) == RoleDump {
			a.StorageClass = s.o.StorageClass
			x.judgeClass(a, s)
		}
	}
	switch {
	case len(encryption) > 0:
		a.violation(CheckEncryption, "it cannot be encrypted afterwards: archive the database again, and find out what the bucket does with new objects",
			"not encrypted by the store as promised (%s): %s", encryptionText(a.kept.Encryption), strings.Join(encryption, ", "))
	case want.IsZero():
		a.idle(CheckEncryption, "none by the store was asked for")
	default:
		a.pass(CheckEncryption, "by the store, as promised: %s", encryptionText(a.kept.Encryption))
	}
	promised := len(k.tags(DumpName)) > 0 && caps.Tags
	switch {
	case len(tags) > 0:
		a.violation(CheckTags, "set them again: rules of the bucket may go by them", "tags are not as promised: %s", strings.Join(tags, "; "))
	case promised && len(unseen) > 0:
		a.notice(CheckTags, "grant s3:GetObjectTagging to see them", "tags cannot be seen of %s", strings.Join(unseen, ", "))
	case promised:
		a.pass(CheckTags, "%d tags on each object, as promised", len(k.tags(DumpName)))
	}
}

// wrongTags says which of the wanted tags an object lacks.
func wrongTags(want, have map[string]string) string {
	var wrong []string
	for tag, value := range want {
		if got, ok := have[tag]; !ok || got != value {
			wrong = append(wrong, fmt.Sprintf("%s=%q", tag, value))
		}
	}
	if len(wrong) == 0 {
		return ""
	}
	slices.Sort(wrong)
	return "lacks " + strings.Join(wrong, ", ")
}

// classGrace is how long a store may take to move what is due: rules run once a
// day, and S3 rounds up to the next midnight.
const classGrace = 3

// judgeClass wants the dump in the class that its age has brought it to.
func (x *auditing) judgeClass(a *audited, dump seen) {
	p := a.kept.Policy
	if !x.opts.Bucket.Capabilities().StorageClass || p.StorageClass == "" && len(p.Transitions) == 0 {
		return
	}
	var fits []string // "" is any
	class := p.StorageClass
	since := dump.o.Created
	for _, t := range p.Transitions {
		due := dump.o.Created.AddDate(0, 0, t.After.MostDays())
		if x.now.Before(due) {
			break
		}
		if x.now.Before(due.AddDate(0, 0, classGrace)) {
			fits = append(fits, class)
		}
		class, since = t.To, due
	}
	fits = append(fits, class)
	switch {
	case slices.Contains(fits, a.StorageClass) || slices.Contains(fits, ""):
		a.pass(CheckClass, "%s, as planned for its age", cmp.Or(a.StorageClass, "the bucket's own"))
	default:
		a.violation(CheckClass, "`pgstow lifecycle plan` shows whether the bucket has the rule that moves it",
			"the dump lies in %s, planned is %s since %s", cmp.Or(a.StorageClass, "no class"), class, since.Format(time.DateOnly))
	}
}

// judgeContent is what the manifest says of its own worth.
func (x *auditing) judgeContent(a *audited, m *Manifest) {
	switch {
	case m.Structure == StructureUnchecked:
		a.notice(CheckEvidence, "read it back with the pgstow that knows this version of the format", "its structure was not checked: an archive version that was not known then")
	case m.Evidence != EvidenceContent:
		a.notice(CheckEvidence, "dump with COPY, so that row counts and hashes are taken", "no row counts and hashes: %s", cmp.Or(m.EvidenceReason, "no reason given"))
	case m.Totals.Rows != nil:
		a.pass(CheckEvidence, "%d rows of %d tables counted and hashed in the dump's own stream", *m.Totals.Rows, m.Totals.Tables)
	}
}

// judgeVersions reports what lies over the archive's objects.
func (x *auditing) judgeVersions(a *audited, e Entry) {
	markers, versions := 0, 0
	for _, v := range e.Later {
		if v.DeleteMarker {
			markers++
		} else {
			versions++
		}
	}
	do := "find out who did it; `pgstow undelete " + a.ID + "` makes them plain to see again"
	switch {
	case versions > 0:
		a.notice(CheckVersions, "find out who put them there; `pgstow undelete "+a.ID+" --later-versions` removes what no lock holds",
			"over its objects lie %s and %s; pgstow reads below them", many(versions, "later version"), many(markers, "delete marker"))
	case markers > 0:
		a.notice(CheckVersions, do, "over its objects lie %s, so that plain readers do not see them; pgstow reads below", many(markers, "delete marker"))
	case e.Hidden:
		a.notice(CheckVersions, do, "an object is not live any more; pgstow reads its old version")
	}
}
