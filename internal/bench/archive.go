package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/pgstow/pgstow/internal/testenv/server"
)

// measure is one thing that is done over and over.
type measure struct {
	name string
	run  func(context.Context) (sample, error)
}

// Names of the measures that ratios are made of.
const (
	sourceLimit   = "pg_dump -Z0 >/dev/null"
	peerMC        = "pg_dump | mc pipe"
	peerMCFast    = "pg_dump -Z1 | mc pipe"
	peerAWS       = "pg_dump | aws s3 cp -"
	peerRclone    = "pg_dump | rclone rcat"
	archiveGzip6  = "archive gzip:6"
	archiveGzip1  = "archive gzip:1"
	archiveVerify = "archive gzip:6 --verify"
	archiveBare   = "archive gzip:6, no hashes"
	archiveAge    = "archive gzip:6, encrypted"
	newLimit      = "new pg_dump none >/dev/null"
	newPeer       = "new pg_dump zstd:1 | mc"
	newAuto       = "new archive auto"
	newZstd       = "new archive zstd:1"
)

// measures in the order of the table; the first is always taken.
func (b *bench) measures() []measure {
	dump := func(args ...string) []string { return append([]string{b.tools["pg_dump"], "-Fc"}, args...) }
	list := []measure{
		{sourceLimit, func(ctx context.Context) (sample, error) {
			return b.discard(ctx, dump("-Z0"))
		}},
		{peerMC, b.peer(dump(), b.mcPipe)},
		{peerMCFast, b.peer(dump("-Z1"), b.mcPipe)},
		{archiveGzip6, b.archive("gzip:6")},
		{archiveGzip1, b.archive("gzip:1")},
		{archiveVerify, b.archive("gzip:6", "--verify-compression")},
		{archiveAge, b.archive("gzip:6", "--encrypt-to", b.recipient)},
	}
	if b.bare != "" {
		list = append(list, measure{archiveBare, b.archiveBy(b.bare, "none", "gzip:6")})
	}
	if b.tools["aws"] != "" {
		list = append(list, measure{peerAWS, b.peer(dump(), func(key string) []string {
			return []string{b.tools["aws"], "s3", "cp", "--only-show-errors", "--endpoint-url", b.s3.Endpoint, "-", "s3://" + bucket + "/" + key}
		})})
	}
	if b.tools["rclone"] != "" {
		list = append(list, measure{peerRclone, b.peer(dump(), func(key string) []string {
			return []string{b.tools["rclone"], "rcat", "store:" + bucket + "/" + key}
		})})
	}
	if b.newClients != "" {
		fresh := []string{filepath.Join(b.newClients, "pg_dump"), "-Fc"}
		list = append(list,
			measure{newLimit, func(ctx context.Context) (sample, error) {
				return b.discard(ctx, append(fresh, "--compress=none"))
			}},
			measure{newPeer, b.peer(append(fresh, "--compress=zstd:1"), b.mcPipe)},
			measure{newAuto, b.archive("auto", "--pg-bin", b.newClients, "--no-globals")},
			measure{newZstd, b.archive("zstd:1", "--pg-bin", b.newClients, "--no-globals")})
	}
	return append(list, b.restores()...)
}

// discard writes to /dev/null: the limit that the source sets.
func (b *bench) discard(ctx context.Context, dump []string) (sample, error) {
	return b.pipeline(ctx, nil, dump)
}

func (b *bench) mcPipe(key string) []string {
	return []string{b.tools["mc"], "--quiet", "pipe", "store/" + bucket + "/" + key}
}

// peer pipes a dump into an uploading program.
func (b *bench) peer(dump []string, upload func(key string) []string) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		b.objects++
		key := fmt.Sprintf("peer/%d.dump", b.objects)
		s, err := b.pipeline(ctx, nil, dump, upload(key))
		if err != nil {
			return s, err
		}
		var stat struct {
			Size int64 `json:"size"`
		}
		out, err := b.output(ctx, b.tools["mc"], "--json", "stat", "store/"+bucket+"/"+key)
		if err == nil {
			err = json.Unmarshal([]byte(out), &stat)
		}
		s.Stored = stat.Size
		return s, err
	}
}

// archive is pgstow's own.
func (b *bench) archive(compress string, args ...string) func(context.Context) (sample, error) {
	return b.archiveBy(b.pgstow, "content", compress, args...)
}

func (b *bench) archiveBy(program, evidence, compress string, args ...string) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		var out strings.Builder
		s, err := b.pipeline(ctx, &out, append([]string{program, "archive", "--db", "dbname=" + database, "--bucket", b.bucketURL(),
			"--name", "bench", "--compress", compress, "--progress", "none", "--json"}, args...))
		if err != nil {
			return s, err
		}
		var result stored
		if err := json.Unmarshal([]byte(out.String()), &result); err != nil {
			return s, err
		}
		if result.Manifest.Evidence != evidence {
			return s, fmt.Errorf("the archive's evidence is %q", result.Manifest.Evidence)
		}
		s.Stored = result.Manifest.Objects.Dump.Size
		return s, nil
	}
}

func (b *bench) bucketURL() string { return server.S3URL(bucket, "pg/", b.s3.Endpoint, b.s3.Region) }
