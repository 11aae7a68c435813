package jetstream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// A job that is held while its tube's consumer gets a new leader may be served by that to
// somebody else, as if for the first time: Done says so. Those that come afterwards are ours.
func TestElectionWhileHeld(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 3)
	t.Run("replicas as the URL says", func(t *testing.T) {
		heldOverElection(t, openReady(t, ns.options(t)))
	})
	t.Run("more replicas than the URL says", func(t *testing.T) {
		o := ns.options(t)
		openReady(t, o) // which makes the streams
		q := openReady(t, o.with("replicas", "1"))
		heldOverElection(t, q)
		c := consumeTest(t, q, "another")
		mustPut(t, q, "another", "held")
		j := mustReceive(t, c, 1)[0]
		_ = q.link.cn.nc.ForceReconnect()
		eventually(t, "the connection is another", func() bool {
			c.t.mu.Lock()
			defer c.t.mu.Unlock()
			return j.(*job).shared
		})
	})
}

func heldOverElection(t *testing.T, q *client) {
	t.Helper()
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "held")
	j := mustReceive(t, c, 1)[0].(*job)
	eventually(t, "the consumer has a new leader", func() bool {
		_, _ = q.link.cn.nc.Request("$JS.API.CONSUMER.LEADER.STEPDOWN."+jobsStream+".tube", nil, time.Second)
		c.t.mu.Lock()
		defer c.t.mu.Unlock()
		return j.shared
	})
	if err := j.Done(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
		t.Errorf("done: %v, want ErrLost", err)
	}
	eventually(t, "it is over", func() bool {
		mustPut(t, q, "tube", "next")
		return mustReceive(t, c, 1)[0].Done(ctxOf(t)) == nil
	})
}

// Word of an election that comes late, after its leader has answered, is no news.
func TestLateWordOfAnElection(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 3)
	q := openReady(t, ns.options(t))
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "held")
	j := mustReceive(t, c, 1)[0].(*job)
	c.t.mu.Lock()
	led := c.t.leader
	c.t.mu.Unlock()
	if led.Leader == "" || led.At.IsZero() {
		t.Fatalf("%+v", led)
	}
	shared := func() bool {
		c.t.mu.Lock()
		defer c.t.mu.Unlock()
		return j.shared
	}
	word := func(leader string, at time.Time) {
		text := fmt.Sprintf(`{"type":"io.nats.jetstream.advisory.v1.consumer_leader_elected","leader":%q,"timestamp":%q}`, leader, at.Format(time.RFC3339Nano))
		if err := q.link.cn.nc.Publish(electedSubject+"tube", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	word(led.Leader, led.At.Add(-time.Second))
	mustPut(t, q, "tube", "next")
	next := mustReceive(t, c, 1)[0] // behind it
	if shared() {
		t.Error("the election before the answer counts")
	}
	word("another", led.At.Add(-time.Second))
	eventually(t, "another's election counts", shared)
	if err := next.Done(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
		t.Error(err)
	}
}

// What has lain in the socket while the process stood still may be somebody else's by now.
func TestProcessStoodStill(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	done := func() error {
		mustPut(t, q, "tube", "x")
		return mustReceive(t, c, 1)[0].Done(ctxOf(t))
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
	q.pulse.mu.Lock()
	q.pulse.last = time.Now().Add(-q.opts.AckWait)
	q.pulse.mu.Unlock()
	if err := done(); !errors.Is(err, queue.ErrLost) {
		t.Errorf("done: %v, want ErrLost", err)
	}
	q.pulse.mu.Lock()
	q.pulse.last, q.pulse.until = time.Now(), time.Time{} // drainTime later
	q.pulse.mu.Unlock()
	if err := done(); err != nil {
		t.Error(err)
	}
}

// A job that comes again with a number of tries that leaves one out was somebody else's in
// between, unless that one comes late: two consumers of ours may be served it in turns.
func TestServedElsewhereInBetween(t *testing.T) {
	t.Parallel()
	for tries, want := range map[string]error{"2": nil, "3": queue.ErrLost, "3 2": nil, "4 2": queue.ErrLost, "4 2 3": nil} {
		_, c, j := leaseTestOf(t, 10*time.Second)
		for _, try := range strings.Fields(tries) {
			parts := strings.Split(j.(*job).address(), ".")
			parts[4] = try
			c.incoming(&nats.Msg{Reply: strings.Join(parts, "."), Data: j.Body()})
		}
		if err := j.Done(ctxOf(t)); !errors.Is(err, want) {
			t.Errorf("tries %s: %v, want %v", tries, err, want)
		}
	}
}

// Jobs that each miss a serving, settled one after the other, wait for it together.
func TestManyServedElsewhere(t *testing.T) {
	t.Parallel()
	const n = 50
	q := openTest(t, Options{URL: embeddedIn(t.TempDir()), AckWait: time.Minute})
	c := consumeTest(t, q, "tube")
	for range n {
		mustPut(t, q, "tube", "x")
	}
	jobs := mustReceive(t, c, n)
	for _, j := range jobs {
		parts := strings.Split(j.(*job).address(), ".")
		parts[4] = "3"
		c.incoming(&nats.Msg{Reply: strings.Join(parts, "."), Data: j.Body()})
	}
	began := time.Now()
	for _, j := range jobs {
		if err := j.Done(ctxOf(t)); !errors.Is(err, queue.ErrLost) {
			t.Errorf("job %s: %v, want ErrLost", j.ID(), err)
		}
	}
	if took := time.Since(began); took > n*missingTime/2 {
		t.Errorf("%d jobs took %v", n, took)
	}
}

// A queue that is there and away in turns has few lines in the log, and one that stays away is
// told of in the end.
func TestFlappingIsToldBriefly(t *testing.T) {
	t.Parallel()
	logger, log := newLog()
	q := openTest(t, Options{URL: embeddedIn(t.TempDir()), Log: logger})
	for range 200 {
		q.link.set(unavailable(errors.New("no leader")))
		q.link.set(nil)
	}
	if n := strings.Count(log.String(), "queue unavailable"); n < 2 || n > changesAtOnce+2 {
		t.Errorf("%d lines for 200 changes", n)
	}
	if n, back := strings.Count(log.String(), "queue unavailable"), strings.Count(log.String(), "queue is back"); n != back {
		t.Errorf("unavailable %d times, back %d times", n, back)
	}
}
