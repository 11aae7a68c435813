package worker

import (
	"fmt"
	"math"
	"time"

	"propeller/internal/backoff"
)

// Retry bounds how a job is tried again.
type Retry struct {
	Min         time.Duration // delay after the first answer that APNs is unavailable
	Max         time.Duration // longest delay
	GiveUpAfter time.Duration // a job older than this is buried instead
}

// refusedDelay is the first delay of a push whose stream alone was refused (REFUSED_STREAM) on a
// connection that goes on. Without it the push would be refused again at full speed, ahead of all
// other jobs of the tube.
const refusedDelay = time.Second

// reconnectDelay is the first delay after an answer that blames the connection, not APNs
// (apnsconn.Outcome.Reconnect): a new connection takes a second.
const reconnectDelay = time.Second

// Bounds of the delay of a push whose token the guard doubts. Between them the push stays
// away for as long as the doubt has lasted (guard.doubtLasts). So if somebody corrects the
// app's settings after a minute, pushes come back after a minute or two, and none waits
// longer than the trouble lasted. This also leaves probes to the jobs behind stale tokens:
// in an hour sixty of them are tried, one a minute, and then stay away for an hour.
const (
	// DoubtMin is the shortest. Even with 20 % jitter off it is longer than an answer
	// is pending, so that when a list's push comes back (doubtTime) its token is known to be
	// dead or not.
	DoubtMin = 90 * time.Second
	// doubtMax is longer than guardWindow/2+1 probes take, which is how many tokens it takes
	// to guard an app: such tokens never keep the jobs behind them from their turn.
	doubtMax = 2 * time.Hour
)

// delay is how long a job stays away after so many tries: exponential with jitter from
// first to r.Max, and not less than APNs asked for.
func (r Retry) delay(attempt int, first, asked time.Duration) time.Duration {
	d := r.Min
	if first > 0 {
		d = min(d, first)
	}
	return min(max(backoff.Pause(d, r.Max, attempt), asked), r.Max)
}

// nextDelay is how long a push that is tried later stays away. A doubted push comes a last
// time when it is to be given up, or ProbeEvery before it expires, so that a guarded app,
// which tries one job each ProbeEvery, can still try it.
func (p *push) nextDelay(attempt int, age time.Duration) time.Duration {
	cfg := p.t.r.cfg
	switch {
	case p.delay > 0:
		return p.delay
	case p.doubted:
		pause := backoff.Jitter(min(max(p.t.r.app.guard.doubtLasts(time.Now()), DoubtMin), doubtMax))
		pause = min(pause, doubtMax, max(cfg.Retry.GiveUpAfter-age, time.Second))
		if left := p.t.lifeLeft(age); left > ProbeEvery {
			pause = min(pause, left-ProbeEvery)
		}
		return pause
	}
	return cfg.Retry.delay(attempt, p.first, p.outcome.RetryAfter)
}

// tries is a number of tries in words.
func tries(n int) string {
	if n == 1 {
		return "1 try"
	}
	return fmt.Sprint(n, " tries")
}

// noLater says why the push is not tried again; nil if it is.
func (t *task) noLater(p *push, attempt int, age time.Duration) error {
	cfg := t.r.cfg
	reason := outcomeText(p.outcome)
	if p.doubted {
		reason += ", and no answer showed that environment and topic are right"
	}
	switch {
	case age >= cfg.Retry.GiveUpAfter:
		return fmt.Errorf("gave up after %s and %s: %s", age.Round(time.Second), tries(attempt), reason)
	case t.lifeLeft(age) <= p.delay:
		return fmt.Errorf("expires before it can be tried again, after %s: %s", tries(attempt), reason)
	}
	return nil
}

// lifeLeft is how long a job of that age may still be tried, by its ttl, its expiration and
// the app's default; without them forever.
func (t *task) lifeLeft(age time.Duration) time.Duration {
	left := time.Duration(math.MaxInt64)
	if ttl := t.decoded.TTL; ttl > 0 {
		left = ttl - age
	}
	if t.decoded.DefaultExpiration { // a push's expiration counts from each try, but the job's life from its put
		left = min(left, t.r.cfg.Expiration-age)
	}
	at := t.decoded.Notification.Expiration
	if at == nil || *at == 0 {
		return left
	}
	now := t.r.cfg.Wall()
	if soon := now.Add(left).Unix(); *at > soon { // beyond what a Duration can hold
		return left
	}
	return min(left, time.Unix(*at, 0).Sub(now))
}
