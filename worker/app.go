package worker

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"propeller/queue"
	"propeller/worker/feedback"
	"propeller/worker/job"
)

// Config is an app's configuration as its workers need it, and what they get from the daemon.
type Config struct {
	job.Rules
	Tube     string
	InFlight int // most pushes on their way at once, and most jobs being settled, of each worker
	Retry    Retry

	Queue queue.Queue
	Dial  Dial
	Log   *slog.Logger
	Live  *Live // shared by all workers of the daemon
	// Buried is called for each job that the queue has buried, with the buried job's id. It
	// must not block.
	Buried func(id string, b job.Burial)
	// Feedback puts a record where it is safe before the push's job is deleted
	// or buried. nil: the log lines are the only record.
	Feedback func(ctx context.Context, r feedback.Record) error
	Sinks    []Sink // for the app's events, beside Totals and the log
	// Wall is the wall clock, which may be set, for apns-expiration; nil means time.Now.
	// Everything else uses a clock that is never set.
	Wall func() time.Time
}

// Live is what a reload may change under running workers.
type Live struct {
	Drain        atomic.Int64 // time.Duration to finish and settle when told to stop
	LogFailures  atomic.Bool  // pushes that did not reach the device get a line in the log
	LogDelivered atomic.Bool  // so does every other push

	failing failing // pushes whose failure the log has
}

// App is what the workers of an app share. A reload that changes the app makes a new one,
// whose workers begin before those of the old one have finished.
type App struct {
	*Totals
	cfg     Config
	breaker breaker
	guard   *guard
	tokens  *tokenCache
}

// Totals is what outlives an App: what is counted of its pushes since the process began, and
// the operator's pause. The zero value is ready for use.
type Totals struct {
	Counters  Counters
	Recent    Recent
	pause     atomic.Pointer[PauseState] // nil: the app is not paused
	mailboxes mailboxes                  // of all workers
}

// NewApp makes an App that continues totals. same is nil, or an App with the same server and
// credential: what APNs said to it of device tokens still holds.
func NewApp(cfg Config, totals *Totals, same *App) *App {
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	cfg.LiveActivities = new(job.LiveActivities)
	a := &App{Totals: totals, cfg: cfg, guard: newGuard(&totals.mailboxes)}
	a.breaker.mailboxes, a.breaker.guard = &totals.mailboxes, a.guard
	if same != nil {
		a.tokens = same.tokens
	} else {
		a.tokens = newTokenCache(tokenLimit)
	}
	return a
}

// Rules are what the app's jobs are judged by.
func (a *App) Rules() job.Rules { return a.cfg.Rules }

// Breaker says whether the app is broken or guarded, why, and since when.
func (a *App) Breaker() BreakerState { return a.breaker.State() }

// Resume lets a paused, broken or guarded app go on, at an operator's request. If APNs still
// refuses it, APNs' next answers stop it again.
func (a *App) Resume() {
	a.breaker.heal()
	a.Unpause()
}

// Pause pauses the app, at an operator's request: its workers take no jobs, not even to probe,
// and release those at hand; pushes under way finish. If the app is paused already, nothing
// changes.
func (t *Totals) Pause(reason string) {
	if t.pause.CompareAndSwap(nil, &PauseState{true, reason, time.Now()}) {
		t.mailboxes.ring()
	}
}

// Unpause ends the pause, but not the trouble of a broken or guarded app.
func (t *Totals) Unpause() {
	if t.pause.Swap(nil) != nil {
		t.mailboxes.ring()
	}
}

// Paused says whether an operator has paused the app, why, and since when.
func (t *Totals) Paused() PauseState {
	if s := t.pause.Load(); s != nil {
		return *s
	}
	return PauseState{}
}

// paused is Paused().Paused. It costs one load.
func (t *Totals) paused() bool { return t.pause.Load() != nil }

// PauseState is an operator's pause at one moment.
type PauseState struct {
	Paused bool
	Reason string    // "" while the app is not paused
	Since  time.Time // zero while the app is not paused
}
