package archiver

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// inUTC is how texts of the audit write times.
func inUTC(t time.Time) string { return t.UTC().Format("2006-01-02T15:04Z") }

func isUnsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
func isDenied(err error) bool      { return errors.Is(err, storage.ErrPermission) }

// labels judges what archives of one label are together, and files them.
func (x *auditing) labels(all []*audited) {
	by := map[string][]*audited{}
	var names []string
	for _, a := range all {
		if by[a.label] == nil {
			names = append(names, a.label)
		}
		by[a.label] = append(by[a.label], a)
		x.note(a)
	}
	expect := func(label string) {
		if by[label] == nil && (x.opts.Name == "" || x.opts.Name == label) {
			by[label] = []*audited{}
			names = append(names, label)
		}
	}
	for _, d := range x.opts.Databases {
		expect(d.Label)
	}
	for _, h := range x.opts.Heads {
		expect(h.Label)
	}
	slices.Sort(names)
	for _, name := range names {
		l := &labelAudit{auditing: x, want: x.database(name), archives: by[name]}
		l.judge()
		x.res.Databases = append(x.res.Databases, l.file())
	}
}

// note remembers the longest keep of each policy.
func (x *auditing) note(a *audited) {
	if a.kept == nil {
		return
	}
	p := a.kept.Policy
	p.Name = a.Policy
	if x.kept == nil {
		x.kept = map[string]Policy{}
	}
	if was, ok := x.kept[p.Name]; !ok || p.Keep.LongerThan(was.Keep) {
		x.kept[p.Name] = p
	}
}

// labelAudit is the audit of one label.
type labelAudit struct {
	*auditing
	want     AuditDatabase
	archives []*audited // oldest first
	notices  map[string][]AuditFinding
	out      AuditedDatabase
}

func (l *labelAudit) judge() {
	l.out = AuditedDatabase{
		Label: l.want.Label, EverySeconds: int64(l.want.Every / time.Second), VerifyEvery: l.want.VerifyEvery, DrillEvery: l.want.DrillEvery,
		Archives: make([]AuditedArchive, 0, len(l.archives)),
	}
	l.judgeOrigin()
	l.judgePolicy()
	l.judgeEvery()
	l.judgeProofs()
	l.judgeKeep()
}

// file moves what was found into the result.
func (l *labelAudit) file() AuditedDatabase {
	for _, a := range l.archives {
		if l.out.Oldest.IsZero() {
			l.out.Oldest = a.Time
		}
		l.out.Newest = a.Time
		l.out.Bytes += a.Size
		l.res.Archives++
		l.res.Bytes += a.Size
		l.findings(a)
		l.out.Archives = append(l.out.Archives, a.AuditedArchive)
	}
	l.several()
	l.head()
	return l.out
}

// noticesShown is how many notices of a kind stand for themselves; more of them are
// one, which says how many.
const noticesShown = 5

func (l *labelAudit) findings(a *audited) {
	for _, f := range a.findings {
		if f.Severity == SeverityViolation {
			l.find(f)
			continue
		}
		if l.notices == nil {
			l.notices = map[string][]AuditFinding{}
		}
		l.notices[f.Check] = append(l.notices[f.Check], f)
	}
}

func (l *labelAudit) several() {
	for _, check := range slices.Sorted(maps.Keys(l.notices)) {
		all := l.notices[check]
		if len(all) <= noticesShown {
			l.res.Findings = append(l.res.Findings, all...)
			continue
		}
		f := all[len(all)-1]
		f.Text = fmt.Sprintf("%d archives, this one the newest of them: %s", len(all), f.Text)
		l.find(f)
	}
}

// say adds a finding about the label as a whole.
func (l *labelAudit) say(severity, check string, at time.Time, do, format string, args ...any) {
	l.find(AuditFinding{Severity: severity, Check: check, Label: l.want.Label, Time: at, Text: fmt.Sprintf(format, args...), Do: do})
}

// judgeOrigin: archives of several databases under one label are none of
// anything's predecessors.
func (l *labelAudit) judgeOrigin() {
	origins := map[string]bool{}
	for _, a := range l.archives {
		if a.readable() {
			origins[a.origin] = true
		}
	}
	if len(origins) > 1 {
		l.say(SeverityNotice, CheckOrigin, time.Time{}, "give each its own --name; `latest` refuses them together, and `expire` judges each by itself",
			"archives of %d different databases or clusters lie under this label", len(origins))
	}
}

