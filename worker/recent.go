package worker

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/worker/job"
)

const (
	// maxRecent is how many pushes each list of a Recent holds: more than a person reads,
	// in 50 KiB.
	maxRecent = 50
	// recentEvery is how often a delivered push is noted, with bursts of recentBurst after a
	// rest. Nobody reads more than 20 a second, and so a high rate costs next to nothing.
	recentEvery = 50 * time.Millisecond
	recentBurst = 25
	// maxShown bounds a reason, which is APNs' text, in bytes.
	maxShown = 200
)

// Recent remembers how the last pushes of one app ended, for people who look. It keeps the
// last failures apart, since a flood of good pushes would wash them away. It is shared by
// the app's workers. The zero value is ready for use; nil remembers nothing.
type Recent struct {
	next atomic.Int64 // Unix time in ns: no delivered push is noted before it

	mu            sync.Mutex
	all, failures []Event // rings of maxRecent copies, which keep no job in memory
	nAll, nFailed int     // noted since the start
}

// Last returns the last pushes and, apart from them, the last failures, each latest first
// and at most 50. At a high rate it has only some of the delivered pushes, and never
// pushes that were not sent.
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

// Pushed notes a push that was sent and has ended, also if the guard doubts its answer. It
// leaves out pushes that a connection gave back unsent: one lost connection would crowd
// everything else out.
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
			one.Token, one.APNsID, one.At, one.Took = job.Short(d.Token), d.APNsID, d.At, d.Took
			r.delivered(&one)
		}
	}
}

// delivered notes a delivered push, unless another was noted just before.
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
	keep(&r.all, &r.nAll, e)
	if failed {
		keep(&r.failures, &r.nFailed, e)
	}
}

func keep(ring *[]Event, n *int, e Event) {
	if len(*ring) < maxRecent {
		*ring = append(*ring, e)
	} else {
		(*ring)[*n%maxRecent] = e
	}
	*n++
}

// kept returns a copy of an event that outlives it and keeps no more memory than needed.
func (e *Event) kept() Event {
	out := *e
	for _, text := range [...]*string{&out.App, &out.Job, &out.ID, &out.Ref, &out.Token, &out.APNsID, &out.Reason, &out.BuryReason} {
		*text = cut(*text)
	}
	if e.Err != nil {
		out.Err = errors.New(cut(e.Err.Error()))
	}
	out.t, out.p = nil, nil
	return out
}

// cut copies the part of a text that is shown.
func cut(s string) string {
	return strings.ToValidUTF8(strings.Clone(s[:min(len(s), maxShown)]), "")
}
