package jetstream

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// A tube's jobs are asked for in two ways.
//
// A pull brings jobs. It cannot be taken back: one that is abandoned, by no longer
// listening, may have been given a job already, which is then held for nobody. So
// it waits for less than a second, and a consumer waits for the pull to end
// before it stops listening.
//
// A long poll waits longer, after a pull that brought nothing. It allows an answer of one byte,
// which no job fits in: the server refuses the long poll as soon as there is a job,
// and leaves the job where it is (nats-server: consumer.go, nextWaiting). That is
// the signal to pull, and a long poll can be abandoned at any time.

const (
	// maxBatch is the largest pull. Deep ones stalled until they expired
	// (nats.go#1622), and what is asked for must be wanted now: the server's
	// clock runs from the moment it sends a job.
	maxBatch = 256

	pullExpires = 500 * time.Millisecond
	// pullGrace is for a pull to reach the server, and its end to come back.
	pullGrace = time.Second
	// settling is how long after a consumer was made no server may know it yet: a cluster
	// answers before its members have heard of it.
	settling = 500 * time.Millisecond
	// pullOverdue is after how much silence a pull is given up: a consumer that is
	// deleted forgets those that it has not looked at yet.
	pullOverdue = 3 * time.Second

	longPollExpires = 30 * time.Second
	// heartbeat is how often the server says that a long poll still waits; one that
	// is silent for much longer is given up. A leader that is lost says nothing.
	heartbeat = 5 * time.Second

	// An embedded server cannot be lost, and a thousand idle tubes should cost
	// nothing.
	embeddedExpires   = 5 * time.Minute
	embeddedHeartbeat = time.Minute
)

// What the server says of a pull (nats-server: consumer.go).
const (
	tooLarge        = "Message Size Exceeds MaxBytes" // of a long poll: there are jobs
	consumerDeleted = "Consumer Deleted"
)

// pull is a request for jobs, or a long poll: one at a time. A pull ends when all of
// its jobs have come, or with a message that says so: after having given what was
// at hand it gives no more, so that nothing arrives unasked.
type pull struct {
	id       uint64
	open     bool
	longPoll bool
	n        int  // jobs that may still come
	got      bool // some came
	epoch    int  // of the link
	asked    time.Time
	seen     time.Time // the last sign of life
	until    time.Time // for a pull: it is over by then, unless the server is slow
}

// longPollTimes are how long a long poll waits, and how often the server says so.
func (q *client) longPollTimes() (expires, beat time.Duration) {
	if q.embedded != nil {
		return embeddedExpires, embeddedHeartbeat
	}
	return longPollExpires, heartbeat
}

// overdue is how long a pull, or a long poll, may be silent.
func (q *client) overdue(longPoll bool) time.Duration {
	if !longPoll {
		return pullOverdue
	}
	_, beat := q.longPollTimes()
	return 2*beat + beat/2
}

// ask sends a pull, or a long poll.
func (c *consumer) ask(cn *conn, epoch int, now time.Time) error {
	c.t.mu.Lock()
	n := min(c.Want-len(c.Waiting), maxBatch)
	if c.Paused || c.Closed || n < 1 {
		c.t.mu.Unlock()
		return nil
	}
	longPoll := c.idle
	c.t.askedLocked(now)
	c.pull = pull{id: c.pull.id + 1, open: true, longPoll: longPoll, n: n, epoch: epoch, asked: now, seen: now, until: now.Add(pullExpires + pullGrace)}
	reply := c.inbox + strconv.FormatUint(c.pull.id, 36)
	c.t.mu.Unlock()
	body := c.t.q.pullBody(n, longPoll)
	err := cn.publish(&nats.Msg{Subject: c.t.pullSubject(), Reply: reply, Data: body})
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	switch {
	case err != nil:
		c.endLocked()
	case c.t.q.embedded != nil && c.pull.open:
		c.err = nil // it need not answer to be there, and its first heartbeat is far
	}
	return err
}

func (q *client) pullBody(n int, longPoll bool) []byte {
	body := make([]byte, 0, 128)
	if !longPoll {
		// no_wait with expires: wait for the first job, give those at hand, end.
		return fmt.Appendf(body, `{"batch":%d,"no_wait":true,"expires":%d}`, n, pullExpires)
	}
	expires, beat := q.longPollTimes()
	return fmt.Appendf(body, `{"batch":1,"max_bytes":1,"expires":%d,"idle_heartbeat":%d}`, expires, beat)
}

