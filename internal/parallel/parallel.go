// Package parallel calls a function many times at once.
package parallel

import (
	"sync"
	"sync/atomic"
)

// Do calls f for 0…n-1, with up to limit calls at once, and begins no more once one has
// returned false. It returns when all calls have ended, and reports whether none returned
// false. If one panics, the panic goes on in the caller.
func Do(limit, n int, f func(i int) bool) bool {
	var wg sync.WaitGroup
	var begun atomic.Int64
	var stopped atomic.Bool
	var panicked atomic.Pointer[any]
	for range min(limit, n) {
		wg.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					panicked.Store(&v)
					stopped.Store(true)
				}
			}()
			for i := int(begun.Add(1)) - 1; i < n && !stopped.Load(); i = int(begun.Add(1)) - 1 {
				if !f(i) {
					stopped.Store(true)
				}
			}
		})
	}
	wg.Wait()
	if v := panicked.Load(); v != nil {
		panic(*v)
	}
	return !stopped.Load()
}

// Each calls f for every item, with up to limit calls at once. It returns when all have ended.
func Each[T any](limit int, items []T, f func(T)) {
	Do(limit, len(items), func(i int) bool { f(items[i]); return true })
}
