package worker

import (
	"sync"
	"time"
)

// ProbeEvery is how long a broken app waits between two probes, each of one
// job: often enough to recover within a minute, seldom enough that Apple does
// not take it for an attack.
const ProbeEvery = time.Minute

// Breaker is what the workers of one app share about their credential. When
// APNs refuses it the app is broken: its jobs stay in the queue, and once in
// ProbeEvery one worker sends one job to see.
type Breaker struct {
	mu     sync.Mutex
	broken bool
	reason string
	since  time.Time
	next   time.Time         // no probe before
	prober *run              // who has the probe; nil = nobody
	sent   bool              // the prober has taken its one job
	runs   map[*run]struct{} // the app's workers at work
}

// NewBreaker returns the breaker of an app whose credential is not known to be bad.
func NewBreaker() *Breaker { return &Breaker{runs: make(map[*run]struct{})} }

// join makes r hear of changes.
func (b *Breaker) join(r *run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs[r] = struct{}{}
}

// State says whether the app is broken, why, and since when.
func (b *Breaker) State() (broken bool, reason string, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken, b.reason, b.since
}

// trip marks the app broken and reports whether it was whole before. A failed
// probe puts off the next one.
func (b *Breaker) trip(reason string, now time.Time) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reason, b.prober, b.next = reason, nil, now.Add(ProbeEvery)
	if b.broken {
		return false
	}
	b.broken, b.since = true, now
	b.announce()
	return true
}

// heal marks the app whole again and reports whether it was broken before.
func (b *Breaker) heal() (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.broken {
		return false
	}
	b.broken, b.reason, b.prober = false, "", nil
	b.announce()
	return true
}

// announce makes every worker look at the breaker anew.
func (b *Breaker) announce() {
	for r := range b.runs {
		r.interrupt()
	}
}

// admit says how many jobs r may ask for, given how many it has room for. While
// the app is whole that is all. While it is broken it is none, or one for the
// worker whose turn it is to probe; wait is when to ask again if it is none.
func (b *Breaker) admit(r *run, room int, now time.Time) (n int, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.broken:
		return room, 0
	case b.prober == r && !b.sent:
		return min(room, 1), ProbeEvery
	case b.prober != nil || room == 0:
		return 0, ProbeEvery
	case now.Before(b.next):
		return 0, b.next.Sub(now)
	}
	b.prober, b.sent = r, false
	return 1, 0
}

// take asks, for a job just received, whether it may be sent; probe says that
// it is the one that will show whether the credential works again.
func (b *Breaker) take(r *run) (ok, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.broken {
		return true, false
	}
	if b.prober != r || b.sent {
		return false, false
	}
	b.sent = true
	return true, true
}

// told ends r's probe, which showed nothing: the next one comes in its time.
func (b *Breaker) told(r *run, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.prober == r {
		b.prober, b.next = nil, now.Add(ProbeEvery)
	}
}

// pass gives up r's probe, whose job never came to be sent: the next job may
// be the probe at once.
func (b *Breaker) pass(r *run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.prober == r {
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
