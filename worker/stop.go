package worker

import (
	"context"
	"errors"
	"time"

	"propeller/apnsconn"
)

const (
	// stuckTime is how long a consumer may take to notice that no job is wanted
	// any more. It should take no time at all.
	stuckTime = 2 * time.Second
	// splitTime is how long it may take to put what is left of jobs with several
	// tokens back into the queue once the time to finish them is over.
	splitTime = time.Second
	// restartDrain is the drain of a restart, which is made because pushes do not
	// end: answers that are on their way still count.
	restartDrain = time.Second
	// closeTime bounds the parting words with the queue.
	closeTime = 2 * time.Second
)

// end begins the end of a run, in the order that loses and doubles the least:
// what is in flight is finished and settled, the rest is given back with the
// queue connection, then the APNs connection goes.
func (r *run) end(failure error) {
	if r.ending {
		return
	}
	r.ending, r.failure = true, failure
	close(r.ends)
	r.stopDials()
	drain := time.Duration(r.cfg.Live.Drain.Load())
	if errors.Is(failure, ErrRestarted) {
		drain = min(drain, restartDrain)
	}
	r.drainEnd = time.Now().Add(drain)
	if r.receiving {
		r.goes.Go(r.unstick)
	}
}

// unstick closes the consumer beneath a Receive that does not end.
func (r *run) unstick() {
	limit := time.NewTimer(stuckTime)
	defer limit.Stop()
	select {
	case <-r.receiver:
	case <-limit.C:
		r.log.Warn("the queue's consumer does not stop: closing it")
		r.closeConsumer()
	}
}

// finished says that the run holds nothing any more, or may wait no longer.
func (r *run) finished(now time.Time) bool {
	switch {
	case !r.ending:
		return false
	case r.held == 0 && !r.receiving:
		return true
	}
	return r.abandoned && !now.Before(r.drainEnd.Add(splitTime))
}

// errUnfinished: the worker stops.
var errUnfinished = errors.New("the time to finish pushes in flight is over")

// abandon gives up the open pushes of those jobs of which others have ended, so
// that these need not be repeated.
func (r *run) abandon() {
	r.abandoned = true
	if r.held == 0 {
		return
	}
	r.log.Warn("stopping with pushes unfinished; their jobs go back to the queue", "jobs", r.held)
	for t := range r.lists {
		if t.delivered+len(t.failed) == 0 {
			continue
		}
		for _, chunk := range t.chunks {
			for i := range chunk {
				if p := &chunk[i]; !p.over.Swap(true) {
					p.outcome = apnsconn.Outcome{Class: apnsconn.Unknown, Err: errUnfinished}
					r.box.pushEnded(p)
				}
			}
		}
	}
}

// close ends all that the run has, and returns when it has ended.
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
		_ = c.Close() // it says nothing that its end does not
	}
	r.goes.Wait()
	r.link.conn = nil
	for range lastTurns { // the last answers, their jobs, and what was asked of the queue
		r.read()
		r.askGuard(time.Now())
		r.giveBack()
		r.settlers.wait()
	}
}

// lastTurns is how often mail can lead to more of it once all connections are
// closed: a push ends, its job is settled, and what that was is told.
const lastTurns = 4

// closeConsumer closes it, once, and returns when it is closed.
func (r *run) closeConsumer() {
	if r.closing.Swap(true) {
		<-r.consumerClosed
		return
	}
	defer close(r.consumerClosed)
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := r.consumer.Close(ctx); err != nil {
		r.log.Warn("closing the queue connection", "err", err)
	}
}
