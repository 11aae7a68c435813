package apnsconn

import (
	"errors"

	"golang.org/x/net/http2"
)

// How pushes and the connection end. All methods here but the unlocks are called
// with mu held, and only decide: the callbacks are made by the unlocks.

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

// unlock releases mu and makes the calls that were decided under it.
func (c *Conn) unlock() {
	change := c.changed && !c.corked // the reader calls OnChange once for all it has at hand
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

// unlockForOwner is unlock for the goroutines of the connection's owner, who may
// hold a lock that OnChange wants: the keeper makes that call.
func (c *Conn) unlockForOwner() {
	fin := c.fin
	c.fin = nil
	c.pokeKeeper()
	c.mu.Unlock()
	for i := range fin {
		fin[i].done(fin[i].outcome)
	}
}

// lost is the outcome of p when there will be no (further) answer.
//
// Without the end of its payload, which has END_STREAM, the peer has no request that it
// could process, and a JSON object without its end is none. Nothing more is written of a
// push that has ended, so it stays without.
func (p *push) lost(err error) Outcome {
	switch {
	case p.status != 0: // see below
	case p.id == 0 || p.unsent || len(p.rest()) > 0:
		return Outcome{Class: NotSent, Err: err}
	default:
		return Outcome{Class: Unknown, Err: err}
	}
	// There was an answer, only its body is incomplete.
	o := p.outcome()
	if p.status != 200 && o.Reason == "" {
		// Not delivered, but the reason is missing that would tell for good
		// what to do. Later it may be told.
		o.Class, o.Err = Unavailable, err
	}
	return o
}

// outcome is what the answer says.
func (p *push) outcome() Outcome {
	o := OutcomeOf(p.status, p.body)
	o.APNsID = p.apnsID
	o.RetryAfter = p.retryAfter
	return o
}

// abandon ends p from this side, without an answer.
func (c *Conn) abandon(p *push, err error) {
	c.reset(p, http2.ErrCodeCancel)
	c.finish(p, p.lost(err))
}

// reset tells the peer that nothing more is wanted of p's stream.
func (c *Conn) reset(p *push, code http2.ErrCode) {
	if p.id == 0 {
		return
	}
	c.control(c.frames.WriteRSTStream(p.id, code))
	c.resets.add(p.id)
}

// stopTaking refuses pushes from now on; those taken may still be sent.
func (c *Conn) stopTaking(why error) {
	var before, now *GoAwayError
	if c.why == nil || errors.As(why, &now) && (!errors.As(c.why, &before) || before.Reason == "") {
		c.why = why // the peer's word says more than our own finding
	}
	if !c.noNew {
		c.noNew = true
		c.changed = true
	}
}

// retire lets the open streams end, for DrainTimeout at most, and opens no
// more. Waiting pushes are given back at once.
func (c *Conn) retire(why error) {
	c.stopTaking(why)
	if !c.noStreams {
		c.noStreams = true
		c.drainUntil = c.now() + c.cfg.DrainTimeout
		c.pokeKeeper()
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

// end ends the connection and tells the peer why by a GOAWAY with code. The
// keeper ends the pushes that are left, when the other goroutines are gone.
func (c *Conn) end(why error, code http2.ErrCode) {
	if c.ended {
		return
	}
	c.farewell = true
	_ = c.frames.WriteGoAway(0, code, nil) // to memory; the peer opens no streams, so 0 is the last
	c.drop(why)
}

// drop ends the connection without a word, because nobody listens.
func (c *Conn) drop(why error) {
	if c.ended {
		return
	}
	c.ended = true
	c.noStreams = true
	c.stopTaking(why)
	c.wakeWriter()
	c.pokeKeeper()
}

func (c *Conn) pokeKeeper() {
	select {
	case c.poke <- struct{}{}:
	default: // it has been poked and did not look yet
	}
}
