package worker

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
)

const (
	// guardFirst is how many device tokens an app's first answers may call
	// wrong, without one that is right, before the app is paused.
	guardFirst = 20
	// guardWindow is how many of an app's latest answers are looked at: when
	// more than half of them call the token wrong, the app is paused.
	guardWindow = 200
	// guardHold is how long an answer that calls a token wrong waits for one
	// that shows the environment right. Without a bound the record of a dead
	// token would never come from an app that has nothing else to send.
	guardHold = 10 * time.Minute
)

// Guard keeps an app that is set up for the wrong environment or topic from
// having all its device tokens reported dead. APNs answers BadDeviceToken or
// DeviceTokenNotForTopic both for one bad token and for every token of an app
// whose environment or topic is wrong, so such an answer is held until a later
// one shows that environment and topic are right. If instead they pile up, the
// guard trips: what is held goes back unreported, and so does every further
// such answer until Reset.
//
// At most guardWindow/2 answers are held, since one more trips it. A Guard is
// shared by an app's workers, which take part by Join. A nil Guard holds
// nothing: every token called wrong is dead at once.
type Guard struct {
	// calm says that one more right answer changes nothing, so that in an app
	// that works it costs one load.
	calm atomic.Bool

	mu       sync.Mutex
	tripped  bool
	right    bool              // there has been a right answer
	answers  [guardWindow]bool // ring of the latest; true = wrong. Those not yet given count as right
	next     int               // in answers: the oldest
	wrong    int               // of answers
	seed     maphash.Seed
	distinct []uint64 // hashes of tokens called wrong since the last right answer, up to guardFirst; kept only before the first right one
	held     []held
	batch    int         // of held: counts how often it has been emptied
	overdue  *time.Timer // settles this batch; nil = nothing is held
}

// held is an answer that calls a token wrong and waits for a right one.
type held struct {
	seat   *Seat
	settle func(dead bool)
}

// NewGuard returns the guard of an app that has had no answers.
func NewGuard() *Guard { return &Guard{seed: maphash.MakeSeed()} }

// Seat is one worker's place at the app's guard, from the start of its Serve
// until it stops.
type Seat struct {
	g       *Guard
	tripped func(reason string)
	left    bool // under g.mu
}

// Join takes part in g. When an answer of this seat trips the guard, tripped is
// called once with the reason, before anything held is given back. It must not
// wait, and may call any method of the guard.
func (g *Guard) Join(tripped func(reason string)) *Seat { return &Seat{g: g, tripped: tripped} }

// evidence is what an answer says about an app's environment and topic.
type evidence uint8

const (
	noEvidence evidence = iota
	rightEvidence
	wrongEvidence
)

// evidenceOf reads an answer. Only 200 and 410 show that environment and topic
// are right: APNs knows the token for both, now or formerly. All others may
// come before it looks at the token (403, 413, 429, 5xx), a broadcast names no
// token at all, and that a token is not for another topic than the app's makes
// its job Rejected. Apple: handling-notification-responses-from-apns.
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

// Right tells of an answer that shows that environment and topic are right:
// what is held is settled as dead before Right returns.
func (s *Seat) Right() {
	if s.g == nil || s.g.calm.Load() {
		return
	}
	for _, h := range s.g.addRight() {
		h.settle(true)
	}
}

// Wrong tells that APNs has called a device token wrong, by BadDeviceToken or
// DeviceTokenNotForTopic. settle is called once, with dead true when the token
// is dead, or false when nothing may be concluded and the job is to go back; it
// may be called before Wrong returns, or later from another goroutine, and must
// not wait.
func (s *Seat) Wrong(token, reason string, settle func(dead bool)) {
	if s.g == nil {
		settle(true)
		return
	}
	back, why := s.g.addWrong(token, reason, held{s, settle})
	if why != "" {
		s.tripped(why)
	}
	for _, h := range back {
		h.settle(false)
	}
}

