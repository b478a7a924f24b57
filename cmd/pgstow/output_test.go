package main

import (
	"bytes"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	var out bytes.Buffer
	tb := newTable(&out)
	tb.row("id", "label", "")
	tb.row("k7m2q9xd", "a\x1b[2Jb\nc", "äöü")
	if err := tb.flush(); err != nil {
		t.Fatal(err)
	}
	want := "id        label\nk7m2q9xd  a?[2Jb?c  äöü\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{
		"short": "short", "exactlyten": "exactlyten", "elevenchars": "eleve…hars", "äöüäöüäöüäöü": "äöüäö…üäöü",
	} {
		if got := shorten(in, 10); got != want {
			t.Errorf("shorten(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for want, then := range map[string]time.Time{
		"3 days": now.Add(-73 * time.Hour), "5 hours": now.Add(-5*time.Hour - time.Minute), "now": now,
	} {
		if got := age(then, now); got != want {
			t.Errorf("age = %q, want %q", got, want)
		}
	}
}
