package main

import (
	"fmt"
	"strings"
)

// rules is the content of required.txt: lines of three words and more,
//
//	require PACKAGE TEST[/SUBTEST...]
//	allow-skip PACKAGE TEST[/SUBTEST...] the reason
//
// packages being relative to the module. "#" starts a comment line.
type rules struct {
	required []key
	allowed  map[key]string
}

func parseRules(module, text string) (*rules, error) {
	r := &rules{allowed: map[key]string{}}
	for i, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 3 {
			return nil, fmt.Errorf("line %d: want a verb, a package and a test", i+1)
		}
		k := key{module + "/" + fields[1], fields[2]}
		switch {
		case fields[0] == "require" && len(fields) == 3:
			r.required = append(r.required, k)
		case fields[0] == "allow-skip" && len(fields) > 3:
			r.allowed[k] = strings.Join(fields[3:], " ")
		case fields[0] == "allow-skip":
			return nil, fmt.Errorf("line %d: an allowed skip needs a reason", i+1)
		default:
			return nil, fmt.Errorf("line %d: %q is neither `require PACKAGE TEST` nor `allow-skip PACKAGE TEST REASON`", i+1, line)
		}
	}
	return r, nil
}

// ran counts the required suites that have run to an end.
func (r *rules) ran(report *report) int {
	n := 0
	for _, k := range r.required {
		if got := report.results[k]; got == "pass" || got == "fail" {
			n++
		}
	}
	return n
}

// check lists the required suites that did not run and the skips that are not
// allowed. A skip within a required suite is one of those, allowed or not.
func (r *rules) check(report *report) []string {
	var problems []string
	for _, k := range r.required {
		if report.results[k] == "" {
			problems = append(problems, fmt.Sprintf("required suite %s %s did not run", k.pkg, k.test))
		}
	}
	for _, s := range report.skips {
		if suite, ok := r.suite(s.key); ok {
			problems = append(problems, fmt.Sprintf("skip in required suite %s: %s %s: %s", suite, s.pkg, s.test, s.message))
		} else if _, ok := r.allowed[s.key]; !ok {
			problems = append(problems, fmt.Sprintf("skip that is not allowed: %s %s: %s", s.pkg, s.test, s.message))
		}
	}
	return problems
}

// suite is the required suite that a test belongs to.
func (r *rules) suite(k key) (string, bool) {
	for _, req := range r.required {
		if req.pkg == k.pkg && (req.test == k.test || strings.HasPrefix(k.test, req.test+"/")) {
			return req.test, true
		}
	}
	return "", false
}
