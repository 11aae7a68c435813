package jetstream

import (
	"context"
	"time"
)

// Close implements queue.Consumer. A pull that the server has not forgotten yet
// when Close returns may still bring jobs: they are given back.
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

	t.mu.Lock()
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
	sub := c.sub
	t.dropLocked(c)
	t.mu.Unlock()

	for _, j := range back {
		j.giveBack()
	}
	if sub != nil {
		// Without interest in its answer the server forgets the pull; what it
		// has sent already is still seen to.
		_ = sub.Drain()
	}
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
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dropLocked forgets a closed consumer.
func (t *tube) dropLocked(c *consumer) {
	if c.closed {
		delete(t.consumers, c)
	}
}

// flushTime bounds the wait for the server to read what was sent, when closing.
const flushTime = 2 * time.Second

func (q *client) flush() {
	q.flushFor(q.ctx)
}

// flushFor waits until the server has read all that was sent to it.
func (q *client) flushFor(ctx context.Context) {
	cn, _, err, _ := q.link.ready()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	_ = cn.nc.FlushWithContext(ctx)
}
