package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

// lockText is a lock in words.
func lockText(mode storage.LockMode, until time.Time) string {
	if mode == storage.LockNone {
		return "none"
	}
	return string(mode) + " until " + utc(until)
}

// keptUntil is when an archive's policy lets it go.
func keptUntil(e archiver.Entry) string {
	switch {
	case e.Manifest == nil:
		return "?"
	case e.Manifest.Kept == nil || e.Manifest.Kept.KeepUntil.IsZero():
		return "-"
	}
	return utc(e.Manifest.Kept.KeepUntil)
}

// deniedText is of what these credentials may not see: it is not known.
const deniedText = "denied to see"

// lockNow is the weakest lock of an archive.
func lockNow(s *archiver.Shown, now time.Time) string {
	switch w := s.Weakest; {
	case slices.Contains(s.Denied, storage.AttributeRetention):
		return deniedText
	case w.Lock == storage.LockNone:
		return "none"
	case !w.RetainUntil.After(now):
		return lockText(w.Lock, w.RetainUntil) + " (over)"
	default:
		return lockText(w.Lock, w.RetainUntil)
	}
}

// holdNow is whether an archive is on hold.
func holdNow(s *archiver.Shown) string {
	held := 0
	for _, o := range s.Objects {
		if o.LegalHold {
			held++
		}
	}
	switch {
	case slices.Contains(s.Denied, storage.AttributeLegalHold):
		return deniedText
	case held > 0 && held < len(s.Objects):
		return fmt.Sprintf("on %d of %d objects; `pgstow hold set` completes it", held, len(s.Objects))
	case held > 0:
		return "on"
	}
	return "off"
}

// staysUntil is until when the store keeps some object of what a failed run has
// left.
func staysUntil(s *archiver.Shown, now time.Time) string {
	var until time.Time
	lockDenied, holdDenied := false, false
	for _, o := range s.Objects {
		if o.LegalHold {
			return "its hold is released"
		}
		lockDenied = lockDenied || slices.Contains(o.Denied, storage.AttributeRetention)
		holdDenied = holdDenied || slices.Contains(o.Denied, storage.AttributeLegalHold)
		if o.Lock != storage.LockNone && o.RetainUntil.After(until) {
			until = o.RetainUntil
		}
	}
	text := "-"
	if until.After(now) {
		text = utc(until)
	}
	switch {
	case lockDenied:
		return deniedText
	case holdDenied:
		return text + ", or longer: holds are " + deniedText
	}
	return text
}

// keptRows print how the archive was promised to be kept when it was made.
func keptRows(t table, m *archiver.Manifest) {
	k := m.Kept
	if k == nil || k.IsZero() {
		t.row("kept", "nothing promised: no keep and no lock in its policy")
		return
	}
	if k.Keep.IsZero() {
		t.row("kept", "for no promised time")
	} else {
		t.row("kept", fmt.Sprintf("%s, until %s", k.Keep, utc(k.KeepUntil)))
		t.row("", "then "+expiryText(k.Policy))
	}
	promised := nonEmpty(orNone("lock", string(k.Lock)), holdWord(k.LegalHold), named("class", k.StorageClass), named("sse", encryptionText(k.Encryption)), named("tags", tagsText(k.Tags)))
	wrapped(t, "promised", strings.Join(promised, ", "))
	for _, tr := range k.Transitions {
		t.row("", fmt.Sprintf("to %s after %s", tr.To, tr.After))
	}
	if len(k.Denied) > 0 {
		words := make([]string, len(k.Denied))
		for i, a := range k.Denied {
			words[i] = string(a)
		}
		wrapped(t, "", "read back then: denied for "+strings.Join(words, ", "))
	}
}

func expiryText(p archiver.Policy) string {
	if p.Expiry == archiver.ExpiryStore {
		return "a lifecycle rule of the bucket deletes it"
	}
	text := fmt.Sprintf("`pgstow expire` may delete it, behind %s", counted(cmp.Or(p.KeepLast, archiver.DefaultKeepLast), "newer one"))
	var spares []string
	for _, s := range []struct {
		n    int
		span string
	}{{p.KeepDaily, "day"}, {p.KeepWeekly, "week"}, {p.KeepMonthly, "month"}, {p.KeepYearly, "year"}} {
		if s.n > 0 {
			spares = append(spares, counted(s.n, s.span))
		}
	}
	if len(spares) > 0 {
		text += ", the newest of " + strings.Join(spares, ", ") + " spared"
	}
	return text
}

