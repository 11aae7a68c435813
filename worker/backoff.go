package worker

import (
	"math/rand/v2"
	"time"
)

// backoff is the pause before the next dial. Apple takes connection churn for
// an attack, so even after a good connection two dials are dialMin apart.
type backoff struct {
	failures int
	last     time.Time // start of the latest dial
	pause    time.Duration
}

const (
	dialMin = time.Second // apns-protocol.md, decision 3
	// dialMax is no longer than ProbeEvery, or a probe, which dials anew, would
	// come late.
	dialMax = time.Minute
)

// wait is how long until the next dial may start.
func (b *backoff) wait(now time.Time) time.Duration {
	if b.last.IsZero() {
		return 0
	}
	return max(0, b.last.Add(b.pause).Sub(now))
}

// dialed notes a dial. Until good is called it counts as a failure.
func (b *backoff) dialed(now time.Time) {
	b.last = now
	b.pause = min(dialMax, jitter(min(dialMax, dialMin<<min(b.failures, 10))))
	b.failures++
}

// good notes that APNs has answered on the connection as it should.
func (b *backoff) good() {
	if b.failures > 0 {
		b.failures = 0
		b.pause = jitter(dialMin)
	}
}

// jitter spreads d over ±20 %, so that many workers do not act as one.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