// judgePolicy holds the newest archive against the configuration's policy. Those
// before may be of an earlier one: they are counted.
func (l *labelAudit) judgePolicy() {
	p := l.want.Policy
	if p == nil {
		p = &Policy{}
	}
	if l.want.Policy == nil && !l.want.Signed && !l.want.Sealed {
		return
	}
	weaker := 0
	for i, a := range l.archives {
		if !a.readable() {
			continue
		}
		var less []string
		if l.want.Policy != nil {
			less = lessThan(a, *p)
		}
		if l.want.Signed && a.Signature.State == SignatureUnsigned {
			less = append(less, "not signed")
		} else if l.want.Signed && a.Signature.State == SignatureUntrusted {
			less = append(less, "signed with a key that does not count")
		}
		if l.want.Sealed && !a.Sealed {
			less = append(less, "not encrypted to recipients")
		}
		switch {
		case i == len(l.archives)-1 && len(less) > 0:
			a.violation(CheckPolicy, "archive it by its name, so that the policy applies: `pgstow archive "+l.want.Label+"`",
				"the newest archive is kept less than policy %s of the configuration says: %s", p.segment(), strings.Join(less, ", "))
		case i == len(l.archives)-1:
			a.pass(CheckPolicy, "kept as policy %s of the configuration says, or longer", p.segment())
		case len(less) > 0:
			weaker++
		}
	}
	if l.want.Signed && slices.ContainsFunc(l.archives, func(a *audited) bool { return a.Signature.State == SignatureUnjudged }) {
		l.say(SeverityNotice, CheckPolicy, time.Time{}, "name them: keys: {allowed-signers: FILE} in the configuration, or --allowed-signers",
			"policy %s asks for signatures, and nobody said whose count: those of any key pass", p.segment())
	}
	if weaker > 0 {
		l.say(SeverityNotice, CheckPolicy, time.Time{}, "`pgstow retain` and `hold` add to what they have",
			"%s kept less than policy %s says now; what was promised when they were made counts for them", areMany(weaker, "older archive"), p.segment())
	}
}

// lessThan is in what respects an archive is kept less than p says.
func lessThan(a *audited, p Policy) []string {
	if a.kept == nil {
		return []string{"it was made before there were policies"}
	}
	var less []string
	add := func(is bool, format string, args ...any) {
		if is {
			less = append(less, fmt.Sprintf(format, args...))
		}
	}
	k := a.kept.Policy
	lock := func(m storage.LockMode) storage.Retention { return storage.Retention{Mode: m} }
	add(a.Policy != p.segment(), "under policy %s", a.Policy)
	add(p.Keep.LongerThan(k.Keep), "keep %s instead of %s", cmp.Or(k.Keep.String(), "none"), p.Keep)
	add(!lock(k.Lock).Covers(lock(p.Lock)), "lock %s instead of %s", cmp.Or(string(k.Lock), "none"), p.Lock)
	add(p.LegalHold && !k.LegalHold, "no legal hold")
	add(!storage.Encryption(k.Encryption).Covers(storage.Encryption(p.Encryption)), "encryption %s instead of %s", encryptionText(k.Encryption), encryptionText(p.Encryption))
	add(p.StorageClass != "" && k.StorageClass != p.StorageClass, "class %s instead of %s", cmp.Or(k.StorageClass, "the bucket's own"), p.StorageClass)
	if wrong := wrongTags(p.Tags, k.Tags); wrong != "" {
		less = append(less, wrong)
	}
	return less
}

// chain looks for archives that later ones name and that are gone before their
// time, or are not what they were.
func (x *auditing) chain(all []*audited) {
	entries := make([]Entry, 0, len(all))
	byID := map[string]*audited{}
	for _, a := range all {
		byID[a.ID] = a
		entries = append(entries, Entry{
			ID: a.ID, Label: a.label, ManifestSHA256: a.ManifestSHA256, Signature: &a.Signature, Manifest: &Manifest{Previous: a.previous},
		})
	}
	for _, fault := range ChainFaults(entries, x.now) {
		f := AuditFinding{Severity: SeverityViolation, Check: CheckPrevious, Label: fault.Label, Archive: fault.ID}
		by := "archive " + fault.NamedBy[0]
		if n := len(fault.NamedBy); n > 1 {
			by += fmt.Sprintf(" and %d more", n-1)
		}
		switch fault.Kind {
		case ChainReplaced:
			f.Text = fmt.Sprintf("its manifest has the SHA-256 %s, and %s had seen %s", fault.Found, by, fault.SHA256)
			f.Do = "find out who replaced it; do not rely on it"
		default:
			f.Text = fmt.Sprintf("it is gone, and was to be kept until %s: %s names it", fault.KeepUntil.UTC().Format(time.DateOnly), by)
			f.Do = "find out who deleted it; in a versioned bucket look for its versions and delete markers"
		}
		if a := byID[fault.ID]; a != nil {
			f.Time = a.Time
		}
		x.find(f)
	}
}

