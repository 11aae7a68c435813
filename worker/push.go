package worker

import (
	"net/http"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
)

// push is one notification on its way to one device or channel.
type push struct {
	t       *task
	n       apnsconn.Notification
	conn    Conn
	began   time.Time // when it was given to conn; zero = it was not
	took    time.Duration
	ended   atomic.Bool // its outcome is known
	outcome apnsconn.Outcome

	probe      int           // as of its task, unless another push of that is the probe
	slot       bool          // it holds one, as a push of a fan-out
	remembered bool          // not sent: the outcome is an earlier one
	doubted    bool          // of class Token, but the guard does not believe it
	judged     bool          // verdict is set
	verdict    verdict       // what is to become of it
	first      time.Duration // of verdict later: the first pause
	err        error         // why it is not tried later, though its class is
	pause      time.Duration // how long it stays away, of verdict later; 0 until settled
}

func (p *push) init(t *task, n apnsconn.Notification) { p.t, p.n, p.probe = t, n, t.probe }

// send gives the push to its connection.
func (p *push) send(now time.Time) {
	p.began = now
	p.conn.Send(&p.n, p.done)
}

// known says that the push need not be sent: what became of it is remembered.
func (p *push) known(now time.Time) bool {
	v := p.t.r.w.cfg.Memory.Look(p.n.Topic, p.n.Token, now)
	switch {
	case v.Dead && !p.t.decoded.TokenSince.After(v.At):
		p.outcome = apnsconn.Outcome{Class: apnsconn.Token, Status: v.Status, Reason: v.Reason, Since: v.Since}
		p.verdict = dead
	case v.Wait > 0:
		p.outcome = apnsconn.Outcome{Class: apnsconn.Throttled, Reason: "too many pushes to this device lately"}
		p.verdict, p.pause = later, v.Wait
	default:
		return false
	}
	p.remembered, p.judged = true, true
	p.ended.Store(true)
	return true
}

// done takes the push's outcome. It is called from the connection's goroutine.
func (p *push) done(o apnsconn.Outcome) {
	t := p.t
	if p.ended.Swap(true) || t.fan == nil && t.handed.Swap(true) {
		return // given up meanwhile
	}
	if !p.began.IsZero() {
		p.took = time.Since(p.began)
		if o.Status != 0 {
			t.r.w.cfg.Counters.Seconds.observe(p.took)
		}
	}
	if o.Class == apnsconn.Delivered && t.fan != nil && p.probe == 0 && !t.r.logsAll() {
		t.r.delivered(p, &o)
		p.freeSlot()
		t.fan.pushEnded()
		return
	}
	p.outcome = o
	t.r.hand(event{t, p})
}

// delivered notes a push that APNs has taken. It is called for each, and so
// from the connection's goroutine: it costs some atomic operations.
func (r *run) delivered(p *push, o *apnsconn.Outcome) {
	n := &p.n
	r.w.cfg.Counters.count(apnsconn.Delivered, "")
	r.w.cfg.Recent.delivered(p, o)
	r.w.finished.Add(1)
	r.w.cfg.Memory.Delivered(n.Topic, n.Token)
	if n.Token != "" {
		r.seat.Right()
	}
	if r.bounced.Load() != 0 {
		r.bounced.Store(0)
	}
	r.link.good()
}

// freeSlot gives back the slot of a fan-out's push. Nobody is woken: the
// connection's onChange follows.
func (p *push) freeSlot() {
	if p.slot {
		p.slot = false
		p.t.r.slots.Add(-1)
	}
}

// judge decides on a push that has ended. It reports false if the guard holds
// the answer: then ruled comes, now or later.
func (p *push) judge() (decided bool) {
	o, r := &p.outcome, p.t.r
	switch {
	case o.Class == apnsconn.Credential && p.reachesFurther():
		// That job's fault, for which the app's other pushes shall not stop.
		o.Class = apnsconn.Rejected
		p.tellBreaker(noEvidence, true)
	case o.Class == apnsconn.Credential:
		r.refused(why(*o))
	default:
		if p.wrongType() {
			o.Class = apnsconn.Rejected
		}
		p.tellBreaker(evidenceOf(&p.n, o), false)
	}
	p.tellLink()
	switch evidenceOf(&p.n, o) {
	case rightEvidence:
		r.seat.Right()
	case wrongEvidence:
		p.suspect()
		return false
	}
	p.decide()
	return true
}

// suspect asks the guard about an answer that calls the token wrong. The push
// holds no slot meanwhile, its job stays reserved.
func (p *push) suspect() {
	p.freeSlot()
	if p.t.fan == nil {
		p.t.freeSlot()
	}
	p.t.r.wake() // the connection's onChange came before the slot was free
	if p.t.r.w.cfg.Breaker.State().Paused {
		p.ruled(isDoubted)
		return
	}
	p.t.r.guarded.Add(1)
	f, o := p.t.fan, p.outcome
	if f != nil {
		f.doubt(p)
	}
	p.t.r.seat.Wrong(p.n.Token, o.Reason, func(r ruling) {
		if f != nil && !f.doubtOver(p) { // it has gone back
			if r == isDead {
				p.learn(&o)
			}
			return
		}
		p.t.r.guarded.Add(-1)
		p.ruled(r)
	})
}

