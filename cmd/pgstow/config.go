package main

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/pgstow/pgstow/archiver"
)

// config is a configuration file, whole and free of contradictions; the zero
// config is that of a run without a file.
type config struct {
	file      string
	stores    []*store
	policies  []*policy
	databases []*database
	maxKeep   archiver.Period
	keys      keys
}

// store is a bucket with a name and a way to sign in.
type store struct {
	name   string
	bucket bucketURL
}

// policy is one entry of "policies".
type policy struct {
	archiver.Policy
	evidence evidence
	key      *yaml.Node
	at       map[string]*yaml.Node // where each of its keys stands
}

// database is one entry of "databases"; its name is its archives' label.
type database struct {
	name    string
	url     text // where url_file is not
	urlFile string
	store   *store
	policy  *policy // nil: none is named
	every   time.Duration
	dump    []string // options of pg_dump

	key, policyAt *yaml.Node
	storeName     text
	policyName    text
}

func (c *config) store(name string) *store {
	return find(c.stores, func(s *store) bool { return s.name == name })
}

func (c *config) policy(name string) *policy {
	return find(c.policies, func(p *policy) bool { return p.Name == name })
}

func (c *config) database(name string) *database {
	return find(c.databases, func(d *database) bool { return d.name == name })
}

func find[T any](list []*T, is func(*T) bool) *T {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i]
	}
	return nil
}

