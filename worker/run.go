package worker

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// run is one Serve of a worker. Serve's goroutine owns all of its state; other goroutines
// report to it through the mailbox. Each turn it reads its mail, asks plan what to do or
// how long to wait, and does it.
type run struct {
	w        *Worker
	app      *App
	cfg      *Config
	log      *slog.Logger
	consumer queue.Consumer
	box      mailbox
	seat     seat           // among the workers of all lanes
	mail     mail           // last read; its memory is reused
	goes     sync.WaitGroup // every goroutine of the run

	dials     context.Context // for dials; ends when the run begins to stop
	stopDials context.CancelFunc
	link      link

	sendq     []*task            // tasks with unsent tokens, oldest first
	lists     map[*task]struct{} // jobs with several tokens, until they are settled
	pending   []pendingAnswer    // answers that wait for the guard
	undecided int                // how many of pending still have their push
	reserved  int                // jobs received and not yet settled
	slots     int                // of InFlight: pushes sent, jobs being settled
	weight    weight             // of those jobs
	perJob    float64            // average number of pushes in a job; 0 = unknown
	requests  int                // pushes handed to a connection
	turn      turn               // in waitsIn's line
	waitsIn   *limiter           // nil: it does not wait for max_rate
	settlers  settlers
	shown     shown
	scratch   Event // of tellDelivered

	receiving     bool
	receives      context.Context // for Receive; nil once it was cancelled
	cancelReceive context.CancelFunc
	paused        bool  // the consumer is paused
	failure       error // why the run ends, if not by its context

	ending    bool
	ends      chan struct{} // closed when ending begins
	drainEnd  time.Time     // until when pushes may finish
	abandoned bool          // the pushes open at drainEnd have been given up
	closed    bool          // jobs received from now on come too late
}

func newRun(w *Worker, consumer queue.Consumer) *run {
	r := &run{
		w: w, app: w.app, cfg: &w.app.cfg, log: w.log, consumer: consumer, box: newMailbox(),
		lists: make(map[*task]struct{}), ends: make(chan struct{}),
	}
	r.link.open = make(map[*conn]struct{})
	r.dials, r.stopDials = context.WithCancel(context.Background())
	r.settlers.init(r)
	return r
}

// serve works until ctx ends or the queue fails, and all jobs are settled or released.
func (r *run) serve(ctx context.Context) error {
	r.app.mailboxes.join(&r.box)
	defer r.app.mailboxes.leave(&r.box)
	r.app.Lanes.join(r)
	defer r.app.Lanes.leave(r)
	defer func() { r.stand(nil, new(plan), time.Now()) }()
	defer r.close()
	defer context.AfterFunc(ctx, func() { r.box.post(func() { r.stop(context.Cause(ctx)) }) })()
	timer, armed := time.NewTimer(idle), time.Now().Add(idle)
	defer timer.Stop()
	for {
		r.read()
		now := time.Now()
		r.tick(now)
		p := r.plan(now)
		r.show(p, now)
		if r.do(p, now) {
			continue
		}
		if r.finished(now) {
			return r.failure
		}
		// A timer that fires too early does no harm, and resetting it costs.
		if p.until.Before(armed) || !armed.After(now) {
			wait := max(p.until.Sub(now), time.Millisecond)
			armed = now.Add(wait)
			timer.Reset(wait)
		}
		select {
		case <-r.box.rung:
		case <-timer.C:
		}
	}
}

// spawn runs f in a goroutine that the run waits for. A panic in f ends the run, like one
// in the run's own goroutine.
func (r *run) spawn(f func()) {
	r.goes.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				err := fmt.Errorf("worker: panic: %v\n%s", v, debug.Stack())
				r.box.post(func() { r.end(err) })
			}
		}()
		f()
	})
}

// read handles the mail.
func (r *run) read() {
	r.box.swap(&r.mail)
	now := time.Now()
	for _, p := range r.mail.ended {
		r.ended(p, now)
	}
	for _, t := range r.mail.settled {
		r.settled(t)
	}
	for _, f := range r.mail.other {
		f()
	}
}

// tick does what is due by time alone.
func (r *run) tick(now time.Time) {
	if len(r.pending) > 0 {
		r.askGuard(now)
	}
	r.linger(now)
	if r.ending && !r.abandoned && !now.Before(r.drainEnd) {
		r.abandon()
	}
}

// receive asks the queue for n jobs.
func (r *run) receive(n int) {
	r.receiving, r.paused = true, false
	if r.receives == nil {
		r.receives, r.cancelReceive = context.WithCancel(context.Background())
	}
	ctx := r.receives
	r.spawn(func() {
		var jobs []queue.Job
		var err error
		defer func() { // also when it panics
			r.box.post(func() { r.received(jobs, err) })
		}()
		if jobs, err = r.consumer.Receive(ctx, n); ctx.Err() != nil {
			err = nil
		}
	})
}

func (r *run) received(jobs []queue.Job, err error) {
	r.receiving, r.paused = false, false
	if r.closed {
		return // the consumer's Close has released them
	}
	r.w.received.Add(int64(len(jobs)))
	for _, job := range jobs {
		r.start(job)
	}
	if err != nil && !r.ending {
		r.end(fmt.Errorf("worker: tube %q: receive: %w", r.cfg.Tube, err))
	}
}

// pauseQueue tells the consumer that the worker wants no jobs for now.
func (r *run) pauseQueue() {
	if r.receives != nil {
		r.cancelReceive()
		r.receives = nil
	}
	if !r.paused {
		r.paused = true
		r.consumer.Pause()
	}
}

// refused marks the app broken.
func (r *run) refused(reason string) {
	if r.app.breaker.trip(reason, time.Now()) {
		r.log.Error("apns refuses the credential: app is broken; its jobs stay in the queue, one is tried each minute", "reason", reason, "meaning", apnsconn.Explain(reason))
	}
}

// suspected marks the app guarded.
func (r *run) suspected(reason string) {
	if r.app.breaker.guardApp(reason, time.Now()) {
		r.log.Error("apns refuses the app's device tokens: app is guarded; its jobs stay in the queue, one is tried each minute; no token is reported", "reason", reason)
	}
}

// firstJobs is how many jobs a worker asks for before it knows how many pushes a job has.
// With the largest jobs that beanstalkd takes, that is 1 MiB and 15,000 pushes.
const firstJobs = 16

// jobsFor is how many jobs to ask for to make about n pushes.
func (r *run) jobsFor(n int) int {
	if r.perJob == 0 {
		return r.weight.jobs(min(n, firstJobs))
	}
	return r.weight.jobs(max(1, min(n, int(float64(n)/r.perJob))))
}

// counted updates the average number of pushes in a job.
func (r *run) counted(pushes int) {
	if r.perJob = max(1, moved(r.perJob, float64(pushes))); r.perJob < 1.01 {
		r.perJob = 1
	}
}
