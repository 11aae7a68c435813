package beanstalk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/lease"
)

// job is a reserved job, from the reserve that delivered it until it is
// settled. The connection that holds its reservation may change meanwhile.
type job struct {
	lease.Lease[*job] // guarded by loop.srv.mu, but for Number

	body       []byte
	loop       *connLoop // delivered it; settles it when no connection holds it
	reservedAt time.Time // by the first reserve
	tombstone  bool      // it has only the sum of its body
	sum        uint64

	// Guarded by loop.srv.mu.
	instance      string     // id of the server process known to have the job
	sess          *session   // holds the reservation; nil: none does, as far as known
	maybeReserved bool       // settled while another connection may just have reserved it; see maybeReservedLocked
	sent          bool       // a delete was sent on a connection that then broke
	result        chan error // of the settle; room for one

	settle settlement // written when settling begins
	// buriedAs is the id of the buried job that replaced this one; 0 if none has.
	buriedAs atomic.Uint64
}

var _ queue.Job = (*job)(nil)

// ID implements queue.Job: "123", or "host:port/123" with several servers.
func (j *job) ID() string { return j.loop.srv.jobID(cmp.Or(j.buriedAs.Load(), j.Number)) }

// Body implements queue.Job.
func (j *job) Body() []byte { return j.body }

// Stat implements queue.Job with one stats-job command. It does not wait for a
// server that is away (ErrUnavailable).
func (j *job) Stat(ctx context.Context) (queue.Stat, error) {
	var st queue.Stat
	err := j.loop.srv.call(ctx, func() error {
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
		st.Attempt = max(1, st.Attempt-j.loop.srv.sweptBefore(s.instance, j.Number))
		return err
	})
	if err != nil {
		return queue.Stat{}, err // st may still be written
	}
	return st, nil
}

// Touch implements queue.Job. Held jobs are touched without it, see touchLocked.
func (j *job) Touch(ctx context.Context) error {
	return j.loop.srv.call(ctx, func() error {
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
// reservation (bound), else the one its own loop has now.
func (j *job) route() (s *session, bound bool, err error) {
	srv := j.loop.srv
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
	if j.loop.sess.aliveLocked() {
		return j.loop.sess, false
	}
	return nil, false
}

// bindLocked says that s holds the reservation from now on.
func (j *job) bindLocked(s *session, now time.Time) {
	j.sess, j.instance = s, s.instance
	j.loop.srv.jobs.Bind(&j.Lease, &s.reserved, now)
}

// unbindLocked says that no connection holds the reservation any more.
func (j *job) unbindLocked() {
	j.sess = nil
	j.loop.srv.jobs.Unbind(&j.Lease)
}

// unlistLocked makes the next reserve of the same id a new delivery. It
// comes before every command that makes the job available to others: the
// answer to a reserve behind it may be handled before the answer to it.
func (j *job) unlistLocked() { j.loop.srv.jobs.Unlist(&j.Lease) }

// endLocked removes every trace of the job.
func (j *job) endLocked(as lease.State) {
	j.sess = nil
	j.loop.srv.jobs.End(&j.Lease, as)
}

// settlement is how a job ends.
type settlement struct {
	action action
	after  time.Duration // of a retry
	copy   *replacement  // nil unless the job is buried with another body
}

// removes reports whether the settlement has deleted the job from the server, or was
// about to.
func (how settlement) removes() bool {
	return how.action == actionDone || how.copy != nil && how.copy.safe
}

type action uint8

const (
	actionDone action = iota
	actionRetry
	actionBury
)

// Done implements queue.Job. When ctx ends during an outage, the job is still
// deleted once the server is back, provided that the consumer is open then.
func (j *job) Done(ctx context.Context) error {
	return j.finish(ctx, settlement{action: actionDone})
}

// Retry implements queue.Job: the job keeps its priority; after is rounded up
// to whole seconds. While the server is away it returns nil at once: the job
// is served again as soon as the server is back.
func (j *job) Retry(ctx context.Context, after time.Duration) error {
	return j.finish(ctx, settlement{action: actionRetry, after: wholeSeconds(after)})
}

// finish settles the job and waits for it, up to ctx's end. A command that has
// been sent cannot be taken back; it is waited for in the background.
func (j *job) finish(ctx context.Context, how settlement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	loop, srv := j.loop, j.loop.srv
	srv.mu.Lock()
	switch err := srv.jobs.Settle(&j.Lease); {
	case errors.Is(err, queue.ErrLost) && how.action == actionRetry:
		srv.mu.Unlock()
		return nil // it is back
	case err != nil: // its id may be another job's by now
		srv.mu.Unlock()
		return fmt.Errorf("beanstalk: job %s: %w", j.ID(), err)
	}
	result := make(chan error, 1)
	j.settle, j.result = how, result
	loop.owner.Enter()
	inline := ctx.Done() == nil
	if !inline && !srv.spawnLocked(j.drive) {
		inline = true // closed: drive has no one to talk to and returns at once
	}
	srv.mu.Unlock()
	if inline {
		j.drive()
	}

	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		err = ctx.Err()
	}
	srv.mu.Lock()
	loop.owner.Leave()
	srv.mu.Unlock()
	return err
}

// drive carries the settlement out on whatever connection reaches the job, and
// on the next one when that breaks. Without a connection it leaves the job on
// its loop's list of pending ones: the goroutine that gets a connection to it drives
// on. One goroutine at a time drives a job.
func (j *job) drive() {
	srv := j.loop.srv
	for {
		srv.mu.Lock()
		s, bound := j.routeLocked()
		j.maybeReserved = j.maybeReserved || j.maybeReservedLocked(bound, time.Now())
		retry := j.settle.action == actionRetry
		over := j.Over() || (s == nil && (srv.closed || j.loop.closed))
		if over && !retry {
			srv.mu.Unlock()
			j.conclude(j.lost())
			return
		}
		if s == nil && !retry {
			j.loop.pending[j] = struct{}{}
			srv.mu.Unlock()
			return
		}
		srv.mu.Unlock()

		var err error
		switch {
		case retry && (over || !bound):
			// Lost, so it is back already.
		case retry:
			if err = s.release(j, j.settle.after); isBroken(err) {
				err = nil // the server gives back what the connection held
			}
		case j.settle.action == actionBury:
			err = s.bury(j, bound)
		default:
			err = s.delete(j, bound)
		}
		if !j.again(s, err) {
			j.conclude(err)
			return
		}
	}
}

// again says whether a settlement that came out as err on s is to be tried on
// another connection.
func (j *job) again(s *session, err error) bool {
	srv := j.loop.srv
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch {
	case isBroken(err):
		j.sent = j.sent || maybeRun(err) && j.settle.action == actionDone
		srv.jobs.Relist(&j.Lease) // a bury had unlisted it
		return true
	case errors.Is(err, errBound):
		return true
	case errors.Is(err, queue.ErrLost):
		// Another consumer of this process may have reserved it meanwhile, for us.
		return j.sess != s && j.sess.aliveLocked()
	default:
		return false
	}
}

// conclude ends the settlement with the result err. If the server refused to bury the
// job, the job stays held.
func (j *job) conclude(err error) {
	srv := j.loop.srv
	srv.mu.Lock()
	result := j.result // a job that stays held may be settled once more as soon as mu is free
	if err != nil && j.settle.action == actionBury && !errors.Is(err, queue.ErrLost) {
		srv.jobs.Refused(&j.Lease)
	} else {
		srv.entombLocked(j, err)
	}
	srv.mu.Unlock()
	result <- err
}

// delete removes the job from the server. It works on reserved jobs of this
// connection and on ready, delayed and buried jobs from any connection.
func (s *session) delete(j *job, bound bool) error {
	var err error
	if !bound {
		err = s.recognise(j)
	}
	known := err == nil
	if known {
		err = j.explain(s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(j.Number) }, gobeanstalk.ErrNotFound))
	}
	if errors.Is(err, queue.ErrLost) {
		err = s.deletedBefore(j, err)
	}
	if errors.Is(err, queue.ErrLost) && known && !bound && j.awaitBound() {
		return errBound // one of our connections had just reserved it
	}
	return err
}

