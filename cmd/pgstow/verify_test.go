package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/archiver"
)

// What is printed claims no more than was done, and calls nothing wrong that is
// not.
func TestVerifyPrints(t *testing.T) {
	for name, c := range map[string]struct {
		archive  archiver.VerifiedArchive
		has, not string
	}{
		"passed": {
			archiver.VerifiedArchive{Result: archiver.ResultPassed, VerifyFacts: archiver.VerifyFacts{Mode: archiver.ModeFull}, Record: "records/x.json"},
			"full: every byte was read, decoded and compared", "wrong",
		},
		"truncated": {
			archiver.VerifiedArchive{Result: archiver.ResultFailed, VerifyFacts: archiver.VerifyFacts{Mode: archiver.ModeFull, Problems: []archiver.Problem{{Object: "archive.dump", What: "it ends early"}}}},
			"full: all that could be was read, decoded and compared", "every byte",
		},
		"truncated and sealed": {
			archiver.VerifiedArchive{Result: archiver.ResultFailed, VerifyFacts: archiver.VerifyFacts{Mode: archiver.ModeSealed}},
			"sealed: all that could be was read; the content is encrypted", "every byte",
		},
		"not recorded": {
			archiver.VerifiedArchive{Result: archiver.ResultPassed, VerifyFacts: archiver.VerifyFacts{Mode: archiver.ModeFull}, Error: "it is verified (passed), and that could not be recorded: no space"},
			"record     it is verified (passed), and that could not be recorded", "wrong",
		},
		"interrupted": {
			archiver.VerifiedArchive{Result: archiver.ResultUndecided, VerifyFacts: archiver.VerifyFacts{Mode: archiver.ModeFull}, Error: "interrupted"},
			"full, and not all of it could be looked at", "wrong",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := printVerified(&runtime{console: console{out: &out}}, &c.archive); err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(text, strings.Join(strings.Fields(c.has), " ")) || strings.Contains(text, c.not) {
				t.Errorf("want %q and no %q in\n%s", c.has, c.not, out.String())
			}
		})
	}
}
