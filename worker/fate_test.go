package worker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/apnsconn"
)

// fates sums up what it is told, by job.
type fates struct {
	mu  sync.Mutex
	sum map[string]*Fate
}

func (f *fates) Observe(job string, one Fate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sum[job]
	if s == nil {
		s = new(Fate)
		f.sum[job] = s
	}
	s.Tried = s.Tried || one.Tried
	s.Delivered += one.Delivered
	s.Dead += one.Dead
	s.Buried += one.Buried
	s.Expired += one.Expired
	s.Back += one.Back
	if one.Reason != "" {
		s.Reason = one.Reason
	}
	if one.Status != 0 {
		s.Status = one.Status
	}
}

// What becomes of each token is told once, under the id of the job it was put in.
func TestObserver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(6)
		q := newFakeQueue()
		list := q.add(`{"tokens":["` + strings.Join(tokens, `","`) + `"],"title":"t"}`)
		late := q.add(jobText(`,"expiration":1`))
		unfit := q.add(`{"token":"` + testToken + `","badge":"x"}`)
		single := q.add(jobText(""))
		b := newBench(t, q)
		seen := &fates{sum: make(map[string]*Fate)}
		b.cfg.Observer = seen
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
			if got := fmt.Sprintf("tried %v, %d delivered, %d dead, %d buried, %d expired, %d back", f.Tried, f.Delivered, f.Dead, f.Buried, f.Expired, f.Back); got != want {
				t.Errorf("%s: %s, want %s", id, got, want)
			}
		}
		if len(seen.sum) != 4 || !strings.Contains(seen.sum[unfit.ID()].Reason, "badge") {
			t.Errorf("%d jobs, %+v", len(seen.sum), seen.sum[unfit.ID()])
		}
	})
}
