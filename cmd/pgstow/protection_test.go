package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

// What these credentials may not see is never printed as if it were not there.
func TestProtectionSaysWhatIsDenied(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	until := now.AddDate(7, 0, 0)
	object := func(p archiver.Protection, denied ...storage.Attribute) archiver.ObjectProtection {
		return archiver.ObjectProtection{Name: "archive.dump", Protection: p, Denied: denied}
	}
	locked := archiver.Protection{Lock: storage.Compliance, RetainUntil: until}
	held := archiver.Protection{LegalHold: true}
	for name, c := range map[string]struct {
		shown             archiver.Shown
		lock, hold, stays string
	}{
		"nothing": {archiver.Shown{Objects: []archiver.ObjectProtection{object(archiver.Protection{})}}, "none", "off", "-"},
		"locked":  {archiver.Shown{Weakest: locked, Objects: []archiver.ObjectProtection{object(locked)}}, "compliance until 2033-11-22T12:00:00Z", "off", "2033-11-22T12:00:00Z"},
		"held":    {archiver.Shown{Weakest: held, Objects: []archiver.ObjectProtection{object(held)}}, "none", "on", "its hold is released"},
		"hold denied": {archiver.Shown{Weakest: locked, Denied: []storage.Attribute{storage.AttributeLegalHold},
			Objects: []archiver.ObjectProtection{object(locked, storage.AttributeLegalHold)}},
			"compliance until 2033-11-22T12:00:00Z", "denied to see", "2033-11-22T12:00:00Z, or longer: holds are denied to see"},
		"lock denied": {archiver.Shown{Weakest: held, Denied: []storage.Attribute{storage.AttributeRetention},
			Objects: []archiver.ObjectProtection{object(held, storage.AttributeRetention)}}, "denied to see", "on", "its hold is released"},
		"both denied": {archiver.Shown{Denied: []storage.Attribute{storage.AttributeRetention, storage.AttributeLegalHold},
			Objects: []archiver.ObjectProtection{object(archiver.Protection{}, storage.AttributeRetention, storage.AttributeLegalHold)}},
			"denied to see", "denied to see", "denied to see"},
	} {
		lock, hold, stays := lockNow(&c.shown, now), holdNow(&c.shown), staysUntil(&c.shown, now)
		if lock != c.lock || hold != c.hold || stays != c.stays {
			t.Errorf("%s: lock %q, hold %q, stays until %q", name, lock, hold, stays)
		}
	}
}

// Tables keep to a terminal's width; what has no spaces has a line of its own.
func TestListsFit(t *testing.T) {
	label := strings.Repeat("very-long-label.", 6)
	key := "sox-7y/" + label + "/20261122T141500Z-k7m2q9xd/"
	e := archiver.Entry{ID: "k7m2q9xd", Label: label, Key: key, Time: time.Date(2026, 11, 22, 14, 15, 0, 0, time.UTC), DumpSize: 1 << 40,
		Objects: []archiver.EntryObject{{Name: "archive.dump"}, {Name: "index.json.gz"}, {Name: "globals.sql"}, {Name: "records/20261122T141500Z-k7m2q9xd-verify.json"}},
		Protection: &archiver.Shown{Weakest: archiver.Protection{Lock: storage.Compliance, RetainUntil: time.Date(2033, 11, 23, 0, 0, 0, 0, time.UTC)},
			Denied: []storage.Attribute{storage.AttributeLegalHold}, Objects: []archiver.ObjectProtection{{Denied: []storage.Attribute{storage.AttributeLegalHold}}}},
		ManifestError: strings.Repeat("it cannot be read ", 9)}
	undeleted := &archiver.UndeleteResult{Versions: []archiver.UndeletedVersion{{Action: archiver.UndeleteWould, Marker: true, Key: key + "archive.dump"}}}
	for name, print := range map[string]func(*runtime) error{
		"list":              func(rt *runtime) error { return list{}.print(rt, []archiver.Entry{e, e}) },
		"list --long":       func(rt *runtime) error { return list{}.printLong(rt, []archiver.Entry{e, e}) },
		"list --incomplete": func(rt *runtime) error { return list{}.printIncomplete(rt, []archiver.Entry{e, e}) },
		"undelete":          func(rt *runtime) error { return undelete{}.print(rt, undeleted, "") },
	} {
		var out bytes.Buffer
		if err := print(&runtime{console: console{out: &out, err: new(bytes.Buffer)}}); err != nil {
			t.Fatal(err)
		}
		keys := 0
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.Contains(line, key) {
				keys++
			} else if utf8.RuneCountInString(line) > 80 {
				t.Errorf("%s: %d columns: %s", name, utf8.RuneCountInString(line), line)
			}
		}
		if name != "list" && keys == 0 {
			t.Errorf("%s does not say where:\n%s", name, &out)
		}
	}
}
