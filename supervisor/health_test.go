package supervisor

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/queue"
	"propeller/worker"
)

// Everything that can be wrong at once, removed step by step: the first state that applies is
// reported.
func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	s := snapshot{
		now: now, bad: &badCredential{`cert "a.pem": no such file`, ago(8)}, breaker: worker.BreakerState{Broken: true, Reason: "403 X", Since: ago(7)},
		pause: worker.PauseState{Paused: true, Reason: "paused by x", Since: ago(6)},
		workers: []worker.Status{{
			Serving: true, Reserved: 1, QueueErr: errors.New("q"), Unstored: errors.New("the queue takes no burials: full"), Unreachable: errors.New("refused"),
		}},
		stalled:  &Stall{Reason: "worker 0: x", Since: ago(5)},
		puts:     &failedPuts{since: ago(time.Minute), last: now, err: errors.New("p")},
		tube:     &QueueStats{TubeStats: queue.TubeStats{PausedUntil: now.Add(time.Hour)}},
		outcomes: tally{ended: 21, bad: 11, within: time.Minute, last: "503 ServiceUnavailable"}, active: ago(time.Second),
	}
	p := past{away: ago(awayGrace), down: ago(downGrace), health: Health{State: Failing, Since: ago(3)}}
	for _, step := range []struct {
		change func()
		want   Health
	}{
		{func() {}, Health{State: Broken, Reason: `cert "a.pem": no such file`, Since: ago(8), NoQueue: true}},
		{func() { s.bad = nil }, Health{State: Broken, Reason: "403 X", Since: ago(7), NoQueue: true}},
		{func() { s.breaker.Broken, s.breaker.Guarded = false, true }, Health{State: Guarded, Reason: "403 X", Since: ago(7), NoQueue: true}},
		{func() { s.breaker = worker.BreakerState{} }, Health{State: NoQueue, Reason: "the queue takes no burials: full", Since: p.away, NoQueue: true}},
		{func() { s.workers[0].Unstored = nil }, Health{State: NoQueue, Reason: "queue unavailable: q", Since: p.away, NoQueue: true}},
		{func() { s.workers[0].QueueErr = nil }, Health{State: NoQueue, Reason: "the queue takes no jobs: p", Since: ago(time.Minute), NoQueue: true}},
		{func() { s.puts = nil }, Health{State: Stalled, Reason: "worker 0: x", Since: ago(5)}},
		{func() { s.stalled = nil }, Health{State: Unreachable, Reason: "refused", Since: p.down}},
		{func() { s.workers[0].Unreachable = nil }, Health{State: Failing, Reason: "11 of 21 pushes within 1m0s were not delivered; the last: 503 ServiceUnavailable", Since: ago(3)}},
		{func() { s.outcomes.ended = 22 }, Health{State: Paused, Reason: "paused by x", Since: ago(6)}},                                                                    // half is not more than half
		{func() { s.pause = worker.PauseState{} }, Health{State: TubePaused, Reason: "in the queue until 2001-09-09 02:46:40 UTC", Since: now, Until: now.Add(time.Hour)}}, // not as long as it failed
		{func() { s.tube.PausedUntil = now }, Health{State: Running}},
		{func() { s.outcomes = tally{ended: 19, bad: 19} }, Health{State: Running}}, // too few
		{func() { s.active = ago(time.Minute) }, Health{State: Running}},            // it has a job
		{func() { s.workers[0].Reserved = 0 }, Health{State: Idle}},
		{func() { s.active = ago(59 * time.Second) }, Health{State: Running}},
	} {
		step.change()
		if got := judge(&s, p); got != step.want {
			t.Errorf("%+v, want %+v", got, step.want)
		}
	}
}

// The table of states is complete.
func TestStates(t *testing.T) {
	t.Parallel()
	trouble := 0
	for i, s := range States() {
		if s.Trouble() {
			if trouble++; trouble != i+1 {
				t.Errorf("%s comes after one that is no trouble", s)
			}
		}
	}
	if n := len(States()); n != 10 || trouble != 6 {
		t.Errorf("%d states, %d in trouble", n, trouble)
	}
	if got := (Health{State: NoQueue, Reason: "x"}).String(); got != "no queue: x" {
		t.Error(got)
	}
	if got := (Health{State: Idle}).String(); got != "idle" {
		t.Error(got)
	}
}

