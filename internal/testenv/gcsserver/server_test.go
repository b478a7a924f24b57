package gcsserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// client sends requests to a server and fails the test on transport errors,
// unless it is asked with try.
type client struct {
	t      *testing.T
	server *Server
	token  string
}

func newClient(t *testing.T, opts Options) *client {
	t.Helper()
	c := &client{t: t, server: Start(t, opts)}
	if err := c.server.CreateBucket("backups", nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *client) try(method, path string, header map[string]string, body []byte) (*http.Response, string, error) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.server.URL+path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	// A connection of its own, so that nothing is repeated behind our back.
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

func (c *client) do(want int, method, path string, header map[string]string, body []byte) (*http.Response, string) {
	c.t.Helper()
	res, text, err := c.try(method, path, header, body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if res.StatusCode != want {
		c.t.Fatalf("%s %s: status %d, expected %d: %s", method, path, res.StatusCode, want, text)
	}
	return res, text
}

func (c *client) session(name string) string {
	c.t.Helper()
	res, _ := c.do(200, "POST", "/upload/storage/v1/b/backups/o?uploadType=resumable&name="+name, nil, nil)
	return strings.TrimPrefix(res.Header.Get("Location"), c.server.URL)
}

func (c *client) put(name, content string) {
	c.t.Helper()
	c.do(200, "POST", "/upload/storage/v1/b/backups/o?uploadType=media&name="+name, nil, []byte(content))
}

func span(from, to int64, total string) map[string]string {
	return map[string]string{"Content-Range": fmt.Sprintf("bytes %d-%d/%s", from, to-1, total)}
}

// TestSessionExpires: "A session URI expires after one week"; 404 then.
// https://cloud.google.com/storage/docs/resumable-uploads#session-uris
func TestSessionExpires(t *testing.T) {
	c := newClient(t, Options{})
	session := c.session("old")
	if open := c.server.OpenSessions(); len(open) != 1 || open[0].Name != "old" {
		t.Errorf("open sessions: %+v", open)
	}
	c.server.Advance(6 * 24 * time.Hour)
	c.do(308, "PUT", session, map[string]string{"Content-Range": "bytes */*"}, nil)
	c.server.Advance(2 * 24 * time.Hour)
	c.do(404, "PUT", session, map[string]string{"Content-Range": "bytes */*"}, nil)
}

// TestRetentionExpires: protection ends with its time, by the server's clock.
func TestRetentionExpires(t *testing.T) {
	c := newClient(t, Options{})
	if err := c.server.CreateBucket("policy", map[string]any{"retentionPolicy": map[string]any{"retentionPeriod": "60"}}); err != nil {
		t.Fatal(err)
	}
	c.do(200, "POST", "/upload/storage/v1/b/policy/o?uploadType=media&name=x", nil, []byte("x"))
	c.do(403, "DELETE", "/storage/v1/b/policy/o/x", nil, nil)
	c.server.Advance(59 * time.Second)
	c.do(403, "POST", "/upload/storage/v1/b/policy/o?uploadType=media&name=x", nil, []byte("y"))
	c.server.Advance(2 * time.Second)
	c.do(204, "DELETE", "/storage/v1/b/policy/o/x", nil, nil)
}

// TestRights: 401 for no or a wrong token, 403 per operation; an object that is
// missing is 404 only for those who may list; session URIs need no token.
func TestRights(t *testing.T) {
	c := newClient(t, Options{Tokens: map[string]Permissions{
		"all": {"*"}, "writer": {"storage.objects.create"}, "reader": {"storage.objects.get"},
	}})
	const upload, object = "/upload/storage/v1/b/backups/o?uploadType=media&name=x", "/storage/v1/b/backups/o/x"
	c.do(401, "GET", object, nil, nil)
	c.token = "wrong"
	if _, text := c.do(401, "GET", object, nil, nil); !strings.Contains(text, "authError") {
		t.Errorf("401 says %s", text)
	}
	c.token = "writer"
	c.do(200, "POST", upload, nil, []byte("x"))
	// Replacing is deleting.
	c.do(403, "POST", upload, nil, []byte("y"))
	for method, path := range map[string]string{
		"GET": object, "DELETE": object, "PATCH": object,
	} {
		if _, text := c.do(403, method, path, nil, []byte("{}")); !strings.Contains(text, `"forbidden"`) {
			t.Errorf("403 says %s", text)
		}
	}
	c.do(403, "GET", "/storage/v1/b/backups/o", nil, nil)
	c.do(403, "GET", "/storage/v1/b/backups", nil, nil)
	c.do(403, "GET", "/backups/x", nil, nil)
	session := c.session("y")
	c.token = ""
	c.do(200, "PUT", session, span(0, 10, "10"), generated(0, 10))
	c.token = "reader"
	c.do(200, "GET", "/backups/x", nil, nil)
	c.do(403, "GET", "/storage/v1/b/backups/o/missing", nil, nil)
	c.token = "all"
	c.do(404, "GET", "/storage/v1/b/backups/o/missing", nil, nil)
}

// TestFaults holds each fault to what it says.
func TestFaults(t *testing.T) {
	query := map[string]string{"Content-Range": "bytes */*"}
	chunk := generated(0, 2*chunkUnit)

	t.Run("status", func(t *testing.T) {
		c := newClient(t, Options{})
		f := c.server.Inject(Fault{Op: OpGet, Skip: 1, Times: 2, Status: 503, Body: "busy", Header: http.Header{"Retry-After": {"1"}}})
		c.put("x", "x")
		for i, want := range []int{200, 503, 503, 200} {
			res, text := c.do(want, "GET", "/storage/v1/b/backups/o/x", nil, nil)
			if want == 503 && (text != "busy" || res.Header.Get("Retry-After") != "1") {
				t.Errorf("request %d: %q, %v", i, text, res.Header)
			}
		}
		if f.Hits() != 2 || c.server.Count(OpGet) != 4 {
			t.Errorf("%d hits, %d requests", f.Hits(), c.server.Count(OpGet))
		}
	})
	t.Run("lost reply", func(t *testing.T) {
		c := newClient(t, Options{})
		session := c.session("x")
		c.server.Inject(Fault{Op: OpFinal, DropReply: true})
		if _, _, err := c.try("PUT", session, span(0, 10, "10"), generated(0, 10)); !errors.Is(err, io.EOF) {
			t.Errorf("the reply came, or ended by %v", err)
		}
		c.do(200, "GET", "/storage/v1/b/backups/o/x", nil, nil)
		c.do(200, "PUT", session, query, nil)
	})
	t.Run("cut request", func(t *testing.T) {
		c := newClient(t, Options{})
		session := c.session("x")
		c.server.Inject(Fault{Op: OpChunk, CutRequest: chunkUnit + 1000})
		if _, _, err := c.try("PUT", session, span(0, 2*chunkUnit, "*"), chunk); err == nil {
			t.Error("the reply came")
		}
		// What had arrived stays as far as it is aligned.
		if res, _ := c.do(308, "PUT", session, query, nil); res.Header.Get("Range") != "bytes=0-262143" {
			t.Errorf("persisted: %q", res.Header.Get("Range"))
		}
	})
	t.Run("partial persist", func(t *testing.T) {
		c := newClient(t, Options{})
		session := c.session("x")
		none := int64(0)
		c.server.Inject(Fault{Op: OpChunk, Persist: &none})
		if res, _ := c.do(308, "PUT", session, span(0, 2*chunkUnit, "*"), chunk); len(res.Header.Values("Range")) > 0 {
			t.Errorf("persisted: %q", res.Header.Get("Range"))
		}
		unit := int64(chunkUnit)
		c.server.Inject(Fault{Op: OpChunk, Persist: &unit})
		if res, _ := c.do(308, "PUT", session, span(0, 2*chunkUnit, "*"), chunk); res.Header.Get("Range") != "bytes=0-262143" {
			t.Errorf("persisted: %q", res.Header.Get("Range"))
		}
		c.do(200, "PUT", session, span(chunkUnit, 2*chunkUnit, "524288"), chunk[chunkUnit:])
		if _, text := c.do(200, "GET", "/backups/x", nil, nil); text != string(chunk) {
			t.Error("the content differs")
		}
	})
	t.Run("cut response", func(t *testing.T) {
		c := newClient(t, Options{})
		c.put("x", "0123456789")
		c.server.Inject(Fault{Op: OpMedia, CutResponse: 4})
		_, text, err := c.try("GET", "/backups/x", nil, nil)
		if text != "0123" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %q, %v", text, err)
		}
		c.do(200, "GET", "/backups/x", nil, nil)
	})
	t.Run("damage", func(t *testing.T) {
		c := newClient(t, Options{})
		c.server.Inject(Fault{Op: OpInsert, Damage: true})
		c.put("x", "0123456789")
		if _, text := c.do(200, "GET", "/backups/x", nil, nil); text != "1123456789" {
			t.Errorf("stored %q", text)
		}
		c.server.Inject(Fault{Op: OpMedia, DamageReply: true})
		if _, text := c.do(200, "GET", "/backups/x", nil, nil); text != "0123456789" {
			t.Errorf("delivered %q", text)
		}
	})
	t.Run("hang", func(t *testing.T) {
		c := newClient(t, Options{})
		f := c.server.Inject(Fault{Op: OpGet, Hang: true})
		ended := make(chan error)
		go func() {
			_, _, err := c.try("GET", "/storage/v1/b/backups/o/x", nil, nil)
			ended <- err
		}()
		<-f.Hit()
		c.server.Close()
		if err := <-ended; err == nil {
			t.Error("a reply came")
		}
	})
}

// TestSpill: content in files is served the same, and removed in the end.
func TestSpill(t *testing.T) {
	dir := t.TempDir()
	c := newClient(t, Options{SpillDir: dir})
	session := c.session("x")
	content := generated(0, chunkUnit+10)
	c.do(308, "PUT", session, span(0, chunkUnit, "*"), content[:chunkUnit])
	c.do(200, "PUT", session, span(chunkUnit, chunkUnit+10, "262154"), content[chunkUnit:])
	c.session("unfinished")
	if _, text := c.do(200, "GET", "/backups/x", nil, nil); text != string(content) {
		t.Error("the content differs")
	}
	if _, text := c.do(206, "GET", "/backups/x", map[string]string{"Range": "bytes=100-199"}, nil); text != string(content[100:200]) {
		t.Error("the range differs")
	}
	c.server.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
