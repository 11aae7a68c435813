package worker

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// largeJob is a job of so many bytes with one token.
func largeJob(size int) string {
	text := jobText("")
	return text[:len(text)-1] + strings.Repeat(" ", size-len(text)) + "}"
}

// A worker that has met small jobs only holds no more large ones than its budget,
// which one may exceed, and all are pushed.
func TestLargeJobsAreBounded(t *testing.T) {
	const small = 600
	for name, size := range map[string]int{"1 MiB": 1 << 20, "5 MiB": 5 << 20, "more than the budget": maxWeight + 1} {
		may := (maxWeight + size - 1) / size
		large := 2*may + 4
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var bodies []string
				for range small {
					bodies = append(bodies, jobText(""))
				}
				body := largeJob(size)
				for range large {
					bodies = append(bodies, body)
				}
				q := newFakeQueue(bodies...)
				b := newBench(t, q)
				b.cfg.InFlight = 500
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Second
				}
				b.start()
				isLarge := func(j *fakeJob) bool { return len(j.body) > 1000 }
				most, paused := 0, 0
				for range large + 10 {
					synctest.Wait()
					q.mu.Lock()
					held := large
					for _, jobs := range [][]*fakeJob{q.ready, q.done} {
						for _, j := range jobs {
							if isLarge(j) {
								held--
							}
						}
					}
					paused = q.paused
					q.mu.Unlock()
					most = max(most, held)
					time.Sleep(time.Second)
				}
				if most > may || most == 0 {
					t.Errorf("%d held, at most %d", most, may)
				}
				if paused == 0 {
					t.Error("the consumer goes on fetching")
				}
				b.halt(t)
				if done, buried, _, _ := q.counts(); done != small+large || buried != 0 {
					t.Errorf("done %d, buried %d", done, buried)
				}
				if i := slices.IndexFunc(q.done, isLarge); i < 0 {
					t.Error("no large job")
				}
			})
		})
	}
}

// Jobs that linger, because their queue server is away, keep nobody from others up to
// as much again, and no more than that is held.
func TestLargeJobsThatLinger(t *testing.T) {
	var w weight
	of := func(size int) *task { return &task{body: make([]byte, size)} }
	var held []*task
	for !w.full() {
		one := of(4 << 20)
		if !w.take(one) {
			t.Fatal("not full, and takes none")
		}
		held = append(held, one)
	}
	if w.take(of(1)) || w.jobs(500) != 1 {
		t.Error("takes more than its budget")
	}
	w.leave(of(1))
	for _, one := range held {
		if one.lingers = w.linger(one); !one.lingers {
			t.Fatal("none lingers")
		}
	}
	if w.full() {
		t.Error("those that linger hold others up")
	}
	more := of(1 << 20)
	if !w.take(more) || w.linger(more) {
		t.Error("any number may linger")
	}
	w.leave(more)
	for _, one := range held {
		w.leave(one)
	}
	if huge := of(2 * maxWeight); !w.take(huge) || !w.full() || !w.linger(huge) || w.full() {
		t.Error("a job larger than the budget")
	}
	if w.reserved != 0 || w.lingering != 2*maxWeight {
		t.Errorf("%+v", w)
	}
}
