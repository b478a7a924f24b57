package gcs

import (
	"net"
	"sync"
	"sync/atomic"
)

// wire is a listener whose connections can be cut and frozen.
type wire struct {
	net.Listener
	sent atomic.Int64 // bytes from the server

	mu     sync.Mutex
	conns  map[*wireConn]bool
	budget int64         // per connection, 0 is no limit
	ice    chan struct{} // not nil while frozen
}

func newWire(l net.Listener) *wire { return &wire{Listener: l, conns: map[*wireConn]bool{}} }

func (w *wire) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	conn := &wireConn{Conn: c, wire: w, left: w.budget}
	w.conns[conn] = true
	return conn, nil
}

// cut ends each connection after so many bytes from the server; 0 stops that.
func (w *wire) cut(after int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.budget = after
	for c := range w.conns {
		c.left = after
	}
}

func (w *wire) freeze() (thaw func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ice = make(chan struct{})
	return w.thaw
}

func (w *wire) thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ice != nil {
		close(w.ice)
		w.ice = nil
	}
}

// kill is the end of the server, for its clients.
func (w *wire) kill() {
	w.Listener.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Conn.Close()
	}
}

func (w *wire) wait() {
	w.mu.Lock()
	ice := w.ice
	w.mu.Unlock()
	if ice != nil {
		<-ice
	}
}

type wireConn struct {
	net.Conn
	wire *wire
	left int64 // guarded by wire.mu
}

func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.wait() // what arrived while frozen stays unseen
	return n, err
}

func (c *wireConn) Write(p []byte) (int, error) {
	c.wire.wait()
	c.wire.mu.Lock()
	limited, allowed := c.wire.budget > 0, min(c.left, int64(len(p)))
	c.left -= allowed
	c.wire.mu.Unlock()
	if !limited {
		allowed = int64(len(p))
	}
	n, err := c.Conn.Write(p[:allowed])
	c.wire.sent.Add(int64(n))
	if err == nil && n < len(p) {
		c.Close()
		return n, net.ErrClosed
	}
	return n, err
}

func (c *wireConn) Close() error {
	c.wire.mu.Lock()
	delete(c.wire.conns, c)
	c.wire.mu.Unlock()
	return c.Conn.Close()
}
