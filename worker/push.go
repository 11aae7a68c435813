package worker

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// run is one Serve of a worker.
type run struct {
	w        *Worker
	log      *slog.Logger
	consumer queue.Consumer
	link     link
	held     atomic.Int64  // jobs received and not yet settled
	woken    chan struct{} // cap 1: room may have changed

	bounced   atomic.Int64 // pushes in a row that a connection gave back unsent
	calmUntil time.Time    // of the pump: no push before, because of bounced

	restart context.CancelCauseFunc // ends Serve with an error, as Worker.Restart

	interrupts    atomic.Int64
	cancelReceive atomic.Pointer[context.CancelFunc]

	ended          chan *push // pushes to settle; holds as many as are held, so that no sender waits
	settling       context.Context
	cancelSettling context.CancelFunc
	active         atomic.Int64 // settlers at work
	lingering      atomic.Int64 // settle calls that take long and hold no slot
	settlers       sync.WaitGroup
}

func newRun(w *Worker, consumer queue.Consumer) *run {
	r := &run{
		w: w, log: w.log, consumer: consumer,
		woken: make(chan struct{}, 1),
		// A Receive that was asked before the room shrank may bring up to
		// InFlight jobs more than fit.
		ended: make(chan *push, 2*w.cfg.InFlight),
	}
	r.settling, r.cancelSettling = context.WithCancel(context.Background())
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

// stage is where a push stands when it comes to the settlers.
type stage int

const (
	stageOutcome stage = iota // it has ended in p.outcome
	stageAge                  // its ttl is to be checked, then it is sent
	stageUnfit                // its job can never work: p.err
	stageExpired              // too late to be sent
	stageBack                 // the app has broken meanwhile: give it back
)

// push is one job on its way.
type push struct {
	r       *run
	job     queue.Job
	decoded Job
	stage   stage
	probe   bool // shows whether the credential works again
	err     error
	conn    Conn
	began   time.Time
	took    time.Duration
	outcome apnsconn.Outcome
	handed  atomic.Bool // over to the settlers; happens once

	release  sync.Mutex // see linger
	released bool       // its slot; under release
}

// start decodes a job and sends its push. A panic on the way buries the job.
func (r *run) start(ctx context.Context, job queue.Job) {
	r.held.Add(1)
	p := &push{r: r, job: job}
	defer p.guard()
	ok, probe := r.w.cfg.Breaker.take(r)
	p.probe = probe
	if !ok {
		p.settle(stageBack)
		return
	}
	if p.decoded, p.err = ParseJob(job.Body(), r.w.cfg.Topic, job.ID()); p.err != nil {
		p.settle(stageUnfit)
		return
	}
	if p.decoded.Expired(time.Now()) {
		p.settle(stageExpired)
		return
	}
	if p.conn, p.err = r.link.get(ctx); p.err != nil {
		p.done(apnsconn.Outcome{Class: apnsconn.NotSent, Err: p.err})
		return
	}
	if p.decoded.TTL > 0 {
		p.settle(stageAge)
		return
	}
	p.send()
}

func (p *push) send() {
	p.began = time.Now()
	p.conn.Send(&p.decoded.Notification, p.done)
}

// done takes the push's outcome. It is called from the connection's goroutine.
func (p *push) done(o apnsconn.Outcome) {
	p.outcome = o
	if !p.began.IsZero() {
		p.took = time.Since(p.began)
	}
	p.settle(stageOutcome)
}

// settle hands the push to the settlers; it never waits.
func (p *push) settle(s stage) {
	if p.handed.Swap(true) {
		return
	}
	p.stage = s
	p.r.ended <- p
	p.r.startSettler()
}

// guard is deferred around work on one job: a panic there buries that job and
// hurts no other.
func (p *push) guard() {
	if v := recover(); v != nil {
		p.panicked(v)
		p.settle(stageUnfit)
	}
}

func (p *push) panicked(v any) {
	p.r.w.cfg.Counters.Panics.Add(1)
	p.r.log.Error("panic while handling a job: the job is buried", "job", p.job.ID(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	p.err = fmt.Errorf("worker: panic: %v", v)
}

// maxSettlers is how many settle calls wait for the queue at once. A call
// waits about 0.1 ms, so these keep the queue's connection full.
const maxSettlers = 32

// startSettler adds a settler if there may be too few. They end when nothing
// is left to settle, so an idle worker has none.
func (r *run) startSettler() {
	for {
		n := r.active.Load()
		if n >= maxSettlers {
			return
		}
		if r.active.CompareAndSwap(n, n+1) {
			r.settlers.Go(r.settleAll)
			return
		}
	}
}

func (r *run) settleAll() {
	for {
		select {
		case p := <-r.ended:
			if !p.finish() {
				return
			}
			continue
		default:
		}
		// A push may have come after the look above while its sender saw
		// all settlers active: look again once this one no longer counts.
		r.active.Add(-1)
		if len(r.ended) == 0 {
			return
		}
		r.active.Add(1)
	}
}
