package worker

import (
	"testing"
	"time"
)

// A worker that is held takes no job, gives those back that it has not sent, and
// goes on where it was.
func TestHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		b.start()
		q.add(jobText(""))
		time.Sleep(time.Minute)
		if done, _, _, _ := q.counts(); done != 1 {
			t.Fatalf("%d done", done)
		}
		b.app.Pause("why")
		b.app.Pause("again")
		if s := b.app.Paused(); !s.Paused || s.Reason != "why" || s.Since.IsZero() {
			t.Errorf("%+v", s)
		}
		q.add(jobText(`,"ref":"2"`))
		time.Sleep(time.Hour)
		if done, _, _, ready := q.counts(); done != 1 || ready != 1 || b.sent() != 1 {
			t.Errorf("held: %d done, %d ready, %d sent", done, ready, b.sent())
		}
		b.app.Resume()
		time.Sleep(time.Minute)
		if done, _, _, _ := q.counts(); done != 2 || b.app.Paused() != (PauseState{}) {
			t.Errorf("resumed: %d done", done)
		}
		b.halt(t)
		if len(b.app.mailboxes.all) != 0 {
			t.Error("a worker that has ended is still told")
		}
	})
}
