package jetstream

import (
	"context"
	"math/rand/v2"
	"time"
)

// event says that there is something to look at: once, however often it is raised.
type event chan struct{}

func newEvent() event { return make(event, 1) }

func (e event) raise() {
	select {
	case e <- struct{}{}:
	default:
	}
}

// wait waits for ch, or returns why not.
func wait[T any](ctx context.Context, q *client, ch <-chan T) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-q.ctx.Done():
		return errQueueClosed
	}
}

// sleep waits, or returns why not.
func (q *client) sleep(ctx context.Context, d time.Duration) error {
	return wait(ctx, q, time.After(d))
}

// about is a time around d, so that daemons do not all come at once.
func about(d time.Duration) time.Duration { return d/2 + rand.N(d) }
