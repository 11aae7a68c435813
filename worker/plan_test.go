package worker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
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

// A worker that has had nothing to do for a day delivers the next push within a
// second, whatever the day before has left behind: no timer, back-off or verdict
// outlives its time.
func TestDeliversAfterADay(t *testing.T) {
	t.Parallel()
	answer := func(status int, reason string) apnsconn.Outcome {
		class := apnsconn.Token
		switch status {
		case 403:
			class = apnsconn.Credential
		case 429:
			class = apnsconn.Throttled
		case 503:
			class = apnsconn.Unavailable
		}
		return apnsconn.Outcome{Class: class, Status: status, Reason: reason}
	}
	for _, tt := range []struct {
		name   string
		before func(b *bench)          // the day before begins
		jobs   int                     // of the day before
		first  func() apnsconn.Outcome // how APNs answers them; nil = 200
		after  func(b *bench)          // before the day passes
	}{
		{name: "nothing", jobs: 0},
		{name: "a push", jobs: 1},
		{
			name: "its connection was lost", jobs: 1,
			after: func(b *bench) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.conns[0].end(errors.New("connection reset"))
			},
		},
		{
			name: "apns was away", jobs: 3,
			before: func(b *bench) { b.setRefuse(errors.New("connection refused")) },
			after: func(b *bench) {
				time.Sleep(time.Hour) // dials a minute apart
				b.setRefuse(nil)
			},
		},
		{name: "the device token was dead", jobs: 1, first: func() apnsconn.Outcome { return answer(410, "Unregistered") }},
		{name: "the device token was throttled", jobs: 1, first: func() apnsconn.Outcome { return answer(429, "TooManyRequests") }},
		{name: "apns had trouble", jobs: 5, first: func() apnsconn.Outcome { return answer(503, "ServiceUnavailable") }},
		{name: "the credential was refused", jobs: 5, first: func() apnsconn.Outcome { return answer(403, "BadCertificate") }},
		{name: "a token was called wrong", jobs: 1, first: func() apnsconn.Outcome { return answer(400, "BadDeviceToken") }},
		{name: "all tokens were called wrong", jobs: 2 * guardFirst, first: func() apnsconn.Outcome { return answer(400, "BadDeviceToken") }},
		{
			name: "a push without an answer", jobs: 1,
			first: func() apnsconn.Outcome { return apnsconn.Outcome{Class: apnsconn.Unknown, Err: apnsconn.ErrTimeout} },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var well atomic.Bool // APNs is
				q := newFakeQueue()
				b := newBench(t, q)
				b.cfg.Retry.GiveUpAfter = 48 * time.Hour
				b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					if tt.first == nil || well.Load() {
						return delivered(n)
					}
					return tt.first(), 50 * time.Millisecond
				}
				if tt.before != nil {
					tt.before(b)
				}
				for i := range tt.jobs {
					q.add(fmt.Sprintf(`{"token":%q,"title":"t"}`, token(i)))
				}
				b.start()
				time.Sleep(10 * time.Minute)
				if tt.after != nil {
					tt.after(b)
				}
				well.Store(true)
				time.Sleep(24 * time.Hour)
				if _, _, _, ready := q.counts(); ready != 0 || b.Status().Reserved != 0 {
					t.Errorf("%d jobs ready and %d held after a day", ready, b.Status().Reserved)
				}
				before := b.app.Counters.Ended(apnsconn.Delivered)
				q.add(fmt.Sprintf(`{"token":%q,"title":"t"}`, token(0)))
				time.Sleep(time.Second)
				if n := b.app.Counters.Ended(apnsconn.Delivered) - before; n != 1 {
					t.Errorf("%d delivered within a second, want 1", n)
				}
				b.halt(t)
			})
		})
	}
}
