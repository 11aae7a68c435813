package beanstalk

import (
	"context"
	"errors"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/internal/backoff"
	"propeller/internal/parallel"
	"propeller/queue/lease"
)

// connLoop is the part of a consumer that deals with one server.
type connLoop struct {
	c   *consumer
	srv *server

	ctx  context.Context // ended by stop
	stop context.CancelFunc

	helpers int // reserving goroutines beside the leader; guarded by c.mu

	// Guarded by srv.mu.
	closed  bool
	sess    *session          // the live one, or nil
	err     error             // why there is no live session
	pending map[*job]struct{} // finished, waiting for a connection
	owner   lease.Owner

	alarmed time.Time // DEADLINE_SOON was logged last; the leader's own
}

var errConnecting = errors.New("not connected yet")

func newConnLoop(c *consumer, srv *server) *connLoop {
	loop := &connLoop{c: c, srv: srv, pending: make(map[*job]struct{})}
	loop.err = &brokenError{addr: srv.addr, err: errConnecting}
	loop.ctx, loop.stop = context.WithCancel(context.Background())
	return loop
}

const (
	minRedial = 100 * time.Millisecond // first wait after a connection is lost
	maxRedial = 5 * time.Second
	stable    = 10 * time.Second // a connection that lived this long was a good one
)

// run connects and reconnects for ever. It is the leader's goroutine.
func (loop *connLoop) run() {
	pauses := backoff.Backoff{Min: minRedial, Max: maxRedial}
	for loop.ctx.Err() == nil {
		began := time.Now()
		s, err := loop.srv.connect(loop.ctx, loop)
		if err == nil {
			err = loop.serve(s)
		}
		if loop.ctx.Err() != nil {
			return
		}
		loop.noteErr(err)
		if time.Since(began) > stable {
			pauses.Reset()
		}
		if pauses.Wait(loop.ctx) != nil {
			return
		}
	}
}

func (loop *connLoop) noteErr(err error) {
	loop.srv.mu.Lock()
	loop.err = err
	loop.srv.mu.Unlock()
	loop.srv.lost(err)
}

// serve works with a session until it fails, and returns why.
func (loop *connLoop) serve(s *session) error {
	loop.publish(s)
	loop.lead(s)
	s.wg.Wait()
	return loop.unpublish(s)
}

// publish makes s the loop's connection. What was finished during the outage
// is settled before anything is reserved: else it would be reserved and run
// again.
func (loop *connLoop) publish(s *session) {
	srv := loop.srv
	srv.mu.Lock()
	if s.err != nil {
		srv.mu.Unlock()
		return
	}
	loop.sess, loop.err = s, nil
	pending := make([]*job, 0, len(loop.pending))
	for j := range loop.pending {
		pending = append(pending, j)
	}
	clear(loop.pending)
	srv.mu.Unlock()
	srv.back()
	parallel.Each(reservers, pending, (*job).drive)
}

// unpublish takes the failed s away from the jobs that it held.
func (loop *connLoop) unpublish(s *session) error {
	loop.srv.mu.Lock()
	defer loop.srv.mu.Unlock()
	err := &brokenError{addr: loop.srv.addr, err: s.err}
	loop.sess, loop.err = nil, err
	for j := range s.reserved.All() {
		j.unbindLocked()
	}
	return err
}

const (
	// An empty tube is polled while something is in flight, first after
	// minPoll, then after twice as long each time up to maxPoll.
	minPoll = time.Millisecond
	maxPoll = 10 * time.Millisecond
)

// lead reserves for as long as s lives, whenever jobs are wanted.
func (loop *connLoop) lead(s *session) {
	poll := minPoll
	for loop.c.acquire(s, true) {
		got, waited := loop.reserve(s, true)
		switch {
		case got == gotJob:
			poll = minPoll
			continue
		case got == gotDeadline:
			loop.alarm(s)
			poll = maxPoll
		case waited:
			poll = minPoll
			continue
		}
		select {
		case <-time.After(poll):
			poll = min(2*poll, maxPoll)
		case <-s.dead:
		}
	}
}

// help reserves until the tube is empty.
func (loop *connLoop) help(s *session) {
	for loop.c.acquire(s, false) {
		if got, _ := loop.reserve(s, false); got != gotJob {
			break
		}
	}
	loop.c.helperGone(loop)
}

// What a reserve brought.
type got uint8

const (
	gotNothing got = iota
	gotJob
	gotDeadline
)

// reserve runs one reserve command. The caller has acquired the right to; it
// is given back here. waited says that the server was let wait for a job.
func (loop *connLoop) reserve(s *session, leader bool) (g got, waited bool) {
	r, waited, err := s.reserve(leader)
	if err != nil {
		loop.c.release()
		if errors.Is(err, gobeanstalk.ErrDeadline) {
			return gotDeadline, waited
		}
		return gotNothing, waited
	}
	j := s.claim(r)
	if j == nil { // bound to its holder again
		loop.c.release()
		return gotJob, waited
	}
	if why, large := tooLarge(r.body); large {
		loop.buryUnread(j, why)
		return gotJob, waited
	}
	if !loop.c.deliver(j, s) {
		j.release() // nobody wants it any more
	}
	return gotJob, waited
}

// alarmEvery bounds how often DEADLINE_SOON is logged.
const alarmEvery = time.Minute

// alarm handles DEADLINE_SOON: some job reserved on s is in its last second,
// and no job is ready (beanstalkd protocol.txt; source conn.c). That one
// cannot be told from the others, so all are touched that were not lately.
func (loop *connLoop) alarm(s *session) {
	now := time.Now()
	loop.srv.mu.Lock()
	s.touchLocked(now, touchOnAlarm)
	loop.srv.mu.Unlock()
	if now.Sub(loop.alarmed) > alarmEvery {
		loop.alarmed = now
		loop.srv.log.Warn("queue server warns that a held job is about to be served again (DEADLINE_SOON): put jobs with a TTR of 10 s or more",
			"tube", loop.c.tube)
	}
}

// touchOnAlarm: jobs touched more recently than this are not the ones meant,
// since the shortest TTR is 1 s.
const touchOnAlarm = 200 * time.Millisecond
