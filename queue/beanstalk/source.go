package beanstalk

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue/lease"
)

// source is the part of a consumer that deals with one server.
type source struct {
	c   *consumer
	srv *server

	ctx  context.Context // ended by stop
	stop context.CancelFunc

	helpers int // reserving goroutines beside the leader; guarded by c.mu

	// Guarded by srv.mu.
	closed  bool
	sess    *session          // the live one; nil while there is none
	err     error             // why there is none
	pending map[*job]struct{} // finished, waiting for a connection
	owner   lease.Owner

	alarmed time.Time // DEADLINE_SOON was logged last; the leader's own
}

var errConnecting = errors.New("not connected yet")

func newSource(c *consumer, srv *server) *source {
	src := &source{c: c, srv: srv, pending: make(map[*job]struct{})}
	src.err = &brokenError{addr: srv.addr, err: errConnecting}
	src.ctx, src.stop = context.WithCancel(context.Background())
	return src
}

const (
	minRedial = 100 * time.Millisecond // first wait after a connection is lost
	maxRedial = 5 * time.Second
	stable    = 10 * time.Second // a connection that lived this long was a good one
)

// run connects and reconnects for ever. It is the leader's goroutine.
func (src *source) run() {
	wait := minRedial
	for src.ctx.Err() == nil {
		began := time.Now()
		s, err := src.srv.connect(src.ctx, src)
		if err == nil {
			err = src.serve(s)
		}
		if src.ctx.Err() != nil {
			return
		}
		src.noteErr(err)
		if time.Since(began) > stable {
			wait = minRedial
		}
		// Half to whole: a thousand consumers must not come back in step.
		if !sleep(src.ctx, wait/2+rand.N(wait/2)) {
			return
		}
		wait = min(2*wait, maxRedial)
	}
}

func (src *source) noteErr(err error) {
	src.srv.mu.Lock()
	src.err = err
	src.srv.mu.Unlock()
	src.srv.lost(err)
}

// serve works with a session until it fails, and returns why.
func (src *source) serve(s *session) error {
	src.publish(s)
	src.lead(s)
	s.wg.Wait()
	return src.unpublish(s)
}

// publish makes s the source's connection. What was finished during the outage
// is settled before anything is reserved: else it would be reserved and run
// again.
func (src *source) publish(s *session) {
	srv := src.srv
	srv.mu.Lock()
	if s.err != nil {
		srv.mu.Unlock()
		return
	}
	src.sess, src.err = s, nil
	pending := make([]*job, 0, len(src.pending))
	for j := range src.pending {
		pending = append(pending, j)
	}
	clear(src.pending)
	srv.mu.Unlock()
	srv.back()
	parallel(reservers, pending, (*job).drive)
}

// unpublish takes the failed s away from the jobs that it held.
func (src *source) unpublish(s *session) error {
	src.srv.mu.Lock()
	defer src.srv.mu.Unlock()
	err := &brokenError{addr: src.srv.addr, err: s.err}
	src.sess, src.err = nil, err
	for j := range s.held.All() {
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
func (src *source) lead(s *session) {
	poll := minPoll
	for src.c.acquire(s, true) {
		got, waited := src.reserve(s, true)
		switch {
		case got == gotJob:
			poll = minPoll
			continue
		case got == gotDeadline:
			src.alarm(s)
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
func (src *source) help(s *session) {
	for src.c.acquire(s, false) {
		if got, _ := src.reserve(s, false); got != gotJob {
			break
		}
	}
	src.c.helperGone(src)
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
func (src *source) reserve(s *session, leader bool) (g got, waited bool) {
	id, body, waited, err := s.reserve(leader)
	if err != nil {
		src.c.release()
		if errors.Is(err, gobeanstalk.ErrDeadline) {
			return gotDeadline, waited
		}
		return gotNothing, waited
	}
	j := s.claim(id, body)
	if j == nil { // bound to its holder again
		src.c.release()
		return gotJob, waited
	}
	if why, large := tooLarge(body); large {
		src.buryUnread(j, why)
		return gotJob, waited
	}
	if !src.c.deliver(j, s) {
		j.giveBack() // nobody wants it any more
	}
	return gotJob, waited
}

// alarmEvery bounds how often DEADLINE_SOON is logged.
const alarmEvery = time.Minute

// alarm handles DEADLINE_SOON: some job reserved on s is in its last second,
// and no job is ready (beanstalkd protocol.txt; source conn.c). That one
// cannot be told from the others, so all are touched that were not lately.
func (src *source) alarm(s *session) {
	now := time.Now()
	src.srv.mu.Lock()
	s.touchLocked(now, touchOnAlarm)
	src.srv.mu.Unlock()
	if now.Sub(src.alarmed) > alarmEvery {
		src.alarmed = now
		src.srv.log.Warn("queue server warns that a held job is about to be served again (DEADLINE_SOON): put jobs with a TTR of 10 s or more",
			"tube", src.c.tube)
	}
}

// touchOnAlarm: jobs touched more recently than this are not the ones meant,
// since the shortest TTR is 1 s.
const touchOnAlarm = 200 * time.Millisecond
