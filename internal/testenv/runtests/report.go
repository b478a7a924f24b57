package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
}

// key names a test.
type key struct{ pkg, test string }

// report turns events back into go test's ordinary output and remembers how
// each test ended.
type report struct {
	out     io.Writer
	results map[key]string // "pass", "fail", "skip"
	pending map[string][]event
	skips   []skip
}

type skip struct {
	key
	message string
}

func newReport(out io.Writer) *report {
	return &report{out: out, results: map[key]string{}, pending: map[string][]event{}}
}

func (r *report) count(result string) int {
	n := 0
	for _, got := range r.results {
		if got == result {
			n++
		}
	}
	return n
}

// line takes one line of go test's output; what is no event is printed.
func (r *report) line(line string) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		fmt.Fprint(r.out, line)
		return
	}
	if e.Action == "build-output" {
		fmt.Fprint(r.out, e.Output)
		return
	}
	if e.Action == "output" {
		r.pending[e.Package] = append(r.pending[e.Package], e)
		return
	}
	if e.Action != "pass" && e.Action != "fail" && e.Action != "skip" {
		return
	}
	if e.Test == "" {
		r.finish(e.Package, e.Action)
		return
	}
	k := key{e.Package, e.Test}
	r.results[k] = e.Action
	if e.Action == "skip" {
		r.skips = append(r.skips, skip{k, r.message(k)})
	}
}

// message is what a test printed, on one line.
func (r *report) message(k key) string {
	var b strings.Builder
	for _, e := range r.pending[k.pkg] {
		if e.Test == k.test && !chatter(e.Output) {
			b.WriteString(e.Output)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// finish prints a package as plain go test does: the closing line if it passed,
// everything that did not pass if it failed.
func (r *report) finish(pkg, result string) {
	events := r.pending[pkg]
	delete(r.pending, pkg)
	if result != "fail" {
		for _, e := range slices.Backward(events) {
			if e.Test == "" && (strings.HasPrefix(e.Output, "ok ") || strings.HasPrefix(e.Output, "? ")) {
				fmt.Fprint(r.out, e.Output)
				return
			}
		}
		return
	}
	for _, e := range events {
		done := r.results[key{pkg, e.Test}]
		if e.Test != "" && (done == "pass" || done == "skip") {
			continue
		}
		// A test without a result was cut off by a panic or a timeout.
		if !strings.HasPrefix(e.Output, "=== ") {
			fmt.Fprint(r.out, e.Output)
		}
	}
}

// chatter is output by which go test -v reports progress.
func chatter(s string) bool {
	s = strings.TrimSpace(s)
	return strings.HasPrefix(s, "=== ") || strings.HasPrefix(s, "--- ")
}
