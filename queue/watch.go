package queue

import (
	"context"
	"sync"
	"sync/atomic"
)

// Watcher is a Queue that can tell when a tube without a consumer has jobs. Queues that offer
// it implement it beside Queue.
type Watcher interface {
	// Watch starts a Watch that has no tubes yet. It does not wait for the engine. wake is
	// called with a tube that has to wake up; it may be called from any goroutine, and must
	// neither block nor call the Watch. The owner closes the Watch before the Queue.
	Watch(wake func(tube string)) Watch
	// Empty reports whether a tube may do without a consumer: it has no job that is ready
	// or held, and none that only a consumer brings back, as jobs that wait for a retry may
	// be. Errors: as Admin.TubeStats.
	Empty(ctx context.Context, tube string) (bool, error)
}

// Watch watches the tubes of apps that sleep: they have no consumer, and cost next to nothing.
// Its methods may be called from any goroutine.
type Watch interface {
	// Sleep adds tubes to those watched. As soon as a consumer could receive a job of one of
	// them, wake is called with it, once, and the tube is watched no longer. Jobs that were
	// there before count, whoever put them, and so do delayed jobs when they come due. wake
	// may also be called for nothing, for example because another process was faster. Sleep
	// does not wait for the engine; while that cannot be reached tubes may wake late, but
	// they do wake.
	Sleep(tubes ...string)
	// Forget takes tubes out. wake may still be called for those that were about to wake.
	Forget(tubes ...string)
	// Err says why jobs may go unnoticed at present, wrapped around ErrUnavailable; nil when
	// all is well.
	Err() error
	// Close ends the Watch and everything that it started.
	Close()
}

// Counter is an Admin that counts the jobs of all tubes in fewer requests than one per tube.
type Counter interface {
	// AllStats counts the jobs of all tubes that have any; other tubes are absent. Where the
	// engine cannot say what becomes of a tube's jobs without asking about that tube alone,
	// those that are not buried or put with a delay count as ready. Errors: as TubeStats.
	AllStats(ctx context.Context) (map[string]TubeStats, error)
}

// Sleepers is the set of tubes of a Watch, for the engines. It is safe for concurrent use.
type Sleepers struct {
	wake func(tube string)
	n    atomic.Int64 // len(tubes), so that puts need no lock while nothing sleeps

	mu    sync.Mutex
	tubes map[string]struct{}
}

// NewSleepers returns an empty set whose tubes are woken by wake.
func NewSleepers(wake func(tube string)) *Sleepers {
	return &Sleepers{wake: wake, tubes: make(map[string]struct{})}
}

// Add adds a tube, and reports whether it was absent.
func (s *Sleepers) Add(tube string) (added bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, has := s.tubes[tube]; has {
		return false
	}
	s.tubes[tube] = struct{}{}
	s.n.Store(int64(len(s.tubes)))
	return true
}

// Remove takes a tube out, and reports whether it was there.
func (s *Sleepers) Remove(tube string) (removed bool) {
	if s.n.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, removed = s.tubes[tube]; removed {
		delete(s.tubes, tube)
		s.n.Store(int64(len(s.tubes)))
	}
	return removed
}

// Wake removes a tube and wakes it, if it sleeps. It reports whether it did.
func (s *Sleepers) Wake(tube string) (woken bool) {
	if woken = s.Remove(tube); woken {
		s.wake(tube)
	}
	return woken
}

// Has reports whether a tube sleeps.
func (s *Sleepers) Has(tube string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.tubes[tube]
	return has
}

// Len is how many tubes sleep.
func (s *Sleepers) Len() int { return int(s.n.Load()) }

// All returns the tubes that sleep, in no order.
func (s *Sleepers) All() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(s.tubes))
	for tube := range s.tubes {
		out = append(out, tube)
	}
	return out
}
