package worker

import (
	"context"
	"errors"
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

// mailbox is the only way into a run's state: connections, dials, receivers, settlers and
// the app report to it, and the run's goroutine reads it. It holds at most one entry per
// push in flight and per reserved job, and a handful of others.
type mailbox struct {
	mu   sync.Mutex
	mail mail
	rung chan struct{} // cap 1: there is mail, or something to plan for
}

// mail is everything reported since the mailbox was last read.
type mail struct {
	ended   []*push  // pushes whose outcome is known
	settled []*task  // tasks that a settler has finished with
	other   []func() // anything rare; called by the run's goroutine
}

func newMailbox() mailbox { return mailbox{rung: make(chan struct{}, 1)} }

// ring makes the run plan again. It never blocks.
func (b *mailbox) ring() {
	select {
	case b.rung <- struct{}{}:
	default:
	}
}

func (b *mailbox) pushEnded(p *push) {
	b.mu.Lock()
	b.mail.ended = append(b.mail.ended, p)
	b.mu.Unlock()
	b.ring()
}

func (b *mailbox) taskSettled(t *task) {
	b.mu.Lock()
	b.mail.settled = append(b.mail.settled, t)
	b.mu.Unlock()
	b.ring()
}

func (b *mailbox) post(f func()) {
	b.mu.Lock()
	b.mail.other = append(b.mail.other, f)
	b.mu.Unlock()
	b.ring()
}

// swap moves all mail into m, and reuses m's memory for the mailbox.
func (b *mailbox) swap(m *mail) {
	clear(m.ended)
	clear(m.settled)
	clear(m.other)
	m.ended, m.settled, m.other = m.ended[:0], m.settled[:0], m.other[:0]
	b.mu.Lock()
	b.mail, *m = *m, b.mail
	b.mu.Unlock()
}

// mailboxes are those of an app's workers. A change to what the workers share rings them. The
// zero value is ready for use.
type mailboxes struct {
	mu  sync.Mutex
	all map[*mailbox]struct{}
}

func (b *mailboxes) join(m *mailbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = make(map[*mailbox]struct{})
	}
	b.all[m] = struct{}{}
}

func (b *mailboxes) leave(m *mailbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, m)
}

func (b *mailboxes) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for m := range b.all {
		m.ring()
	}
}

const (
	// remainderTime is how long the remainders of lists may take to go back to the queue once the
	// time to finish pushes is over.
	remainderTime = time.Second
	// restartDrain is the drain time of a restart. Pushes do not end then, so only answers
	// already under way are worth waiting for.
	restartDrain = time.Second
	// closeTime bounds the closing of the consumer.
	closeTime = 2 * time.Second
)

// stop ends the run because its context has ended.
func (r *run) stop(cause error) {
	drain := time.Duration(r.cfg.Live.Drain.Load())
	if errors.Is(cause, ErrRestarted) {
		drain = min(drain, restartDrain)
	}
	r.endWithin(drain, nil)
}

// end ends the run because of a failure.
func (r *run) end(failure error) {
	r.endWithin(time.Duration(r.cfg.Live.Drain.Load()), failure)
}

// endWithin begins to end the run, in the order that loses and repeats the least: pushes in
// flight finish and are settled, other jobs go back when the queue connection closes, and the
// APNs connection closes last.
func (r *run) endWithin(drain time.Duration, failure error) {
	if r.ending {
		return
	}
	r.ending, r.failure = true, failure
	close(r.ends)
	r.stopDials()
	r.drainEnd = time.Now().Add(drain)
}

// finished reports whether the run has no jobs any more, or must not wait longer.
func (r *run) finished(now time.Time) bool {
	switch {
	case !r.ending:
		return false
	case r.reserved == 0 && !r.receiving:
		return true
	}
	return r.abandoned && !now.Before(r.drainEnd.Add(remainderTime))
}

// errUnfinished is the outcome of pushes that a stop gives up.
var errUnfinished = errors.New("the time to finish pushes in flight is over")

// abandon gives up the open pushes of jobs with pushes that have ended, so that those are
// not repeated.
func (r *run) abandon() {
	r.abandoned = true
	if r.reserved == 0 {
		return
	}
	r.log.Warn("stopping with pushes unfinished; their jobs go back to the queue", "jobs", r.reserved)
	for t := range r.lists {
		if t.delivered+len(t.failed) == 0 {
			continue
		}
		for _, chunk := range t.chunks {
			for i := range chunk.pushes {
				if p := &chunk.pushes[i]; !p.over.Swap(true) {
					p.outcome = apnsconn.Outcome{Class: apnsconn.Unknown, Err: errUnfinished}
					r.box.pushEnded(p)
				}
			}
		}
	}
}

// close ends everything that the run started, and waits for it.
func (r *run) close() {
	r.closed = true
	r.stopDials()
	r.settlers.cancel()
	if !r.ending { // a panic
		r.ending = true
		close(r.ends)
	}
	if r.receives != nil {
		r.cancelReceive()
	}
	r.closeConsumer()
	for c := range r.link.open {
		_ = c.Close() // connEnded reports why it ended
	}
	r.goes.Wait()
	r.link.conn = nil
	for range lastTurns { // for the last answers and their jobs
		r.read()
		r.askGuard(time.Now())
		r.releaseAll()
		r.settlers.wait()
	}
}

// lastTurns is how often mail can lead to more mail once all connections are closed: a push
// ends, its job is settled, and that is reported.
const lastTurns = 4

// closeConsumer closes the consumer, which ends its Receive and releases its jobs.
func (r *run) closeConsumer() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := r.consumer.Close(ctx); err != nil {
		r.log.Warn("cannot close the queue connection", "err", err)
	}
}
