package s3

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// TestDeleteVersions is what a batch may be answered with.
func TestDeleteVersions(t *testing.T) {
	const result = "<DeleteResult>%s</DeleteResult>"
	until := time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z")
	failed := func(key, code, message string) string {
		return fmt.Sprintf("<Error><Key>%s</Key><VersionId>v</VersionId><Code>%s</Code><Message>%s</Message></Error>", key, code, message)
	}
	s := lockedStub(t, map[string]func(http.ResponseWriter){
		"DeleteObjects": says(fmt.Sprintf(result, "<Deleted><Key>gone</Key><VersionId>v</VersionId></Deleted>"+
			failed("locked", "AccessDenied", "Access Denied")+failed("denied", "AccessDenied", "Access Denied")+
			failed("worm", "InvalidRequest", "Object is WORM protected and cannot be overwritten")+
			failed("missing", "NoSuchVersion", "no such version")+failed("busy", "SlowDown", "slow down"))),
	})
	s.before(func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		switch {
		case r.Header.Get("X-Amz-Bypass-Governance-Retention") != "":
			t.Error("governance is bypassed")
		case op == "HeadObject" && strings.HasSuffix(r.URL.Path, "/locked"):
			heads(lockHeader, "GOVERNANCE", untilHeader, until)(w)
			return true
		case op == "HeadObject":
			heads()(w)
			return true
		}
		return false
	})
	want := []struct {
		key  string
		kind error
	}{
		{"gone", nil}, {"locked", storage.ErrLocked}, {"denied", storage.ErrPermission}, {"worm", storage.ErrLocked},
		{"missing", nil}, {"busy", storage.ErrUnavailable}, {"unanswered", errAny},
	}
	var keys []storage.VersionKey
	for _, w := range want {
		keys = append(keys, storage.VersionKey{Key: w.key, Version: "v"})
	}
	for i, err := range storage.DeleteVersions(t.Context(), mustOpen(t, s.config()), keys) {
		kind := want[i].kind
		if (err == nil) != (kind == nil) || kind != nil && kind != errAny && !errors.Is(err, kind) || strings.Contains(fmt.Sprint(err), "\n") {
			t.Errorf("%s: %v", want[i].key, err)
		}
		t.Log(err)
	}
}

// errAny stands for an error of no kind.
var errAny = errors.New("any")

// TestDeleteVersionsRequestFails: a batch that fails as a whole has deleted none;
// a store without batches is asked one by one.
func TestDeleteVersionsRequestFails(t *testing.T) {
	keys := make([]storage.VersionKey, 2*deleteBatch+1)
	for i := range keys {
		keys[i] = storage.VersionKey{Key: fmt.Sprint("k", i), Version: "v"}
	}
	s := lockedStub(t, map[string]func(http.ResponseWriter){"DeleteObjects": answer(403, "AccessDenied")})
	for i, err := range storage.DeleteVersions(t.Context(), mustOpen(t, s.config()), keys) {
		if !errors.Is(err, storage.ErrPermission) || !strings.Contains(err.Error(), "delete "+keys[i].Key+":") {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if n := s.seen("DeleteObjects"); n != 3 {
		t.Errorf("%d batches", n)
	}
	s = lockedStub(t, map[string]func(http.ResponseWriter){"DeleteObjects": answer(501, "NotImplemented"),
		"DeleteObject": func(w http.ResponseWriter) { w.WriteHeader(204) }})
	for i, err := range storage.DeleteVersions(t.Context(), mustOpen(t, s.config()), keys[:5]) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if n := s.seen("DeleteObject"); n != 5 {
		t.Errorf("%d single deletions", n)
	}
}

// TestDeleteVersionsMD5: stores of the md5 profile know no other checksum, which
// a batch needs.
func TestDeleteVersionsMD5(t *testing.T) {
	for _, profile := range []string{ChecksumMD5, ChecksumCRC64NVME} {
		s := lockedStub(t, nil)
		s.before(func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
			if op != "DeleteObjects" {
				return false
			}
			if md5 := r.Header.Get("Content-Md5") != ""; md5 != (profile == ChecksumMD5) || md5 == (r.Header.Get("X-Amz-Checksum-Crc32") != "") {
				t.Errorf("%s: the headers are %v", profile, r.Header)
			}
			io.WriteString(w, "<DeleteResult><Deleted><Key>k</Key></Deleted></DeleteResult>")
			return true
		})
		cfg := s.config()
		cfg.Checksum = profile
		if errs := storage.DeleteVersions(t.Context(), mustOpen(t, cfg), []storage.VersionKey{{Key: "k"}}); errs[0] != nil {
			t.Error(errs[0])
		}
	}
}
