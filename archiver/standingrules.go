package archiver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// standingRule is a lifecycle rule of the bucket that will delete what is about
// to be written.
type standingRule struct {
	storage.LifecycleRule
	own bool
	at  time.Time // the earliest
}

// oddRulesError: the store's answer about its rules makes no sense. That is no
// reason to go without a backup.
type oddRulesError struct{ err error }

func (e *oddRulesError) Error() string { return e.err.Error() }
func (e *oddRulesError) Unwrap() error { return e.err }

// standingRules are the rules that will delete objects below a key prefix that
// are created at now, and that count from then. Where the policy keeps nothing, or the store itself
// refuses to delete, none matters; where rules cannot be read, none is known.
// One that would delete before the keep is over is ErrRefused.
func standingRules(ctx context.Context, k *keeper, below string, now time.Time) ([]standingRule, error) {
	p := k.policy
	p.Name = p.segment()
	if p.Keep.IsZero() || p.Lock != storage.LockNone {
		return nil, nil
	}
	l, err := newLifecycle(ctx, LifecycleOptions{Bucket: k.bucket, Policies: []Policy{p}})
	switch {
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, storage.ErrPermission):
		return nil, nil
	case errors.Is(err, storage.ErrUnavailable), errors.Is(err, storage.ErrCredentials), errors.Is(err, storage.ErrBucketNotExist),
		context.Cause(ctx) != nil:
		return nil, fmt.Errorf("read the bucket's lifecycle rules: %w", err)
	case err != nil:
		return nil, &oddRulesError{err}
	}
	locked := k.bucket.Capabilities().DefaultRetention.From(now).Until
	var found []standingRule
	for _, r := range l.doc.Rules {
		if r.Disabled || !l.reaches(r.Filter, p, l.doc.Prefix+below, true) {
			continue
		}
		_, own := l.own(r)
		c := clocks{created: now, custom: k.customTime(now)}
		if own { // somebody else's rule for hidden versions is the plan's to warn about
			c.hidden = now
		}
		for _, a := range r.Actions {
			at, ok := c.deletes(a)
			if !ok {
				continue
			}
			if at.Before(locked) {
				at = locked
			}
			s := standingRule{LifecycleRule: r, own: own, at: at}
			fromStart := countsFromStart(a)
			if at.Before(leastEnd(p, now, fromStart)) {
				return nil, s.refusal(a, p)
			}
			if fromStart {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

// countsFromStart: the end of the run moves nothing about when it deletes.
func countsFromStart(a storage.LifecycleAction) bool {
	return a.Kind == storage.LifecycleExpire && (!a.Date.IsZero() || a.Clock == storage.LifecycleSinceCreation)
}

// leastEnd is when a rule may delete at the earliest what a run keeps that
// begins now. What counts from the run's start leaves a day for the run and one
// for clocks; how long the run took is looked at when it has ended.
func leastEnd(p Policy, now time.Time, fromStart bool) time.Time {
	if fromStart {
		return p.Keep.After(now).AddDate(0, 0, lockDays)
	}
	return p.Keep.After(now.Truncate(time.Second))
}

func (s standingRule) refusal(a storage.LifecycleAction, p Policy) error {
	const format = "%w: rule %s of the bucket (%s) would delete archives of policy %s from %s on, before their keep of %s is over; %s"
	cure := "change that rule, archive to a prefix that it does not match, or lock the archive"
	if s.own {
		cure = "run `pgstow lifecycle apply`, which makes the rule fit the policy, and then archive"
	}
	return fmt.Errorf(format, ErrRefused, nameRule(s.LifecycleRule), describeFilter(s.Filter)+": "+describeAction(a), p.Name, s.at.UTC().Format(time.DateOnly), p.Keep, cure)
}
