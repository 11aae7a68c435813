package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// watching is a Watch under test, with the wakes that it has given.
type watching struct {
	queue.Watch

	mu     sync.Mutex
	woken  map[string]int
	closed bool
	late   []string // woken after Close had returned
}

// watch starts a Watch on the instance's queue. It skips the test of an engine that has none.
func watch(t *testing.T, in Instance) *watching {
	t.Helper()
	q, ok := in.Queue.(queue.Watcher)
	if !ok {
		t.Skip("the engine does not watch tubes")
	}
	w := &watching{woken: make(map[string]int)}
	w.Watch = q.Watch(func(tube string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.woken[tube]++
		if w.closed {
			w.late = append(w.late, tube)
		}
	})
	t.Cleanup(w.end)
	return w
}

// end closes the Watch, once.
func (w *watching) end() {
	w.mu.Lock()
	was := w.closed
	w.mu.Unlock()
	if was {
		return
	}
	w.Close()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
}

// count is how often a tube was woken.
func (w *watching) count(tube string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.woken[tube]
}

// all is how many tubes were woken.
func (w *watching) all() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.woken)
}

// wait waits until a tube has been woken n times.
func (w *watching) wait(t *testing.T, tube string, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%q is woken, and no more than %d times", tube, n), func() bool { return w.count(tube) == n })
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// asleep is how long a test waits for wakes that must not come: longer than an engine takes
// to look at its tubes.
const asleep = 800 * time.Millisecond

// quiet checks that a tube is woken no more than n times.
func (w *watching) quiet(t *testing.T, tube string, n int) {
	t.Helper()
	time.Sleep(asleep)
	if k := w.count(tube); k != n {
		t.Fatalf("%q was woken %d times, want %d", tube, k, n)
	}
}

// other opens another queue on the instance's engine.
func other(t *testing.T, in Instance) queue.Queue {
	t.Helper()
	q := in.Other(t)
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("other queue: close: %v", err)
		}
	})
	return q
}

// drain finishes the only job of a tube as an app does that was woken.
func drain(t *testing.T, q queue.Queue, tube string) {
	t.Helper()
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatal(err)
	}
	done(t, receiveOne(t, c))
	if err := c.Close(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
}

// testWatchPut: whatever way a job gets into a tube wakes it, once for each Sleep.
func testWatchPut(t *testing.T, e Engine) {
	in := start(t, e)
	w := watch(t, in)
	w.Sleep("tube", "tube.other") // one of which begins with the other
	w.quiet(t, "tube", 0)
	put(t, in.Queue, "tube", "x", queue.PutOptions{})
	w.wait(t, "tube", 1)
	putMany(t, in.Queue, "tube", 50) // awake: nobody need be told
	w.quiet(t, "tube", 1)

	for i, s := range queue.PutAll(ctxOf(t), in.Queue, []queue.NewJob{{Tube: "elsewhere"}, {Tube: "tube.other", Body: []byte("x")}}) {
		if s.Err != nil {
			t.Fatalf("job %d: %v", i, s.Err)
		}
	}
	w.wait(t, "tube.other", 1)

	admin := in.Queue.(queue.Admin)
	id := put(t, in.Queue, "buried", "x", queue.PutOptions{Buried: true})
	w.Sleep("buried")
	w.quiet(t, "buried", 0) // no consumer could receive it
	if err := admin.Kick(ctxOf(t), "buried", id); err != nil {
		t.Fatal(err)
	}
	w.wait(t, "buried", 1)
	if err := w.Err(); err != nil {
		t.Errorf("err: %v", err)
	}
}

// testWatchForeign: jobs of other clients wake a tube, though this process does not see them.
func testWatchForeign(t *testing.T, e Engine) {
	in := start(t, e)
	if in.Other == nil {
		return
	}
	w := watch(t, in)
	q := other(t, in)
	w.Sleep("foreign", "still")
	w.quiet(t, "foreign", 0)
	for range 3 { // and again after each sleep
		before := w.count("foreign")
		put(t, q, "foreign", "x", queue.PutOptions{})
		drainWoken(t, in.Queue, w, "foreign", before)
		w.Sleep("foreign")
	}
	id := put(t, q, "still", "x", queue.PutOptions{Buried: true})
	w.quiet(t, "still", 0)
	if err := q.(queue.Admin).Kick(ctxOf(t), "still", id); err != nil {
		t.Fatal(err)
	}
	w.wait(t, "still", 1)
}

// testWatchBefore: jobs that were there before the Sleep wake its tubes, few or many, and so
// does one that its consumer gave back.
func testWatchBefore(t *testing.T, e Engine) {
	in := start(t, e)
	w := watch(t, in)
	put(t, in.Queue, "one", "x", queue.PutOptions{})
	w.Sleep("one")
	w.wait(t, "one", 1)
	w.Sleep("one")
	w.wait(t, "one", 2)

	put(t, in.Queue, "many7", "x", queue.PutOptions{})
	put(t, in.Queue, "many9", "x", queue.PutOptions{})
	w.Sleep(tubes("many", 100)...)
	w.wait(t, "many7", 1)
	w.wait(t, "many9", 1)

	put(t, in.Queue, "retried", "x", queue.PutOptions{})
	c := consume(t, in.Queue, "retried")
	if err := receiveOne(t, c).Retry(ctxOf(t), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	w.Sleep("retried")
	w.wait(t, "retried", 1)
	drain(t, in.Queue, "retried")
	if n := w.all(); n != 4 {
		t.Errorf("%d tubes were woken, want 4: %v", n, w.woken)
	}
}

func tubes(name string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(name, i)
	}
	return out
}

