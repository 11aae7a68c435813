package queuetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

func testNeverMoreThanN(t *testing.T, e Engine) {
	in := start(t, e)
	admin, ok := in.Queue.(queue.Admin)
	if !ok {
		return // nothing to count with
	}
	putMany(t, in.Queue, "limit", 200)
	c := consume(t, in.Queue, "limit")
	held := 0
	count := func(atMost int) {
		t.Helper()
		st, err := admin.TubeStats(ctxOf(t), "limit")
		if err != nil {
			t.Fatal(err)
		}
		if st.Reserved > atMost {
			t.Fatalf("%d jobs reserved, at most %d were wanted", st.Reserved, atMost)
		}
	}
	reserved := func(atMost int) { // background reserves get their chance
		t.Helper()
		for range 20 {
			count(atMost)
			time.Sleep(5 * time.Millisecond)
		}
	}
	reserved(0) // nothing received yet, nothing wanted
	var jobs []queue.Job
	for range 25 {
		for _, n := range []int{1, 5} {
			got := receive(t, c, n)
			jobs = append(jobs, got...)
			held += len(got)
			count(held + e.Overshoot)
		}
	}
	reserved(held + e.Overshoot)
	done(t, jobs...)
	reserved(e.Overshoot)
}

func testReceiveContext(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "ctx")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Receive(ended, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("receive with an ended context: %v", err)
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		began := time.Now()
		_, err := c.Receive(ctx, 10)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("receive: %v", err)
		}
		if took := time.Since(began); took > 4*time.Second { // far below any wait in an engine
			t.Fatalf("receive outlived its context by %v", took)
		}
	}
	put(t, in.Queue, "ctx", "x", queue.PutOptions{})
	done(t, receiveOne(t, c)) // whatever was reserved meanwhile is kept for this call
}

func testPause(t *testing.T, e Engine) {
	in := start(t, e)
	putMany(t, in.Queue, "pause", 100)
	a := consume(t, in.Queue, "pause")
	first, err := a.Receive(ctxOf(t), 100) // reserves more in the background
	if err != nil {
		t.Fatal(err)
	}
	if admin, ok := in.Queue.(queue.Admin); ok { // else it may still be busy with that
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			st, err := admin.TubeStats(ctxOf(t), "pause")
			if err != nil || time.Now().After(end) {
				t.Fatalf("%+v, %v", st, err)
			}
			if st.Ready == 0 {
				break
			}
		}
	}
	a.Pause()
	b := consume(t, in.Queue, "pause")
	rest := receive(t, b, 100-len(first)) // all that was not handed out
	done(t, rest...)
	done(t, first...) // what was, is still held
	// A job that comes now is not for the paused consumer.
	a.Pause()
	put(t, in.Queue, "pause", "late", queue.PutOptions{})
	done(t, receiveOne(t, b))
	b.Pause()
	put(t, in.Queue, "pause", "again", queue.PutOptions{})
	done(t, receiveOne(t, a)) // a Receive ends the pause
}

func testCloseGivesBack(t *testing.T, e Engine) {
	in := start(t, e)
	putMany(t, in.Queue, "close", 50)
	a, err := in.Queue.Consume("close")
	if err != nil {
		t.Fatal(err)
	}
	held := receive(t, a, 20)
	done(t, held[:5]...)
	if err := a.Close(ctxOf(t)); err != nil {
		t.Fatalf("close: %v", err)
	}
	if err := a.Close(ctxOf(t)); err != nil {
		t.Fatalf("second close: %v", err)
	}
	if _, err := a.Receive(ctxOf(t), 1); err == nil {
		t.Fatal("receive from a closed consumer returned jobs")
	}
	b := consume(t, in.Queue, "close")
	jobs := receive(t, b, 45)
	if err := held[5].Retry(ctxOf(t), 0); err != nil {
		t.Fatalf("retry of a job given back: %v", err)
	}
	done(t, jobs...)
	none(t, b)
	if in.PutFleeting == nil {
		return // an engine that takes a late Done in silence
	}
	if err := held[6].Done(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("done of a job given back: %v, want ErrLost", err)
	}
}

func testCloseWaits(t *testing.T, e Engine) {
	in := start(t, e)
	const n = 500
	putMany(t, in.Queue, "close", n)
	c, err := in.Queue.Consume("close")
	if err != nil {
		t.Fatal(err)
	}
	jobs := receive(t, c, n)
	var mu sync.Mutex
	gone := make(map[string]bool) // the jobs whose Done returned nil
	var started, ended sync.WaitGroup
	started.Add(n)
	for _, j := range jobs {
		ended.Go(func() {
			started.Done()
			if j.Done(ctxOf(t)) == nil { // else it had not begun when Close did, or the job may be served again
				mu.Lock()
				defer mu.Unlock()
				gone[string(j.Body())] = true
			}
		})
	}
	started.Wait()
	if err := c.Close(ctxOf(t)); err != nil {
		t.Fatalf("close: %v", err)
	}
	ended.Wait()
	b := consume(t, in.Queue, "close")
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
		again, err := b.Receive(ctx, n)
		cancel()
		if err != nil {
			break
		}
		for _, j := range again {
			if gone[string(j.Body())] {
				t.Errorf("job %q is served again after its Done", j.Body())
			}
		}
		done(t, again...)
	}
}

func testLeaseKept(t *testing.T, e Engine) {
	in := start(t, e)
	put(t, in.Queue, "lease", "x", queue.PutOptions{})
	a, b := consume(t, in.Queue, "lease"), consume(t, in.Queue, "lease")
	j := receiveOne(t, a)
	ctx, cancel := context.WithTimeout(context.Background(), in.Lease*3/2)
	defer cancel()
	if jobs, err := b.Receive(ctx, 1); err == nil {
		t.Fatalf("job %s was served again while it was held", jobs[0].ID())
	}
	attempt(t, j, 1)
	done(t, j)
}

func testLostReservation(t *testing.T, e Engine) {
	in := start(t, e)
	if in.PutFleeting == nil {
		return // an engine that cannot tell
	}
	c := consume(t, in.Queue, "lost")
	settles := []struct {
		name string
		call func(queue.Job) error
		want error
	}{
		{"done", func(j queue.Job) error { return j.Done(ctxOf(t)) }, queue.ErrLost},
		{"bury", func(j queue.Job) error { return j.Bury(ctxOf(t), nil) }, queue.ErrLost},
		{"touch", func(j queue.Job) error { return j.Touch(ctxOf(t)) }, queue.ErrLost},
		{"retry", func(j queue.Job) error { return j.Retry(ctxOf(t), 0) }, nil},
	}
	var steals []func()
	for range settles {
		steals = append(steals, in.PutFleeting(t, "lost", []byte("x")))
	}
	jobs := receive(t, c, len(settles))
	for _, steal := range steals {
		steal()
	}
	for i, s := range settles {
		if err := s.call(jobs[i]); !errors.Is(err, s.want) {
			t.Fatalf("%s: %v, want %v", s.name, err, s.want)
		}
	}
}

func testManyConsumers(t *testing.T, e Engine) {
	in := start(t, e)
	const n = 10000
	l := newLedger(n)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 8 {
		c := consume(t, in.Queue, "many")
		wg.Go(func() {
			if err := work(ctx, c, 100, l); err != nil {
				t.Errorf("receive: %v", err)
			}
		})
	}
	putMany(t, in.Queue, "many", n)
	l.wait(t)
	if again := l.repeats(); again != "" {
		t.Fatal(again)
	}
}
