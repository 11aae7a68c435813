package lease

import (
	"context"
	"fmt"
	"sync"
	"time"

	"propeller/queue"
)

// Wire is what an Intake needs of its engine.
type Wire[J any] interface {
	// Ask has the engine reserve what is wanted; it does not wait for jobs. hurry means that there
	// are jobs to hand out, so it does not wait for the engine either. It returns when to ask
	// again: when changed is closed, or after a time (< 0: never). Jobs arrive by
	// Intake.TakeInLocked. An error ends Receive.
	Ask(ctx context.Context, hurry bool) (changed <-chan struct{}, wait time.Duration, err error)
	// HandOutLocked gives a waiting job to its receiver. It reports false when the job's
	// reservation has ended meanwhile. The Intake's lock is held.
	HandOutLocked(J) bool
}

// Intake is the receiving half of a consumer: how many jobs are wanted, and those that wait to
// be handed out. Its lock is held when a method whose name ends with Locked is called, and when its
// fields are read.
type Intake[J queue.Job] struct {
	wire   Wire[J]
	mu     sync.Locker
	what   string // whose receive it is, for errors: "jetstream: consumer of …"
	notify chan struct{}
	done   chan struct{}

	Want      int  // jobs that Receive may still hand out
	Waiting   []J  // in their order
	Paused    bool // by Pause, Close, and before the first Receive
	Closed    bool
	Receiving bool // Receive is in progress
}

// Init makes the Intake ready for use. what is the consumer's name in errors.
func (in *Intake[J]) Init(mu sync.Locker, wire Wire[J], what string) {
	in.mu, in.wire, in.what, in.Paused = mu, wire, what, true
	in.notify, in.done = make(chan struct{}, 1), make(chan struct{})
}

// Receive is queue.Consumer's.
func (in *Intake[J]) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	if n < 1 {
		return nil, fmt.Errorf("%s: receive of %d jobs: must be 1 or more", in.what, n)
	}
	in.mu.Lock()
	in.Paused, in.Want, in.Receiving = in.Closed, n, true
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		in.Receiving = false
		in.mu.Unlock()
	}()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		jobs := in.take()
		changed, wait, err := in.wire.Ask(ctx, len(jobs) > 0)
		switch {
		case len(jobs) > 0:
			return jobs, nil
		case err != nil:
			return nil, err
		}
		if err := in.sleep(ctx, changed, wait); err != nil {
			return nil, err
		}
	}
}

// sleep waits until there may be something to do.
func (in *Intake[J]) sleep(ctx context.Context, changed <-chan struct{}, wait time.Duration) error {
	var after <-chan time.Time
	if wait >= 0 {
		after = time.After(wait)
	}
	select {
	case <-in.notify:
	case <-changed:
	case <-after:
	case <-ctx.Done():
	case <-in.done:
		return fmt.Errorf("%s is closed", in.what)
	}
	return nil
}

// take hands out what waits, up to what is wanted.
func (in *Intake[J]) take() []queue.Job {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.Closed {
		return nil
	}
	var out []queue.Job
	for in.Want > 0 && len(in.Waiting) > 0 {
		k := min(in.Want, len(in.Waiting))
		if out == nil {
			out = make([]queue.Job, 0, k)
		}
		for _, j := range in.Waiting[:k] {
			if in.wire.HandOutLocked(j) {
				out = append(out, j)
				in.Want--
			}
		}
		clear(in.Waiting[:k]) // nobody else keeps them
		in.Waiting = in.Waiting[k:]
	}
	if len(in.Waiting) == 0 {
		in.Waiting = nil
	}
	return out
}

// TakeInLocked takes a reserved job in, to be handed out.
func (in *Intake[J]) TakeInLocked(j J) {
	in.Waiting = append(in.Waiting, j)
	in.Wake()
}

// Wake makes Receive look again.
func (in *Intake[J]) Wake() {
	select {
	case in.notify <- struct{}{}:
	default:
	}
}

// PauseLocked ends all demand until the next Receive and returns the jobs that nobody has
// received.
func (in *Intake[J]) PauseLocked() []J {
	back := in.Waiting
	in.Want, in.Waiting, in.Paused = 0, nil, true
	return back
}

// CloseLocked ends Receive for good. It reports whether this is the first time.
func (in *Intake[J]) CloseLocked() bool {
	if in.Closed {
		return false
	}
	in.Closed, in.Paused = true, true
	close(in.done)
	return true
}
