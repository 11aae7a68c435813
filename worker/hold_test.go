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
		b.cfg.Hold = new(Hold)
		b.start()
		q.add(jobText(""))
		time.Sleep(time.Minute)
		if done, _, _, _ := q.counts(); done != 1 {
			t.Fatalf("%d done", done)
		}
		b.cfg.Hold.Pause("why")
		b.cfg.Hold.Pause("again")
		if s := b.cfg.Hold.State(); !s.Held || s.Reason != "why" || s.Since.IsZero() {
			t.Errorf("%+v", s)
		}
		q.add(jobText(`,"ref":"2"`))
		time.Sleep(time.Hour)
		if done, _, _, ready := q.counts(); done != 1 || ready != 1 || b.sent() != 1 {
			t.Errorf("held: %d done, %d ready, %d sent", done, ready, b.sent())
		}
		b.cfg.Hold.Resume()
		time.Sleep(time.Minute)
		if done, _, _, _ := q.counts(); done != 2 || b.cfg.Hold.State() != (HoldState{}) {
			t.Errorf("resumed: %d done", done)
		}
		b.halt(t)
		if len(b.cfg.Hold.bells.all) != 0 {
			t.Error("a worker that has ended is still told")
		}
	})
}
