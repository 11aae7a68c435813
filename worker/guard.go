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
	// wrong, without one that is right, before the app is paused.
	guardFirst = 20
	// guardWindow is how many of an app's latest answers are looked at: when
	// more than half of them call the token wrong, the app is paused. A token
	// counts once among them: one that is tried again and again says nothing of
	// the others.
	guardWindow = 200
	// guardHold is how long an answer that calls a token wrong waits for one
	// that shows the environment right; its job stays reserved meanwhile.
	guardHold = time.Minute
	// guardHeld is how many answers wait so at most. Those about different
	// tokens are no more than half a window, since one more trips the guard.
	guardHeld = guardWindow
)

// ruling is what the guard says of an answer that calls a device token wrong.
type ruling int

const (
	isDead    ruling = iota // the token is dead
	isDoubted               // nothing may be concluded: the push is tried again later
	isLeft                  // the worker stops: the push is tried again at once
)

// Guard keeps an app that is set up for the wrong environment or topic from
// having all its device tokens reported dead. APNs answers BadDeviceToken or
// DeviceTokenNotForTopic both for one bad token and for every token of an app
// whose environment or topic is wrong, so such an answer is held until a later
// one shows that environment and topic are right. If instead they pile up, the
// guard trips: what is held goes back unreported, and so does every further
// such answer until Reset.
//
// An answer that has been held for guardHold is taken as a dead token's once the
// app has had a right answer, else it goes back too: in an app with little to
// send, most answers come alone.
//
// A Guard is shared by an app's workers, which take part by Join. A nil Guard
// holds nothing: every token called wrong is dead at once.
type Guard struct {
	// calm says that one more right answer changes nothing, so that in an app
	// that works it costs one load.
	calm atomic.Bool

	mu      sync.Mutex
	tripped bool
	doubted time.Time           // when the first wrong answer came since the last right one, or since Reset; zero = none has
	right   bool                // there has been a right answer
	answers [guardWindow]uint64 // ring of the latest: the hash of a token called wrong, or 0. Those not yet given count as right
	next    int                 // in answers: the oldest
	wrong   int                 // of answers
	seed    maphash.Seed
	held    []held      // oldest first
	overdue *time.Timer // settles the oldest; nil = nothing is held
}

// held is an answer that calls a token wrong and waits for a right one.
type held struct {
	seat   *Seat
	settle func(ruling)
	since  time.Time
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
	settleHeld(s.g.addRight(), isDead)
}

// Wrong tells that APNs has called a device token wrong, by BadDeviceToken or
// DeviceTokenNotForTopic. settle is called once with what is to be made of that;
// it may be called before Wrong returns, or later from another goroutine, and
// must not wait.
func (s *Seat) Wrong(token, reason string, settle func(ruling)) {
	if s.g == nil {
		settle(isDead)
		return
	}
	back, r, why := s.g.addWrong(token, reason, held{s, settle, time.Now()})
	if why != "" {
		s.tripped(why)
	}
	settleHeld(back, r)
}

func settleHeld(answers []held, r ruling) {
	for _, h := range answers {
		h.settle(r)
	}
}

// Leave gives up the seat: its held answers go back, as will those still to
// come. Leave may be called more than once.
func (s *Seat) Leave() {
	if s.g == nil {
		return
	}
	settleHeld(s.g.leave(s), isLeft)
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

// doubtLasts is for how long answers have called tokens wrong and none has shown
// that environment and topic are right; 0 when one has.
func (g *Guard) doubtLasts(now time.Time) time.Duration {
	if g == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.doubted.IsZero() {
		return 0
	}
	return now.Sub(g.doubted)
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
	g.tripped, g.doubted = false, time.Time{}
	g.answers, g.next, g.wrong = [guardWindow]uint64{}, 0, 0
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
	g.doubted = time.Time{}
	g.note(0)
	g.calm.Store(g.wrong == 0)
	return g.takeHeld()
}

// addWrong notes a wrong answer and holds h. It returns what is to go back
// instead, by which ruling, and, if this answer has tripped the guard, why.
func (g *Guard) addWrong(token, reason string, h held) (back []held, r ruling, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.doubted.IsZero() {
		g.doubted = h.since
	}
	switch {
	case h.seat.left:
		return []held{h}, isLeft, ""
	case g.tripped:
		return []held{h}, isDoubted, ""
	}
	g.calm.Store(false)
	// That two tokens share a hash only makes the guard trip one token later.
	if hash := maphash.String(g.seed, token) | 1; !slices.Contains(g.answers[:], hash) {
		g.note(hash)
	}
	if why = g.suspicion(reason); why != "" {
		g.tripped = true
		return append(g.takeHeld(), h), isDoubted, why
	}
	if len(g.held) == guardHeld {
		return []held{h}, isDoubted, ""
	}
	g.held = append(g.held, h)
	g.watchOldest()
	return nil, isDoubted, ""
}

// suspicion is why the guard must trip now, or "".
func (g *Guard) suspicion(reason string) string {
	switch {
	case !g.right && g.wrong >= guardFirst:
		return fmt.Sprintf("wrong environment or topic?: the first %d device tokens are all refused, the last with %s", guardFirst, reason)
	case g.wrong > guardWindow/2:
		return fmt.Sprintf("wrong environment or topic?: of the last %d answers more than half refuse the device token, the last with %s", guardWindow, reason)
	}
	return ""
}

// note puts an answer into the window: a wrong token's hash, or 0.
func (g *Guard) note(hash uint64) {
	if g.answers[g.next] != 0 {
		g.wrong--
	}
	if hash != 0 {
		g.wrong++
	}
	g.answers[g.next] = hash
	g.next = (g.next + 1) % guardWindow
}

// watchOldest sees to it that the oldest held answer is settled in time.
func (g *Guard) watchOldest() {
	if g.overdue != nil || len(g.held) == 0 {
		return
	}
	g.overdue = time.AfterFunc(time.Until(g.held[0].since.Add(guardHold)), func() {
		settleHeld(g.takeOverdue(time.Now()))
	})
}

// takeOverdue returns what has been held for long enough, and what is to be made
// of it. The answers stay in the window, so that an app with little to send
// trips the guard too, though later.
func (g *Guard) takeOverdue(now time.Time) (over []held, r ruling) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for n < len(g.held) && now.Sub(g.held[n].since) >= guardHold {
		n++
	}
	over, stay := g.held[:n:n], g.held[n:]
	g.takeHeld()
	g.held = stay
	g.watchOldest()
	if g.right {
		return over, isDead
	}
	return over, isDoubted
}

// takeHeld ends the holding of all that is held, and returns it.
func (g *Guard) takeHeld() []held {
	out := g.held
	g.held = nil
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
	for _, h := range g.takeHeld() {
		if h.seat == s {
			back = append(back, h)
		} else {
			stay = append(stay, h)
		}
	}
	g.held = stay
	g.watchOldest()
	return back
}
