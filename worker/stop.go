package worker

import (
	"context"
	"time"
)

// stop ends a run in the order that loses and doubles the least: what is in
// flight is finished and settled, the rest is given back with the queue
// connection, then the APNs connection goes.
func (r *run) stop(ctx context.Context) {
	close(r.ending)
	r.consumer.Pause()
	r.w.cfg.Breaker.leave(r)
	r.w.cfg.Hold.leave(r)
	r.stopFanOut()
	r.seat.Leave() // the jobs whose answers the guard holds
	if !r.settled(r.drainTime(ctx)) {
		r.log.Warn("stopping with pushes unfinished; their jobs go back to the queue", "jobs", r.held.Load())
		if r.abandonFanOut() {
			r.settled(splitTime)
		}
	}
	r.cancelSettling()
	r.closeConsumer()
	r.link.close()
	r.settlers.Wait()
}

// settled waits until no job is held, for limit at most, and says whether.
func (r *run) settled(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for r.held.Load() > 0 {
		select {
		case <-r.woken:
		case <-timer.C:
			return false
		}
	}
	return true
}

// splitTime is how long it may take to put what is left of jobs with several
// tokens back into the queue once the time to finish them is over.
const splitTime = time.Second

// drainTime is how long pushes in flight may take to end: at a restart, which
// is made because they do not end, no longer than it takes to settle.
func (r *run) drainTime(ctx context.Context) time.Duration {
	d := time.Duration(r.w.cfg.Live.Drain.Load())
	if restarted(ctx) {
		d = min(d, restartDrain)
	}
	return d
}

// restartDrain: answers that are on their way still count.
const restartDrain = time.Second

// closeTime bounds the parting words with the queue.
const closeTime = 2 * time.Second

// closeConsumer closes it, once.
func (r *run) closeConsumer() {
	r.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if err := r.consumer.Close(ctx); err != nil {
			r.log.Warn("closing the queue connection", "err", err)
		}
	})
}
