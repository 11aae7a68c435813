package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
)

// qjob is a queue.Job of the fake engine.
type qjob struct {
	queue.Job // nil: nobody settles by the interface here
	l         Lease[*qjob]
}

// engine is a fake one: it reserves jobs after a while, and fails as often as it is told to.
type engine struct {
	mu       sync.Mutex // the Intake's lock, too
	in       Intake[*qjob]
	table    Table[*qjob]
	owner    Owner
	conn     List[*qjob]
	ready    []uint64 // numbers of jobs
	delay    time.Duration
	lose     float64 // how likely the connection breaks at an Ask
	asked    int     // under way
	most     int     // jobs wanted, and reserved or asked for, at most
	failed   error   // of Ask
	reserves sync.WaitGroup
}

func newEngine(jobs int) *engine {
	e := &engine{delay: time.Millisecond}
	for id := range uint64(jobs) {
		e.ready = append(e.ready, id)
	}
	e.in.Init(&e.mu, e, "fake: consumer of \"tube\"")
	return e
}

// Ask reserves, in the background, what is wanted and not at hand.
func (e *engine) Ask(_ context.Context, hurry bool) (<-chan struct{}, time.Duration, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		return nil, -1, e.failed
	}
	if rand.Float64() < e.lose {
		e.breakLocked()
	}
	if hurry || e.in.Paused {
		return nil, -1, nil
	}
	for e.in.Want > len(e.in.Waiting)+e.asked && len(e.ready) > 0 {
		id := e.ready[0]
		e.ready = e.ready[1:]
		e.asked++
		e.reserves.Go(func() { e.reserve(id) })
	}
	e.most = max(e.most, len(e.in.Waiting)+e.asked)
	return nil, 10 * e.delay, nil
}

// reserve brings one job, or gives it back when nobody wants it any more.
func (e *engine) reserve(id uint64) {
	time.Sleep(time.Duration(rand.Int64N(int64(e.delay))))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked--
	if old := e.table.Find(id); old != nil {
		e.table.Bind(old, &e.conn, time.Now())
		return
	}
	if e.in.Paused {
		e.ready = append(e.ready, id)
		return
	}
	j := &qjob{}
	j.l.Number, j.l.Job, j.l.Owner = id, j, &e.owner
	e.table.Add(&j.l, &e.conn, time.Now())
	e.in.TakeInLocked(j)
}

// breakLocked ends the connection: the engine gives all that it held back.
func (e *engine) breakLocked() {
	for j := range e.conn.All() {
		e.ready = append(e.ready, j.l.Number)
		e.table.Unbind(&j.l)
	}
}

func (e *engine) HandOutLocked(j *qjob) bool { return e.table.HandOut(&j.l) }

// done settles a job: it leaves a tombstone, because it may be served again.
func (e *engine) done(t *testing.T, j *qjob) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.table.Settle(&j.l); err != nil {
		t.Error(err)
	}
	e.table.End(&j.l, Settled)
	for i, id := range e.ready { // unbound: the engine has it still
		if id == j.l.Number {
			e.ready = append(e.ready[:i], e.ready[i+1:]...)
			break
		}
	}
}

// Whatever breaks, every job is received by one receiver at a time and in the end finished
// once, and never are more reserved than are wanted.
func TestReceiveOverBrokenConnections(t *testing.T) {
	t.Parallel()
	for _, lose := range []float64{0, 0.05, 0.5} {
		synctest.Test(t, func(t *testing.T) {
			const jobs, n = 500, 20
			e := newEngine(jobs)
			e.lose = lose
			seen := make(map[uint64]bool)
			for len(seen) < jobs {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				got, err := e.in.Receive(ctx, 1+rand.IntN(n))
				cancel()
				if err != nil {
					t.Fatalf("after %d jobs: %v", len(seen), err)
				}
				for _, g := range got {
					j := g.(*qjob)
					if seen[j.l.Number] {
						t.Fatalf("job %d is received twice", j.l.Number)
					}
					seen[j.l.Number] = true
					time.Sleep(time.Duration(rand.Int64N(int64(3 * e.delay))))
					e.done(t, j)
				}
			}
			e.reserves.Wait()
			if e.most > n || e.table.Len() != 0 || e.conn.Len() != 0 || e.owner.Unbound() != 0 {
				t.Errorf("%d reserved at most, left: %d known, %d held, %d unbound", e.most, e.table.Len(), e.conn.Len(), e.owner.Unbound())
			}
		})
	}
}

// Receive returns promptly when its context ends, and what comes after that is for the next.
func TestReceiveEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(1)
		e.delay = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		began := time.Now()
		if _, err := e.in.Receive(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		e.reserves.Wait()
		if got, err := e.in.Receive(t.Context(), 1); err != nil || len(got) != 1 {
			t.Errorf("%d jobs, %v", len(got), err)
		}
	})
}

// PauseLocked returns what nobody has received; CloseLocked ends a Receive.
func TestPauseAndClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(0)
		e.mu.Lock()
		e.in.Paused = false
		for range 3 {
			e.in.TakeInLocked(&qjob{})
		}
		back := e.in.PauseLocked()
		e.mu.Unlock()
		if len(back) != 3 || !e.in.Paused || e.in.Want != 0 || e.in.Waiting != nil {
			t.Errorf("%d given back, %+v", len(back), e.in.Waiting)
		}
		ended := make(chan error)
		go func() {
			_, err := e.in.Receive(context.Background(), 5)
			ended <- err
		}()
		synctest.Wait()
		e.mu.Lock()
		first, again := e.in.CloseLocked(), e.in.CloseLocked()
		e.mu.Unlock()
		if err := <-ended; err == nil || !strings.HasSuffix(err.Error(), `consumer of "tube" is closed`) {
			t.Error(err)
		}
		if !first || again || !e.in.Paused {
			t.Errorf("closed first: %v, again: %v", first, again)
		}
		if _, err := e.in.Receive(context.Background(), 1); err == nil {
			t.Error("a closed one receives")
		}
	})
}

// An error of Ask ends Receive, and one that asks for nothing is refused.
func TestReceiveFails(t *testing.T) {
	t.Parallel()
	e := newEngine(5)
	e.failed = queue.ErrUnavailable
	if _, err := e.in.Receive(t.Context(), 1); !errors.Is(err, queue.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := e.in.Receive(t.Context(), 0); err == nil {
		t.Error("0 jobs are received")
	}
}