// EveryTolerance is how late an archive may begin before it counts as missed: a
// quarter of the interval, a day at most.
func EveryTolerance(every time.Duration) time.Duration { return min(every/4, 24*time.Hour) }

// judgeEvery finds the times in which archives are missing. What may have
// expired meanwhile is not missed.
func (l *labelAudit) judgeEvery() {
	if len(l.archives) == 0 {
		if l.configured() && (l.running(time.Time{}).IsZero() || l.failed()) {
			l.say(SeverityViolation, CheckEvery, l.now, "archive it: `pgstow archive "+l.want.Label+"`", "there is no archive of this database")
		}
		return
	}
	every := l.want.Every
	if every <= 0 {
		return
	}
	limit := every + EveryTolerance(every)
	var last *audited
	for _, a := range l.archives {
		if !a.readable() || !a.isWhole(l.want.DumpArgs) {
			continue
		}
		if last != nil {
			if from := l.stillThere(last); a.Time.Sub(from) > limit {
				l.gap(from, a.Time, false)
			}
		}
		last = a
	}
	switch {
	case last == nil:
		l.say(SeverityViolation, CheckEvery, l.now, "archive the whole of it: `pgstow archive "+l.want.Label+"`", "there is no readable archive of all of this database")
	case l.now.Sub(last.Time) > limit && l.excused(last.Time, limit):
		l.say(SeverityNotice, CheckEvery, last.Time, "see that it ends", "the last archive was begun %s, and one is under way since %s", inUTC(last.Time), inUTC(l.running(last.Time)))
	case l.now.Sub(last.Time) > limit:
		l.gap(last.Time, l.now, true)
	}
}

// isWhole reports whether an archive is of all that a dump with these options is of.
func (a *audited) isWhole(args []string) bool {
	if a.Sealed {
		args = hideValues(args) // as its manifest has them
	}
	return len(a.args) == 0 || slices.Equal(a.args, args)
}

// configured: the label is a database of the configuration.
func (l *labelAudit) configured() bool {
	return slices.ContainsFunc(l.opts.Databases, func(d AuditDatabase) bool { return d.Label == l.want.Label })
}

// stillThere is when a was made, or later the time from which on archives of its
// policy must still be there: what was made before may have expired.
func (l *labelAudit) stillThere(a *audited) time.Time {
	if a.kept == nil || a.kept.Keep.IsZero() {
		return a.Time
	}
	if kept := a.kept.Keep.Before(l.now); kept.After(a.Time) {
		return kept
	}
	return a.Time
}

// excused reports whether the archive that is due after last was begun in time and
// may be under way. What fails night after night leaves something young each time:
// that is no excuse for the nights before.
func (l *labelAudit) excused(last time.Time, limit time.Duration) bool {
	at := l.running(last)
	return !at.IsZero() && at.Sub(last) <= limit && l.now.Sub(last) <= 2*limit
}

// running is when the first archive after some time that may be under way was
// begun; zero when there is none.
func (l *labelAudit) running(after time.Time) (at time.Time) {
	add := func(begun time.Time, young bool) {
		if young && begun.After(after) && (at.IsZero() || begun.Before(at)) {
			at = begun
		}
	}
	for _, o := range l.res.Orphans {
		add(o.Time, o.Label == l.want.Label && o.Young && !o.Expiring)
	}
	for _, u := range l.res.Uploads {
		dir, _, ok := ParseKey(u.Key)
		add(dir.Time, ok && dir.Label == l.want.Label && u.Young)
	}
	return at
}

// failed reports whether a run that failed has left something.
func (l *labelAudit) failed() bool {
	return slices.ContainsFunc(l.res.Orphans, func(o AuditedOrphan) bool { return o.Label == l.want.Label && !o.Young && !o.Expiring })
}

