package worker

import (
	"fmt"
	"maps"
	"math"
	"testing"
	"time"

	"propeller/apnsconn"
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

// APNs' reasons are free strings: no flood of them fills the memory.
func TestCountersAreBounded(t *testing.T) {
	t.Parallel()
	var c Counters
	count := func(class apnsconn.Class, reason string) {
		c.count(class, reason)
	}
	count(apnsconn.Delivered, "")
	for i := range 10 * maxRefusals {
		count(apnsconn.Rejected, fmt.Sprint("made up ", i))
	}
	count(apnsconn.Rejected, "made up 0")
	got := c.Refusals()
	if len(got) != maxRefusals+1 || got[Refusal{apnsconn.Rejected, "made up 0"}] != 2 || got[Refusal{apnsconn.Rejected, otherReason}] != 9*maxRefusals {
		t.Errorf("%d reasons, %v", len(got), got)
	}
	if c.Ended(apnsconn.Rejected) != 10*maxRefusals+1 || c.Ended(apnsconn.Delivered) != 1 {
		t.Error("wrong sums")
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h Histogram
	for _, d := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 6 * time.Millisecond, time.Second, time.Hour} {
		h.observe(d)
	}
	sum, got := h.Snapshot()
	want := map[float64]uint64{.005: 2, .01: 3, .025: 3, .05: 3, .1: 3, .25: 3, .5: 3, 1: 4, 2.5: 4, 5: 4, 10: 4, 30: 4, 60: 4, math.Inf(1): 5}
	if sum != 3601.012 || !maps.Equal(got, want) {
		t.Errorf("%v %v", sum, got)
	}
}