func (t *tube) pullSubject() string {
	return t.q.calls.api + "CONSUMER.MSG.NEXT." + jobsStream + "." + t.config.Durable
}

// wait is how long from now the open pull may be silent.
func (c *consumer) wait(now time.Time) time.Duration {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if !c.pull.open {
		return 0 // it has ended already
	}
	return c.pull.seen.Add(c.t.q.overdue(c.pull.longPoll)).Sub(now)
}

// countLocked notes that a job has come.
func (c *consumer) countLocked(now time.Time) {
	c.idle = false
	if c.pull.open && !c.pull.longPoll {
		c.pull.seen, c.pull.got = now, true
		if c.pull.n--; c.pull.n == 0 {
			c.endLocked()
		}
	}
}

// endLocked ends the pull: no more jobs come of it.
func (c *consumer) endLocked() {
	c.pull.open = false
	if c.ended != nil {
		close(c.ended)
		c.ended = nil
	}
}

// giveUpLocked ends a pull that has not ended by itself.
func (c *consumer) giveUpLocked() {
	if c.pull.open && !c.pull.longPoll && c.pull.until.After(c.stray) {
		c.stray = c.pull.until
	}
	c.endLocked()
}

// news is what the server says of a pull. It reports whether the tube's consumer
// was removed.
func (c *consumer) news(id uint64, m *nats.Msg) (removed bool) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.pull.id != id || !c.pull.open {
		return false // of one given up
	}
	c.pull.seen = time.Now()
	switch code, text := status(m), m.Header.Get("Description"); {
	case code == 100: // it waits
		c.err = nil
		return false
	case code == 404, code == 408 && text == "Request Timeout", c.pull.longPoll && text == tooLarge:
		c.err, c.pause, c.notUntil = nil, 0, time.Time{}
		c.idle = code == 408 && !c.pull.got
	case code == 408: // other pulls will have all there is
		c.err = nil
		c.refusedLocked(10 * minPause)
	case code == 503 && time.Since(c.found) < settling:
		c.refusedLocked(maxPause)
	case code == 503:
		c.ensured = false
		c.err = errNoResponders
		c.refusedLocked(maxPause)
	default: // 409: the consumer's leader has changed, or it was deleted
		c.ensured = false
		c.err = fmt.Errorf("jetstream: tube %q: %d %s: %w", c.t.name, code, text, queue.ErrUnavailable)
		c.refusedLocked(maxPause)
		removed = text == consumerDeleted
	}
	c.endLocked()
	c.Wake()
	return removed
}

// waitQuiet waits until no pull can bring jobs any more, or Receive goes on.
func (c *consumer) waitQuiet(ctx context.Context) {
	for {
		_, _, changed, err := c.t.q.link.ready()
		if err != nil {
			return // nothing comes
		}
		ended, wait := c.pullsOpen(time.Now())
		if wait <= 0 {
			return
		}
		select {
		case <-ended:
		case <-time.After(wait):
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// pullsOpen is for how long pulls may bring jobs at most, and a channel that is
// closed when the last one has ended.
func (c *consumer) pullsOpen(now time.Time) (ended <-chan struct{}, wait time.Duration) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.Receiving && !c.Closed {
		return nil, 0
	}
	until := c.stray
	if c.pull.open && !c.pull.longPoll {
		if c.pull.until.After(until) {
			until = c.pull.until
		}
		if c.ended == nil {
			c.ended = make(chan struct{})
		}
	}
	return c.ended, until.Sub(now)
}

// withdraw takes a long poll back: once nobody is interested in its answer, the
// server drops it when it is asked about the consumer (nats-server: consumer.go,
// processWaiting). If it came upon it later, with a job given back in its hand, it
// would put that job behind the others.
func (c *consumer) withdraw(ctx context.Context) {
	c.t.mu.Lock()
	sub, open := c.sub, c.pull.open
	if sub == nil || c.Receiving && !c.Closed { // it goes on
		c.t.mu.Unlock()
		return
	}
	c.sub = nil
	c.endLocked()
	c.t.mu.Unlock()
	_ = sub.Drain()
	if open {
		c.t.q.await(ctx, c.t.q.calls.api+"CONSUMER.INFO."+jobsStream+"."+c.t.config.Durable, nil) // at worst the order of jobs given back changes
	}
}

// gone notes that the tube's consumer was found missing: those that asked it for jobs
// before then asks again.
func (t *tube) gone(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.consumers {
		if c.ensured && c.pull.open && c.pull.asked.Before(at) {
			c.ensured = false
			c.giveUpLocked()
			c.Wake()
		}
	}
}
