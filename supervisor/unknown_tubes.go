package supervisor

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"propeller/queue"
)

// UnknownTube is a tube with jobs that belongs to no app, for example because a producer
// misspelled a topic or an app was removed.
type UnknownTube struct {
	Name string
	queue.TubeStats
}

// UnknownTubes returns the tubes with jobs that belong to no app, as last seen, at most a few
// minutes ago: the first maxUnknown by name.
func (s *Supervisor) UnknownTubes() []UnknownTube {
	if found := s.unknown.Load(); found != nil {
		return *found
	}
	return nil
}

const (
	// maxUnknown bounds the tubes that are reported: other programs may share the queue.
	maxUnknown = 20
	// unknownEvery is the pause between two looks. With many tubes a look is work for the queue,
	// so the pause is also at least unknownRest times as long as the last look took.
	unknownEvery = time.Minute
	unknownRest  = 100
	// unknownRetry is the time to the next look if the queue did not answer.
	unknownRetry = 5 * time.Second
	// unknownTime bounds one look.
	unknownTime = 30 * time.Second
)

// unknownTubes is a service that looks for tubes that belong to no app.
type unknownTubes struct {
	log   *slog.Logger
	queue func() (q queue.Admin, known map[string]bool) // nil if the queue cannot be asked
	found *atomic.Pointer[[]UnknownTube]
}

// String names the service in suture's events.
func (*unknownTubes) String() string { return "reader of tubes" }

// Serve looks until ctx ends.
func (u *unknownTubes) Serve(ctx context.Context) error {
	for {
		began, pause := time.Now(), unknownRetry
		if u.look(ctx) {
			pause = unknownEvery
		}
		rest := time.NewTimer(max(pause, unknownRest*time.Since(began)))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		}
	}
}

// look looks once and reports whether the queue answered. If it did not, nothing changes: the
// apps show that the queue is down.
func (u *unknownTubes) look(ctx context.Context) bool {
	q, known := u.queue()
	if q == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, unknownTime)
	defer cancel()
	names, err := q.Tubes(ctx)
	if err != nil {
		return false
	}
	before := make(map[string]bool)
	if old := u.found.Load(); old != nil {
		for _, t := range *old {
			before[t.Name] = true
		}
	}
	var found []UnknownTube
	for _, name := range names {
		if known[name] || len(found) == maxUnknown {
			continue
		}
		st, err := q.TubeStats(ctx, name)
		if err != nil || st == (queue.TubeStats{}) {
			continue
		}
		found = append(found, UnknownTube{name, st})
		if !before[name] {
			u.log.Warn("tube has jobs, but no app works on it", "tube", name, "ready", st.Ready, "delayed", st.Delayed, "buried", st.Buried)
		}
	}
	u.found.Store(&found)
	return true
}

// allTubes returns the queue, if it can list its tubes, and the tubes that belong to apps.
func (s *Supervisor) allTubes() (queue.Admin, map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, ok := s.queue.(queue.Admin)
	if !ok {
		return nil, nil
	}
	known := make(map[string]bool, 2*len(s.apps))
	for _, a := range s.apps {
		known[a.cfg.Tube], known[a.cfg.Tube+".feedback"], known[a.cfg.Feedback.Tube] = true, true, true
	}
	return q, known
}
