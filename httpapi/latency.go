package httpapi

import (
	"maps"
	"math"
	"slices"

	"propeller/worker"
)

// Latency is how long APNs took to answer pushes.
type Latency struct {
	Pushes uint64 `json:"pushes"` // that were answered
	// P50 and P99 are milliseconds: so long did half of the pushes take at most,
	// and 99 of 100. They are estimates, linear within a bucket, as
	// histogram_quantile of Prometheus has them.
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	// Buckets hold all that Pushes counts, those of the shortest times in front.
	Buckets []Bucket `json:"buckets"`
}

// Bucket counts pushes that took longer than the bucket before it says, and at
// most AtMost.
type Bucket struct {
	AtMost float64 `json:"at_most_ms,omitempty"` // 0: as long as you like; the last one
	Pushes uint64  `json:"pushes"`
}

// latencyOf is nil before the first answer.
func latencyOf(h *worker.Histogram) *Latency {
	_, atMost := h.Snapshot()
	bounds := slices.Sorted(maps.Keys(atMost))
	buckets := make([]Bucket, len(bounds))
	before := uint64(0)
	for i, bound := range bounds {
		buckets[i].Pushes = atMost[bound] - before
		before = atMost[bound]
		if !math.IsInf(bound, 1) {
			buckets[i].AtMost = bound * 1000
		}
	}
	return newLatency(buckets)
}

// newLatency is nil if the buckets are empty.
func newLatency(buckets []Bucket) *Latency {
	l := &Latency{Buckets: buckets}
	for _, b := range buckets {
		l.Pushes += b.Pushes
	}
	if l.Pushes == 0 {
		return nil
	}
	l.P50, l.P99 = l.quantile(.50), l.quantile(.99)
	return l
}

// Since is the latency of the pushes answered after earlier was taken; nil if
// there are none. Where earlier is nil, or of another run of the daemon, it is l
// itself.
func (l *Latency) Since(earlier *Latency) *Latency {
	if l == nil || earlier == nil || len(l.Buckets) != len(earlier.Buckets) {
		return l
	}
	buckets := slices.Clone(l.Buckets)
	for i, b := range earlier.Buckets {
		if b.AtMost != buckets[i].AtMost || b.Pushes > buckets[i].Pushes {
			return l
		}
		buckets[i].Pushes -= b.Pushes
	}
	return newLatency(buckets)
}

// quantile is the time that a part q of the pushes took at most, in milliseconds
// to a tenth. Of the last bucket only the beginning is known.
func (l *Latency) quantile(q float64) float64 {
	rank, seen, low := q*float64(l.Pushes), 0.0, 0.0
	for _, b := range l.Buckets {
		n := float64(b.Pushes)
		if n > 0 && seen+n >= rank {
			if b.AtMost > 0 {
				low += (b.AtMost - low) * (rank - seen) / n
			}
			break
		}
		seen += n
		low = b.AtMost
	}
	return math.Round(low*10) / 10
}
