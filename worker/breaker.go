package worker

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ProbeEvery is how long a broken or paused app waits between two probes, each
	// of one push: often enough to recover within a minute, seldom enough that
	// Apple does not take it for an attack.
	ProbeEvery = time.Minute
	// probeStep is by how much later each further worker of the app may probe, so
	// that one of them receives a job for it and not all. The last ones wait no
	// longer than probeSteps of it.
	probeStep  = 2 * time.Second
	probeSteps = 10
)

// Breaker is what the workers of one app share about whether it works at all.
// When APNs refuses its credential the app is broken; when APNs refuses its
// device tokens as those of another environment or topic it is paused (see
// Guard). In both cases its jobs stay in the queue, and once in ProbeEvery one
// worker sends one push to see.
//
// look says what would be allowed and changes nothing; take uses the permission
// up, and is called where the push is sent.
type Breaker struct {
	closed atomic.Bool // no free sending; written under mu
	bells  bells

	mu        sync.Mutex
	paused    bool // not by the credential, but by the environment guard
	reason    string
	since     time.Time
	next      time.Time // no probe before
	taken     time.Time // when the last probe was sent
	turn      int       // the last probe's number; another once that is none any more
	dialer    int       // who connects to probe
	dialUntil time.Time // for how long the others leave it to that
	closes    int       // how often it has closed, or stayed closed after a probe
	guard     *Guard    // the app's
}

// NewBreaker returns the breaker of an app whose credential is not known to be bad.
func NewBreaker() *Breaker { return new(Breaker) }

// BreakerState is a breaker at one moment. Broken and Paused exclude each other.
type BreakerState struct {
	Broken bool      // APNs refuses the credential
	Paused bool      // by the environment guard
	Reason string    // why; "" while the app works
	Since  time.Time // zero while the app works
	// Probe is when the next probe is due, or the last one was sent, whichever is
	// later; zero while the app works. If it has long gone by and there are jobs,
	// nobody probes, and Reason may be none any more.
	Probe time.Time
}

// State says whether the app is broken or paused, why, and since when.
func (b *Breaker) State() BreakerState {
	if !b.closed.Load() {
		return BreakerState{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed.Load() {
		return BreakerState{}
	}
	s := BreakerState{Broken: !b.paused, Paused: b.paused, Reason: b.reason, Since: b.since, Probe: b.next}
	if b.taken.After(s.Probe) {
		s.Probe = b.taken
	}
	return s
}

// trip marks the app broken and reports whether it was not before. A failed
// probe puts off the next one.
func (b *Breaker) trip(reason string, now time.Time) (first bool) {
	return b.close(reason, false, now)
}

// pause marks the app paused and reports whether it was not before. A broken
// app stays broken: that is the greater trouble.
func (b *Breaker) pause(reason string, now time.Time) (first bool) {
	return b.close(reason, true, now)
}

func (b *Breaker) close(reason string, paused bool, now time.Time) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := b.closed.Load()
	b.next = now.Add(ProbeEvery)
	b.turn++
	b.dialUntil = time.Time{}
	b.closes++
	if closed && paused && !b.paused {
		return false
	}
	b.reason = reason
	if closed && b.paused == paused {
		return false
	}
	b.paused, b.since = paused, now
	b.closed.Store(true)
	b.bells.ring()
	return true
}

// heal marks the app whole again and reports whether it was not before.
func (b *Breaker) heal() (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed.Load() {
		return false
	}
	b.closed.Store(false)
	b.paused, b.reason = false, ""
	b.guard.Reset()
	b.bells.ring()
	return true
}

// know tells b of the app's guard, which begins anew when b heals.
func (b *Breaker) know(g *Guard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.guard = g
}

// Resume lets a broken or paused app work again, by order of a person who says
// that its trouble is over. If it is not, APNs' next answers stop it anew.
func (b *Breaker) Resume() { b.heal() }

// look says whether sending is closed, and from when on worker number index may
// probe. closes tells connections that were opened before the breaker closed from
// later ones: a probe shall have a new one.
func (b *Breaker) look(index int) (closed bool, probe time.Time, closes int) {
	if !b.closed.Load() {
		return false, time.Time{}, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed.Load(), b.probeAt(index), b.closes
}

// epoch is what look calls closes.
func (b *Breaker) epoch() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closes
}

// probeAt is when a worker may probe. b.mu is held.
func (b *Breaker) probeAt(index int) time.Time {
	at := b.next.Add(time.Duration(min(index, probeSteps)) * probeStep)
	if index != b.dialer && b.dialUntil.After(at) {
		return b.dialUntil
	}
	return at
}

// take uses the permission to send one push up, and reports whether there was
// one. probe is not 0 if the push shall show whether the app works again.
func (b *Breaker) take(index int, now time.Time) (ok bool, probe int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.closed.Load():
		return true, 0
	case now.Before(b.probeAt(index)):
		return false, 0
	}
	b.next, b.taken, b.dialUntil = now.Add(ProbeEvery), now, time.Time{}
	b.turn++
	return true, b.turn
}

// dial tells that a worker connects to probe: until it is done, and for dialTime
// at most, no other does.
func (b *Breaker) dial(index int, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialer, b.dialUntil = index, now.Add(dialTime)
}

// told ends a probe, which showed nothing: the next one comes in its time.
func (b *Breaker) told(probe int, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() && b.turn == probe {
		b.next = now.Add(ProbeEvery)
	}
}
