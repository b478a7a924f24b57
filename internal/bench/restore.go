package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/pgstow/pgstow/internal/testenv/server"
)

// Names of the measures of restoring. All of them restore the same archive.
const (
	restoreJobs   = "restore --jobs 2"
	restoreOne    = "restore --jobs 1"
	restorePeer   = "mc cat | pg_restore"
	restoreLocal  = "pg_restore -j2 of a file"
	restoreTable  = "restore --table"
	verifyAll     = "verify"
	verifyPeer    = "mc cat | pg_restore -f - | sha256sum"
	restoreBucket = "restores" // bench's own is emptied after every measure
	restoreTarget = "restored"
)

// oneTable is the table of 1 MB.
const oneTable = "small"

// stored is an archive.
type stored struct {
	Manifest struct {
		ID       string `json:"id"`
		Evidence string `json:"evidence"`
		Totals   struct {
			RawBytes int64 `json:"raw_bytes"`
		} `json:"totals"`
		Objects struct {
			Dump struct {
				Key  string `json:"key"`
				Size int64  `json:"size"`
				Head struct {
					Length int64 `json:"length"`
				} `json:"head"`
			} `json:"dump"`
		} `json:"objects"`
	} `json:"manifest"`
	Index struct {
		Blocks []struct {
			Name     string `json:"name"`
			Length   int64  `json:"length"`
			RawBytes int64  `json:"raw_bytes"`
		} `json:"blocks"`
	} `json:"index"` // show has it

	file string // a copy on disk
}

// needed is what a restore of the table of 1 MB cannot do without: its block and the head.
func (a *stored) needed() int64 {
	n := a.Manifest.Objects.Dump.Head.Length
	for _, b := range a.Index.Blocks {
		if b.Name == oneTable {
			n += b.Length
		}
	}
	return n
}

// restores are the measures of restoring.
func (b *bench) restores() []measure {
	if b.tools["pg_restore"] == "" {
		return nil
	}
	return []measure{
		{restorePeer, b.restore(func(a *stored) [][]string {
			return [][]string{{b.tools["mc"], "--quiet", "cat", "store/" + restoreBucket + "/pg/" + a.Manifest.Objects.Dump.Key},
				{b.tools["pg_restore"], "--exit-on-error", "--dbname", restoreTarget}}
		})},
		{restoreLocal, b.restore(func(a *stored) [][]string {
			return [][]string{{b.tools["pg_restore"], "--exit-on-error", "--jobs=2", "--dbname", restoreTarget, a.file}}
		})},
		{restoreJobs, b.restore(b.pgstowRestore(b.s3.Endpoint, "--jobs", "2"))},
		{restoreOne, b.restore(b.pgstowRestore(b.s3.Endpoint, "--jobs", "1"))},
		{restoreTable, b.restoreTable},
		{verifyAll, b.verify},
		{verifyPeer, func(ctx context.Context) (sample, error) {
			return b.pipeline(ctx, nil, []string{b.tools["mc"], "--quiet", "cat", "store/" + restoreBucket + "/pg/" + b.restored.Manifest.Objects.Dump.Key},
				[]string{b.tools["pg_restore"], "-f", "-"}, []string{"sha256sum"})
		}},
	}
}

// verify reads the archive back and compares all that is in it.
func (b *bench) verify(ctx context.Context) (sample, error) {
	var out strings.Builder
	s, err := b.pipeline(ctx, &out, []string{b.pgstow, "verify", b.restored.Manifest.ID, "--bucket", server.S3URL(restoreBucket, "pg/", b.s3.Endpoint, b.s3.Region),
		"--no-record", "--progress", "none", "--json"})
	if err != nil {
		return s, err
	}
	var result struct {
		Archives []struct {
			Mode   string `json:"mode"`
			Tables int    `json:"tables"`
			Bytes  int64  `json:"bytes"`
		} `json:"archives"`
	}
	if err := json.Unmarshal([]byte(out.String()), &result); err != nil {
		return s, err
	}
	if len(result.Archives) != 1 || result.Archives[0].Mode != "full" || result.Archives[0].Tables == 0 {
		return s, fmt.Errorf("verify has compared nothing: %s", out.String())
	}
	s.Stored = result.Archives[0].Bytes
	return s, nil
}

func (b *bench) pgstowRestore(endpoint string, args ...string) func(*stored) [][]string {
	return func(a *stored) [][]string {
		return [][]string{append([]string{b.pgstow, "restore", a.Manifest.ID, "--bucket", server.S3URL(restoreBucket, "pg/", endpoint, b.s3.Region),
			"--db", "dbname=" + restoreTarget, "--progress", "none", "--json"}, args...)}
	}
}

// restoreTable counts every byte that comes from the store, manifest, index and HTTP
// included.
func (b *bench) restoreTable(ctx context.Context) (sample, error) {
	counter, err := countReads(b.s3.Endpoint)
	if err != nil {
		return sample{}, err
	}
	s, err := b.restore(b.pgstowRestore(counter.endpoint(), "--table", "public."+oneTable))(ctx)
	s.Stored = counter.close()
	return s, err
}

// restore restores into a database of its own each time; that it is made, and
// that caches are written out before, is not part of the measure.
func (b *bench) restore(commands func(*stored) [][]string) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		for _, sql := range []string{"DROP DATABASE IF EXISTS " + restoreTarget, "CREATE DATABASE " + restoreTarget + " TEMPLATE template0", "CHECKPOINT"} {
			if err := b.pg.Exec(ctx, "postgres", sql); err != nil {
				return sample{}, err
			}
		}
		var out strings.Builder
		s, err := b.pipeline(ctx, &out, commands(b.restored)...)
		if err != nil {
			return s, err
		}
		s.Stored = b.restored.Manifest.Objects.Dump.Size
		if text := out.String(); text != "" {
			var result struct {
				Bytes int64 `json:"bytes"`
			}
			err = json.Unmarshal([]byte(text), &result)
			s.Stored = result.Bytes
		}
		return s, err
	}
}

// archiveToRestore stores the data set once more, where it stays, and on disk.
func (b *bench) archiveToRestore(ctx context.Context) (*stored, error) {
	if err := b.s3.CreateBucket(ctx, restoreBucket, server.BucketOptions{}); err != nil {
		return nil, err
	}
	a := &stored{file: filepath.Join(b.home.Dir(), "restore.dump")}
	raw, err := b.output(ctx, b.pgstow, "archive", "--db", "dbname="+database, "--bucket", server.S3URL(restoreBucket, "pg/", b.s3.Endpoint, b.s3.Region),
		"--name", "bench", "--compress", "gzip:6", "--progress", "none", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(raw), a)
	}
	if err == nil {
		raw, err = b.output(ctx, b.pgstow, "show", a.Manifest.ID, "--bucket", server.S3URL(restoreBucket, "pg/", b.s3.Endpoint, b.s3.Region), "--json")
	}
	if err == nil {
		err = json.Unmarshal([]byte(raw), a)
	}
	if err != nil {
		return nil, fmt.Errorf("archive to restore: %w", err)
	}
	_, err = b.output(ctx, b.tools["mc"], "--quiet", "cp", "store/"+restoreBucket+"/pg/"+a.Manifest.Objects.Dump.Key, a.file)
	return a, err
}
