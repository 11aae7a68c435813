package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// paced is several workers of one app under max_rate, on a clock that passes only when all wait.
type paced struct {
	*bench
	totals *Totals
	mu     sync.Mutex
	at     []time.Duration // when each push was sent
	began  time.Time
	stops  []func()
	ended  sync.WaitGroup
	all    []*Worker
}

func newPaced(t *testing.T, q *fakeQueue, rate int) *paced {
	p := &paced{bench: newBench(t, q), began: time.Now()}
	p.totals = p.app.Totals
	p.totals.SetMaxRate(rate)
	p.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.at = append(p.at, time.Since(p.began))
		return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 5 * time.Millisecond
	}
	return p
}

// serve starts workers of the app.
func (p *paced) serve(workers int) {
	p.app.cfg = p.cfg
	p.app.cfg.Wall, p.app.cfg.LiveActivities = time.Now, NewApp(p.cfg, p.totals, nil).cfg.LiveActivities
	for i := range workers {
		w := p.app.NewWorker(i)
		p.all = append(p.all, w)
		ctx, cancel := context.WithCancel(context.Background())
		p.stops = append(p.stops, cancel)
		p.ended.Go(func() { _ = w.Serve(ctx) })
	}
}

func (p *paced) end() {
	for _, stop := range p.stops {
		stop()
	}
	p.ended.Wait()
}

func (p *paced) sentAt() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.at)
}

// within fails if a window of any length has more pushes than the rate and a burst, or if the
// whole time has not 95 to 105 percent of the rate.
func (p *paced) within(t *testing.T, rate int, whole time.Duration) {
	t.Helper()
	at := p.sentAt()
	n, want := float64(len(at)), float64(rate)*whole.Seconds()
	if n < .95*want-1 || n > 1.05*want+1 {
		t.Errorf("%d pushes in %v, want about %.0f", len(at), whole, want)
	}
	burst := max(1, rate/10)
	for _, window := range []time.Duration{0, 100 * time.Millisecond, time.Second, 10 * time.Second} {
		most := float64(burst) + float64(rate)*window.Seconds()
		from := 0
		for to := range at {
			for at[to]-at[from] > window {
				from++
			}
			// Those who wake late catch up, by a timer's millisecond or two.
			if n := float64(to - from + 1); n > 1.05*most+1 {
				t.Fatalf("%v: %.0f pushes within %v, at most %.0f", at[to], n, window, most)
			}
		}
	}
}

func jobsOf(n, tokens int) (bodies []string) {
	for i := range n {
		if tokens == 1 {
			bodies = append(bodies, fmt.Sprintf(`{"token":%q,"title":"t"}`, token(i)))
			continue
		}
		var list []string
		for k := range tokens {
			list = append(list, token(i*tokens+k))
		}
		bodies = append(bodies, fanOutText(list, ""))
	}
	return bodies
}

// The rate holds over a minute, for any number of workers, for single jobs and lists, and every
// worker gets its share.
func TestMaxRateHolds(t *testing.T) {
	t.Parallel()
	for _, rate := range []int{1, 15, 300} {
		for _, workers := range []int{1, 2, 8} {
			for _, tokens := range []int{1, 300} {
				t.Run(fmt.Sprintf("%d a second, %d workers, %d tokens", rate, workers, tokens), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						p := newPaced(t, newFakeQueue(jobsOf(70*rate/tokens+2*workers, tokens)...), rate)
						p.serve(workers)
						time.Sleep(time.Minute)
						synctest.Wait()
						p.within(t, rate, time.Minute)
						p.end()
						if rate < workers*10 {
							return
						}
						for i, c := range p.conns {
							if n := float64(c.count()) / float64(rate) * float64(workers) / 60; n < .5 || n > 1.5 {
								t.Errorf("connection %d has carried %.2f of its share", i, n)
							}
						}
					})
				})
			}
		}
	}
}

// The highest rate is held too.
func TestMaxRateHighest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		const rate = 100_000
		p := newPaced(t, newFakeQueue(jobsOf(120, 500)...), rate)
		p.cfg.InFlight = 2000
		p.limit = 2000
		p.serve(8)
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if n := len(p.sentAt()); n < 38_000 || n > 42_000 { // a burst, and three times as much
			t.Errorf("%d pushes, want 40,000", n)
		}
		p.end()
	})
}