// ruled takes the guard's word.
func (p *push) ruled(r ruling) {
	switch r {
	case isDead:
		p.decide()
	case isDoubted:
		p.verdict, p.doubted, p.judged = later, true, true
	case isLeft:
		p.verdict, p.judged = again, true
	}
	p.t.r.hand(event{p.t, p})
}

// decide sets the verdict, by the policy table.
func (p *push) decide() {
	o := &p.outcome
	if p.outdated() {
		o.Class = apnsconn.Unavailable
	}
	p.t.r.w.cfg.Counters.count(o.Class, o.Reason)
	p.t.r.w.cfg.Recent.note(p, o)
	rule := policy[o.Class]
	p.verdict, p.first, p.judged = rule.verdict, rule.first, true
	switch {
	case p.refusedAlone():
		p.verdict, p.first = later, refusedPause
	case o.Reconnect():
		p.first = reconnectPause
	}
	p.learn(o)
}

// outdated says that APNs calls the token dead since before the app registered
// it, which makes that answer a late one (Apple:
// handling-notification-responses-from-apns, on timestamp).
func (p *push) outdated() bool {
	o := &p.outcome
	return o.Class == apnsconn.Token && !o.Since.IsZero() && p.t.decoded.TokenSince.After(o.Since)
}

// learn remembers what the outcome says of the token. DeviceTokenNotForTopic
// says as much of the topic, so it is not remembered.
func (p *push) learn(o *apnsconn.Outcome) {
	m, n := p.t.r.w.cfg.Memory, &p.n
	switch {
	case o.Class == apnsconn.Delivered:
		m.Delivered(n.Topic, n.Token)
	case o.Class == apnsconn.Token && (o.Status == http.StatusGone || o.Reason == "BadDeviceToken"):
		m.Dead(n.Topic, n.Token, o.Reason, o.Status, o.Since)
	case o.Class == apnsconn.Throttled:
		m.Throttle(n.Topic, n.Token, time.Now().Add(max(p.first, o.RetryAfter)))
	}
}

// wrongType says that the token is not one for the topic of the push's type (say
// .voip), which is the job's fault: it may be good for the app's own topic.
func (p *push) wrongType() bool {
	return p.outcome.Reason == "DeviceTokenNotForTopic" && p.n.Topic != p.t.r.w.cfg.Topic
}

// reachesFurther says that the push asked more of the credential than the app's
// ordinary ones do: the topic of another push type (say .voip), or a capability
// that the app does not have. Such answers are 400, or name the topic; what else
// is wrong with a credential concerns all pushes.
func (p *push) reachesFurther() bool {
	o := &p.outcome
	further := p.n.Topic != p.t.r.w.cfg.Topic
	return (further || p.n.ChannelID != "") && o.Status == http.StatusBadRequest ||
		further && o.Reason == "TopicMismatch"
}

// refusedAlone says that a push came back unsent from a connection that goes on.
func (p *push) refusedAlone() bool {
	return p.outcome.Class == apnsconn.NotSent && p.conn != nil && p.conn.Usable()
}

// tellLink passes on what the outcome says of the connection.
func (p *push) tellLink() {
	o, r := &p.outcome, p.t.r
	switch {
	case o.Status != 0:
		r.bounced.Store(0)
	case o.Class == apnsconn.NotSent && p.conn != nil:
		r.bounced.Add(1)
	}
	if o.Status != 0 && o.Status < 500 && o.Class != apnsconn.Credential && !o.Reconnect() {
		r.link.good()
	}
}

// accepted says that APNs looked at the push itself, and so took the credential:
// it answered 200, or about the token, or about the request. It may answer 429
// and 5xx before, and 403 is about the credential.
func accepted(o *apnsconn.Outcome) bool {
	switch o.Class {
	case apnsconn.Delivered, apnsconn.Token:
		return true
	case apnsconn.Rejected:
		return o.Status == http.StatusBadRequest || o.Status == http.StatusRequestEntityTooLarge
	}
	return false
}

// tellBreaker passes on what a probe shows. further: the answer concerns more
// than the app's ordinary pushes need.
func (p *push) tellBreaker(e evidence, further bool) {
	if p.probe == 0 {
		return
	}
	b, r := p.t.r.w.cfg.Breaker, p.t.r
	state := b.State()
	healed := accepted(&p.outcome) && !further
	if state.Paused {
		healed = e == rightEvidence
	}
	if !healed {
		b.told(p.probe, time.Now())
		return
	}
	if b.heal() {
		if state.Paused {
			r.log.Info("apns takes the app's device tokens again: app works")
		} else {
			r.log.Info("apns accepts the credential again: app works")
		}
	}
}
