package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"propeller/queue"
	"propeller/queue/journal"
)

const (
	// rebuildEvery is between two looks at the journal, which can be lost while it
	// is in use, and at the tubes that are to be rebuilt.
	rebuildEvery = time.Minute
	// maxRebuildPause is the longest time until a tube that could not be rebuilt
	// is tried again: a queue server may be away for days.
	maxRebuildPause = time.Hour
)

// rebuilder is a service that fills a journal that was lost with what lies
// buried, so that the operator need not wait for that when asking.
type rebuilder struct {
	log     *slog.Logger
	journal func() *journal.Journal
	views   func() map[string]journal.Jobs

	of      *journal.Journal // the journal last seen
	seen    int              // how often it had been begun anew
	todo    map[string]again // the tubes that are yet to be rebuilt
	entered int              // jobs, since it was lost
	warned  bool             // that some tube is not rebuilt yet
	unseen  bool             // the last look at the journal failed, which has been logged
}

// again is when a tube is tried again.
type again struct {
	at    time.Time
	pause time.Duration // before that
}

// String names the service in suture's events.
func (*rebuilder) String() string { return "journal rebuilder" }

// Serve looks now and then.
func (r *rebuilder) Serve(ctx context.Context) error {
	tick := time.NewTicker(rebuildEvery)
	defer tick.Stop()
	for {
		r.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look notices that the journal was lost, and rebuilds what is due.
func (r *rebuilder) look(ctx context.Context, now time.Time) {
	j := r.journal()
	if j == nil {
		return
	}
	err := j.Check()
	if err != nil && !r.unseen {
		r.log.Warn("the file of the journal of buried jobs cannot be looked at", "err", err)
	}
	r.unseen = err != nil
	views := r.views()
	if n := j.Rebuilt(); j != r.of || n != r.seen {
		r.of, r.seen, r.entered, r.warned = j, n, 0, false
		r.todo = make(map[string]again, len(views))
		for tube := range views {
			if n > 0 {
				r.todo[tube] = again{}
			}
		}
	}
	if len(r.todo) > 0 {
		r.rebuild(ctx, views, now)
	}
}

// rebuild goes through the tubes that are due. What fails is tried again, after
// longer and longer pauses; the others do not wait for it. Of several queue
// servers those that answer are rebuilt, and then only counted until the rest
// is back, see journal.Jobs.Rebuild.
func (r *rebuilder) rebuild(ctx context.Context, views map[string]journal.Jobs, now time.Time) {
	for _, tube := range slices.Sorted(maps.Keys(r.todo)) {
		view, there := views[tube]
		if !there { // its app has left the configuration
			delete(r.todo, tube)
			continue
		}
		try := r.todo[tube]
		if now.Before(try.at) {
			continue
		}
		n, err := view.Rebuild(ctx, tube)
		r.entered += n
		if ctx.Err() != nil {
			return
		}
		if err == nil || errors.Is(err, queue.ErrCut) { // there is no more to be had
			delete(r.todo, tube)
			continue
		}
		try.pause = min(max(2*try.pause, rebuildEvery), maxRebuildPause)
		try.at = now.Add(try.pause)
		r.todo[tube] = try
		if !r.warned {
			r.warned = true
			r.log.Warn("the journal of buried jobs is not rebuilt yet", "tube", tube, "err", err)
		}
	}
	if len(r.todo) == 0 {
		r.log.Info("the journal of buried jobs is rebuilt from the queue", "jobs", r.entered)
	}
}
