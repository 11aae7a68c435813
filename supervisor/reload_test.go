package supervisor

import (
	"crypto/x509"
	"sync/atomic"
	"testing"
	"time"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/queue/queueurl"
	"propeller/worker"
)

func (w *world) apply(apps string) {
	w.t.Helper()
	if err := w.sup.Apply(w.config(apps)); err != nil {
		w.t.Fatal(err)
	}
}

func TestReloadAddsAndRemovesApps(t *testing.T) {
	const second = "com.example.second"
	w := newWorld(t, apnstest.Options{})
	one, two := w.app(topic), w.app(second)
	w.start(one)
	w.put(topic, jobBody(0))
	w.empty(topic)
	w.apply(one + two)
	w.put(second, jobBody(1))
	w.put(topic, jobBody(2))
	w.until("both deliver", func() bool { return len(w.received()) == 3 })
	if n := w.apns.Dials(); n != 2 {
		t.Errorf("%d connections; the unchanged app should have kept its own", n)
	}
	w.empty(topic)
	w.apply(two)
	if got := w.sup.Status(); len(got) != 1 || got[0].Topic != second {
		t.Errorf("apps after removal: %+v", got)
	}
	w.until("the removed app has gone", func() bool { return w.apns.Conns() == 1 })
	w.put(topic, jobBody(3))
	w.put(second, jobBody(4))
	w.empty(second)
	if n := w.tube(topic, "current-jobs-ready"); n != 1 {
		t.Errorf("%d jobs of the removed app in the queue, want 1", n)
	}
}

// Changing an app in the middle of a burst loses and doubles nothing.
func TestReloadReplacesAChangedApp(t *testing.T) {
	const n = 4000
	w := newWorld(t, apnstest.Options{Delay: 10 * time.Millisecond})
	w.putMany(topic, n)
	w.start(w.app(topic, "in_flight: 100"))
	w.until("mid-burst", func() bool { return w.apns.Count() > 500 })
	w.apply(w.app(topic, "in_flight: 200")) // app makes a new certificate too
	w.empty(topic)
	w.eachOnce(n)
	c := w.status(topic).Counters
	if c.PossibleDuplicates.Load() != 0 || c.Ended(apnsconn.NotSent) != 0 {
		t.Errorf("%d possible duplicates, %d failed", c.PossibleDuplicates.Load(), c.Ended(apnsconn.NotSent))
	}
	if d := w.apns.Dials(); d != 2 {
		t.Errorf("%d connections, want the old one and the new", d)
	}
}

// A certificate renewed under the same path replaces the app.
func TestReloadSeesARenewedCertificate(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	entry := w.app(topic)
	w.start(entry)
	w.put(topic, jobBody(0))
	w.empty(topic)
	w.apply(entry) // the same: nothing happens
	w.put(topic, jobBody(1))
	w.empty(topic)
	w.cert(topic)
	w.apply(entry)
	reqs := w.apns.Requests()
	if !reqs[0].ClientCert.Equal(reqs[1].ClientCert) {
		t.Error("an unchanged app got a new connection")
	}
	n := 2
	w.until("the renewed certificate is used", func() bool { // the previous worker may take one more job while it ends
		w.put(topic, jobBody(n))
		n++
		w.until("it is pushed", func() bool { return int(w.apns.Count()) == n })
		return !w.apns.Requests()[n-1].ClientCert.Equal(reqs[0].ClientCert)
	})
}

// A broken app is healed by a reload with a credential that APNs takes: it does
// not wait for a probe, and what had stayed in the queue is delivered, once.
func TestReloadHealsABrokenApp(t *testing.T) {
	const n = 50
	var refused atomic.Pointer[x509.Certificate] // the first that is shown
	w := newWorld(t, apnstest.Options{Script: func(r *apnstest.Request) apnstest.Answer {
		refused.CompareAndSwap(nil, r.ClientCert)
		if r.ClientCert.Equal(refused.Load()) {
			return apnstest.Answer{Status: 403, Reason: "BadCertificate"}
		}
		return apnstest.Answer{}
	}})
	entry := w.app(topic, "ttl: 1h", "workers: 2")
	w.putMany(topic, n)
	w.start(entry)
	w.until("broken", func() bool { return w.status(topic).Health.State == Broken })
	w.cert(topic) // another
	w.apply(entry)
	reloaded := time.Now()
	w.empty(topic)
	w.eachOnce(n)
	if s := w.status(topic); s.Health.State == Broken || s.Counters.PossibleDuplicates.Load() != 0 {
		t.Errorf("%v, %d possible duplicates", s.Health, s.Counters.PossibleDuplicates.Load())
	}
	if d := time.Since(reloaded); d >= worker.ProbeEvery {
		t.Errorf("delivered %v after the reload", d)
	}
}

