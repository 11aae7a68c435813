package supervisor

import (
	"context"
	"sync"
	"time"

	"propeller/internal/backoff"
)

// aSecond is how many apps may wake, and how many connections to APNs may be dialled, within any
// second: thousands of apps that have jobs after an outage must not look to Apple like an
// attack.
const aSecond = 100

// pace lets through aSecond callers within any second, in the order in which they came. The zero
// value is ready for use.
type pace struct {
	mu   sync.Mutex
	last [aSecond]time.Time // when the last ones went through, or will
	next int                // the oldest of last
}

// wait waits for the caller's turn. If that comes too late for ctx, the error is
// context.DeadlineExceeded, at once.
func (p *pace) wait(ctx context.Context) error {
	after, err := p.reserve(ctx)
	if err != nil || after <= 0 {
		return err
	}
	return backoff.Sleep(ctx, after)
}

func (p *pace) reserve(ctx context.Context) (after time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	at := p.last[p.next].Add(time.Second)
	if at.Before(now) {
		at = now
	}
	if end, has := ctx.Deadline(); has && at.After(end) {
		return 0, context.DeadlineExceeded
	}
	p.last[p.next] = at
	p.next = (p.next + 1) % aSecond
	return at.Sub(now), nil
}
