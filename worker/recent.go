package worker

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
)

const (
	// maxRecent is how many pushes each list of a Recent holds: more than a
	// person reads, and 50 KiB.
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
	all, failures []Event // each a ring of maxRecent, of copies that hold nothing of their jobs
	nAll, nFailed int     // ever noted
}

// Last returns the pushes that ended last and, apart from them, those that were
// not delivered, each latest first and at most 50. Of very many delivered ones
// it knows some, and of those that were never sent, none.
func (r *Recent) Last() (all, failures []Event) {
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

func latestFirst(ring []Event, n int) []Event {
	out := make([]Event, 0, len(ring))
	for i := range ring {
		out = append(out, ring[(n-1-i)%len(ring)])
	}
	return out
}

// Pushed notes a push that APNs was asked for and that has ended, also one whose
// answer the environment guard doubts. What a connection gave back unsent is not
// noted: a lost one would wash all else away.
func (r *Recent) Pushed(e *Event) {
	doubted := e.p != nil && e.p.doubted
	switch {
	case !e.Sent && !doubted, e.Class == apnsconn.NotSent:
	case e.Class != apnsconn.Delivered:
		r.note(e.kept(), true)
	case e.N == 1 && e.Token != "":
		r.delivered(e)
	default:
		one := *e
		one.N = 1
		for d := range e.Each() {
			one.Token, one.APNsID, one.At, one.Took = short(d.Token), d.APNsID, d.At, d.Took
			r.delivered(&one)
		}
	}
}

// delivered notes a push that APNs has taken, if none was noted just before.
func (r *Recent) delivered(e *Event) {
	next := r.next.Load()
	at := e.At.UnixNano()
	if at < next || !r.next.CompareAndSwap(next, max(next, at-int64((recentBurst-1)*recentEvery))+int64(recentEvery)) {
		return
	}
	r.note(e.kept(), false)
}

func (r *Recent) note(e Event, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	note(&r.all, &r.nAll, e)
	if failed {
		note(&r.failures, &r.nFailed, e)
	}
}

func note(ring *[]Event, n *int, e Event) {
	if len(*ring) < maxRecent {
		*ring = append(*ring, e)
	} else {
		(*ring)[*n%maxRecent] = e
	}
	*n++
}

// kept is a copy of an event that outlives it, and holds no more than it must.
func (e *Event) kept() Event {
	out := *e
	for _, text := range [...]*string{&out.App, &out.Job, &out.ID, &out.Ref, &out.Token, &out.APNsID, &out.Reason, &out.Why} {
		*text = cut(*text)
	}
	if e.Err != nil {
		out.Err = errors.New(cut(e.Err.Error()))
	}
	out.t, out.p = nil, nil
	return out
}

// cut copies what is shown of a text.
func cut(s string) string {
	return strings.ToValidUTF8(strings.Clone(s[:min(len(s), maxShown)]), "")
}
