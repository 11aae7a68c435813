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
	// guardHeld is how many answers of an app wait so at most. Those about
	// different tokens are no more than half a window, since one more trips the
	// guard.
	guardHeld = guardWindow
)

// ruling is what is to be made of an answer that calls a device token wrong.
type ruling int

const (
	isOpen    ruling = iota // nothing yet
	isDead                  // the token is dead
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
// The guard holds no answers itself: a worker keeps them, and asks for the
// verdict when something has changed or their time is over. A Guard is shared by
// an app's workers. A nil Guard doubts nothing: every token called wrong is dead
// at once.
type Guard struct {
	// calm says that one more right answer changes nothing, so that in an app
	// that works it costs one load.
	calm  atomic.Bool
	bells bells

	mu      sync.Mutex
	tripped bool
	doubted time.Time           // when the first wrong answer came since the last right one, or since Reset; zero = none has
	answers [guardWindow]uint64 // ring of the latest: the hash of a token called wrong, or 0. Those not yet given count as right
	next    int                 // in answers: the oldest
	wrong   int                 // of answers
	seed    maphash.Seed
	held    int // answers that wait for a verdict

	// What verdicts are made of: answers are numbered.
	count     int // answers so far
	right     int // the number of the last right one; 0 = there was none
	trip      int // the number of the last one that has tripped the guard; 0 = none
	tripRight int // right, when that was
}

// NewGuard returns the guard of an app that has had no answers.
func NewGuard() *Guard { return &Guard{seed: maphash.MakeSeed()} }

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

// suspicion is an answer that calls a device token wrong, while it waits.
type suspicion struct {
	number int // of the answer
	since  time.Time
}

// Right tells of an answer that shows that environment and topic are right.
func (g *Guard) Right() {
	if g == nil || g.calm.Load() {
		return
	}
	if g.addRight() {
		g.bells.ring()
	}
}

func (g *Guard) addRight() (changes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count++
	g.right = g.count
	if g.tripped {
		return false // only Reset ends that: half of the answers may be right
	}
	g.doubted = time.Time{}
	g.note(0)
	g.calm.Store(g.wrong == 0 && g.held == 0)
	return g.held > 0
}

// Wrong tells that APNs has called a device token wrong, by BadDeviceToken or
// DeviceTokenNotForTopic. If the ruling is isOpen the answer is held: its owner
// asks Verdict of s, and calls Over when it has one or needs none any more. why
// is not "" if this answer has tripped the guard.
func (g *Guard) Wrong(token, reason string, now time.Time) (s suspicion, r ruling, why string) {
	if g == nil {
		return s, isDead, ""
	}
	s, r, why = g.addWrong(token, reason, now)
	if why != "" {
		g.bells.ring()
	}
	return s, r, why
}

func (g *Guard) addWrong(token, reason string, now time.Time) (s suspicion, r ruling, why string) {
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
	// That two tokens share a hash only makes the guard trip one token later.
	if hash := maphash.String(g.seed, token) | 1; !slices.Contains(g.answers[:], hash) {
		g.note(hash)
	}
	if why = g.suspects(reason); why != "" {
		g.tripped, g.trip, g.tripRight = true, g.count, g.right
		return s, isDoubted, why
	}
	if g.held == guardHeld {
		return s, isDoubted, ""
	}
	g.held++
	return suspicion{g.count, now}, isOpen, ""
}

// Verdict is what is to be made of an answer that is held; it changes nothing.
// The answers stay in the window, so that an app with little to send trips the
// guard too, though later.
func (g *Guard) Verdict(s suspicion, now time.Time) ruling {
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
	case now.Sub(s.since) < guardHold:
		return isOpen
	case right > 0:
		return isDead
	}
	return isDoubted
}

// Over ends the holding of an answer.
func (g *Guard) Over() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held--
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
	g.calm.Store(g.right > 0 && g.held == 0)
}

// suspects is why the guard must trip now, or "".
func (g *Guard) suspects(reason string) string {
	switch {
	case g.right == 0 && g.wrong >= guardFirst:
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
