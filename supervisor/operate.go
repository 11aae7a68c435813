package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"propeller/queue"
)

// Put puts a job into an app's tube, to be served after delay. Errors: ErrNoApp, those of
// queue.Queue.
func (s *Supervisor) Put(ctx context.Context, app string, body []byte, delay time.Duration) (id string, err error) {
	s.mu.Lock()
	a, q := s.apps[app], s.queue
	s.mu.Unlock()
	if a == nil {
		return "", noApp(app)
	}
	id, err = q.Put(ctx, a.cfg.Tube, body, queue.PutOptions{Delay: delay})
	a.puts.note(err, time.Now())
	return id, err
}

// NewJob is a job for PutAll.
type NewJob struct {
	App   string // its name
	Body  []byte
	Delay time.Duration
}

// PutAll puts jobs at less cost than Put, all at the same time, and returns the result of each in
// their order.
func (s *Supervisor) PutAll(ctx context.Context, jobs []NewJob) []queue.Stored {
	out := make([]queue.Stored, len(jobs))
	known := make([]queue.NewJob, 0, len(jobs)) // those that have an app
	place := make([]int, 0, len(jobs))          // of each known job in jobs
	apps := make([]*app, 0, len(jobs))
	s.mu.Lock()
	q := s.queue
	for i, j := range jobs {
		a := s.apps[j.App]
		if a == nil {
			out[i].Err = noApp(j.App)
			continue
		}
		known = append(known, queue.NewJob{Tube: a.cfg.Tube, Body: j.Body, PutOptions: queue.PutOptions{Delay: j.Delay}})
		place, apps = append(place, i), append(apps, a)
	}
	s.mu.Unlock()
	for i, stored := range queue.PutAll(ctx, q, known) {
		out[place[i]] = stored
		apps[i].puts.note(stored.Err, time.Now())
	}
	return out
}

// Pause holds an app: it takes no jobs until Resume, whatever a reload changes.
// reason is for its status. Errors: ErrNoApp.
func (s *Supervisor) Pause(app, reason string) error {
	a, err := s.app(app)
	if err == nil {
		a.totals.Pause(reason)
	}
	return err
}

// Resume lets a paused, broken or guarded app go on, at an operator's request. Errors:
// ErrNoApp.
func (s *Supervisor) Resume(app string) error {
	a, err := s.app(app)
	if err == nil {
		a.shared.Resume()
		s.sleep.calls.add(a.cfg.Tube) // it may have been called for while it was paused
	}
	return err
}

func (s *Supervisor) app(name string) (*app, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.apps[name]; a != nil {
		return a, nil
	}
	return nil, noApp(name)
}

func noApp(name string) error { return fmt.Errorf("app %.60q: %w", name, ErrNoApp) }

// puts follows whether the queue accepts the jobs that this process puts into an app's tube. It is
// safe for concurrent use: of puts that end at the same time, any may count as the last.
type puts struct {
	failed atomic.Pointer[failedPuts] // nil: the last put worked, or there was none
}

type failedPuts struct {
	since, last time.Time
	err         error // of the last
}

// putsForget is how long the last failed put counts: there may never be another one.
const putsForget = time.Minute

// note records how a put ended. A client that hung up, and a job that can never be put, say
// nothing about the queue.
func (p *puts) note(err error, now time.Time) {
	was := p.failed.Load()
	switch {
	case err == nil:
		if was != nil {
			p.failed.Store(nil)
		}
	case errors.Is(err, queue.ErrRejected), errors.Is(err, context.Canceled):
	case was == nil || now.Sub(was.last) > putsForget:
		p.failed.Store(&failedPuts{since: now, last: now, err: err})
	default:
		p.failed.Store(&failedPuts{since: was.since, last: now, err: err})
	}
}
