package supervisor

import (
	"fmt"
	"time"
)

// progress follows one worker: how long it has had work without finishing any, and what
// has been done about that. It has no clock: look is told the time and what was seen.
//
// Time counts only while two looks in a row see work, and while no state of the whole
// app (no queue, say) explains the standstill. There are two sums. total is all of that
// time, and decides when the app is stalled. free is the part that no cause of the
// worker's own explains, and decides when to replace or restart something: a new
// connection does not help a worker that waits for APNs or the queue.
type progress struct {
	period time.Duration // see watchdog.period

	at       time.Time // of the last look; zero before the first
	finished int64     // at the last look
	received int64     // when the sums began
	working  bool      // there was work at the last look
	had      bool      // it has held or received jobs since the sums began

	total time.Duration // with work, and nothing finished
	free  time.Duration // of total, without a known cause
	idle  time.Duration // without work, at one go
	mends int           // steps taken that mend
	stuck bool          // the app has been said to stall for this worker
}

// view is what can be seen of a worker at one moment.
type view struct {
	held     int   // jobs it has
	finished int64 // jobs since the process began
	received int64
	ready    int    // jobs of the tube that it could have
	known    bool   // whether ready is known
	cause    string // why it works on nothing, when that is known
	last     string // what its last plan waited for, in brackets; "" = nothing
	waits    bool   // cause may keep jobs from being seen: assume that there are some

	explained bool // the app's state explains the standstill
}

// step is what is to be done after a look.
type step int

const (
	stay    step = iota
	replace      // its connection to APNs
	restart      // the worker: it gets a new connection to the queue, too
	abandon      // replace the stuck worker by a new one
	stall        // say that the app stalls
	mended       // stalls no more
)

// stallAfter is how many periods without progress make an app stall: a new
// connection and a new worker have each had one to show what they are worth.
const stallAfter = 3

// mendAgain is after how many periods a stalled worker is restarted once more:
// what did not help then may help now, and ten minutes (of the default period)
// between connections are no churn that Apple could take for an attack.
const mendAgain = 10

// idleFor is after how many periods without work the sums are forgotten though
// the worker has received something and not finished it: those jobs may be back
// in the queue with a pause, and come again.
const idleFor = 3

// look takes in what is seen at now, and says what to do.
func (p *progress) look(now time.Time, v view) (step, string) {
	dt := p.elapsed(now)
	moved := v.finished > p.finished
	p.finished = v.finished
	working := v.held > 0 || v.known && v.ready > 0 || v.waits
	both := working && p.working
	p.working = working
	p.had = p.had || v.held > 0 || v.received != p.received
	switch {
	case moved:
		return p.forget(v, "it has finished jobs again")
	case both && v.explained:
		p.idle = 0
		return stay, ""
	case both:
		p.idle = 0
		return p.count(dt, v)
	case working || !v.known:
		return stay, ""
	}
	p.idle += dt
	if !p.had || p.idle >= idleFor*p.period {
		return p.forget(v, "no job waits for it any more")
	}
	return stay, ""
}

// elapsed is the time since the last look. A process that has been stopped for
// an hour learns so from one look, which proves nothing: no look counts more
// than half a period.
func (p *progress) elapsed(now time.Time) time.Duration {
	dt := now.Sub(p.at)
	if p.at.IsZero() {
		dt = 0
	}
	p.at = now
	return min(dt, p.period/2)
}

// forget begins anew.
func (p *progress) forget(v view, why string) (step, string) {
	was := p.stuck
	p.total, p.free, p.idle, p.mends, p.stuck = 0, 0, 0, 0, false
	p.received, p.had = v.received, false
	if was {
		return mended, why
	}
	return stay, ""
}

// count adds the time since the last look to the sums.
func (p *progress) count(dt time.Duration, v view) (step, string) {
	p.total += dt
	if v.cause == "" {
		p.free += dt
	}
	switch {
	case v.cause == "" && p.free >= p.mendAt():
		p.mends++
		if p.mends == 1 && !p.starved() {
			return replace, p.reason(v)
		}
		return restart, p.reason(v)
	case p.total >= stallAfter*p.period && !p.stuck:
		p.stuck = true
		return stall, p.reason(v)
	}
	return stay, ""
}

// mendAt is when the next step that mends is due.
func (p *progress) mendAt() time.Duration {
	if p.mends < 2 {
		return time.Duration(p.mends+1) * p.period
	}
	return time.Duration(p.mends-1) * mendAgain * p.period
}

// starved says that the worker's trouble is its connection to the queue: it
// has not got a job to send.
func (p *progress) starved() bool { return !p.had }

// reason says what is wrong, as the end of "worker 3: ".
func (p *progress) reason(v view) string {
	since := p.total.Round(time.Second)
	if p.total < time.Second {
		since = p.total // of tests
	}
	switch {
	case v.cause != "":
		return v.cause
	case v.held > 0:
		return fmt.Sprintf("holds %d jobs and has finished none for %v%s", v.held, since, v.last)
	case p.starved():
		return fmt.Sprintf("has received none of %d ready jobs for %v", v.ready, since)
	default:
		return fmt.Sprintf("has finished none of its jobs for %v, with %d ready%s", since, v.ready, v.last)
	}
}
