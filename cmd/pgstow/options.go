package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/dumper"
)

// Names of flags that several commands have.
const (
	flagBucket     = "bucket"
	flagDB         = "db"
	flagToDB       = "to-db"
	flagName       = "name"
	flagObject     = "object"
	flagJSON       = "json"
	flagPGBin      = "pg-bin"
	flagPooler     = "allow-pooler"
	flagIfExists   = "if-exists"
	flagClean      = "clean"
	flagDataOnly   = "data-only"
	flagSchemaOnly = "schema-only"
)

// bucketFlag is --bucket. It has the same three names everywhere, so that a
// command line can be turned around; first is the one that reads best here.
func bucketFlag(first string) cli.Flag {
	names := []string{first}
	for _, n := range []string{"to", "from", flagBucket} {
		if n != first {
			names = append(names, n)
		}
	}
	return &cli.StringFlag{
		Name: names[0], Aliases: names[1:], EnvVars: []string{"PGSTOW_BUCKET"},
		Usage: "`URL` of the bucket: s3://bucket/prefix?region=, gs://bucket/prefix or file:///dir; or the name of a store in the configuration",
	}
}

func dbFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: flagDB, EnvVars: []string{"PGSTOW_DB"}, Usage: usage}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: flagJSON, Usage: "print JSON"}
}

func nameFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: flagName, Usage: usage}
}

func pgBinFlag() cli.Flag {
	return &cli.StringFlag{Name: flagPGBin, Usage: "`DIR` of pg_dump and pg_restore; by default all usual places are looked at"}
}

func poolerFlag() cli.Flag {
	return &cli.BoolFlag{Name: flagPooler, Usage: "accept a pooled endpoint, where dumps can be silently wrong"}
}

// noArguments refuses arguments, one(what) wants exactly one.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("%s: unexpected argument %q", c.Command.Name, c.Args().First())
	}
	return nil
}

func objectFlag() cli.Flag {
	return &cli.StringFlag{Name: flagObject, Usage: "instead of ARCHIVE: the `KEY`, below the bucket URL, of any object that pg_dump -Fc has written"}
}

// subject is the one archive that a command is about: an id or the like, or
// an object's key.
func subject(c *cli.Context) (ref, object string, err error) {
	if !c.IsSet(flagObject) {
		ref, err = archiveArgument(c)
		return ref, "", err
	}
	object = c.String(flagObject)
	switch {
	case c.Args().Present():
		return "", "", usagef("%s: ARCHIVE (%q) and --object exclude each other", c.Command.Name, c.Args().First())
	case c.String(flagName) != "":
		return "", "", usagef("%s: --name is the label of an archive, --object has none", c.Command.Name)
	case object == "":
		return "", "", usagef("%s: --object is empty", c.Command.Name)
	case strings.Contains(object, "://"):
		return "", "", usagef("%s: --object is a key, as nightly/orders.dump; the bucket's URL goes to --from", c.Command.Name)
	}
	return "", object, nil
}

func archiveArgument(c *cli.Context) (string, error) {
	switch c.Args().Len() {
	case 0:
		return "", usagef("%s: which archive? Give an id, the start of one, latest, or a time; `pgstow list` shows them", c.Command.Name)
	case 1:
		if ref := c.Args().First(); ref != "" {
			return ref, nil
		}
		return "", usagef("%s: the archive's id is empty", c.Command.Name)
	}
	return "", usagef("%s: unexpected argument %q", c.Command.Name, c.Args().Get(1))
}

// conn parses the connection string of flag and warns about a password that
// was typed into it: it can be read in the process list.
func (rt *runtime) conn(c *cli.Context, flag string) (dumper.Conn, error) {
	conn, err := dumper.ParseConn(c.String(flag))
	if err != nil {
		return dumper.Conn{}, usagef("--%s: %w", flag, err)
	}
	if rt.line.typed[flag] && conn.PasswordTyped() {
		env := "PGSTOW_DB"
		switch flag {
		case flagToDB:
			env = "PGSTOW_TO_DB"
		case flagServer:
			env = "PGSTOW_SERVER"
		}
		rt.log.Warn("the password on the command line is readable in the process list and stays in the shell's history; use " +
			env + ", a service file (service=NAME) or ~/.pgpass")
	}
	return conn, nil
}

