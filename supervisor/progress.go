package supervisor

import (
	"fmt"
	"time"
)

// progress follows one worker or webhook: how long it has had work without finishing any, and
// what was done about that. It has no clock: look is told the time and what was seen.
//
// Time counts only while two looks in a row see work, and while no state of the whole app, such
// as a lost queue, explains the standstill. There are two sums. total is all of that time, and
// decides when the app is stalled. free is the part without a known cause in the worker, and
// decides when to replace or restart something: a new connection does not help a worker that
// waits for APNs or the queue.
type progress struct {
	period time.Duration // the watchdog's, or longer

	at       time.Time // of the last look; zero before the first
	finished int64     // at the last look
	received int64     // when the sums began
	working  bool      // there was work at the last look
	had      bool      // it has reserved or received jobs since the sums began

	total time.Duration // with work, and nothing finished
	free  time.Duration // of total, without a known cause
	idle  time.Duration // without work, without a break
	tries int           // replacements and restarts so far
	stuck bool          // it makes its app stall
}

// view is what can be seen of a worker at one moment.
type view struct {
	reserved int   // jobs that it has
	finished int64 // jobs, since the process began
	received int64
	ready    int    // jobs in the tube that it could receive
	known    bool   // whether ready is known
	cause    string // why it does nothing; "" if unknown
	last     string // what its last plan waited for, in brackets; "" for nothing
	waits    bool   // cause may hide jobs: assume that there are some

	explained bool // the app's state explains the standstill
}

// step is what is to be done after a look.
type step int

const (
	stay      step = iota
	replace        // its connection to APNs
	restart        // the worker, which gets a new connection to the queue as well
	stall          // say that the app stalls
	recovered      // it does not stall any more
)

// stallAfter is how many periods without progress make an app stall: the new connection and the
// restarted worker have each had one period to help.
const stallAfter = 3

// retryEvery is after how many periods a stalled worker is restarted again: what did not help
// then may help now. With the default period that is ten minutes between connections, which
// Apple does not take for an attack.
const retryEvery = 10

// idleFor is how many periods without work reset the sums of a worker that received jobs and did
// not finish them: those jobs may be delayed in the queue, and come again.
const idleFor = 3

// look notes what is seen at now, and says what to do.
func (p *progress) look(now time.Time, v view) (step, string) {
	dt := p.elapsed(now)
	moved := v.finished > p.finished
	p.finished = v.finished
	working := v.reserved > 0 || v.known && v.ready > 0 || v.waits
	both := working && p.working
	p.working = working
	p.had = p.had || v.reserved > 0 || v.received != p.received
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

// elapsed is the time since the last look, at most half a period: if the process was stopped for
// an hour, one look sees that hour, which proves nothing.
func (p *progress) elapsed(now time.Time) time.Duration {
	dt := now.Sub(p.at)
	if p.at.IsZero() {
		dt = 0
	}
	p.at = now
	return min(dt, p.period/2)
}

// forget resets the sums.
func (p *progress) forget(v view, why string) (step, string) {
	was := p.stuck
	p.total, p.free, p.idle, p.tries, p.stuck = 0, 0, 0, 0, false
	p.received, p.had = v.received, false
	if was {
		return recovered, why
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
	case v.cause == "" && p.free >= p.tryAt():
		p.tries++
		if p.tries == 1 && !p.starved() {
			return replace, p.reason(v)
		}
		return restart, p.reason(v)
	case p.total >= stallAfter*p.period && !p.stuck:
		p.stuck = true
		return stall, p.reason(v)
	}
	return stay, ""
}

// tryAt is when the next replacement or restart is due.
func (p *progress) tryAt() time.Duration {
	if p.tries < 2 {
		return time.Duration(p.tries+1) * p.period
	}
	return time.Duration(p.tries-1) * retryEvery * p.period
}

// starved reports whether the connection to the queue is at fault: the worker has received no
// job to send.
func (p *progress) starved() bool { return !p.had }

// reason says what is wrong, as the end of "worker 3: ".
func (p *progress) reason(v view) string {
	since := p.total.Round(time.Second)
	switch {
	case v.cause != "":
		return v.cause
	case v.reserved > 0:
		return fmt.Sprintf("has reserved %d jobs and finished none for %v%s", v.reserved, since, v.last)
	case p.starved():
		return fmt.Sprintf("has received none of %d ready jobs for %v", v.ready, since)
	default:
		return fmt.Sprintf("has finished none of its jobs for %v, with %d ready%s", since, v.ready, v.last)
	}
}
