package worker

import (
	"sync/atomic"

	"propeller/apnsconn"
)

// Counters count what became of one app's pushes, over all its workers, since
// the process started.
type Counters struct {
	byClass [apnsconn.Unknown + 1]atomic.Int64

	Buried             atomic.Int64 // jobs set aside with a reason
	Expired            atomic.Int64 // jobs past their expiration or ttl, dropped unsent
	PossibleDuplicates atomic.Int64 // pushes that may reach a device twice
	Dials              atomic.Int64 // connections to APNs attempted
	DialsFailed        atomic.Int64
	GoAways            atomic.Int64
	Panics             atomic.Int64 // jobs that made a worker panic
}

// Ended says how many pushes ended in class c.
func (c *Counters) Ended(class apnsconn.Class) int64 { return c.byClass[class].Load() }

func (c *Counters) count(class apnsconn.Class) { c.byClass[class].Add(1) }
