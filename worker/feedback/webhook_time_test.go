package feedback

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
)

// Failed requests are repeated after 1 s, twice as long each time, at most 5
// minutes, for ever; after a success the first pause is short again.
func TestPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		q.addRecords(t, 0, 1)
		const failures = 30
		tr := &transport{answer: func(n int, _ *http.Request) (*http.Response, error) {
			if n == failures || n == failures+2 {
				return respond(200)
			}
			return nil, errors.New("refused")
		}}
		h, stop := serveFake(t, q, tr)
		began := time.Now()
		time.Sleep(3 * time.Hour)
		if since, reason, down := h.counters.Down(); down || q.count() != 1 {
			t.Fatalf("down since %v: %q %v, %d settled", since, reason, down, q.count())
		}
		q.addRecords(t, 1, 2)
		time.Sleep(time.Minute)
		stop()
		gaps := tr.gaps()
		nominal := time.Second
		for i, gap := range gaps[:failures] {
			if gap < nominal*8/10 || gap > min(nominal*12/10, 5*time.Minute) {
				t.Errorf("pause %d took %v, want about %v", i, gap, nominal)
			}
			nominal = min(2*nominal, 5*time.Minute)
		}
		if last := gaps[len(gaps)-1]; last < 800*time.Millisecond || last > 1200*time.Millisecond {
			t.Errorf("the first pause after a success took %v", last)
		}
		if first := tr.times[0].Sub(began); first != linger {
			t.Errorf("the first request came after %v", first)
		}
		if h.logs.count("level=WARN") != 2 || h.logs.count("level=INFO") != 2 {
			t.Errorf("a line per change was wanted:\n%s", h.logs)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                  0,
		"0":                                 0,
		"7":                                 7 * time.Second,
		"300":                               5 * time.Minute,
		"301":                               5 * time.Minute,
		"99999999999":                       5 * time.Minute,
		"99999999999999999999999":           5 * time.Minute,
		"-3":                                0,
		"1.5":                               0,
		"soon":                              0,
		"Fri, 02 Jan 2026 03:04:45 GMT":     40 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT":     0,
		"Fri, 02 Jan 2126 03:04:00 GMT":     5 * time.Minute,
		"Friday, 02-Jan-26 03:05:05 GMT":    time.Minute,
		"Fri, 02 Jan 2026 03:04:45 +0100 X": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// An endpoint that asks for time gets it.
func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		q.addRecords(t, 0, 1)
		tr := &transport{answer: func(n int, _ *http.Request) (*http.Response, error) {
			switch n {
			case 0:
				return respond(429, "Retry-After", "100")
			case 1:
				return respond(503, "Retry-After", "86400")
			case 2:
				return respond(503, "Retry-After", "0")
			}
			return respond(200)
		}}
		_, stop := serveFake(t, q, tr)
		time.Sleep(time.Hour)
		stop()
		gaps := tr.gaps()
		if len(gaps) != 3 || gaps[0] != 100*time.Second || gaps[1] != 5*time.Minute || gaps[2] < 3200*time.Millisecond || gaps[2] > 4800*time.Millisecond {
			t.Errorf("%v", gaps)
		}
	})
}

// An endpoint that does not answer is given up after 10 s.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		q.addRecords(t, 0, 1)
		tr := &transport{answer: func(n int, r *http.Request) (*http.Response, error) {
			if n == 0 {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return respond(200)
		}}
		h, stop := serveFake(t, q, tr)
		time.Sleep(time.Minute)
		stop()
		if gaps := tr.gaps(); len(gaps) != 1 || gaps[0] < 10800*time.Millisecond || gaps[0] > 11200*time.Millisecond {
			t.Errorf("%v", gaps)
		}
		if h.logs.count(`reason="no answer within 10s"`) != 1 {
			t.Errorf("log:\n%s", h.logs)
		}
	})
}

// A batch is 100 records, or what came within a second of the first, or what
// fills 256 KiB.
func TestCollect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		tr := &transport{answer: func(int, *http.Request) (*http.Response, error) { return respond(200) }}
		h, stop := serveFake(t, q, tr)
		for i := range 4 { // at 0, 0.3, 0.6 and 0.9 s
			q.addRecords(t, i, i+1)
			time.Sleep(300 * time.Millisecond)
		}
		q.addRecords(t, 4, 4+maxBatch+20) // at 1.2 s
		time.Sleep(2 * time.Second)
		large := testRecord(0)
		body, err := encode(large)
		if err != nil {
			t.Fatal(err)
		}
		body = append(body, strings.Repeat(" ", 60000)...)
		for range 12 {
			q.add(body)
		}
		time.Sleep(time.Minute)
		stop()
		if want := []int{4, 100, 20, 5, 5, 2}; !slices.Equal(tr.sizes, want) {
			t.Errorf("batches of %v, want %v", tr.sizes, want)
		}
		if got := h.counters.Delivered.Load(); got != 136 || q.settled[136] != "close" {
			t.Errorf("%d delivered, then %s", got, q.settled[len(q.settled)-1])
		}
	})
}

