package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// policyAction is what happens to a push that has ended.
type policyAction int

const (
	finished policyAction = iota // done
	dead                         // a record says that the token must not be used again
	bury                         // its job is buried with the reason, for an operator
	again                        // back to the queue at once
	later                        // back to the queue, with a delay that doubles with each try
)

// policy is the table of what happens to a push that ended in each class: apnsconn
// classifies, this table decides.
//
// Token and Rejected are what Apple forbids to repeat (BadDeviceToken,
// DeviceTokenNotForTopic, Forbidden, ExpiredToken, Unregistered, PayloadTooLarge; see
// handling-notification-responses-from-apns). ended.go makes the exceptions: shorter delays
// for refusedAlone and Reconnect, and tokens that may not be dead after all (the guard,
// outdated).
var policy = [...]struct {
	action    policyAction
	first     time.Duration // for later: the first delay, unless Retry.Min is shorter; 0 = Retry.Min
	duplicate bool          // the next try may reach a device that already has this push
}{
	apnsconn.Delivered:   {action: finished},
	apnsconn.Token:       {action: dead},
	apnsconn.Rejected:    {action: bury},
	apnsconn.Throttled:   {action: later, first: 5 * time.Second}, // one device's limit, not an outage
	apnsconn.Unavailable: {action: later},                         // Retry.Min is made for this
	apnsconn.Credential:  {action: again},                         // the breaker keeps the app's workers from receiving it again
	apnsconn.NotSent:     {action: again},                         // but see refusedAlone
	apnsconn.Unknown:     {action: later, first: time.Second, duplicate: true},
}