// testWatchDelayed: a delayed job wakes its tube when it comes due, whenever it was put.
func testWatchDelayed(t *testing.T, e Engine) {
	in := start(t, e)
	w := watch(t, in)
	put(t, in.Queue, "before", "x", queue.PutOptions{Delay: 2 * time.Second})
	w.Sleep("before", "after", "foreign")
	put(t, in.Queue, "after", "x", queue.PutOptions{Delay: time.Second})
	if in.Other != nil {
		put(t, other(t, in), "foreign", "x", queue.PutOptions{Delay: time.Second})
		drainWoken(t, in.Queue, w, "foreign", 0)
	}
	drainWoken(t, in.Queue, w, "after", 0)
	drainWoken(t, in.Queue, w, "before", 0)
}

// drainWoken finishes the only job of a tube once that was woken more than n times. It may have
// been woken for nothing, and sleeps again then.
func drainWoken(t *testing.T, q queue.Queue, w *watching, tube string, n int) {
	t.Helper()
	for ; ; n++ {
		until(t, tube+" is woken", func() bool { return w.count(tube) > n })
		c, err := q.Consume(tube)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), asleep)
		jobs, err := c.Receive(ctx, 1)
		cancel()
		if err == nil {
			done(t, jobs...)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := c.Close(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
		if len(jobs) > 0 {
			return
		}
		w.Sleep(tube)
	}
}

// testWatchForget: a tube that was taken out is not woken, until it sleeps again.
func testWatchForget(t *testing.T, e Engine) {
	in := start(t, e)
	w := watch(t, in)
	w.Forget("never.slept")
	w.Sleep("gone", "stays")
	w.quiet(t, "gone", 0)
	w.Forget("gone")
	put(t, in.Queue, "gone", "x", queue.PutOptions{})
	put(t, in.Queue, "stays", "x", queue.PutOptions{})
	w.wait(t, "stays", 1)
	w.quiet(t, "gone", 0)
	w.Sleep("gone")
	w.wait(t, "gone", 1)
}

// testWatchMany: of many tubes those are woken that have jobs.
func testWatchMany(t *testing.T, e Engine) {
	in := start(t, e)
	w := watch(t, in)
	q := in.Queue
	if in.Other != nil {
		q = other(t, in)
	}
	const n, few = 2000, 20
	all := tubes("tube", n)
	w.Sleep(all...)
	for i := range few {
		put(t, q, all[i*n/few], "x", queue.PutOptions{})
	}
	for i := range few {
		w.wait(t, all[i*n/few], 1)
	}
	time.Sleep(asleep)
	if k := w.all(); k != few {
		t.Errorf("%d tubes were woken, want %d", k, few)
	}
	w.Forget(all...)
}

// testWatchRace: a put at the very time of a Sleep wakes the tube, whoever is first, and wakes
// it once.
func testWatchRace(t *testing.T, e Engine) {
	in := start(t, e)
	w := watch(t, in)
	putters := []queue.Queue{in.Queue}
	if in.Other != nil {
		putters = append(putters, other(t, in))
	}
	const rounds = 300
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range rounds {
		tube := fmt.Sprint("race", i)
		wg.Go(func() {
			time.Sleep(time.Duration(i%10) * 100 * time.Microsecond)
			if _, err := putters[i%len(putters)].Put(ctxOf(t), tube, nil, queue.PutOptions{}); err != nil {
				t.Errorf("put: %v", err)
			}
		})
		w.Sleep(tube)
		if i%8 == 7 {
			wg.Wait()
		}
	}
	for i := range rounds {
		w.wait(t, fmt.Sprint("race", i), 1)
	}
	time.Sleep(asleep)
	for i := range rounds {
		if n := w.count(fmt.Sprint("race", i)); n != 1 {
			t.Errorf("race%d was woken %d times", i, n)
		}
	}
}

// testWatchOutage: what is put while the engine or the connection is away wakes its tube when
// they are back, and so does what was there before.
func testWatchOutage(t *testing.T, e Engine) {
	in := start(t, e)
	if in.Down == nil {
		return
	}
	w := watch(t, in)
	w.Sleep("early", "foreign", "own")
	w.quiet(t, "early", 0)
	in.Down(t)
	until(t, "the outage shows", func() bool { return w.Err() != nil })
	if err := w.Err(); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("err: %v, want ErrUnavailable", err)
	}
	w.Sleep("late")
	in.Up(t)
	if in.Other != nil {
		putUntilStored(t, other(t, in), "foreign") // perhaps before the Watch is back
		w.wait(t, "foreign", 1)
	}
	putUntilStored(t, in.Queue, "own")
	w.wait(t, "own", 1)
	until(t, "all is well", func() bool { return w.Err() == nil })
	for _, tube := range []string{"early", "late"} {
		w.quiet(t, tube, 0)
		put(t, in.Queue, tube, "x", queue.PutOptions{})
		w.wait(t, tube, 1)
	}
}

