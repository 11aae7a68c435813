package worker

import (
	"net/http"
	"time"

	"propeller/apnsconn"
)

// known reports whether the push need not be sent, because its outcome is known already.
func (p *push) known(now time.Time) bool {
	if p.remembered {
		return true
	}
	v := p.t.r.app.tokens.look(p.n.Topic, p.n.Token, now)
	switch {
	case v.dead && !p.t.decoded.TokenSince.After(v.at):
		p.outcome = apnsconn.Outcome{Class: apnsconn.Token, Status: v.status, Reason: v.reason, Since: v.since}
		p.action = dead
	case v.wait > 0:
		p.outcome = apnsconn.Outcome{Class: apnsconn.Throttled, Reason: "too many pushes to this device lately"}
		p.action, p.delay = later, v.wait
	default:
		return false
	}
	p.remembered = true
	p.over.Store(true)
	return true
}

// ended handles a push whose outcome is known, and decides what happens to it unless its
// answer has to wait for the guard.
func (r *run) ended(p *push, now time.Time) {
	t := p.t
	p.freeSlot()
	t.open--
	defer t.recoverPanic()
	if p.remembered {
		r.over(p)
		return
	}
	if p.outcome.Status != 0 {
		r.app.Counters.Seconds.observe(p.took)
	}
	r.tellConn(p, now)
	r.tellBreaker(p, now)
	switch evidenceOf(&p.n, &p.outcome) {
	case rightEvidence:
		r.app.guard.noteRight()
	case wrongEvidence:
		r.askAbout(p, now)
		return
	}
	r.decide(p)
}

// askAbout asks the guard about an answer that calls the token wrong. While the answer is
// pending the push uses no slot, but its job stays reserved.
func (r *run) askAbout(p *push, now time.Time) {
	switch {
	case r.ending:
		r.rule(p, isLeft)
		return
	case r.app.breaker.State().Guarded:
		r.rule(p, isDoubted)
		return
	}
	s, ruling, why := r.app.guard.noteWrong(p.n.Token, p.outcome.Reason, now)
	if why != "" {
		r.suspected(why)
	}
	if ruling != isOpen {
		r.rule(p, ruling)
		return
	}
	r.pending = append(r.pending, pendingAnswer{s, p, p.n.Topic, p.n.Token, p.outcome})
	r.undecided++
	p.t.open++
	p.t.pending++
	r.noteDoubts(p.t, now)
}

// rule applies the guard's ruling.
func (r *run) rule(p *push, word ruling) {
	switch word {
	case isDead:
		r.decide(p)
		return
	case isDoubted:
		p.action, p.doubted = later, true
	case isLeft:
		p.action, p.doubted = again, true
	}
	r.over(p)
}

// doubtTime is how long a list waits for the guard once only pending answers are left. In an
// app at work another answer ends the doubt at once. Otherwise the job would stay reserved
// with perhaps hundreds of delivered pushes, all of which would be repeated if the
// reservation were lost. So the doubted tokens go on in a job of their own, which comes
// once the guard has decided.
const doubtTime = 5 * time.Second

// noteDoubts notes since when only pending answers keep a job from being settled.
func (r *run) noteDoubts(t *task, now time.Time) {
	all := t.pending > 0 && t.open == t.pending && (len(t.unsent) == 0 || t.late) && t.delivered+len(t.failed) > 0
	switch {
	case !all:
		t.allDoubts = time.Time{}
	case t.allDoubts.IsZero():
		t.allDoubts = now
	}
}

// pendingAnswer is a push whose answer waits for the guard. After doubtTime the push goes back
// and the answer stays without it: if the token turns out dead, that is remembered, and the
// next try reports it without another push.
type pendingAnswer struct {
	wrongAnswer
	p            *push // nil after it went back
	topic, token string
	outcome      apnsconn.Outcome
}

// askGuard applies the guard's rulings on the pending answers.
func (r *run) askGuard(now time.Time) {
	held := r.pending
	r.pending = r.pending[:0]
	for _, s := range held {
		word := r.app.guard.rule(s.wrongAnswer, now)
		switch {
		case word != isOpen:
		case r.ending:
			word = isLeft
		default:
			if s.p != nil && s.p.doubtOver(now) {
				r.settlePending(s.p, isDoubted)
				s.p = nil
			}
			r.pending = append(r.pending, s)
			continue
		}
		r.app.guard.release()
		switch {
		case s.p != nil:
			r.settlePending(s.p, word)
		case word == isDead:
			learnDead(r.app.tokens, s.topic, s.token, &s.outcome)
		}
	}
	clear(held[len(r.pending):])
}

// settlePending returns a push to its task, with the guard's ruling.
func (r *run) settlePending(p *push, word ruling) {
	t := p.t
	t.open--
	t.pending--
	r.undecided--
	defer t.recoverPanic()
	r.rule(p, word)
}

func (p *push) doubtOver(now time.Time) bool {
	since := p.t.allDoubts
	return !since.IsZero() && now.Sub(since) >= doubtTime
}

// guardDue is the next time at which a pending answer has waited long enough.
func (r *run) guardDue() (at time.Time) {
	for _, s := range r.pending {
		at = sooner(at, s.since.Add(pendingTime))
		if s.p == nil {
			continue
		}
		if since := s.p.t.allDoubts; !since.IsZero() {
			at = sooner(at, since.Add(doubtTime))
		}
	}
	return at
}

