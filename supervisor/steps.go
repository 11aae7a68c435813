package supervisor

import (
	"sync/atomic"
	"time"
)

// Steps count what the watchdog has done about one app, or its webhook, since
// the process began.
type Steps struct {
	Replaced  StepCount // connections to APNs
	Restarted StepCount // workers
	Stalled   StepCount // times the app began to stall
}

// StepCount counts the steps of one kind and keeps the last one.
type StepCount struct {
	atomic.Int64
	last atomic.Pointer[Step]
}

// Step is one step of the watchdog.
type Step struct {
	Reason string // as in the log, and which worker it was about
	At     time.Time
}

// Last is the last step; nil: there was none.
func (c *StepCount) Last() *Step { return c.last.Load() }

// note counts a step. There is one watchdog, and nobody else notes any.
func (c *StepCount) note(reason string, now time.Time) {
	c.last.Store(&Step{reason, now})
	c.Add(1)
}
