package apnsconn

import (
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// keep owns the connection's life: it runs the reader and the writer, looks
// after everything that depends on time, and clears up at the end. It sleeps
// until the next thing is due, so that an idle connection costs one wake-up per
// PING.
func (c *Conn) keep(r *reader) {
	var goroutines sync.WaitGroup
	written := make(chan struct{})
	goroutines.Go(r.loop)
	goroutines.Go(func() {
		defer close(written)
		c.writeLoop()
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ended := false; !ended; {
		select {
		case <-c.poke:
		case <-timer.C:
		}
		c.mu.Lock()
		now := c.now()
		c.check(now)
		c.keeperWakes = c.nextCheck()
		ended = c.ended
		timer.Reset(c.keeperWakes - now)
		c.wakeWriter()
		c.unlock()
	}
	c.bury(written, &goroutines)
}

// check does all that is due at now. mu is held.
func (c *Conn) check(now time.Duration) {
	for p := c.all.head; p != nil && p.deadline <= now && !c.ended; p = c.all.head {
		c.expire(p)
	}
	c.checkLimit(now)
	switch lastRead := time.Duration(c.lastRead.Load()); {
	case c.ended:
	case c.noStreams && now >= c.drainUntil:
		c.end(c.why, http2.ErrCodeNo)
	case c.pingPending && lastRead >= c.pinged:
		c.pingPending = false // any sign of life will do
	case c.pingPending && now >= c.pinged+c.cfg.PingTimeout:
		c.drop(errSilent)
	case !c.pingPending && now >= lastRead+c.cfg.PingAfter:
		c.ping(now)
	}
}

// nextCheck is when check has to be called next. mu is held.
func (c *Conn) nextCheck() time.Duration {
	next := time.Duration(c.lastRead.Load()) + c.cfg.PingAfter
	if c.pingPending {
		next = c.pinged + c.cfg.PingTimeout
	}
	if c.noStreams {
		next = min(next, c.drainUntil)
	}
	if p := c.all.head; p != nil {
		next = min(next, p.deadline)
	}
	return next
}

// expire ends a push whose time is up. One that alone was not answered is an
// omission of the peer's. Two in a row, without an answer to any other since
// they were sent, are taken as proof that the connection is dead. mu is held.
//
// One that could not even be sent, while nothing else could since it was handed
// over, tells of a peer that keeps its windows or stream limit shut: after two
// of them, one after the other, the connection is given up too.
func (c *Conn) expire(p *push) {
	if since := p.deadline - c.cfg.PushTimeout; p.id == 0 && since >= c.lastSent && since >= c.stuckAt {
		c.stuck++
		c.stuckAt = c.now()
	}
	if p.id != 0 && p.status == 0 && p.opened >= c.heard {
		c.timeouts++
	}
	c.abandon(p, ErrTimeout)
	switch {
	case c.timeouts >= 2:
		c.end(errDeadlines, http2.ErrCodeNo)
	case c.stuck >= 2:
		c.retire(errStuck)
	}
}

// checkLimit gives the connection up when the peer has allowed no stream for
// shutTimeout: whoever sends by Free would wait for ever. mu is held.
func (c *Conn) checkLimit(now time.Duration) {
	switch {
	case c.noNew || c.peer.maxStreams > 0:
		c.shutSince = 0
	case c.shutSince == 0:
		c.shutSince = now
	case now-c.shutSince >= shutTimeout:
		c.retire(errStuck)
	}
}

// shutTimeout is how long a peer may allow no stream at all. It is looked at
// when the keeper wakes, which PINGs make it do.
const shutTimeout = time.Minute

// ping asks for a sign of life after a silence. mu is held.
func (c *Conn) ping(now time.Duration) {
	c.pinged = now
	c.pingPending = true
	c.control(c.frames.WritePing(false, [8]byte{'p', 'r', 'o', 'p', 'e', 'l', 'l', 'r'}))
	if c.all.n == 0 {
		// A quiet connection keeps no buffers.
		c.spare = nil
	}
}

// bury sees the reader and the writer off, ends the pushes that are left, and
// reports the end.
func (c *Conn) bury(written <-chan struct{}, goroutines *sync.WaitGroup) {
	c.mu.Lock()
	farewell := c.farewell
	c.mu.Unlock()
	if farewell {
		linger := time.NewTimer(lingerTimeout)
		select {
		case <-written:
		case <-linger.C:
		}
		linger.Stop()
	}
	_ = c.raw.Close() // nothing more is expected of it
	goroutines.Wait()

	c.mu.Lock()
	c.corked = false
	for c.all.head != nil {
		p := c.all.head
		c.finish(p, p.lost(c.why))
	}
	c.changed = true
	c.unlock()
	close(c.done)
}