// names lists the names of entries for messages.
func names[T any](list []*T, name func(*T) string) string {
	all := make([]string, len(list))
	for i, e := range list {
		all[i] = name(e)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func (c *config) storeNames() string { return names(c.stores, func(s *store) string { return s.name }) }
func (c *config) policyNames() string {
	return names(c.policies, func(p *policy) string { return p.Name })
}
func (c *config) databaseNames() string {
	return names(c.databases, func(d *database) string { return d.name })
}

// maxConfig is far more than anybody writes by hand: what is larger is another
// file.
const maxConfig = 1 << 20

// loadConfig reads a configuration file. Nothing of it is used unless all of it
// is right: the error is a *configError with every mistake.
func loadConfig(path string, env func(string) (string, bool)) (*config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("--config: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
		return nil, usagef("--config: %w", err)
	case len(data) > maxConfig:
		return nil, usagef("--config: %s is larger than 1 MiB, which no configuration is", path)
	}
	return parseConfig(path, data, env)
}

func parseConfig(path string, data []byte, env func(string) (string, bool)) (*config, error) {
	r := &configReader{yamlReader: yamlReader{mistakes: mistakes{file: path}, env: env}}
	r.config = config{file: path, maxKeep: archiver.DefaultMaxKeep}
	if root := r.document(data); root != nil {
		r.root(root)
		r.across()
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return &r.config, nil
}

// configReader makes a config of a YAML document.
type configReader struct {
	yamlReader
	config config
}

func (r *configReader) root(n *yaml.Node) {
	r.object(n, "the file", fields{
		"stores":    func(_, v *yaml.Node) { r.entries(v, "stores", r.store) },
		"policies":  func(_, v *yaml.Node) { r.entries(v, "policies", r.policy) },
		"databases": func(_, v *yaml.Node) { r.entries(v, "databases", r.database) },
		"keys":      func(_, v *yaml.Node) { r.keys(v) },
		"max-keep": func(_, v *yaml.Node) {
			if p, ok := r.period(v, "max-keep"); ok {
				r.config.maxKeep = p
			}
		},
	}, func(key string) string { return notYet(key, "notify", "servers") })
}

// notYet tells keys that a later version will know from misspelt ones.
func notYet(key string, later ...string) string {
	if slices.Contains(later, key) {
		return "not supported by this version of pgstow"
	}
	return ""
}

// entries reads a section: names, and what each stands for.
func (r *configReader) entries(n *yaml.Node, section string, read func(key, value *yaml.Node)) {
	r.each(n, section, func(key, value *yaml.Node) {
		switch {
		case archiver.CheckLabel(key.Value) != nil:
			r.add(key, "%s: a name is 1 to 100 of A-Z a-z 0-9 . _ -", section)
		case value.Kind != yaml.MappingNode:
			r.add(value, "%s: %s: want keys with values, as in key: value", section, key.Value)
		default:
			read(key, value)
		}
	})
}

// signIn says how to sign in to a store. Keys and secrets are none of it.
type signIn struct {
	profile, roleARN, externalID, bucketOwner, caFile string // S3
	impersonate, quotaProject                         string // GCS
}

func (r *configReader) store(key, value *yaml.Node) {
	s := &store{name: key.Value}
	what := "store " + s.name
	var url text
	var by signIn
	at := map[string]*yaml.Node{}
	into := func(field *string) func(key, value *yaml.Node) {
		return func(key, value *yaml.Node) {
			at[key.Value] = key
			if t, ok := r.text(value, what+": "+key.Value); ok {
				*field = t.value
			}
		}
	}
	r.object(value, what, fields{
		"url": func(k, v *yaml.Node) {
			at["url"] = k
			url, _ = r.text(v, what+": url")
		},
		"profile": into(&by.profile), "role-arn": into(&by.roleARN), "external-id": into(&by.externalID),
		"expected-bucket-owner": into(&by.bucketOwner), "ca-file": into(&by.caFile),
		"impersonate": into(&by.impersonate), "quota-project": into(&by.quotaProject),
	}, secretInStore)
	switch {
	case at["url"] == nil:
		r.add(key, "%s: has no url; %s", what, bucketForms)
	case url.node != nil:
		if by.caFile != "" {
			by.caFile = r.beside(by.caFile)
		}
		r.storeURL(s, url, by, at)
	}
	// Also when it cannot be used: who names it is not wrong for that.
	r.config.stores = append(r.config.stores, s)
}

func secretInStore(key string) string {
	k := strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(key))
	for _, mark := range []string{"secret", "accesskey", "keyid", "token", "password", "credential", "keyfile", "hmac"} {
		if strings.Contains(k, mark) {
			return "no secrets of stores in this file: sign in with profile, role-arn, or the environment of the store's own SDK"
		}
	}
	if k == "key" || k == "keys" {
		return secretInStore("secret")
	}
	return ""
}

// signInOf are the keys that each kind of store knows beside url.
var signInOf = map[string][]string{
	"s3": {"profile", "role-arn", "external-id", "expected-bucket-owner", "ca-file"},
	"gs": {"impersonate", "quota-project"},
}

func (r *configReader) storeURL(s *store, url text, by signIn, at map[string]*yaml.Node) {
	what := "store " + s.name
	bucket, err := parseBucket(url.value, by)
	switch {
	case err != nil && url.vars:
		r.add(url.node, "%s: url: what %s stands for is no bucket URL; %s", what, url.shown(), bucketForms)
		return
	case err != nil:
		r.add(url.node, "%s: url: %v", what, err)
		return
	}
	s.bucket = bucket
	for key, n := range at {
		if key != "url" && !slices.Contains(signInOf[bucket.scheme], key) {
			r.add(n, "%s: %s has no meaning for %s:// stores", what, key, bucket.scheme)
		}
	}
	switch {
	case at["external-id"] != nil && at["role-arn"] == nil:
		r.add(at["external-id"], "%s: external-id goes with role-arn", what)
	case by.roleARN != "" && !strings.HasPrefix(by.roleARN, "arn:"):
		r.add(at["role-arn"], "%s: role-arn: want arn:aws:iam::ACCOUNT:role/NAME", what)
	}
	if owner := by.bucketOwner; owner != "" && (len(owner) != 12 || strings.Trim(owner, "0123456789") != "") {
		r.add(at["expected-bucket-owner"], "%s: expected-bucket-owner: want an account's 12 digits", what)
	}
}

// period reads a span of the calendar.
func (r *configReader) period(n *yaml.Node, what string) (archiver.Period, bool) {
	t, ok := r.text(n, what)
	if !ok {
		return archiver.Period{}, false
	}
	p, err := archiver.ParsePeriod(t.value)
	switch {
	case err == nil:
		return p, true
	case t.vars:
		r.add(n, "%s: what %s stands for is no period such as 30d, 2w, 18mo or 7y", what, t.shown())
	default:
		r.add(n, "%s: %s", what, refusal(err))
	}
	return archiver.Period{}, false
}

// refusal is what an ErrUsage says without its kind.
func refusal(err error) string {
	return strings.TrimPrefix(err.Error(), archiver.ErrUsage.Error()+": ")
}

// readConfig is the empty configuration without a file.
func (rt *runtime) readConfig() (*config, error) {
	if rt.configFile == "" {
		return &config{maxKeep: archiver.DefaultMaxKeep}, nil
	}
	c, err := loadConfig(rt.configFile, os.LookupEnv)
	var wrong *configError
	if errors.As(err, &wrong) {
		rt.explainConfig(wrong)
		return nil, usageError{wrong}
	}
	return c, err
}
