package worker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/apnsconn"
)

// fate is what became of a job's tokens.
type fate struct {
	tried                                  bool
	delivered, dead, buried, expired, back int
	reason                                 string
}

// fates adds up events by job.
type fates struct {
	mu  sync.Mutex
	sum map[string]*fate
}

func (f *fates) Pushed(e *Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sum[e.Job]
	if s == nil {
		s = new(fate)
		f.sum[e.Job] = s
	}
	switch e.Action {
	case Tried:
		s.tried = true
		return
	case Retried:
		s.back += e.N
	case Buried:
		s.buried += e.N
	case Expired:
		s.expired += e.N
	case Deleted:
		if e.Class == apnsconn.Delivered {
			s.delivered += e.N
		} else {
			s.dead += e.N
		}
	}
	if e.Reason != "" {
		s.reason = e.Reason
	}
}

// The end of each token is reported once, under the id of the job in which it was put.
func TestEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(6)
		q := newFakeQueue()
		list := q.add(`{"tokens":["` + strings.Join(tokens, `","`) + `"],"title":"t"}`)
		late := q.add(jobText(`,"expiration":1`))
		unfit := q.add(`{"token":"` + testToken + `","badge":"x"}`)
		single := q.add(jobText(""))
		b := newBench(t, q)
		seen := &fates{sum: make(map[string]*fate)}
		b.cfg.Sinks = []Sink{seen}
		busy := 2
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			switch n.Token {
			case tokens[1]:
				return apnsconn.Outcome{Class: apnsconn.Token, Status: 410, Reason: "Unregistered"}, time.Millisecond
			case tokens[2]:
				return apnsconn.Outcome{Class: apnsconn.Rejected, Status: 400, Reason: "BadTopic"}, time.Millisecond
			case tokens[3]:
				if busy > 0 {
					busy--
					return apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "ServiceUnavailable"}, time.Millisecond
				}
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Millisecond
		}
		b.start()
		time.Sleep(3 * time.Hour)
		b.halt(t)
		for id, want := range map[string]string{
			list.ID():   "tried true, 4 delivered, 1 dead, 1 buried, 0 expired, 2 back",
			late.ID():   "tried true, 0 delivered, 0 dead, 0 buried, 1 expired, 0 back",
			unfit.ID():  "tried false, 0 delivered, 0 dead, 1 buried, 0 expired, 0 back",
			single.ID(): "tried true, 1 delivered, 0 dead, 0 buried, 0 expired, 0 back",
		} {
			f := seen.sum[id]
			if f == nil {
				t.Errorf("%s: nothing", id)
				continue
			}
			if got := fmt.Sprintf("tried %v, %d delivered, %d dead, %d buried, %d expired, %d back", f.tried, f.delivered, f.dead, f.buried, f.expired, f.back); got != want {
				t.Errorf("%s: %s, want %s", id, got, want)
			}
		}
		if len(seen.sum) != 4 || !strings.Contains(seen.sum[unfit.ID()].reason, "badge") {
			t.Errorf("%d jobs, %+v", len(seen.sum), seen.sum[unfit.ID()])
		}
	})
}

// What went wrong stays to be seen when very many deliveries follow; of a token
// no more than its first characters.
func TestRecent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const refused = 60
		q := newFakeQueue()
		b := newBench(t, q)
		recent := new(Recent)
		b.cfg.Sinks = []Sink{recent}
		n := 0
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if n++; n <= refused {
				return apnsconn.Outcome{Class: apnsconn.Rejected, Status: 400, Reason: "BadTopic" + strings.Repeat("x", 300)}, 30 * time.Millisecond
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200, APNsID: "A"}, 30 * time.Millisecond
		}
		b.cfg.InFlight = 1
		for range refused + 100 {
			q.add(jobText(""))
		}
		b.start()
		time.Sleep(time.Minute)
		b.halt(t)
		all, failures := recent.Last()
		if at := recent.Active(); at.IsZero() || at != all[0].At {
			t.Errorf("active at %v", at)
		}
		if len(all) != maxRecent || len(failures) != maxRecent {
			t.Fatalf("%d and %d failures", len(all), len(failures))
		}
		for i := range maxRecent {
			if e := all[i]; e.Class != apnsconn.Delivered || e.Status != 200 || e.APNsID != "A" || e.Took != 30*time.Millisecond || e.Detail() != "" || e.Token != testToken[:8] {
				t.Errorf("%+v", e)
			}
			if e := failures[i]; e.Class != apnsconn.Rejected || e.Status != 400 || !strings.HasPrefix(e.Detail(), "400 BadTopicx") || len(e.Detail()) > maxShown || e.p != nil || e.t != nil {
				t.Errorf("%+v", e)
			}
			if i > 0 && (all[i].At.After(all[i-1].At) || failures[i].At.After(failures[i-1].At)) {
				t.Error("not the latest first")
			}
		}
	})
}

// A worker says what its connection is, and how APNs ended the one before.
func TestLinkView(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, newFakeQueue(jobText("")))
		b.start()
		time.Sleep(time.Minute)
		l := b.Status().Link
		if l.Since.IsZero() || time.Since(l.Since) < 59*time.Second || !l.GoAway.At.IsZero() {
			t.Errorf("%+v", l)
		}
		b.conns[0].end(&apnsconn.GoAwayError{Reason: "Shutdown"})
		time.Sleep(time.Minute)
		if l := b.Status().Link; !l.Since.IsZero() || l.GoAway.Reason != "Shutdown" || time.Since(l.GoAway.At) != time.Minute {
			t.Errorf("%+v", l)
		}
		b.halt(t)
	})
}

// Of very many deliveries only some are noted.
func TestRecentOfMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		recent := new(Recent)
		b.cfg.Sinks = []Sink{recent}
		for range 10_000 {
			q.add(jobText(""))
		}
		b.start()
		time.Sleep(time.Minute)
		b.halt(t)
		all, _ := recent.Last()
		took := all[0].At.Sub(all[len(all)-1].At)
		if most := recentBurst + int(took/recentEvery) + 1; len(all) > most || len(all) < recentBurst {
			t.Errorf("%d noted within %v", len(all), took)
		}
	})
}
