package worker

import (
	"math"
	"sync/atomic"
	"time"
)

// seconds are the upper bounds of a Histogram's buckets. APNs answers within
// some 10 to 100 ms; push_timeout is 60 s at most.
var seconds = [...]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60} // never written to

// Histogram counts durations by size. The zero value is empty; it may be used
// from any goroutine.
type Histogram struct {
	buckets [len(seconds) + 1]atomic.Uint64 // not cumulative; the last is beyond all bounds
	sum     atomic.Int64                    // nanoseconds
}

// observe counts d. It costs two atomic operations.
func (h *Histogram) observe(d time.Duration) {
	s, i := d.Seconds(), 0
	for i < len(seconds) && s > seconds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot returns the sum in seconds, and how many were at most each bound,
// the last bound being infinite.
func (h *Histogram) Snapshot() (sum float64, atMost map[float64]uint64) {
	atMost = make(map[float64]uint64, len(h.buckets))
	sum = time.Duration(h.sum.Load()).Seconds()
	var n uint64
	for i := range h.buckets {
		n += h.buckets[i].Load()
		bound := math.Inf(1)
		if i < len(seconds) {
			bound = seconds[i]
		}
		atMost[bound] = n
	}
	return sum, atMost
}
