package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"propeller/queue"
)

// Before a job is settled, records and rest jobs have to be safe in the queue.
// While it takes none the job stays reserved, and only the put is repeated:
// given back, the job would be pushed again to devices that have it already.

// storeMin and storeMax bound the pause between two tries to put something.
const (
	storeMin = time.Second
	storeMax = time.Minute
)

// store calls put until it succeeds. It fails when the run ends first, or when
// the reservation of the job has gone: then the error wraps queue.ErrLost. The
// task holds no slot while it waits, see linger.
func (t *task) store(put func(ctx context.Context) error) error {
	r := t.r
	err := put(r.settling)
	if err == nil {
		return nil
	}
	r.unstored.begin(r, err)
	for pause := storeMin; r.settling.Err() == nil && !errors.Is(err, queue.ErrLost); pause = min(2*pause, storeMax) {
		r.nap(pause)
		if !t.reserved() {
			err = queue.ErrLost
			break
		}
		if err = put(r.settling); err == nil {
			break
		}
		r.unstored.because(err)
	}
	r.unstored.end(r, err == nil)
	return err
}

// reserved asks the queue whether the job is still this task's. After an outage
// a job is nobody's for a moment, until the consumer has it again: so it is
// asked twice.
func (t *task) reserved() bool {
	if !errors.Is(t.job.Touch(t.r.settling), queue.ErrLost) {
		return true
	}
	t.r.nap(storeMin)
	return !errors.Is(t.job.Touch(t.r.settling), queue.ErrLost)
}

// nap waits for about d: less when the run is about to end, so that what waits
// is tried once more, and then at least every storeMin.
func (r *run) nap(d time.Duration) {
	ending := r.ending
	select {
	case <-ending:
		ending, d = nil, min(d, storeMin)
	default:
	}
	timer := time.NewTimer(jitter(d))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ending:
	case <-r.settling.Done():
	}
}

// unstored is what a run cannot put at present.
type unstored struct {
	mu  sync.Mutex
	n   int   // tasks that wait for it
	err error // of the latest put; nil when n is 0
}

// begin and end enclose a task's waiting. Of the first and the last of them the
// log tells.
func (u *unstored) begin(r *run, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n++; u.n == 1 && r.settling.Err() == nil {
		r.log.Warn("records or rests of jobs cannot be put into the queue; their jobs are held until they can", "err", err)
	}
	u.err = err
}

func (u *unstored) end(r *run, well bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n > 0 {
		return
	}
	if u.err = nil; well {
		r.log.Info("records and rests of jobs are taken again")
	}
}

func (u *unstored) because(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
}

// why is nil when nothing waits.
func (u *unstored) why() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// recordsAtOnce is how many records of one job are put at the same time: over a
// queue's connection, which carries several puts, they take an eighth of the time.
const recordsAtOnce = 8

// inParallel calls f for 0…n-1, first for 0 alone, so that while the queue takes
// nothing one waits for it, and then several at a time. It ends early when f
// returns false, and reports whether it never did. A panic in f goes on in the caller.
func inParallel(n int, f func(i int) bool) bool {
	if n == 0 || !f(0) {
		return n == 0
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	next, all := 1, true
	var panicked any
	take := func() (i int, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		i = next
		next++
		return i, all && i < n
	}
	for range min(recordsAtOnce, n-1) {
		wg.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					mu.Lock()
					defer mu.Unlock()
					panicked, all = v, false
				}
			}()
			for i, ok := take(); ok; i, ok = take() {
				if !f(i) {
					mu.Lock()
					all = false
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if panicked != nil {
		panic(panicked)
	}
	return all
}
