package beanstalk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
)

// job is a reserved job, from the reserve that delivered it until it is
// settled. The connection that holds its reservation may change meanwhile.
type job struct {
	id       uint64
	body     []byte
	src      *source   // delivered it; settles it when no connection holds it
	reserved time.Time // by the first reserve
	memo     bool      // this is only a memo of a job: without body
	sum      uint64    // of the body, in a memo

	// Guarded by src.srv.mu.
	instance string   // id of the server process known to have the job
	sess     *session // holds the reservation; nil: none does, as far as known
	state    jobState
	stale    bool       // counted in src.stale
	settling bool       // Done, Retry or Bury has been called
	loose    bool       // settled while some connection may just have reserved it anew; see looseLocked
	sent     bool       // a delete was sent on a connection that then broke
	result   chan error // of the settle; room for one

	settle settlement // written once, when settling begins
	// buriedAs is the id of the buried job that replaced this one; 0 if none has.
	buriedAs atomic.Uint64

	touched    time.Time // reserved or touched last
	prev, next *job      // neighbours in sess.held
}

var _ queue.Job = (*job)(nil)

type jobState uint8

const (
	stateWaiting jobState = iota // for Receive to hand it out
	stateHeld                    // by the worker
	stateGone                    // no longer ours: settled, on its way back or lost for good
)

// ID implements queue.Job: "123", or "host:port/123" with several servers.
func (j *job) ID() string { return j.src.srv.jobID(cmp.Or(j.buriedAs.Load(), j.id)) }

// Body implements queue.Job.
func (j *job) Body() []byte { return j.body }

// Stat implements queue.Job with one stats-job command. It does not wait for a
// server that is away (ErrUnavailable).
func (j *job) Stat(ctx context.Context) (queue.Stat, error) {
	var st queue.Stat
	err := j.src.srv.call(ctx, func() error {
		s, bound, err := j.route()
		if err != nil {
			return err
		}
		if !bound {
			if err := s.recognise(j); err != nil {
				return err
			}
		}
		stats, err := s.statsJob(j.id)
		if err != nil {
			return j.explain(err)
		}
		st, err = parseStat(stats)
		return err
	})
	if err != nil {
		return queue.Stat{}, err // st may still be written
	}
	return st, nil
}

// Touch implements queue.Job. The keeper touches by itself.
func (j *job) Touch(ctx context.Context) error {
	return j.src.srv.call(ctx, func() error {
		s, bound, err := j.route()
		if err != nil {
			return err
		}
		if !bound {
			return j.explain(gobeanstalk.ErrNotFound)
		}
		return j.explain(s.touch(j.id))
	})
}

// explain turns NOT_FOUND into ErrLost with the job's id.
func (j *job) explain(err error) error {
	if errors.Is(err, gobeanstalk.ErrNotFound) {
		return j.lost()
	}
	return err
}

func (j *job) lost() error { return fmt.Errorf("beanstalk: job %s: %w", j.ID(), queue.ErrLost) }

// route returns the connection to reach the job on: the one that holds the
// reservation (bound), else the one its own source has now.
func (j *job) route() (s *session, bound bool, err error) {
	srv := j.src.srv
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if j.state == stateGone {
		return nil, false, j.lost()
	}
	s, bound = j.routeLocked()
	if s == nil {
		return nil, false, &brokenError{addr: srv.addr, err: errors.New("not connected")}
	}
	return s, bound, nil
}

func (j *job) routeLocked() (s *session, bound bool) {
	if j.sess.aliveLocked() {
		return j.sess, true
	}
	if j.src.sess.aliveLocked() {
		return j.src.sess, false
	}
	return nil, false
}

// bindLocked says that s holds the reservation from now on.
func (j *job) bindLocked(s *session, now time.Time) {
	if j.sess != nil {
		j.sess.held.remove(j)
	}
	j.freshLocked()
	j.sess, j.instance, j.touched = s, s.instance, now
	s.held.add(j)
}

// strayLocked says that no connection holds the reservation any more.
func (j *job) strayLocked() {
	if j.sess != nil {
		j.sess.held.remove(j)
		j.sess = nil
	}
	switch j.state {
	case stateWaiting: // nobody has seen it: it will be reserved anew
		j.forgetLocked()
	case stateHeld:
		if !j.stale {
			j.stale = true
			j.src.stale++
		}
	}
}

func (j *job) freshLocked() {
	if j.stale {
		j.stale = false
		j.src.stale--
	}
}

// unregisterLocked makes the next reserve of the same id a new delivery. It
// comes before every command that makes the job available to others: the
// answer to a reserve behind it may be handled before the answer to it.
func (j *job) unregisterLocked() {
	if srv := j.src.srv; srv.jobs[j.id] == j {
		delete(srv.jobs, j.id)
	}
}

// forgetLocked removes every trace of the job.
func (j *job) forgetLocked() {
	j.unregisterLocked()
	if j.sess != nil {
		j.sess.held.remove(j)
		j.sess = nil
	}
	j.freshLocked()
	j.state = stateGone
}

// jobList is a list of jobs linked through themselves: at 50,000 jobs a second
// a map would be felt.
type jobList struct {
	first, last *job
	n           int
}

func (l *jobList) add(j *job) {
	j.prev, j.next = l.last, nil
	if l.last != nil {
		l.last.next = j
	} else {
		l.first = j
	}
	l.last = j
	l.n++
}

func (l *jobList) remove(j *job) {
	if j.prev != nil {
		j.prev.next = j.next
	} else {
		l.first = j.next
	}
	if j.next != nil {
		j.next.prev = j.prev
	} else {
		l.last = j.prev
	}
	j.prev, j.next = nil, nil
	l.n--
}
