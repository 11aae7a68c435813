package worker

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
)

const (
	// maxRecent is how many pushes each list of a Recent holds: more than a
	// person reads, and 20 KiB.
	maxRecent = 50
	// recentEvery is how often a delivered push is noted, but for a burst of
	// recentBurst after some rest: who sees 20 in a second has seen them all, and
	// very many cost next to nothing so.
	recentEvery = 50 * time.Millisecond
	recentBurst = 25
	// maxShown bounds a reason, which is APNs' text, in bytes.
	maxShown = 200
)

// Recent remembers how the last pushes of one app ended, for people who look;
// and apart from those the last that went wrong, which a flood of good ones
// would wash away. It is shared by the app's workers. The zero value is ready
// for use; nil remembers nothing.
type Recent struct {
	next atomic.Int64 // Unix time in ns: no delivered push is noted before it

	mu            sync.Mutex
	all, failures []Ended // each a ring of maxRecent
	nAll, nFailed int     // ever noted
}

// Ended is a push that has ended, without what is secret of it.
type Ended struct {
	At     time.Time
	Worker int
	Token  string // the first 8 characters, or of the channel's id
	Class  apnsconn.Class
	Status int    // APNs' answer; 0 when there was none
	Reason string // as the log has it; "" when delivered
	APNsID string
	Took   time.Duration
}

// Last returns the pushes that ended last and, apart from them, those that were
// not delivered, each latest first and at most 50. Of very many delivered ones
// it knows some, and of those that were never sent, none.
func (r *Recent) Last() (all, failures []Ended) {
	if r == nil {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return latestFirst(r.all, r.nAll), latestFirst(r.failures, r.nFailed)
}

// Active is when a push last ended, to about recentEvery; zero if none has.
func (r *Recent) Active() time.Time {
	if r == nil {
		return time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nAll == 0 {
		return time.Time{}
	}
	return r.all[(r.nAll-1)%len(r.all)].At
}

func latestFirst(ring []Ended, n int) []Ended {
	out := make([]Ended, 0, len(ring))
	for i := range ring {
		out = append(out, ring[(n-1-i)%len(ring)])
	}
	return out
}

// Pushed notes a push that has ended. What a connection gave back unsent is not
// noted: a lost one would wash all else away.
func (r *Recent) Pushed(e *Event) {
	switch {
	case !e.Sent, e.Class == apnsconn.NotSent:
	case e.Class != apnsconn.Delivered:
		r.note(ending(e, e.Token, e.APNsID, e.At, e.Took), true)
	case e.N == 1 && e.Token != "":
		r.delivered(e, e.Token, e.APNsID, e.At, e.Took)
	default:
		for d := range e.Each() {
			r.delivered(e, short(d.Token), d.APNsID, d.At, d.Took)
		}
	}
}

// delivered notes a push that APNs has taken, if none was noted just before.
func (r *Recent) delivered(e *Event, token, apnsID string, end time.Time, took time.Duration) {
	next := r.next.Load()
	at := end.UnixNano()
	if at < next || !r.next.CompareAndSwap(next, max(next, at-int64((recentBurst-1)*recentEvery))+int64(recentEvery)) {
		return
	}
	r.note(ending(e, token, apnsID, end, took), false)
}

func (r *Recent) note(e Ended, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	note(&r.all, &r.nAll, e)
	if failed {
		note(&r.failures, &r.nFailed, e)
	}
}

func note(ring *[]Ended, n *int, e Ended) {
	if len(*ring) < maxRecent {
		*ring = append(*ring, e)
	} else {
		(*ring)[*n%maxRecent] = e
	}
	*n++
}

// ending describes the push without keeping its job in memory.
func ending(e *Event, token, apnsID string, at time.Time, took time.Duration) Ended {
	out := Ended{
		At: at, Worker: e.Worker, Token: strings.Clone(token), Class: e.Class, Status: e.Status,
		APNsID: strings.Clone(apnsID), Took: took,
	}
	out.Reason = e.Detail()
	return out
}