func (l *labelAudit) gap(from, to time.Time, open bool) {
	every := l.want.Every
	missed := max(1, int((to.Sub(from)+every/2)/every)-1)
	if open {
		missed = max(1, int(to.Sub(from)/every))
	}
	g := AuditGap{From: from, To: to, Missed: missed, Open: open, Violation: open || to.After(l.since)}
	l.out.Gaps = append(l.out.Gaps, g)
	severity, do := SeverityNotice, "nothing can be done about it now; it lies before the period of this audit"
	text := fmt.Sprintf("missed %s between %s and %s; one is due every %s", many(missed, "archive"), inUTC(from), inUTC(to), intervalText(every))
	if g.Violation {
		severity, do = SeverityViolation, "look into the log of the runs in between, and write down why they failed"
	}
	if open {
		do = "archive it now: `pgstow archive " + l.want.Label + "`, and see what runs it"
		text = fmt.Sprintf("no archive since %s; one is due every %s", inUTC(from), intervalText(every))
	}
	l.say(severity, CheckEvery, from.Add(every), do, "%s", text)
}

// many is a number with its noun.
func many(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func areMany(n int, noun string) string {
	if n == 1 {
		return many(n, noun) + " is"
	}
	return many(n, noun) + " are"
}

// intervalText is 24h rather than 24h0m0s.
func intervalText(d time.Duration) string {
	text := d.String()
	if rest, ok := strings.CutSuffix(text, "m0s"); ok {
		text = rest + "m"
	}
	if rest, ok := strings.CutSuffix(text, "h0m"); ok {
		text = rest + "h"
	}
	return text
}

// judgeProofs wants one of the label's archives verified, and one drilled, as
// lately as is asked for.
func (l *labelAudit) judgeProofs() {
	if len(l.archives) == 0 {
		return
	}
	for _, a := range l.archives {
		for _, f := range a.Verified {
			newer(&l.out.Verified, a, f, false)
		}
		for _, f := range a.Drilled {
			newer(&l.out.Drilled, a, f, l.want.DrillPart)
		}
	}
	first, newest := l.archives[0].Time, l.archives[len(l.archives)-1].ID
	l.due(CheckVerify, "verification", "`pgstow verify "+newest+"`", l.want.VerifyEvery, l.out.Verified, first)
	l.due(CheckDrill, "drill", "`pgstow drill "+newest+" --server URL`", l.want.DrillEvery, l.out.Drilled, first)
}

// newer keeps the newest passed fact that counts.
func newer(best **AuditedProof, a *audited, f AuditedFact, parts bool) {
	if f.Passed && (parts || !f.Part) && (*best == nil || f.Time.After((*best).Time)) {
		*best = &AuditedProof{Archive: a.ID, Time: f.Time}
	}
}

// due: a label whose first archive is younger than the period owes nothing yet.
func (l *labelAudit) due(check, noun, do string, every Period, last *AuditedProof, first time.Time) {
	switch {
	case every.IsZero():
	case last == nil && !every.After(first).After(l.now):
		l.say(SeverityViolation, check, every.After(first), do, "no passed %s of any of its archives is recorded; one is due every %s", noun, every)
	case last != nil && !every.After(last.Time).After(l.now):
		l.say(SeverityViolation, check, every.After(last.Time), do, "the last passed %s was %s, of %s; one is due every %s", noun, inUTC(last.Time), last.Archive, every)
	}
}

// judgeKeep counts the archives whose keep is over.
func (l *labelAudit) judgeKeep() {
	over, store := 0, 0
	for _, a := range l.archives {
		switch {
		case a.KeepUntil.IsZero() || a.KeepUntil.After(l.now):
		case a.kept.Expiry == ExpiryStore:
			store++
		default:
			over++
		}
	}
	if over > 0 {
		l.say(SeverityNotice, CheckKeep, time.Time{}, "`pgstow expire --name "+l.want.Label+"` says which may go",
			"%s past their keep and still there", areMany(over, "archive"))
	}
	if store > 0 {
		l.say(SeverityNotice, CheckKeep, time.Time{}, "`pgstow lifecycle plan` shows whether the rule is there; it may come some days later",
			"%s past their keep, and the store's rule has not deleted them", areMany(store, "archive"))
	}
}