// Leave gives up the seat: its held answers go back, as will those still to
// come. Leave may be called more than once.
func (s *Seat) Leave() {
	if s.g == nil {
		return
	}
	for _, h := range s.g.leave(s) {
		h.settle(false)
	}
}

// Tripped says whether the guard has tripped and was not reset.
func (g *Guard) Tripped() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tripped
}

// Reset lets a tripped guard judge anew: APNs has taken a push, or an operator
// says that all is well. It has no effect on one that has not tripped.
func (g *Guard) Reset() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.tripped {
		return
	}
	g.tripped = false
	g.answers, g.next, g.wrong = [guardWindow]bool{}, 0, 0
	g.distinct = nil
	g.calm.Store(g.right)
}

// addRight notes a right answer and returns what it shows to be dead.
func (g *Guard) addRight() []held {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.right = true
	if g.tripped {
		return nil // only Reset ends that: half of the answers may be right
	}
	g.note(false)
	g.distinct = nil
	g.calm.Store(g.wrong == 0)
	return g.takeHeld()
}

// addWrong notes a wrong answer and holds h. It returns what is to go back
// instead, and, if this answer has tripped the guard, why.
func (g *Guard) addWrong(token, reason string, h held) (back []held, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tripped || h.seat.left {
		return []held{h}, ""
	}
	g.calm.Store(false)
	g.note(true)
	g.addDistinct(token)
	g.hold(h)
	if why = g.suspicion(reason); why == "" {
		return nil, ""
	}
	g.tripped = true
	return g.takeHeld(), why
}

// suspicion is why the guard must trip now, or "".
func (g *Guard) suspicion(reason string) string {
	switch {
	case len(g.distinct) >= guardFirst:
		return fmt.Sprintf("wrong environment or topic?: the first %d device tokens are all refused, the last with %s", guardFirst, reason)
	case g.wrong > guardWindow/2:
		return fmt.Sprintf("wrong environment or topic?: of the last %d answers more than half refuse the device token, the last with %s", guardWindow, reason)
	}
	return ""
}

// note puts an answer into the window.
func (g *Guard) note(wrong bool) {
	if g.answers[g.next] {
		g.wrong--
	}
	if wrong {
		g.wrong++
	}
	g.answers[g.next] = wrong
	g.next = (g.next + 1) % guardWindow
}

// addDistinct counts a token before the first right answer, each once: one dead
// token that is tried again and again says nothing of the others. A collision
// of hashes only makes the guard trip one token later.
func (g *Guard) addDistinct(token string) {
	if g.right {
		return
	}
	h := maphash.String(g.seed, token)
	for _, known := range g.distinct {
		if known == h {
			return
		}
	}
	g.distinct = append(g.distinct, h)
}

// hold keeps h until there is a right answer, at most for guardHold after the
// oldest held.
func (g *Guard) hold(h held) {
	g.held = append(g.held, h)
	if g.overdue != nil {
		return
	}
	batch := g.batch
	g.overdue = time.AfterFunc(guardHold, func() {
		for _, h := range g.takeOverdue(batch) {
			h.settle(true)
		}
	})
}

// takeOverdue is takeHeld for a timer that may have fired just as it was
// stopped. The answers stay in the window, so that an app with little to send
// trips the guard too, though later.
func (g *Guard) takeOverdue(batch int) []held {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.batch != batch {
		return nil
	}
	return g.takeHeld()
}

// takeHeld ends the holding of all that is held, and returns it.
func (g *Guard) takeHeld() []held {
	out := g.held
	g.held = nil
	g.batch++
	if g.overdue != nil {
		g.overdue.Stop()
		g.overdue = nil
	}
	return out
}

// leave closes a seat and returns what it holds.
func (g *Guard) leave(s *Seat) (back []held) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.left = true
	var stay []held
	for _, h := range g.held {
		if h.seat == s {
			back = append(back, h)
		} else {
			stay = append(stay, h)
		}
	}
	if len(stay) == 0 {
		g.takeHeld()
	}
	g.held = stay
	return back
}
