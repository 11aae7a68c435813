package apnsconn

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// connLoop runs the connection: it starts the reader and the writer, does everything that
// depends on time, and cleans up at the end. It sleeps until the next thing is due, so that an
// idle connection costs one wake-up per PING.
func (c *Conn) connLoop(r *reader) {
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
		case <-c.wake:
		case <-timer.C:
		}
		c.mu.Lock()
		now := c.now()
		c.check(now)
		c.loopWakes = c.nextCheck()
		ended = c.ended
		timer.Reset(c.loopWakes - now)
		c.wakeWriter()
		c.unlock()
	}
	c.cleanUp(written, &goroutines)
}

// check does what is due at now. mu is held.
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
		c.pingPending = false // any sign of life is enough
	case c.pingPending && now >= c.pinged+c.cfg.PingTimeout:
		c.drop(errSilent)
	case !c.pingPending && now >= lastRead+c.cfg.PingAfter:
		c.ping(now)
	}
}

// nextCheck is when check must be called next. mu is held.
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

// expire ends a push whose time is up. A single push without an answer may be the peer's
// mistake. Two in a row, with no other push answered since they were sent, are taken as proof
// that the connection is dead. mu is held.
//
// If a push could not even be sent, and nothing else could since Send took it, the peer keeps
// its windows or its stream limit closed. After two such pushes, one after the other, the
// connection is given up as well.
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

// checkLimit gives the connection up when the peer has allowed no stream for shutTimeout: a
// caller that sends by Free would wait for ever. mu is held.
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

// shutTimeout is how long a peer may allow no stream at all. connLoop checks it whenever it
// wakes, for PINGs at least.
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

// cleanUp waits for the reader and the writer, ends the pushes that are left, and reports the
// end.
func (c *Conn) cleanUp(written <-chan struct{}, goroutines *sync.WaitGroup) {
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
	_ = c.raw.Close() // it is of no use any more
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

// How pushes and the connection end. All methods below, except for unlock and unlockForOwner,
// are called with mu held and only decide; those two make the callbacks.

// finish ends p.
func (c *Conn) finish(p *push, o Outcome) {
	c.remove(p)
	c.fin = append(c.fin, ending{p.done, o})
}

// remove forgets p, whose outcome is known.
func (c *Conn) remove(p *push) {
	p.leave(kindQueue)
	p.leave(kindAll)
	if p.id != 0 {
		delete(c.streams, p.id)
		c.endedPushes++
	}
	c.changed = true
	if c.noNew {
		c.endIfDrained()
	}
}

// unlock releases mu and makes the callbacks that were decided under it.
func (c *Conn) unlock() {
	change := c.changed && !c.corked // the reader calls OnChange once for all its answers
	if change {
		c.changed = false
	}
	fin := c.fin
	c.fin = nil
	c.mu.Unlock()
	for i := range fin {
		fin[i].done(fin[i].outcome)
	}
	if change && c.cfg.OnChange != nil {
		c.cfg.OnChange()
	}
}

// unlockForOwner is unlock for the goroutines of the connection's owner, which may hold a lock
// that OnChange wants: connLoop calls OnChange instead.
func (c *Conn) unlockForOwner() {
	fin := c.fin
	c.fin = nil
	c.wakeLoop()
	c.mu.Unlock()
	for i := range fin {
		fin[i].done(fin[i].outcome)
	}
}

// lost is the outcome of p when there will be no (further) answer.
//
// Without the end of the payload, which carries END_STREAM, the peer has no request that it
// could process, and JSON without its end is not a payload. Nothing more is written of a push
// that has ended, so its end never arrives.
func (p *push) lost(err error) Outcome {
	switch {
	case p.status != 0: // see below
	case p.id == 0 || p.unsent || len(p.unwritten()) > 0:
		return Outcome{Class: NotSent, Err: err}
	default:
		return Outcome{Class: Unknown, Err: err}
	}
	// There was an answer, only its body is incomplete.
	o := p.outcome()
	if p.status != 200 && o.Reason == "" {
		// Not delivered, but the reason, which says what to do, is missing. The next try may
		// learn it.
		o.Class, o.Err = Unavailable, err
	}
	return o
}

// outcome is the outcome that the answer gives.
func (p *push) outcome() Outcome {
	o := outcomeOf(p.status, p.body)
	o.APNsID = p.apnsID
	o.RetryAfter = p.retryAfter
	return o
}

// abandon ends p on our side, without an answer.
func (c *Conn) abandon(p *push, err error) {
	c.reset(p, http2.ErrCodeCancel)
	c.finish(p, p.lost(err))
}

// reset tells the peer that p's stream is not wanted any more.
func (c *Conn) reset(p *push, code http2.ErrCode) {
	if p.id == 0 {
		return
	}
	c.control(c.frames.WriteRSTStream(p.id, code))
	c.resets.add(p.id)
}

// stopTaking refuses new pushes; those already taken may still be sent.
func (c *Conn) stopTaking(why error) {
	var before, now *GoAwayError
	if c.why == nil || errors.As(why, &now) && (!errors.As(c.why, &before) || before.Reason == "") {
		c.why = why // the peer's reason says more than ours
	}
	if !c.noNew {
		c.noNew = true
		c.changed = true
	}
}

// retire opens no more streams and lets the open ones end within DrainTimeout. Waiting pushes
// end at once.
func (c *Conn) retire(why error) {
	c.stopTaking(why)
	if !c.noStreams {
		c.noStreams = true
		c.drainUntil = c.now() + c.cfg.DrainTimeout
		c.wakeLoop()
	}
	for c.waiting.head != nil {
		p := c.waiting.head
		c.finish(p, p.lost(why))
	}
	c.endIfDrained()
}

// endIfDrained ends a connection that takes no pushes and has none.
func (c *Conn) endIfDrained() {
	if c.noNew && c.all.n == 0 {
		c.end(c.why, http2.ErrCodeNo)
	}
}

// end ends the connection and tells the peer so by a GOAWAY with code. connLoop ends the pushes
// that are left, once the other goroutines are gone.
func (c *Conn) end(why error, code http2.ErrCode) {
	if c.ended {
		return
	}
	c.farewell = true
	_ = c.frames.WriteGoAway(0, code, nil) // to memory; the peer opens no streams, so 0 is the last
	c.drop(why)
}

// drop ends the connection without a GOAWAY, because the peer does not listen.
func (c *Conn) drop(why error) {
	if c.ended {
		return
	}
	c.ended = true
	c.noStreams = true
	c.stopTaking(why)
	c.wakeWriter()
	c.wakeLoop()
}

func (c *Conn) wakeLoop() {
	select {
	case c.wake <- struct{}{}:
	default: // already woken
	}
}
