package archiver

import (
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

func TestKeyRoundTrip(t *testing.T) {
	now := time.Date(2026, 11, 22, 15, 15, 0, 999, time.FixedZone("", 3600))
	seen := map[string]bool{}
	for range 2000 {
		d, err := NewDir(DefaultPolicy, "db1.orders", now)
		if err != nil {
			t.Fatal(err)
		}
		if !ValidID(d.ID) || seen[d.ID] {
			t.Fatalf("id %q is malformed or was drawn twice", d.ID)
		}
		seen[d.ID] = true
		for _, name := range []string{
			DumpName, DumpName + EncryptedSuffix, IndexName, GlobalsName, ManifestName, SignatureName,
			RecordsDir + "20261122T141500Z-verify.json",
		} {
			key := d.Key(name)
			if err := storage.CheckKey(key); err != nil {
				t.Fatal(err)
			}
			got, gotName, ok := ParseKey(key)
			if !ok || got != d || gotName != name {
				t.Fatalf("ParseKey(%q) = %v, %q, %v; want %v, %q", key, got, gotName, ok, d, name)
			}
		}
	}
	d := Dir{Policy: "default", Label: "db1.orders", Time: now.UTC().Truncate(time.Second), ID: "kq3v9z0a"}
	if got, want := d.Key(ManifestName), "default/db1.orders/20261122T141500Z-kq3v9z0a/manifest.json"; got != want {
		t.Errorf("key is %q, want %q", got, want)
	}
}

func TestParseKeyRefusesWhatIsNotOurs(t *testing.T) {
	for _, key := range []string{
		"", "manifest.json", "default/db/20261122T141500Z-kq3v9z0a", "default/db/20261122T141500Z-kq3v9z0a/",
		"default/db/20261122T141500Z-kq3v9z0a/other.txt",
		"default/db/20261122T141500Z-kq3v9z0a/manifest.json/x",
		"default/db/20261122T141500Z-kq3v9z0a/records/",
		"default/db/20261122T141500Z-kq3v9z0a/records/a/b",
		"default/db/20261122T141500Z-KQ3V9Z0A/manifest.json",
		"default/db/20261122T141500Z-1q3v9z0a/manifest.json", // an id does not look like a date
		"default/db/20261122T141500Z-kq3v9z0l/manifest.json", // l is no letter of the alphabet
		"default/db/20261122T141500Z-kq3v9z0/manifest.json",
		"default/db/20261122T141500Z-kq3v9z0aa/manifest.json",
		"default/db/20261122T141500.5Z-kq3v9z0a/manifest.json",
		"default/db/20261322T141500Z-kq3v9z0a/manifest.json",
		"default/db/2026-11-22T14:15:00Z-kq3v9z0a/manifest.json",
		"default/d b/20261122T141500Z-kq3v9z0a/manifest.json",
		"default/../20261122T141500Z-kq3v9z0a/manifest.json",
		"default//20261122T141500Z-kq3v9z0a/manifest.json",
		"/default/db/20261122T141500Z-kq3v9z0a/manifest.json",
		"x/default/db/20261122T141500Z-kq3v9z0a/manifest.json",
		"pgstow-doctor/20261122T141500Z-kq3v9z0a",
	} {
		if d, name, ok := ParseKey(key); ok {
			t.Errorf("ParseKey(%q) = %v, %q", key, d, name)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("default/db/20261122T141500Z-kq3v9z0a/manifest.json")
	f.Add("default/db/00000101T000000Z-a0000000/records/x")
	f.Fuzz(func(t *testing.T, key string) {
		d, name, ok := ParseKey(key)
		if !ok {
			return
		}
		if back := d.Key(name); back != key {
			t.Errorf("%q was parsed and comes back as %q", key, back)
		}
		if CheckLabel(d.Label) != nil || CheckLabel(d.Policy) != nil || !ValidID(d.ID) {
			t.Errorf("%q was parsed into %v", key, d)
		}
	})
}

func TestDefaultLabel(t *testing.T) {
	for _, c := range []struct{ host, database, want string }{
		{"ep-cool-darkness-123456.eu-central-1.aws.neon.tech", "neondb", "ep-cool-darkness-123456.neondb"},
		{"localhost", "orders", "localhost.orders"},
		{"", "orders", "local.orders"},
		{"/var/run/postgresql", "orders", "local.orders"},
		{"@abstract", "orders", "local.orders"},
		{"10.0.0.5", "orders", "10.0.0.5.orders"},
	} {
		if got := DefaultLabel(c.host, c.database); got != c.want {
			t.Errorf("DefaultLabel(%q, %q) = %q, want %q", c.host, c.database, got, c.want)
		}
	}
	// What had to be changed stays apart.
	odd := []struct{ host, database string }{
		{"h", "имя"}, {"h", "им"}, {"h", "иия"}, {"h", "a b"}, {"h", "a/b"}, {"h", "a-b"}, {"::1", "d"}, {"--1", "d"},
		{"h", strings.Repeat("x", 120)}, {"h", strings.Repeat("x", 121)}, {"h", ""}, {".", "."},
	}
	seen := map[string]string{}
	for _, c := range odd {
		got := DefaultLabel(c.host, c.database)
		if err := CheckLabel(got); err != nil {
			t.Errorf("DefaultLabel(%q, %q): %v", c.host, c.database, err)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q share the label %q", other, c.host+"/"+c.database, got)
		}
		seen[got] = c.host + "/" + c.database
	}
}

func FuzzDefaultLabel(f *testing.F) {
	f.Add("db.example.org", "orders")
	f.Add("", "\xff/..")
	f.Fuzz(func(t *testing.T, host, database string) {
		label := DefaultLabel(host, database)
		if err := CheckLabel(label); err != nil {
			t.Errorf("DefaultLabel(%q, %q): %v", host, database, err)
		}
	})
}

func TestCheckLabel(t *testing.T) {
	for _, s := range []string{"a", "A.b_c-9", "...", strings.Repeat("x", 100)} {
		if err := CheckLabel(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", ".", "..", "a b", "a/b", "ä", "a\x00", strings.Repeat("x", 101)} {
		if CheckLabel(s) == nil {
			t.Errorf("label %q is accepted", s)
		}
	}
}
