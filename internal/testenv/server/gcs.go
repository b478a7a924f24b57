package server

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
)

// FakeGCS is fake-gcs-server with its memory backend. It is good for the happy
// path with objects below 50 MB; it gets resumable uploads, holds and
// retention wrong.
type FakeGCS struct {
	Host     string // 127.0.0.1:PORT, the value of STORAGE_EMULATOR_HOST
	Endpoint string // http://127.0.0.1:PORT/storage/v1/
	LogFile  string

	proc *process
}

// StartFakeGCS starts fake-gcs-server.
func (h *Home) StartFakeGCS(ctx context.Context) (*FakeGCS, error) {
	path, err := h.executable("fake-gcs-server")
	if err != nil {
		return nil, err
	}
	dir, err := h.mkdir("gcs")
	if err != nil {
		return nil, err
	}
	g := &FakeGCS{LogFile: filepath.Join(dir, "log")}
	g.proc, err = h.startReady(ctx, func() (command, error) {
		port, err := FreePort()
		if err != nil {
			return command{}, err
		}
		g.Host = addr(port)
		g.Endpoint = "http://" + g.Host + "/storage/v1/"
		return command{
			path: path,
			args: []string{
				"-scheme", "http", "-host", "127.0.0.1", "-port", fmt.Sprint(port), "-public-host", g.Host,
				"-external-url", "http://" + g.Host, "-backend", "memory", "-data", "",
			},
			dir: dir, log: g.LogFile, quit: syscall.SIGKILL,
		}, nil
	}, func(ctx context.Context) error {
		_, err := call(ctx, http.MethodGet, g.Endpoint+"b?project=test", nil)
		return err
	})
	return g, err
}

// Env lets a child process find the server and hides the developer's own
// credentials.
func (g *FakeGCS) Env() []string {
	return []string{"STORAGE_EMULATOR_HOST=" + g.Host, "GOOGLE_APPLICATION_CREDENTIALS="}
}

// BucketURL is the URL by which pgstow finds a bucket of this server.
func (g *FakeGCS) BucketURL(bucket, prefix string) string {
	return "gs://" + bucket + "/" + strings.TrimPrefix(prefix, "/") + "?endpoint=http://" + g.Host
}

// CreateBucket creates a bucket; versioned ones keep old generations.
func (g *FakeGCS) CreateBucket(ctx context.Context, name string, versioning bool) error {
	body := map[string]any{"name": name, "versioning": map[string]bool{"enabled": versioning}}
	_, err := call(ctx, http.MethodPost, g.Endpoint+"b?project=test", body)
	return err
}
