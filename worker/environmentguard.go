package worker

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
)

const (
	// guardFirst is how many device tokens an app's first answers may call
	// wrong, without a right one among them, before the app is guarded.
	guardFirst = 20
	// guardWindow is how many of an app's latest answers count: when
	// more than half of them call the token wrong, the app is guarded. A token
	// counts once among them: one that is tried again and again says nothing about
	// the others.
	guardWindow = 200
	// pendingTime is how long an answer that calls a token wrong waits for one
	// that shows the environment right; its job stays reserved meanwhile.
	pendingTime = time.Minute
	// maxPending is how many answers of an app may wait like this. Those about different
	// tokens are at most half a window, since one more trips the guard.
	maxPending = guardWindow
)

// ruling is what to make of an answer that calls a device token wrong.
type ruling int

const (
	isOpen    ruling = iota // nothing yet
	isDead                  // the token is dead
	isDoubted               // it proves nothing: the push is tried again later
	isLeft                  // the worker stops: the push is tried again at once
)

// guard keeps an app with the wrong environment or topic from reporting all its device
// tokens dead. APNs answers BadDeviceToken or DeviceTokenNotForTopic both for one bad
// token and for every token of such an app. Therefore such an answer is pending until a
// later one shows that environment and topic are right. If instead they pile up, the guard
// trips: pending answers go back unreported, and so does every further one until reset.
//
// After pendingTime a pending answer counts as a dead token's if the app ever had a right
// answer; else it goes back too, because in an app with little to send most answers
// come alone.
//
// Workers keep the pending answers, and ask for a ruling when something has changed or
// their time is over.
type guard struct {
	// calm: one more right answer changes nothing. In an app that works, a right answer then
	// costs one load.
	calm      atomic.Bool
	mailboxes *mailboxes

	mu      sync.Mutex
	tripped bool
	doubted time.Time // the first wrong answer since the last right one or reset; zero = none
	answers []uint64  // ring of the latest guardWindow: the hash of a token called wrong; 0 for a right answer, or none yet. nil: all 0
	next    int       // the oldest, in answers
	wrong   int       // how many answers are not 0
	seed    maphash.Seed
	pending int // answers that wait for a ruling

	// Rulings compare the numbers of answers.
	count     int // answers so far
	right     int // the number of the last right one; 0 = none
	trip      int // the number of the last one that tripped the guard; 0 = none
	tripRight int // the value of right at that time
}

// newGuard returns the guard of an app that has had no answers. mailboxes are those of the workers
// of all lanes.
func newGuard(m *mailboxes) *guard { return &guard{mailboxes: m, seed: maphash.MakeSeed()} }

// evidence is what an answer says about an app's environment and topic.
type evidence uint8

const (
	noEvidence evidence = iota
	rightEvidence
	wrongEvidence
)

// evidenceOf says what an answer shows. Only 200 and 410 show that environment and topic
// are right: APNs knows, or knew, the token for both. APNs may give all other answers (403,
// 413, 429, 5xx) before it looks at the token. A broadcast has no token, and a push to a
// topic other than the app's own says nothing about the app (see wrongType). Apple:
// handling-notification-responses-from-apns.
func evidenceOf(n *apnsconn.Notification, o *apnsconn.Outcome) evidence {
	switch {
	case n.Token == "", o.Class == apnsconn.Rejected:
		return noEvidence
	case o.Status == http.StatusOK, o.Status == http.StatusGone:
		return rightEvidence
	case o.Status == http.StatusBadRequest && (o.Reason == "BadDeviceToken" || o.Reason == "DeviceTokenNotForTopic"):
		return wrongEvidence
	}
	return noEvidence
}

// wrongAnswer is a pending answer that calls a device token wrong.
type wrongAnswer struct {
	number int // of the answer
	since  time.Time
}

// noteRight notes an answer that shows that environment and topic are right.
func (g *guard) noteRight() {
	if g.calm.Load() {
		return
	}
	if g.addRight() {
		g.mailboxes.ring()
	}
}

func (g *guard) addRight() (changes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count++
	g.right = g.count
	if g.tripped {
		return false // only reset ends a trip: half of the answers may be right
	}
	g.doubted = time.Time{}
	g.note(0)
	g.calm.Store(g.wrong == 0 && g.pending == 0)
	return g.pending > 0
}

// noteWrong notes that APNs called a device token wrong, with BadDeviceToken or
// DeviceTokenNotForTopic. If the ruling is isOpen the answer is pending: its owner asks
// rule about s, and calls release once it has a ruling or needs none. why is not empty if
// this answer tripped the guard.
func (g *guard) noteWrong(token, reason string, now time.Time) (s wrongAnswer, r ruling, why string) {
	s, r, why = g.addWrong(token, reason, now)
	if why != "" {
		g.mailboxes.ring()
	}
	return s, r, why
}

