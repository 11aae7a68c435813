package httpapi

import (
	"context"
	"slices"
	"sync"
)

// places bounds what is done at once: for all clients together, and less for each of
// them, so that one that takes what it gets and is slow, or means ill, leaves room
// for others.
type places struct {
	all, each int

	mu      sync.Mutex
	taken   int
	byKey   map[string]int // taken, by a client's name; those that have none are not in it
	waiting []*waiter      // first come, first served, but for who has its share
}

// waiter waits for n places.
type waiter struct {
	key   string
	n     int
	ready chan struct{} // closed when they are its own
}

func newPlaces(all, each int) *places {
	return &places{all: all, each: each, byKey: make(map[string]int)}
}

// take waits until a client has n more places, of which there must be as many in
// its share. The error is the context's; the client then has none of them.
func (p *places) take(ctx context.Context, key string, n int) error {
	w := &waiter{key, n, make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, w)
	p.grantLocked()
	p.mu.Unlock()
	select {
	case <-w.ready: // also if ctx has ended
		return nil
	default:
	}
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.waiting, w)
	if i < 0 { // granted meanwhile
		return nil
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	p.grantLocked() // to those who have waited behind it
	return ctx.Err()
}

// try takes n places if they are there, and says whether they are.
func (p *places) try(key string, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byKey[key]+n > p.each || p.taken+n > p.all {
		return false
	}
	p.takeLocked(key, n)
	return true
}

// free gives n places of a client back.
func (p *places) free(key string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takeLocked(key, -n)
	p.grantLocked()
}

func (p *places) takeLocked(key string, n int) {
	p.taken += n
	if p.byKey[key] += n; p.byKey[key] == 0 {
		delete(p.byKey, key)
	}
}

func (p *places) grantLocked() {
	full := false
	p.waiting = slices.DeleteFunc(p.waiting, func(w *waiter) bool {
		if full || p.byKey[w.key]+w.n > p.each {
			return false
		}
		if p.taken+w.n > p.all {
			full = true // smaller ones do not pass by: it would wait for ever
			return false
		}
		p.takeLocked(w.key, w.n)
		close(w.ready)
		return true
	})
}
