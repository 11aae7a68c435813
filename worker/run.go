package worker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"propeller/queue"
)

// run is one Serve of a worker.
type run struct {
	w        *Worker
	log      *slog.Logger
	consumer queue.Consumer
	closing  sync.Once // of consumer
	link     link
	seat     *Seat                   // at the app's guard
	restart  context.CancelCauseFunc // ends Serve with an error, as Worker.Restart

	held  atomic.Int64 // jobs received and not yet settled
	slots atomic.Int64 // of InFlight: see task
	// guarded counts pushes whose answers the guard holds; they have no slot.
	guarded atomic.Int64
	woken   chan struct{} // cap 1: room may have changed

	interrupts    atomic.Int64
	cancelReceive atomic.Pointer[context.CancelFunc]

	bounced  atomic.Int64 // pushes in a row that a connection gave back unsent
	standing atomic.Bool  // nothing is sent because of that, which has been logged

	// Of the pump alone.
	calmUntil time.Time // no push before, because of bounced
	calmTries int       // pushes let through since
	perJob    float64   // pushes a job has on average; 0 = not known yet
	waiting   []*task   // with tokens still to be sent, oldest first

	mu      sync.Mutex
	fans    map[*task]struct{} // every fan-out that is not settled
	resumed []*task            // fan-outs that shall wait, too
	stopped bool               // no more of them

	backlog        backlog
	settling       context.Context
	cancelSettling context.CancelFunc
	active         atomic.Int64 // settlers at work
	lingering      atomic.Int64 // of held: those that take long to be settled and hold no slot
	settlers       sync.WaitGroup
	ending         chan struct{} // closed when stop begins
	unstored       unstored
}

func newRun(w *Worker, consumer queue.Consumer) *run {
	r := &run{
		w: w, log: w.log, consumer: consumer,
		woken: make(chan struct{}, 1), ending: make(chan struct{}),
		fans: make(map[*task]struct{}),
	}
	r.settling, r.cancelSettling = context.WithCancel(context.Background())
	r.seat = w.cfg.Guard.Join(r.suspected)
	r.link = link{
		dial: w.cfg.Dial, log: w.log, counters: w.cfg.Counters,
		onChange: r.wake, refused: r.refused, open: make(map[Conn]struct{}),
	}
	return r
}

func (r *run) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// refused marks the app broken.
func (r *run) refused(reason string) {
	if r.w.cfg.Breaker.trip(reason, time.Now()) {
		r.log.Error("apns refuses the credential: app is broken; its jobs stay in the queue, one is tried each minute", "reason", reason)
	}
}

// suspected marks the app paused.
func (r *run) suspected(reason string) {
	if r.w.cfg.Breaker.pause(reason, time.Now()) {
		r.log.Error("apns refuses the app's device tokens: app is paused; its jobs stay in the queue, one is tried each minute; no token is reported", "reason", reason)
	}
}
