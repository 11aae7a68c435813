package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// twoLanes are two apps with the same topic, server and credential, each with a tube and two
// workers of its own.
type twoLanes struct {
	lanes [2]*bench
	mu    sync.Mutex
	sent  []time.Time // pushes of both
	stops []func()
	ended sync.WaitGroup
}

func newTwoLanes(t *testing.T, answer func(n *apnsconn.Notification) apnsconn.Outcome, jobs int) *twoLanes {
	l := new(twoLanes)
	shared := NewLanes()
	for i := range l.lanes {
		var bodies []string
		for k := range jobs {
			bodies = append(bodies, fmt.Sprintf(`{"token":%q,"title":"t"}`, token(1000*i+k)))
		}
		b := newBench(t, newFakeQueue(bodies...))
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.sent = append(l.sent, time.Now())
			return answer(n), 50 * time.Millisecond
		}
		b.app = NewApp(b.cfg, new(Totals), shared)
		l.lanes[i] = b
	}
	return l
}

func (l *twoLanes) start() {
	for _, b := range l.lanes {
		for i := range 2 {
			w := b.app.NewWorker(i)
			ctx, cancel := context.WithCancel(context.Background())
			l.stops = append(l.stops, cancel)
			l.ended.Go(func() { _ = w.Serve(ctx) })
		}
	}
}

func (l *twoLanes) end() {
	for _, stop := range l.stops {
		stop()
	}
	l.ended.Wait()
}

func (l *twoLanes) sentSince(t time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range l.sent {
		if at.After(t) {
			n++
		}
	}
	return n
}

// A lane that APNs refuses stops all lanes of its credential. They try one job a minute together,
// with one dial, and once one is accepted all go on at once.
func TestLanesBreakAndHealTogether(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]apnsconn.Outcome{
		"broken":  {Class: apnsconn.Credential, Status: 403, Reason: "InvalidProviderToken"},
		"guarded": {Class: apnsconn.Token, Status: 400, Reason: "BadDeviceToken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var well atomic.Bool
				l := newTwoLanes(t, func(*apnsconn.Notification) apnsconn.Outcome {
					if well.Load() {
						return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}
					}
					return refusal
				}, 200)
				l.start()
				time.Sleep(time.Minute)
				for i, b := range l.lanes {
					if s := b.app.Breaker(); s.Broken != (name == "broken") || s.Guarded != (name == "guarded") {
						t.Errorf("lane %d: %+v", i, s)
					}
				}
				began := time.Now()
				dials := len(l.lanes[0].dialTimes()) + len(l.lanes[1].dialTimes())
				time.Sleep(20 * time.Minute)
				n := l.sentSince(began)
				if n < 15 || n > 21 {
					t.Errorf("%d pushes in 20 minutes", n)
				}
				if d := len(l.lanes[0].dialTimes()) + len(l.lanes[1].dialTimes()) - dials; d > n+1 {
					t.Errorf("%d dials for %d probes", d, n)
				}
				well.Store(true)
				time.Sleep(2 * time.Minute)
				for i, b := range l.lanes {
					if s := b.app.Breaker(); s != (BreakerState{}) {
						t.Errorf("lane %d has not healed: %+v", i, s)
					}
				}
				time.Sleep(3 * time.Hour) // what the guard doubted stays away for a while
				for i, b := range l.lanes {
					if done, _, _, _ := b.q.counts(); done != 200 {
						t.Errorf("lane %d: %d of 200 done", i, done)
					}
				}
				l.end()
			})
		})
	}
}

// The end of the trouble rings the workers of all lanes; a pause is a lane's own.
func TestResumeIsForAllLanes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		l := newTwoLanes(t, func(*apnsconn.Notification) apnsconn.Outcome {
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}
		}, 10)
		l.lanes[0].app.breaker.trip("test", time.Now())
		l.lanes[1].app.Pause("test")
		l.start()
		time.Sleep(time.Second)
		l.lanes[1].app.Resume()
		time.Sleep(time.Second)
		for i, b := range l.lanes {
			if done, _, _, _ := b.q.counts(); done != 10 {
				t.Errorf("lane %d: %d of 10 done", i, done)
			}
		}
		l.lanes[1].app.Pause("test")
		l.lanes[0].app.breaker.trip("test", time.Now())
		l.lanes[0].app.Resume()
		if !l.lanes[1].app.paused() || l.lanes[0].app.Breaker().Broken {
			t.Error("one lane's resume has ended the other's pause, or not the trouble")
		}
		l.end()
	})
}

// What APNs says about a token in one lane is known in the other.
func TestLanesShareTokens(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		l := newTwoLanes(t, func(*apnsconn.Notification) apnsconn.Outcome {
			return apnsconn.Outcome{Class: apnsconn.Token, Status: 410, Reason: "Unregistered"}
		}, 0)
		l.start()
		for _, b := range l.lanes {
			b.q.add(jobText(""))
			time.Sleep(time.Second)
		}
		for i, b := range l.lanes {
			if done, _, _, _ := b.q.counts(); done != 1 || len(b.rec.all()) != 1 {
				t.Errorf("lane %d: %d done, %d records", i, done, len(b.rec.all()))
			}
		}
		if n := l.sentSince(time.Time{}); n != 1 {
			t.Errorf("%d pushes, want 1", n)
		}
		l.end()
	})
}

// A lane without jobs, or without workers, keeps no other from its probe for long.
func TestIdleLaneLetsOthersProbe(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		l := newTwoLanes(t, func(*apnsconn.Notification) apnsconn.Outcome {
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}
		}, 0)
		l.start()
		synctest.Wait()
		l.lanes[0].app.breaker.trip("test", time.Now())
		l.lanes[1].q.add(jobText(""))
		time.Sleep(ProbeEvery + 4*probeStep)
		if l.lanes[1].app.Breaker().Broken {
			t.Error("no probe")
		}
		l.end()
		if n := len(l.lanes[0].app.breaker.seats); n != 0 || len(l.lanes[0].app.members.all) != 0 {
			t.Errorf("%d seats and %d mailboxes are left", n, len(l.lanes[0].app.members.all))
		}
	})
}

// Each worker of all lanes has a place of its own; the first of each lane come first, and those
// behind one that leaves move up.
func TestSeats(t *testing.T) {
	t.Parallel()
	var b breaker
	var all [2][3]seat
	for lane := range all {
		for i := range all[lane] {
			b.sit(&all[lane][i], i)
		}
	}
	places := func() string {
		var out []string
		for lane := range all {
			for i := range all[lane] {
				if slices.Contains(b.seats, &all[lane][i]) {
					out = append(out, fmt.Sprint(all[lane][i].place))
				}
			}
		}
		return strings.Join(out, " ")
	}
	if got := places(); got != "0 2 4 1 3 5" {
		t.Error(got)
	}
	now := time.Now()
	b.closed.Store(true)
	if !b.dial(&all[0][0], now) || b.dial(&all[1][0], now) {
		t.Error("not one dials")
	}
	b.rise(&all[0][0])
	if got := places(); got != "1 3 0 2 4" || !b.dial(&all[1][0], now.Add(time.Second)) {
		t.Error(got)
	}
}
