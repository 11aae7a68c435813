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
	r.noteDoubts(t)
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
