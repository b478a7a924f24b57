package main

import (
	"context"
	"errors"
	"log/slog"
	"net/url"

	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/file"
	"github.com/pgstow/pgstow/storage/gcs"
	"github.com/pgstow/pgstow/storage/s3"
)

// opener opens the bucket that a URL names.
type opener func(ctx context.Context, log *slog.Logger) (storage.Bucket, error)

// driver takes a URL of its scheme apart. The prefix is "" or ends in "/".
type driver func(raw string, by signIn) (open opener, prefix string, err error)

// drivers has one entry per URL scheme: the only place that knows them all.
var drivers = map[string]driver{
	"s3":   parseS3,
	"gs":   parseGCS,
	"file": parseFile,
}

func parseS3(raw string, by signIn) (opener, string, error) {
	cfg, prefix, err := s3.ParseURL(raw)
	cfg.Profile, cfg.RoleARN, cfg.ExternalID = by.profile, by.roleARN, by.externalID
	cfg.ExpectedBucketOwner, cfg.CAFile = by.bucketOwner, by.caFile
	return func(ctx context.Context, log *slog.Logger) (storage.Bucket, error) {
		cfg.Log = log
		b, err := s3.Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return b, nil
	}, prefix, err
}

func parseGCS(raw string, by signIn) (opener, string, error) {
	cfg, prefix, err := gcs.ParseURL(raw)
	cfg.Impersonate, cfg.QuotaProject = by.impersonate, by.quotaProject
	return func(ctx context.Context, log *slog.Logger) (storage.Bucket, error) {
		cfg.Log = log
		b, err := gcs.Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return b, nil
	}, prefix, err
}

// parseFile takes the whole path for the folder: a prefix in it would hide
// that the folder has to exist.
func parseFile(raw string, _ signIn) (opener, string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host != "" || u.Opaque != "" || u.Path == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, "", errors.New("a folder is written with three slashes and no parameters: file:///dir")
	}
	return func(ctx context.Context, _ *slog.Logger) (storage.Bucket, error) {
		b, err := file.Open(ctx, file.Config{Dir: u.Path})
		if err != nil {
			return nil, err
		}
		return b, nil
	}, "", nil
}
