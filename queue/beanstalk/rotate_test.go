package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queuetest"
)

// While a listing takes one job after the other in its hand, every buried job
// is found, and every kick does what it says.
func TestBuriedFoundWhileListed(t *testing.T) {
	t.Parallel()
	const n = 300
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	ids := buryForeign(t, srv, "tube", n)
	ctx, cancel := context.WithCancel(ctxOf(t))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := queuetest.Buried(ctx, q, "tube", n+1); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 {
		for _, id := range ids {
			if _, err := q.Peek(ctxOf(t), "tube", fmt.Sprint(id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, id := range ids[:n-2] {
		if err := q.Kick(ctxOf(t), "tube", fmt.Sprint(id)); err != nil {
			t.Fatal(err)
		}
	}
}

// A job in somebody else's hand is not said to be gone for good.
func TestBuriedBusy(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	ids := buryForeign(t, srv, "tube", 2)
	id := fmt.Sprint(ids[0])
	other := srv.Dial()
	if _, err := other.ReserveJob(ids[0]); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"peek":   func() error { _, err := q.Peek(ctxOf(t), "tube", id); return err },
		"kick":   func() error { return q.Kick(ctxOf(t), "tube", id) },
		"delete": func() error { return q.Delete(ctxOf(t), "tube", id) },
	} {
		if err := do(); !errors.Is(err, queue.ErrBusy) || !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%s: %v, want ErrBusy", name, err)
		}
		if _, err := q.Peek(ctxOf(t), "another", id); errors.Is(err, queue.ErrBusy) || !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("of another tube: %v", err)
		}
	}
	if jobs, err := queuetest.Buried(ctxOf(t), q, "tube", 10); err != nil || len(jobs) != 1 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	if err := other.Bury(ids[0], 1); err != nil {
		t.Fatal(err)
	}
	if err := q.Kick(ctxOf(t), "tube", id); err != nil {
		t.Error(err)
	}
	if err := q.Kick(ctxOf(t), "tube", id); errors.Is(err, queue.ErrBusy) || !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("a job that is ready: %v", err)
	}
}
