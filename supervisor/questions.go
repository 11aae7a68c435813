package supervisor

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"propeller/queue"
)

// questions are what the watchdog asks the queue in one look at all apps, one
// after the other.
type questions struct {
	admin  queue.Admin   // nil: it cannot be asked
	each   time.Duration // one may take; less after one was not answered in time
	end    time.Time     // no question after it
	failed error         // the first that did; nil: none
}

const (
	// statsTime bounds a question.
	statsTime = 5 * time.Second
	// statsShort bounds those after one that was not answered in time: a server
	// that is frozen will not answer them either, and others answer within
	// milliseconds.
	statsShort = 250 * time.Millisecond
)

var errNotAsked = errors.New("not asked")

// ask asks for the numbers of a tube. The error wraps errNotAsked if the queue
// was not asked; of several servers some may have answered all the same.
func (q *questions) ask(ctx context.Context, tube string) (queue.TubeStats, error) {
	if q.admin == nil || time.Now().After(q.end) {
		return queue.TubeStats{}, errNotAsked
	}
	asking, cancel := context.WithTimeout(ctx, q.each)
	defer cancel()
	st, err := q.admin.TubeStats(asking, tube)
	if errors.Is(err, context.DeadlineExceeded) {
		q.each = min(q.each, statsShort)
	}
	q.failed = cmp.Or(q.failed, err)
	return st, err
}

// available is how many jobs of a tube a consumer could get now, if that is known.
type available struct {
	ready int
	known bool
}

// available asks for what there is in a tube, whose numbers it keeps for whoever
// asks for the status.
func (q *questions) available(ctx context.Context, tube string, stats *atomic.Pointer[QueueStats]) available {
	st, err := q.ask(ctx, tube)
	switch {
	case errors.Is(err, errNotAsked):
	case err == nil:
		stats.Store(&QueueStats{TubeStats: st, At: time.Now()})
	case errors.Is(err, queue.ErrPartial):
		stats.Store(&QueueStats{st, time.Now(), err.Error()})
	default:
		stats.Store(nil)
	}
	return obtainable(st, err)
}

// obtainable judges the answer to a question: what servers that do answer have is
// there.
func obtainable(st queue.TubeStats, err error) available {
	n := st.Ready - st.Paused
	return available{n, err == nil || n > 0}
}
