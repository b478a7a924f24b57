package archiver

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

func encoded(t testing.TB, r Record) []byte {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A record lasts as long as its archive and is held with it, whatever its own
// time is.
func TestRecordIsKeptWithItsArchive(t *testing.T) {
	now := time.Now()
	gov := storage.Retention{Mode: storage.Governance, Until: now.Add(48 * time.Hour)}
	comp := storage.Retention{Mode: storage.Compliance, Until: now.Add(24 * time.Hour)}
	over := storage.Retention{Mode: storage.Compliance, Until: now.Add(-time.Hour)}
	object := func(name string, r storage.Retention, hold bool, denied ...storage.Attribute) seen {
		return seen{EntryObject: EntryObject{Name: name}, o: storage.Object{Retention: r, LegalHold: hold}, denied: denied}
	}
	promised := &Kept{Policy: Policy{Lock: storage.Compliance, Keep: Period{Days: 1}}, RetainUntil: comp.Until}
	for name, c := range map[string]struct {
		all  []seen
		kept *Kept
		want storage.Retention
		hold bool
	}{
		"nothing":                {[]seen{object(DumpName, storage.Retention{}, false)}, nil, storage.Retention{}, false},
		"locked":                 {[]seen{object(DumpName, comp, false), object(ManifestName, comp, false)}, nil, comp, false},
		"extended in part":       {[]seen{object(DumpName, gov, false), object(ManifestName, comp, true)}, nil, storage.Retention{Mode: storage.Compliance, Until: gov.Until}, true},
		"over":                   {[]seen{object(DumpName, over, false)}, nil, storage.Retention{}, false},
		"not that of records":    {[]seen{object(DumpName, comp, false), object(RecordsDir+"20261122T141500Z-hold.json", gov, false)}, nil, comp, false},
		"not seen, but promised": {[]seen{object(DumpName, storage.Retention{}, false, storage.AttributeRetention)}, promised, comp, false},
	} {
		got := recordOptions(lockable(), Entry{Policy: "sox"}, RecordsDir+"x-hold.json", c.all, c.kept, now)
		if got.Retention != c.want || got.LegalHold != c.hold {
			t.Errorf("%s: %+v, hold %t; want %+v", name, got.Retention, got.LegalHold, c.want)
		}
		if c.kept != nil && (got.Tags[TagPolicy] != "sox" || got.Tags[TagRole] != "record") {
			t.Errorf("%s: tags %v", name, got.Tags)
		}
	}
}

// Two records of one second are two, and what is no record of this archive is
// said to be none.
func TestRecords(t *testing.T) {
	b := lockable()
	d := dirAt(t, "orders", "2026-11-20T01:00:00Z", "a0000001")
	putFake(t, b, d, "1")
	e := resolved(t, b, d.ID)
	now := time.Date(2026, 11, 22, 14, 15, 0, 0, time.UTC)
	for _, reason := range []string{"first", "second <&>"} {
		r := Record{Kind: RecordHold, ManifestSHA256: strings.Repeat("a", 64), By: "alice@host", Reason: reason, Result: HoldSet, Pgstow: "test"}
		o, err := putRecord(t.Context(), b, e, r, nil, nil, nil, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok := ParseKey(d.Key(o.Name)); !ok || !strings.HasPrefix(o.Name, RecordsDir+"20261122T141500Z-") || !strings.HasSuffix(o.Name, "-hold.json") {
			t.Errorf("its name is %q", o.Name)
		}
		raw, err := readSmall(t.Context(), b, d.Key(o.Name), "", maxRecord)
		if err != nil {
			t.Fatal(err)
		}
		validateRecord(t, raw)
		if !strings.Contains(string(raw), reason) {
			t.Errorf("not legible: %s", raw)
		}
	}
	put(t, b, d.Key(RecordsDir+"20261123T000000Z-hold.json"), "{")
	put(t, b, d.Key(RecordsDir+"20261123T000000Z-drill.json.sig"), "a signature")
	e = resolved(t, b, d.ID)
	records, err := readRecords(t.Context(), b, e, "", Trust{})
	if err != nil || len(records) != 3 || records[0].Record == nil || records[1].Record == nil || records[2].Error == "" {
		t.Fatalf("%+v, %v", records, err)
	}
	reasons := []string{records[0].Record.Reason, records[1].Record.Reason}
	slices.Sort(reasons)
	if !slices.Equal(reasons, []string{"first", "second <&>"}) || records[0].Record.Archive != d.ID {
		t.Errorf("%+v", records)
	}
	show, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: d.ID})
	if err != nil || len(show.Records) != 3 {
		t.Errorf("show: %+v, %v", show, err)
	}
}

// resolved is the archive with all its versions.
func resolved(t testing.TB, b storage.Bucket, id string) Entry {
	t.Helper()
	e, err := resolveBy(t.Context(), b, id, "", nil, scanStrictly)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRecordWords(t *testing.T) {
	for text, ok := range map[string]bool{
		"litigation 4711": true, "Prüfung": true, "": false, " \t": false, "two\nlines": false, "\x1b[2J": false,
		strings.Repeat("x", maxReason+1): false, "\xff": false,
	} {
		if err := checkWords("the reason", text, maxReason); (err == nil) != ok || err != nil && !errors.Is(err, ErrUsage) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}
