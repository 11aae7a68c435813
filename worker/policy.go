package worker

import (
	"fmt"
	"math"
	"time"

	"propeller/apnsconn"
)

// Retry bounds how a job is tried again.
type Retry struct {
	Min         time.Duration // pause after the first answer that APNs is unavailable
	Max         time.Duration // longest pause
	GiveUpAfter time.Duration // a job older than this is buried instead
}

// verdict is what happens to a push that has ended.
type verdict int

const (
	finished verdict = iota // nothing more
	dead                    // a record that the token must not be used again
	bury                    // its job is set aside with the reason, for a person
	again                   // back to the queue at once
	later                   // back to the queue, with a pause that grows with each try
)

// policy is the whole settle policy: what happens to a push that ended in each
// class. apnsconn classifies, this table decides.
//
// What Apple forbids to repeat (handling-notification-responses-from-apns:
// BadDeviceToken, DeviceTokenNotForTopic, Forbidden, ExpiredToken, Unregistered,
// PayloadTooLarge) is Token or Rejected. Exceptions, all in push.go: refusedAlone
// and Reconnect for shorter pauses, suspect and outdated for what may be no
// verdict on the token after all.
var policy = [...]struct {
	verdict   verdict
	first     time.Duration // later: the first pause, if Retry.Min is not shorter; 0 = Retry.Min
	duplicate bool          // the next try may reach a device that already has this push
}{
	apnsconn.Delivered:   {verdict: finished},
	apnsconn.Token:       {verdict: dead},
	apnsconn.Rejected:    {verdict: bury},
	apnsconn.Throttled:   {verdict: later, first: 5 * time.Second}, // one device's limit, not an outage
	apnsconn.Unavailable: {verdict: later},                         // Retry.Min is made for this
	apnsconn.Credential:  {verdict: again},                         // the breaker keeps the app's workers from taking it
	apnsconn.NotSent:     {verdict: again},                         // but see refusedAlone
	apnsconn.Unknown:     {verdict: later, first: time.Second, duplicate: true},
}

// refusedPause is the first pause of a push that was refused alone (a stream
// refused with REFUSED_STREAM) on a connection that goes on. At once it would
// only be refused again, at full speed, and before all other jobs of the tube.
const refusedPause = time.Second

// reconnectPause is the first pause after an answer that says that the
// connection was at fault, and not APNs (apnsconn.Outcome.Reconnect): a new
// connection is a second away.
const reconnectPause = time.Second

// Bounds of the pause of a push whose token the guard doubts. Within them it
// stays away for as long as the doubt has lasted, see Guard.doubtLasts: whoever
// mends the app's settings after a minute waits a minute or two, and none waits
// longer than the trouble was. Stale tokens that come back so leave probes to
// the jobs behind them: after an hour sixty have been tried, one a minute, and
// stay away for another.
const (
	// DoubtMin is the shortest. Even 20 % shorter it is longer than an answer is
	// held by the guard, so that the push of a list that was given back before
	// (doubtTime) finds its token dead or not.
	DoubtMin = 90 * time.Second
	// doubtMax is above what guardWindow/2+1 probes take, the tokens that stop an
	// app: those never keep a job behind them from its turn.
	doubtMax = 2 * time.Hour
)

// pause is how long a job that has been tried attempt times stays away:
// exponential with jitter from first to r.Max, and not less than APNs asked for.
func (r Retry) pause(attempt int, first, asked time.Duration) time.Duration {
	d := r.Min
	if first > 0 {
		d = min(d, first)
	}
	return min(max(jitter(doubled(d, r.Max, attempt)), asked), r.Max)
}

// doubled is d, doubled with each attempt after the first up to longest.
func doubled(d, longest time.Duration, attempt int) time.Duration {
	for range attempt - 1 {
		if d >= longest {
			break
		}
		d *= 2
	}
	return min(d, longest)
}

// nextPause is how long a push that is tried later stays away. One in doubt
// comes for the last time when it is to be given up, or so long before it
// expires that a paused app, which tries one job each ProbeEvery, can try it.
func (p *push) nextPause(attempt int, age time.Duration) time.Duration {
	cfg := p.t.r.cfg
	switch {
	case p.pause > 0:
		return p.pause
	case p.doubted:
		pause := jitter(min(max(cfg.Guard.doubtLasts(time.Now()), DoubtMin), doubtMax))
		pause = min(pause, doubtMax, max(cfg.Retry.GiveUpAfter-age, time.Second))
		if left := p.t.lifeLeft(age); left > ProbeEvery {
			pause = min(pause, left-ProbeEvery)
		}
		return pause
	}
	return cfg.Retry.pause(attempt, p.first, p.outcome.RetryAfter)
}

// noLater says why the push is not tried again; nil if it is.
func (t *task) noLater(p *push, attempt int, age time.Duration) error {
	cfg := t.r.cfg
	reason := why(p.outcome)
	if p.doubted {
		reason += ", and no answer showed that environment and topic are right"
	}
	switch {
	case age >= cfg.Retry.GiveUpAfter:
		return fmt.Errorf("gave up after %s and %d tries: %s", age.Round(time.Second), attempt, reason)
	case t.lifeLeft(age) <= p.pause:
		return fmt.Errorf("expires before it can be tried again, after %d tries: %s", attempt, reason)
	}
	return nil
}

// lifeLeft is how long a job of that age may still be tried, by its ttl, its
// expiration and the app's default; without them for ever.
func (t *task) lifeLeft(age time.Duration) time.Duration {
	left := time.Duration(math.MaxInt64)
	if ttl := t.decoded.TTL; ttl > 0 {
		left = ttl - age
	}
	if t.defaultExpiration { // the push's counts from each try; the job's life does not
		left = min(left, t.r.cfg.Expiration-age)
	}
	at := t.decoded.Notification.Expiration
	if at == nil || *at == 0 {
		return left
	}
	now := t.r.cfg.Wall()
	if soon := now.Add(left).Unix(); *at > soon { // of a time that no Duration reaches
		return left
	}
	return min(left, time.Unix(*at, 0).Sub(now))
}
