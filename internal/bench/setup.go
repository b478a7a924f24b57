package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pgstow/pgstow/internal/testenv/server"
)

// bench is one run with its servers.
type bench struct {
	rounds     int
	small      bool
	newClients string
	pgstow     string
	bare       string // a build that does not hash; "" without
	recipient  string // of age

	home     *server.Home
	pg       *server.Postgres
	s3       *server.S3
	tools    map[string]string // path of each program that is there
	missing  []string
	objects  int
	restored *stored // an archive of the data set, which the measures of restoring share
}

const (
	database = "bench"
	bucket   = "bench"
)

func (b *bench) start(ctx context.Context) (err error) {
	if b.home, err = server.Open(); err != nil {
		return err
	}
	if err := b.startServers(ctx); err != nil {
		return errors.Join(err, b.home.Close())
	}
	return nil
}

func (b *bench) startServers(ctx context.Context) (err error) {
	b.tools = make(map[string]string)
	for _, name := range []string{"pg_dump", "pg_restore", "pgbench", "mc", "aws", "rclone"} {
		path, err := server.Find(name)
		if err == nil && exec.CommandContext(ctx, path, "--version").Run() != nil {
			err = errors.New("does not run")
		}
		if err != nil {
			b.missing = append(b.missing, name)
			continue
		}
		b.tools[name] = path
	}
	for _, name := range []string{"pg_dump", "pgbench", "mc"} {
		if b.tools[name] == "" {
			return fmt.Errorf("no %s: run make tools", name)
		}
	}
	b.pg, err = b.home.StartPostgres(ctx, server.PostgresOptions{Config: map[string]string{
		"shared_buffers": "1GB", "synchronous_commit": "off", "maintenance_work_mem": "256MB", "max_wal_size": "8GB",
		"autovacuum": "off", // it would run beside some measures and not beside others
	}})
	if err != nil {
		return err
	}
	if b.s3, err = b.home.StartMinIO(ctx, server.S3Options{}); err != nil {
		return err
	}
	if err := b.s3.CreateBucket(ctx, bucket, server.BucketOptions{}); err != nil {
		return err
	}
	if err := b.configurePeers(); err != nil {
		return err
	}
	if err := b.load(ctx); err != nil {
		return err
	}
	b.restored, err = b.archiveToRestore(ctx)
	return err
}

// configurePeers tells mc and rclone where the store is.
func (b *bench) configurePeers() error {
	dir := b.peerDir()
	if err := os.MkdirAll(filepath.Join(dir, "mc"), 0o755); err != nil {
		return err
	}
	alias := map[string]string{"url": b.s3.Endpoint, "accessKey": b.s3.AccessKey, "secretKey": b.s3.SecretKey, "api": "S3v4", "path": "auto"}
	raw, err := json.Marshal(map[string]any{"version": "10", "aliases": map[string]any{"store": alias}})
	if err != nil {
		return err
	}
	conf := fmt.Sprintf("[store]\ntype = s3\nprovider = Minio\nendpoint = %s\naccess_key_id = %s\nsecret_access_key = %s\nregion = %s\n",
		b.s3.Endpoint, b.s3.AccessKey, b.s3.SecretKey, b.s3.Region)
	return errors.Join(os.WriteFile(filepath.Join(dir, "mc", "config.json"), raw, 0o600),
		os.WriteFile(filepath.Join(dir, "rclone.conf"), []byte(conf), 0o600))
}

func (b *bench) peerDir() string { return filepath.Join(b.home.Dir(), "peers") }

// env is for pgstow, PostgreSQL's programs and the peers.
func (b *bench) env() []string {
	var keep []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PG") && !strings.HasPrefix(e, "AWS_") && !strings.HasPrefix(e, "RCLONE_") {
			keep = append(keep, e)
		}
	}
	if b.pg != nil {
		keep = append(keep,
			"PGHOST="+b.pg.Host, fmt.Sprintf("PGPORT=%d", b.pg.Port), "PGUSER="+b.pg.User, "PGPASSWORD="+b.pg.Password, "PGDATABASE="+database)
	}
	return append(keep,
		"AWS_ACCESS_KEY_ID="+b.s3.AccessKey, "AWS_SECRET_ACCESS_KEY="+b.s3.SecretKey, "AWS_REGION="+b.s3.Region,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"MC_CONFIG_DIR="+filepath.Join(b.peerDir(), "mc"), "RCLONE_CONFIG="+filepath.Join(b.peerDir(), "rclone.conf"))
}

// clear empties the bucket: the disk is finite.
func (b *bench) clear(ctx context.Context) error {
	_, err := b.output(ctx, b.tools["mc"], "rm", "--quiet", "--recursive", "--force", "store/"+bucket+"/")
	return err
}

func (b *bench) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = b.env()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// versions of everything that takes part.
func (b *bench) versions(ctx context.Context) map[string]string {
	v := make(map[string]string)
	paths := map[string]string{"pgstow": b.pgstow, "PostgreSQL": filepath.Join(b.pg.BinDir, "postgres")}
	if path, err := server.Find("minio"); err == nil {
		paths["MinIO"] = path
	}
	for name, path := range b.tools {
		paths[name] = path
	}
	if b.newClients != "" {
		paths["new pg_dump"] = filepath.Join(b.newClients, "pg_dump")
	}
	for name, path := range paths {
		arg := "--version"
		if name == "pgstow" {
			arg = "version"
		}
		out, err := b.output(ctx, path, arg)
		if err != nil {
			out = err.Error()
		}
		v[name], _, _ = strings.Cut(strings.TrimSpace(out), "\n")
	}
	return v
}
