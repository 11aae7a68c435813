package queuetest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"propeller/queue"
)

func testPutReceiveDone(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "one.tube_with-all") // the consumer may come first
	id := put(t, in.Queue, "one.tube_with-all", "hello", queue.PutOptions{})
	put(t, in.Queue, "other", "not for us", queue.PutOptions{})
	j := receiveOne(t, c)
	if string(j.Body()) != "hello" {
		t.Fatalf("body %q", j.Body())
	}
	if j.ID() != id {
		t.Fatalf("put returned id %q, the job says %q", id, j.ID())
	}
	attempt(t, j, 1)
	kicked(t, j, false)
	if err := j.Touch(ctxOf(t)); err != nil {
		t.Fatalf("touch: %v", err)
	}
	if err := c.Err(); err != nil {
		t.Fatalf("err: %v", err)
	}
	done(t, j)
	none(t, c)
}

func testBodies(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "bodies")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := make([]byte, e.MaxBody)
	for i := range large {
		large[i] = byte(rand.Uint32())
	}
	for name, body := range map[string][]byte{
		"nil": nil, "empty": {}, "every byte": all, "line ends": []byte("\r\n\r\ndelete 1\r\n"), "largest": large,
	} {
		if _, err := in.Queue.Put(ctxOf(t), "bodies", body, queue.PutOptions{}); err != nil {
			t.Fatalf("%s: put: %v", name, err)
		}
		j := receiveOne(t, c)
		if !bytes.Equal(j.Body(), body) {
			t.Fatalf("%s: %d bytes put, %d other bytes received", name, len(body), len(j.Body()))
		}
		done(t, j)
	}
}

func testTooBig(t *testing.T, e Engine) {
	in := start(t, e)
	_, err := in.Queue.Put(ctxOf(t), "big", make([]byte, e.MaxBody+1), queue.PutOptions{})
	if !errors.Is(err, queue.ErrRejected) || errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("put of %d bytes: %v, want ErrRejected", e.MaxBody+1, err)
	}
	c := consume(t, in.Queue, "big")
	put(t, in.Queue, "big", "small", queue.PutOptions{})
	j := receiveOne(t, c)
	if string(j.Body()) != "small" {
		t.Fatalf("body %q", j.Body())
	}
	done(t, j)
}

func testBadTubes(t *testing.T, e Engine) {
	in := start(t, e)
	put(t, in.Queue, "good", "before", queue.PutOptions{})
	for _, tube := range []string{
		"", " ", "two words", "-dash", `back\slash`, "tab\t", "line\r\nend", "star.*", "gt.>", "a..b", ".a", "a.", "ünder",
		strings.Repeat("x", queue.MaxTubeLen+1),
	} {
		if _, err := in.Queue.Put(ctxOf(t), tube, []byte("x"), queue.PutOptions{}); !errors.Is(err, queue.ErrRejected) {
			t.Errorf("put in %q: %v, want ErrRejected", tube, err)
		}
		if c, err := in.Queue.Consume(tube); !errors.Is(err, queue.ErrRejected) {
			t.Errorf("consume %q: %v, want ErrRejected", tube, err)
			if err == nil {
				_ = c.Close(ctxOf(t))
			}
		}
	}
	long := strings.Repeat("x", queue.MaxTubeLen)
	for _, tube := range []string{"good", long} {
		put(t, in.Queue, tube, "after", queue.PutOptions{})
	}
	done(t, receive(t, consume(t, in.Queue, "good"), 2)...)
	done(t, receiveOne(t, consume(t, in.Queue, long)))
}

func testDelay(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "delay")
	delay := 300 * time.Millisecond
	put(t, in.Queue, "delay", "warm", queue.PutOptions{}) // so that the next put is not the first
	done(t, receiveOne(t, c))
	began := time.Now()
	put(t, in.Queue, "delay", "later", queue.PutOptions{Delay: delay})
	j := receiveOne(t, c)
	waited(t, e, began, delay)
	done(t, j)
}

// waited checks that a job which was to be delayed did not come early. An
// engine of whole seconds starts them on its own clock's tick of a second or
// later, so only the delay asked for is sure.
func waited(t *testing.T, e Engine, began time.Time, delay time.Duration) {
	t.Helper()
	if e.WholeSecondDelays {
		delay = delay.Truncate(time.Second) + 990*time.Millisecond // rounded up, never cut
	}
	if took := time.Since(began); took < delay {
		t.Fatalf("a job delayed by %v came after %v", delay, took)
	}
}

func testPriority(t *testing.T, e Engine) {
	if !e.Priorities {
		return // named exception: served in another order
	}
	in := start(t, e)
	for _, p := range []uint32{7, 0, 1<<32 - 1, 3} {
		put(t, in.Queue, "pri", string(rune('a'+p%26)), queue.PutOptions{Priority: p})
	}
	c := consume(t, in.Queue, "pri")
	var got string
	for range 4 {
		j := receiveOne(t, c)
		got += string(j.Body())
		// A retry and a later serve must not change the order: the job keeps
		// its priority.
		if len(got) == 1 {
			if err := j.Retry(ctxOf(t), 0); err != nil {
				t.Fatal(err)
			}
			j = receiveOne(t, c)
			if string(j.Body()) != got {
				t.Fatalf("after a retry of %q: %q", got, j.Body())
			}
		}
		done(t, j)
	}
	last := uint32(1<<32 - 1)
	if want := "ad" + "h" + string(rune('a'+last%26)); got != want {
		t.Fatalf("served in the order %q, want %q", got, want)
	}
}

