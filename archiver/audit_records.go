package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// recordsRead is how many records of a kind are wanted of one archive, the newest.
// An archive that is kept for years and verified each month gathers more. What
// proves nothing of it does not count: it must not hide what does.
const recordsRead = 24

// records reads the newest records of verifications, drills and holds, oldest
// first.
func (x *auditing) records(ctx context.Context, a *audited, e Entry) ([]RecordEntry, error) {
	var records []RecordEntry
	trust := x.opts.Trust.beside(a.Signature)
	for _, kind := range []string{RecordVerify, RecordDrill, RecordHold} {
		var of []EntryObject
		for _, o := range e.Objects {
			if recordKind(o.Name) == kind {
				of = append(of, o)
			}
		}
		wanted := recordsRead
		for i, o := range slices.Backward(of) { // their names sort by time
			if wanted == 0 {
				a.RecordsUnread += i + 1
				break
			}
			r := RecordEntry{Name: o.Name, Version: o.Version}
			err := r.read(ctx, x.opts.Bucket, e, trust)
			if err != nil && !isFinding(err) {
				return nil, err
			}
			r.Error = oneLine(err)
			if r.Record != nil && r.Record.ManifestSHA256 == a.ManifestSHA256 {
				wanted--
			}
			records = append(records, r)
		}
	}
	slices.SortStableFunc(records, func(a, b RecordEntry) int { return cmp.Compare(a.Name, b.Name) })
	return records, nil
}

