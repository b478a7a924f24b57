// Command runfuzz fuzzes every target of the packages, some beside each other.
//
//	go run ./internal/testenv/runfuzz [-time D] [-p N] packages...
//
// It prints a line per target, and the whole output of one that failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	fuzzTime := flag.Duration("time", time.Minute, "how long each target is fuzzed")
	p := flag.Int("p", 2, "targets fuzzed at once, each by one worker")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *fuzzTime, *p, flag.Args())
	stop()
	if err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
}

// target is one fuzz function.
type target struct{ pkg, name string }

func run(ctx context.Context, out io.Writer, fuzzTime time.Duration, p int, packages []string) error {
	targets, err := find(ctx, packages)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return errors.New("there is no fuzz target")
	}
	queue := make(chan target)
	go func() {
		defer close(queue)
		for _, t := range targets {
			queue <- t
		}
	}()
	var mu sync.Mutex // of out and failed
	failed := 0
	var workers sync.WaitGroup
	for range max(p, 1) {
		workers.Go(func() {
			for t := range queue {
				text, err := t.fuzz(ctx, fuzzTime)
				if ctx.Err() != nil {
					continue
				}
				mu.Lock()
				if err != nil {
					failed++
					fmt.Fprintf(out, "%s\nFAIL\t%s\t%s\t%v\n", strings.TrimSpace(text), t.pkg, t.name, err)
				} else {
					fmt.Fprintf(out, "ok  \t%s\t%s\t%s\n", t.pkg, t.name, lastStatus(text))
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d fuzz targets failed", failed, len(targets))
	}
	return nil
}

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`)

// find lists the targets in the packages' test files.
func find(ctx context.Context, packages []string) ([]target, error) {
	const format = `{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}`
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-f", format}, packages...)...)
	cmd.Stderr = os.Stderr
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var targets []target
	for line := range strings.Lines(string(list)) {
		pkg, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		source, err := os.ReadFile(filepath.Clean(file))
		if err != nil {
			return nil, err
		}
		for _, m := range fuzzFunc.FindAllStringSubmatch(string(source), -1) {
			targets = append(targets, target{pkg, m[1]})
		}
	}
	return targets, nil
}

// fuzz runs one target and returns what go test printed.
func (t target) fuzz(ctx context.Context, fuzzTime time.Duration) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", fuzzTime.String(),
		"-fuzzminimizetime", "1x", "-parallel", "1", t.pkg)
	// A group of its own: go test does not pass an interrupt on to the fuzzing.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), verdict(string(out), err, fuzzTime)
}

var (
	statusLine = regexp.MustCompile(`(?m)^fuzz: elapsed: .*, (execs: [1-9]\d*) \(\d+/sec\)(.*)$`)
	// onlyDeadline is what a run prints that failed at its end and found nothing.
	onlyDeadline = regexp.MustCompile(`^(?:fuzz: elapsed: .*\n)+--- FAIL: Fuzz\w* \((\d+\.\d+)s\)\n    context deadline exceeded\nFAIL\n` +
		`(?:exit status 1\n)?FAIL\t\S+\t\S+\n(?:FAIL\n)?$`)
)

// verdict judges a run by its output. go test sometimes takes the end of
// -fuzztime for a failure (go.dev/issue/75804, cured in Go 1.27): a run that
// lasted as long as it should and complains of nothing but the deadline passed.
func verdict(out string, err error, fuzzTime time.Duration) error {
	if m := onlyDeadline.FindStringSubmatch(out); err != nil && m != nil {
		if lasted, parseErr := time.ParseDuration(m[1] + "s"); parseErr == nil && lasted >= fuzzTime {
			err = nil
		}
	}
	if err == nil && !statusLine.MatchString(out) {
		return errors.New("the time was over before anything was fuzzed")
	}
	return err
}

// lastStatus is how far go test came.
func lastStatus(out string) string {
	all := statusLine.FindAllStringSubmatch(out, -1)
	if len(all) == 0 {
		return ""
	}
	last := all[len(all)-1]
	return last[1] + last[2] // the last rate is that of stopping
}
