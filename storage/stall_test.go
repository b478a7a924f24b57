package storage

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// step is what a Put reports after some time.
type step struct {
	after time.Duration
	p     Progress
}

func TestGuardStall(t *testing.T) {
	const timeout = time.Minute
	for name, c := range map[string]struct {
		steps []step
		// stalledAt is when the guard speaks, counted from the start, 0 never
		// within a day.
		stalledAt time.Duration
	}{
		"nothing reported": {},
		"opening hangs":    {[]step{{0, Progress{Opening: true}}}, timeout},
		"opened, slow source": {[]step{{0, Progress{Opening: true}},
			{50 * time.Second, Progress{}}}, 0},
		"sent, never acknowledged": {[]step{{10 * time.Second, Progress{Sent: 5}}}, 10*time.Second + timeout},
		"all acknowledged":         {[]step{{0, Progress{Sent: 5}}, {time.Second, Progress{Sent: 5, Acknowledged: 5}}}, 0},
		"sending more is no progress": {[]step{{0, Progress{Sent: 5}}, {30 * time.Second, Progress{Sent: 6}},
			{29 * time.Second, Progress{Sent: 7}}}, timeout},
		"the same again is no progress": {[]step{{0, Progress{Sent: 5, Acknowledged: 4}},
			{59 * time.Second, Progress{Sent: 5, Acknowledged: 4}}}, timeout},
		"each byte counts": {[]step{{0, Progress{Sent: 9}}, {59 * time.Second, Progress{Sent: 9, Acknowledged: 1}},
			{59 * time.Second, Progress{Sent: 9, Acknowledged: 2}}}, 118*time.Second + timeout},
		"the pause of a slow source does not count": {[]step{{0, Progress{Sent: 5}},
			{time.Second, Progress{Sent: 5, Acknowledged: 5}}, {time.Hour, Progress{Sent: 6, Acknowledged: 5}}},
			time.Hour + time.Second + timeout},
		"just in time after a pause": {[]step{{0, Progress{Sent: 5}}, {30 * time.Second, Progress{Sent: 5, Acknowledged: 5}},
			{45 * time.Second, Progress{Sent: 9, Acknowledged: 5}}, {59 * time.Second, Progress{Sent: 9, Acknowledged: 9}}}, 0},
		"completing is exempt": {[]step{{0, Progress{Sent: 5, Acknowledged: 4}},
			{time.Second, Progress{Sent: 5, Acknowledged: 4, Completing: true}}}, 0},
		"one call, known size": {[]step{{0, Progress{Opening: true}},
			{59 * time.Second, Progress{Sent: 5}}}, 59*time.Second + timeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, progress, stop := GuardStall(t.Context(), timeout, nil)
				defer stop()
				for _, s := range c.steps {
					time.Sleep(s.after)
					progress(s.p)
				}
				select {
				case <-ctx.Done():
				case <-time.After(24 * time.Hour):
				}
				if c.stalledAt == 0 {
					if ctx.Err() != nil {
						t.Fatalf("ended after %s: %v", time.Since(start), context.Cause(ctx))
					}
					return
				}
				if got := time.Since(start); got != c.stalledAt {
					t.Errorf("ended after %s, expected %s", got, c.stalledAt)
				}
				if cause := context.Cause(ctx); !errors.Is(cause, ErrStalled) || !strings.Contains(cause.Error(), "1m0s") {
					t.Errorf("cause %v", cause)
				}
			})
		})
	}
}

func TestGuardStallNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		ctx, progress, stop := GuardStall(t.Context(), 0, func(Progress) { calls++ })
		progress(Progress{Opening: true})
		time.Sleep(1000 * time.Hour)
		if ctx.Err() != nil || calls != 1 {
			t.Errorf("timeout 0: %v, %d calls", context.Cause(ctx), calls)
		}
		stop()
		if ctx.Err() == nil {
			t.Error("stop does not release the context")
		}
	})
}

func TestGuardStallStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []Progress
		ctx, progress, stop := GuardStall(t.Context(), time.Minute, func(p Progress) { seen = append(seen, p) })
		progress(Progress{Sent: 1})
		stop()
		stop()
		progress(Progress{Sent: 2})
		time.Sleep(time.Hour)
		if cause := context.Cause(ctx); cause != context.Canceled {
			t.Errorf("cause after stop: %v", cause)
		}
		if len(seen) != 2 || seen[1].Sent != 2 {
			t.Errorf("passed on: %+v", seen)
		}
	})
}
