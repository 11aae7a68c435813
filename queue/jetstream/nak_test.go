package jetstream

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// oneByOne receives n jobs, one at a time, and returns their bodies.
func oneByOne(t *testing.T, c *consumer, n int) (jobs []queue.Job, bodies string) {
	t.Helper()
	for range n {
		j := mustReceive(t, c, 1)[0]
		jobs = append(jobs, j)
		bodies += string(j.Body())
	}
	return jobs, bodies
}

// asking leaves a pull open at the server, as a consumer does that wants more.
func asking(t *testing.T, c *consumer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctxOf(t))
	var wg sync.WaitGroup
	wg.Go(func() {
		if jobs, err := c.Receive(ctx, 1); err == nil {
			t.Errorf("received %s", jobs[0].Body())
		}
	})
	eventually(t, "the pull is made", func() bool {
		c.t.mu.Lock()
		defer c.t.mu.Unlock()
		return c.pull.open
	})
	return func() { cancel(); wg.Wait() }
}

// What a consumer gives back is served to the next one in the old order, though
// the first one's request for more still waits at the server.
func TestGiveBackKeepsTheOrder(t *testing.T) {
	t.Parallel()
	for name, giveBack := range map[string]func(*testing.T, *consumer, []queue.Job){
		"close": func(*testing.T, *consumer, []queue.Job) {},
		"retry": func(t *testing.T, c *consumer, jobs []queue.Job) {
			for _, j := range jobs {
				if err := j.Retry(ctxOf(t), 0); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", full), func(t *testing.T) {
				t.Parallel()
				q := openEmbedded(t)
				for i := range 5 {
					mustPut(t, q, "order", fmt.Sprint(i))
				}
				c := consumeTest(t, q, "order")
				jobs, _ := oneByOne(t, c, 5)
				asking(t, c)()
				if full { // one more has come that nobody asks for at present
					mustPut(t, q, "order", "5")
					eventually(t, "the job comes", func() bool {
						c.t.mu.Lock()
						defer c.t.mu.Unlock()
						return len(c.Waiting) == 1
					})
				}
				giveBack(t, c, jobs)
				endNow(t, c)
				if !full {
					mustPut(t, q, "order", "5")
				}
				again, got := oneByOne(t, consumeTest(t, q, "order"), 6)
				if got != "012345" {
					t.Errorf("served in the order %s", got)
				}
				mustDone(t, again...)
			})
		}
	}
}

// An embedded server that is stopped forgets what was just given back, unless it
// has stored that: the jobs would wait for the end of their reservations, behind
// those that come after them.
func TestGiveBackOutlivesTheServer(t *testing.T) {
	t.Parallel()
	o := Options{URL: embeddedIn(t.TempDir()), AckWait: time.Hour}
	q := openTest(t, o)
	for i := range 5 {
		mustPut(t, q, "order", fmt.Sprint(i))
	}
	c := consumeTest(t, q, "order")
	oneByOne(t, c, 5)
	endNow(t, c)
	closeNow(t, q)
	q = openTest(t, o)
	mustPut(t, q, "order", "5")
	again, got := oneByOne(t, consumeTest(t, q, "order"), 6)
	if got != "012345" {
		t.Errorf("served in the order %s", got)
	}
	mustDone(t, again...)
}

// A retry that was asked for a moment before the end waits as long as it should.
func TestRetryBeforeTheEnd(t *testing.T) {
	t.Parallel()
	o := Options{URL: embeddedIn(t.TempDir()), AckWait: 3 * time.Second}
	q := openTest(t, o)
	mustPut(t, q, "end", "later")
	c := consumeTest(t, q, "end")
	if err := mustReceive(t, c, 1)[0].Retry(ctxOf(t), time.Hour); err != nil {
		t.Fatal(err)
	}
	endNow(t, c)
	closeNow(t, q)
	q = openTest(t, o)
	ctx, cancel := context.WithTimeout(context.Background(), 2*o.AckWait)
	defer cancel()
	if jobs, err := consumeTest(t, q, "end").Receive(ctx, 1); err == nil {
		t.Errorf("%s came early", jobs[0].Body())
	}
}

// Each retry with a delay makes the server look for due jobs 10 ms later and not
// before: a steady stream of them must not keep the others from coming back.
func TestSteadyRetriesComeBack(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "steady")
	ctx, stop := context.WithCancel(ctxOf(t))
	var producers sync.WaitGroup
	for range 2 {
		producers.Go(func() {
			for ctx.Err() == nil {
				_, _ = q.Put(ctx, "steady", []byte("x"), queue.PutOptions{})
				time.Sleep(200 * time.Microsecond)
			}
		})
	}
	defer producers.Wait()
	defer stop()
	const pause, want = 100 * time.Millisecond, 500
	began, back, retried := time.Now(), 0, 0
	for back < want && retried < 20*want {
		jobs, err := c.Receive(ctxOf(t), 100) // as they come, so that there is no rest between retries
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range jobs {
			st, err := j.Stat(ctxOf(t))
			switch {
			case err != nil:
			case st.Attempt > 1:
				back++
				err = j.Done(ctxOf(t))
			default:
				retried++
				err = j.Retry(ctxOf(t), pause)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d of %d retries, a steady stream, came back within %v", back, retried, time.Since(began).Round(time.Millisecond))
	if back < want {
		t.Errorf("%d jobs were retried and %d came back", retried, back)
	}
}
