//go:build !linux

package dumper

import (
	"syscall"
	"time"
)

// tcpUserTimeout: libpq ignores tcp_user_timeout outside Linux too.
func tcpUserTimeout(time.Duration) func(network, address string, c syscall.RawConn) error {
	return nil
}
