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
