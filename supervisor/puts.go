package supervisor

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"propeller/queue"
)

// puts follows whether the queue takes the jobs that are put into an app's tube
// through this process. Safe for concurrent use: of puts that end at the same
// time any may have the last word.
type puts struct {
	failed atomic.Pointer[failedPuts] // nil: the last one was taken, or there was none
}

type failedPuts struct {
	since, last time.Time
	err         error // of the last
}

// putsForget is how long after the last put that failed nothing is known of the
// queue any more: nobody may ever put again.
const putsForget = time.Minute

// note takes in how a put has ended. A client that hung up, and a job that can
// never be put, say nothing about the queue.
func (p *puts) note(err error, now time.Time) {
	was := p.failed.Load()
	switch {
	case err == nil:
		if was != nil {
			p.failed.Store(nil)
		}
	case errors.Is(err, queue.ErrRejected), errors.Is(err, context.Canceled):
	case was == nil || now.Sub(was.last) > putsForget:
		p.failed.Store(&failedPuts{since: now, last: now, err: err})
	default:
		p.failed.Store(&failedPuts{since: was.since, last: now, err: err})
	}
}
