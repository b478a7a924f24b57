package main

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

// The example of docs/configuration.md is a configuration, and has every key.
func TestDocumentedConfiguration(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "## All of it\n")
	example, keys, _ := strings.Cut(rest, "\n## Names\n")
	var data strings.Builder
	for line := range strings.Lines(example) {
		data.WriteString(strings.TrimPrefix(line, "    "))
	}
	c, err := parseConfig("docs/configuration.md", []byte(data.String()), testVariables)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.stores) != 3 || len(c.policies) != 4 || len(c.databases) != 3 {
		t.Errorf("%d stores, %d policies, %d databases", len(c.stores), len(c.policies), len(c.databases))
	}
	for _, key := range []string{
		"max-keep", "url", "profile", "role-arn", "external-id", "expected-bucket-owner", "ca-file", "impersonate", "quota-project",
		"keep", "lock", "legal-hold", "storage-class", "transitions", "tags", "sse", "expiry", "keep-last",
		"keep-daily", "keep-weekly", "keep-monthly", "keep-yearly", "url_file", "store", "policy", "every", "dump",
	} {
		if !strings.Contains(data.String(), key+":") {
			t.Errorf("the example has no %s", key)
		}
		if !strings.Contains(keys, "`"+key+"`") {
			t.Errorf("%s is not explained", key)
		}
	}
}

func configured(t *testing.T, text string) *runtime {
	t.Helper()
	c, err := parseConfig("f", []byte(text), testVariables)
	if err != nil {
		t.Fatal(err)
	}
	return &runtime{loaded: c}
}

const twoPlaces = `
stores:
  vault: {url: "s3://a/pg?region=x"}
  again: {url: "s3://a/pg/", role-arn: "arn:aws:iam::1:role/r"}
  minio: {url: "s3://a/pg?endpoint=http://h:1"}
  disk: {url: "file:///srv"}
policies:
  locked: {keep: 1y, lock: governance}
  dev: {keep: 30d}
  free: {keep: 1d}
  firm: {keep: 1d, lock: governance}
databases:
  one: {url: service=one, store: vault, policy: dev}
  two: {url: service=two, store: again, policy: locked}
  three: {url: service=three, store: disk, policy: dev}
`

// Commands that work on every store see each place once, and in it the policies
// that its archives may have, whatever name of the place a database uses.
func TestPlacesAndPolicies(t *testing.T) {
	rt := configured(t, twoPlaces)
	flags := flag.NewFlagSet("lifecycle", flag.ContinueOnError)
	flags.String(flagBucket, "", "")
	c := cli.NewContext(nil, flags, nil)
	all, err := rt.buckets(c)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ place, policies string }{
		{"s3://a/pg/ ", "locked dev free firm"},
		{"s3://a/pg/ http://h:1", "free firm"},
		{"file:///srv/ ", "dev free"}, // a folder cannot lock
	}
	if len(all) != len(want) {
		t.Fatalf("%d places: %v", len(all), all)
	}
	for i, b := range all {
		policies, err := rt.policies(b)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range policies {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); b.place != want[i].place || got != want[i].policies {
			t.Errorf("%s has the policies %s, want %s with %s", b.place, got, want[i].place, want[i].policies)
		}
	}

	rt.line.typed = map[string]bool{flagBucket: true}
	if err := flags.Set(flagBucket, "disk"); err != nil {
		t.Fatal(err)
	}
	one, err := rt.buckets(c)
	if err != nil || len(one) != 1 || one[0].String() != "file:///srv/" {
		t.Errorf("--bucket disk is %v, %v", one, err)
	}
}

// Without a file there is one bucket, and no policy is known.
func TestPlacesWithoutConfiguration(t *testing.T) {
	flags := flag.NewFlagSet("lifecycle", flag.ContinueOnError)
	flags.String(flagBucket, "file:///srv", "")
	c := cli.NewContext(nil, flags, nil)
	rt := &runtime{}
	all, err := rt.buckets(c)
	if err != nil || len(all) != 1 || all[0].String() != "file:///srv/" {
		t.Fatalf("%v, %v", all, err)
	}
	if policies, err := rt.policies(all[0]); err != nil || len(policies) > 0 {
		t.Errorf("%v, %v", policies, err)
	}
	if rt.loaded.maxKeep != archiver.DefaultMaxKeep {
		t.Errorf("max-keep is %s", rt.loaded.maxKeep)
	}
}
