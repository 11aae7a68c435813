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
	apnsconn.NotSent:     {verdict: again},                         // the pause between dials holds the worker back
	apnsconn.Unknown:     {verdict: later, first: time.Second, duplicate: true},
}

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
func (p *push) finish() {
	goesOn := false
	defer func() {
		if v := recover(); v != nil {
			p.panicked(v)
			p.setAside()
		}
		if !goesOn {
			if p.probe && p.stage != stageOutcome {
				p.r.w.cfg.Breaker.pass(p.r)
			}
			p.r.held.Add(-1)
			p.r.wake()
		}
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
	if o.Class == apnsconn.Credential && p.reachesFurther() {
		// That job's fault, for which the app's other pushes shall not stop.
		o.Class = apnsconn.Rejected
	}
	c.count(o.Class)
	p.tellLink()
	rule := policy[o.Class]
	if rule.duplicate {
		c.PossibleDuplicates.Add(1)
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

// tellLink passes on what the outcome says of the connection and the credential.
func (p *push) tellLink() {
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
	if o.Status != 0 {
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
	if err == nil && stat.Age >= limits.GiveUpAfter {
		p.err = fmt.Errorf("gave up after %s and %d tries: %s", stat.Age, stat.Attempt, why(p.outcome))
		p.setAside()
		return
	}
	p.log(stat.Attempt)
	p.giveBack(limits.pause(stat.Attempt, first, p.outcome.RetryAfter))
}

// remove deletes the job. If that fails after a delivery, the device may get
// the push once more.
func (p *push) remove() {
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
	p.r.w.cfg.Counters.Buried.Add(1)
	attrs := []any{"why", p.err}
	if p.outcome.Class != 0 {
		attrs = append(attrs, p.attrs(0)...)
	}
	p.line(slog.LevelWarn, "job buried", attrs...)
	if err := p.job.Bury(p.r.settling, p.err.Error()); err != nil {
		p.r.log.Warn("job not buried: it will be tried again", "job", p.job.ID(), "err", err)
	}
}

// giveBack returns the job to the queue. If that fails the queue takes it back
// by itself when the connection ends or the reservation runs out.
func (p *push) giveBack(after time.Duration) {
	if err := p.job.Retry(p.r.settling, after); err != nil {
		p.r.log.Debug("job not released; the queue returns it later", "job", p.job.ID(), "err", err)
	}
}
