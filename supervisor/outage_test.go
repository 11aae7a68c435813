package supervisor

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/queue/beanstalk/beanstalktest"
)

// The connection is cut with 500 pushes in flight, of which APNs says by
// GOAWAY that it has not touched those above one stream: all are delivered in
// the end, and only the others count as possible duplicates.
func TestConnectionKilledWith500InFlight(t *testing.T) {
	const n = 500
	w := newWorld(t, apnstest.Options{})
	silent := apnstest.Answer{Silence: true}
	w.apns.SetScript(func(r *apnstest.Request) apnstest.Answer {
		if r.Conn == 1 {
			return silent
		}
		return apnstest.Answer{}
	})
	w.putMany(topic, n)
	w.start(w.app(topic, "in_flight: 500"))
	w.until("500 in flight, without a first answer", func() bool { return w.apns.Count() == n })
	const untouched = 400
	w.apns.EachConn(func(c *apnstest.Conn) {
		c.GoAway(c.LastStream()-2*untouched, http2.ErrCodeNo, apnstest.GoAwayReason("Shutdown"))
		c.CloseTCP()
	})
	w.empty(topic)
	w.eachOnce(n)
	c := w.status(topic).Counters
	if d := c.PossibleDuplicates.Load(); d != n-untouched {
		t.Errorf("%d possible duplicates, want %d", d, n-untouched)
	}
	if s := c.Ended(apnsconn.NotSent); s != untouched {
		t.Errorf("%d not sent, want %d", s, untouched)
	}
}

// The same without a word from APNs: every push of the connection may have
// been processed.
func TestConnectionResetWith500InFlight(t *testing.T) {
	const n = 500
	w := newWorld(t, apnstest.Options{})
	w.apns.SetScript(func(r *apnstest.Request) apnstest.Answer {
		return apnstest.Answer{Silence: r.Conn == 1 && r.Stream > 1}
	})
	w.putMany(topic, n+1)
	w.start(w.app(topic, "in_flight: 500"))
	w.until("500 in flight", func() bool { return w.apns.Count() == n+1 })
	w.apns.EachConn(func(c *apnstest.Conn) { c.CloseAbruptly() })
	w.empty(topic)
	w.eachOnce(n + 1)
	if d := w.status(topic).Counters.PossibleDuplicates.Load(); d != n {
		t.Errorf("%d possible duplicates, want %d", d, n)
	}
}

func TestGoAwayInMidBurst(t *testing.T) {
	const n = 6000
	w := newWorld(t, apnstest.Options{Delay: 5 * time.Millisecond})
	w.putMany(topic, n)
	w.start(w.app(topic, "workers: 2", "in_flight: 300"))
	for _, at := range []int{1000, 3000} {
		w.until("mid-burst", func() bool { return int(w.apns.Count()) >= at })
		w.apns.EachConn(func(c *apnstest.Conn) { c.Shutdown(http2.ErrCodeNo, nil) })
	}
	w.empty(topic)
	w.eachOnce(n)
	c := w.status(topic).Counters
	if c.PossibleDuplicates.Load() != 0 {
		t.Errorf("%d possible duplicates though APNs answered all it had taken", c.PossibleDuplicates.Load())
	}
	if c.GoAways.Load() == 0 {
		t.Error("no GOAWAY counted")
	}
}

// beanstalkd is killed in mid-burst and comes back with its binlog: nothing is
// lost, and what was pushed meanwhile is not pushed again.
func TestQueueKilledInMidBurst(t *testing.T) {
	const n = 5000
	w := newWorld(t, apnstest.Options{Delay: 20 * time.Millisecond}, beanstalktest.WithBinlog())
	w.putMany(topic, n)
	w.start(w.app(topic, "in_flight: 200"))
	for _, at := range []int{500, 2000} {
		w.until("mid-burst", func() bool { return int(w.apns.Count()) >= at })
		w.bs.Kill()
		w.bs.Restart()
	}
	w.empty(topic)
	got := w.received()
	twice := 0
	for i := range n {
		switch got[token(i)] {
		case 0:
			t.Fatalf("push %d lost", i)
		case 1:
		default:
			twice++
		}
	}
	// beanstalkd counts a job's age in whole seconds, so that one put within the
	// second of its reservation may not be recognised after the restart.
	c := w.status(topic).Counters
	if doubles := int(c.PossibleDuplicates.Load()); twice > doubles || twice > n/100 {
		t.Errorf("%d pushes delivered twice, %d counted as possible duplicates", twice, doubles)
	}
	if c.Buried.Load() != 0 {
		t.Errorf("%d buried", c.Buried.Load())
	}
}

