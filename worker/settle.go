package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"propeller/apnsconn"
)

// Retry bounds how a job is tried again.
type Retry struct {
	Min         time.Duration // pause after the first answer that APNs is unavailable
	Max         time.Duration // longest pause
	GiveUpAfter time.Duration // a job older than this is buried instead
}

// verdict is what happens to the job.
type verdict int

const (
	remove verdict = iota // deleted: finished for good
	bury                  // set aside with the reason, for a person
	again                 // back to the queue at once
	later                 // back to the queue, with a pause that grows with each try
)

// policy is the whole settle policy: what happens to a job whose push ended in
// each class. apnsconn classifies, this table decides.
var policy = [...]struct {
	verdict   verdict
	first     time.Duration // later: the first pause, if Retry.Min is not shorter; 0 = Retry.Min
	duplicate bool          // the next try may reach a device that already has this push
}{
	apnsconn.Delivered:   {verdict: remove},
	apnsconn.Token:       {verdict: remove}, // the log line is the record
	apnsconn.Rejected:    {verdict: bury},
	apnsconn.Throttled:   {verdict: later, first: 5 * time.Second}, // one device's limit, not an outage
	apnsconn.Unavailable: {verdict: later},                         // Retry.Min is made for this
	apnsconn.Credential:  {verdict: again},                         // the breaker keeps the app's workers from taking it
	apnsconn.NotSent:     {verdict: again},                         // see refusedAlone for the exception
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

// pause is how long a job that has been tried attempt times stays away:
// exponential with jitter from first to r.Max, and not less than APNs asked for.
func (r Retry) pause(attempt int, first, asked time.Duration) time.Duration {
	d := r.Min
	if first > 0 {
		d = min(d, first)
	}
	for range attempt - 1 {
		if d *= 2; d >= r.Max {
			break
		}
	}
	return min(max(jitter(d), asked), r.Max)
}

// why is the reason a job is buried with, for the operator.
func why(o apnsconn.Outcome) string {
	reason := o.Reason
	switch {
	case reason == "" && o.Err != nil:
		reason = o.Err.Error()
	case reason == "":
		reason = "(no reason given)"
	case o.Err != nil:
		reason += ": " + o.Err.Error()
	}
	if o.Status != 0 {
		return fmt.Sprintf("%d %s", o.Status, reason)
	}
	return fmt.Sprintf("%s: %s", o.Class, reason)
}

// finish is a settler's work on one push: settle its job, or send it after all.
// It returns false if the settler is no longer one (see linger).
func (p *push) finish() (stays bool) {
	goesOn := false
	defer func() {
		if v := recover(); v != nil {
			p.panicked(v)
			p.setAside()
		}
		if goesOn {
			stays = true
			return
		}
		if p.probe {
			p.r.w.cfg.Breaker.pass(p.r) // of no effect after a verdict
		}
		stays = p.letGo()
	}()
	switch p.stage {
	case stageOutcome:
		p.byOutcome()
	case stageAge:
		goesOn = p.checkAge()
	case stageUnfit:
		p.setAside()
	case stageExpired:
		p.expired()
	case stageBack:
		p.giveBack(0)
	}
	return false // the deferred function decides
}

// checkAge sends a push with a ttl, unless its job is too old. It reports
// whether the push is on its way.
func (p *push) checkAge() bool {
	stat, err := p.job.Stat(p.r.settling)
	switch {
	case err != nil: // the reservation or the queue has gone: the job comes again
		p.giveBack(0)
	case stat.Age >= p.decoded.TTL:
		p.expired()
	default:
		p.handed.Store(false)
		p.send()
		return true
	}
	return false
}

// byOutcome settles a push that has ended, by the policy table.
func (p *push) byOutcome() {
	o := &p.outcome
	c := p.r.w.cfg.Counters
	further := o.Class == apnsconn.Credential && p.reachesFurther()
	if further {
		// That job's fault, for which the app's other pushes shall not stop.
		o.Class = apnsconn.Rejected
	}
	c.count(o.Class)
	p.tellLink(further)
	rule := policy[o.Class]
	if p.refusedAlone() {
		p.retry(refusedPause)
		return
	}
	switch rule.verdict {
	case remove:
		p.log(0)
		p.remove()
	case bury:
		p.err = errors.New(why(*o))
		p.setAside()
	case again:
		p.log(0)
		p.giveBack(0)
	case later:
		first := rule.first
		if o.Reconnect() {
			first = reconnectPause
		}
		p.retry(first)
	}
}

// reachesFurther says that the push asked more of the credential than the app's
// ordinary ones do: the topic of another push type (say .voip), or a capability
// that the app does not have. Such answers are 400, or name the topic; what else
// is wrong with a credential concerns all pushes.
func (p *push) reachesFurther() bool {
	n, o := &p.decoded.Notification, &p.outcome
	further := n.Topic != p.r.w.cfg.Topic
	return (further || n.ChannelID != "") && o.Status == http.StatusBadRequest ||
		further && o.Reason == "TopicMismatch"
}

// refusedAlone says that a push came back unsent from a connection that goes on.
func (p *push) refusedAlone() bool {
	return p.outcome.Class == apnsconn.NotSent && p.conn != nil && p.conn.Usable()
}

// tellLink passes on what the outcome says of the connection and the credential.
// further: it concerns more than the app's ordinary pushes need.
func (p *push) tellLink(further bool) {
	o := &p.outcome
	if o.Class == apnsconn.Credential {
		p.r.refused(why(*o))
		return
	}
	switch {
	case o.Status != 0:
		p.r.bounced.Store(0)
	case o.Class == apnsconn.NotSent && p.conn != nil:
		p.r.bounced.Add(1)
	}
	if o.Status != 0 && o.Status < 500 && !o.Reconnect() {
		p.r.link.good()
	}
	if !p.probe {
		return
	}
	if o.Status != 0 && !further {
		if p.r.w.cfg.Breaker.heal() {
			p.r.log.Info("apns accepts the credential again: app works")
		}
		return
	}
	p.r.w.cfg.Breaker.told(p.r, time.Now())
}

// retry gives the job back with a pause that grows with its attempts, or buries
// it when it is older than Retry.GiveUpAfter.
func (p *push) retry(first time.Duration) {
	limits := p.r.w.cfg.Retry
	stat, err := p.job.Stat(p.r.settling)
	if err != nil {
		stat.Attempt = 1 // only the pause depends on it
	}
	pause := limits.pause(stat.Attempt, first, p.outcome.RetryAfter)
	switch {
	case err == nil && stat.Age >= limits.GiveUpAfter:
		p.err = fmt.Errorf("gave up after %s and %d tries: %s", stat.Age, stat.Attempt, why(p.outcome))
	case p.decoded.Expired(time.Now().Add(pause)):
		p.err = fmt.Errorf("expires before it can be tried again, after %d tries: %s", stat.Attempt, why(p.outcome))
	}
	if p.err != nil {
		p.setAside()
		return
	}
	if policy[p.outcome.Class].duplicate {
		p.r.w.cfg.Counters.PossibleDuplicates.Add(1)
	}
	p.log(stat.Attempt)
	p.giveBack(pause)
}

// remove deletes the job. If that fails after a delivery, the device may get
// the push once more.
func (p *push) remove() {
	defer p.linger().Stop()
	p.r.w.finished.Add(1)
	err := p.job.Done(p.r.settling)
	if err == nil {
		return
	}
	if p.outcome.Class == apnsconn.Delivered {
		p.r.w.cfg.Counters.PossibleDuplicates.Add(1)
	}
	p.r.log.Warn("job finished but not deleted: it may be pushed again", "job", p.job.ID(), "err", err)
}

// expired drops a job that is too late; the log line is its record.
func (p *push) expired() {
	p.r.w.cfg.Counters.Expired.Add(1)
	p.line(slog.LevelWarn, "expired, not sent", "class", "expired")
	p.remove()
}

// setAside buries the job with p.err as the reason.
func (p *push) setAside() {
	p.r.w.finished.Add(1)
	p.r.w.cfg.Counters.Buried.Add(1)
	attrs := []any{"class", apnsconn.Rejected.String(), "reason", p.err}
	if p.outcome.Class != 0 {
		attrs = append(p.attrs(0), "why", p.err)
	}
	p.line(slog.LevelWarn, "job buried", attrs...)
	defer p.linger().Stop()
	if err := p.job.Bury(p.r.settling, p.err.Error()); err != nil {
		p.r.log.Warn("job not buried: it will be tried again", "job", p.job.ID(), "err", err)
	}
}

// giveBack returns the job to the queue. If that fails the queue takes it back
// by itself when the connection ends or the reservation runs out.
func (p *push) giveBack(after time.Duration) {
	if p.outcome.Status != 0 {
		p.r.w.finished.Add(1)
	}
	if err := p.job.Retry(p.r.settling, after); err != nil {
		p.r.log.Debug("job not released; the queue returns it later", "job", p.job.ID(), "err", err)
	}
}

// lingerAfter is how long a settle call may take before it no longer holds
// others up. Ordinarily it takes less than a millisecond; it waits for a queue
// server that is away.
const lingerAfter = time.Second

// linger lets go of the push's slot and of its settler's place when the settle
// call that follows takes long: of several queue servers one may be away, and
// its jobs, which wait for it, must not stand in the way of the others'. The
// calls that linger are no more than were in flight when the server went.
func (p *push) linger() *time.Timer {
	return time.AfterFunc(lingerAfter, func() {
		p.release.Lock()
		defer p.release.Unlock()
		if p.released {
			return
		}
		p.released = true
		r := p.r
		r.lingering.Add(1)
		r.held.Add(-1)
		r.active.Add(-1)
		if len(r.ended) > 0 {
			r.startSettler()
		}
		r.wake()
	})
}

// letGo gives the push's slot back at its end, and reports whether its settler
// still is one.
func (p *push) letGo() bool {
	p.release.Lock()
	defer p.release.Unlock()
	defer p.r.wake()
	if p.released {
		p.r.lingering.Add(-1)
		return false
	}
	p.released = true
	p.r.held.Add(-1)
	return true
}
