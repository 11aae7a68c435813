package worker

import (
	"maps"
	"sync"
	"sync/atomic"

	"propeller/apnsconn"
)

// Counters count what became of one app's pushes, over all its workers, since
// the process started.
type Counters struct {
	byClass [apnsconn.Unknown + 1]atomic.Int64

	mu       sync.Mutex
	refusals map[Refusal]int64 // at most maxRefusals

	Seconds Histogram // from sending to APNs' answer

	Buried             atomic.Int64 // jobs set aside with a reason
	Expired            atomic.Int64 // jobs past their expiration or ttl, dropped unsent
	PossibleDuplicates atomic.Int64 // pushes that may reach a device twice
	Dials              atomic.Int64 // connections to APNs attempted
	DialsFailed        atomic.Int64
	GoAways            atomic.Int64
	Panics             atomic.Int64 // jobs that made a worker panic
}

// Refusal is how a push ended that was not delivered.
type Refusal struct {
	Class  apnsconn.Class
	Reason string // APNs'; "" when there was none, OtherReason for the rare ones of very many
}

const (
	// maxRefusals bounds what is kept of APNs' reasons, which are free strings:
	// Apple documents some 40.
	maxRefusals = 100
	// OtherReason stands for the reasons beyond that.
	otherReason = "other"
)

// Ended says how many pushes ended in class c.
func (c *Counters) Ended(class apnsconn.Class) int64 { return c.byClass[class].Load() }

// Refusals says how many pushes ended in which way, without those delivered.
func (c *Counters) Refusals() map[Refusal]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.refusals)
}

// count counts a push when it ends; settling its job may take longer.
func (c *Counters) count(class apnsconn.Class, reason string) {
	c.byClass[class].Add(1)
	if class == apnsconn.Delivered {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusals == nil {
		c.refusals = make(map[Refusal]int64)
	}
	r := Refusal{class, reason}
	if _, known := c.refusals[r]; !known && len(c.refusals) >= maxRefusals {
		r.Reason = otherReason
	}
	c.refusals[r]++
}
