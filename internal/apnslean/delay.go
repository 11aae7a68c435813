package apnslean

import "time"

// maxGroup is how long an answer may wait for others to be written with.
const maxGroup = time.Millisecond / 2

// delayed is an answer, or payload to acknowledge, that waits for its time.
type delayed struct {
	due     time.Time
	stream  uint32 // 0: no answer
	payload uint32
}

// queue holds what is delayed. All wait equally long, so it is in order. Its
// length is bounded by MaxStreams and the window, if the client keeps to them.
type queue struct {
	ring  []delayed
	first int
	n     int
}

func (q *queue) push(d delayed) {
	if q.n == len(q.ring) {
		larger := make([]delayed, max(64, 2*q.n))
		for i := range q.n {
			larger[i] = q.ring[(q.first+i)%q.n]
		}
		q.ring, q.first = larger, 0
	}
	q.ring[(q.first+q.n)%len(q.ring)] = d
	q.n++
}

func (q *queue) peek() *delayed { return &q.ring[q.first] }

func (q *queue) pop() delayed {
	d := q.ring[q.first]
	q.first = (q.first + 1) % len(q.ring)
	q.n--
	return d
}

// delay queues d for its time. mu is held.
func (c *conn) delay(d delayed) {
	c.queue.push(d)
	if c.queue.n == 1 {
		c.wakeWriter()
	}
}

func (c *conn) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default: // it is woken already
	}
}

// write answers what is due, until reading has ended.
func (c *conn) write() {
	group := min(maxGroup, c.o.Delay/100)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := c.release(time.Now())
		if err := c.writeOut(c.take()); err != nil {
			_ = c.nc.Close() // which ends the reader
			return
		}
		timer.Reset(wait + group)
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.done:
			return
		}
	}
}

// release queues what is due, and says when there will be more.
func (c *conn) release(now time.Time) (wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account.advance(now)
	var payload uint32
	for c.queue.n > 0 {
		if wait := c.queue.peek().due.Sub(now); wait > 0 {
			c.widen(payload)
			return wait
		}
		d := c.queue.pop()
		payload += d.payload
		c.answer(d.stream)
	}
	c.widen(payload)
	return time.Hour // until it is woken
}
