package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"propeller/internal/parallel"
	"propeller/queue"
	"propeller/queue/lease"
)

// consumer is the queue.Consumer of one tube over all servers.
type consumer struct {
	q     *client
	tube  string
	loops []*connLoop
	wg    sync.WaitGroup // leaders, and jobs being given back

	mu                 sync.Mutex
	lease.Intake[*job]            // under mu
	cond               *sync.Cond // reservers wait for demand; on mu
	idle               int        // reservers in cond.Wait
	reserving          int        // reserve commands under way
}

var _ queue.Consumer = (*consumer)(nil)

func newConsumer(q *client, tube string) *consumer {
	c := &consumer{q: q, tube: tube}
	c.Init(&c.mu, c, fmt.Sprintf("beanstalk: consumer of %q", tube))
	c.cond = sync.NewCond(&c.mu)
	for _, srv := range q.servers {
		c.loops = append(c.loops, newConnLoop(c, srv))
	}
	for _, loop := range c.loops {
		c.wg.Go(loop.run)
	}
	return c
}

// Ask implements lease.Wire: the reservers do it. Over several servers, each may reserve
// one job more than wanted when few are wanted, so that a job on any of them is
// seen at once.
func (c *consumer) Ask(context.Context, bool) (changed <-chan struct{}, wait time.Duration, err error) {
	c.mu.Lock()
	c.wakeLocked()
	c.mu.Unlock()
	return nil, -1, nil
}

// HandOutLocked implements lease.Wire. A job is lost with its connection while it waits.
func (c *consumer) HandOutLocked(j *job) bool {
	srv := j.loop.srv
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if j.State() == lease.Waiting && !j.sess.aliveLocked() {
		j.endLocked(lease.Lost)
	}
	return srv.jobs.HandOut(&j.Lease)
}

// deliver takes a reserved job in, in the place of the reserve that brought
// it. It reports false when no job is wanted any more. A tube that gave one
// job may have more: it starts another helper.
func (c *consumer) deliver(j *job, s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserving--
	if c.Paused {
		return false
	}
	c.TakeInLocked(j)
	if loop := s.loop; loop.helpers < reservers-1 && c.idle == 0 && c.mayReserveLocked(false) {
		loop.helpers++
		s.wg.Go(func() { loop.help(s) }) // the caller is of s.wg, or waits for it later
	}
	return true
}

// mayReserveLocked says whether one more reserve may start: what is at hand
// and under way must not exceed what is wanted. Over several servers every
// leader may have one more under way while less is at hand than wanted.
func (c *consumer) mayReserveLocked(leader bool) bool {
	most := c.Want
	if leader && len(c.loops) > 1 && len(c.Waiting) < c.Want {
		most += len(c.loops)
	}
	return len(c.Waiting)+c.reserving < most
}

// acquire waits until the caller may start one reserve on s. It reports false
// when the caller must end: s is dead, or it is a helper and nothing is wanted.
func (c *consumer) acquire(s *session, leader bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		select {
		case <-s.dead:
			return false
		default:
		}
		switch {
		case c.Paused && !leader:
			return false
		case !c.Paused && c.mayReserveLocked(leader):
			c.reserving++
			return true
		}
		c.idle++
		c.cond.Wait()
		c.idle--
	}
}

// release gives back what acquire got: the reserve brought nothing.
func (c *consumer) release() {
	c.mu.Lock()
	c.reserving--
	c.wakeLocked()
	c.mu.Unlock()
}

func (c *consumer) helperGone(loop *connLoop) {
	c.mu.Lock()
	loop.helpers--
	c.wakeLocked()
	c.mu.Unlock()
}

// wakeLocked wakes as many reservers as may start.
func (c *consumer) wakeLocked() {
	if c.idle == 0 {
		return
	}
	if len(c.loops) > 1 { // leaders and helpers differ in what they may
		c.cond.Broadcast()
		return
	}
	for range min(c.idle, c.Want-len(c.Waiting)-c.reserving) {
		c.cond.Signal()
	}
}

// wakeAll makes every waiting reserver look again.
func (c *consumer) wakeAll() {
	c.mu.Lock()
	c.cond.Broadcast()
	c.mu.Unlock()
}

// Pause implements queue.Consumer.
func (c *consumer) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	back := c.stopLocked()
	if len(back) > 0 && !c.Closed {
		c.wg.Go(func() { parallel.Each(reservers, back, (*job).release) })
	}
}

// stopLocked ends all demand and returns the jobs that nobody has received.
func (c *consumer) stopLocked() []*job {
	c.cond.Broadcast() // helpers go
	return c.PauseLocked()
}

// Err implements queue.Consumer. Over several servers it is nil while any of
// them can be reached; the log names those that cannot. A connection on which
// nothing is asked, as when paused, is not known to be lost.
func (c *consumer) Err() error {
	var errs []error
	for _, loop := range c.loops {
		loop.srv.mu.Lock()
		up, err := loop.sess.aliveLocked(), loop.err
		if !up && err == nil {
			err = &brokenError{addr: loop.srv.addr, err: loop.sess.err}
		}
		loop.srv.mu.Unlock()
		if up {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close implements queue.Consumer. It returns ctx.Err() when settle calls had
// to be cut off.
func (c *consumer) Close(ctx context.Context) error {
	c.mu.Lock()
	c.stopLocked() // what waits there goes back with the connection
	first := c.CloseLocked()
	c.mu.Unlock()
	if !first {
		c.wg.Wait()
		return nil
	}

	var err error
	for _, loop := range c.loops {
		if serr := loop.owner.Await(ctx, &loop.srv.mu); serr != nil {
			err = serr
		}
	}
	for _, loop := range c.loops {
		loop.close()
	}
	c.wg.Wait()
	return err
}

// close gives back every unsettled job and ends the connection. Settle calls
// still waiting get ErrLost.
func (loop *connLoop) close() {
	srv := loop.srv
	var foreign []*job // reserved by other consumers' connections, for ours
	var sessions []*session
	srv.mu.Lock()
	loop.closed = true
	loop.stop()
	// Out of the registry before the connection ends: another consumer may
	// reserve them at that moment, and must deliver them.
	for l := range srv.jobs.All() {
		j := l.Job
		switch {
		case j.loop != loop || !j.Unsettled():
		case j.sess.aliveLocked() && j.sess.loop != loop:
			foreign = append(foreign, j)
		default:
			j.endLocked(lease.Lost)
		}
	}
	for j := range loop.pending {
		delete(loop.pending, j)
		j.endLocked(lease.Lost)
		j.result <- j.lost()
	}
	for s := range srv.sessions {
		if s.loop == loop {
			sessions = append(sessions, s)
		}
	}
	if len(foreign) > 0 {
		srv.spawnLocked(func() { parallel.Each(reservers, foreign, (*job).release) })
	}
	srv.mu.Unlock()
	for _, s := range sessions {
		s.fail(errClosed, false)
	}
}