// During an outage of the queue what was delivered waits to be deleted; told to
// stop, it waits 2 s more.
func TestSettleInOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		q.addRecords(t, 0, 3)
		var outage atomic.Pointer[chan struct{}] // closed when it is over
		begin := func() (end func()) {
			over := make(chan struct{})
			outage.Store(&over)
			return func() { close(over) }
		}
		end := begin()
		q.done = func(ctx context.Context) error {
			select {
			case <-*outage.Load():
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		tr := &transport{answer: func(int, *http.Request) (*http.Response, error) { return respond(200) }}
		h, stop := serveFake(t, q, tr)
		time.Sleep(time.Hour)
		if q.count() != 0 || tr.count() != 1 {
			t.Fatalf("%d settled, %d requests", q.count(), tr.count())
		}
		end()
		time.Sleep(time.Second)
		if q.count() != 3 || h.counters.Undeleted.Load() != 0 {
			t.Fatalf("%d settled", q.count())
		}
		begin()
		q.addRecords(t, 3, 5)
		time.Sleep(time.Hour)
		began := time.Now()
		stop()
		if took := time.Since(began); took != settleGrace {
			t.Errorf("stopped after %v", took)
		}
		if n := h.counters.Undeleted.Load(); n != 2 || h.logs.count("records=2") != 1 {
			t.Errorf("%d undeleted:\n%s", n, h.logs)
		}
	})
}

// Stopped at any moment, all that is not delivered is given back before the
// consumer is closed.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]time.Duration{
		"while collecting": linger / 2, "in a request": linger + time.Second, "in a pause": linger + RequestTime + time.Second/4,
	} {
		synctest.Test(t, func(t *testing.T) {
			q := newFakeQueue()
			q.addRecords(t, 0, 3)
			tr := &transport{answer: func(_ int, r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}}
			_, stop := serveFake(t, q, tr)
			time.Sleep(after)
			stop()
			if want := []string{"retry 1", "retry 2", "retry 3", "close"}; !slices.Equal(q.settled, want) {
				t.Errorf("%s: %v", name, q.settled)
			}
		})
	}
}

// A reservation that was lost is counted and holds up nothing.
func TestLostReservation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		q.addRecords(t, 0, 10)
		calls := 0
		q.done = func(context.Context) error {
			if calls++; calls%2 == 0 {
				return fmt.Errorf("test: %w", queue.ErrLost)
			}
			return nil
		}
		tr := &transport{answer: func(int, *http.Request) (*http.Response, error) { return respond(200) }}
		h, stop := serveFake(t, q, tr)
		time.Sleep(time.Minute)
		stop()
		if h.counters.Undeleted.Load() != 5 || q.count() != 6 || len(tr.times) != 1 || h.logs.String() != "" {
			t.Errorf("%d undeleted, %d deleted, %d requests, log:\n%s", h.counters.Undeleted.Load(), q.count(), len(tr.times), h.logs)
		}
	})
}

// A successor with the same counters knows since when the endpoint is down.
func TestCountersOutlive(t *testing.T) {
	t.Parallel()
	var c WebhookCounters
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if !c.fail(began, began, "one") || c.fail(began.Add(time.Hour), began, "two") {
		t.Error("first failure")
	}
	if since, reason, down := c.Down(); since != began || reason != "two" || !down {
		t.Errorf("%v %q %v", since, reason, down)
	}
	if since, was := c.succeed(3); since != began || !was {
		t.Errorf("%v %v", since, was)
	}
	if _, was := c.succeed(1); was || c.Delivered.Load() != 4 || c.Batches.Load() != 2 || c.Failed.Load() != 2 {
		t.Errorf("%v, %d, %d, %d", was, c.Delivered.Load(), c.Batches.Load(), c.Failed.Load())
	}
}

// slowBody gives nothing until its request ends.
type slowBody struct{ ctx context.Context }

func (b slowBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b slowBody) Close() error { return nil }

// A body that does not come costs a second, not the request.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		q.addRecords(t, 0, 2*maxBatch)
		tr := &transport{answer: func(_ int, r *http.Request) (*http.Response, error) {
			resp, err := respond(200)
			resp.Body = slowBody{r.Context()}
			return resp, err
		}}
		h, stop := serveFake(t, q, tr)
		time.Sleep(time.Minute)
		stop()
		if gaps := tr.gaps(); len(gaps) != 1 || gaps[0] != drainTimeout || h.counters.Failed.Load() != 0 {
			t.Errorf("%v, %d failures", gaps, h.counters.Failed.Load())
		}
	})
}
