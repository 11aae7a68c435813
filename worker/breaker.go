package worker

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ProbeEvery is the time between two probes of a broken or guarded app, each of one
	// push: often enough to recover within a minute, seldom enough that Apple does not
	// take it for an attack.
	ProbeEvery = time.Minute
	// probeStep delays the probe of each further worker of all lanes, so that only one of them
	// receives a job for it. The delay is at most probeSteps times this.
	probeStep  = 2 * time.Second
	probeSteps = 10
)

// breaker is shared by the workers of all lanes, and stops them if the app does not work.
// If APNs refuses the app's credential, the app is broken. If APNs refuses its device
// tokens as those of another environment or topic, the app is guarded (see guard). In
// both cases its jobs stay in the queue, and every ProbeEvery one worker sends one push
// as a probe.
//
// look says what is permitted and changes nothing. take uses up the permission, when the
// push is sent.
type breaker struct {
	closed    atomic.Bool // only probes may be sent; written under mu
	mailboxes *mailboxes
	guard     *guard // of the same lanes, which heal resets

	mu        sync.Mutex
	guarded   bool // by the environment guard, not by the credential
	reason    string
	since     time.Time
	next      time.Time // no probe before
	taken     time.Time // when the last probe was sent
	turn      int       // the last probe's number; changes when that probe no longer counts
	seats     []*seat   // of the workers at work, in the order in which they may probe
	dialer    *seat     // of the worker that dials for a probe; nil = none
	dialUntil time.Time // how long the others wait for it
	closes    int       // how often it closed, or stayed closed after a probe
}

// BreakerState is a breaker at one moment. Broken and Guarded exclude each other.
type BreakerState struct {
	Broken  bool      // APNs refuses the credential
	Guarded bool      // by the environment guard
	Reason  string    // why; "" while the app works
	Since   time.Time // zero while the app works
	// Probe is when the next probe is due or the last one was sent, whichever is later;
	// zero while the app works. If it is long past although there are jobs, nobody
	// probes, and Reason may no longer hold.
	Probe time.Time
}

// State says whether the app is broken or guarded, why, and since when.
func (b *breaker) State() BreakerState {
	if !b.closed.Load() {
		return BreakerState{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed.Load() {
		return BreakerState{}
	}
	s := BreakerState{Broken: !b.guarded, Guarded: b.guarded, Reason: b.reason, Since: b.since, Probe: b.next}
	if b.taken.After(s.Probe) {
		s.Probe = b.taken
	}
	return s
}

// trip marks the app broken and reports whether it was not before. A failed
// probe puts off the next one.
func (b *breaker) trip(reason string, now time.Time) (first bool) {
	return b.close(reason, false, now)
}

// guardApp marks the app guarded and reports whether it was not before. A broken
// app stays broken: that is the greater trouble.
func (b *breaker) guardApp(reason string, now time.Time) (first bool) {
	return b.close(reason, true, now)
}

func (b *breaker) close(reason string, guarded bool, now time.Time) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := b.closed.Load()
	b.next = now.Add(ProbeEvery)
	b.turn++
	b.dialUntil = time.Time{}
	b.closes++
	if closed && guarded && !b.guarded {
		return false
	}
	b.reason = reason
	if closed && b.guarded == guarded {
		return false
	}
	b.guarded, b.since = guarded, now
	b.closed.Store(true)
	b.mailboxes.ring()
	return true
}

// heal opens the breaker, and reports whether it was closed.
func (b *breaker) heal() (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed.Load() {
		return false
	}
	b.closed.Store(false)
	b.guarded, b.reason = false, ""
	b.guard.reset()
	b.mailboxes.ring()
	return true
}

// look reports whether the breaker is closed, and from when the worker with that seat may probe.
// closes tells connections opened before the breaker closed from later ones: a probe needs
// a new connection.
func (b *breaker) look(s *seat) (closed bool, probe time.Time, closes int) {
	if !b.closed.Load() {
		return false, time.Time{}, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed.Load(), b.probeAt(s), b.closes
}

// epoch returns the closes of look.
func (b *breaker) epoch() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closes
}

// probeAt is when a worker may probe. b.mu is held.
func (b *breaker) probeAt(s *seat) time.Time {
	at := b.next.Add(time.Duration(min(s.place, probeSteps)) * probeStep)
	if s != b.dialer && b.dialUntil.After(at) {
		return b.dialUntil
	}
	return at
}

// take uses up the permission for one push, and reports whether there was one. probe is
// not 0 if the push is a probe.
func (b *breaker) take(s *seat, now time.Time) (ok bool, probe int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.closed.Load():
		return true, 0
	case now.Before(b.probeAt(s)):
		return false, 0
	}
	b.next, b.taken, b.dialUntil = now.Add(ProbeEvery), now, time.Time{}
	b.turn++
	return true, b.turn
}

// dial notes that a worker dials for a probe: the others do not until it has sent the
// probe, for dialTime at most. It returns false if another one was faster.
func (b *breaker) dial(s *seat, now time.Time) (ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() && now.Before(b.probeAt(s)) {
		return false
	}
	b.dialer, b.dialUntil = s, now.Add(dialTime)
	return true
}

// told ends a probe that showed nothing: the next one is due in ProbeEvery.
func (b *breaker) told(probe int, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() && b.turn == probe {
		b.next = now.Add(ProbeEvery)
	}
}
