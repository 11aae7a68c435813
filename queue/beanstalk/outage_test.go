package beanstalk

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// A server that is not there at the start is found when it comes.
func TestAbsentAtStart(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	srv.Kill()
	log, lines := newLog()
	q := openTest(t, Options{Addrs: []string{srv.Addr()}, Log: log})
	a, b := consumeTest(t, q, "tube"), consumeTest(t, q, "tube")
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := a.Receive(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("receive: %v", err)
	}
	if err := a.Err(); !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), srv.Addr()) {
		t.Fatalf("err: %v", err)
	}
	if _, err := q.Put(ctxOf(t), "tube", nil, queue.PutOptions{}); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("put: %v", err)
	}
	srv.Restart()
	eventually(t, "connected", func() bool { return a.Err() == nil && b.Err() == nil })
	mustPut(t, q, "tube", "x")
	mustDone(t, mustReceive(t, a, 1)...)
	if lost, back := lines.count("queue server lost"), lines.count("queue server back"); lost != 1 || back != 1 {
		t.Fatalf("logged lost %d times and back %d times, want once each:\n%s", lost, back, lines)
	}
}

// A frozen server keeps its connections open and answers nothing. The watchdog
// notices; after the thaw the finished job is deleted, not served again.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}, timeout: 300 * time.Millisecond})
	mustPut(t, q, "tube", "one")
	c := consumeTest(t, q, "tube")
	j := mustReceive(t, c, 1)[0]
	srv.Freeze()
	if _, err := q.Put(ctxOf(t), "tube", []byte("two"), queue.PutOptions{}); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("put: %v, want ErrUnavailable", err)
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := q.Put(short, "tube", []byte("three"), queue.PutOptions{}); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	result := make(chan error, 1)
	go func() { result <- j.Done(ctxOf(t)) }()
	eventually(t, "silence noticed", func() bool { return errors.Is(c.Err(), queue.ErrUnavailable) })
	srv.Thaw()
	if err := <-result; err != nil {
		t.Fatalf("done: %v", err)
	}
	eventually(t, "connected", func() bool { return c.Err() == nil })
	mustPut(t, q, "tube", "last")
	for {
		j := mustReceive(t, c, 1)[0]
		mustDone(t, j)
		switch string(j.Body()) {
		case "one":
			t.Fatal("a finished job was served again")
		case "last":
			return
		} // a put that failed may have been stored
	}
}

// Without a binlog ids begin at 1 again: the old id is another job's, and
// stays untouched even if it looks the same.
func TestRestartWithoutBinlog(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"same", "other"} {
		t.Run(body, func(t *testing.T) {
			t.Parallel()
			srv := beanstalktest.Start(t)
			q := openTest(t, Options{Addrs: []string{srv.Addr()}})
			mustPut(t, q, "tube", "same")
			a := consumeTest(t, q, "tube")
			old := mustReceive(t, a, 1)[0]
			a.Pause()
			srv.Restart()
			eventually(t, "new job", func() bool {
				id, err := q.Put(ctxOf(t), "tube", []byte(body), queue.PutOptions{})
				if err == nil && id != old.ID() {
					t.Fatalf("new job has id %s, want %s again", id, old.ID())
				}
				return err == nil
			})
			if err := old.Done(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
				t.Fatalf("done of the old job: %v, want ErrLost", err)
			}
			j := mustReceive(t, a, 1)[0] // delivered, not taken for the old one
			if string(j.Body()) != body {
				t.Fatalf("%q", j.Body())
			}
			mustDone(t, j)
		})
	}
}

// As above, but the new job is reserved while the old one is still held.
func TestRestartWithoutBinlogWhileHeld(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	mustPut(t, q, "tube", "same")
	a := consumeTest(t, q, "tube")
	old := mustReceive(t, a, 1)[0]
	srv.Restart()
	eventually(t, "new job", func() bool {
		_, err := q.Put(ctxOf(t), "tube", []byte("same"), queue.PutOptions{})
		return err == nil
	})
	fresh := mustReceive(t, a, 1)[0]
	if err := old.Bury(ctxOf(t), nil); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("bury of the old job: %v, want ErrLost", err)
	}
	mustDone(t, fresh)
}

// One connection breaks, the others live: whoever reserves its jobs now gives
// them to their holders. No job is delivered twice, whatever becomes of it.
func TestConnectionCutWhileHeld(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	a, b := consumeTest(t, q, "tube"), consumeTest(t, q, "tube")
	const n = 200
	for range n {
		mustPut(t, q, "tube", "x")
	}
	held := mustReceive(t, a, n)
	ctx, cancel := context.WithCancel(ctxOf(t))
	var wg sync.WaitGroup
	wg.Go(func() {
		if jobs, err := b.Receive(ctx, 50); err == nil {
			t.Errorf("job %s was delivered a second time", jobs[0].ID())
		}
	})
	a.cut()
	var settled sync.WaitGroup
	for i, j := range held {
		settled.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond) // some before, some after all is back
			var err error
			if i%10 == 0 {
				err = j.Bury(ctxOf(t), nil)
			} else {
				err = j.Done(ctxOf(t))
			}
			if err != nil {
				t.Errorf("job %s: %v", j.ID(), err)
			}
		})
	}
	settled.Wait()
	cancel()
	wg.Wait()
	st, err := q.TubeStats(ctxOf(t), "tube")
	if want := (queue.TubeStats{Buried: n / 10}); err != nil || st != want {
		t.Fatalf("left: %+v, %v; want %+v", st, err, want)
	}
}

