package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

const (
	flagPolicy = "policy"
	flagKeep   = "keep"
	flagLock   = "lock"
	flagHold   = "legal-hold"
	flagClass  = "storage-class"
	flagTag    = "tag"
	flagSSE    = "sse"
)

// adHocFlags say how one archive is kept, without a policy that has a name.
var adHocFlags = []string{flagKeep, flagLock, flagHold, flagClass, flagTag, flagSSE}

func keepingFlags() []cli.Flag {
	return append(policyFlags(),
		&cli.BoolFlag{Name: "require-read-back", Usage: "fail where the store does not let it be read back that it keeps the archive as asked"},
		&cli.BoolFlag{Name: "allow-no-evidence", Usage: "lock dumps that have no row counts and hashes, too"})
}

// policyFlags name a policy, or make one.
func policyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: flagPolicy, Usage: "keep it by this policy of the configuration, `NAME`"},
		&cli.StringFlag{Name: flagKeep, Usage: "keep it for this `PERIOD`: 30d, 2w, 18mo, 7y"},
		&cli.StringFlag{Name: flagLock, DefaultText: "none", Usage: "let the store refuse deletion for as long, in this `MODE`: none, governance (some may lift it) or compliance (nobody may)"},
		&cli.BoolFlag{Name: flagHold, Usage: "let the store refuse deletion until the hold is released"},
		&cli.StringFlag{Name: flagClass, Usage: "storage `CLASS` of the dump"},
		&cli.StringSliceFlag{Name: flagTag, Usage: "tag its objects with `KEY=VALUE`"},
		&cli.StringFlag{Name: flagSSE, Usage: "let the store encrypt with `WHAT`: s3, kms or kms:KEY"},
	}
}

// keeping is the policy of an archive, and the longest compliance lock: --policy, or that of the database that
// is archived, or what the ad-hoc flags say. They never mix: a flag beside a
// policy would be a policy that nobody wrote down.
func (rt *runtime) keeping(c *cli.Context, source *database, to bucketURL) (p archiver.Policy, maxKeep archiver.Period, err error) {
	cfg, err := rt.config()
	if err != nil {
		return p, maxKeep, err
	}
	maxKeep = cfg.maxKeep
	switch typed := rt.typedFlag(adHocFlags); {
	case rt.line.typed[flagPolicy] && typed != "":
		return p, maxKeep, usagef("--policy and --%s exclude each other: a policy says all of it", typed)
	case rt.line.typed[flagPolicy]:
		p, err = cfg.policyOf(c.String(flagPolicy))
	case source != nil && source.policy != nil && typed != "":
		return p, maxKeep, usagef("--%s: %s has the policy %s, which says all of it; choose another with --policy", typed, source.name, source.policy.Name)
	case source != nil && source.policy != nil:
		p = source.policy.Policy
	default:
		p, err = adHocPolicy(c, maxKeep)
	}
	if why := unfit(p, to.scheme); err == nil && why != "" {
		err = usagef("%s cannot keep the archive so: %s", to, why)
	}
	return p, maxKeep, err
}

// namedPolicy is the policy of the configuration that keeping takes; nil where
// flags say how the archive is kept.
func (rt *runtime) namedPolicy(c *cli.Context, source *database) (*policy, error) {
	cfg, err := rt.config()
	switch {
	case err != nil:
		return nil, err
	case rt.line.typed[flagPolicy]:
		return cfg.policy(c.String(flagPolicy)), nil
	case source != nil:
		return source.policy, nil
	}
	return nil, nil
}

func (rt *runtime) typedFlag(names []string) string {
	for _, name := range names {
		if rt.line.typed[name] {
			return name
		}
	}
	return ""
}

func (c *config) policyOf(name string) (archiver.Policy, error) {
	switch p := c.policy(name); {
	case p != nil:
		return p.Policy, nil
	case c.file == "":
		return archiver.Policy{}, usagef("--policy names a policy of the configuration: give --config FILE or set PGSTOW_CONFIG; without one there are --keep, --lock and their like")
	}
	return archiver.Policy{}, usagef("--policy: no policy %q in %s; there are: %s", name, c.file, c.policyNames())
}

func adHocPolicy(c *cli.Context, maxKeep archiver.Period) (p archiver.Policy, err error) {
	if c.IsSet(flagKeep) {
		if p.Keep, err = archiver.ParsePeriod(c.String(flagKeep)); err != nil {
			return p, usagef("--keep: %s", refusal(err))
		}
	}
	switch mode := c.String(flagLock); mode {
	case lockNone, string(storage.Governance), string(storage.Compliance):
		p.Lock = lockMode(mode)
	default:
		if c.IsSet(flagLock) {
			return p, usagef("--lock %q: want none, governance or compliance", mode)
		}
	}
	p.LegalHold = c.Bool(flagHold)
	p.StorageClass = c.String(flagClass)
	if c.IsSet(flagClass) && !className.MatchString(p.StorageClass) {
		return p, usagef("--storage-class %q: want the name of a class, such as STANDARD_IA", p.StorageClass)
	}
	if c.IsSet(flagSSE) {
		if p.Encryption, err = parseEncryption(c.String(flagSSE)); err != nil {
			return p, usagef("--sse %q: %w", c.String(flagSSE), err)
		}
	}
	if p.Tags, err = tagsOf(c.StringSlice(flagTag)); err != nil {
		return p, err
	}
	if faults := p.Faults(maxKeep); len(faults) > 0 {
		name, _, _ := strings.Cut(faults[0].Field, ".")
		if name == "tags" {
			name = flagTag
		}
		return p, usagef("--%s: %s", name, faults[0].Text)
	}
	return p, nil
}

func tagsOf(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	tags := map[string]string{}
	for _, pair := range list {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usagef("--tag %q: want KEY=VALUE", pair)
		}
		if _, twice := tags[key]; twice {
			return nil, usagef("--tag %s is given twice", key)
		}
		tags[key] = value
	}
	return tags, nil
}