// isFinding tells what is wrong with an object from a store that fails.
func isFinding(err error) bool {
	for _, kind := range []error{ErrIntegrity, storage.ErrIntegrity, ErrFormat, storage.ErrNotExist, storage.ErrPermission, storage.ErrCold} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// judgeRecords notes verifications and drills, and what they say last.
func (x *auditing) judgeRecords(a *audited, records []RecordEntry) {
	var verify, drill newestFact
	for _, r := range records {
		rec := r.Record
		switch {
		case r.unsigned():
			a.notice(recordCheck(r.Name), "do it again with `--sign-key FILE`, or with `keys: {sign: FILE}` in the configuration",
				"%s is not signed and does not count", r.Name)
			continue
		case rec == nil:
			a.notice(recordCheck(r.Name), "find out who changed it", "a record cannot be read, or not be relied on: %s", r.Error)
			continue
		case rec.ManifestSHA256 != a.ManifestSHA256:
			a.notice(recordCheck(r.Name), "find out who put it there", "%s is about another manifest: it proves nothing of this one", r.Name)
			continue
		}
		f := AuditedFact{Time: rec.Time, Passed: rec.Result == ResultPassed, Part: isPart(rec)}
		if rec.Drill != nil {
			f.RestoreSeconds, f.NotCompared = rec.Drill.RestoreSeconds, rec.Drill.NotCompared
		}
		switch rec.Kind {
		case RecordVerify:
			a.Verified = append(a.Verified, f)
			verify.add(f)
		case RecordDrill:
			a.Drilled = append(a.Drilled, f)
			drill.add(f)
		}
	}
	a.proof(CheckVerify, "verification", "`pgstow verify "+a.ID+"` says what is damaged; archive the database again", verify)
	a.proof(CheckDrill, "drill", "`pgstow drill "+a.ID+"` says what differs; archive the database again", drill)
}

// newestFact follows results in their order. A failure stands until what looked
// at as much has passed.
type newestFact struct {
	last, failed AuditedFact
}

func (n *newestFact) add(f AuditedFact) {
	n.last = f
	switch {
	case !f.Passed:
		n.failed = f
	case !f.Part || n.failed.Part:
		n.failed = AuditedFact{}
	}
}

func (a *audited) proof(check, noun, do string, n newestFact) {
	more := ""
	if n.last.Part {
		more = ", not of everything"
	}
	if n.last.RestoreSeconds > 0 {
		more += fmt.Sprintf(", restored in %.0f s", math.Ceil(n.last.RestoreSeconds))
	}
	if len(n.last.NotCompared) > 0 {
		more += "; not compared: " + strings.Join(n.last.NotCompared, ", ")
	}
	switch {
	case !n.failed.Time.IsZero():
		a.violation(check, do, "its %s of %s failed, and none has passed since", noun, inUTC(n.failed.Time))
	case n.last.Time.IsZero():
		a.idle(check, "no "+noun+" of it is recorded")
	default:
		a.pass(check, "last passed %s%s", inUTC(n.last.Time), more)
	}
}

// recordCheck is what a record is about, by its name.
func recordCheck(name string) string {
	switch recordKind(name) {
	case RecordVerify:
		return CheckVerify
	case RecordDrill:
		return CheckDrill
	}
	return CheckHold
}

// isPart reports whether a verification or drill did not look at all of the
// archive.
func isPart(r *Record) bool {
	switch r.Kind {
	case RecordVerify:
		return r.Verify == nil || r.Verify.Mode != ModeFull
	case RecordDrill:
		return r.Drill == nil || r.Drill.Part != nil || r.Drill.Sample != nil
	}
	return false
}

// orphans looks at the directories without a manifest.
func (x *auditing) orphans(ctx context.Context, entries []Entry) error {
	for _, e := range entries {
		all, err := look(ctx, x.opts.Bucket, e.dir(), e.Objects)
		if err != nil {
			return err
		}
		o := AuditedOrphan{ID: e.ID, Label: e.Label, Key: e.Key, Time: e.Time, Newest: e.Newest, Objects: []string{},
			Young: e.Newest.After(x.now.Add(-orphanAge))}
		for _, s := range all {
			o.Objects = append(o.Objects, s.Name)
			o.Bytes += s.Size
			o.Expiring = o.Expiring || recordKind(s.Name) == RecordExpire
			if r := s.retention(); !r.IsZero() && r.Until.After(o.LockedUntil) {
				o.LockedUntil = r.Until
			}
		}
		x.res.Orphans = append(x.res.Orphans, o)
		f := AuditFinding{Severity: SeverityNotice, Check: CheckOrphan, Label: e.Label, Archive: e.ID, Time: e.Time}
		switch {
		case o.Young:
			continue
		case o.Expiring:
			f.Text = "an expiry of it was interrupted: its manifest is gone, " + strings.Join(o.Objects, ", ") + " are left"
			f.Do = "`pgstow expire --yes` finishes it"
		default:
			f.Text = "it has no manifest and is no archive: " + strings.Join(o.Objects, ", ") + "; a run that failed has left it, or somebody has deleted the manifest"
			f.Do = "if no run failed then, find out who deleted it; else delete what lies below " + e.Key
			if o.LockedUntil.After(x.now) {
				f.Do += " when its lock ends, " + o.LockedUntil.UTC().Format(time.DateOnly)
			}
		}
		x.find(f)
	}
	return nil
}

// uploads lists what was never finished.
func (x *auditing) uploads(ctx context.Context) error {
	found, err := ownUploads(ctx, x.opts.Bucket)
	switch {
	case err == nil:
	case isUnsupported(err):
		return nil
	case isDenied(err) && ctx.Err() == nil:
		x.find(AuditFinding{Severity: SeverityNotice, Check: CheckUpload, Text: "unfinished uploads cannot be listed",
			Do: "grant the right to (s3:ListBucketMultipartUploads), or ask somebody who has it"})
		return nil
	default:
		return err
	}
	for _, u := range found {
		dir, _, _ := ParseKey(u.Key)
		if x.opts.Name != "" && dir.Label != x.opts.Name {
			continue
		}
		newest := newestPart(u)
		up := AuditedUpload{Key: u.Key, Label: dir.Label, Begun: u.Initiated, Newest: newest, Bytes: u.Size, Young: newest.After(x.now.Add(-orphanAge))}
		x.res.Uploads = append(x.res.Uploads, up)
		if !up.Young {
			x.find(AuditFinding{Severity: SeverityNotice, Check: CheckUpload, Label: dir.Label, Archive: dir.ID, Time: dir.Time,
				Text: "its upload was never finished; the last part arrived " + inUTC(newest),
				Do:   "`pgstow cleanup` removes it"})
		}
	}
	return nil
}

// lifecycle judges the bucket's rules by the policies that archives have, and
// those that the configuration gives.
func (x *auditing) lifecycle(ctx context.Context) error {
	policies := append([]Policy{}, x.opts.Policies...)
	for _, p := range x.kept {
		i := slices.IndexFunc(policies, func(q Policy) bool { return q.Name == p.Name })
		if i < 0 {
			policies = append(policies, p)
		} else if p.Keep.LongerThan(policies[i].Keep) {
			policies[i].Keep = p.Keep
		}
	}
	slices.SortFunc(policies, func(a, b Policy) int { return cmp.Compare(a.Name, b.Name) })
	l, err := newLifecycle(ctx, LifecycleOptions{Bucket: x.opts.Bucket, Policies: policies})
	switch {
	case err == nil:
	case isUnsupported(err):
		x.res.Rules = RulesNone
		return nil
	case isDenied(err) && ctx.Err() == nil:
		x.res.Rules = RulesDenied
		x.find(AuditFinding{Severity: SeverityNotice, Check: CheckLifecycle, Text: "the bucket's lifecycle rules cannot be read: whether one deletes archives too early is not known",
			Do: "grant the right to (s3:GetLifecycleConfiguration, storage.buckets.get), or ask somebody who has it"})
		return nil
	default:
		return err
	}
	x.res.Rules = RulesJudged
	l.judgeForeign()
	if err := l.judgeReached(ctx); err != nil {
		return err
	}
	l.judgeOwnExpiry()
	for _, text := range l.plan.Conflicts {
		what, do, _ := strings.Cut(text, "; ")
		x.find(AuditFinding{Severity: SeverityViolation, Check: CheckLifecycle, Text: what, Do: cmp.Or(do, "change the rule")})
	}
	for _, text := range l.plan.Warnings {
		what, do, _ := strings.Cut(text, "; ")
		x.find(AuditFinding{Severity: SeverityNotice, Check: CheckLifecycle, Text: what, Do: cmp.Or(do, "ask who has set the rule")})
	}
	return nil
}

// judgeOwnExpiry looks for rules of ours that were made for a shorter keep than
// archives have now.
func (l *lifecycle) judgeOwnExpiry() {
	for _, r := range l.doc.Rules {
		o, ok := l.own(r)
		if !ok || o.kind != kindExpire || r.Disabled {
			continue
		}
		p := find(l.policies(), o.policy)
		if p == nil {
			continue
		}
		for _, a := range r.Actions {
			if a.Kind == storage.LifecycleExpire && a.Days < p.Keep.MostDays() {
				l.conflict("rule %s would %s, and archives of policy %s are kept for %s; `pgstow lifecycle plan` shows what it should be",
					nameRule(r), describeAction(a), p.Name, p.Keep)
			}
		}
	}
}
