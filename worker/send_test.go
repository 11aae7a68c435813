package worker

import (
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// eachSink keeps the deliveries of lists that it is told of.
type eachSink struct{ got map[string]Delivery }

func (s *eachSink) Pushed(e *Event) {
	for d := range e.Each() {
		s.got[d.Token] = d
	}
}

// While the last token of a list is not answered, of the others only what is told of
// them stays, and each of them is told.
func TestDeliveredPushesOfAListAreSmall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 3*chunkSize + 5
		tokens := manyTokens(n)
		b := newBench(t, newFakeQueue(fanOutText(tokens, "")))
		b.cfg.InFlight = n
		sink := &eachSink{make(map[string]Delivery)}
		b.cfg.Sinks = []Sink{sink}
		b.answer = func(m *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			takes := time.Second
			if m.Token == tokens[n-1] {
				takes = 5 * time.Second
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200, APNsID: "id of " + m.Token}, takes
		}
		b.start()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r := b.cur.Load()
		pushes, small := 0, 0
		counted := make(chan struct{})
		r.box.post(func() {
			defer close(counted)
			for list := range r.lists {
				for _, c := range list.chunks {
					pushes += len(c.pushes)
					small += len(c.delivered)
				}
			}
		})
		<-counted
		if pushes > chunkSize || small < n-chunkSize {
			t.Errorf("%d whole pushes stay, and %d small ones", pushes, small)
		}
		time.Sleep(5 * time.Second)
		b.halt(t)
		if len(sink.got) != n {
			t.Errorf("%d told of %d", len(sink.got), n)
		}
		for token, d := range sink.got {
			if d.APNsID != "id of "+token || d.Took < time.Second || d.At.IsZero() {
				t.Errorf("%+v", d)
			}
		}
	})
}
