package s3

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// TestMergeVersions: the SDK delivers versions and markers apart; one second is
// all the time there is between them.
func TestMergeVersions(t *testing.T) {
	at := func(s int) *time.Time { return aws.Time(time.Unix(int64(s), 0)) }
	version := func(key, id string, s int, latest bool) types.ObjectVersion {
		return types.ObjectVersion{Key: &key, VersionId: &id, LastModified: at(s), IsLatest: &latest}
	}
	marker := func(key, id string, s int, latest bool) types.DeleteMarkerEntry {
		return types.DeleteMarkerEntry{Key: &key, VersionId: &id, LastModified: at(s), IsLatest: &latest}
	}
	b := &Bucket{versionsKnown: true, versioning: types.BucketVersioningStatusEnabled}
	var got []string
	for _, o := range b.merge(
		[]types.ObjectVersion{version("a", "v2", 9, true), version("a", "v1", 5, false), version("b", "v1", 5, false), version("c", "v1", 1, true)},
		[]types.DeleteMarkerEntry{marker("a", "m1", 7, false), marker("a", "m0", 5, false), marker("b", "m1", 5, true), marker("d", "m1", 1, true)},
	) {
		name := o.Key + o.Version
		if o.DeleteMarker != strings.HasPrefix(o.Version, "m") {
			t.Errorf("%s: DeleteMarker is %t", name, o.DeleteMarker)
		}
		got = append(got, name)
	}
	if want := []string{"av2", "am1", "am0", "av1", "bm1", "bv1", "cv1", "dm1"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// listUploads answers ListMultipartUploads from all, sorted, page by page.
func listUploads(w http.ResponseWriter, r *http.Request, all []storage.Upload, strictMarker bool) {
	q := r.URL.Query()
	key, id, limit := q.Get("key-marker"), q.Get("upload-id-marker"), 1000
	if n, err := strconv.Atoi(q.Get("max-uploads")); err == nil {
		limit = n
	}
	if strictMarker && id != "" {
		fail(w, 400, "InvalidArgument", "Invalid uploadId marker")
		return
	}
	type upload struct{ Key, UploadId, Initiated string }
	type result struct {
		XMLName                           xml.Name `xml:"ListMultipartUploadsResult"`
		IsTruncated                       bool
		NextKeyMarker, NextUploadIdMarker string
		Upload                            []upload
	}
	var page result
	for _, u := range all {
		if u.Key < key || u.Key == key && (id == "" || u.ID <= id) || !strings.HasPrefix(u.Key, q.Get("prefix")) {
			continue
		}
		if len(page.Upload) == limit {
			last := page.Upload[limit-1]
			page.IsTruncated, page.NextKeyMarker, page.NextUploadIdMarker = true, last.Key, last.UploadId
			break
		}
		page.Upload = append(page.Upload, upload{u.Key, u.ID, "2026-01-02T03:04:05Z"})
	}
	out, _ := xml.Marshal(page)
	w.Write(out)
}

// TestUploadsBeyondOnePage: with both markers as AWS does, and on a store that
// refuses the second page of a list.
func TestUploadsBeyondOnePage(t *testing.T) {
	var all []storage.Upload
	for i := range 2345 {
		// Several uploads of one key, also across the end of a page.
		all = append(all, storage.Upload{Key: fmt.Sprintf("p/%04d", i/7), ID: fmt.Sprintf("u%05d", i)})
	}
	for name, strict := range map[string]bool{"both markers": false, "key marker only": true} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				switch op {
				case "ListMultipartUploads":
					listUploads(w, r, all, strict)
					return true
				case "ListParts":
					io.WriteString(w, "<ListPartsResult><Part><PartNumber>1</PartNumber><Size>10</Size><LastModified>2026-02-02T03:04:05Z</LastModified></Part>"+
						"<Part><PartNumber>2</PartNumber><Size>5</Size><LastModified>2026-02-01T03:04:05Z</LastModified></Part></ListPartsResult>")
					return true
				}
				return false
			}
			b := mustOpen(t, s.config())
			var got []storage.Upload
			for u, err := range b.Uploads(t.Context(), "p/") {
				if err != nil {
					t.Fatal(err)
				}
				if u.Size != 15 || u.Newest.Format("01-02") != "02-02" || u.Initiated.Format("01-02") != "01-02" {
					t.Fatalf("%+v", u)
				}
				got = append(got, storage.Upload{Key: u.Key, ID: u.ID})
			}
			if !slices.Equal(got, all) {
				t.Errorf("%d uploads listed, %d exist", len(got), len(all))
			}
		})
	}
}

// TestUploadsOnServers: small pages of real unfinished uploads.
func TestUploadsOnServers(t *testing.T) {
	for server, start := range servers {
		t.Run(server, func(t *testing.T) {
			srv := start(t)
			bucket := srv.NewBucket(t, testenv.BucketOptions{})
			var want []string
			for i := range 7 {
				key := fmt.Sprintf("p/%d", i)
				if _, err := srv.Client().CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key}); err != nil {
					t.Fatal(err)
				}
				want = append(want, key)
			}
			cfg := testConfig(srv, bucket)
			cfg.uploadsPage = aws.Int32(3)
			b := mustOpen(t, cfg)
			var got []string
			for u, err := range b.Uploads(t.Context(), "p/") {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, u.Key)
				if err := b.AbortUpload(t.Context(), u); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("swept %v, want %v", got, want)
			}
			if left := leftovers(t, srv, bucket); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestRepeatedPage: a list that does not advance is an error, not a short list.
func TestRepeatedPage(t *testing.T) {
	s := newStub(t)
	s.script = func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		if op != "List" {
			return false
		}
		io.WriteString(w, "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"+
			"<Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>")
		return true
	}
	b := mustOpen(t, s.config())
	var last error
	n := 0
	for _, err := range b.List(t.Context(), storage.ListOptions{}) {
		last = err
		n++
	}
	if last == nil || n != 3 {
		t.Fatalf("%d entries, %v", n, last)
	}
}
