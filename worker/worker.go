// Package worker does one tube's work: it receives jobs while the APNs
// connection has room for them, decodes each into a notification, sends it,
// and settles the job by how the push ended.
//
// A push by file names: worker.go receives → job.go and payload.go decode →
// push.go sends (link.go holds the connection) → settle.go decides.
package worker

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"propeller/queue"
	"propeller/worker/feedback"
)

// Pushes says which finished pushes get a line in the log.
type Pushes int32

// Values of log.pushes.
const (
	LogFailures Pushes = iota // what did not reach the device
	LogAll
	LogNone
)

// Config is what a worker needs. Every field down to Live is required.
type Config struct {
	Topic    string // the app's bundle id
	Tube     string
	Index    int // 0…N-1 within the app
	InFlight int // most jobs held at once
	Retry    Retry

	Queue    queue.Queue
	Dial     Dial
	Breaker  *Breaker  // shared by the app's workers
	Counters *Counters // shared by the app's workers
	Log      *slog.Logger
	Live     *Live // shared by all workers

	// Feedback puts a record where it is safe before the push's job is deleted
	// or buried. nil: the log lines are the only record.
	Feedback func(ctx context.Context, r feedback.Record) error
	Memory *Memory // shared by the app's workers; nil: no device token is remembered
	Guard  *Guard  // shared by the app's workers; nil: every token called wrong is dead
	// Expiration and TTL are the app's defaults for jobs that give none; 0: none.
	// Such an apns-expiration counts from when the push is sent.
	Expiration, TTL time.Duration
}

// Live is what a reload may change under running workers.
type Live struct {
	Drain  atomic.Int64 // time.Duration to finish and settle when told to stop
	Pushes atomic.Int32 // Pushes: which finished pushes are logged
}

// Worker is a suture service: one queue consumer and one APNs connection.
type Worker struct {
	cfg Config
	log *slog.Logger
	cur atomic.Pointer[run]

	received, finished atomic.Int64 // see Status
}

// New returns a worker that does nothing until Serve.
func New(cfg Config) *Worker {
	return &Worker{cfg: cfg, log: cfg.Log.With("topic", cfg.Topic, "worker", cfg.Index)}
}

// String names the worker in suture's events.
func (w *Worker) String() string { return fmt.Sprintf("app %s worker %d", w.cfg.Topic, w.cfg.Index) }

// Status is a worker at one moment.
type Status struct {
	Serving   bool
	Held      int   // jobs received and not yet settled
	Connected bool  // to APNs
	QueueErr  error // why no job can be received; nil when one can

	// Received counts jobs received, Finished jobs settled for good or given
	// back after an answer of APNs, and answered pushes of jobs with several
	// tokens; both since New, over all restarts of Serve.
	Received, Finished int64
	// Waiting says why the worker takes no jobs by its own decision; "" when it
	// does: "apns not reachable: …" or "queue unavailable: …".
	Waiting string
}

// Status may be called at any time.
func (w *Worker) Status() Status {
	s := Status{Received: w.received.Load(), Finished: w.finished.Load()}
	r := w.cur.Load()
	if r == nil {
		return s
	}
	conn, _ := r.link.usable(time.Now())
	s.Serving, s.Held, s.Connected, s.QueueErr = true, int(r.held.Load()), conn != nil, r.consumer.Err()
	switch down := r.link.unreachable(); {
	case s.QueueErr != nil:
		s.Waiting = "queue unavailable: " + s.QueueErr.Error()
	case down != nil:
		s.Waiting = "apns not reachable: " + down.Error()
	}
	return s
}

// Replace lets go of the connection to APNs, of which reason says that it
// should. Open pushes end as they do; the next job dials a new connection.
func (w *Worker) Replace(reason string) {
	if r := w.cur.Load(); r != nil {
		r.log.Debug("connection to apns let go", "reason", reason)
		r.link.drop()
		r.wake()
	}
}

// Restart makes Serve give its jobs back and return an error that names
// reason, so that suture starts it anew. It has no effect while nothing serves.
func (w *Worker) Restart(reason string) {
	if r := w.cur.Load(); r != nil {
		r.restart(fmt.Errorf("worker: restarted: %s", reason))
	}
}

// Serve works until ctx ends, then finishes what is in flight, within
// Live.Drain, and returns nil. An error is something nobody foresaw; suture
// starts Serve again.
func (w *Worker) Serve(ctx context.Context) error {
	consumer, err := w.cfg.Queue.Consume(w.cfg.Tube)
	if err != nil {
		return fmt.Errorf("worker: tube %q: %w", w.cfg.Tube, err)
	}
	r := newRun(w, consumer)
	ctx, r.restart = context.WithCancelCause(ctx)
	defer r.restart(nil)
	w.cfg.Breaker.join(r)
	w.cur.Store(r)
	defer w.cur.Store(nil)
	defer r.stop(ctx)
	if err := r.pumpUnstuck(ctx); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return cause
	}
	return nil
}

// stuckTime is how long a consumer may take to notice that no job is wanted any
// more. It should take no time at all.
const stuckTime = 2 * time.Second