func testRetryAtOnce(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "retry")
	id := put(t, in.Queue, "retry", "x", queue.PutOptions{})
	for n := 1; n <= 5; n++ {
		j := receiveOne(t, c)
		if j.ID() != id {
			t.Fatalf("try %d has id %q, first was %q", n, j.ID(), id)
		}
		attempt(t, j, n)
		if n == 5 {
			done(t, j)
			break
		}
		if err := j.Retry(ctxOf(t), 0); err != nil {
			t.Fatalf("retry: %v", err)
		}
	}
	none(t, c)
}

func testRetryLater(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "retry")
	put(t, in.Queue, "retry", "x", queue.PutOptions{})
	j := receiveOne(t, c)
	began := time.Now()
	if err := j.Retry(ctxOf(t), 1200*time.Millisecond); err != nil {
		t.Fatalf("retry: %v", err)
	}
	j = receiveOne(t, c)
	waited(t, e, began, 1200*time.Millisecond)
	attempt(t, j, 2)
	done(t, j)
}

func testBury(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "bury")
	put(t, in.Queue, "bury", "bad", queue.PutOptions{Priority: 1})
	if err := receiveOne(t, c).Bury(ctxOf(t), nil); err != nil {
		t.Fatalf("bury: %v", err)
	}
	put(t, in.Queue, "bury", "good", queue.PutOptions{Priority: 2})
	j := receiveOne(t, c)
	if string(j.Body()) != "good" {
		t.Fatalf("received %q, which was buried", j.Body())
	}
	done(t, j)
	none(t, c)
}

func testSettleOnce(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "once")
	put(t, in.Queue, "once", "x", queue.PutOptions{})
	j := receiveOne(t, c)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := j.Done(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("done with an ended context: %v", err)
	}
	done(t, j) // a context that had ended before the call changes nothing
	if err := j.Done(ctxOf(t)); err == nil {
		t.Fatal("a second done returned nil")
	}
	none(t, c)
}

func testTubeStats(t *testing.T, e Engine) {
	in := start(t, e)
	admin, ok := in.Queue.(queue.Admin)
	if !ok {
		return // optional
	}
	stats := func() queue.TubeStats {
		t.Helper()
		st, err := admin.TubeStats(ctxOf(t), "stats")
		if err != nil {
			t.Fatalf("stats: %v", err)
		}
		return st
	}
	if st := stats(); st != (queue.TubeStats{}) {
		t.Fatalf("of a tube that is not: %+v", st)
	}
	if _, err := admin.TubeStats(ctxOf(t), "bad tube"); !errors.Is(err, queue.ErrRejected) {
		t.Fatalf("of a bad name: %v", err)
	}
	c := consume(t, in.Queue, "stats")
	for i := range 5 {
		put(t, in.Queue, "stats", "x", queue.PutOptions{Delay: time.Duration(i/4) * time.Hour})
	}
	jobs := receive(t, c, 2)
	if err := jobs[0].Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	st := stats()
	if extra := st.Reserved - 1; 0 < extra && extra <= e.Overshoot {
		st.Ready, st.Reserved = st.Ready+extra, 1
	}
	if want := (queue.TubeStats{Ready: 2, Delayed: 1, Reserved: 1, Buried: 1}); st != want {
		t.Fatalf("%+v, want %+v", st, want)
	}
}

func testTubePaused(t *testing.T, e Engine) {
	in := start(t, e)
	admin, ok := in.Queue.(queue.Admin)
	if !ok || in.PauseTube == nil {
		return // optional
	}
	const tube, long = "paused", time.Hour
	c := consume(t, in.Queue, tube)
	put(t, in.Queue, tube, "before", queue.PutOptions{})
	done(t, receiveOne(t, c))
	in.PauseTube(t, tube, long)
	paused := time.Now()
	put(t, in.Queue, tube, "x", queue.PutOptions{})
	none(t, c)
	st, err := admin.TubeStats(ctxOf(t), tube)
	if err != nil {
		t.Fatal(err)
	}
	if left := st.PausedUntil.Sub(paused); st.Ready != 1 || st.Paused != 1 || left < long-time.Minute || left > long+time.Minute {
		t.Errorf("%+v, paused at %v for %v", st, paused, long)
	}
	in.PauseTube(t, tube, 0)
	done(t, receiveOne(t, c))
	if st, err = admin.TubeStats(ctxOf(t), tube); err != nil || st.Paused != 0 || !st.PausedUntil.IsZero() {
		t.Errorf("%+v, %v, and the pause has ended", st, err)
	}
}