// decide sets the action from the policy table.
func (r *run) decide(p *push) {
	o := &p.outcome
	if p.outdated() {
		o.Class = apnsconn.Unavailable
	}
	rule := policy[o.Class]
	p.action, p.first = rule.action, rule.first
	switch {
	case p.refusedAlone:
		p.action, p.first = later, refusedDelay
	case o.Reconnect():
		p.first = reconnectDelay
	}
	p.learn()
	r.over(p)
}

// over adds a push with an action to its task.
func (r *run) over(p *push) {
	t, o := p.t, &p.outcome
	if o.Status != 0 && !p.remembered && t.list() {
		r.w.finished.Add(1)
	}
	if !p.remembered && !p.doubted {
		r.app.Counters.count(o.Class, o.Reason)
	}
	switch {
	case p.action == finished:
		t.finish(p)
	case o.Class == apnsconn.NotSent && p.action == again && t.err == nil && !r.ending && !t.finishing:
		r.unsent(p)
	default:
		t.failed = append(t.failed, p)
	}
	r.noteDoubts(t, time.Now())
	r.maySettle(t)
}

// unsent makes a push that was certainly not sent an unsent token again: it is sent again
// from here, without going back to the queue.
func (r *run) unsent(p *push) {
	t := p.t
	e := p.event(Resent)
	r.emit(t, &e)
	if !t.queued {
		r.wait(t)
	}
	t.unsent = append(t.unsent, p.n.Token)
}

// outdated reports whether APNs calls the token dead since a time before the app registered
// it. Such an answer is out of date (Apple: handling-notification-responses-from-apns, on
// timestamp).
func (p *push) outdated() bool {
	o := &p.outcome
	return o.Class == apnsconn.Token && !o.Since.IsZero() && p.t.decoded.TokenSince.After(o.Since)
}

// learn remembers what the outcome says about the token. DeviceTokenNotForTopic says as
// much about the topic, so it is not remembered.
func (p *push) learn() {
	m, n, o := p.t.r.app.tokens, &p.n, &p.outcome
	switch {
	case o.Class == apnsconn.Delivered:
		m.delivered(n.Topic, n.Token)
	case o.Class == apnsconn.Token:
		learnDead(m, n.Topic, n.Token, o)
	case o.Class == apnsconn.Throttled:
		m.throttle(n.Topic, n.Token, time.Now().Add(max(p.first, o.RetryAfter)))
	}
}

func learnDead(m *tokenCache, topic, token string, o *apnsconn.Outcome) {
	if o.Status == http.StatusGone || o.Reason == "BadDeviceToken" {
		m.setDead(topic, token, o.Reason, o.Status, o.Since)
	}
}

// wrongType reports whether the token is not for the topic of the push's type (.voip, say).
// That is the job's fault: the token may be good for the app's own topic.
func (p *push) wrongType() bool {
	return p.outcome.Reason == "DeviceTokenNotForTopic" && p.n.Topic != p.t.r.cfg.Topic
}

// reachesFurther reports whether the push asked more of the credential than the app's
// ordinary pushes do: the topic of another push type (.voip, say), or a capability that the
// app lacks. APNs answers such pushes with 400 or names the topic; any other fault of a
// credential concerns all pushes.
func (p *push) reachesFurther() bool {
	o := &p.outcome
	further := p.n.Topic != p.t.r.cfg.Topic
	return (further || p.n.ChannelID != "") && o.Status == http.StatusBadRequest ||
		further && o.Reason == "TopicMismatch"
}

// tellBreaker tells the breaker what the outcome shows about the credential and, if the push
// is a probe, about the app. If only this job is at fault, its class becomes Rejected, so
// that the app's other pushes go on.
func (r *run) tellBreaker(p *push, now time.Time) {
	o := &p.outcome
	further := false
	switch {
	case o.Class == apnsconn.Credential && p.reachesFurther():
		o.Class, further = apnsconn.Rejected, true
		r.cfg.Rules.Refused(&p.n, now)
	case o.Class == apnsconn.Credential:
		r.refused(outcomeText(*o))
		return
	case p.wrongType():
		o.Class = apnsconn.Rejected
	}
	if p.probe == 0 {
		return
	}
	b := &r.app.breaker
	state := b.State()
	healed := accepted(o) && !further
	if state.Guarded {
		healed = evidenceOf(&p.n, o) == rightEvidence && !further
	}
	switch {
	case !healed:
		b.told(p.probe, now)
	case !b.heal():
	case state.Guarded:
		r.log.Info("apns takes the app's device tokens again: app works")
	default:
		r.log.Info("apns accepts the credential again: app works")
	}
}

// accepted reports whether APNs looked at the push itself and so had accepted the
// credential: it answered 200, or about the token, or about the request. It may answer 429
// and 5xx before that, and 403 is about the credential.
func accepted(o *apnsconn.Outcome) bool {
	switch o.Class {
	case apnsconn.Delivered, apnsconn.Token:
		return true
	case apnsconn.Rejected:
		return o.Status == http.StatusBadRequest || o.Status == http.StatusRequestEntityTooLarge
	}
	return false
}
