package jetstream

import (
	"context"
	"time"
)

// Close implements queue.Consumer. It first waits for the end of the last pull, a
// second or so at most: jobs that nobody hears would be held until their
// reservations end. What comes goes back with the others, in their old order.
func (c *consumer) Close(ctx context.Context) error {
	t := c.t
	t.mu.Lock()
	if c.closed {
		t.mu.Unlock()
		return nil
	}
	c.closed, c.paused = true, true
	close(c.done)
	t.mu.Unlock()

	err := c.awaitSettles(ctx)
	c.calm(context.WithoutCancel(ctx)) // it takes little time

	t.mu.Lock()
	c.gone = true
	var back []*job
	for j := c.held.first; j != nil; j = j.next {
		if j.state != stateSettling { // left to end by itself
			back = append(back, j)
		}
	}
	c.waiting = nil // they are held too
	for _, j := range back {
		j.forgetLocked(stateLost)
	}
	delete(t.consumers, c)
	t.mu.Unlock()

	c.withdraw(ctx)
	t.giveBackAll(ctx, back)
	t.q.burst(time.Now(), true)
	t.q.flushFor(ctx)
	return err
}

// awaitSettles waits until no settle call is in progress.
func (c *consumer) awaitSettles(ctx context.Context) error {
	c.t.mu.Lock()
	if c.settling == 0 {
		c.t.mu.Unlock()
		return nil
	}
	if c.settled == nil {
		c.settled = make(chan struct{})
	}
	settled := c.settled
	c.t.mu.Unlock()
	return wait(ctx, c.t.q, settled)
}

// flushTime bounds the wait for the server to read what was sent, when closing.
const flushTime = 2 * time.Second

// flushFor waits until the server has read all that was sent to it.
func (q *client) flushFor(ctx context.Context) {
	cn, _, _, err := q.link.ready()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	_ = cn.nc.FlushWithContext(ctx)
}

// settleAll waits until the server has dealt with every acknowledgement: an
// embedded one ends with the queue, and would forget those it has only read.
//
// It says whether that is so.
func (q *client) settleAll() bool {
	q.flushFor(q.ctx)
	cn, _, _, err := q.link.ready()
	if err != nil || q.embedded == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(q.ctx, flushTime)
	defer cancel()
	all := true
	for _, t := range q.allTubes() {
		if err := q.barrier(ctx, cn, t.name); err != nil {
			q.opts.Log.Warn("queue: jobs just finished may be served again", "tube", t.name, "err", err)
			all = false
		}
	}
	return all
}
