package beanstalk

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// A reserve that waits in the server must never stand in front of a delete.
func TestNoWaitingReserveBeforeDelete(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	c := consumeTest(t, q, "tube")
	for range 20 {
		mustPut(t, q, "tube", "x")
		j := mustReceive(t, c, 1)[0]
		ctx, cancel := context.WithCancel(ctxOf(t))
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Receive(ctx, 10) }) // wants more while the tube is empty
		time.Sleep(5 * time.Millisecond)            // so that a wrong reserve would be under way
		began := time.Now()
		mustDone(t, j)
		if took := time.Since(began); took > reserveWait/2 {
			t.Fatalf("delete took %v", took)
		}
		cancel()
		wg.Wait()
	}
}

// Hazard: different tube sets on one connection make go-beanstalk send watch
// and ignore back and forth. One consumer sends each of them once, and our own
// watch before.
func TestWatchesOnce(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	c := consumeTest(t, q, "tube")
	for range 200 {
		mustPut(t, q, "tube", "x")
	}
	mustDone(t, mustReceive(t, c, 200)...)
	stats, err := srv.Dial().Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats["cmd-watch"] != "2" || stats["cmd-ignore"] != "1" {
		t.Fatalf("%s watches and %s ignores, want 2 and 1", stats["cmd-watch"], stats["cmd-ignore"])
	}
}

// A foreign job with a short TTR is kept by the alarm, which is logged once and
// does not make the reserves spin.
func TestDeadlineSoon(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	log, lines := newLog()
	q := openTest(t, Options{Addrs: []string{srv.Addr()}, Log: log})
	foreign := srv.Dial()
	foreign.Tube.Name = "tube"
	if _, err := foreign.Put([]byte("x"), 1, 0, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	c := consumeTest(t, q, "tube")
	j := mustReceive(t, c, 1)[0]
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if jobs, err := c.Receive(ctx, 1); err == nil {
		t.Fatalf("job %s was served again", jobs[0].ID())
	}
	if st, err := j.Stat(ctxOf(t)); err != nil || st.Attempt != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	stats, err := srv.Dial().StatsJob(1)
	if err != nil || stats["timeouts"] != "0" {
		t.Fatalf("%v, %v", stats, err)
	}
	mustDone(t, j)
	if n := lines.count("DEADLINE_SOON"); n != 1 {
		t.Fatalf("logged %d times, want once:\n%s", n, lines)
	}
	all, err := srv.Dial().Stats()
	if err != nil {
		t.Fatal(err)
	}
	// One poll every 10 ms at the shortest, for 5 s, and some at the start.
	if n, _ := strconv.Atoi(all["cmd-reserve-with-timeout"]); n > 700 {
		t.Fatalf("%d reserves", n)
	}
}

// A reservation lost while nobody reserves is found by the watchdog's touch.
func TestTouchFindsLoss(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	log, lines := newLog()
	q := openTest(t, Options{Addrs: []string{srv.Addr()}, Log: log})
	c := consumeTest(t, q, "tube")
	steal := putFleeting(t, srv, "tube", []byte("x"))
	j := mustReceive(t, c, 1)[0].(*job)
	steal()
	eventually(t, "loss noticed", func() bool { return lines.count("reservation lost") == 1 })
	j.loop.srv.mu.Lock()
	unbound := j.loop.owner.Unbound()
	j.loop.srv.mu.Unlock()
	if unbound != 1 {
		t.Fatalf("%d unbound jobs, want 1", unbound)
	}
	if err := j.Retry(ctxOf(t), 0); err != nil {
		t.Fatal(err)
	}
}

// After a burst, and when nothing was ever wanted, a consumer is one goroutine.
// Not parallel: it counts the goroutines of the process.
func TestIdleConsumersAreCheap(t *testing.T) {
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	const n = 100
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(ctxOf(t))
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range n {
		tube := "tube" + strconv.Itoa(i)
		c := consumeTest(t, q, tube)
		for range 50 {
			mustPut(t, q, tube, "x")
		}
		mustDone(t, mustReceive(t, c, 50)...)
		wg.Go(func() { _, _ = c.Receive(ctx, 1000) })
	}
	eventually(t, "helpers gone", func() bool {
		return runtime.NumGoroutine()-before <= 2*n+5 // the leader, and this test's Receive
	})
	stats := func() int {
		st, err := srv.Dial().Stats()
		if err != nil {
			t.Fatal(err)
		}
		k, _ := strconv.Atoi(st["cmd-reserve-with-timeout"])
		return k
	}
	k := stats()
	time.Sleep(time.Second)
	if more := stats() - k; more > n { // each waits 5 s in the server
		t.Fatalf("%d idle consumers sent %d reserves in a second", n, more)
	}
	cancel()
}

// Pause during a burst: nothing is kept back, nothing is lost.
func TestPauseStorm(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	const n = 2000
	fill(t, q, "tube", n)
	c := consumeTest(t, q, "tube")
	seen := make(map[string]bool)
	for len(seen) < n {
		jobs, err := c.Receive(ctxOf(t), 100)
		if err != nil {
			t.Fatal(err)
		}
		c.Pause()
		for _, j := range jobs {
			if seen[j.ID()] {
				t.Fatalf("job %s twice", j.ID())
			}
			seen[j.ID()] = true
		}
		mustDone(t, jobs...)
	}
	mustNone(t, c)
}

// More tubes than put connections: every job lands in its own tube.
func TestPutsToManyTubes(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	const tubes, each = 40, 20
	var wg sync.WaitGroup
	for i := range tubes {
		tube := "tube" + strconv.Itoa(i)
		wg.Go(func() {
			for range each {
				if _, err := q.Put(ctxOf(t), tube, []byte(tube), queue.PutOptions{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range tubes {
		tube := "tube" + strconv.Itoa(i)
		c := consumeTest(t, q, tube)
		for _, j := range mustReceive(t, c, each) {
			if string(j.Body()) != tube {
				t.Fatalf("%q in tube %q", j.Body(), tube)
			}
			mustDone(t, j)
		}
		if err := c.Close(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// Puts that wait for the same dial share its failure, instead of dialling a
// dead address one after another.
func TestPutDialIsShared(t *testing.T) {
	t.Parallel()
	var dials atomic.Int32
	release := make(chan struct{})
	q, err := open(Options{Addrs: []string{"a:1"}}, func(context.Context, string) (net.Conn, error) {
		dials.Add(1)
		<-release
		return nil, errors.New("timed out")
	})
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	errs := make(chan error, n)
	for range n {
		go func() {
			_, err := q.Put(context.Background(), "tube", nil, queue.PutOptions{})
			errs <- err
		}()
	}
	eventually(t, "all under way", func() bool { return len(q.servers[0].putTokens) == n })
	close(release)
	for range n {
		if err := <-errs; !errors.Is(err, queue.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if k := dials.Load(); k != 1 {
		t.Fatalf("%d dials for %d puts", k, n)
	}
	q.Close()
}
