package worker

import (
	"context"
	"fmt"
	"time"

	"propeller/queue"
)

// stuckTime is how long a consumer may take to notice that no job is wanted any
// more. It should take no time at all.
const stuckTime = 2 * time.Second

// pumpUnstuck is pump. When ctx has ended and a Receive does not, it closes the
// consumer beneath it.
func (r *run) pumpUnstuck(ctx context.Context) error {
	pumped, freed := make(chan struct{}), make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(freed)
		limit := time.NewTimer(stuckTime)
		defer limit.Stop()
		select {
		case <-pumped:
			return
		case <-limit.C:
		}
		r.log.Warn("the queue's consumer does not stop: closing it")
		r.closeConsumer()
	})
	defer func() {
		close(pumped)
		if !unwatch() {
			<-freed
		}
	}()
	return r.pump(ctx)
}

// pump receives jobs as long as there is room for them.
func (r *run) pump(ctx context.Context) error {
	for ctx.Err() == nil {
		seen := r.interrupts.Load()
		r.takeResumed()
		n, wait := r.room(time.Now())
		if n == 0 {
			r.rest(ctx, wait)
			continue
		}
		if r.sendWaiting(ctx, n) {
			continue
		}
		jobs, err := r.receive(ctx, r.jobsFor(n), seen)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("worker: tube %q: receive: %w", r.w.cfg.Tube, err)
		}
		r.w.received.Add(int64(len(jobs)))
		for _, job := range jobs {
			r.start(ctx, job)
		}
	}
	return nil
}

// receive is the consumer's Receive, cut short by interrupt. seen is how many
// interrupts there had been when n was asked for.
func (r *run) receive(ctx context.Context, n int, seen int64) ([]queue.Job, error) {
	receiving, cancel := context.WithCancel(ctx)
	defer cancel()
	r.cancelReceive.Store(&cancel)
	if r.interrupts.Load() != seen {
		return nil, nil
	}
	jobs, err := r.consumer.Receive(receiving, n)
	if receiving.Err() != nil {
		err = nil
	}
	return jobs, err
}

// interrupt makes the pump look anew at what it may take.
func (r *run) interrupt() {
	r.interrupts.Add(1)
	if cancel := r.cancelReceive.Load(); cancel != nil {
		(*cancel)()
	}
	r.wake()
}

// room is how many pushes can be sent now; if none, wait is when to look again
// though nothing has called wake.
func (r *run) room(now time.Time) (n int, wait time.Duration) {
	if r.w.cfg.Hold.held() {
		r.consumer.Pause()
		r.cut()
		return 0, idle
	}
	n = r.w.cfg.InFlight - int(r.slots.Load())
	conn, pause := r.link.usable(now)
	switch {
	case n <= 0:
		return 0, idle
	case conn != nil:
		n = min(n, conn.Free())
	case pause > 0:
		return 0, r.pause(pause)
	default:
		n = 1 // the push that opens the connection
	}
	if n, wait = r.calm(n, now); wait > 0 {
		return 0, r.pause(wait)
	}
	if n > 0 && r.probeWaits() {
		return 1, idle
	}
	allowed, probeIn := r.w.cfg.Breaker.admit(r, n, now)
	if allowed == 0 && n > 0 {
		r.consumer.Pause()
		r.cutBroken()
		if !r.w.cfg.Breaker.probing(r) { // whose connection it is
			r.link.drop()
		}
		return 0, probeIn
	}
	return max(allowed, 0), idle
}

// pause tells the queue that no job is wanted for a while, and gives back the
// jobs that wait here if it is longer than they are worth keeping for.
func (r *run) pause(wait time.Duration) time.Duration {
	r.consumer.Pause()
	if wait > patience {
		r.cut()
	}
	return wait
}

// patience is how long jobs that have been received wait for a connection.
const patience = 2 * time.Second

// calm holds the worker back when APNs keeps a connection and takes nothing on
// it: once as many pushes in a row as may be in flight have come back unsent,
// one is tried after a pause that grows from dialMin to dialMax, until there is
// an answer. Without it their jobs would go round at full speed. The first try
// is made at once, for a connection that was lost ends so, too; each further one
// is made on a new connection.
func (r *run) calm(n int, now time.Time) (room int, wait time.Duration) {
	if !r.refusesAll() {
		if r.standing.CompareAndSwap(true, false) {
			r.log.Info("apns takes pushes again")
		}
		r.calmTries = 0
		return n, 0
	}
	if n == 0 {
		return 0, 0
	}
	if r.calmTries > 0 {
		if wait := r.calmUntil.Sub(now); wait > 0 {
			return 0, wait
		}
		if r.standing.CompareAndSwap(false, true) {
			r.log.Warn("apns takes no pushes though it is connected; jobs stay in the queue")
		}
		r.link.drop()
		if _, wait := r.link.usable(now); wait > 0 {
			return 0, wait
		}
	}
	r.calmUntil = now.Add(jitter(min(dialMax, dialMin<<min(r.calmTries, 10))))
	r.calmTries++
	return 1, 0
}

// refusesAll says that the last pushes, as many as may be in flight, have all
// come back unsent from a connection.
func (r *run) refusesAll() bool { return r.bounced.Load() >= int64(r.w.cfg.InFlight) }

// idle bounds a rest that only an event ends, should an event be missed.
const idle = time.Minute

// rest waits until something has changed.
func (r *run) rest(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-r.woken:
	case <-timer.C:
	}
}

// firstJobs is how many jobs a worker asks for while it does not know how many
// pushes its jobs are: with the largest jobs that beanstalkd takes, that is
// 1 MiB and 15,000 pushes.
const firstJobs = 16

// jobsFor is how many jobs to ask for to make about n pushes.
func (r *run) jobsFor(n int) int {
	if r.perJob == 0 {
		return min(n, firstJobs)
	}
	return max(1, min(n, int(float64(n)/r.perJob)))
}

// counted notes how many pushes a job was, for jobsFor: a moving average that
// rises fast and falls slowly, since too many large jobs are the greater harm.
func (r *run) counted(pushes int) {
	n := float64(pushes)
	switch {
	case r.perJob == 0:
		r.perJob = n
	case n > r.perJob:
		r.perJob += (n - r.perJob) / 2
	case n < r.perJob:
		r.perJob = max(1, r.perJob+(n-r.perJob)/16)
		if r.perJob < 1.01 {
			r.perJob = 1
		}
	}
}