// A worker that is held back says so, reserves few jobs, and sends on time when the rate changes.
func TestMaxRateReservesLittle(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newPaced(t, newFakeQueue(jobsOf(1000, 1)...), 1)
		p.cfg.InFlight = 500
		p.serve(2)
		held := 0
		for range 300 {
			time.Sleep(97 * time.Millisecond)
			synctest.Wait()
			sum := 0
			for _, w := range p.all {
				s := w.Status()
				if sum += s.Reserved; s.Cause == MaxRateReached {
					held++
					if !s.Paced {
						t.Fatal("the rate does not explain the wait")
					}
				}
			}
			if sum > 4 {
				t.Fatalf("%d jobs reserved at one push a second", sum)
			}
		}
		if held < 500 {
			t.Errorf("of 600 looks at workers %d found them held back", held)
		}
		dials, before := len(p.dialTimes()), len(p.sentAt())
		p.totals.SetMaxRate(500)
		time.Sleep(time.Second)
		if n := len(p.sentAt()) - before; n < 450 || n > 600 {
			t.Errorf("%d pushes in the second after the rate was raised to 500", n)
		}
		p.totals.SetMaxRate(0)
		time.Sleep(time.Second)
		if done, _, _, ready := p.q.counts(); ready != 0 || done < 1000 {
			t.Errorf("%d jobs ready, %d done without a rate", ready, done)
		}
		if n := len(p.dialTimes()); n != dials {
			t.Errorf("%d dials, want %d: a new rate needs no new connection", n, dials)
		}
		p.end()
	})
}

// Tokens that are known to be dead need no permission.
func TestMaxRateKnownTokens(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newPaced(t, newFakeQueue(jobsOf(1, 300)...), 10)
		for i := range 290 {
			p.app.tokens.setDead(topic, token(i), "Unregistered", 410, time.Now())
		}
		p.serve(1)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if done, _, _, _ := p.q.counts(); done != 1 || len(p.sentAt()) != 10 {
			t.Errorf("%d jobs done, %d pushes, want 1 and 10 in a second", done, len(p.sentAt()))
		}
		p.end()
	})
}

// Every request counts: those that APNs refuses and that are tried again, too.
func TestMaxRateCountsRetries(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newPaced(t, newFakeQueue(jobsOf(500, 1)...), 20)
		p.cfg.Retry.Min = time.Second
		answer := p.answer
		p.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			answer(n)
			return apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "ServiceUnavailable"}, time.Millisecond
		}
		p.serve(2)
		time.Sleep(time.Minute)
		synctest.Wait()
		p.within(t, 20, time.Minute)
		p.end()
	})
}

// The workers of an app that a reload has replaced, and of its successor, keep the rate together.
func TestMaxRateOverAReload(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newPaced(t, newFakeQueue(jobsOf(2000, 1)...), 20)
		p.serve(2)
		for range 12 {
			time.Sleep(5 * time.Second)
			stops := p.stops
			p.stops = nil
			p.app = NewApp(p.cfg, p.totals, p.app.Lanes)
			p.serve(2)
			for _, stop := range stops {
				stop()
			}
		}
		synctest.Wait()
		p.within(t, 20, time.Minute)
		p.end()
	})
}

// Workers that wake late lose nothing, and one that never comes back costs only its own.
func TestLimiterLate(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	l := newLimiter(10, now)
	var a, b, gone turn
	l.take(&a, 1, now)
	l.wait(&gone, 1, now)
	l.wait(&a, 1, now)
	l.wait(&b, 1, now)
	n := 0
	for end := now.Add(time.Minute); now.Before(end); {
		next := end
		for _, w := range []*turn{&a, &b} {
			some, at := l.look(w, 1, now)
			if some > 0 {
				n += l.take(w, some, now)
				_, at = l.look(w, 1, now)
				l.wait(w, 1, now)
			}
			if at.Before(next) {
				next = at
			}
		}
		if n == 100 {
			l.leave(&gone, now)
		}
		now = next.Add(20 * time.Millisecond)
	}
	if n < 595 || n > 602 {
		t.Errorf("%d in a minute at 10 a second", n)
	}
	if !l.moves(now) || l.moves(now.Add(time.Hour)) {
		t.Error("moves")
	}
}