// putUntilStored puts a job, and again while the engine is away.
func putUntilStored(t *testing.T, q queue.Queue, tube string) {
	t.Helper()
	until(t, "a job is put", func() bool {
		_, err := q.Put(ctxOf(t), tube, nil, queue.PutOptions{})
		if err != nil && !errors.Is(err, queue.ErrUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// testWatchClose: Close ends all that Watch started, whatever is going on, and two Watches on
// one queue do not disturb each other.
func testWatchClose(t *testing.T, e Engine) {
	in := start(t, e)
	w, stays := watch(t, in), watch(t, in)
	all := tubes("tube", 200)
	stays.Sleep(all...)
	w.Sleep(all...)
	ctx, cancel := context.WithCancel(ctxOf(t))
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := in.Queue.Put(ctx, all[i%len(all)], nil, queue.PutOptions{}); err != nil && ctx.Err() == nil {
				t.Errorf("put: %v", err)
				return
			}
		}
	})
	until(t, "some are woken", func() bool { return w.all() > 20 })
	w.end()
	until(t, "all are woken", func() bool { return stays.all() == len(all) })
	cancel()
	wg.Wait()
	w.Sleep("tube0") // of no effect
	w.Forget("tube1")
	time.Sleep(asleep)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.late) > 0 {
		t.Errorf("woken after Close: %q", w.late)
	}
}

// testEmpty: a tube is empty when no consumer could have anything to do with it.
func testEmpty(t *testing.T, e Engine) {
	in := start(t, e)
	q, ok := in.Queue.(queue.Watcher)
	if !ok {
		t.Skip("the engine does not watch tubes")
	}
	is := func(want bool) {
		t.Helper()
		until(t, fmt.Sprintf("empty: %v", want), func() bool {
			empty, err := q.Empty(ctxOf(t), "tube")
			if err != nil {
				t.Fatal(err)
			}
			return empty == want
		})
	}
	is(true)
	put(t, in.Queue, "tube", "x", queue.PutOptions{Delay: time.Hour})
	put(t, in.Queue, "tube", "x", queue.PutOptions{Buried: true})
	put(t, in.Queue, "other", "x", queue.PutOptions{})
	is(true)
	put(t, in.Queue, "tube", "x", queue.PutOptions{})
	is(false)
	c := consume(t, in.Queue, "tube")
	j := receiveOne(t, c)
	is(false)
	if err := j.Retry(ctxOf(t), 0); err != nil {
		t.Fatal(err)
	}
	is(false)
	done(t, receiveOne(t, c))
	is(true)
	if _, err := q.Empty(ctxOf(t), "two words"); !errors.Is(err, queue.ErrRejected) {
		t.Errorf("of no tube: %v", err)
	}
	if in.Down == nil {
		return
	}
	in.Down(t)
	if empty, err := q.Empty(ctxOf(t), "tube"); empty || !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("with the engine down: %v, %v", empty, err)
	}
	in.Up(t)
}

// testAllStats: the jobs of all tubes are counted, and only of those that have any.
func testAllStats(t *testing.T, e Engine) {
	in := start(t, e)
	q, ok := in.Queue.(queue.Counter)
	if !ok {
		t.Skip("the engine does not count all tubes at once")
	}
	if st, err := q.AllStats(ctxOf(t)); err != nil || len(st) != 0 {
		t.Fatalf("%v, %v, want nothing", st, err)
	}
	put(t, in.Queue, "ready", "x", queue.PutOptions{})
	put(t, in.Queue, "a.b", "x", queue.PutOptions{})
	put(t, in.Queue, "a.b", "x", queue.PutOptions{Delay: time.Hour})
	put(t, in.Queue, "a.b", "x", queue.PutOptions{Delay: time.Hour})
	put(t, in.Queue, "a.b", "x", queue.PutOptions{Buried: true})
	put(t, in.Queue, "set-aside", "x", queue.PutOptions{Buried: true})
	put(t, in.Queue, "done", "x", queue.PutOptions{})
	drain(t, in.Queue, "done")
	want := map[string]queue.TubeStats{
		"ready": {Ready: 1}, "a.b": {Ready: 1, Delayed: 2, Buried: 1}, "set-aside": {Buried: 1},
	}
	var got map[string]queue.TubeStats
	until(t, "the job that is done is counted no more", func() bool {
		var err error
		if got, err = q.AllStats(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
		return got["done"] == queue.TubeStats{}
	})
	for tube, st := range got {
		if st != want[tube] {
			t.Errorf("tube %q: %+v, want %+v", tube, st, want[tube])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v, want %v", got, want)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := q.AllStats(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}
