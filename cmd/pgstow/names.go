package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/dumper"
)

// Names of the configuration stand in two places: the argument of commands that
// read a database names a database, and --bucket names a store when there is no
// "://" in it. Typed flags win over the file, the file over the environment.

// config is the file of --config, read when it is first needed; without a file
// it is empty.
func (rt *runtime) config() (*config, error) {
	if rt.loaded != nil {
		return rt.loaded, nil
	}
	c, err := rt.readConfig()
	rt.loaded = c
	return c, err
}

// databaseArgument is the database that the command's only argument names; nil
// without one.
func (rt *runtime) databaseArgument(c *cli.Context) (*database, error) {
	if !c.Args().Present() {
		return nil, nil
	}
	if c.Args().Len() > 1 {
		return nil, usagef("%s: unexpected argument %q", c.Command.Name, c.Args().Get(1))
	}
	cfg, err := rt.config()
	if err != nil {
		return nil, err
	}
	name := c.Args().First()
	d := cfg.database(name)
	switch {
	case d != nil:
		return d, nil
	case cfg.file == "":
		return nil, usagef("%s: unexpected argument %q; a database's name needs the configuration that knows it: --config FILE or PGSTOW_CONFIG", c.Command.Name, name)
	}
	return nil, usagef("%s: no database %q in %s; there are: %s", c.Command.Name, name, cfg.file, cfg.databaseNames())
}

// bucketOf is the bucket of a command that works on one: --bucket, or the store
// of the database that is named, or the only store there is, or PGSTOW_BUCKET.
// database may be "" or a label that is no database of the file.
func (rt *runtime) bucketOf(c *cli.Context, database string) (bucketURL, error) {
	b, found, err := rt.findBucket(c, database)
	if err != nil || found {
		return b, err
	}
	if cfg, err := rt.config(); err == nil && len(cfg.stores) > 0 {
		return b, usagef("%s: which bucket? Give --bucket with a store's name (%s) or a URL", c.Command.Name, cfg.storeNames())
	}
	return b, usagef("%s: which bucket? Give --bucket (or --to, --from) or set PGSTOW_BUCKET", c.Command.Name)
}

func (rt *runtime) findBucket(c *cli.Context, database string) (b bucketURL, found bool, err error) {
	cfg, err := rt.config()
	if err != nil {
		return b, false, err
	}
	text := c.String(flagBucket)
	switch d := cfg.database(database); {
	case rt.typedBucket():
	case d != nil:
		return d.store.bucket, true, nil
	case len(cfg.stores) == 1:
		return cfg.stores[0].bucket, true, nil
	}
	if text == "" {
		return b, false, nil
	}
	b, err = cfg.bucket(text)
	return b, err == nil, err
}

// buckets are those of a command that works on every store of the file, in its
// order and each place once: --bucket alone, or all stores, or PGSTOW_BUCKET.
func (rt *runtime) buckets(c *cli.Context) ([]bucketURL, error) {
	cfg, err := rt.config()
	if err != nil {
		return nil, err
	}
	if rt.typedBucket() || len(cfg.stores) == 0 {
		b, err := rt.bucketOf(c, "")
		return []bucketURL{b}, err
	}
	var all []bucketURL
	seen := map[string]bool{}
	for _, s := range cfg.stores {
		if !seen[s.bucket.place] {
			all = append(all, s.bucket)
		}
		seen[s.bucket.place] = true
	}
	return all, nil
}

// policies are those that archives in a bucket may have been given: the
// policies of the databases that are kept there, and those that no database
// names, which --policy may have used anywhere, as far as the bucket can keep
// them. In the file's order; none without a file.
func (rt *runtime) policies(b bucketURL) ([]archiver.Policy, error) {
	cfg, err := rt.config()
	if err != nil {
		return nil, err
	}
	var all []archiver.Policy
	for _, p := range cfg.policies {
		here, anywhere := false, true
		for _, d := range cfg.databases {
			if d.policy == p {
				anywhere = false
				here = here || d.store.bucket.place == b.place
			}
		}
		if here || anywhere && unfit(p.Policy, b.scheme) == "" {
			all = append(all, p.Policy)
		}
	}
	return all, nil
}

func (rt *runtime) typedBucket() bool {
	return rt.line.typed["to"] || rt.line.typed["from"] || rt.line.typed[flagBucket]
}

// bucket is a store by its name, or any bucket by its URL.
func (c *config) bucket(text string) (bucketURL, error) {
	if c.file == "" || strings.Contains(text, "://") || archiver.CheckLabel(text) != nil {
		return parseBucketURL(text)
	}
	if s := c.store(text); s != nil {
		return s.bucket, nil
	}
	return bucketURL{}, usagef("bucket: no store %q in %s; there are: %s", text, c.file, c.storeNames())
}

// sourceConn is the database to read: --db, the one that the argument named, or
// PGSTOW_DB. libpq's own environment is enough.
func (rt *runtime) sourceConn(c *cli.Context, d *database) (dumper.Conn, error) {
	if d != nil && !rt.line.typed[flagDB] {
		cfg, err := rt.config()
		if err != nil {
			return dumper.Conn{}, err
		}
		return rt.databaseConn(cfg, d)
	}
	if c.String(flagDB) == "" && !libpqEnvironment() {
		return dumper.Conn{}, usagef("%s: which database? Give --db, or set PGSTOW_DB or libpq's PGSERVICE, PGHOST, PGDATABASE", c.Command.Name)
	}
	return rt.conn(c, flagDB)
}