// protectionRows print how the store keeps the archive now, its records, and
// what lies over its objects.
func protectionRows(t table, r *archiver.ShowResult, now time.Time) {
	s := r.Protection
	denied := func(a storage.Attribute) bool { return slices.Contains(s.Denied, a) }
	lock := lockNow(s, now)
	over := s.Weakest.Lock != storage.LockNone && !s.Weakest.RetainUntil.After(now)
	if !denied(storage.AttributeRetention) && !over && slices.ContainsFunc(s.Objects, func(o archiver.ObjectProtection) bool {
		return !o.Missing && (o.Lock != s.Weakest.Lock || !o.RetainUntil.Equal(s.Weakest.RetainUntil))
	}) {
		lock += " (the weakest of " + counted(len(s.Objects), "object") + ")"
	}
	t.row("lock now", lock)
	t.row("hold now", holdNow(s))
	stored := nonEmpty(named("class", s.Weakest.StorageClass), named("sse", encryptionText(s.Weakest.Encryption)), named("tags", tagsText(s.Weakest.Tags)))
	if denied(storage.AttributeTags) {
		stored = append(stored, "tags "+deniedText)
	}
	if len(stored) > 0 {
		wrapped(t, "stored", strings.Join(stored, ", "))
	}
	for _, o := range s.Objects {
		if o.Missing {
			t.row("missing", o.Name)
		}
	}
	laterRows(t, r.Entry)
	for _, rec := range r.Records {
		recordRow(t, rec)
	}
}

// laterRows print what lies over the objects, by object. pgstow reads the oldest.
func laterRows(t table, e archiver.Entry) {
	type over struct {
		markers, versions int
		since             time.Time
	}
	found := map[string]*over{}
	for _, v := range e.Later {
		o := found[v.Name]
		if o == nil {
			o = &over{since: v.Created}
			found[v.Name] = o
		}
		if v.DeleteMarker {
			o.markers++
		} else {
			o.versions++
		}
		if v.Created.Before(o.since) {
			o.since = v.Created
		}
	}
	names := slices.Sorted(maps.Keys(found))
	for i, name := range names {
		o := found[name]
		var what []string
		if o.markers > 0 {
			what = append(what, counted(o.markers, "delete marker"))
		}
		if o.versions > 0 {
			what = append(what, counted(o.versions, "later version"))
		}
		label := ""
		if i == 0 {
			label = "covered"
		}
		wrapped(t, label, fmt.Sprintf("%s: %s since %s", name, strings.Join(what, ", "), utc(o.since)))
	}
	switch {
	case len(names) > 0:
		wrapped(t, "", "pgstow reads below them; `pgstow undelete "+e.ID+"` removes them")
	case e.Hidden:
		t.row("covered", "an object is not live any more; pgstow reads its old version")
	}
}

func recordRow(t table, r archiver.RecordEntry) {
	if r.Record == nil {
		wrapped(t, "record", r.Name+": "+r.Error)
		return
	}
	text := fmt.Sprintf("%s %s %s by %s", utc(r.Record.Time), r.Record.Kind, r.Record.Result, r.Record.By)
	if r.Record.Reason != "" {
		text += ": " + r.Record.Reason
	}
	wrapped(t, "record", text)
}

// named is "name value", and nothing without a value.
func named(name, value string) string {
	if value == "" {
		return ""
	}
	return name + " " + value
}

func orNone(name, value string) string { return name + " " + cmp.Or(value, "none") }

func holdWord(on bool) string {
	if on {
		return "legal hold"
	}
	return ""
}

func tagsText(tags map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, k+"="+tags[k])
	}
	return strings.Join(list, " ")
}

func encryptionText(e archiver.Encryption) string {
	return strings.Trim(string(e.Mode)+":"+e.Key, ":")
}