// With nobody reserving, a bury takes the job by its id; it keeps its priority.
func TestBuryAfterCut(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	a := consumeTest(t, q, "tube")
	if _, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{Priority: 42}); err != nil {
		t.Fatal(err)
	}
	j := mustReceive(t, a, 1)[0]
	a.Pause()
	a.cut()
	if err := j.Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	stats, err := srv.Dial().StatsJob(1)
	if err != nil || stats["state"] != "buried" || stats["pri"] != "42" {
		t.Fatalf("%v %v", stats, err)
	}
}

// A job of a closed consumer that another connection had reserved for it goes
// back to the tube.
func TestCloseGivesBackForeign(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	a, b := consumeTest(t, q, "tube"), consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "x")
	j := mustReceive(t, a, 1)[0].(*job)
	a.Pause()
	got := make(chan error, 1)
	go func() {
		jobs, err := b.Receive(ctxOf(t), 1)
		if err == nil && string(jobs[0].Body()) != "x" {
			err = errors.New("another job")
		}
		got <- err
	}()
	a.cut()
	_ = j.Touch(ctxOf(t)) // makes a see that its connection is gone, unless b has the job already
	eventually(t, "bound to b's connection", func() bool {
		j.loop.srv.mu.Lock()
		defer j.loop.srv.mu.Unlock()
		return j.sess != nil && j.sess.loop.c == b
	})
	if err := a.Close(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// Draining is a refusal, not an end: the consumers go on.
func TestDraining(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	mustPut(t, q, "tube", "x")
	srv.Drain()
	eventually(t, "draining", func() bool {
		_, err := q.Put(ctxOf(t), "tube", []byte("y"), queue.PutOptions{})
		return errors.Is(err, queue.ErrUnavailable) && strings.Contains(err.Error(), "draining")
	})
	c := consumeTest(t, q, "tube")
	mustDone(t, mustReceive(t, c, 1)...)
}

// A put after a restart finds the dead connection out before it is at risk.
func TestPutAfterRestart(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	mustPut(t, q, "tube", "x")
	srv.Restart()
	time.Sleep(trustIdle + 50*time.Millisecond) // idle that long, it is not trusted
	mustPut(t, q, "tube", "x")
}

func TestPutsSpreadAndAvoid(t *testing.T) {
	t.Parallel()
	a, b := beanstalktest.Start(t), beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{a.Addr(), b.Addr()}})
	count := func(n int) (onA, onB int) {
		for range n {
			switch id := mustPut(t, q, "tube", "x"); {
			case strings.HasPrefix(id, a.Addr()+"/"):
				onA++
			case strings.HasPrefix(id, b.Addr()+"/"):
				onB++
			default:
				t.Fatalf("id %q", id)
			}
		}
		return onA, onB
	}
	if onA, onB := count(100); onA == 0 || onB == 0 {
		t.Fatalf("%d and %d of 100 puts", onA, onB)
	}
	a.Kill()
	time.Sleep(trustIdle + 50*time.Millisecond)
	if onA, onB := count(100); onA != 0 || onB != 100 {
		t.Fatalf("%d puts on a dead server, %d on the other", onA, onB)
	}
	c := consumeTest(t, q, "tube")
	j := mustReceive(t, c, 1)[0]
	if !strings.HasPrefix(j.ID(), b.Addr()+"/") {
		t.Fatalf("id %q", j.ID())
	}
	if err := c.Err(); err != nil {
		t.Fatalf("err with one of two servers: %v", err)
	}
	mustDone(t, j)
}

// Close does not wait longer than it is told to, and leaves no settle call behind.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	mustPut(t, q, "tube", "a")
	mustPut(t, q, "tube", "b")
	c := consumeTest(t, q, "tube")
	jobs := mustReceive(t, c, 2)
	srv.Freeze()
	results := make(chan error, 2)
	for _, j := range jobs {
		go func() { results <- j.Done(context.Background()) }()
	}
	loop := c.loops[0]
	eventually(t, "settling", func() bool {
		loop.srv.mu.Lock()
		defer loop.srv.mu.Unlock()
		return loop.owner.Calls() == 2
	})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("close: %v", err)
	}
	for range jobs {
		if err := <-results; !errors.Is(err, queue.ErrLost) {
			t.Fatalf("done: %v, want ErrLost", err)
		}
	}
}

// A job that was finished while somebody else held it is deleted, not run
// again, should it come back to us.
func TestFinishedJobIsNotServedAgain(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	foreign, stranger := srv.Dial(), srv.Dial()
	foreign.Tube.Name = "tube"
	stranger.TubeSet.Name = map[string]bool{"tube": true}
	if _, err := foreign.Put([]byte("x"), 1, 0, time.Second); err != nil {
		t.Fatal(err)
	}
	c := consumeTest(t, q, "tube")
	j := mustReceive(t, c, 1)[0]
	id, _, err := stranger.Reserve(time.Minute) // when our second is over
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Done(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("done: %v, want ErrLost", err)
	}
	if err := stranger.Release(id, 1, 0); err != nil {
		t.Fatal(err)
	}
	mustNone(t, c)
	st, err := q.TubeStats(ctxOf(t), "tube")
	if err != nil || st != (queue.TubeStats{}) {
		t.Fatalf("left: %+v, %v", st, err)
	}
}
