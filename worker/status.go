package worker

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Cause says, as a phrase for people, what limits a worker now: the first reason in plan that
// applies.
type Cause string

const (
	noCause          Cause = "" // nothing: it works, or waits for a job
	causeFull        Cause = "in_flight is reached"
	causeHeavy       Cause = "the reserved jobs are as large as allowed"
	causeDialing     Cause = "connecting to apns"
	causeUnreachable Cause = "waiting for the next dial to apns"
	causeClosed      Cause = "the app is broken or guarded, and the next probe is not due"
	causePaused      Cause = "paused by an operator"
	causeStopping    Cause = "stopping"

	// MaxRateReached: the app may send no more pushes a second.
	MaxRateReached Cause = "max_rate is reached"
)

// Limit is c if a limit of the configuration is what it says, else "".
func (c Cause) Limit() Cause {
	if c == causeFull || c == MaxRateReached {
		return c
	}
	return noCause
}

// Status is a worker at one moment, as its last plan saw it.
type Status struct {
	Serving        bool
	Cause          Cause
	Paced          bool // max_rate alone explains that it does nothing: the app's workers take turns
	Reserved       int  // jobs received and not yet settled
	Lingering      int  // how many of Reserved wait for the queue without a slot; at most Config.InFlight
	InFlight       int  // slots in use, out of Config.InFlight
	PendingAnswers int  // answered pushes that wait for the guard's ruling
	Connected      bool // to APNs
	Link           Link

	QueueErr error // why no job can be received; nil when one can
	// Unstored says why jobs whose records, remainders or burials the queue refuses stay reserved:
	// "the queue takes no burials: …"; nil if there are no such jobs.
	Unstored error
	// Unreachable says why APNs cannot be reached or takes no pushes; nil if it answers, or
	// if nothing has tried lately.
	Unreachable error

	// Received counts jobs received, Finished jobs settled for good or given
	// back after an answer of APNs, and answered pushes of jobs with several
	// tokens; both since New, over all restarts of Serve.
	Received, Finished int64
	// Waiting says why the worker has decided to take no jobs; "" when it
	// does: "apns not reachable: …", "apns takes no pushes", "queue unavailable:
	// …", or "the queue takes no records: …" when that is why jobs stay reserved.
	Waiting string
}

// shown is the status that a run published with its last plan.
type shown struct {
	mu        sync.Mutex
	s         Status
	conn      *conn     // asked for its streams when Status is called
	downUntil time.Time // until when s.Unreachable counts
}

func (s *shown) load() (Status, *conn, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.s, s.conn, s.downUntil
}

// fresh is how long after the next dial was due the result of the last one still counts:
// a worker with jobs would have dialled again by then.
const fresh = 5 * time.Second

// show publishes the plan.
func (r *run) show(p plan, now time.Time) {
	l := &r.link
	s := Status{
		Serving: true, Cause: p.cause,
		Reserved: r.reserved, Lingering: r.settlers.lingering, InFlight: r.slots, PendingAnswers: r.undecided,
		Link: Link{GoAway: l.goAway}, Unreachable: l.down,
	}
	end := l.dialAt.Add(fresh)
	if l.dialing {
		end = l.dialed.Add(dialTime + fresh)
	}
	r.shown.mu.Lock()
	defer r.shown.mu.Unlock()
	r.shown.s, r.shown.conn, r.shown.downUntil = s, l.conn, end
}

// Status may be called at any time.
func (w *Worker) Status() Status {
	r := w.cur.Load()
	if r == nil {
		return Status{Received: w.received.Load(), Finished: w.finished.Load()}
	}
	now := time.Now()
	s, c, downUntil := r.shown.load()
	s.Serving, s.QueueErr = true, r.consumer.Err()
	s.Received, s.Finished = w.received.Load(), w.finished.Load()
	if c != nil && c.Usable() {
		s.Connected, s.Link.Since = true, c.since
		s.Link.Open, s.Link.Limit = c.Streams()
	}
	if now.After(downUntil) {
		s.Unreachable = nil
	}
	if l := r.app.limiter.Load(); l != nil && s.Cause == MaxRateReached {
		s.Paced = l.moves(now)
	}
	if what, err := r.settlers.outage.why(); err != nil {
		s.Unstored = fmt.Errorf("the queue takes no %s: %w", what, err)
	}
	switch {
	case s.QueueErr != nil:
		s.Waiting = "queue unavailable: " + s.QueueErr.Error()
	case errors.Is(s.Unreachable, errTakesNothing):
		s.Waiting = errTakesNothing.Error()
	case s.Unreachable != nil:
		s.Waiting = "apns not reachable: " + s.Unreachable.Error()
	case s.Unstored != nil:
		s.Waiting = s.Unstored.Error()
	}
	return s
}
