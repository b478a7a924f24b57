package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

const leak = "hunter2-of-the-environment"

func testVariables(name string) (string, bool) {
	v, ok := map[string]string{
		"GOOD": "good", "S3": "s3://b/p", "EMPTY": "", "LEAK": leak,
		"ORDERS_URL": "postgres://app:" + leak + "@db/orders\n",
	}[name]
	return v, ok
}

func TestConfig(t *testing.T) {
	data, err := os.ReadFile("testdata/config/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig("/etc/pgstow/pgstow.yaml", data, testVariables)
	if err != nil {
		t.Fatal(err)
	}
	policies := map[string]archiver.Policy{
		"sox-7y": {
			Name: "sox-7y", Keep: archiver.Period{Years: 7}, Lock: storage.Compliance, LegalHold: true, StorageClass: "STANDARD_IA",
			Encryption: archiver.Encryption{Mode: storage.EncryptionKMS, Key: "arn:aws:kms:eu-west-1:123456789012:key/k"},
			Transitions: []archiver.Transition{
				{After: archiver.Period{Days: 30}, To: "GLACIER_IR"}, {After: archiver.Period{Months: 18}, To: "DEEP_ARCHIVE"},
			},
			Tags: map[string]string{"owner": "finance", "cost-center": "0042"},
		},
		"dev": {Name: "dev", Keep: archiver.Period{Days: 30}, KeepLast: 3},
		"gfs": {
			Name: "gfs", Keep: archiver.Period{Days: 7}, Expiry: archiver.ExpiryPgstow,
			KeepDaily: 7, KeepWeekly: 4, KeepMonthly: 12, KeepYearly: 7,
		},
		"store": {Name: "store", Keep: archiver.Period{Years: 1, Months: 6}, Expiry: archiver.ExpiryStore},
	}
	if len(c.policies) != len(policies) {
		t.Errorf("%d policies", len(c.policies))
	}
	for _, p := range c.policies {
		if !reflect.DeepEqual(p.Policy, policies[p.Name]) {
			t.Errorf("policy %s is\n%+v, want\n%+v", p.Name, p.Policy, policies[p.Name])
		}
	}
	wantKeys := keys{
		encryptTo: []string{"age1qqq", "ssh-ed25519 AAAA", "/etc/recipients", "/etc/pgstow/recipients"}, sign: "/etc/pgstow/sign",
		allowedSigners: "/etc/pgstow/allowed_signers", identities: []string{"/etc/pgstow/id", "/etc/pgstow/id"}, requireSignature: true,
	}
	if !reflect.DeepEqual(c.keys, wantKeys) {
		t.Errorf("keys are %+v", c.keys)
	}
	proofs := evidence{
		encrypt: wordRequired, encryptTo: []string{"age1other"}, sign: true,
		drillEvery: archiver.Period{Days: 90}, verifyEvery: archiver.Period{Days: 30}, drillPart: true,
	}
	if got := c.policy("sox-7y").evidence; !reflect.DeepEqual(got, proofs) {
		t.Errorf("sox-7y asks for %+v", got)
	}
	if got := c.policy("dev").evidence; !reflect.DeepEqual(got, evidence{encrypt: wordNone}) {
		t.Errorf("dev asks for %+v", got)
	}
	stores := map[string]string{
		"vault": "s3://acme-archives/pg/", "gcs": "gs://acme-archives/pg/", "disk": "file:///srv/archives/",
	}
	for name, url := range stores {
		if s := c.store(name); s == nil || s.bucket.String() != url {
			t.Errorf("store %s is %+v, want %s", name, s, url)
		}
	}
	orders, lab, plain := c.database("orders"), c.database("lab"), c.database("plain")
	if orders.store != c.store("vault") || orders.policy != c.policy("sox-7y") || orders.every != 24*time.Hour ||
		orders.url.value != "postgres://app:"+leak+"@db/orders" {
		t.Errorf("orders is %+v", orders)
	}
	dump := []string{"--exclude-table-data=public.cache_*", "--exclude-table-data=audit.events", "--exclude-table=scratch", "--schema=public", "--no-comments"}
	if lab.urlFile != "/etc/pgstow/secrets/lab" || lab.every != 7*24*time.Hour || !reflect.DeepEqual(lab.dump, dump) {
		t.Errorf("lab is %+v", lab)
	}
	if plain.policy != nil || plain.store != c.store("gcs") {
		t.Errorf("plain is %+v", plain)
	}
	if c.maxKeep != (archiver.Period{Years: 10}) {
		t.Errorf("max-keep is %s", c.maxKeep)
	}
}

// Every mistake is told with its place, all of a file at once, and what a
// variable stands for is not told at all.
func TestConfigMistakes(t *testing.T) {
	const golden = "testdata/config/mistakes.txtar"
	archive, err := txtar.ParseFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	var inputs []txtar.File
	for _, f := range archive.Files {
		if name, is := strings.CutPrefix(f.Name, "want "); is {
			want[name] = string(f.Data)
		} else {
			inputs = append(inputs, f)
		}
	}
	update := os.Getenv("UPDATE_GOLDEN") != ""
	archive.Files = nil
	for _, f := range inputs {
		t.Run(f.Name, func(t *testing.T) {
			data := strings.ReplaceAll(string(f.Data), "�", "\xff")
			got := toldOf(t, data)
			archive.Files = append(archive.Files, f, txtar.File{Name: "want " + f.Name, Data: []byte(got)})
			if got != want[f.Name] && !update {
				t.Errorf("got\n%swant\n%s", got, want[f.Name])
			}
			if strings.Contains(got, leak) || strings.Contains(got, "hunter2") {
				t.Errorf("a secret is told:\n%s", got)
			}
		})
	}
	if update {
		if err := os.WriteFile(golden, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func toldOf(t *testing.T, data string) string {
	t.Helper()
	_, err := parseConfig("f", []byte(data), testVariables)
	var wrong *configError
	if !errors.As(err, &wrong) {
		t.Fatalf("taken, or no configError: %v", err)
	}
	var b strings.Builder
	for _, m := range wrong.mistakes {
		fmt.Fprintf(&b, "%d:%d: %s\n", m.line, m.column, m.text)
	}
	return b.String()
}

// What cannot be read, and what is no file for people.
func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, []byte("#"+strings.Repeat("x", maxConfig)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing.yaml"), dir, large} {
		_, err := loadConfig(path, testVariables)
		if err == nil || exitCode(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// FuzzConfig holds that no file makes the loader panic, and that a mistake
// always has a place and a text of one line.
func FuzzConfig(f *testing.F) {
	for _, name := range []string{"testdata/config/full.yaml", "testdata/config/mistakes.txtar"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range txtar.Parse(data).Files {
			f.Add(string(file.Data))
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, data string) {
		_, err := parseConfig("f", []byte(data), testVariables)
		var wrong *configError
		if err == nil {
			return
		}
		if !errors.As(err, &wrong) || len(wrong.mistakes) == 0 {
			t.Fatalf("%v", err)
		}
		for _, m := range wrong.mistakes {
			if m.line < 1 || m.column < 1 || m.text == "" || strings.Contains(m.text, leak) {
				t.Fatalf("%+v", m)
			}
		}
	})
}
