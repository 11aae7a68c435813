// Package backoff is the one owner of pauses between attempts: they double from a least to a
// longest one, with jitter, so that many who wait for the same thing do not come back in step.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff hands out the pauses of one series of failed attempts. It belongs to one goroutine.
type Backoff struct {
	Min time.Duration // the first pause
	Max time.Duration // the longest pause, jitter included

	failed int // attempts since the last Reset
}

// Next returns how long to wait after one more failed attempt.
func (b *Backoff) Next() time.Duration {
	b.failed++
	return Pause(b.Min, b.Max, b.failed)
}

// Wait waits for Next, or until ctx ends, and returns ctx.Err() then.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }

// Reset makes the next pause the first one again, after a success.
func (b *Backoff) Reset() { b.failed = 0 }

// Pause returns how long to wait after the given attempt failed; the first attempt is 1. The
// pause is shortest·2^(attempt-1), ±20 %, and at most longest: at the bound it is spread over
// the 20 % below it.
func Pause(shortest, longest time.Duration, attempt int) time.Duration {
	d := max(0, min(shortest, longest))
	for ; attempt > 1 && 0 < d && d < longest; attempt-- {
		if d > longest/2 {
			d = longest // doubling could overflow
			break
		}
		d *= 2
	}
	return between(d-d/5, d+min(d/5, longest-d))
}

// Jitter returns d ±20 %.
func Jitter(d time.Duration) time.Duration { return between(d-d/5, d+d/5) }

func between(least, most time.Duration) time.Duration {
	return least + rand.N(max(0, most-least)+1)
}

// Sleep waits for d, or until ctx ends, and returns ctx.Err() then.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
