package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"propeller/internal/backoff"
	"propeller/queue"
	"propeller/worker"
)

// watchdog is the watchdog of progress, not systemd's: a service that demands of a worker that has
// reserved jobs, or ready jobs in its tube, to finish some within a period. If it does not, its
// connection to APNs is replaced; after a second period the worker is restarted, and with it its connection to the
// queue; after a third the app counts as stalled until there is progress. progress.go has the
// rules.
//
// There is one watchdog for all apps, because they share the queue: it asks about one app that is
// awake after the other, four times in a period, and about those that sleep all at once.
type watchdog struct {
	log     *slog.Logger
	awake   func() ([]watched, queue.Admin) // the apps that are awake, and where to ask about them
	asleep  func() []watched                // the others
	wake    func(tube string)               // wakes an app that sleeps
	period  *atomic.Int64                   // time.Duration of the configuration
	changed chan struct{}                   // cap 1: period has changed
	blind   bool                            // the log says that the queue gives no numbers

	counted time.Time     // when the jobs of all tubes were counted last
	count   time.Duration // how long that took
}

// watched is an app as the watchdog sees it.
type watched struct {
	*app
	tree    *appTree  // nil: the app sleeps
	waits   time.Time // since when it waits to be woken; zero: it does not
	workers []*appWorker
}

// Stall says that an app or webhook makes no progress, and that nothing has helped.
type Stall struct {
	Reason string    // begins with the worker, as in "worker 2: …"
	Since  time.Time // since when nothing was finished, within a quarter of a period
}

// String names the watchdog in suture's events.
func (*watchdog) String() string { return "watchdog" }

// Serve looks at all apps four times in a period.
func (d *watchdog) Serve(ctx context.Context) error {
	for {
		quarter := time.Duration(d.period.Load()) / 4
		timer := time.NewTimer(backoff.Jitter(quarter)) // not in step with anything
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-d.changed:
			timer.Stop()
		case <-timer.C:
			d.lookAtAll(ctx)
		}
	}
}

// lookAtAll looks at each app once.
func (d *watchdog) lookAtAll(ctx context.Context) {
	apps, admin := d.awake()
	q := questions{admin: admin, each: statsTime, end: time.Now().Add(time.Duration(d.period.Load()) / 4)}
	for _, a := range apps {
		seen := a.look(time.Now(), nil)
		var jobs, records available
		if seen.queueGone() == "" {
			jobs = q.available(ctx, a.cfg.Tube, &a.stats)
			if tube := a.cfg.Feedback.Tube; tube != "" {
				records = q.available(ctx, tube, &a.records)
			}
		} else {
			a.stats.Store(nil)
			a.records.Store(nil)
		}
		if ctx.Err() != nil {
			return
		}
		d.look(a, seen, jobs)
		d.lookAtWebhook(a, records)
	}
	if ctx.Err() == nil {
		d.lookAtSleepers(ctx, &q)
	}
	d.tellBlind(q.failed)
}

