package worker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"propeller/apnsconn"
)

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
