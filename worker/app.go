package worker

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker/feedback"
	"propeller/worker/job"
)

// Config is an app's configuration as its workers need it, and what they get from the daemon.
type Config struct {
	App string // the app's name
	job.Rules
	Tube     string
	InFlight int // most pushes on their way at once, and most jobs being settled, of each worker
	Retry    Retry

	Queue queue.Queue
	Dial  Dial
	// Turn waits until it is the app's turn to dial; nil: it need not wait. The error is ctx's.
	Turn func(ctx context.Context) error
	Log  *slog.Logger
	Live *Live // shared by all workers of the daemon
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
	*Lanes
	cfg Config
}

// Totals is what outlives an App: what is counted of its pushes since the process began, the
// operator's pause, and max_rate. The zero value is ready for use.
type Totals struct {
	Counters  Counters
	Recent    Recent
	pause     atomic.Pointer[PauseState] // nil: the app is not paused
	limiter   atomic.Pointer[limiter]    // of max_rate; nil: there is none
	mailboxes mailboxes                  // of the app's workers
}

// NewApp makes an App that continues totals. lanes are those of its topic, server and credential;
// nil: it shares nothing with other Apps.
func NewApp(cfg Config, totals *Totals, lanes *Lanes) *App {
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	cfg.LiveActivities = new(job.LiveActivities)
	if lanes == nil {
		lanes = NewLanes()
	}
	return &App{Totals: totals, Lanes: lanes, cfg: cfg}
}

// Rules are what the app's jobs are judged by.
func (a *App) Rules() job.Rules { return a.cfg.Rules }

// Resume lets a paused, broken or guarded app go on, at an operator's request. If it was broken or
// guarded its other lanes go on too. If APNs still refuses it, APNs' next answers stop it again.
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

// Counters count what became of one app's pushes, over all its workers, since
// the process started.
type Counters struct {
	byClass [apnsconn.Unknown + 1]atomic.Int64

	mu       sync.Mutex
	refusals map[Refusal]int64 // at most maxRefusals

	Seconds Histogram // from sending to APNs' answer

	Buried             atomic.Int64 // jobs set aside with a reason
	Expired            atomic.Int64 // jobs past their expiration or ttl, dropped unsent
	PossibleDuplicates atomic.Int64 // pushes that may reach a device twice
	Dials              atomic.Int64 // connections to APNs attempted
	DialsFailed        atomic.Int64
	GoAways            atomic.Int64
	Panics             atomic.Int64 // jobs that made a worker panic
}

// Refusal is how a push ended that was not delivered.
type Refusal struct {
	Class  apnsconn.Class
	Reason string // APNs'; "" when there was none, otherReason for the rare ones of very many
}

const (
	// maxRefusals bounds what is kept of APNs' reasons, which are free strings:
	// Apple documents some 40.
	maxRefusals = 100
	// otherReason stands for the reasons beyond that.
	otherReason = "other"
)

// Ended says how many pushes ended in class c.
func (c *Counters) Ended(class apnsconn.Class) int64 { return c.byClass[class].Load() }

// Refusals says how many pushes ended in which way, without those delivered.
func (c *Counters) Refusals() map[Refusal]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.refusals)
}

// count counts a push when it ends; settling its job may take longer.
func (c *Counters) count(class apnsconn.Class, reason string) {
	c.byClass[class].Add(1)
	if class == apnsconn.Delivered {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusals == nil {
		c.refusals = make(map[Refusal]int64)
	}
	r := Refusal{class, reason}
	if _, known := c.refusals[r]; !known && len(c.refusals) >= maxRefusals {
		r.Reason = otherReason
	}
	c.refusals[r]++
}

// seconds are the upper bounds of a Histogram's buckets. APNs answers within
// some 10 to 100 ms; push_timeout is 60 s at most.
var seconds = [...]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60} // never written to

// Histogram counts durations by size. The zero value is empty; it may be used
// from any goroutine.
type Histogram struct {
	buckets [len(seconds) + 1]atomic.Uint64 // not cumulative; the last is beyond all bounds
	sum     atomic.Int64                    // nanoseconds
}

// observe counts d. It costs two atomic operations.
func (h *Histogram) observe(d time.Duration) {
	s, i := d.Seconds(), 0
	for i < len(seconds) && s > seconds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot returns the sum in seconds, and how many were at most each bound,
// the last bound being infinite.
func (h *Histogram) Snapshot() (sum float64, atMost map[float64]uint64) {
	atMost = make(map[float64]uint64, len(h.buckets))
	sum = time.Duration(h.sum.Load()).Seconds()
	var n uint64
	for i := range h.buckets {
		n += h.buckets[i].Load()
		bound := math.Inf(1)
		if i < len(seconds) {
			bound = seconds[i]
		}
		atMost[bound] = n
	}
	return sum, atMost
}
