package httpapi

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/semaphore"
)

// What clients take of the daemon's memory, in bytes, about. Of each budget a client
// has a share at most, so that one that takes what it gets and is slow, or means ill,
// leaves room for others; and there are several, so that what a client does in one
// way leaves room for what it does in another. All together are what clients may take.
const (
	// bodyBudget is for large bodies, and lines of streams; more of them wait.
	bodyBudget = 256 << 20
	bodyCost   = 3 // for each byte, decoded
	// askBudget is for requests about buried jobs, which ask the queue; more of them
	// wait.
	askBudget = 96 << 20
	askCost   = 24 << 20 // a list of MaxJobs jobs
	// onceBudget is for requests with an Idempotency-Key, which do not end when their
	// client goes; more of them are refused.
	onceBudget = 128 << 20
	onceCost   = 32 << 10
	// lastBudget is for streams and live pages, which last until the client ends them; more
	// of them are refused.
	lastBudget = 192 << 20
	streamCost = 6 << 20   // what is worked on, and answers unread
	viewCost   = 2 << 20   // of a live page
	followCost = 256 << 10 // of a push of the form that is followed
	// formBudget is for the large forms of unauthenticated requests; more of them wait.
	formBudget = 16 << 20
	formCost   = 3 // for each byte
)

// errLasting: there is no more of lastBudget.
var errLasting = errors.New("too many streams and live pages are open, in all or with this key")

// budget is shared by all clients, of which each has its share at most.
type budget struct {
	each int64
	all  *semaphore.Weighted

	mu     sync.Mutex
	shares map[string]*share // of clients that have something of it, or wait for it
}

type share struct {
	left *semaphore.Weighted
	n    int64 // taken, or waited for
}

func newBudget(total, each int64) *budget {
	return &budget{each: each, all: semaphore.NewWeighted(total), shares: make(map[string]*share)}
}

// take waits until a client has n more; its share must be as large. First come, first
// served, except for clients that have all of their share. The error is the
// context's; the client then has none of them.
func (b *budget) take(ctx context.Context, key string, n int64) error {
	own := b.enter(key, n)
	if err := own.Acquire(ctx, n); err != nil {
		b.leave(key, n)
		return err
	}
	if err := b.all.Acquire(ctx, n); err != nil {
		own.Release(n)
		b.leave(key, n)
		return err
	}
	return nil
}

// try takes n if they are there, and says whether they are.
func (b *budget) try(key string, n int64) bool {
	own := b.enter(key, n)
	if own.TryAcquire(n) {
		if b.all.TryAcquire(n) {
			return true
		}
		own.Release(n)
	}
	b.leave(key, n)
	return false
}

// free gives n of a client back.
func (b *budget) free(key string, n int64) {
	b.all.Release(n)
	b.leave(key, n).Release(n)
}

func (b *budget) enter(key string, n int64) *semaphore.Weighted {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shares[key]
	if s == nil {
		s = &share{left: semaphore.NewWeighted(b.each)}
		b.shares[key] = s
	}
	s.n += n
	return s.left
}

func (b *budget) leave(key string, n int64) *semaphore.Weighted {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shares[key]
	if s.n -= n; s.n == 0 {
		delete(b.shares, key)
	}
	return s.left
}
