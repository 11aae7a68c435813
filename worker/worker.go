// Package worker does one tube's work: it receives jobs while the APNs
// connection has room for them, decodes each into a notification, sends it,
// and settles the job by how the push ended.
//
// A push by file names: plan.go decides what to do → run.go receives → job.go and
// payload.go decode → task.go sends (conn.go holds the connection) → push.go handles the
// answer → settle.go, by the table in policy.go, settles the job. A job with several tokens
// is one task with many pushes; rest.go puts its remaining tokens back into the queue.
// event.go reports the end of every push.
//
// One goroutine owns all of a worker's state (run.go); all others report to its mailbox
// (mailbox.go).
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"propeller/internal/flood"
	"propeller/queue"
	"propeller/worker/feedback"
	"propeller/worker/job"
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
	// Buried is called for each job that the queue has buried, with the buried job's id. It
	// must not block. nil: not called.
	Buried func(id string, b job.Burial)
	Memory *Memory // shared by the app's workers; nil: no device token is remembered
	Guard  *Guard  // shared by the app's workers; nil: every token called wrong is dead
	Hold   *Hold   // shared by the app's workers; nil: nobody holds the app
	Sinks  []Sink  // for the app's events, beside Counters and the log
	// Expiration and TTL are the app's defaults for jobs that give none; 0 means none. Such
	// an apns-expiration counts from when the push is sent.
	Expiration, TTL time.Duration
	ExtraKeys       bool                // see App
	Certificate     bool                // see App
	LiveActivities  *job.LiveActivities // shared by the app's workers; see App
	// Wall is the wall clock, which may be set, for apns-expiration; nil means time.Now.
	// Everything else uses a clock that is never set.
	Wall func() time.Time
}

// App is what the jobs are judged by.
func (c *Config) App() job.Rules {
	return job.Rules{
		Topic: c.Topic, Expiration: c.Expiration, TTL: c.TTL, ExtraKeys: c.ExtraKeys,
		Certificate: c.Certificate, LiveActivities: c.LiveActivities,
	}
}

// Live is what a reload may change under running workers.
type Live struct {
	Drain  atomic.Int64 // time.Duration to finish and settle when told to stop
	Pushes atomic.Int32 // Pushes: which finished pushes are logged

	failing failing // pushes whose failure the log has
}

// Worker is a suture service: one queue consumer and one APNs connection.
type Worker struct {
	cfg   Config
	app   job.Rules // of cfg
	log   *slog.Logger
	few   *flood.Lines // to log; for what a queue or producer may cause without end
	sinks []Sink
	cur   atomic.Pointer[run]

	received, finished atomic.Int64 // see Status
}

// New returns a worker that does nothing until Serve.
func New(cfg Config) *Worker {
	w := &Worker{cfg: cfg, app: cfg.App(), log: cfg.Log.With("topic", cfg.Topic, "worker", cfg.Index)}
	// After an outage each job held may have lost its reservation.
	w.few = flood.New(w.log, 2*cfg.InFlight)
	if w.cfg.Wall == nil {
		w.cfg.Wall = time.Now
	}
	w.sinks = append([]Sink{logSink{w}}, cfg.Sinks...)
	return w
}

// String names the worker in suture's events.
func (w *Worker) String() string { return fmt.Sprintf("app %s worker %d", w.cfg.Topic, w.cfg.Index) }

// Replace stops using the connection to APNs, for the given reason. Open pushes finish;
// the next job dials a new connection.
func (w *Worker) Replace(reason string) {
	if r := w.cur.Load(); r != nil {
		r.box.post(func() {
			r.log.Debug("connection to apns let go", "reason", reason)
			r.letGo()
		})
	}
}

// Restart makes Serve give its jobs back and return an error with the reason that wraps
// ErrRestarted, so that suture serves the worker again. It has no effect while nothing
// serves.
func (w *Worker) Restart(reason string) {
	if r := w.cur.Load(); r != nil {
		r.box.post(func() { r.end(fmt.Errorf("worker: %w: %s", ErrRestarted, reason)) })
	}
}

// ErrRestarted is wrapped by Serve's error after Restart or Abandon.
var ErrRestarted = errors.New("restarted")

// Serve works until ctx ends, then finishes what is in flight, within
// Live.Drain, and returns nil. An error is something nobody foresaw; suture
// starts Serve again.
func (w *Worker) Serve(ctx context.Context) error {
	consumer, err := w.cfg.Queue.Consume(w.cfg.Tube)
	if err != nil {
		return fmt.Errorf("worker: tube %q: %w", w.cfg.Tube, err)
	}
	r := newRun(w, consumer)
	w.cur.Store(r)
	defer w.cur.Store(nil)
	ended := make(chan end, 1)
	go func() { ended <- r.serveOrPanic(ctx) }()
	select {
	case e := <-ended:
		if e.panicked != "" {
			panic(e.panicked) // suture restarts the worker
		}
		return e.err
	case why := <-r.stuck:
		// The goroutine is lost. If it ever wakes up, all that it had is closed.
		r.settlers.cancel()
		r.settlers.rest()
		err := fmt.Errorf("worker: %w: its goroutine is stuck: %s", ErrRestarted, why)
		r.box.post(func() { r.end(err) })
		go r.closeConsumer()
		select {
		case <-r.consumerClosed:
		case <-time.After(closeTime):
		}
		return err
	}
}

// end says how a run's goroutine ended.
type end struct {
	err      error
	panicked string // the panic, with its stack; "" = none
}

func (r *run) serveOrPanic(ctx context.Context) (e end) {
	defer func() {
		if v := recover(); v != nil {
			e.panicked = fmt.Sprintf("%v\n%s", v, debug.Stack())
		}
	}()
	return end{err: r.serve(ctx)}
}

// Abandon makes Serve return like Restart, for a worker whose goroutine is stuck:
// Status.Until has long passed. Its jobs go back to the queue. The goroutine is lost until
// whatever it waits for returns.
func (w *Worker) Abandon(reason string) {
	if r := w.cur.Load(); r != nil {
		select {
		case r.stuck <- reason:
		default:
		}
	}
}