// pumpUnstuck is pump. When ctx has ended and a Receive does not, it closes the
// consumer beneath it.
func (r *run) pumpUnstuck(ctx context.Context) error {
	pumped, freed := make(chan struct{}), make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(freed)
		limit := time.NewTimer(stuckTime)
		defer limit.Stop()
		select {
		case <-pumped:
			return
		case <-limit.C:
		}
		r.log.Warn("the queue's consumer does not stop: closing it")
		r.closeConsumer()
	})
	defer func() {
		close(pumped)
		if !unwatch() {
			<-freed
		}
	}()
	return r.pump(ctx)
}

// pump receives jobs as long as there is room for them.
func (r *run) pump(ctx context.Context) error {
	for ctx.Err() == nil {
		seen := r.interrupts.Load()
		n, wait := r.room(time.Now())
		if n == 0 {
			r.rest(ctx, wait)
			continue
		}
		jobs, err := r.receive(ctx, n, seen)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("worker: tube %q: receive: %w", r.w.cfg.Tube, err)
		}
		r.w.received.Add(int64(len(jobs)))
		for _, job := range jobs {
			r.start(ctx, job)
		}
	}
	return nil
}

// receive is the consumer's Receive, cut short by interrupt. seen is how many
// interrupts there had been when n was asked for.
func (r *run) receive(ctx context.Context, n int, seen int64) ([]queue.Job, error) {
	receiving, cancel := context.WithCancel(ctx)
	defer cancel()
	r.cancelReceive.Store(&cancel)
	if r.interrupts.Load() != seen {
		return nil, nil
	}
	jobs, err := r.consumer.Receive(receiving, n)
	if receiving.Err() != nil {
		err = nil
	}
	return jobs, err
}

// interrupt makes the pump look anew at what it may take.
func (r *run) interrupt() {
	r.interrupts.Add(1)
	if cancel := r.cancelReceive.Load(); cancel != nil {
		(*cancel)()
	}
	r.wake()
}

// room is how many jobs can be taken now; if none, wait is when to look again
// though nothing has called wake.
func (r *run) room(now time.Time) (n int, wait time.Duration) {
	n = r.w.cfg.InFlight - int(r.held.Load())
	conn, pause := r.link.usable(now)
	switch {
	case n <= 0:
		return 0, idle
	case conn != nil:
		n = min(n, conn.Free())
	case pause > 0:
		r.consumer.Pause()
		return 0, pause
	default:
		n = 1 // the job that opens the connection
	}
	if n, wait = r.calm(n, now); wait > 0 {
		r.consumer.Pause()
		return 0, wait
	}
	allowed, probeIn := r.w.cfg.Breaker.admit(r, n, now)
	if allowed == 0 && n > 0 {
		r.consumer.Pause()
		r.link.drop()
		return 0, probeIn
	}
	return allowed, idle
}

// calm holds the worker back when APNs keeps a connection and takes nothing on
// it: once as many pushes in a row as may be in flight have come back unsent,
// one is tried after a pause that grows from dialMin to dialMax, until there is
// an answer. Without it their jobs would go round at full speed.
func (r *run) calm(n int, now time.Time) (room int, wait time.Duration) {
	over := r.bounced.Load() - int64(r.w.cfg.InFlight)
	if over < 0 || n == 0 {
		return n, 0
	}
	if wait := r.calmUntil.Sub(now); wait > 0 {
		return 0, wait
	}
	if over == 0 {
		r.log.Warn("apns takes no pushes though it is connected; jobs stay in the queue")
	}
	r.calmUntil = now.Add(jitter(min(dialMax, dialMin<<min(over, 10))))
	return 1, 0
}

// idle bounds a rest that only an event ends, should an event be missed.
const idle = time.Minute

// rest waits until something has changed.
func (r *run) rest(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-r.woken:
	case <-timer.C:
	}
}

// stop ends a run in the order that loses and doubles the least: what is in
// flight is finished and settled, the rest is given back with the queue
// connection, then the APNs connection goes.
func (r *run) stop(ctx context.Context) {
	r.consumer.Pause()
	r.w.cfg.Breaker.leave(r)
	limit := time.NewTimer(r.drainTime(ctx))
	defer limit.Stop()
	for r.held.Load()+r.lingering.Load() > 0 {
		select {
		case <-r.woken:
			continue
		case <-limit.C:
		}
		r.log.Warn("stopping with pushes unfinished; their jobs go back to the queue", "jobs", r.held.Load()+r.lingering.Load())
		break
	}
	r.cancelSettling()
	r.closeConsumer()
	r.link.close()
	r.settlers.Wait()
}

// drainTime is how long pushes in flight may take to end: at a restart, which
// is made because they do not end, no longer than it takes to settle.
func (r *run) drainTime(ctx context.Context) time.Duration {
	d := time.Duration(r.w.cfg.Live.Drain.Load())
	if context.Cause(ctx) != ctx.Err() {
		d = min(d, restartDrain)
	}
	return d
}

// restartDrain: answers that are on their way still count.
const restartDrain = time.Second

// closeTime bounds the parting words with the queue.
const closeTime = 2 * time.Second

func (r *run) closeConsumer() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := r.consumer.Close(ctx); err != nil {
		r.log.Warn("closing the queue connection", "err", err)
	}
}