// A changed number of workers adds or removes workers and touches no other.
func TestReloadChangesWorkers(t *testing.T) {
	const n = 3000
	w := newWorld(t, apnstest.Options{Delay: 5 * time.Millisecond})
	w.cert(topic)
	entry := func(workers string) string {
		return "  - {topic: " + topic + ", cert: " + topic + ".pem, in_flight: 50, workers: " + workers + "}\n"
	}
	w.putMany(topic, n)
	w.start(entry("1"))
	for _, step := range []struct {
		workers string
		n       int
	}{{"3", 3}, {"2", 2}, {"4", 4}, {"1", 1}} {
		w.apply(entry(step.workers))
		if got := len(w.status(topic).Workers); got != step.n {
			t.Errorf("%d workers, want %d", got, step.n)
		}
	}
	w.empty(topic)
	w.eachOnce(n)
	w.until("one connection is left", func() bool { return w.apns.Conns() == 1 })
	if d := w.status(topic).Counters.PossibleDuplicates.Load(); d != 0 {
		t.Errorf("%d possible duplicates", d)
	}
}

func TestReloadToAnotherQueue(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	entry := w.app(topic)
	w.start(entry)
	w.put(topic, jobBody(0))
	w.empty(topic)
	other := newServer(t)
	former := w.bs
	w.bs = other
	w.apply(entry)
	w.put(topic, jobBody(1))
	w.empty(topic)
	w.eachOnce(2)
	w.bs = former
	w.until("the former queue is left", func() bool { return w.tube(topic, "current-watching") == 0 })
	w.put(topic, jobBody(2))
	if n := w.tube(topic, "current-jobs-ready"); n != 1 {
		t.Errorf("the former queue is still served: %d ready", n)
	}
}

// A reload does not wait for what the one before removed.
func TestReloadDuringADrain(t *testing.T) {
	const second = "com.example.second"
	w := newWorld(t, apnstest.Options{Script: apnstest.ByToken(map[string]apnstest.Answer{token(1): {Silence: true}})})
	one, two := w.app(topic), w.app(second)
	w.start(one)
	w.put(topic, jobBody(0))
	w.empty(topic)
	w.put(topic, jobBody(1))
	w.until("a push is unanswered", func() bool { return w.apns.Count() == 2 })
	w.apply(two)
	w.apply(two + w.app("com.example.third"))
	w.put("com.example.third", jobBody(2))
	w.until("the newest app delivers", func() bool { return w.received()[token(2)] == 1 })
	if w.tube(topic, "current-jobs-reserved") != 1 {
		t.Error("the first app has not been drained meanwhile: it was cut off, or waited for")
	}
	w.apns.EachConn(func(c *apnstest.Conn) { c.CloseAbruptly() })
}

// What cannot be built changes nothing.
func TestReloadThatFailsChangesNothing(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	entry := w.app(topic)
	w.start(entry)
	cfg := w.config(entry)
	cfg.Queue = queueurl.URL{Scheme: "nonsense"}
	cfg.Apps = append([]config.App{}, cfg.Apps...)
	cfg.Apps[0].InFlight = 7
	if err := w.sup.Apply(cfg); err == nil {
		t.Fatal("no error for a queue that cannot be")
	}
	w.put(topic, jobBody(0))
	w.empty(topic)
	w.eachOnce(1)
}

func TestApplyAfterTheEnd(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	entry := w.app(topic)
	w.start(entry)
	w.halt()
	if err := w.sup.Apply(w.config(entry)); err != ErrStopping {
		t.Errorf("Apply after the end: %v", err)
	}
}

// A reload in progress when the tree stops ends with it.
func TestStopDuringReload(t *testing.T) {
	w := newWorld(t, apnstest.Options{Delay: 300 * time.Millisecond})
	w.putMany(topic, 200)
	w.start(w.app(topic))
	w.until("some are in flight", func() bool { return w.apns.Count() > 20 })
	applied := make(chan error, 1)
	cfg := w.config(w.app("com.example.other"))
	go func() { applied <- w.sup.Apply(cfg) }()
	w.halt()
	if err := <-applied; err != nil && err != ErrStopping {
		t.Error(err)
	}
}

// toldQueue tells of its end.
type toldQueue struct {
	adminQueue
	closing func()
}

func (q *toldQueue) Close() error {
	q.closing()
	return q.adminQueue.Close()
}

// A reload that moves the queue does not close the old one under an app that
// the reload before left draining.
func TestQueueStaysOpenForWhoDrains(t *testing.T) {
	const n = 40
	w := newWorld(t, apnstest.Options{})
	former, other := w.bs, newServer(t)
	deleted := make(chan int, 2) // when a queue is closed
	w.wrap = func(q adminQueue) adminQueue {
		return &toldQueue{q, func() {
			w.bs = former
			deleted <- n - w.tube(topic, "current-jobs-ready", "current-jobs-reserved", "current-jobs-delayed")
		}}
	}
	w.start(w.app(topic))
	w.put(topic, jobBody(n))
	w.empty(topic) // there is a connection
	w.apns.SetScript(apnstest.Always(apnstest.Answer{Delay: 3 * time.Second}))
	w.putMany(topic, n)
	w.until("all in flight", func() bool { return w.status(topic).Workers[0].Reserved == n })
	w.apply(w.app(topic, "in_flight: 7")) // the first app drains
	w.bs = other
	w.apply(w.app(topic, "in_flight: 7"))
	if got := <-deleted; got != n {
		t.Errorf("the queue is closed when %d of %d jobs are deleted", got, n)
	}
	w.eachOnce(n + 1)
}
