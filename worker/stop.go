package worker

import (
	"context"
	"errors"
	"time"

	"propeller/apnsconn"
)

const (
	// remainderTime is how long the remainders of lists may take to go back to the queue once the
	// time to finish pushes is over.
	remainderTime = time.Second
	// restartDrain is the drain time of a restart. Pushes do not end then, so only answers
	// already under way are worth waiting for.
	restartDrain = time.Second
	// closeTime bounds the closing of the consumer.
	closeTime = 2 * time.Second
)

// stop ends the run because its context has ended.
func (r *run) stop(cause error) {
	drain := time.Duration(r.cfg.Live.Drain.Load())
	if errors.Is(cause, ErrRestarted) {
		drain = min(drain, restartDrain)
	}
	r.endWithin(drain, nil)
}

// end ends the run because of a failure.
func (r *run) end(failure error) {
	r.endWithin(time.Duration(r.cfg.Live.Drain.Load()), failure)
}

// endWithin begins to end the run, in the order that loses and repeats the least: pushes in
// flight finish and are settled, other jobs go back when the queue connection closes, and the
// APNs connection closes last.
func (r *run) endWithin(drain time.Duration, failure error) {
	if r.ending {
		return
	}
	r.ending, r.failure = true, failure
	close(r.ends)
	r.stopDials()
	r.pauseQueue() // first, or a job that is given back now could come again
	r.drainEnd = time.Now().Add(drain)
}

// finished reports whether the run has no jobs any more, or must not wait longer.
func (r *run) finished(now time.Time) bool {
	switch {
	case !r.ending:
		return false
	case r.reserved == 0 && !r.receiving:
		return true
	}
	return r.abandoned && !now.Before(r.drainEnd.Add(remainderTime))
}

// errUnfinished is the outcome of pushes that a stop gives up.
var errUnfinished = errors.New("the time to finish pushes in flight is over")

// abandon gives up the open pushes of jobs with pushes that have ended, so that those are
// not repeated.
func (r *run) abandon() {
	r.abandoned = true
	if r.reserved == 0 {
		return
	}
	r.log.Warn("stopping with pushes unfinished; their jobs go back to the queue", "jobs", r.reserved)
	for t := range r.lists {
		if t.delivered+len(t.failed) == 0 {
			continue
		}
		for _, chunk := range t.chunks {
			for i := range chunk.pushes {
				if p := &chunk.pushes[i]; !p.over.Swap(true) {
					p.outcome = apnsconn.Outcome{Class: apnsconn.Unknown, Err: errUnfinished}
					r.box.pushEnded(p)
				}
			}
		}
	}
}

// close ends everything that the run started, and waits for it.
func (r *run) close() {
	r.closed = true
	r.stopDials()
	r.settlers.cancel()
	if !r.ending { // a panic
		r.ending = true
		close(r.ends)
	}
	if r.receives != nil {
		r.cancelReceive()
	}
	r.closeConsumer()
	for c := range r.link.open {
		_ = c.Close() // connEnded reports why it ended
	}
	r.goes.Wait()
	r.link.conn = nil
	for range lastTurns { // for the last answers and their jobs
		r.read()
		r.askGuard(time.Now())
		r.releaseAll()
		r.settlers.wait()
	}
}

// lastTurns is how often mail can lead to more mail once all connections are closed: a push
// ends, its job is settled, and that is reported.
const lastTurns = 4

// closeConsumer closes the consumer, which ends its Receive and releases its jobs.
func (r *run) closeConsumer() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := r.consumer.Close(ctx); err != nil {
		r.log.Warn("cannot close the queue connection", "err", err)
	}
}