// The latest pushes of five minutes are counted; failures that are not the app's fault
// count as good.
func TestEnds(t *testing.T) {
	t.Parallel()
	var e recentOutcomes
	now := time.Unix(1e9, 0)
	push := func(c apnsconn.Class, n int, reason string) {
		e.Pushed(&worker.Event{At: now, Class: c, Status: 400, Reason: reason, N: n, Sent: true})
	}
	var want tally
	for c := apnsconn.Delivered; c <= apnsconn.Unknown; c++ {
		push(c, 3, c.String())
		want.ended += 3
	}
	want.ended -= 3                // the pushes not sent
	want.within = 20 * time.Second // that were enough
	want.bad = 4 * 3
	want.last = "400 rejected" // one a second is kept
	e.Pushed(&worker.Event{At: now, Class: apnsconn.Rejected, N: 1})
	e.Pushed(&worker.Event{At: now, Action: worker.Tried, N: 1, Sent: true})
	if got := e.tally(now); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	now = now.Add(290 * time.Second)
	push(apnsconn.Unavailable, 1, "Later")
	want = tally{want.ended + 1, want.bad + 1, 5 * time.Minute, "400 Later"}
	if got := e.tally(now); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	now = now.Add(10 * time.Second)
	if got := e.tally(now); got != (tally{1, 1, 5 * time.Minute, "400 Later"}) {
		t.Errorf("after five minutes: %+v", got)
	}
	push(apnsconn.Delivered, 1, "")
	if got := e.tally(now); got != (tally{2, 1, 5 * time.Minute, "400 Later"}) {
		t.Errorf("in a bucket that was used before: %+v", got)
	}
	now = now.Add(-300 * time.Second)
	push(apnsconn.Delivered, 1, "") // it arrives late
	now = now.Add(300 * time.Second)
	if e.forget(); e.tally(now).ended != 0 {
		t.Errorf("%+v", e.tally(now))
	}
}

// Pushes are counted while others are.
func TestEndsAtOnce(t *testing.T) {
	t.Parallel()
	var e recentOutcomes
	now := time.Now()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				e.Pushed(&worker.Event{At: now, Class: apnsconn.Unknown, N: 1, Sent: true})
				e.tally(now)
			}
		})
	}
	all.Wait()
	// Pushes may be lost when a bucket is reused: here at most one each.
	if got := e.tally(now); got.ended < 8000-8 || got.ended > 8000 {
		t.Errorf("%+v", got)
	}
}

// An app whose jobs wait while APNs cannot be reached says so within seconds, and recovers with
// the first push.
func TestUnreachable(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.apns.StopListening()
	w.start(w.app(topic, "workers: 3"))
	if h := w.status(topic).Health; h.State != Idle {
		t.Errorf("%+v before there is a job", h)
	}
	w.put(topic, jobBody(0))
	begun := time.Now()
	w.until("it is unreachable", func() bool { return w.status(topic).Health.State == Unreachable })
	h := w.status(topic).Health
	if since := h.Since.Sub(begun); since < -time.Second || since > 5*time.Second || time.Since(h.Since) < downGrace || !strings.Contains(h.Reason, "refused") {
		t.Errorf("%+v, begun %v", h, begun)
	}
	if err := w.apns.Resume(); err != nil {
		t.Fatal(err)
	}
	w.empty(topic)
	w.until("it is well", func() bool { return w.status(topic).Health.State == Running })
	w.eachOnce(1)
}

// An app whose pushes are all answered with 5xx is failing.
func TestFailing(t *testing.T) {
	const n = 30
	w := newWorld(t, apnstest.Options{})
	var bad sync.Map // tokens that have been refused
	w.apns.SetScript(func(r *apnstest.Request) apnstest.Answer {
		if _, again := bad.LoadOrStore(r.Token, true); again {
			return apnstest.Answer{}
		}
		return apnstest.Answer{Status: 503, Reason: "ServiceUnavailable"}
	})
	w.start(w.app(topic, "retry: {min: 5s, max: 10s}"))
	w.putMany(topic, n)
	w.until("it fails", func() bool { return w.status(topic).Health.State == Failing })
	if h := w.status(topic).Health; !strings.HasSuffix(h.Reason, "; the last: 503 ServiceUnavailable") || h.Since.IsZero() {
		t.Errorf("%+v", h)
	}
	w.until("the log says so", func() bool { return w.log.contains("app fails: most of its pushes are not delivered") })
	w.empty(topic) // each was delivered at the second try
	w.until("it is well", func() bool { return w.status(topic).Health.State == Running })
	w.until("the log says that, too", func() bool { return w.log.contains("app recovered: most of its pushes are delivered again") })
	w.eachOnce(n)
}

