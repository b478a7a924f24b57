package storage

import (
	"net/http"
	"testing"
	"time"
)

func TestClockSkew(t *testing.T) {
	now := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	for date, want := range map[string]time.Duration{
		"Thu, 26 Nov 2026 10:00:00 GMT": 0,
		"Thu, 26 Nov 2026 09:59:10 GMT": 0,
		"Thu, 26 Nov 2026 10:00:50 GMT": 0,
		"Thu, 26 Nov 2026 09:00:00 GMT": time.Hour,
		"Thu, 26 Nov 2026 11:00:00 GMT": -time.Hour,
		"":                              0,
		"yesterday":                     0,
	} {
		if got := ClockSkew(http.Header{"Date": {date}}, now); got != want {
			t.Errorf("%q: %s, expected %s", date, got, want)
		}
	}
}
