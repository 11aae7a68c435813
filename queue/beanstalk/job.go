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
	"propeller/queue/lease"
)

// job is a reserved job, from the reserve that delivered it until it is
// settled. The connection that holds its reservation may change meanwhile.
type job struct {
	lease.Lease[*job] // guarded by src.srv.mu, but for Number

	body      []byte
	src       *source   // delivered it; settles it when no connection holds it
	reserved  time.Time // by the first reserve
	tombstone bool      // it has only the sum of its body
	sum       uint64

	// Guarded by src.srv.mu.
	instance string     // id of the server process known to have the job
	sess     *session   // holds the reservation; nil: none does, as far as known
	loose    bool       // settled while some connection may just have reserved it anew; see looseLocked
	sent     bool       // a delete was sent on a connection that then broke
	result   chan error // of the settle; room for one

	settle settlement // written once, when settling begins
	// buriedAs is the id of the buried job that replaced this one; 0 if none has.
	buriedAs atomic.Uint64
}

var _ queue.Job = (*job)(nil)

// ID implements queue.Job: "123", or "host:port/123" with several servers.
func (j *job) ID() string { return j.src.srv.jobID(cmp.Or(j.buriedAs.Load(), j.Number)) }

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
		stats, err := s.statsJob(j.Number)
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

// Touch implements queue.Job. Held jobs are touched without it, see touchLocked.
func (j *job) Touch(ctx context.Context) error {
	return j.src.srv.call(ctx, func() error {
		s, bound, err := j.route()
		if err != nil {
			return err
		}
		if !bound {
			return j.explain(gobeanstalk.ErrNotFound)
		}
		return j.explain(s.touch(j.Number))
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
	if j.Over() {
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
	j.sess, j.instance = s, s.instance
	j.src.srv.jobs.Bind(&j.Lease, &s.held, now)
}

// unbindLocked says that no connection holds the reservation any more.
func (j *job) unbindLocked() {
	j.sess = nil
	j.src.srv.jobs.Unbind(&j.Lease)
}

// unlistLocked makes the next reserve of the same id a new delivery. It
// comes before every command that makes the job available to others: the
// answer to a reserve behind it may be handled before the answer to it.
func (j *job) unlistLocked() { j.src.srv.jobs.Unlist(&j.Lease) }

// endLocked removes every trace of the job.
func (j *job) endLocked(as lease.State) {
	j.sess = nil
	j.src.srv.jobs.End(&j.Lease, as)
}
