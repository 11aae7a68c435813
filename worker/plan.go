package worker

import (
	"time"
)

// plan is what a worker may do now, or how long it has to wait.
//
// Every wait ends by itself. Dials, pushes and calls to the queue have deadlines and report to
// the mailbox. The next dial and the next probe have a time. A Receive ends with a job or by
// cancellation. An operator who ends a pause rings the mailbox. Only the act itself, in do, uses
// up the permission for it. So a worker that has a job, and whose app is not paused, dials or
// pushes when the next dial or probe is due at the latest, and the result sets the next time. Under
// max_rate it pushes when the limiter has its permission, which also has a time.
type plan struct {
	receive int  // pushes to receive jobs for
	send    int  // pushes that may be sent
	dial    bool // open a connection
	drop    bool // stop using the present connection
	pause   bool // pause the consumer
	release bool // release the jobs that have no push under way
	paced   int  // pushes that wait for max_rate

	cause Cause     // what limits the worker; noCause if nothing does
	until time.Time // when to plan again even without mail
}

// idle bounds the wait for mail, in case a ring is missed.
const idle = time.Minute

// patience is how long jobs at hand wait for a connection.
const patience = 2 * time.Second

// plan has no side effects: called twice, it gives the same result.
func (r *run) plan(now time.Time) (p plan) {
	room := r.cfg.InFlight - r.slots
	closed, probeAt, closes := r.app.breaker.look(&r.seat)
	unsent := len(r.sendq) > 0
	conn := r.link.usable()
	p.drop = closed && conn != nil && conn.closes != closes
	if p.drop {
		conn = nil
	}
	switch {
	case r.ending:
		p.cause, p.pause, p.release = causeStopping, true, true
	case r.app.paused():
		p.cause, p.pause, p.release = causePaused, true, true
	case closed && now.Before(probeAt):
		p.cause, p.pause, p.release, p.until = causeClosed, true, true, probeAt
	case room <= 0:
		p.cause = causeFull
	case conn != nil:
		n := min(room, conn.Free())
		if closed || r.link.takesNone() && !conn.answered {
			n = min(n, 1-conn.sending) // one push shows whether APNs takes any again
		}
		if n <= 0 {
			p.cause = causeFull
		} else if unsent {
			p.send = n
		} else {
			p.receive = n
		}
	case r.link.dialing:
		p.cause = causeDialing
	case now.Before(r.link.dialAt):
		p.cause, p.pause, p.until = causeUnreachable, true, r.link.dialAt
		p.release = r.link.dialAt.Sub(now) > patience
	case unsent:
		p.dial = true
	default:
		p.receive = 1 // the push that opens the connection
	}
	if p.receive > 0 && r.weight.full() {
		p.receive, p.cause, p.pause = 0, causeHeavy, true // jobs that the consumer has reserved ahead go back
	}
	if l := r.app.limiter.Load(); l != nil {
		r.pace(&p, l, now)
	}
	p.until = sooner(p.until, r.due())
	p.until = sooner(p.until, now.Add(idle))
	return p
}

// due is the next time at which something happens without mail; zero if nothing does.
func (r *run) due() (at time.Time) {
	at = sooner(r.guardDue(), r.settlers.due())
	if r.ending && !r.abandoned {
		at = sooner(at, r.drainEnd)
	} else if r.ending {
		at = sooner(at, r.drainEnd.Add(remainderTime))
	}
	return at
}

// sooner returns the earlier of two times; zero means no time.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// do carries out a plan, and reports whether that changed the input of the next one.
func (r *run) do(p plan, now time.Time) (changed bool) {
	l := r.app.limiter.Load()
	if l != nil || r.waitsIn != nil {
		r.stand(l, &p, now)
	}
	if p.drop {
		r.retire()
		changed = true
	}
	if p.pause {
		r.pauseQueue()
	}
	if p.release && r.releaseAll() {
		changed = true
	}
	switch {
	case p.send > 0 && l != nil:
		r.sendPaced(l, p.send, now)
		return true
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

// releaseAll releases the jobs at hand, with the tokens that were not sent. A job with
// pushes under way waits for those, and may then go on here.
func (r *run) releaseAll() (any bool) {
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

// maxWeight bounds the bodies of the jobs that a worker has reserved, in bytes; the last job may
// exceed it. Decoded, and with a push for each token, a job takes many times its size.
// Lingering jobs (see lingerAfter) may take as much again.
const maxWeight = 16 << 20

// weight is how much the jobs weigh that a run has reserved.
type weight struct {
	reserved  int     // without those that linger
	lingering int     // those
	perJob    float64 // average; 0 = unknown
}

func (t *task) weight() int { return len(t.body) }

// full reports whether the run takes no jobs until one of those reserved is settled. Every
// reserved job is being sent or settled, so this happens by itself.
func (w *weight) full() bool { return w.reserved >= maxWeight }

// take adds a job, unless there are too many already.
func (w *weight) take(t *task) (ok bool) {
	w.perJob = moved(w.perJob, float64(t.weight()))
	ok = !w.full()
	w.reserved += t.weight()
	return ok
}

// leave takes out a job that has been settled.
func (w *weight) leave(t *task) {
	if t.lingers {
		w.lingering -= t.weight()
	} else {
		w.reserved -= t.weight()
	}
}

// linger counts a job among those that linger, if there is room.
func (w *weight) linger(t *task) (ok bool) {
	if w.lingering > 0 && w.lingering+t.weight() > maxWeight {
		return false
	}
	w.reserved -= t.weight()
	w.lingering += t.weight()
	return true
}

// stay is for a job that has lingered and goes on.
func (w *weight) stay(t *task) {
	w.lingering -= t.weight()
	w.reserved += t.weight()
}

// jobs is how many of n jobs to ask for.
func (w *weight) jobs(n int) int {
	if w.perJob < 1 {
		return n
	}
	return max(1, min(n, int(float64(maxWeight-w.reserved)/w.perJob)))
}

// moved is a moving average that rises fast and falls slowly, since too many large jobs
// are the greater harm.
func moved(average, n float64) float64 {
	switch {
	case average == 0:
		return n
	case n > average:
		return average + (n-average)/2
	}
	return average + (n-average)/16
}
