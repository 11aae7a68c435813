// Package peakheap measures, for tests, how much memory something holds at its worst.
package peakheap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
)

// Within says whether f can do with most bytes of heap at once, besides what was there
// before, and how many it took. Of what is allocated while garbage is collected nobody
// knows yet whether it is, which on a busy machine may be much: so f gets some attempts.
// Nothing else may run in the process.
func Within(most int, f func()) (took int, ok bool) {
	for range 5 {
		if took = of(f); took <= most {
			return took, true
		}
	}
	return took, false
}

// of is the most of the heap that was reachable at once while f ran. Garbage is collected
// whenever the heap has grown by a hundredth, and at each time what is left is noted.
func of(f func()) int {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	runtime.GC()
	runtime.GC() // also what pools hold
	before := live()
	var most atomic.Uint64
	var noting sync.WaitGroup
	done := make(chan struct{})
	next := make(chan struct{}, 1)
	arm(next, done)
	noting.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-next:
				most.Store(max(most.Load(), live()))
			}
		}
	})
	f()
	close(done)
	noting.Wait()
	return int(max(most.Load(), before) - before)
}

// arm has next told of each end of a collection, until done.
func arm(next chan<- struct{}, done <-chan struct{}) {
	type mark struct{ _ [16]*byte } // not a tiny one, which lives with others
	runtime.SetFinalizer(new(mark), func(*mark) {
		select {
		case <-done:
			return
		case next <- struct{}{}:
		default:
		}
		arm(next, done)
	})
}

// live is what the last collection has left.
func live() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
