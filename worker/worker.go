// Package worker does one tube's work: it receives jobs while the APNs
// connection has room for them, decodes each into a notification, sends it,
// and settles the job by how the push ended.
//
// A push by file names: pump.go receives → job.go and payload.go decode →
// task.go and push.go send (link.go holds the connection) → settle.go decides.
// A job with several tokens is one task with many pushes: fanout.go sends them
// and split.go puts what is left of it back into the queue.
package worker

import (
	"context"
	"errors"
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
	InFlight int // most pushes on their way at once, and most jobs being settled
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
	// Buried is told of each job that the queue has set aside, by the id that it
	// had before. It must not wait; nil: nobody is told.
	Buried   func(id string, b Burial)
	Memory   *Memory  // shared by the app's workers; nil: no device token is remembered
	Guard    *Guard   // shared by the app's workers; nil: every token called wrong is dead
	Hold     *Hold    // shared by the app's workers; nil: nobody holds the app
	Observer Observer // nil: nobody is told what becomes of jobs
	Recent   *Recent  // shared by the app's workers; nil: nobody asks for the last pushes
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
	Held      int  // jobs received and not yet settled
	Lingering int  // of Held: those that wait for the queue and hold no slot, at most Config.InFlight
	InFlight  int  // slots in use, of Config.InFlight
	Guarded   int  // pushes that have been answered, and wait for the environment guard's word
	Connected bool // to APNs
	Link      Link
	QueueErr  error // why no job can be received; nil when one can
	// Unstored is why records or rests of jobs cannot be put into the queue, for
	// which their jobs are held; nil when none waits.
	Unstored error

	// Received counts jobs received, Finished jobs settled for good or given
	// back after an answer of APNs, and answered pushes of jobs with several
	// tokens; both since New, over all restarts of Serve.
	Received, Finished int64
	// Waiting says why the worker takes no jobs by its own decision; "" when it
	// does: "apns not reachable: …", "apns takes no pushes", "queue unavailable:
	// …", or "the queue takes no records: …" when that is why jobs are held.
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
	s.Serving, s.Connected, s.QueueErr = true, conn != nil, r.consumer.Err()
	s.Held, s.InFlight, s.Guarded = int(r.held.Load()), int(r.slots.Load()), int(r.guarded.Load())
	s.Lingering = int(r.lingering.Load())
	s.Link, s.Unstored = r.link.view(), r.unstored.why()
	switch down := r.link.unreachable(time.Now()); {
	case s.QueueErr != nil:
		s.Waiting = "queue unavailable: " + s.QueueErr.Error()
	case down != nil:
		s.Waiting = "apns not reachable: " + down.Error()
	case r.standing.Load() && r.refusesAll():
		s.Waiting = "apns takes no pushes"
	case s.Unstored != nil:
		s.Waiting = "the queue takes no records: " + s.Unstored.Error()
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

// Restart makes Serve give its jobs back and return an error that names reason
// and wraps ErrRestarted, to be served anew. It has no effect while nothing serves.
func (w *Worker) Restart(reason string) {
	if r := w.cur.Load(); r != nil {
		r.restart(fmt.Errorf("worker: %w: %s", ErrRestarted, reason))
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
	w.cfg.Hold.join(r)
	w.cur.Store(r)
	defer w.cur.Store(nil)
	defer r.stop(ctx)
	if err := r.pumpUnstuck(ctx); err != nil {
		return err
	}
	if restarted(ctx) {
		return context.Cause(ctx)
	}
	return nil
}

// ErrRestarted ends Serve by order of Restart.
var ErrRestarted = errors.New("restarted")

func restarted(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrRestarted) }
