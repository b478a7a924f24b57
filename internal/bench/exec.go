package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pgstow/pgstow/internal/testenv/server"
)

// sample is one run of one measure.
type sample struct {
	Wall   float64 `json:"wall_s"`
	CPU    float64 `json:"cpu_s"`    // of all client processes, user and system
	Peak   int64   `json:"peak_rss"` // of the largest of them, bytes
	Stored int64   `json:"stored"`   // bytes in the store, or read from it
	Load   string  `json:"load,omitempty"`
}

// pipeline runs commands, each reading what the one before writes, and adds up
// what they took. The last one writes to out, or to /dev/null without one.
func (b *bench) pipeline(ctx context.Context, out io.Writer, commands ...[]string) (s sample, err error) {
	var cmds []*exec.Cmd
	var closers []io.Closer
	stderrs := make([]strings.Builder, len(commands))
	for i, c := range commands {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		cmd.Env, cmd.Stderr = b.env(), &stderrs[i]
		if i > 0 {
			r, w, err := os.Pipe()
			if err != nil {
				return s, err
			}
			cmds[i-1].Stdout, cmd.Stdin = w, r
			closers = append(closers, r, w)
		}
		cmds = append(cmds, cmd)
	}
	cmds[len(cmds)-1].Stdout = out
	begin := time.Now()
	var failures []error
	for _, cmd := range cmds {
		failures = append(failures, server.Start(cmd))
	}
	for _, c := range closers {
		_ = c.Close() // the children have theirs
	}
	for i, cmd := range cmds {
		if failures[i] != nil {
			continue
		}
		if err := cmd.Wait(); err != nil {
			failures[i] = fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, lastLines(stderrs[i].String()))
		}
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if ok {
			s.CPU += seconds(usage.Utime) + seconds(usage.Stime)
			s.Peak = max(s.Peak, usage.Maxrss<<10)
		}
	}
	s.Wall = time.Since(begin).Seconds()
	return s, errors.Join(failures...)
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
