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
	// Err says why no job can be noticed at present, wrapped around ErrUnavailable; nil when
	// one can. With several servers, one that answers is enough, as for Consumer.Err.
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

// Sleepers is the set of tubes of a Watch, for the engines. It is safe for concurrent use, and
// every put asks it, so that a tube that does not sleep is found out without a lock.
type Sleepers struct {
	wake  func(tube string)
	tubes sync.Map
	n     atomic.Int64 // tubes in it
}

// NewSleepers returns an empty set whose tubes are woken by wake.
func NewSleepers(wake func(tube string)) *Sleepers { return &Sleepers{wake: wake} }

// Add adds a tube, and reports whether it was absent.
func (s *Sleepers) Add(tube string) (added bool) {
	s.n.Add(1) // first, so that it is never too small
	_, has := s.tubes.LoadOrStore(tube, nil)
	if has {
		s.n.Add(-1)
	}
	return !has
}

// Remove takes a tube out, and reports whether it was there.
func (s *Sleepers) Remove(tube string) (removed bool) {
	if !s.Has(tube) {
		return false
	}
	if _, removed = s.tubes.LoadAndDelete(tube); removed {
		s.n.Add(-1)
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
	_, has := s.tubes.Load(tube)
	return has
}

// Len is how many tubes sleep.
func (s *Sleepers) Len() int { return int(s.n.Load()) }

// All returns the tubes that sleep, in no order.
func (s *Sleepers) All() []string {
	out := make([]string, 0, s.Len())
	for tube := range s.tubes.Range {
		out = append(out, tube.(string))
	}
	return out
}
