package feedback

import (
	"context"
	"math/rand/v2"
	"time"
)

// Pauses between failed requests: each twice the one before, from minPause to
// maxPause. An endpoint that is away for the night is tried 12 times an hour.
const (
	minPause = time.Second
	maxPause = 5 * time.Minute
)

// pause grows with each failure.
type pause struct {
	min  time.Duration // the first nominal pause
	last time.Duration // the last one; 0: none yet
}

// next returns how long to wait now: between half of the nominal pause and the
// whole, so that the webhooks of many apps do not come back in step.
func (p *pause) next() time.Duration {
	p.last = min(max(2*p.last, p.min), maxPause)
	return p.last/2 + rand.N(p.last/2+1)
}

// reset begins with the shortest pause again.
func (p *pause) reset() { p.last = 0 }

// sleep waits for d, or for ctx's end, which it returns.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
