package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/internal/testenv/server"
)

type options struct {
	pgstow string
	scale  int
	keep   bool
	page   string // where the audit's page stays, "" for nowhere
}

const (
	sourceDB = "shop"
	copyDB   = "shop_copy"
	bucket   = "archives"
	prefix   = "pg/"
	label    = "shop"
)

// demo is one run.
type demo struct {
	options
	*screen
	home *server.Home
	pg   *server.Postgres
	s3   *server.S3
	env  []string // what a user would export
}

func run(ctx context.Context, opts options, out *screen) (err error) {
	opts.pgstow, err = filepath.Abs(opts.pgstow)
	if err != nil {
		return err
	}
	d := &demo{options: opts, screen: out}
	out.title("pgstow: PostgreSQL into a bucket and back, whole or absent")
	if d.home, err = server.Open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.home.Close()) }()
	steps := []func(context.Context) error{
		d.startServers, d.load, d.export, d.archive, d.look, d.restore, d.compare, d.verify, d.drill, d.audit, d.whereItLies, d.linger,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) startServers(ctx context.Context) error {
	err := d.step("Starting a throwaway PostgreSQL cluster", func() (string, error) {
		pg, err := d.home.StartPostgres(ctx, server.PostgresOptions{})
		if err != nil {
			return "", err
		}
		d.pg = pg
		return pg.Addr(), nil
	})
	if err != nil {
		return err
	}
	return d.step("Starting an S3 server, a bucket with object lock", func() (string, error) {
		gw, err := d.home.StartVersityGW(ctx, server.S3Options{})
		if err != nil {
			return "", err
		}
		d.s3 = gw
		return gw.Addr(), gw.CreateBucket(ctx, bucket, server.BucketOptions{ObjectLock: true})
	})
}

func (d *demo) load(ctx context.Context) error {
	return d.step("Loading the sample", func() (string, error) {
		for _, db := range []string{sourceDB, copyDB} {
			if err := d.pg.Exec(ctx, "postgres", "CREATE DATABASE "+db+" TEMPLATE template0"); err != nil {
				return "", err
			}
		}
		if err := sample.Load(ctx, d.pg.URL(sourceDB), sample.Options{Scale: d.scale}); err != nil {
			return "", err
		}
		n, err := d.pg.DatabaseSize(ctx, sourceDB)
		return fmt.Sprintf("%d MB", n>>20), err
	})
}

// export prepares the environment of the commands that follow. Secrets are in
// files, as they would be with a user who cares.
func (d *demo) export(context.Context) error {
	passfile := filepath.Join(d.home.Dir(), "pgpass")
	if err := os.WriteFile(passfile, []byte("127.0.0.1:*:*:*:"+d.pg.Password+"\n"), 0o600); err != nil {
		return err
	}
	credentials := filepath.Join(d.home.Dir(), "aws")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", d.s3.AccessKey, d.s3.SecretKey)
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		return err
	}
	d.env = []string{
		"PGPASSFILE=" + passfile,
		"AWS_SHARED_CREDENTIALS_FILE=" + credentials,
		"AWS_ENDPOINT_URL_S3=" + d.s3.Endpoint,
		"AWS_REGION=" + d.s3.Region,
		"PGSTOW_DB=" + d.url(sourceDB),
		"PGSTOW_BUCKET=s3://" + bucket + "/" + prefix,
	}
	d.section("What you would put into your environment")
	for _, v := range d.env {
		d.command("export " + v)
	}
	return nil
}

// url names a database without its password, which is in the passfile.
func (d *demo) url(db string) string {
	u := url.URL{Scheme: "postgres", User: url.User(d.pg.User), Host: d.pg.Addr(), Path: "/" + db}
	return u.String()
}

func (d *demo) archive(ctx context.Context) error {
	d.section("Stream the database into the bucket")
	return d.pgstowCommand(ctx, "archive", "--name", label)
}

func (d *demo) look(ctx context.Context) error {
	d.section("What is there")
	if err := d.pgstowCommand(ctx, "list"); err != nil {
		return err
	}
	return d.pgstowCommand(ctx, "show", "latest", "--name", label)
}

