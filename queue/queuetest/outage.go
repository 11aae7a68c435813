package queuetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// testRestartMidBurst: the engine crashes twice while jobs are put, worked on
// and settled. Everything that was accepted is finished.
func testRestartMidBurst(t *testing.T, e Engine) {
	in := start(t, e)
	if in.Down == nil {
		return // an engine that cannot be restarted
	}
	const n = 4000
	putMany(t, in.Queue, "burst", n)
	l := newLedger(n)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 3 {
		c := consume(t, in.Queue, "burst")
		wg.Go(func() {
			if err := slowWork(ctx, t, c, 200, l); err != nil {
				t.Errorf("receive: %v", err)
			}
		})
	}
	for _, part := range []int{n / 4, n / 2} {
		l.waitFor(t, part)
		down := time.Now()
		in.Down(t)
		up := time.Now()
		in.Up(t)
		t.Logf("the engine went down at %v, up at %v, was there at %v",
			down.Format("15:04:05.000"), up.Format("15:04:05.000"), time.Now().Format("15:04:05.000"))
	}
	l.wait(t)
	if again := l.repeats(); again != "" {
		t.Fatalf("of %d jobs, %s", n, again)
	}
}

// slowWork holds each of n jobs for 20 ms, enters it in the ledger, as a worker
// has then sent its push, and finishes it. Done may only fail because the
// reservation was lost.
func slowWork(ctx context.Context, t *testing.T, c queue.Consumer, n int, l *ledger) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, n)
	for {
		select {
		case slots <- struct{}{}: // one at least
		case <-ctx.Done():
			return nil
		}
		jobs, err := c.Receive(ctx, n-len(slots)+1)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for i, j := range jobs {
			if i > 0 {
				slots <- struct{}{}
			}
			wg.Go(func() {
				defer func() { <-slots }()
				time.Sleep(20 * time.Millisecond)
				l.add(j.Body())
				err := j.Done(ctx)
				l.end(j.Body(), err)
				if err != nil && !errors.Is(err, queue.ErrLost) && ctx.Err() == nil {
					t.Errorf("done: %v", err)
				}
			})
		}
	}
}

// testDoneOverOutage: a job finished while the engine is away is removed when
// it is back, and not served again.
func testDoneOverOutage(t *testing.T, e Engine) {
	in := start(t, e)
	if in.Down == nil {
		return
	}
	c := consume(t, in.Queue, "outage")
	const n = 50
	putMany(t, in.Queue, "outage", n)
	jobs := receive(t, c, n)
	away := time.Now()
	in.Down(t)
	errs := make(chan error, n)
	for _, j := range jobs[:n-2] {
		go func() { errs <- j.Done(ctxOf(t)) }()
	}
	// One caller gives up before the engine is back.
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := jobs[n-2].Done(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("done with the engine down: %v", err)
	}
	if err := c.Err(); err != nil && !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("err: %v, want ErrUnavailable", err)
	}
	in.Up(t)
	for range n - 2 {
		err := <-errs
		if errors.Is(err, queue.ErrLost) && time.Since(away) > in.Lease/2 {
			continue // a busy machine: the reservation may have ended meanwhile
		}
		if err != nil {
			t.Fatalf("done over the outage: %v", err)
		}
	}
	if err := jobs[n-1].Done(ctxOf(t)); err != nil { // worked on all the time
		t.Fatalf("done after the outage: %v", err)
	}
	none(t, c)
	if err := c.Err(); err != nil {
		t.Fatalf("err after the outage: %v", err)
	}
}

// testRetryDuringOutage: a job retried while the engine is away is served again.
func testRetryDuringOutage(t *testing.T, e Engine) {
	in := start(t, e)
	if in.Down == nil {
		return
	}
	c := consume(t, in.Queue, "outage")
	id := put(t, in.Queue, "outage", "x", queue.PutOptions{})
	j := receiveOne(t, c)
	in.Down(t)
	errs := make(chan error, 1)
	go func() { errs <- j.Retry(ctxOf(t), 0) }()
	in.Up(t)
	if err := <-errs; err != nil {
		t.Fatalf("retry: %v", err)
	}
	j = receiveOne(t, c)
	if j.ID() != id {
		t.Fatalf("received %q, put %q", j.ID(), id)
	}
	done(t, j)
}

func testPutWhileDown(t *testing.T, e Engine) {
	in := start(t, e)
	if in.Down == nil {
		return
	}
	put(t, in.Queue, "down", "before", queue.PutOptions{})
	in.Down(t)
	if _, err := in.Queue.Put(ctxOf(t), "down", []byte("lost"), queue.PutOptions{}); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("put with the engine down: %v, want ErrUnavailable", err)
	}
	in.Up(t)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, err := in.Queue.Put(ctxOf(t), "down", []byte("after"), queue.PutOptions{})
		if err == nil {
			break
		}
		if !errors.Is(err, queue.ErrUnavailable) || time.Now().After(end) {
			t.Fatalf("put with the engine up again: %v", err)
		}
	}
	jobs := receive(t, consume(t, in.Queue, "down"), 2)
	if got, want := bodies(jobs), []string{"after", "before"}; !slices.Equal(got, want) {
		t.Fatalf("received %q, want %q", got, want)
	}
	done(t, jobs...)
}