func TestQueueAbsentAtStart(t *testing.T) {
	w := newWorld(t, apnstest.Options{}, beanstalktest.WithBinlog())
	w.put(topic, jobBody(0))
	w.bs.Kill()
	w.start(w.app(topic))
	w.until("the app says why", func() bool {
		h := w.status(topic).Health
		return h.State == NoQueue && h.NoQueue && strings.Contains(h.Reason, w.bs.Addr())
	})
	w.bs.Restart()
	w.empty(topic)
	w.eachOnce(1)
	if h := w.status(topic).Health; h.NoQueue {
		t.Errorf("still: %v", h)
	}
}

// While APNs cannot be reached the jobs stay in the queue and the dials are few.
func TestApnsAbsent(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.apns.StopListening()
	w.putMany(topic, 50)
	begun := time.Now()
	w.start(w.app(topic))
	w.until("three dials have failed", func() bool { return w.status(topic).Counters.DialsFailed.Load() >= 3 })
	// 1 s and 2 s lie between three dials, less 20 % of jitter.
	if d := time.Since(begun); d < 2400*time.Millisecond {
		t.Errorf("three dials within %v", d)
	}
	w.until("all jobs are in the queue", func() bool { return w.tube(topic, "current-jobs-ready") == 50 })
	if err := w.apns.Resume(); err != nil {
		t.Fatal(err)
	}
	w.empty(topic)
	w.eachOnce(50)
	if d := w.status(topic).Counters.PossibleDuplicates.Load(); d != 0 {
		t.Errorf("%d possible duplicates", d)
	}
}

// Told to stop with 200 in flight, the worker finishes them and deletes their
// jobs.
func TestDrain(t *testing.T) {
	const n = 200
	w := newWorld(t, apnstest.Options{})
	w.apns.SetDelay(300 * time.Millisecond)
	w.putMany(topic, 2000)
	w.start(w.app(topic, "in_flight: 200"))
	w.until("200 in flight", func() bool { return w.apns.Count() >= n+1 })
	w.halt()
	answered := len(w.received())
	if left := w.tube(topic, "current-jobs-ready"); answered+left != 2000 || answered < n {
		t.Errorf("%d delivered, %d in the queue, of 2000", answered, left)
	}
	if d := w.sup.totals[topic].Counters.PossibleDuplicates.Load(); d != 0 {
		t.Errorf("%d possible duplicates", d)
	}
}

// Of two queue servers one is killed with jobs in flight: the other's are
// delivered meanwhile, and its own when it is back.
func TestOneOfTwoQueueServersKilled(t *testing.T) {
	const n = 3000
	w := newWorld(t, apnstest.Options{Delay: 100 * time.Millisecond}, beanstalktest.WithBinlog())
	w.more = newServer(t)
	w.putMany(topic, 300)
	w.start(w.app(topic, "in_flight: 200"))
	w.until("in flight", func() bool { return w.apns.Count() > 50 })
	w.bs.Kill()
	gone := w.bs
	w.bs = w.more
	for i := 300; i < n; i++ {
		w.put(topic, jobBody(i))
	}
	w.until("the other server's jobs are delivered", func() bool {
		got := w.received()
		for i := 300; i < n; i++ {
			if got[token(i)] == 0 {
				return false
			}
		}
		return true
	})
	gone.Restart()
	w.bs = gone
	w.empty(topic)
	got := w.received()
	twice := 0
	for i := range n {
		if got[token(i)] == 0 {
			t.Fatalf("push %d lost", i)
		}
		if got[token(i)] > 1 {
			twice++
		}
	}
	if d := int(w.status(topic).Counters.PossibleDuplicates.Load()); twice > d {
		t.Errorf("%d twice, %d counted", twice, d)
	}
}