// outcomeText says in words how a push ended: the reason with which its job is buried.
func outcomeText(o apnsconn.Outcome) string {
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

// tally groups a job's pushes that were not delivered by what happens to them.
type tally struct {
	dead, bury, again, later []*push

	unsent []string // tokens without a push; treated like again
	late   []string // tokens that expired unsent
}

// remaining is how many tokens are pushed in a later try.
func (s *tally) remaining() int { return len(s.again) + len(s.later) + len(s.unsent) }

func (t *task) tally() *tally {
	s := new(tally)
	if t.late {
		s.late = t.unsent
	} else {
		s.unsent = t.unsent
	}
	for _, p := range t.failed {
		switch p.action {
		case dead:
			s.dead = append(s.dead, p)
		case bury:
			s.bury = append(s.bury, p)
		case again:
			s.again = append(s.again, p)
		case later:
			s.later = append(s.later, p)
		}
	}
	return s
}

// work settles a task, in a settler. A panic there buries its job.
func (t *task) work() {
	defer func() {
		if v := recover(); v != nil {
			t.panicked(v)
			t.notes = nil
			if t.stage == stageAge {
				return // resume handles it
			}
			t.setAsideAtLast()
		}
	}()
	switch t.stage {
	case stageAge:
		t.next = t.checkAge()
	case stagePushed:
		t.settlePushed()
	case stageUnfit, stageRefused:
		t.setAside(nil)
	case stageExpired:
		t.expired()
	case stageUnread:
		t.release(0)
	case stageRelease:
		delay := time.Duration(0)
		if t.statErr != nil {
			delay = storeMin // not at full speed while the queue does not answer
		}
		t.note(t.untried(t.addressed()))
		t.release(delay)
	}
}

// setAsideAtLast is setAside after a panic. If it panics too, the job stays reserved, and
// the queue takes it back when the consumer ends.
func (t *task) setAsideAtLast() {
	defer func() {
		if v := recover(); v != nil {
			t.panicked(v)
		}
	}()
	t.setAside(nil)
}

// settlePushed settles a job whose pushes have ended.
func (t *task) settlePushed() {
	if len(t.failed) == 0 && len(t.unsent) == 0 && len(t.decoded.Malformed) == 0 {
		t.remove(t.delivered)
		return
	}
	s := t.tally()
	if len(s.late) == t.addressed() {
		t.expired()
		return
	}
	t.postpone(s)
	if !t.reportEnded(s) {
		s.again = append(append(s.again, s.dead...), s.bury...)
		t.notes = nil
		t.noteRetried(s)
		t.releaseWhole(s, t.delivered, errUnreported)
		return
	}
	for _, p := range s.dead {
		t.notePush(p, Deleted)
	}
	if len(s.late) > 0 {
		t.r.app.Counters.Expired.Add(1)
		t.line(slog.LevelWarn, "expired before all its tokens were sent", "class", classExpired, "unsent", len(s.late), "tokens", t.addressed())
		t.note(t.neverSent(Expired, len(s.late), t.whyExpired()))
	}
	parts := t.remainders(s)
	switch {
	case len(s.bury) == t.addressed():
		t.setAside(s.bury)
	case len(parts) == 0:
		t.remove(t.delivered)
	case len(parts) == 1 && s.remaining() == t.addressed() && len(t.decoded.Malformed) == 0:
		t.noteRetried(s)
		t.release(parts[0].after)
	default:
		a := Retried
		if t.putRemainders(s, parts) {
			a = Buried // through the remainder that was put
		}
		t.noteRetried(s)
		for _, p := range s.bury {
			t.notePush(p, a)
		}
	}
}

// noteRetried reports the tokens that come again.
func (t *task) noteRetried(s *tally) {
	if len(s.unsent) > 0 {
		t.note(t.untried(len(s.unsent)))
	}
	if len(s.later) > 0 {
		t.attempt, _, _ = t.history()
		t.put = time.Now().Add(-t.age())
	}
	for _, ended := range [...][]*push{s.again, s.later} {
		for _, p := range ended {
			t.notePush(p, Retried)
		}
	}
}

// neverSent returns the event of tokens without a push.
func (t *task) neverSent(a Action, n int, reason string) Event {
	return Event{
		At: time.Now(), Token: shortToken(&t.decoded.Notification), Action: a,
		Class: apnsconn.Rejected, Reason: reason, N: n,
	}
}

// untried returns the event of tokens that go back to the queue untried.
func (t *task) untried(n int) Event {
	e := t.neverSent(Retried, n, "")
	e.Class = apnsconn.NotSent
	return e
}

// history says which try this is for the job's tokens, 1 for the first, and how long ago
// they were put. It asks the queue once. The error is the queue's; the numbers are then
// lower bounds.
func (t *task) history() (attempt int, age time.Duration, err error) {
	if !t.asked {
		t.stat, t.statErr = t.job.Stat(t.r.settlers.ctx)
		t.asked = true
	}
	attempt, age = max(1, t.stat.Attempt), t.stat.Age
	if o := t.decoded.Parent; o != nil {
		if o.Reason == "" { // after a kick the count starts again
			attempt += o.Attempt
		}
		age = max(age, t.r.cfg.Wall().Sub(o.Put))
	}
	return attempt, age, t.statErr
}

func (t *task) age() time.Duration {
	_, age, _ := t.history()
	return age
}

// postpone sets the delay of each push that is to be tried later. Pushes without another
// try are buried instead.
func (t *task) postpone(s *tally) {
	if len(s.later) == 0 {
		return
	}
	attempt, age, _ := t.history()
	tried := s.later
	s.later = nil
	for _, p := range tried {
		p.delay = p.nextDelay(attempt, age)
		if p.err = t.noLater(p, attempt, age); p.err != nil {
			p.action = bury
			if p.doubted { // a record of class token would report the token dead
				p.outcome.Class, p.doubted = apnsconn.Rejected, false
				t.r.app.Counters.count(apnsconn.Rejected, p.outcome.Reason)
			}
			s.bury = append(s.bury, p)
			continue
		}
		s.later = append(s.later, p)
		t.countDuplicate(p)
		if p.outcome.Class == apnsconn.Throttled && !p.remembered {
			t.r.app.tokens.throttle(p.n.Topic, p.n.Token, time.Now().Add(p.delay))
		}
	}
}

// countDuplicate counts a push that may reach its device again.
func (t *task) countDuplicate(p *push) {
	if policy[p.outcome.Class].duplicate {
		t.r.app.Counters.PossibleDuplicates.Add(1)
	}
}

// checkAge asks the queue about a job with a ttl, or with pushes that failed before, and
// returns what to do next: stagePushed to send it, unless it is expired, unfit or to be
// buried.
func (t *task) checkAge() stage {
	_, age, err := t.history()
	ttl := t.decoded.TTL
	late := ttl > 0 && age >= ttl
	switch {
	case err != nil && (!late || t.refused()): // the reservation or the queue is gone: the job comes again
		return stageRelease
	case t.refused() && !t.stat.Kicked:
		t.err = nil
		return stageRefused
	case t.err != nil:
		return stageUnfit
	case late, t.decoded.Expired(t.r.cfg.Wall()):
		return stageExpired
	}
	if end := time.Now().Add(ttl - age); ttl > 0 && (t.until.IsZero() || end.Before(t.until)) {
		t.until = end
	}
	return stagePushed
}

// remove deletes the job after so many pushes were delivered or put elsewhere. If that
// fails, they may be repeated. If another worker may have had the job before, they may be repeats.
func (t *task) remove(delivered int) {
	t.r.w.finished.Add(1)
	err := t.job.Done(t.r.settlers.ctx)
	left, ok := t.job.(queue.RepeatReporter)
	switch {
	case err != nil:
		t.lastWord, t.lastErr = "job finished but not deleted: it may be pushed again", err
	case ok && left.Repeats() && delivered > 0:
		t.lastWord = "job may have been finished before: it may have been pushed twice"
	default:
		return
	}
	t.r.app.Counters.PossibleDuplicates.Add(int64(delivered))
}

// expired deletes a job that is too late, after a record for each token.
func (t *task) expired() {
	if !t.reportLate(t.addresses()) || !t.reportMalformed(true) {
		t.release(0)
		return
	}
	t.r.app.Counters.Expired.Add(1)
	reason := t.whyExpired()
	t.note(t.neverSent(Expired, t.addressed(), reason))
	t.line(slog.LevelWarn, "expired, not sent", "class", classExpired, "reason", reason)
	t.remove(0)
}

// whyExpired says why the job expires unsent.
func (t *task) whyExpired() string {
	_, age, err := t.history()
	return t.decoded.WhyExpired(t.r.cfg.Wall(), age, err == nil)
}

// classExpired is the class of a job that expired unsent.
const classExpired = "expired"

// errUnreported: the run or the reservation ended before all records were stored.
var errUnreported = errors.New("cannot store all records")

// releaseWhole releases a whole job of which done tokens are finished. Those may be pushed
// again, and so may those that were to be buried.
func (t *task) releaseWhole(s *tally, done int, why error) {
	for _, p := range s.bury {
		t.countDuplicate(p)
	}
	if done > 0 {
		t.r.app.Counters.PossibleDuplicates.Add(int64(done))
		t.lastWord, t.lastErr = "remaining tokens of a job could not be put into the queue: all of it is pushed again", why
	}
	t.release(0)
}

// release releases the job. If that fails, the queue takes it back when the connection or
// the reservation ends.
func (t *task) release(after time.Duration) {
	if !t.list() && len(t.failed) > 0 && t.failed[0].outcome.Status != 0 && !t.failed[0].remembered {
		t.r.w.finished.Add(1)
	}
	if err := t.job.Retry(t.r.settlers.ctx, after); err != nil {
		t.r.log.Debug("job not released; the queue returns it later", "job", t.id, "err", err)
	}
}
