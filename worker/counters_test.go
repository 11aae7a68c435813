package worker

import (
	"fmt"
	"maps"
	"math"
	"testing"
	"time"

	"propeller/apnsconn"
)

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
