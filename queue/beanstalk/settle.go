package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/lease"
)

// settlement is how a job ends.
type settlement struct {
	verdict verdict
	after   time.Duration // of a retry
	copy    *replacement  // nil unless the job is buried with another body
}

// removes reports whether the settlement has deleted the job from the server, or was
// about to.
func (how settlement) removes() bool {
	return how.verdict == verdictDone || how.copy != nil && how.copy.safe
}

type verdict uint8

const (
	verdictDone verdict = iota
	verdictRetry
	verdictBury
)

// Done implements queue.Job. When ctx ends during an outage, the job is still
// deleted once the server is back, provided that the consumer is open then.
func (j *job) Done(ctx context.Context) error {
	return j.finish(ctx, settlement{verdict: verdictDone})
}

// Retry implements queue.Job: the job keeps its priority; after is rounded up
// to whole seconds. While the server is away it returns nil at once: the job
// is served again as soon as the server is back.
func (j *job) Retry(ctx context.Context, after time.Duration) error {
	return j.finish(ctx, settlement{verdict: verdictRetry, after: wholeSeconds(after)})
}

// finish settles the job and waits for it, up to ctx's end. A command that has
// been sent cannot be taken back; it is waited for in the background.
func (j *job) finish(ctx context.Context, how settlement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	src, srv := j.src, j.src.srv
	srv.mu.Lock()
	switch err := srv.jobs.Settle(&j.Lease); {
	case errors.Is(err, queue.ErrLost) && how.verdict == verdictRetry:
		srv.mu.Unlock()
		return nil // it is back
	case err != nil: // its id may be another job's by now
		srv.mu.Unlock()
		return fmt.Errorf("beanstalk: job %s: %w", j.ID(), err)
	}
	j.settle, j.result = how, make(chan error, 1)
	src.owner.Enter()
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
	case err = <-j.result:
	case <-ctx.Done():
		err = ctx.Err()
	}
	srv.mu.Lock()
	src.owner.Leave()
	srv.mu.Unlock()
	return err
}

// drive carries the settlement out on whatever connection reaches the job, and
// on the next one when that breaks. Without a connection it leaves the job on
// its source's list of pending ones: whoever gets a connection to it drives
// on. One goroutine at a time drives a job.
func (j *job) drive() {
	srv := j.src.srv
	for {
		srv.mu.Lock()
		s, bound := j.routeLocked()
		j.loose = j.loose || j.looseLocked(bound, time.Now())
		retry := j.settle.verdict == verdictRetry
		over := j.Over() || (s == nil && (srv.closed || j.src.closed))
		if over && !retry {
			srv.mu.Unlock()
			j.conclude(j.lost())
			return
		}
		if s == nil && !retry {
			j.src.pending[j] = struct{}{}
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
		case j.settle.verdict == verdictBury:
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
	srv := j.src.srv
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch {
	case isBroken(err):
		j.sent = j.sent || maybeRun(err) && j.settle.verdict == verdictDone
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
	srv := j.src.srv
	srv.mu.Lock()
	if err != nil && j.settle.verdict == verdictBury && !errors.Is(err, queue.ErrLost) {
		srv.jobs.Refused(&j.Lease)
	} else {
		srv.entombLocked(j, err)
	}
	srv.mu.Unlock()
	j.result <- err
}

// delete removes the job from the server. It works on reserved jobs of this
// connection and on ready, delayed and buried jobs from any connection.
func (s *session) delete(j *job, bound bool) error {
	var err error
	if !bound {
		err = s.recognise(j)
	}
	if err == nil {
		err = j.explain(s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(j.Number) }, gobeanstalk.ErrNotFound))
	}
	if errors.Is(err, queue.ErrLost) {
		return s.deletedBefore(j, err)
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

// giveBack returns a job that nobody has seen to its tube.
func (j *job) giveBack() {
	srv := j.src.srv
	srv.mu.Lock()
	s := j.sess
	if !s.aliveLocked() || !srv.jobs.Revoke(&j.Lease) {
		srv.mu.Unlock()
		return // settled or back already
	}
	srv.mu.Unlock() // s keeps it on its list until the release is answered
	if err := s.release(j, 0); err != nil && !isBroken(err) {
		srv.few.Log(slog.LevelWarn, "job could not be given back", "tube", j.src.c.tube, "err", err)
	}
	srv.mu.Lock()
	j.endLocked(lease.Lost)
	srv.mu.Unlock()
}
