package worker

import (
	"sync"
	"time"
)

// ProbeEvery is how long a broken or paused app waits between two probes, each of one
// job: often enough to recover within a minute, seldom enough that Apple does
// not take it for an attack.
const ProbeEvery = time.Minute

// Breaker is what the workers of one app share about whether it works at all.
// When APNs refuses its credential the app is broken; when APNs refuses its
// device tokens as those of another environment or topic it is paused (see
// Guard). In both cases its jobs stay in the queue, and once in ProbeEvery one
// worker sends one job to see.
type Breaker struct {
	mu     sync.Mutex
	broken bool // or paused
	paused bool // not by the credential, but by the environment guard
	reason string
	since  time.Time
	next   time.Time         // no probe before
	prober *run              // who has the probe; nil = nobody
	sent   bool              // the prober has taken its one job
	asked  time.Time         // when the prober got the probe
	taken  time.Time         // when the last probe was sent
	turn   int               // counts the probes
	runs   map[*run]struct{} // the app's workers at work
	guard  *Guard            // the app's
}

// NewBreaker returns the breaker of an app whose credential is not known to be bad.
func NewBreaker() *Breaker { return &Breaker{runs: make(map[*run]struct{})} }

// join makes r hear of changes.
func (b *Breaker) join(r *run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs[r] = struct{}{}
	b.guard = r.w.cfg.Guard
}

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
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.broken {
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
	return b.stop(reason, false, now)
}

// pause marks the app paused and reports whether it was not before. A broken
// app stays broken: that is the greater trouble.
func (b *Breaker) pause(reason string, now time.Time) (first bool) {
	return b.stop(reason, true, now)
}

func (b *Breaker) stop(reason string, paused bool, now time.Time) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prober, b.next = nil, now.Add(ProbeEvery)
	if b.broken && paused && !b.paused {
		return false
	}
	b.reason = reason
	if b.broken && b.paused == paused {
		return false
	}
	b.broken, b.paused, b.since = true, paused, now
	b.announce()
	return true
}

// heal marks the app whole again and reports whether it was not before.
func (b *Breaker) heal() (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.broken {
		return false
	}
	b.broken, b.paused, b.reason, b.prober = false, false, "", nil
	b.guard.Reset()
	b.announce()
	return true
}

// Resume lets a broken or paused app work again, by order of a person who says
// that its trouble is over. If it is not, APNs' next answers stop it anew.
func (b *Breaker) Resume() { b.heal() }

// announce makes every worker look at the breaker anew.
func (b *Breaker) announce() {
	for r := range b.runs {
		r.interrupt()
	}
}

// admit says how many jobs r may ask for, given how many it has room for. While
// the app is whole that is all. While it is broken it is none, or one for the
// worker whose turn it is to probe; wait is when to ask again if it is none.
//
// A worker that has not begun its probe within ProbeEvery loses it to the next
// that asks: perhaps its consumer receives nothing.
func (b *Breaker) admit(r *run, room int, now time.Time) (n int, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.broken:
		return room, 0
	case b.prober == r && !b.sent:
		return min(room, 1), ProbeEvery
	case b.prober != nil && b.sent, room == 0:
		return 0, ProbeEvery
	case b.prober != nil && now.Sub(b.asked) < ProbeEvery:
		return 0, ProbeEvery - now.Sub(b.asked)
	case now.Before(b.next):
		return 0, b.next.Sub(now)
	}
	if b.prober != nil {
		b.prober.interrupt() // it shall receive no job any more
	}
	b.prober, b.sent, b.asked = r, false, now
	b.turn++
	return 1, 0
}

// probing says that r has the probe, from when it is allowed one to its end.
func (b *Breaker) probing(r *run) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prober == r
}

// take asks, for a job just received, whether it may be sent; probe is not 0 if
// it is the one that will show whether the app works again.
func (b *Breaker) take(r *run) (ok bool, probe int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.broken {
		return true, 0
	}
	if b.prober != r || b.sent {
		return false, 0
	}
	b.sent, b.taken = true, time.Now()
	return true, b.turn
}

// told ends a probe, which showed nothing: the next one comes in its time.
func (b *Breaker) told(probe int, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.prober != nil && b.turn == probe {
		b.prober, b.next = nil, now.Add(ProbeEvery)
	}
}

// pass gives up a probe, whose job never came to be sent: the next job may be
// the probe at once. It has no effect after told, trip, pause or heal.
func (b *Breaker) pass(probe int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.prober != nil && b.turn == probe {
		b.prober = nil
	}
}

// leave is called when r stops. A probe it has not begun is left to others.
func (b *Breaker) leave(r *run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.runs, r)
	if b.prober == r {
		b.prober = nil
	}
}
