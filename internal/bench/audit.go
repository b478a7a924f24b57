package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/internal/testenv/server"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/s3"
)

const (
	auditEach    = 365 // archives of a label
	auditWriters = 16
	auditMaxWall = 120 // seconds
	auditMaxPeak = 256 // MiB
)

// auditMany measures the audit of n synthetic archives, each of four objects under
// a lock, in a versioned bucket of versitygw; it writes the page, too.
func auditMany(ctx context.Context, pgstow string, n int) (err error) {
	home, err := server.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	b := &bench{pgstow: pgstow, home: home}
	if b.s3, err = home.StartVersityGW(ctx, server.S3Options{}); err != nil {
		return err
	}
	if err := b.s3.CreateBucket(ctx, bucket, server.BucketOptions{ObjectLock: true}); err != nil {
		return err
	}
	begin := time.Now()
	if err := b.storeArchives(ctx, n); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d archives stored in %.0f s\n", n, time.Since(begin).Seconds())
	page := filepath.Join(home.Dir(), "audit.html")
	report, err := os.Create(filepath.Join(home.Dir(), "audit.json"))
	if err != nil {
		return err
	}
	defer report.Close()
	s, err := b.pipeline(ctx, report, []string{pgstow, "audit", "--bucket", "s3://" + bucket + "/pg/?path_style=true&endpoint=" + url.QueryEscape(b.s3.Endpoint), "--html", page, "--json"})
	var found struct {
		Archives, Violations int
		Buckets              []struct{ Findings []archiver.AuditFinding }
	}
	raw, readErr := os.ReadFile(report.Name())
	if readErr == nil {
		readErr = json.Unmarshal(raw, &found)
	}
	if found.Violations > 0 {
		return fmt.Errorf("the audit found %d violations, as %q", found.Violations, found.Buckets[0].Findings[0].Text)
	}
	if err := errors.Join(err, readErr); err != nil || found.Archives != n {
		return fmt.Errorf("the audit found %d archives: %w", found.Archives, err)
	}
	info, err := os.Stat(page)
	if err != nil {
		return err
	}
	fmt.Printf("audit of %d archives, %d objects: %.1f s (%d allowed), %.1f CPU s, %d MiB (%d allowed), a page of %.1f MB, load %s\n",
		n, 4*n, s.Wall, auditMaxWall, s.CPU, s.Peak>>20, auditMaxPeak, float64(info.Size())/1e6, loadAverage())
	return nil
}

// storeArchives stores synthetic ones, a year of each label.
func (b *bench) storeArchives(ctx context.Context, n int) error {
	store, err := s3.Open(ctx, s3.Config{Bucket: bucket, Region: b.s3.Region, Endpoint: b.s3.Endpoint, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(b.s3.AccessKey, b.s3.SecretKey, "")})
	if err != nil {
		return err
	}
	defer store.Close()
	prefixed := storage.Prefixed(store, "pg/")
	now := time.Now().UTC().Truncate(time.Second)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(auditWriters)
	for i := range n {
		g.Go(func() error {
			at := now.AddDate(0, 0, -(i % auditEach)).Add(-time.Hour)
			d, err := archiver.NewDir("sox-7y", fmt.Sprintf("database-%02d", i/auditEach), at)
			if err != nil {
				return err
			}
			return putSynthetic(ctx, prefixed, d)
		})
	}
	return g.Wait()
}

// putSynthetic stores what an archive is to an audit: four objects and the promise
// that they are kept for seven years.
func putSynthetic(ctx context.Context, b storage.Bucket, d archiver.Dir) error {
	keep := archiver.Period{Years: 7}
	lock := storage.Retention{Mode: storage.Governance, Until: keep.After(d.Time).AddDate(0, 0, 1)}
	store := func(name string, data []byte) (archiver.StoredObject, error) {
		role, _, _ := strings.Cut(name, ".")
		if name == archiver.DumpName {
			role = archiver.RoleDump
		}
		tags := map[string]string{archiver.TagPolicy: d.Policy, archiver.TagRole: role}
		o, err := storage.PutBytes(ctx, b, d.Key(name), data, storage.PutOptions{Retention: lock, Tags: tags})
		sum := sha256.Sum256(data)
		return archiver.StoredObject{Key: d.Key(name), Version: o.Version, Size: o.Size, SHA256: hex.EncodeToString(sum[:]), Checksum: &o.Checksum}, err
	}
	dump, err := store(archiver.DumpName, []byte("PGDMP of "+d.ID))
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte("PGDMP"))
	dump.Head = &archiver.Range{Length: 5, SHA256: hex.EncodeToString(sum[:])}
	index, err := store(archiver.IndexName, []byte("index"))
	if err != nil {
		return err
	}
	globals, err := store(archiver.GlobalsName, []byte("globals"))
	if err != nil {
		return err
	}
	rows := int64(1000)
	policy := archiver.Policy{Keep: keep, Lock: lock.Mode}
	m := archiver.Manifest{
		Format: archiver.Format, ID: d.ID, Label: d.Label, Policy: d.Policy, Key: d.Key(archiver.ManifestName), Pgstow: "bench",
		Started: d.Time, Finished: d.Time, Source: archiver.Source{Database: d.Label, ServerVersion: "17.2", SystemIdentifier: "1"},
		Structure: archiver.StructureComplete, Evidence: archiver.EvidenceContent, Globals: archiver.GlobalsIncluded, ReadBack: archiver.ReadBackDone,
		Kept:    &archiver.Kept{Policy: policy, KeepUntil: keep.After(d.Time), RetainUntil: lock.Until},
		Objects: archiver.Objects{Dump: dump, Index: &index, Globals: &globals},
		Totals:  archiver.Totals{Bytes: dump.Size, Tables: 1, Rows: &rows},
	}
	raw, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return err
	}
	_, err = store(archiver.ManifestName, raw)
	return err
}
