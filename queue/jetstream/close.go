package jetstream

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"propeller/queue/lease"
)

// Close implements queue.Consumer. It first waits for the end of the last pull, a
// second or so at most: jobs that nobody hears would be held until their
// reservations end. What comes goes back with the others, in their old order.
func (c *consumer) Close(ctx context.Context) error {
	t := c.t
	t.mu.Lock()
	first := c.CloseLocked()
	t.mu.Unlock()
	if !first {
		return nil
	}
	err := c.owner.Await(ctx, &t.mu)
	c.calm(context.WithoutCancel(ctx)) // it takes little time

	t.mu.Lock()
	c.gone = true
	var back []*job
	for j := range c.held.All() {
		if j.Unsettled() { // a settle call is left to end by itself
			back = append(back, j)
			t.jobs.End(&j.Lease, lease.Lost)
		}
	}
	c.Waiting = nil // they are held too
	delete(t.consumers, c)
	t.mu.Unlock()

	c.withdraw(ctx)
	t.giveBackAll(ctx, back)
	t.q.burst(time.Now(), true)
	t.q.flushFor(ctx)
	return err
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
	var failed atomic.Bool
	_ = each(ctx, settlesAtOnce, slices.All(q.allTubes()), func(_ int, t *tube) error {
		if err := q.barrier(ctx, cn, t.name); err != nil {
			q.opts.Log.Warn("queue: jobs just finished may be served again", "tube", t.name, "err", err)
			failed.Store(true)
		}
		return nil
	})
	return ctx.Err() == nil && !failed.Load()
}

const (
	// settlesAtOnce is how many tubes an embedded server is asked about at once.
	settlesAtOnce = 64
	// forgetTime bounds forgetIdle.
	forgetTime = 5 * time.Second
)

// forgetIdle removes those consumers of an embedded server that know nothing which is
// not in the stream: none of their jobs was served and not finished. The server ends its
// consumers one after the other and sleeps for 10 ms at each (nats-server: filestore.go,
// waitOnFlusher), so that to end many would take long. Removing one takes less than a
// tenth of that, and its tube makes it again when it is served.
func (q *client) forgetIdle() {
	cn, _, _, err := q.link.ready()
	if err != nil || q.embedded.trouble() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(q.ctx, forgetTime)
	defer cancel()
	idle, err := q.idleConsumers(ctx, cn)
	if err == nil {
		err = each(ctx, apiAtOnce, slices.All(idle), func(_ int, name string) error {
			return cn.js.DeleteConsumer(ctx, jobsStream, name)
		})
	}
	if err != nil { // those that are left make the end slower
		q.opts.Log.Debug("queue: consumers cannot be removed", "err", err)
	}
}

// idleConsumers are the consumers of our tubes for which all of a tube's jobs are still
// to be served for the first time.
func (q *client) idleConsumers(ctx context.Context, cn *conn) (names []string, err error) {
	jobs, err := q.streamInfo(ctx, cn, jobsStream, jobPrefix+">", 0)
	if err != nil {
		return nil, err
	}
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return nil, err
	}
	all := s.ListConsumers(ctx)
	for c := range all.Info() {
		stored := uint64(jobs.State.Subjects[c.Config.FilterSubject])
		if q.tube(tubeOf(c.Config.FilterSubject)) != nil && c.NumAckPending == 0 && c.NumPending == stored {
			names = append(names, c.Name)
		}
	}
	return names, all.Err()
}