// lookAtSleepers counts the jobs of the apps that sleep, all at once. An app that has had ready
// jobs at two looks in a row, more than a period apart, has been missed, and is woken.
func (d *watchdog) lookAtSleepers(ctx context.Context, q *questions) {
	apps := d.asleep()
	if len(apps) == 0 {
		return
	}
	counter, ok := q.admin.(queue.Counter)
	if !ok || time.Since(d.counted) < countRest*d.count {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	began := time.Now()
	all, err := counter.AllStats(ctx)
	d.counted = time.Now()
	d.count = d.counted.Sub(began)
	if err != nil && !errors.Is(err, queue.ErrPartial) {
		q.failed = cmp.Or(q.failed, err)
		return
	}
	incomplete := ""
	if err != nil {
		incomplete = err.Error()
	}
	none := &QueueStats{At: began, Incomplete: incomplete}
	stats := func(tube string) *QueueStats {
		if st, has := all[tube]; has {
			return &QueueStats{st, began, incomplete}
		}
		return none
	}
	for _, a := range apps {
		is := stats(a.cfg.Tube)
		a.stats.Store(is)
		if tube := a.cfg.Feedback.Tube; tube != "" {
			a.records.Store(stats(tube))
		}
		d.lookAtSleeper(a, is, began)
	}
}

// lookAtSleeper looks at the jobs of an app that sleeps.
func (d *watchdog) lookAtSleeper(a watched, is *QueueStats, now time.Time) {
	switch {
	case a.cfg.Broken() || a.totals.Paused().Paused || !a.waits.IsZero() || is.Ready-is.Paused <= 0:
		a.missed = time.Time{}
	case a.missed.IsZero():
		a.missed = now
	case now.Sub(a.missed) >= time.Duration(d.period.Load()):
		a.missed = time.Time{}
		d.log.Warn("watchdog: an app sleeps although its tube has jobs; it is woken", "app", a.cfg.Name, "topic", a.cfg.Topic, "ready", is.Ready)
		d.wake(a.cfg.Tube)
	}
}

// tellBlind logs once that the queue gives no numbers: jobs that no worker receives then stay
// unseen.
func (d *watchdog) tellBlind(err error) {
	switch {
	case err != nil && !d.blind:
		d.log.Warn("watchdog: the queue, or one of its servers, does not say how many jobs wait; only reserved jobs are watched", "err", err)
	case err == nil && d.blind:
		d.log.Info("watchdog: the queue says again how many jobs wait")
	}
	d.blind = err != nil
}

// look judges an app's workers by what was seen of them.
func (d *watchdog) look(a watched, seen snapshot, jobs available) {
	now := seen.now
	if a.probeLate(seen.breaker, now) {
		seen.breaker = worker.BreakerState{} // it no longer explains anything
	}
	explained := seen.explanation() != ""
	var stalled *Stall
	for i, w := range a.workers {
		v := viewOf(seen.workers[i], jobs)
		v.explained = explained
		if seen.pause.Paused { // there is no work for it
			v.reserved, v.ready, v.known, v.waits = 0, 0, true, false
		}
		w.progress.period = a.patience(time.Duration(d.period.Load()))
		what, why := w.progress.look(now, v)
		d.act(a, w, what, why)
		if w.progress.stuck && stalled == nil {
			stalled = &Stall{Reason: fmt.Sprintf("worker %d: %s", i, w.stuckBy), Since: now.Add(-w.progress.total)}
		}
	}
	d.tellStalled(a, stalled)
}

// patience is the period for an app: the watchdog's, or its push_timeout if that is longer, because
// a push may take that long.
func (a *app) patience(period time.Duration) time.Duration { return max(period, a.cfg.PushTimeout) }

// probeLate reports whether the probe of a broken or guarded app is overdue, so that its state
// explains nothing any more.
func (a *app) probeLate(b worker.BreakerState, now time.Time) bool {
	return now.Sub(b.Probe) > worker.ProbeEvery+a.cfg.PushTimeout
}

// viewOf returns what progress needs of a worker's status.
func viewOf(s worker.Status, jobs available) view {
	// Jobs that linger are finished and only wait for the queue.
	v := view{reserved: s.Reserved - s.Lingering, finished: s.Finished, received: s.Received, ready: jobs.ready, known: jobs.known, cause: s.Waiting, last: last(s.Cause)}
	if s.Paced { // the jobs of its tube wait for max_rate, and each worker for its turn
		v.reserved, v.ready, v.known = 0, 0, true
	}
	if s.PendingAnswers > 0 && s.InFlight == 0 {
		v.reserved = 0 // they wait for the guard, which bounds that wait itself
	}
	if !s.Serving {
		v.cause = "the worker does not run" // it is being restarted
	}
	// Without its queue a worker cannot know whether there are jobs. A worker that cannot put
	// records or remaining tokens has some.
	v.waits = s.QueueErr != nil || s.Unstored != nil
	return v
}

// last is what a worker's last plan waited for, as the end of a reason.
func last(c worker.Cause) string {
	if c == "" {
		return ""
	}
	return " (" + string(c) + ")"
}

// act takes a step for one worker.
func (d *watchdog) act(a watched, w *appWorker, what step, why string) {
	log := d.log.With("app", a.cfg.Name, "topic", a.cfg.Topic, "worker", w.index, "reason", why)
	switch what {
	case replace:
		log.Warn("watchdog: no progress: the worker's connection to apns is replaced")
		a.totals.steps.Replaced.note(fmt.Sprintf("worker %d: %s", w.index, why), time.Now())
		w.Replace(why)
	case restart:
		log.Warn("watchdog: no progress: the worker is restarted")
		a.totals.steps.Restarted.note(fmt.Sprintf("worker %d: %s", w.index, why), time.Now())
		w.restartable.Restart()
	case stall:
		log.Error("watchdog: no progress: the worker stalls")
		w.stuckBy = why
	case recovered:
		log.Info("watchdog: worker recovered")
		w.stuckBy = ""
	}
}

// tellStalled stores whether an app stalls, and logs a change.
func (d *watchdog) tellStalled(a watched, now *Stall) {
	was := a.stalled.Swap(now)
	switch {
	case was == nil && now != nil:
		a.totals.steps.Stalled.note(now.Reason, time.Now())
		d.log.Error("app stalls: it has jobs and finishes none", "app", a.cfg.Name, "topic", a.cfg.Topic, "reason", now.Reason, "since", now.Since)
	case was != nil && now == nil:
		d.log.Info("app recovered: it finishes jobs again", "app", a.cfg.Name, "topic", a.cfg.Topic, "after", time.Since(was.Since).Round(time.Second))
	}
}

// questions are those that the watchdog asks the queue in one look at all apps, one after the
// other.
type questions struct {
	admin  queue.Admin   // nil: it cannot be asked
	each   time.Duration // time for each; shorter after one was not answered in time
	end    time.Time     // no questions after this
	failed error         // of the first question that failed; nil for none
}

const (
	// statsTime bounds a question.
	statsTime = 5 * time.Second
	// countTime bounds a count of all tubes, which is one question to some engines and
	// thousands to others; countRest is how many times as long as the last one the pause
	// after it is at least.
	countTime = 10 * time.Second
	countRest = 50
	// statsShort bounds a question after one that was not answered in time: a frozen server will
	// not answer either, and others answer within milliseconds.
	statsShort = 250 * time.Millisecond
)

var errNotAsked = errors.New("not asked")

// ask asks for the numbers of a tube. The error is errNotAsked if the queue was not asked. With
// any other error, some of several servers may have answered nevertheless.
func (q *questions) ask(ctx context.Context, tube string) (queue.TubeStats, error) {
	if q.admin == nil || time.Now().After(q.end) {
		return queue.TubeStats{}, errNotAsked
	}
	asking, cancel := context.WithTimeout(ctx, q.each)
	defer cancel()
	st, err := q.admin.TubeStats(asking, tube)
	if errors.Is(err, context.DeadlineExceeded) {
		q.each = min(q.each, statsShort)
	}
	q.failed = cmp.Or(q.failed, err)
	return st, err
}

// available is how many jobs of a tube a consumer could receive now, if known.
type available struct {
	ready int
	known bool
}

// available asks for the numbers of a tube, and stores them for the status.
func (q *questions) available(ctx context.Context, tube string, stats *atomic.Pointer[QueueStats]) available {
	st, err := q.ask(ctx, tube)
	switch {
	case errors.Is(err, errNotAsked):
	case err == nil:
		stats.Store(&QueueStats{TubeStats: st, At: time.Now()})
	case errors.Is(err, queue.ErrPartial):
		stats.Store(&QueueStats{st, time.Now(), err.Error()})
	default:
		stats.Store(nil)
	}
	return obtainable(st, err)
}

// obtainable interprets an answer: jobs of the servers that did answer count.
func obtainable(st queue.TubeStats, err error) available {
	n := st.Ready - st.Paused
	return available{n, err == nil || n > 0}
}

// Steps count what the watchdog did about one app or its webhook since the process began.
type Steps struct {
	Replaced  StepCount // connections to APNs
	Restarted StepCount // workers
	Stalled   StepCount // how often the app began to stall
}

// StepCount counts the steps of one kind and keeps the last one.
type StepCount struct {
	atomic.Int64
	last atomic.Pointer[Step]
}

// Step is one step of the watchdog.
type Step struct {
	Reason string // as in the log, with the worker
	At     time.Time
}

// Last is the last step; nil for none.
func (c *StepCount) Last() *Step { return c.last.Load() }

// note counts a step. Only the watchdog calls it.
func (c *StepCount) note(reason string, now time.Time) {
	c.last.Store(&Step{reason, now})
	c.Add(1)
}
