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
	queue func() (q queue.Admin, known map[string]bool, former map[string]formerTube) // nil if the queue cannot be asked
	found *atomic.Pointer[[]UnknownTube]
	told  map[string]bool // former tubes that the last look warned of, or one before
	// reloaded says that a reload has changed the apps. cap 1
	reloaded chan struct{}
}

// formerTube is a tube that an app had by default before it got a name.
type formerTube struct {
	app, topic string
	line       string // of the app's entry, to keep the tube
}

// String names the service in suture's events.
func (*unknownTubes) String() string { return "reader of tubes" }

// Serve looks until ctx ends.
func (u *unknownTubes) Serve(ctx context.Context) error {
	again := true
	for {
		began, pause := time.Now(), unknownRetry
		if u.look(ctx, again) {
			pause, again = unknownEvery, false
		}
		rest := time.NewTimer(max(pause, unknownRest*time.Since(began)))
		select {
		case <-rest.C:
		case <-u.reloaded:
			rest.Stop()
			again = true
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		}
	}
}

// look looks once and reports whether the queue answered. If it did not, nothing changes: the
// apps show that the queue is down. again: former tubes are warned of even if they were before.
func (u *unknownTubes) look(ctx context.Context, again bool) bool {
	q, known, former := u.queue()
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
	told := make(map[string]bool)
	for _, name := range names {
		had, was := former[name]
		if known[name] || len(found) >= maxUnknown && !was {
			continue
		}
		st, err := q.TubeStats(ctx, name)
		if err != nil || st == (queue.TubeStats{}) {
			continue
		}
		if len(found) < maxUnknown {
			found = append(found, UnknownTube{name, st})
		}
		told[name] = was
		switch {
		case was && (again || !u.told[name]):
			u.log.Warn("tube has jobs, but no app works on it: an app had it by default before it got a name; the line keeps it", "app", had.app, "topic", had.topic, "tube", name, "line", had.line, "ready", st.Ready, "delayed", st.Delayed, "buried", st.Buried)
		case !was && !before[name]:
			u.log.Warn("tube has jobs, but no app works on it", "tube", name, "ready", st.Ready, "delayed", st.Delayed, "buried", st.Buried)
		}
	}
	u.found.Store(&found)
	u.told = told
	return true
}

// allTubes returns the queue, if it can list its tubes, the tubes that belong to apps, and those
// that did before the apps got names.
func (s *Supervisor) allTubes() (queue.Admin, map[string]bool, map[string]formerTube) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, ok := s.queue.(queue.Admin)
	if !ok {
		return nil, nil, nil
	}
	known := make(map[string]bool, 2*len(s.apps))
	for _, a := range s.apps {
		known[a.cfg.Tube], known[a.cfg.Tube+".feedback"], known[a.cfg.Feedback.Tube] = true, true, true
	}
	return q, known, s.formerTubes()
}

// formerTubes returns the tubes that apps had by default, if they have their default tubes now. Of
// several apps of a topic the first by name is told. s.mu is held.
func (s *Supervisor) formerTubes() map[string]formerTube {
	former := make(map[string]formerTube)
	for name, a := range s.apps {
		topic := a.cfg.Topic
		if before, ok := former[topic]; name == topic || a.cfg.Tube != name || ok && before.app < name {
			continue
		}
		former[topic] = formerTube{name, topic, "tube: " + topic}
		former[topic+".feedback"] = formerTube{name, topic, "feedback: {tube: " + topic + ".feedback}"}
	}
	return former
}