func (d *demo) restore(ctx context.Context) error {
	d.section("Stream it back, into an empty database")
	return d.pgstowCommand(ctx, "restore", "latest", "--name", label, "--db", d.url(copyDB))
}

func (d *demo) compare(ctx context.Context) error {
	d.section("Source and copy, counted and hashed by PostgreSQL")
	diffs, err := sample.Compare(ctx, d.pg.URL(sourceDB), d.pg.URL(copyDB))
	if err != nil {
		return err
	}
	return d.comparison(diffs)
}

func (d *demo) verify(ctx context.Context) error {
	d.section("Read the archive back, and compare every row with what was archived")
	return d.pgstowCommand(ctx, "verify", "latest", "--name", label)
}

// drill restores once more, into a database that pgstow makes and drops itself.
func (d *demo) drill(ctx context.Context) error {
	d.section("A drill: restore into a scratch database, compare, drop it")
	return d.pgstowCommand(ctx, "drill", "latest", "--name", label, "--server", d.url("postgres"))
}

// audit holds the archive against what it was promised, and draws the page of it.
func (d *demo) audit(ctx context.Context) error {
	d.section("An audit: is it all there, kept as promised, verified and drilled?")
	if d.page == "" {
		d.page = filepath.Join(d.home.Dir(), "audit.html")
	}
	return d.pgstowCommand(ctx, "audit", "--html", d.page)
}

// whereItLies asks pgstow for the archive's key and size.
func (d *demo) whereItLies(ctx context.Context) error {
	cmd := d.child(ctx, "show", "latest", "--name", label, "--json")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := d.wait(ctx, cmd); err != nil {
		return err
	}
	var shown struct {
		Manifest struct {
			Objects struct {
				Dump struct {
					Key  string `json:"key"`
					Size int64  `json:"size"`
				} `json:"dump"`
			} `json:"objects"`
		} `json:"manifest"`
	}
	if err := json.Unmarshal(out.Bytes(), &shown); err != nil {
		return fmt.Errorf("pgstow show --json: %w", err)
	}
	dump := shown.Manifest.Objects.Dump
	if dump.Key == "" || dump.Size == 0 {
		return errors.New("pgstow show --json names no dump")
	}
	d.section("Where the archive lies")
	d.pair("bucket", bucket+" at "+d.s3.Endpoint)
	d.pair("key", prefix+strings.TrimPrefix(dump.Key, prefix))
	d.pair("size", fmt.Sprintf("%s bytes; a stock pg_restore reads it", grouped(dump.Size)))
	return nil
}

// linger waits for a signal if asked to.
func (d *demo) linger(ctx context.Context) error {
	if !strings.HasPrefix(d.page, d.home.Dir()) {
		d.note("The audit's page stays: open " + d.page + " in a browser.")
	}
	if !d.keep {
		d.note("Both servers and all their data are removed now. To look around first:\nmake demo KEEP=1")
		return nil
	}
	d.note("The servers run until Ctrl-C. In another terminal, paste the exports above.")
	<-ctx.Done()
	return ctx.Err()
}

// pgstowCommand echoes a command line and runs it, as a user would see it.
func (d *demo) pgstowCommand(ctx context.Context, args ...string) error {
	line := "pgstow " + strings.Join(args, " ")
	if i := strings.LastIndex(line, " --"); len(line) > width-2 && i > 0 {
		line = line[:i] + " \\\n   " + line[i:]
	}
	d.command(line)
	cmd := d.child(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return d.wait(ctx, cmd)
}

func (d *demo) wait(ctx context.Context, cmd *exec.Cmd) error {
	if err := server.Start(cmd); err != nil {
		return fmt.Errorf("start pgstow: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("pgstow %s: %w", cmd.Args[1], err)
	}
	return nil
}

// child is a pgstow process that gets the first signal from us, once, and not
// from the terminal as well: its second signal would kill it uncleanly.
func (d *demo) child(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.pgstow, args...)
	cmd.Env = append(cleanEnvironment(), d.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 15 * time.Second
	return cmd
}

// cleanEnvironment is ours without what would point pgstow elsewhere.
func cleanEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "AWS_") {
			env = append(env, v)
		}
	}
	return append(env, "AWS_CONFIG_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
}
