package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"propeller/internal/backoff"
	"propeller/queue"
)

// Before a job is settled, its records and remainders must be stored in the queue. While the
// queue refuses them the job stays reserved, and only the put is repeated: if the job went
// back, it would be pushed again to devices that have it already. The same holds for a
// burial that the queue refuses.

// storeMin and storeMax bound the pause between two attempts. One task of a worker tries
// at least every firstMax, and as soon as one put succeeds all others try at once, so
// that none waits longer than the outage lasts.
const (
	storeMin = time.Second
	storeMax = time.Minute
	firstMax = 10 * time.Second
)

// store repeats put until it succeeds. It fails if the run ends first, or if the job's
// reservation is lost; then the error wraps queue.ErrLost. what names what the queue
// refuses.
func (t *task) store(what storeKind, put func(ctx context.Context) error) error {
	s := &t.r.settlers
	err := put(s.ctx)
	if err == nil {
		return nil
	}
	s.outage.begin(what, err, s.ctx.Err() == nil)
	pauses := backoff.Backoff{Min: storeMin, Max: storeMax}
	for s.ctx.Err() == nil && !errors.Is(err, queue.ErrLost) {
		d, back := s.outage.wait(t, pauses.Next())
		t.r.sleep(d, back)
		if !t.reserved() {
			err = queue.ErrLost
			break
		}
		if err = put(s.ctx); err == nil {
			break
		}
		s.outage.because(what, err)
	}
	s.outage.end(t, err == nil)
	return err
}

// reserved asks the queue whether the job is still reserved for this task. It asks twice,
// because after an outage the job belongs to nobody until the consumer has reclaimed it.
func (t *task) reserved() bool {
	ctx := t.r.settlers.ctx
	if !errors.Is(t.job.Touch(ctx), queue.ErrLost) {
		return true
	}
	t.r.sleep(storeMin, nil)
	return !errors.Is(t.job.Touch(ctx), queue.ErrLost)
}

// sleep waits for d, or until back is closed. When the run begins to end it returns
// early, for one more attempt, and from then on waits at most storeMin.
func (r *run) sleep(d time.Duration, back <-chan struct{}) {
	ends := r.ends
	select {
	case <-ends:
		ends, d = nil, min(d, storeMin)
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-back:
	case <-ends:
	case <-r.settlers.ctx.Done():
	}
}

// storeKind describes what the queue has to take before a job can be settled, for the log.
type storeKind struct{ name, refused, taken string }

// records covers both records and remainders, which people need not tell apart.
func records() storeKind {
	return storeKind{
		"records", "cannot store feedback records or remaining tokens in the queue; their jobs stay reserved until it can",
		"feedback records and remaining tokens are stored again",
	}
}

func burials() storeKind {
	return storeKind{"burials", "cannot bury jobs in the queue; they stay reserved until it can", "jobs can be buried again"}
}

// storeOutage is what a run cannot put now. Settlers update it, and anybody may ask.
type storeOutage struct {
	log *slog.Logger

	mu    sync.Mutex
	n     int           // tasks that wait
	first *task         // the one of them that finds out when it is over
	back  chan struct{} // closed when one has been stored; nil until somebody waits for that
	what  storeKind     // what the last failed put was for
	err   error         // its error; nil when n is 0
}

// begin and end enclose the wait of one task. The first begin and the last end are logged.
func (u *storeOutage) begin(what storeKind, err error, tell bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n++; u.n == 1 && tell {
		u.log.Warn(what.refused, "err", err)
	}
	u.what, u.err = what, err
}

// wait says how long a task waits for its next attempt, which would be after pause, and what ends
// the wait before.
func (u *storeOutage) wait(t *task, pause time.Duration) (time.Duration, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.first == nil {
		u.first = t
	}
	if u.first == t {
		pause = min(pause, firstMax)
	}
	if u.back == nil {
		u.back = make(chan struct{})
	}
	return pause, u.back
}

func (u *storeOutage) end(t *task, well bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if well || u.first == t { // in the latter case another one takes its place
		u.first = nil
		if u.back != nil {
			close(u.back)
			u.back = nil
		}
	}
	if u.n--; u.n > 0 {
		return
	}
	if u.err = nil; well {
		u.log.Info(u.what.taken)
	}
}

func (u *storeOutage) because(what storeKind, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.what, u.err = what, err
}

// why is nil when nothing waits.
func (u *storeOutage) why() (what string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.what.name, u.err
}
