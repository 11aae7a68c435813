package bench

import (
	"fmt"
	"runtime"
	"time"
)

// Cores says how many cores were busy with what, on average.
type Cores struct {
	Daemon  float64  `json:"daemon"` // this process, an embedded queue with it
	StandIn float64  `json:"stand_in"`
	Others  *float64 `json:"other_programs,omitempty"` // a queue's server is one; nil where the system does not tell
	Idle    *float64 `json:"idle,omitempty"`
	Of      float64  `json:"of"`
}

// BusyCores tells used apart; standIn is the CPU time of the run's other process.
func BusyCores(used Usage, standIn time.Duration) Cores {
	share := func(d time.Duration) float64 { return d.Seconds() / used.Time.Seconds() }
	c := Cores{Daemon: share(used.CPU), StandIn: share(standIn), Of: float64(runtime.GOMAXPROCS(0))}
	if used.IdleKnown {
		idle := share(used.Idle)
		others := max(0, c.Of-idle-c.Daemon-c.StandIn)
		c.Idle, c.Others = &idle, &others
	}
	return c
}

func (c *Cores) String() string {
	text := fmt.Sprintf("here %.2f, stand-in %.2f", c.Daemon, c.StandIn)
	if c.Idle != nil {
		text += fmt.Sprintf(", other programs %.2f, idle %.2f", *c.Others, *c.Idle)
	}
	return text + fmt.Sprintf(", of %.0f", c.Of)
}

// conditions are what a rate's limit is judged by.
type conditions struct {
	Cores
	delayed  bool    // the stand-in answers after a while
	blocked  float64 // of the time, a connection to it had no window for another push
	open     float64 // its requests without answer, per connection
	inFlight int     // and how many might be
	oneToken bool    // per job
	held     float64 // jobs that the workers had
	room     int     // and might have had
}

// Limits of a rate.
const (
	limitWindow   = "window"
	limitInFlight = "in-flight"
	limitQueue    = "queue"
	limitCPU      = "cpu"
	limitOthers   = "other programs"
	limitUnclear  = "unclear"
)

// limit judges what the rate was limited by, and says from what.
func (c *conditions) limit() (name, why string) {
	const nearly = 0.85 // of what there is, counts as all of it: start and end are in the mean
	busy := c.Idle != nil && *c.Idle <= 0.1*c.Of
	switch {
	case c.delayed && c.blocked >= 0.5:
		return limitWindow, fmt.Sprintf("connections had no window left for another payload %s of the time; more --workers are more windows", percent(c.blocked))
	case c.delayed && c.open >= nearly*float64(c.inFlight):
		return limitInFlight, fmt.Sprintf("%.0f of %d pushes per connection were in flight on average; more --workers are more connections", c.open, c.inFlight)
	case busy && *c.Others > 0.15*c.Of:
		return limitOthers, fmt.Sprintf("they took %.1f of %.0f cores, the queue's server among them if it runs here", *c.Others, c.Of)
	case busy:
		return limitCPU, fmt.Sprintf("%.1f of %.0f cores were busy", c.Of-*c.Idle, c.Of)
	case c.oneToken && c.held < float64(c.room)/2:
		return limitQueue, fmt.Sprintf("the workers held %.0f jobs of the %d that they have room for: the queue gave them no more", c.held, c.room)
	}
	return limitUnclear, "nothing was used up"
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
