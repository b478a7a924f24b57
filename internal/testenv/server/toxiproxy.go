package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"syscall"
	"time"
)

// Toxiproxy is a running toxiproxy-server, which breaks TCP connections on
// request.
type Toxiproxy struct {
	api  string
	proc *process
}

// Proxy is one listener of a Toxiproxy.
type Proxy struct {
	Name string
	Addr string // 127.0.0.1:PORT: connect here instead of upstream

	url string
}

// Toxic is one fault. Types and attributes are toxiproxy's: latency
// {latency, jitter}, bandwidth {rate}, slow_close {delay}, timeout {timeout},
// reset_peer {timeout}, slicer {average_size, size_variation, delay},
// limit_data {bytes}.
type Toxic struct {
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Stream     string         `json:"stream"`   // "upstream" is client to server; default "downstream"
	Toxicity   float32        `json:"toxicity"` // share of connections; 0 means all
	Attributes map[string]any `json:"attributes"`
}

// StartToxiproxy starts toxiproxy-server without proxies.
func (h *Home) StartToxiproxy(ctx context.Context) (*Toxiproxy, error) {
	path, err := h.executable("toxiproxy-server")
	if err != nil {
		return nil, err
	}
	dir, err := h.mkdir("toxiproxy")
	if err != nil {
		return nil, err
	}
	t := &Toxiproxy{}
	t.proc, err = h.startReady(ctx, func() (command, error) {
		port, err := FreePort()
		if err != nil {
			return command{}, err
		}
		t.api = "http://" + addr(port)
		return command{
			path: path, args: []string{"-host", "127.0.0.1", "-port", fmt.Sprint(port)},
			dir: dir, log: filepath.Join(dir, "log"), quit: syscall.SIGKILL,
		}, nil
	}, func(ctx context.Context) error {
		_, err := call(ctx, http.MethodGet, t.api+"/version", nil)
		return err
	})
	return t, err
}

// Proxy opens a listener in front of upstream (host:port).
func (t *Toxiproxy) Proxy(ctx context.Context, name, upstream string) (*Proxy, error) {
	var err error
	for range startAttempts { // the port may be taken between choosing and binding
		var port int
		if port, err = FreePort(); err != nil {
			return nil, err
		}
		body := map[string]any{"name": name, "listen": addr(port), "upstream": upstream, "enabled": true}
		if _, err = call(ctx, http.MethodPost, t.api+"/proxies", body); err == nil {
			return &Proxy{Name: name, Addr: addr(port), url: t.api + "/proxies/" + name}, nil
		}
	}
	return nil, err
}

// Add adds a fault. It applies to open connections too.
func (p *Proxy) Add(ctx context.Context, toxic Toxic) error {
	if toxic.Stream == "" {
		toxic.Stream = "downstream"
	}
	if toxic.Toxicity == 0 {
		toxic.Toxicity = 1
	}
	_, err := call(ctx, http.MethodPost, p.url+"/toxics", toxic)
	return err
}

// Remove takes a fault away.
func (p *Proxy) Remove(ctx context.Context, name string) error {
	_, err := call(ctx, http.MethodDelete, p.url+"/toxics/"+name, nil)
	return err
}

// Disable cuts every connection and refuses new ones.
func (p *Proxy) Disable(ctx context.Context) error {
	_, err := call(ctx, http.MethodPost, p.url, map[string]bool{"enabled": false})
	return err
}

// Enable listens again, on the same port.
func (p *Proxy) Enable(ctx context.Context) error {
	_, err := call(ctx, http.MethodPost, p.url, map[string]bool{"enabled": true})
	return err
}

// Close removes the listener.
func (p *Proxy) Close(ctx context.Context) error {
	_, err := call(ctx, http.MethodDelete, p.url, nil)
	return err
}

// call is one JSON request to a server's management interface.
func call(ctx context.Context, method, url string, body any) ([]byte, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(data))
	}
	return data, nil
}
