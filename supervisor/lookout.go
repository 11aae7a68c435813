package supervisor

import (
	"context"
	"time"

	"propeller/worker"
)

// lookout is a service that notices since when apps have no queue, or one that
// takes nothing. The watchdog would, too, but only after three of its periods, and whoever asks for readiness
// must not be told for minutes that all is well. It asks the workers, not the
// queue, so that a look costs microseconds.
type lookout struct {
	apps func() []watched
}

const (
	lookEvery = time.Second
	// awayGrace is how long a queue may be away before the app is not ready:
	// above what a restart of the queue takes, and a worker's first connection.
	awayGrace = 5 * time.Second
)

// String names the lookout in suture's events.
func (*lookout) String() string { return "lookout" }

// Serve looks at all apps once a second.
func (l *lookout) Serve(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for _, a := range l.apps() {
			seen := make([]worker.Status, len(a.workers))
			for i, w := range a.workers {
				seen[i] = w.Status()
			}
			a.noteQueue(seen, time.Now())
		}
	}
}

// noteQueue notes since when the app's workers have no use of the queue.
func (a *app) noteQueue(seen []worker.Status, now time.Time) {
	why := useless(seen)
	was := a.away.Load()
	switch {
	case why == "":
		a.away.Store(nil)
	case was == nil:
		a.away.Store(&Stall{Reason: why, Since: now})
	default:
		a.away.Store(&Stall{Reason: why, Since: was.Since})
	}
}

// queueAway is why the workers of seen, which the app's are now, have no use of
// the queue, or why it takes no jobs of those who put some; nil if all is well,
// or has been within awayGrace.
func (a *app) queueAway(seen []worker.Status, now time.Time) *Stall {
	s := a.away.Load()
	if s == nil || now.Sub(s.Since) < awayGrace || useless(seen) == "" {
		return a.puts.failing(now)
	}
	return s
}

// useless is why none of the workers can receive jobs, or one cannot put what has
// to be put before its jobs are settled; "" if there is no such reason.
func useless(workers []worker.Status) string {
	if why := queueGone(workers); why != nil {
		return "queue unavailable: " + why.Error()
	}
	for _, w := range workers {
		if w.Unstored != nil {
			return "the queue takes no records: " + w.Unstored.Error()
		}
	}
	return ""
}

// queueGone is why none of the workers that serve can receive jobs; nil if one
// can, or none serves.
func queueGone(workers []worker.Status) (why error) {
	for _, w := range workers {
		switch {
		case !w.Serving:
		case w.QueueErr == nil:
			return nil
		case why == nil:
			why = w.QueueErr
		}
	}
	return why
}
