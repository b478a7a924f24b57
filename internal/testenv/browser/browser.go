// Package browser drives a real Chromium, over the pipe on which it speaks its
// DevTools protocol: no port, no driver, no other program.
package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/server"
)

// timeout bounds one command.
const timeout = time.Minute

// Browser is a running Chromium without a window.
type Browser struct {
	in  *os.File
	cmd *exec.Cmd

	mu      sync.Mutex
	next    int
	waiting map[int]chan reply
	pages   map[string]*Page // by session
	failure error            // once the pipe is closed
}

// reply is the answer to a command.
type reply struct {
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// message is anything that comes through the pipe.
type message struct {
	ID      int             `json:"id"`
	Session string          `json:"sessionId"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	reply
}

// Start starts Chromium, which ends with the test.
func Start(t testing.TB) *Browser {
	t.Helper()
	home, err := os.MkdirTemp("", "chromium-")
	if err != nil {
		t.Fatal(err)
	}
	toBrowser, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, fromBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.Tool(t, "chromium"),
		"--headless", "--remote-debugging-pipe", "--user-data-dir="+home, "--no-first-run", "--no-default-browser-check",
		"--no-sandbox", // as root it cannot have one; it loads nothing but our own page
		"--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+home, "LC_ALL=C.UTF-8", "TZ=UTC")
	cmd.ExtraFiles = []*os.File{toBrowser, fromBrowser} // 3 and 4
	if err := server.Start(cmd); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	_ = toBrowser.Close()
	_ = fromBrowser.Close()
	b := &Browser{in: in, cmd: cmd, waiting: map[int]chan reply{}, pages: map[string]*Page{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.read(out)
	}()
	t.Cleanup(func() {
		_, _ = b.call("", "Browser.close", nil)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		<-ended
		_ = cmd.Wait()
		timer.Stop()
		_ = in.Close()
		_ = out.Close()
		removeAll(t, home)
	})
	return b
}

// removeAll removes the browser's files, which its last processes may still write.
func removeAll(t testing.TB, dir string) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := os.RemoveAll(dir)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("remove the browser's files: %v", err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// read hands out what the browser says until the pipe ends.
func (b *Browser) read(out io.Reader) {
	r := bufio.NewReader(out)
	for {
		raw, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.failure = fmt.Errorf("chromium has ended: %w", err)
			for id, c := range b.waiting {
				close(c)
				delete(b.waiting, id)
			}
			return
		}
		var m message
		if err := json.Unmarshal(raw[:len(raw)-1], &m); err != nil {
			continue
		}
		b.mu.Lock()
		if c := b.waiting[m.ID]; m.ID != 0 && c != nil {
			c <- m.reply
			delete(b.waiting, m.ID)
		} else if p := b.pages[m.Session]; m.ID == 0 && p != nil {
			p.event(m)
		}
		b.mu.Unlock()
	}
}

// call sends one command and waits for its answer.
func (b *Browser) call(session, method string, params any) (json.RawMessage, error) {
	c := make(chan reply, 1)
	b.mu.Lock()
	if b.failure != nil {
		b.mu.Unlock()
		return nil, b.failure
	}
	b.next++
	id := b.next
	b.waiting[id] = c
	raw, err := json.Marshal(struct {
		ID      int    `json:"id"`
		Session string `json:"sessionId,omitempty"`
		Method  string `json:"method"`
		Params  any    `json:"params,omitempty"`
	}{id, session, method, params})
	if err == nil {
		_, err = b.in.Write(append(raw, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	select {
	case r, ok := <-c:
		switch {
		case !ok:
			return nil, fmt.Errorf("%s: %w", method, errors.New("chromium has ended"))
		case r.Error != nil:
			return nil, fmt.Errorf("%s: %s", method, r.Error.Message)
		}
		return r.Result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer within %s", method, timeout)
	}
}
