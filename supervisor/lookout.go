package supervisor

import (
	"context"
	"log/slog"
	"time"
)

// lookout is a service that notes when apps' states change, for example since when an
// app has been without its queue or APNs. It asks the workers, not the queue, so that a
// look costs microseconds.
type lookout struct {
	log  *slog.Logger
	apps func() []watched
}

const lookEvery = time.Second

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
			l.look(a, time.Now())
		}
	}
}

// look looks at one app.
func (l *lookout) look(a watched, now time.Time) {
	seen, was := a.look(now), a.before()
	is := was.after(&seen)
	if is == was {
		return
	}
	a.past.Store(&is)
	// All other changes of state are logged where they are noticed.
	switch {
	case is.health.State == Failing && was.health.State != Failing:
		l.log.Warn("app fails: most of its pushes are not delivered", "topic", a.cfg.Topic, "reason", is.health.Reason)
	case was.health.State == Failing && is.health.State != Failing:
		l.log.Info("app recovered: most of its pushes are delivered again", "topic", a.cfg.Topic, "state", is.health.State)
	}
}
