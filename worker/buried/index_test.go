package buried

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"propeller/worker/job"
)

// The oldest that match are those of the whole list, whatever the limit.
func TestOldest(t *testing.T) {
	t.Parallel()
	x, rng, start := NewIndex(slog.New(slog.DiscardHandler)), rand.New(rand.NewPCG(1, 2)), time.Unix(1e9, 0)
	for i := range 3000 {
		reason := []string{"400 BadTopic", "410 Unregistered", "413 PayloadTooLarge"}[rng.IntN(3)]
		id := fmt.Sprint(i)
		x.Told("tube", id, job.Burial{Job: id, Reason: reason, Class: "rejected", At: start.Add(time.Duration(rng.IntN(1000)) * time.Second)})
	}
	for _, reason := range []string{"", "badtopic", "REJECTED", "none"} {
		for _, limit := range []int{1, 2, 99, 900, 1100, 2999, 3000, 5000, 0} {
			f := Filter{Reason: reason, Limit: limit}
			want, wantMore := f.choose(x.all("tube"))
			got, more := x.oldest("tube", f)
			if !slices.Equal(got, want) || more != wantMore {
				t.Errorf("%q, %d: %d of them, more %v; want %d, %v", reason, limit, len(got), more, len(want), wantMore)
			}
		}
	}
	if got, more := x.oldest("none", Filter{}); len(got) > 0 || more {
		t.Error("of a tube that is not there")
	}
}

// A short list of very many jobs allocates nothing for each.
func TestListIsCheap(t *testing.T) {
	x := NewIndex(slog.New(slog.DiscardHandler))
	const n = 20_000
	for i := range n {
		id := fmt.Sprint(i)
		x.Told("tube", id, job.Burial{Job: id, Reason: "400 BadTopic", Class: "rejected", At: time.Unix(int64(i), 0)})
	}
	for _, reason := range []string{"", "zzz", "badtopic"} {
		if got := testing.AllocsPerRun(3, func() { x.oldest("tube", Filter{Reason: reason, Limit: 1}) }); got > n/100 {
			t.Errorf("%q: %.0f allocations", reason, got)
		}
	}
}

// What a matcher remembers is bounded.
func TestMatcherIsBounded(t *testing.T) {
	t.Parallel()
	m := Filter{Reason: "x7"}.matcher()
	n := 0
	for i := range 3 * maxTexts {
		if m.match(&Entry{Burial: job.Burial{Reason: fmt.Sprintf("X%d", i)}}) {
			n++
		}
	}
	if len(m.has) > maxTexts || n != 111 {
		t.Errorf("%d texts, %d match", len(m.has), n)
	}
}