func (g *guard) addWrong(token, reason string, now time.Time) (s wrongAnswer, r ruling, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.doubted.IsZero() {
		g.doubted = now
	}
	if g.tripped {
		return s, isDoubted, ""
	}
	g.calm.Store(false)
	g.count++
	// If two tokens share a hash, the guard only trips one token later.
	if hash := maphash.String(g.seed, token) | 1; !slices.Contains(g.answers, hash) {
		g.note(hash)
	}
	if why = g.suspects(reason); why != "" {
		g.tripped, g.trip, g.tripRight = true, g.count, g.right
		return s, isDoubted, why
	}
	if g.pending == maxPending {
		return s, isDoubted, ""
	}
	g.pending++
	return wrongAnswer{g.count, now}, isOpen, ""
}

// rule rules on a pending answer; it changes nothing. The answers stay in the window, so
// that an app with little to send trips the guard too, though later.
func (g *guard) rule(s wrongAnswer, now time.Time) ruling {
	g.mu.Lock()
	defer g.mu.Unlock()
	right := g.right
	if s.number <= g.trip {
		right = g.tripRight
	}
	switch {
	case right > s.number:
		return isDead
	case s.number <= g.trip:
		return isDoubted
	case now.Sub(s.since) < pendingTime:
		return isOpen
	case right > 0:
		return isDead
	}
	return isDoubted
}

// release notes that an answer is no longer pending.
func (g *guard) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending--
}

// doubtLasts is how long answers have called tokens wrong without one that shows that
// environment and topic are right; 0 if there was none or the last was right.
func (g *guard) doubtLasts(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.doubted.IsZero() {
		return 0
	}
	return now.Sub(g.doubted)
}

// reset makes a tripped guard start again: APNs has taken a push, or an operator
// says that all is well. It has no effect on a guard that has not tripped.
func (g *guard) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.tripped {
		return
	}
	g.tripped, g.doubted = false, time.Time{}
	g.answers, g.next, g.wrong = nil, 0, 0
	g.calm.Store(g.right > 0 && g.pending == 0)
}

// suspects says why the guard must trip now; "" if it need not.
func (g *guard) suspects(reason string) string {
	switch {
	case g.right == 0 && g.wrong >= guardFirst:
		return fmt.Sprintf("wrong environment or topic?: the first %d device tokens are all refused, the last with %s", guardFirst, reason)
	case g.wrong > guardWindow/2:
		return fmt.Sprintf("wrong environment or topic?: of the last %d answers more than half refuse the device token, the last with %s", guardWindow, reason)
	}
	return ""
}

// note adds an answer to the window: a wrong token's hash, or 0.
func (g *guard) note(hash uint64) {
	if g.answers == nil {
		if hash == 0 {
			return
		}
		g.answers = make([]uint64, guardWindow)
	}
	if g.answers[g.next] != 0 {
		g.wrong--
	}
	if hash != 0 {
		g.wrong++
	}
	g.answers[g.next] = hash
	g.next = (g.next + 1) % guardWindow
	if g.wrong == 0 {
		g.answers, g.next = nil, 0
	}
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
	r.noteDoubts(p.t)
}

// rule applies the guard's ruling.
func (r *run) rule(p *push, ruled ruling) {
	switch ruled {
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
// reservation were lost. So the doubted tokens move to a job of their own, which is served
// once the guard has decided.
const doubtTime = 5 * time.Second

// noteDoubts notes since when only pending answers keep a job from being settled.
func (r *run) noteDoubts(t *task) {
	all := t.pending > 0 && t.open == t.pending && (len(t.unsent) == 0 || t.late) && t.delivered+len(t.failed) > 0
	switch {
	case !all:
		t.allDoubts = time.Time{}
	case t.allDoubts.IsZero():
		t.allDoubts = time.Now()
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
	asked := r.pending
	r.pending = r.pending[:0]
	for _, s := range asked {
		ruled := r.app.guard.rule(s.wrongAnswer, now)
		switch {
		case ruled != isOpen:
		case r.ending:
			ruled = isLeft
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
			r.settlePending(s.p, ruled)
		case ruled == isDead:
			learnDead(r.app.tokens, s.topic, s.token, &s.outcome)
		}
	}
	clear(asked[len(r.pending):])
}

// settlePending returns a push to its task, with the guard's ruling.
func (r *run) settlePending(p *push, ruled ruling) {
	t := p.t
	t.open--
	t.pending--
	r.undecided--
	defer t.recoverPanic()
	r.rule(p, ruled)
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
