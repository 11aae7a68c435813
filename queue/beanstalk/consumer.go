package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"propeller/queue"
)

// consumer is the queue.Consumer of one tube over all servers.
type consumer struct {
	q       *client
	tube    string
	sources []*source
	wg      sync.WaitGroup // leaders, and jobs being given back

	notify chan struct{} // a job may be at hand; room for one
	done   chan struct{} // closed by Close

	mu        sync.Mutex
	cond      *sync.Cond // reservers wait for demand; on mu
	waiting   int        // reservers in cond.Wait
	want      int        // jobs that Receive may still hand out
	reserving int        // reserve commands under way
	ready     []*job     // reserved and not yet handed out
	paused    bool       // by Pause, Close, and before the first Receive
	closed    bool
}

var _ queue.Consumer = (*consumer)(nil)

func newConsumer(q *client, tube string) *consumer {
	c := &consumer{q: q, tube: tube, paused: true, notify: make(chan struct{}, 1), done: make(chan struct{})}
	c.cond = sync.NewCond(&c.mu)
	for _, srv := range q.servers {
		c.sources = append(c.sources, newSource(c, srv))
	}
	for _, src := range c.sources {
		c.wg.Go(src.run)
	}
	return c
}

// Receive implements queue.Consumer. Over several servers, each may reserve
// one job more than n when little is wanted, so that a job on any of them is
// seen at once.
func (c *consumer) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	if n < 1 {
		return nil, fmt.Errorf("beanstalk: receive of %d jobs: must be 1 or more", n)
	}
	c.mu.Lock()
	c.paused = c.closed
	c.want = n
	c.wakeLocked()
	c.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if jobs := c.take(); len(jobs) > 0 {
			return jobs, nil
		}
		select {
		case <-c.notify:
		case <-ctx.Done():
		case <-c.done:
			return nil, fmt.Errorf("beanstalk: consumer of %q is closed", c.tube)
		}
	}
}

// take hands out what is at hand, up to what is wanted.
func (c *consumer) take() []queue.Job {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []queue.Job
	for c.want > 0 && len(c.ready) > 0 {
		k := min(c.want, len(c.ready))
		if out == nil {
			out = make([]queue.Job, 0, k)
		}
		for _, j := range c.ready[:k] {
			if j.handOut() {
				out = append(out, j)
				c.want--
			}
		}
		c.ready = c.ready[k:]
	}
	if len(c.ready) == 0 {
		c.ready = nil // let the array go
	}
	c.wakeLocked()
	return out
}

// handOut makes j its receiver's. It reports false when the job was lost with
// its connection while it waited here.
func (j *job) handOut() bool {
	srv := j.src.srv
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if j.state != stateWaiting || j.settling {
		return false
	}
	if !j.sess.aliveLocked() {
		j.forgetLocked()
		return false
	}
	j.state = stateHeld
	return true
}

// deliver takes a reserved job in, in the place of the reserve that brought
// it. It reports false when no job is wanted any more. A tube that gave one
// job may have more: it starts another helper.
func (c *consumer) deliver(j *job, s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserving--
	if c.paused {
		return false
	}
	c.ready = append(c.ready, j)
	select {
	case c.notify <- struct{}{}:
	default:
	}
	if src := s.src; src.helpers < reservers-1 && c.waiting == 0 && c.mayReserveLocked(false) {
		src.helpers++
		s.wg.Go(func() { src.help(s) }) // the caller is of s.wg, or waits for it later
	}
	return true
}

// mayReserveLocked says whether one more reserve may start: what is at hand
// and under way must not exceed what is wanted. Over several servers every
// leader may have one more under way while less is at hand than wanted.
func (c *consumer) mayReserveLocked(leader bool) bool {
	most := c.want
	if leader && len(c.sources) > 1 && len(c.ready) < c.want {
		most += len(c.sources)
	}
	return len(c.ready)+c.reserving < most
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
		case c.paused && !leader:
			return false
		case !c.paused && c.mayReserveLocked(leader):
			c.reserving++
			return true
		}
		c.waiting++
		c.cond.Wait()
		c.waiting--
	}
}

// release gives back what acquire got: the reserve brought nothing.
func (c *consumer) release() {
	c.mu.Lock()
	c.reserving--
	c.wakeLocked()
	c.mu.Unlock()
}

func (c *consumer) helperGone(src *source) {
	c.mu.Lock()
	src.helpers--
	c.wakeLocked()
	c.mu.Unlock()
}

// wakeLocked wakes as many reservers as may start.
func (c *consumer) wakeLocked() {
	if c.waiting == 0 {
		return
	}
	if len(c.sources) > 1 { // leaders and helpers differ in what they may
		c.cond.Broadcast()
		return
	}
	for range min(c.waiting, c.want-len(c.ready)-c.reserving) {
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
	back := c.pauseLocked()
	if len(back) > 0 && !c.closed {
		c.wg.Go(func() { parallel(reservers, back, (*job).giveBack) })
	}
}

// pauseLocked ends all demand and returns the jobs that nobody has received.
func (c *consumer) pauseLocked() []*job {
	back := c.ready
	c.want, c.ready, c.paused = 0, nil, true
	c.cond.Broadcast() // helpers go
	return back
}

// Err implements queue.Consumer. Over several servers it is nil while any of
// them can be reached; the log names those that cannot. A connection on which
// nothing is asked, as when paused, is not known to be lost.
func (c *consumer) Err() error {
	var errs []error
	for _, src := range c.sources {
		src.srv.mu.Lock()
		up, err := src.sess.aliveLocked(), src.err
		if !up && err == nil {
			err = &brokenError{addr: src.srv.addr, err: src.sess.err}
		}
		src.srv.mu.Unlock()
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
	if c.closed {
		c.mu.Unlock()
		c.wg.Wait()
		return nil
	}
	c.closed = true
	c.pauseLocked() // what waits there goes back with the connection
	close(c.done)
	c.mu.Unlock()

	var err error
	for _, src := range c.sources {
		if serr := src.awaitSettles(ctx); serr != nil {
			err = serr
		}
	}
	for _, src := range c.sources {
		src.close()
	}
	c.wg.Wait()
	return err
}

// awaitSettles waits until no settle call is in progress.
func (src *source) awaitSettles(ctx context.Context) error {
	src.srv.mu.Lock()
	if src.settles == 0 {
		src.srv.mu.Unlock()
		return nil
	}
	if src.settled == nil {
		src.settled = make(chan struct{})
	}
	settled := src.settled
	src.srv.mu.Unlock()
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close gives back every unsettled job and ends the connection. Settle calls
// still waiting get ErrLost.
func (src *source) close() {
	srv := src.srv
	var foreign []*job // reserved by other consumers' connections, for ours
	var sessions []*session
	srv.mu.Lock()
	src.closed = true
	src.stop()
	// Out of the registry before the connection ends: another consumer may
	// reserve them at that moment, and must deliver them.
	for _, j := range srv.jobs {
		if j.src == src && !j.settling {
			if j.sess.aliveLocked() && j.sess.src != src {
				foreign = append(foreign, j)
				continue
			}
			j.forgetLocked()
		}
	}
	for j := range src.pending {
		delete(src.pending, j)
		j.forgetLocked()
		j.result <- j.lost()
	}
	for s := range srv.sessions {
		if s.src == src {
			sessions = append(sessions, s)
		}
	}
	if len(foreign) > 0 {
		srv.spawnLocked(func() { parallel(reservers, foreign, (*job).giveBack) })
	}
	srv.mu.Unlock()
	for _, s := range sessions {
		s.fail(errClosed, false)
	}
}
