package apnstest

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
)

// counter counts up, and lets goroutines wait for a count. Counting costs one
// atomic addition as long as nobody's count is reached.
type counter struct {
	n    atomic.Int64
	next atomic.Int64 // lowest count waited for; 0 when nobody waits

	mu      sync.Mutex
	waiters map[chan struct{}]int64
}

func (c *counter) add() {
	n := c.n.Add(1)
	if next := c.next.Load(); next != 0 && n >= next {
		c.wakeUp()
	}
}

func (c *counter) load() int64 { return c.n.Load() }

// wakeUp releases the waiters whose count is reached.
func (c *counter) wakeUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ch, n := range c.waiters {
		if c.n.Load() >= n {
			close(ch)
			delete(c.waiters, ch)
		}
	}
	c.setNext()
}

// setNext needs c.mu.
func (c *counter) setNext() {
	next := int64(math.MaxInt64)
	for _, n := range c.waiters {
		next = min(next, n)
	}
	if len(c.waiters) == 0 {
		next = 0
	}
	c.next.Store(next)
}

// wait returns nil once the count is at least n.
func (c *counter) wait(ctx context.Context, n int64) error {
	if c.load() >= n {
		return nil
	}
	ch := make(chan struct{})
	c.mu.Lock()
	if c.waiters == nil {
		c.waiters = make(map[chan struct{}]int64)
	}
	c.waiters[ch] = n
	c.setNext()
	c.mu.Unlock()
	c.wakeUp() // the count may have been reached before next was set
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, ch)
	c.setNext()
	if c.load() >= n {
		return nil
	}
	return ctx.Err()
}
