package jetstream

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
	"propeller/queue/queuetest"
)

// openRaw is a NATS connection with the options' account.
func openRaw(t *testing.T, o Options) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("nats://"+o.Servers[0], nats.UserInfo(o.User, o.Password))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// expire makes the queue silent until the reservation of j has ended.
func expire(t *testing.T, q *client, j queue.Job) {
	t.Helper()
	q.link.set(unavailable(errors.New("silent for the test")))
	eventually(t, "the reservation has ended", func() bool {
		q.tube("lease").mu.Lock()
		defer q.tube("lease").mu.Unlock()
		return time.Since(j.(*job).Touched) > q.opts.AckWait+50*time.Millisecond
	})
	q.link.set(nil)
}

func leaseTest(t *testing.T) (*client, *consumer, queue.Job) {
	t.Helper()
	return leaseTestOf(t, 300*time.Millisecond)
}

func leaseTestOf(t *testing.T, ackWait time.Duration) (*client, *consumer, queue.Job) {
	t.Helper()
	q := openTest(t, Options{URL: embeddedIn(t.TempDir()), AckWait: ackWait})
	c := consumeTest(t, q, "lease")
	mustPut(t, q, "lease", "x")
	return q, c, mustReceive(t, c, 1)[0]
}

// The server takes a late acknowledgement in silence: our own clock says that
// somebody else may have run the job. It is removed all the same.
func TestLateDone(t *testing.T) {
	t.Parallel()
	q, c, j := leaseTest(t)
	expire(t, q, j)
	if err := j.Done(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("done: %v", err)
	}
	if string(j.Body()) != "x" { // a receiver may look at it as long as it likes
		t.Errorf("body %q after done", j.Body())
	}
	mustNone(t, c)
}

// So does an acknowledgement that the server hears only when the reservation has
// ended, because it was away.
func TestDoneOverLongOutage(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(queue.Job) error{
		"done": func(j queue.Job) error { return j.Done(ctxOf(t)) },
		"bury": func(j queue.Job) error { return j.Bury(ctxOf(t), nil) },
	} {
		q, c, j := leaseTest(t)
		q.link.set(unavailable(errors.New("silent for the test")))
		settled := make(chan error, 1)
		go func() { settled <- settle(j) }()
		eventually(t, "it is being settled", func() bool {
			c.t.mu.Lock()
			defer c.t.mu.Unlock()
			return c.owner.Calls() == 1
		})
		expire(t, q, j)
		if err := <-settled; !errors.Is(err, queue.ErrLost) {
			t.Errorf("%s: %v, want ErrLost", name, err)
		}
		mustNone(t, c)
	}
}

// A job whose reservation has ended is not buried: somebody else may be at it.
func TestLateBury(t *testing.T) {
	t.Parallel()
	q, c, j := leaseTest(t)
	expire(t, q, j)
	if err := j.Bury(ctxOf(t), nil); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("bury: %v", err)
	}
	j = mustReceive(t, c, 1)[0]
	if st, _ := j.Stat(ctxOf(t)); st.Attempt != 2 {
		t.Errorf("attempt %d", st.Attempt)
	}
	mustDone(t, j)
	if list, err := queuetest.Buried(ctxOf(t), q, "lease", 1); err != nil || len(list) > 0 {
		t.Errorf("buried %v, %v", list, err)
	}
}

func TestLateRetryAndTouch(t *testing.T) {
	t.Parallel()
	q, c, j := leaseTest(t)
	expire(t, q, j)
	if err := j.Touch(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("touch: %v", err)
	}
	if err := j.Retry(ctxOf(t), time.Hour); err != nil { // it is back already
		t.Fatalf("retry: %v", err)
	}
	mustDone(t, mustReceive(t, c, 1)...)
}

// A job that the server serves again while it is held here is not delivered
// twice, and can be finished.
func TestServedAgainWhileHeld(t *testing.T) {
	t.Parallel()
	q, c, j := leaseTestOf(t, 2*time.Second) // enough to be kept on a busy machine
	expire(t, q, j)
	eventually(t, "it is served again", func() bool {
		mustNone(t, c)
		st, _ := j.Stat(ctxOf(t))
		return st.Attempt > 1
	})
	if err := j.Done(ctxOf(t)); err != nil {
		t.Fatalf("done: %v", err)
	}
	mustNone(t, c)
}

// A finished job whose caller could not wait is removed when the server is
// back.
func TestDoneGoesOn(t *testing.T) {
	t.Parallel()
	q, c, j := leaseTest(t)
	q.link.set(unavailable(errors.New("silent for the test")))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := j.Done(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("done: %v", err)
	}
	q.link.set(nil)
	eventually(t, "the server has heard of it", func() bool {
		c.t.mu.Lock()
		late := c.t.late.Len()
		c.t.mu.Unlock()
		return late == 0
	})
	mustNone(t, c)
	if st, err := q.TubeStats(ctxOf(t), "lease"); err != nil || st != (queue.TubeStats{}) {
		t.Errorf("%+v, %v", st, err)
	}
}

// A finished job that arrives once more is finished once more, in silence.
func TestServedAgainWhenFinished(t *testing.T) {
	t.Parallel()
	q, c, j := leaseTestOf(t, 2*time.Second) // it is remembered for twice that
	expire(t, q, j)
	// The server's answer and the job cross on the way: the job is served to
	// us, we acknowledge it, and then it arrives.
	again := &nats.Msg{Reply: j.(*job).ack, Data: j.Body()}
	if err := j.Done(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
		t.Fatal(err)
	}
	c.incoming(again)
	mustNone(t, c)
	eventually(t, "it is forgotten", func() bool {
		c.t.mu.Lock()
		defer c.t.mu.Unlock()
		return c.t.jobs.Len() == 0 && c.t.tombstones.Len() == 0
	})
}