// A tube paused in the queue is reported, with the time until when.
func TestTubePaused(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.period = period
	w.start(w.app(topic))
	c := w.bs.Dial()
	defer c.Close()
	if _, _, err := gobeanstalk.NewTubeSet(c, topic).Reserve(0); !errors.Is(err, gobeanstalk.ErrTimeout) { // there is a tube now
		t.Fatal(err)
	}
	if err := gobeanstalk.NewTube(c, topic).Pause(100 * time.Second); err != nil {
		t.Fatal(err)
	}
	paused := time.Now()
	w.put(topic, jobBody(0))
	w.until("its tube is paused", func() bool { return w.status(topic).Health.State == TubePaused })
	h := w.status(topic).Health
	if d := h.Until.Sub(paused); d < 90*time.Second || d > 101*time.Second || h.Since.IsZero() {
		t.Errorf("%+v, paused at %v", h, paused)
	}
	if want := fmt.Sprint("until ", h.Until.UTC().Format("2006-01-02 15:04:05 UTC")); !strings.HasSuffix(h.Reason, want) {
		t.Errorf("%q", h.Reason)
	}
	if err := gobeanstalk.NewTube(c, topic).Pause(0); err != nil {
		t.Fatal(err)
	}
	w.empty(topic)
	w.until("it is well", func() bool { return w.status(topic).Health.State == Running })
}

// A put that fails for one worker explains no other worker's standstill, and the queue is
// still asked.
func TestUnstoredExplainsItsWorkerOnly(t *testing.T) {
	t.Parallel()
	s := snapshot{workers: []worker.Status{
		{Serving: true, Unstored: errors.New("the queue takes no burials: full")}, {Serving: true, Reserved: 50},
	}}
	if why := s.explanation(); why != "" {
		t.Errorf("explained by %q", why)
	}
	if why := s.queueGone(); why != "" {
		t.Errorf("gone: %q", why)
	}
	s.workers[0].QueueErr, s.workers[1].QueueErr = errors.New("a"), errors.New("b")
	if s.explanation() == "" || s.queueGone() == "" {
		t.Error("a queue that is away explains nothing")
	}
}

// An app that sends much begins to fail soon, and stops soon. One with jobs waiting is
// not idle.
func TestFailingSoon(t *testing.T) {
	t.Parallel()
	var e recentOutcomes
	now := time.Unix(1e9, 0)
	p := past{}
	at := func(seconds int, good, bad int, want State) {
		t.Helper()
		for range seconds {
			now = now.Add(time.Second)
			e.Pushed(&worker.Event{At: now, Class: apnsconn.Delivered, N: good, Sent: true})
			e.Pushed(&worker.Event{At: now, Class: apnsconn.Unavailable, Status: 503, N: bad, Sent: true})
		}
		p.health = judge(&snapshot{now: now, outcomes: e.tally(now), active: now}, p)
		if p.health.State != want {
			t.Errorf("%+v, want %s", p.health, want)
		}
	}
	at(290, 3, 0, Running)
	at(20, 0, 3, Failing)
	at(20, 3, 0, Running)
	at(20, 4, 3, Running)
	at(20, 3, 4, Failing)
	at(20, 4, 3, Running)
	waits := &QueueStats{TubeStats: queue.TubeStats{Ready: 1}}
	if h := judge(&snapshot{now: now, tube: waits}, past{}); h.State != Running {
		t.Errorf("%+v with a job waiting", h)
	}
	waits.Paused = 1
	if h := judge(&snapshot{now: now, tube: waits}, past{}); h.State != Idle {
		t.Errorf("%+v with a job that nobody gets", h)
	}
}