// targetConn is the database to write, which is never guessed from libpq's
// environment.
func (rt *runtime) targetConn(c *cli.Context, flag, env string) (dumper.Conn, error) {
	if c.String(flag) == "" {
		return dumper.Conn{}, usagef("%s: into which database? Give --%s or set %s", c.Command.Name, flag, env)
	}
	return rt.conn(c, flag)
}

func libpqEnvironment() bool {
	for _, name := range []string{"PGSERVICE", "PGHOST", "PGHOSTADDR", "PGDATABASE"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// restoreFlags are those that restore and clone share.
func restoreFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "table", Usage: "only this `[SCHEMA.]TABLE`, with its partitions, owned sequences, indexes, constraints, triggers, comments and privileges; foreign keys to tables that are not there are skipped and listed"},
		&cli.StringSliceFlag{Name: "schema", Usage: "only this `SCHEMA`, with everything in it"},
		&cli.BoolFlag{Name: flagDataOnly, Usage: "no definitions"},
		&cli.BoolFlag{Name: flagSchemaOnly, Usage: "no data"},
		&cli.BoolFlag{Name: "create", Usage: "create the database, by its name in the archive; the target is only connected to for that"},
		&cli.BoolFlag{Name: flagClean, Usage: "drop objects before they are created again"},
		&cli.BoolFlag{Name: flagIfExists, Usage: "with --clean: no error for what is not there"},
		&cli.BoolFlag{Name: "no-owner", Usage: "everything belongs to the connecting role"},
		&cli.StringFlag{Name: "role", Usage: "run as this `ROLE` (SET ROLE)"},
		&cli.BoolFlag{Name: "no-privileges", Usage: "no GRANT and REVOKE"},
		&cli.BoolFlag{Name: "globals", Usage: "create roles and tablespaces first"},
		&cli.BoolFlag{Name: "into-nonempty", Usage: "accept a target that already holds user tables"},
		&cli.BoolFlag{Name: "keep-going", Usage: "do not stop at the first error; errors still end in exit code 10"},
	}
}

// restoreOptions reads restoreFlags; what contradicts itself is refused.
func (rt *runtime) restoreOptions(c *cli.Context) (dumper.RestoreOptions, error) {
	for _, pair := range [][2]string{
		{flagDataOnly, flagSchemaOnly}, {flagDataOnly, flagClean}, {flagDataOnly, "create"},
	} {
		if c.Bool(pair[0]) && c.Bool(pair[1]) {
			return dumper.RestoreOptions{}, usagef("%s: --%s and --%s exclude each other", c.Command.Name, pair[0], pair[1])
		}
	}
	if c.Bool(flagIfExists) && !c.Bool(flagClean) {
		return dumper.RestoreOptions{}, usagef("%s: --if-exists goes with --clean", c.Command.Name)
	}
	args := rt.line.passthrough
	if err := dumper.CheckRestoreArgs(args); err != nil {
		return dumper.RestoreOptions{}, err
	}
	return dumper.RestoreOptions{
		NoOwner: c.Bool("no-owner"), NoPrivileges: c.Bool("no-privileges"),
		Clean: c.Bool(flagClean), IfExists: c.Bool(flagIfExists), Create: c.Bool("create"),
		DataOnly: c.Bool(flagDataOnly), SchemaOnly: c.Bool(flagSchemaOnly),
		Role: c.String("role"), Tables: c.StringSlice("table"), Schemas: c.StringSlice("schema"),
		KeepGoing: c.Bool("keep-going"), Args: args, Log: rt.log,
	}, nil
}

// duration reads a flag as parseDuration does.
func duration(c *cli.Context, flag string) (time.Duration, error) {
	d, err := parseDuration(c.String(flag))
	if err != nil {
		return 0, usagef("--%s %q: want a duration such as 90s, 5m, 24h or 7d", flag, c.String(flag))
	}
	return d, nil
}

// parseDuration reads Go's notation, and days.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n < 36500 {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("negative duration")
	}
	return d, err
}
