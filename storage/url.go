package storage

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// BucketURL is a bucket URL taken apart: scheme://bucket/prefix?name=value.
type BucketURL struct {
	Bucket string
	Prefix string // empty, or ends in "/"
	// Params are the parameters that are set; name= stands for the default, as
	// in a template that was not filled in.
	Params map[string]string
}

// ParseBucketURL takes a bucket URL apart. Parameters that are not known, and
// those that are repeated or malformed, are refused, and so is a URL that
// carries credentials; chain says where those come from instead. No message
// shows the URL itself: it may hold a misplaced secret.
func ParseBucketURL(raw, scheme, chain string, known ...string) (BucketURL, error) {
	fail := func(format string, args ...any) (BucketURL, error) {
		return BucketURL{}, fmt.Errorf(scheme+" URL: "+format, args...)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return fail("not of the form %s://bucket/prefix?parameter=value", scheme)
	}
	switch {
	case u.Scheme != scheme:
		return fail("scheme is %q, not %s", u.Scheme, scheme)
	case u.User != nil:
		return fail("holds credentials; leave them to %s", chain)
	case u.Host == "" || u.Opaque != "":
		return fail("no bucket named: %s://bucket/prefix", scheme)
	case strings.Contains(u.Host, ":"):
		return fail("the bucket's place holds a port; name the server with ?endpoint=http://host:port")
	case u.Fragment != "":
		return fail("has a fragment (#...)")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("malformed parameters")
	}
	b := BucketURL{Bucket: u.Host, Prefix: strings.TrimPrefix(u.Path, "/"), Params: map[string]string{}}
	if b.Prefix != "" && !strings.HasSuffix(b.Prefix, "/") {
		b.Prefix += "/"
	}
	for name, values := range query {
		switch {
		case !slices.Contains(known, name):
			return fail("unknown parameter %q; known: %s", name, strings.Join(known, ", "))
		case len(values) > 1:
			return fail("parameter %s is given %d times", name, len(values))
		case values[0] != "":
			b.Params[name] = values[0]
		}
	}
	return b, nil
}

// CheckEndpoint refuses what is no address of a store; chain says where
// credentials come from instead.
func CheckEndpoint(endpoint, chain string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return errors.New("endpoint is not of the form https://host or http://host:port")
	case u.User != nil:
		return fmt.Errorf("endpoint must not hold credentials; leave them to %s", chain)
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("endpoint must not hold a query or a fragment")
	}
	return nil
}
