package main

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// readCounter stands before a store and counts what it sends.
type readCounter struct {
	listener net.Listener
	store    string // host and port
	n        atomic.Int64
	open     sync.WaitGroup
}

func countReads(endpoint string) (*readCounter, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &readCounter{listener: listener, store: strings.TrimPrefix(endpoint, "http://")}
	c.open.Go(c.accept)
	return c, nil
}

func (c *readCounter) endpoint() string { return "http://" + c.listener.Addr().String() }

// close returns the count when all connections are closed.
func (c *readCounter) close() int64 {
	_ = c.listener.Close()
	c.open.Wait()
	return c.n.Load()
}

func (c *readCounter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return // closed
		}
		store, err := net.Dial("tcp", c.store)
		if err != nil {
			_ = client.Close()
			continue
		}
		c.open.Go(func() {
			_, _ = io.Copy(store, client)
			_ = store.Close()
		})
		c.open.Go(func() {
			_, _ = io.Copy(io.MultiWriter(client, c), store)
			_ = client.Close()
		})
	}
}

func (c *readCounter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
