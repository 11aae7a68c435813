package worker

import (
	"time"
)

// plan is what a worker may do now, and for how long there is nothing else.
//
// Every wait has an end of its own. A dial, a push and a settling have deadlines
// and come back as mail; dialAt and the breaker's probe are times; a Receive
// ends with a job, or by order; a hold ends by an operator, who rings. And what
// permits an act is used up by the act alone, in do. So while the app is open
// and a job at hand there is a dial or a push at the latest when dialAt and the
// probe's time have come, and what comes of it moves both.
type plan struct {
	receive int  // pushes for which jobs are wanted from the queue
	send    int  // pushes that may be sent
	dial    bool // open a connection
	drop    bool // let go of the one there is
	rest    bool // tell the queue that no job is wanted for a while
	back    bool // jobs at hand go back to the queue, if nothing of them is under way

	cause Cause     // why not more is done; NoCause if nothing stands in the way
	until time.Time // when to plan anew though no mail has come
}

// idle is when to plan anew if nothing but mail ends the wait, should a ring be
// missed.
const idle = time.Minute

// patience is how long jobs that have been received wait for a connection.
const patience = 2 * time.Second

// plan has no side effects: asked twice it says the same.
func (r *run) plan(now time.Time) (p plan) {
	room := r.cfg.InFlight - r.slots
	closed, probeAt, closes := r.cfg.Breaker.look(r.cfg.Index)
	unsent := len(r.sendq) > 0
	conn := r.link.usable()
	p.drop = closed && conn != nil && conn.closes != closes
	if p.drop {
		conn = nil
	}
	switch {
	case r.ending:
		p.cause, p.rest, p.back = Stopping, true, true
	case r.cfg.Hold.held():
		p.cause, p.rest, p.back = Held, true, true
	case closed && now.Before(probeAt):
		p.cause, p.rest, p.back, p.until = Closed, true, true, probeAt
	case room <= 0:
		p.cause = Full
	case conn != nil:
		n := min(room, conn.Free())
		if closed || r.link.down != nil && !conn.answered {
			n = min(n, 1-conn.sending) // one shows whether there is any use
		}
		if n <= 0 {
			p.cause = Full
		} else if unsent {
			p.send = n
		} else {
			p.receive = n
		}
	case r.link.dialing:
		p.cause = Dialing
	case now.Before(r.link.dialAt):
		p.cause, p.rest, p.until = Unreachable, true, r.link.dialAt
		p.back = r.link.dialAt.Sub(now) > patience
	case unsent:
		p.dial = true
	default:
		p.receive = 1 // the push that opens the connection
	}
	p.until = sooner(p.until, r.due())
	p.until = sooner(p.until, now.Add(idle))
	return p
}

// due is when time alone decides something; zero = nothing.
func (r *run) due() (at time.Time) {
	at = sooner(r.guardDue(), r.settlers.due())
	if r.ending && !r.abandoned {
		at = sooner(at, r.drainEnd)
	} else if r.ending {
		at = sooner(at, r.drainEnd.Add(splitTime))
	}
	return at
}

// sooner is the earlier of two times, of which zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// do carries a plan out, and reports whether that has changed what to plan from.
func (r *run) do(p plan, now time.Time) (changed bool) {
	if p.drop {
		r.letGo()
		changed = true
	}
	if p.rest {
		r.pauseQueue()
	}
	if p.back && r.giveBack() {
		changed = true
	}
	switch {
	case p.send > 0:
		r.send(p.send, now)
		return true
	case p.dial:
		r.dial(now)
		return true
	case p.receive > 0 && !r.receiving:
		r.receive(r.jobsFor(p.receive))
	}
	return changed
}

// send sends up to n pushes of the jobs at hand.
func (r *run) send(n int, now time.Time) {
	for n > 0 && len(r.sendq) > 0 && !r.closing.Load() {
		t := r.sendq[0]
		dealt := r.sendSome(t, n, now)
		n -= dealt
		if len(t.unsent) == 0 || t.late {
			r.sendq[0] = nil
			r.sendq = r.sendq[1:]
			t.queued = false
			r.maySettle(t)
		} else if dealt == 0 {
			return // another worker has used the breaker's permission up
		}
	}
}

func (r *run) sendSome(t *task, n int, now time.Time) (dealt int) {
	defer t.rescue()
	if t.late = t.tooLate(now); t.late || len(t.unsent) == 0 {
		return 0
	}
	return t.send(n, now)
}

// giveBack ends the waiting of the jobs at hand: those of their tokens that were
// not sent go back to the queue. A job of which pushes are under way waits for
// those; it goes on here if it may by then.
func (r *run) giveBack() (any bool) {
	stay := r.sendq[:0]
	for _, t := range r.sendq {
		if t.open > 0 {
			stay = append(stay, t)
			continue
		}
		any = true
		t.queued = false
		r.settle(t, stagePushed)
	}
	clear(r.sendq[len(stay):])
	r.sendq = stay
	return any
}
