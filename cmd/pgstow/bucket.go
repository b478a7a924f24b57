package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

const bucketForms = "want s3://bucket/prefix, gs://bucket/prefix or file:///dir"

// bucketURL names a bucket and a prefix in it.
type bucketURL struct {
	name   string // the URL without parameters, ends in "/"
	place  string // name and server: two URLs with one place are one bucket
	scheme string
	prefix string
	rights archiver.Place // what rights to it depend on
	opener opener
}

// parseBucketURL takes a URL of the command line.
func parseBucketURL(text string) (bucketURL, error) {
	b, err := parseBucket(text, signIn{})
	if err != nil {
		return bucketURL{}, usagef("bucket: %w", err)
	}
	return b, nil
}

// parseBucket never repeats text in an error: credentials may stand in it.
func parseBucket(text string, by signIn) (bucketURL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return bucketURL{}, errors.New("not a URL; " + bucketForms)
	}
	if u.User != nil {
		return bucketURL{}, errors.New("credentials have no place in a bucket URL; the store's own sign-in is used (AWS_PROFILE, a role, GOOGLE_APPLICATION_CREDENTIALS)")
	}
	parse, ok := drivers[u.Scheme]
	if !ok {
		return bucketURL{}, fmt.Errorf("no store has the scheme %q; %s", u.Scheme, bucketForms)
	}
	open, prefix, err := parse(text, by)
	if err != nil {
		return bucketURL{}, err
	}
	name := url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/") + "/"}
	return bucketURL{
		name: name.String(), place: name.String() + " " + u.Query().Get("endpoint"),
		scheme: u.Scheme, prefix: prefix, rights: placeOf(u, prefix), opener: open,
	}, nil
}

// placeOf is what rights depend on.
func placeOf(u *url.URL, prefix string) archiver.Place {
	query := u.Query()
	endpoint := cmp.Or(query.Get("endpoint"), os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	return archiver.Place{
		Scheme: u.Scheme, Bucket: u.Host, Prefix: prefix,
		Region:    cmp.Or(query.Get("region"), os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")),
		PlainHTTP: strings.HasPrefix(endpoint, "http://"),
	}
}

func (b bucketURL) open(ctx context.Context, log *slog.Logger) (storage.Bucket, error) {
	bucket, err := b.opener(ctx, log)
	if failed, ok := err.(*storage.Error); ok && failed.Op == "open" && failed.Key == "" { //nolint:errorlint // only the outermost one names the bucket
		named := *failed
		named.Key = b.name
		return nil, &named
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", b, err)
	}
	return storage.Prefixed(bucket, b.prefix), nil
}

func (b bucketURL) String() string { return b.name }

// key is the full URL of an object.
func (b bucketURL) key(key string) string { return b.name + key }
