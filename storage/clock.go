package storage

import (
	"net/http"
	"time"
)

// ClockSkew is how far now is ahead of the Date header of an answer that has
// just come, in whole minutes: an answer takes its time, and the header has
// seconds.
func ClockSkew(answer http.Header, now time.Time) time.Duration {
	store, err := http.ParseTime(answer.Get("Date"))
	if err != nil {
		return 0
	}
	return now.Sub(store).Truncate(time.Minute)
}