// deletedBefore returns nil when an earlier delete of j, whose connection broke
// before the answer came, has worked after all: the job exists no more. Else
// it returns lost. A server restarted without a binlog can prove nothing.
func (s *session) deletedBefore(j *job, lost error) error {
	s.srv.mu.Lock()
	proof := j.sent && (s.binlog || j.sameServerLocked(s))
	s.srv.mu.Unlock()
	if !proof {
		return lost
	}
	_, err := s.statsJob(j.Number)
	switch {
	case errors.Is(err, gobeanstalk.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return lost
}

// release gives the job back with its old priority. A reservation that was
// lost is no error.
func (s *session) release(j *job, after time.Duration) error {
	s.srv.mu.Lock()
	j.unlistLocked()
	s.srv.mu.Unlock()
	stats, err := s.statsJob(j.Number)
	if errors.Is(err, gobeanstalk.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	pri, err := parsePriority(stats)
	if err != nil {
		return err
	}
	err = s.do(func(bs *gobeanstalk.Conn) error { return bs.Release(j.Number, pri, after) },
		gobeanstalk.ErrNotFound, gobeanstalk.ErrBuried)
	switch {
	case errors.Is(err, gobeanstalk.ErrNotFound):
		return nil
	case errors.Is(err, gobeanstalk.ErrBuried): // protocol.txt, release: out of memory
		return fmt.Errorf("beanstalk: job %s: server %s had no memory to release it and buried it: %w",
			j.ID(), s.srv.addr, queue.ErrUnavailable)
	}
	return err
}

// release returns a job that nobody has seen to its tube.
func (j *job) release() {
	srv := j.loop.srv
	srv.mu.Lock()
	s := j.sess
	if !s.aliveLocked() || !srv.jobs.Revoke(&j.Lease) {
		srv.mu.Unlock()
		return // settled or back already
	}
	srv.mu.Unlock() // s keeps it on its list until the release is answered
	if err := s.release(j, 0); err != nil && !isBroken(err) {
		srv.few.Log(slog.LevelWarn, "cannot give a job back", "tube", j.loop.c.tube, "err", err)
	}
	srv.mu.Lock()
	j.endLocked(lease.Lost)
	srv.mu.Unlock()
}
